"""Host tensors on a machine with a GPU: on which side a call with backend="auto" is computed.

The public functions ask here in one line at their top, and only where `ACTIVE` is true:

    gate (this file) -> policy (who decides) -> model (what it costs) -> roundtrip (the way there and back)
                                            <- measured (what it took) <-

`calls` says what a call moves and computes, `points` and `defaults` feed the model, `settings` is the context manager
and the environment, `device` and `transfers` are the GPU, `explain`, `tune` and `plot` are for people.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling

from .. import _backend, _ops
from . import settings

if TYPE_CHECKING:
    from .policy import Decision, Policy

# Fewer elements in a call's first tensor are computed in less time than any round trip takes, on any CPU.
SMALL = 4096
_clock = time.perf_counter


def _possible() -> bool:
    """Whether this build and this torch could use a GPU. Does not ask the driver."""
    native = _backend.native
    built = native is not None and _ops.LOAD_ERROR is None and bool(native.cuda_archs())
    return built and torch.version.cuda is not None


_gpu_is_possible = _possible()
ACTIVE = False  # whether the public functions ask at all
FORCED = False  # whether small calls are asked about, too


def refresh() -> None:
    """Sets ACTIVE and FORCED by what is known now."""
    global ACTIVE, FORCED
    FORCED = settings.forced()
    ACTIVE = _gpu_is_possible or FORCED


def no_gpu() -> None:
    """There is none after all: nothing is asked any more unless somebody names a side."""
    global _gpu_is_possible
    _gpu_is_possible = False
    refresh()


refresh()


def considers(tensor: Any) -> bool:
    """Whether a call with this first tensor is worth asking about."""
    if is_compiling():
        return False
    return type(tensor) is Tensor and not tensor.is_cuda and (FORCED or tensor.numel() >= SMALL)


def considers_any(streams: Any) -> bool:
    """The same for streams."""
    if is_compiling():
        return False
    total = 0
    listed = streams.values() if isinstance(streams, Mapping) else streams
    for stream in listed if isinstance(listed, (list, tuple)) or listed is not streams else ():
        values = getattr(stream, "values", None)
        if type(values) is not Tensor or values.is_cuda:
            return False
        total += values.numel()
    return FORCED or total >= SMALL


_policy: Callable[[], Policy] | None = None


def _import_policy() -> Callable[[], Policy]:
    """The function that gives the process's policy, imported when the first call asks."""
    global _policy
    from .policy import policy

    _policy = policy
    return policy


class Routed(NamedTuple):
    """The answer of a call that was not left to its caller."""

    answer: Any


def route(op: str, arguments: Mapping[str, Any]) -> Routed | None:
    """The answer of a call that is not simply computed where its tensors are; None where it is.

    Args:
        op: one of calls.OPERATIONS.
        arguments: the public function's arguments by name, all of them, and nothing else.
    """
    said = settings.current()
    if said is settings.INSIDE or (arguments["backend"] != "auto" and said.result != "device"):
        return None
    asked = (_policy or _import_policy())()
    plain = not FORCED or (said == settings.NOTHING and not settings.names_a_side())
    if plain and asked.is_settled(op, arguments):
        return None
    decision = asked.decide(op, arguments)
    if decision.plan is not None and decision.plan.timed:
        return _timed(asked, op, arguments, decision)
    if decision.side != "cuda" or decision.authority == "argument":
        if said.result == "device":
            return Routed(_uploaded(op, arguments))
        if plain and asked.device.known_missing():
            no_gpu()
        return None
    return _sent(asked, op, arguments, decision)


def _timed(asked: Policy, op: str, arguments: Mapping[str, Any], decision: Decision) -> Routed:
    """The answer of a call whose time is noted; with the answer left on the GPU, this one call waits for it."""
    record, plan = decision.record, decision.plan
    assert record is not None and plan is not None
    begin = _clock()
    try:
        routed = _sent(asked, op, arguments, decision) if plan.side == "cuda" else None
        if routed is None:
            routed = Routed(_uploaded(op, arguments) if decision.result == "device" else _kept(op, arguments))
        if decision.result == "device":
            asked.device.wait()
    except BaseException:
        record.give_up(plan)
        raise
    record.note(plan, (_clock() - begin) * 1e6)
    return routed


def _kept(op: str, arguments: Mapping[str, Any]) -> Any:
    """The answer of a call that is computed where its tensors are."""
    with settings.inside():
        return _function(op)(**arguments)


def _sent(asked: Policy, op: str, arguments: Mapping[str, Any], decision: Decision) -> Routed | None:
    """The answer of a call that goes to the GPU; None where there was no room, so that its caller computes it."""
    from . import roundtrip

    if decision.obstacle is not None:
        raise RuntimeError(f"{decision.reason}, and this call cannot run there: {decision.obstacle}")
    named = decision.authority in ("context", "environment")
    with settings.inside():
        try:
            return Routed(roundtrip.run(asked.device, _function(op), arguments, decision.result))
        except torch.OutOfMemoryError as error:
            if named:
                raise
            _warn_full(error)
    return Routed(_uploaded(op, arguments)) if decision.result == "device" else None


def _function(op: str) -> Any:
    import robocache

    from .calls import FUNCTIONS

    return getattr(robocache, FUNCTIONS[op])


def _uploaded(op: str, arguments: Mapping[str, Any]) -> Any:
    """A call computed where its tensors are, and its answer on the GPU. Gradients flow."""
    from . import roundtrip
    from .calls import tensors_in
    from .policy import policy

    if arguments.get("out") is not None:
        raise ValueError("out: expected None inside robocache.dispatch(result='device'), which makes the answer anew")
    with settings.inside():
        answer = _function(op)(**arguments)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors_in(answer)):
            return roundtrip.moved(answer, lambda found: [tensor.to(policy().device.backend) for tensor in found])
        return roundtrip.moved(answer, lambda found: policy().device.upload(found, True))


def _warn_full(error: Exception) -> None:
    import warnings

    warnings.warn(
        f"robocache dispatch: the GPU had no room, so the CPU computes: {str(error).splitlines()[0]}",
        RuntimeWarning,
        stacklevel=4,
    )
