"""The graphs suite: what a call costs through a CUDAGraphCache, eagerly, and under torch.compile's own graphs.

Wall time a call, host and device together: a loop of calls with one synchronisation at its end. Outputs are cloned by
all. `rotating` rows get inputs at other addresses from call to call, so that they must be copied in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .measure import CheckFailed, Plan, Say, optional
from .timing import Timer, summarize

Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class GraphCase:
    """One row. `shapes`: different batch sizes that the calls go through; 0: never the same twice."""

    name: str
    function: Callable[..., Any]
    inputs: Callable[[int, int], Arguments]  # (seed, batch)
    rotating: int = 1  # input sets that take turns
    shapes: int = 1
    peers: bool = True
    tags: frozenset[str] = frozenset()

    def describe(self) -> dict[str, Any]:
        return {"rotating": self.rotating, "shapes": self.shapes}


def pipeline(values: Tensor, times: Tensor, targets: Tensor, other: Tensor, other_times: Tensor, points: Tensor) -> Any:
    """Two aligns, one voxelize, a normalisation, a concat."""
    import robocache

    state = robocache.resample_trajectories(values, times, targets)
    held = robocache.resample_trajectories(other, other_times, targets, kind="previous")
    grid = robocache.voxelize_point_cloud(points, voxel_size=0.125, grid_min=0.0, grid_size=16)
    normal = (state - state.mean(1, keepdim=True)) / (state.std(1, keepdim=True) + 1e-6)
    return torch.cat([normal, held], -1), grid


def pipeline_inputs(seed: int, batch: int) -> Arguments:
    generator = torch.Generator("cuda").manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, device="cuda", generator=generator)

    def clock(samples: int) -> Tensor:
        return torch.linspace(0, 1, samples, device="cuda").expand(batch, samples).contiguous()

    targets = random(batch, 20).sort(1).values
    return random(batch, 50, 14), clock(50), targets, random(batch, 30, 7), clock(30), random(batch, 1000, 3) * 2


def resample(values: Tensor, times: Tensor, targets: Tensor) -> Tensor:
    import robocache

    made: Tensor = robocache.resample_trajectories(values, times, targets)
    return made


def voxelize(points: Tensor) -> Tensor:
    import robocache

    made: Tensor = robocache.voxelize_point_cloud(points, voxel_size=0.125, grid_min=0.0, grid_size=16)
    return made


def _resample_inputs(seed: int, batch: int) -> Arguments:
    return pipeline_inputs(seed, batch)[:3]


def _points(seed: int, batch: int) -> Arguments:
    return pipeline_inputs(seed, batch)[5:]


def _pair(seed: int, batch: int) -> Arguments:
    return pipeline_inputs(seed, batch)[0], pipeline_inputs(seed + 1, batch)[0]


HELD = 32  # graphs of the cache
CASES = [
    GraphCase("pipeline-8", pipeline, pipeline_inputs),
    GraphCase("pipeline-8-rotating", pipeline, pipeline_inputs, rotating=4),
    GraphCase("resample-8-rotating", resample, _resample_inputs, rotating=4, peers=False),
    GraphCase("voxelize-8-rotating", voxelize, _points, rotating=4, peers=False),
    GraphCase("add-8", torch.add, _pair, peers=False),
    GraphCase("stream-64-shapes", pipeline, pipeline_inputs, shapes=2 * HELD, peers=False),
    GraphCase("stream-new-shapes", pipeline, pipeline_inputs, shapes=0, peers=False),
    GraphCase("stream-64-shapes-resample", resample, _resample_inputs, shapes=2 * HELD, peers=False),
    GraphCase("stream-new-shapes-resample", resample, _resample_inputs, shapes=0, peers=False),
]


def select(device: str, patterns: str | None) -> list[GraphCase]:
    from fnmatch import fnmatch

    if device != "cuda":
        return []
    wanted = patterns.split(",") if patterns else ["*"]
    return [case for case in CASES if any(fnmatch(case.name, pattern) for pattern in wanted)]


def _flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for item in value for t in _flat(item)]


def _check(name: str, got: Any, want: Any, exact: bool) -> None:
    for a, b in zip(_flat(got), _flat(want), strict=True):
        if a.shape != b.shape or not (torch.equal(a, b) if exact else torch.allclose(a, b, rtol=1e-4, atol=1e-5)):
            raise CheckFailed(f"{name}: its outputs are not those of eager calls")


class _Laps:
    """Arguments of call after call. A lap of new shapes never comes again: strides make each a key of its own."""

    def __init__(self, case: GraphCase, lap: int) -> None:
        self._case, self._lap = case, lap
        if case.shapes == 0:
            self._base = case.inputs(0, lap + 2)
            self._turn = 0
        elif case.shapes > 1:
            self._held = [case.inputs(i, i + 1) for i in range(case.shapes)]
        else:
            self._held = [case.inputs(seed, 8) for seed in range(case.rotating)]

    def next(self) -> list[Arguments]:
        if self._case.shapes != 0:
            return [self._held[i % len(self._held)] for i in range(self._lap)]
        self._turn += 1
        # The same work lap by lap, but each lap's tensors have strides of their own.
        padded = [torch.cat([t, t[:, : 1 + self._turn % t.shape[1]]], 1) if t.dim() > 1 else t for t in self._base]
        columns = [t.shape[1] for t in self._base]
        return [tuple(p[:batch, :c] for p, c in zip(padded, columns, strict=True)) for batch in range(2, self._lap + 2)]


def _wall(variants: dict[str, Callable[..., Any]], laps: _Laps, repeats: int) -> dict[str, list[float]]:
    """Microseconds a call of each variant, lap by lap; all see the same laps, in turns."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        calls = laps.next()
        for name, function in variants.items():
            torch.cuda.synchronize()
            begin = time.perf_counter()
            for arguments in calls:
                function(*arguments)
            torch.cuda.synchronize()
            times[name].append((time.perf_counter() - begin) * 1e6 / len(calls))
    return times


