"""Runs one voxelize case: checks it, counts its bytes, times ours and the peers over the same rotated inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from . import voxel_families
from .measure import Plan, Say, measure, optional, ratios
from .peer_set import Binder, Family, choose, compile_modes, time_peer, variant_of
from .timing import Timer
from .voxel_cases import VoxelCase
from .voxel_checks import LARGEST_REFERENCE, bytes_moved, check_ours, check_peer
from .voxel_inputs import VoxelInputs, bind, build, flat
from .voxel_peers import bind_peer, obvious

MOST_AUTOTUNED = 20_000_000  # points of a row that is autotuned: trying kernels on more takes a minute a row
_compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}  # of the last base: its other rows have the same shapes


def _sets(case: VoxelCase, plan: Plan) -> tuple[list[VoxelInputs], list[torch.Tensor]]:
    """Input sets to rotate through, and the answer of the first."""
    first = build(case, plan.device, seed=0)
    out = flat(bind(first, plan.device)())
    one = sum(t.numel() * t.element_size() for t in (*first.tensors(), *out))
    count = max(2, min(plan.max_sets, math.ceil(plan.rotate_bytes / max(one, 1))))
    return [first] + [build(case, plan.device, seed=k) for k in range(1, count)], out


def _compile(case: VoxelCase, mode: str) -> Callable[..., Any]:
    """The compiled peer; rows of one base share it."""
    key = (case.base or case.name, case.points, case.size, mode)
    if key not in _compiled:
        if all(known[:3] != key[:3] for known in _compiled):
            _compiled.clear()
            torch._dynamo.reset()
        function = obvious(case)
        _compiled[key] = torch.compile(function, mode=None if mode == "default" else mode, dynamic=False)
    return _compiled[key]


def _peers(case: VoxelCase, plan: Plan) -> tuple[dict[str, tuple[Binder, Family | None]], dict[str, str]]:
    """Binders of the row's peers by name, and why the others are absent."""
    if plan.ours_only:
        return {}, {}
    chosen, absent = choose(voxel_families.FAMILIES, case, plan.device)
    found: dict[str, tuple[Binder, Family | None]] = {}
    found["eager"] = (lambda inputs: bind_peer(obvious(case), inputs), None)
    modes, uncompiled = compile_modes(
        plan, case.compiled, case.compiled and case.base is None and case.all_points <= MOST_AUTOTUNED
    )
    for mode in modes:
        found[variant_of(mode)] = (lambda inputs, m=mode: bind_peer(_compile(case, m), inputs), None)
    return found | {name: (family.bind, family) for name, family in chosen.items()}, absent | uncompiled


def run_case(case: VoxelCase, plan: Plan, timer: Timer, bandwidth: float | None, say: Say) -> dict[str, Any]:
    """One row of the results. An error in ours ends the case; an error in a peer is noted beside that peer."""
    row: dict[str, Any] = {"name": case.name, **case.describe(), "variants": {}, "errors": {}}
    with torch.no_grad():
        sets, ours = _sets(case, plan)
        row["sets"] = len(sets)
        row["rotated_bytes"] = len(sets) * sum(t.numel() * t.element_size() for t in sets[0].tensors())
        ends = sets[:1] if case.all_points > LARGEST_REFERENCE else (sets[0], sets[-1])
        row["check"] = [check_ours(inputs, plan.check) for inputs in ends]
        row["bytes"] = bytes_moved(sets[0], ours)
        say("robocache")
        row["variants"]["robocache"] = measure([bind(inputs, plan.device) for inputs in sets], timer, plan)
        found, row["absent"] = _peers(case, plan)
        for name, (binder, family) in found.items():
            say(name)

            def time_it(name: str = name, binder: Binder = binder, family: Family | None = family) -> dict[str, Any]:
                calls = [binder(inputs) for inputs in sets]
                return time_peer(calls, lambda got: check_peer(case, name, got, ours), timer, plan, family)

            optional(row, name, time_it)
    ratios(row, bandwidth)
    row["points_per_second"] = case.all_points / (row["variants"]["robocache"]["cold"]["median"] * 1e-6)
    return row
