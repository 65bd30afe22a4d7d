"""Runs one align case: checks it, counts its bytes, times ours and the peers over the same rotated inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from . import align_families, peers
from .cases import Case, Inputs, bind_op, bind_public, build, call_public, has_plain_op
from .measure import (
    CheckFailed,
    Plan,
    Say,
    agree,
    make_timer,
    measure,
    optional,
    ratios,
    ulps,
)
from .peer_set import Binder, Family, choose, compile_modes, time_peer, variant_of
from .timing import Timer
from .traffic import bytes_moved

__all__ = ["CheckFailed", "Plan", "check_ours", "check_peer", "make_timer", "run_case", "ulps"]


def _first(result: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    return result if isinstance(result, tuple) else (result, None)


def check_ours(case: Case, inputs: Inputs, against: str = "reference") -> dict[str, Any]:
    """Compares the native kernel with the torch reference on the same device, before anything is timed."""
    backend = inputs.targets.device.type
    got, got_valid = _first(call_public(inputs, backend=backend))
    if against == "peer":
        peer = peers.obvious(case)(*peers.peer_arguments(inputs))
        return {"reference": "peer", **check_peer(case, "robocache against the peer", peer, got)}
    want, want_valid = _first(call_public(inputs, backend="torch"))
    distance = ulps(got, want)
    same_valid = got_valid is None or (want_valid is not None and torch.equal(got_valid, want_valid))
    limit = 0.0 if case.exact else 2.0
    if distance > limit or not same_valid or not bool(torch.isfinite(got).all()):
        raise CheckFailed(f"robocache is {distance} ulp (limit {limit}) off the reference; masks equal: {same_valid}")
    return {"reference": "torch", "ulp": distance, "limit": limit}


def check_peer(case: Case, name: str, got: torch.Tensor, ours: torch.Tensor) -> dict[str, float]:
    """A peer must compute the same thing, to its own rounding; where ties are cut differently 0.1 % may differ."""
    # slerp's acos loses digits for near quaternions, and an angle may lie on either side of the cut
    kinds = {kind for stream in case.streams for _, _, kind in stream.groups()}
    return agree(name, got, ours, 0.99 if kinds & {"angle", "slerp_xyzw", "slerp_wxyz"} else 0.999)


def _sets(case: Case, plan: Plan) -> list[Inputs]:
    """Input sets to rotate through."""
    first = build(case, plan.device, seed=0)
    out = case.batch * case.targets * case.columns * first.streams[0]["values"].element_size()
    one = sum(t.numel() * t.element_size() for t in first.tensors()) + out
    count = max(2, min(plan.max_sets, math.ceil(plan.rotate_bytes / max(one, 1))))
    return [first] + [build(case, plan.device, seed=k) for k in range(1, count)]


def _obvious(function: Callable[..., Any]) -> Binder:
    """Binds the obvious torch code, eager or compiled."""

    def bind(inputs: Inputs) -> Callable[[], Any]:
        arguments = peers.peer_arguments(inputs)
        return lambda: function(*arguments)

    return bind


def _compiled(function: Callable[..., Any], mode: str) -> Binder:
    torch._dynamo.reset()
    return _obvious(torch.compile(function, mode=None if mode == "default" else mode, dynamic=False))


def _peers(case: Case, plan: Plan) -> tuple[dict[str, tuple[Binder, Family | None]], dict[str, str]]:
    """The row's peers by name, and why the others are absent."""
    if plan.ours_only:
        return {}, {}
    chosen, absent = choose(align_families.FAMILIES, case, plan.device)
    found: dict[str, tuple[Binder, Family | None]] = {}
    modes, uncompiled = compile_modes(plan, bool(case.tags & {"numbers", "int64", "random"}), "numbers" in case.tags)
    reason = align_families.no_torch(case)
    if reason is None:
        function = peers.obvious(case)
        found["eager"] = (_obvious(function), None)
        found |= {variant_of(mode): (_compiled(function, mode), None) for mode in modes}
        absent |= uncompiled
    else:
        absent |= dict.fromkeys(["eager", *uncompiled, *map(variant_of, modes)], reason)
    return found | {name: (family.bind, family) for name, family in chosen.items()}, absent


def run_case(case: Case, plan: Plan, timer: Timer, bandwidth: float | None, say: Say) -> dict[str, Any]:
    """One row of the results. An error in ours ends the case; an error in a peer is noted beside that peer."""
    row: dict[str, Any] = {"name": case.name, **case.describe(), "variants": {}, "errors": {}}
    with torch.no_grad():
        sets = _sets(case, plan)
        row["sets"] = len(sets)
        row["rotated_bytes"] = len(sets) * sum(t.numel() * t.element_size() for t in sets[0].tensors())
        say("check")
        row["check"] = [check_ours(case, inputs, plan.check) for inputs in (sets[0], sets[-1])]
        ours, valid = _first(call_public(sets[0], backend=plan.device))
        row["bytes"] = bytes_moved(sets[0], ours, valid)

        calls = [bind_public(inputs, backend=plan.device) for inputs in sets]
        say("robocache")
        row["variants"]["robocache"] = measure(calls, timer, plan)
        if plan.device == "cuda" and has_plain_op(case):
            optional(row, "op", lambda: measure([bind_op(i) for i in sets], timer, plan))
        found, row["absent"] = _peers(case, plan)
        for name, (binder, family) in found.items():
            say(name)

            def time_it(name: str = name, binder: Binder = binder, family: Family | None = family) -> dict[str, Any]:
                calls = [binder(inputs) for inputs in sets]
                return time_peer(calls, lambda got: check_peer(case, name, got, ours), timer, plan, family)

            optional(row, name, time_it)
    ratios(row, bandwidth)
    return row