def _compiled(case: GraphCase) -> Callable[..., Any]:
    function = torch.compile(case.function, mode="reduce-overhead", dynamic=False)

    def call(*arguments: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return [t.clone() for t in _flat(function(*arguments))]

    return call


def run_case(case: GraphCase, plan: Plan, timer: Timer, bandwidth: float | None, say: Say) -> dict[str, Any]:
    """One row of the results."""
    import robocache

    row: dict[str, Any] = {"name": case.name, **case.describe(), "variants": {}, "errors": {}}
    lap = case.shapes if case.shapes > 1 else 64
    laps = _Laps(case, lap)
    cache = robocache.CUDAGraphCache(max_graphs=HELD)
    variants: dict[str, Callable[..., Any]] = {"robocache": cache.wrap(case.function), "eager": case.function}
    others = {}
    with torch.no_grad():
        if case.shapes == 1:
            others = {mode: robocache.CUDAGraphCache(max_graphs=HELD, outputs=mode) for mode in ("ring", "borrow")}
            variants |= {mode: held.wrap(case.function) for mode, held in others.items()}
        if case.peers and not plan.ours_only and plan.compile_modes:
            say("compile-reduce-overhead")
            optional(row, "compile-reduce-overhead", lambda: _warm_peer(case, laps, variants))
            row["variants"].clear()
        for _ in range(14 if case.shapes > 1 else 4):  # seen, captured, tried: ten calls of a key
            for arguments in laps.next():
                want = case.function(*arguments)
                for name, function in variants.items():
                    _check(name, function(*arguments), want, exact=name != "compile-reduce-overhead")
            torch.cuda.synchronize()
        say("timing")
        for name, times in _wall(variants, laps, plan.repeats).items():
            row["variants"][name] = {"cold": summarize(times, lap).as_dict()}
    ours = row["variants"]["robocache"]["cold"]["median"]
    row["speedup"] = {n: v["cold"]["median"] / ours for n, v in row["variants"].items() if n != "robocache"}
    stats = cache.stats()
    row["cache"] = {
        "hits": stats.hits,
        "misses": stats.misses,
        "off": stats.off,
        "captures": stats.captures,
        "failures": stats.failures,
        "evictions": stats.evictions,
        "keys": [
            {"state": k.state, "reason": k.reason, "eager_us": k.eager_us, "replay_us": k.replay_us, "bytes": k.bytes}
            for k in stats.keys[:4]
        ],
    }
    for held in (cache, *others.values()):
        held.clear()
    return row


def _warm_peer(case: GraphCase, laps: _Laps, variants: dict[str, Callable[..., Any]]) -> dict[str, Any]:
    """Compiles the peer and, when it runs, lets it take part."""
    call = _compiled(case)
    for arguments in laps.next()[:8]:
        call(*arguments)
    torch.cuda.synchronize()
    variants["compile-reduce-overhead"] = call
    return {}
