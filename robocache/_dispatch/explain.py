"""What dispatch would do with a call, and why, without running it: `robocache.explain`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .._checks import BACKENDS
from .calls import FUNCTIONS, Undescribed, Workload, describe, tensors_in
from .model import Estimates
from .policy import Decision, policy


@dataclass(frozen=True)
class Explanation:
    """The choice of dispatch for one call. `print` it, or read its fields.

    Attributes:
        function: the public function's name.
        choice: "cpu", "cuda", or the backend that the call names; where the call would raise, what was asked for.
        result: "host" or "device": where the answer goes.
        authority: who decided: "argument", "context", "environment", "file" (tuned points), "default", or "rule"
            (something about the call or the process settles it).
        reason: a sentence.
        error: why the call raises; None where it does not.
        cpu_us: what the CPU would take, in microseconds; None where there is no estimate.
        gpu_us: what the GPU would take with copies.
        copy_in_us, kernel_us, copy_out_us: the parts of gpu_us; the kernel's with launch and wait.
        cpu_upload_us: the part of cpu_us that brings the answer to the GPU, where it is wanted there.
        held: True where the sides are so close that the last choice was kept.
        source: where the estimates come from.
        measured_cpu_calls, measured_cpu_us: calls of this kind that were timed on the CPU in this process, and what one
            takes (the median of the last ones, microseconds); None before the second.
        measured_gpu_calls, measured_gpu_us: the same through the GPU.
        bytes_in: bytes of the call's inputs; `bytes_pinned` of them in page-locked memory.
        bytes_out: bytes of its answer.
    """

    function: str
    choice: str
    result: str
    authority: str
    reason: str
    error: str | None = None
    cpu_us: float | None = None
    gpu_us: float | None = None
    copy_in_us: float | None = None
    kernel_us: float | None = None
    copy_out_us: float | None = None
    cpu_upload_us: float | None = None
    held: bool = False
    source: str = ""
    measured_cpu_calls: int = 0
    measured_cpu_us: float | None = None
    measured_gpu_calls: int = 0
    measured_gpu_us: float | None = None
    bytes_in: int = 0
    bytes_pinned: int = 0
    bytes_out: int = 0

    def __str__(self) -> str:
        where = "on the host" if self.result == "host" else "on the GPU"
        lines = [f"{self.function}: {self.choice} ({self.authority}), answer {where}", f"  reason  {self.reason}"]
        if self.error is not None:
            lines.append(f"  error   the call raises: {self.error}")
        if self.bytes_in or self.bytes_out:
            pinned = f", {_bytes(self.bytes_pinned)} of it page-locked" if self.bytes_pinned else ""
            lines.append(f"  moves   {_bytes(self.bytes_in)} in{pinned}, {_bytes(self.bytes_out)} out")
        if self.cpu_us is not None and self.gpu_us is not None:
            upload = f" (upload {_us(self.cpu_upload_us)})" if self.cpu_upload_us else ""
            lines.append(f"  CPU     {_us(self.cpu_us)}{upload}")
            lines.append(
                f"  GPU     {_us(self.gpu_us)} (copy in {_us(self.copy_in_us)}, kernel {_us(self.kernel_us)}, "
                f"copy out {_us(self.copy_out_us)})"
            )
            lines.append(f"  from    {self.source}{', the last choice was kept' if self.held else ''}")
        sides = [
            f"{name} {calls} {'call' if calls == 1 else 'calls'} {_us(took)}"
            for name, calls, took in (
                ("CPU", self.measured_cpu_calls, self.measured_cpu_us),
                ("GPU", self.measured_gpu_calls, self.measured_gpu_us),
            )
            if took is not None
        ]
        if sides:
            lines.append(f"  measured: {', '.join(sides)}")
        return "\n".join(lines)


def _us(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f} us" if value < 1e3 else f"{value / 1e3:.2f} ms" if value < 1e6 else f"{value / 1e6:.2f} s"


def _bytes(count: int) -> str:
    if count < 10_000:
        return f"{count} B"
    return f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def _named(function: Any) -> tuple[str, Callable[..., Any]]:
    """The operation and the public function of a name or a function."""
    import robocache

    name = function if isinstance(function, str) else getattr(function, "__name__", None)
    for op, public in FUNCTIONS.items():
        found = getattr(robocache, public)
        if name in (op, public) and (isinstance(function, str) or function is found):
            return op, found
    raise ValueError(f"function: expected one of {', '.join(FUNCTIONS.values())} or its name, got {function!r}")


def _told(function: str, decision: Decision, load: Workload | None, estimates: Estimates | None) -> Explanation:
    said = Explanation(
        function,
        decision.side,
        decision.result,
        decision.authority,
        decision.reason,
        decision.obstacle,
        held=decision.held,
        source=decision.source,
    )
    changes: dict[str, Any] = {}
    if load is not None:
        changes.update(bytes_in=load.pageable + load.pinned, bytes_pinned=load.pinned, bytes_out=load.bytes_out)
    if estimates is not None:
        changes.update(estimates._asdict())
    if decision.record is not None:
        changes.update({f"measured_{name}": value for name, value in decision.record.known()._asdict().items()})
    return Explanation(**{**vars(said), **changes})


def explain(function: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> Explanation:
    """Says where a call would be computed and why, with what it would take on either side. Does not run it.

    The next call's choice is not changed by asking.

    Args:
        function: one of the public functions, or its name.
        args, kwargs: the arguments of the call.

    Returns:
        An Explanation: print it.

    Raises:
        ValueError: the function is none of robocache's, or `backend` none of its backends.
        TypeError: the arguments are not those of the function.

    Example:
        >>> said = robocache.explain("voxelize_point_cloud", points, voxel_size=0.02, grid_min=0.0, grid_size=50)
        >>> said.choice, said.result
        ('cpu', 'host')
        >>> print(said)  # doctest: +SKIP
    """
    op, public = _named(function)
    bound = inspect.signature(public).bind(*args, **kwargs)
    bound.apply_defaults()
    arguments = bound.arguments
    backend = arguments["backend"]
    if not isinstance(backend, str) or backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(map(repr, BACKENDS))}, got {backend!r}")
    kinds = sorted({tensor.device.type for tensor in tensors_in(list(arguments.values()))})
    if kinds and kinds != ["cpu"]:
        side = kinds[0] if backend == "auto" else backend
        reason = "tensors on a device are computed there; dispatch is for host tensors"
        return Explanation(public.__name__, side, "device", "rule", reason)
    asked = policy()
    decision = asked.decide(op, arguments, remember=False)
    load, estimates, source = decision.load, decision.estimates, decision.source
    try:
        if load is None:
            load = describe(op, arguments, asked.device.is_pinned)
        if estimates is None:
            model = asked.model_if_known()
            estimates = model.estimate(load, decision.result)
            source = f"tuned points in {model.where}" if model.source == "file" else "defaults"
    except Undescribed:
        load = estimates = None
    return _told(public.__name__, decision._replace(source=source), load, estimates)


def summary() -> str:
    """Dispatch in one line, for show_config."""
    from . import _gpu_is_possible

    asked = policy()
    if not _gpu_is_possible:
        return "off: this build or this torch has no CUDA"
    if not asked.has_files() and not asked.device.started():
        return "defaults: not tuned (run `robocache tune`)"
    reason = asked.device.why_not()
    if reason is not None:
        return f"off: {reason}"
    model = asked.model()
    if model.source == "file":
        return f"tuned: {model.where}, {torch.get_num_threads()} threads"
    return "defaults: not tuned (run `robocache tune`)"
