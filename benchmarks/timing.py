"""Clocks and statistics: device time by CUDA-graph replay, wall and host time, percentiles with confidence intervals.

Device time: the calls of one lap over the rotated input sets (several laps where one is too short to time) are captured
into one CUDA graph, or a long lap into several that take turns; each replay is timed by events around it and divided by
its calls. That leaves out the host, and keeps the gaps between a graph's nodes, which a user's graph has too.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch

Call = Callable[[], Any]


@dataclass(frozen=True)
class Stats:
    """Microseconds a call, over `repeats` timings of `calls` calls each."""

    median: float
    p5: float
    p95: float
    p99: float
    mean: float
    ci95: tuple[float, float]  # of the median, by bootstrap
    repeats: int
    calls: int
    ci95_p99: tuple[float, float]  # of P99, by bootstrap; files of before it hold none

    def as_dict(self) -> dict[str, Any]:
        return {k: (list(v) if isinstance(v, tuple) else v) for k, v in asdict(self).items()}


def summarize(microseconds: Sequence[float], calls: int, resamples: int = 1000, seed: int = 0) -> Stats:
    """Percentiles of per-call times, and bootstrap 95 % confidence intervals of their median and P99."""
    times = np.asarray(microseconds, dtype=np.float64)
    if times.size == 0 or not np.isfinite(times).all() or (times <= 0).any():
        raise ValueError(f"timings must be finite and positive, got {times[:5]}")
    drawn = times[np.random.default_rng(seed).integers(0, times.size, size=(resamples, times.size))]
    medians, tails = np.percentile(drawn, [50, 99], axis=1)
    p5, median, p95, p99 = (float(one) for one in np.percentile(times, [5, 50, 95, 99]))
    return Stats(
        median=median,
        p5=p5,
        p95=p95,
        p99=p99,
        mean=float(times.mean()),
        ci95=_interval(medians),
        repeats=int(times.size),
        calls=calls,
        ci95_p99=_interval(tails),
    )


def _interval(resampled: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)


class Timer(Protocol):
    """Times one lap of calls; `calls` are the same work on different input sets."""

    def measure(self, calls: Sequence[Call], repeats: int) -> Stats: ...


SLOW_CALL_MS = 20.0  # only calls longer than this may be timed fewer times than asked
LEAST_REPEATS = 7  # of a variant that a budget cuts short


def _within(budget_s: float | None, repeats: int, call_ms: float, timing_ms: float) -> int:
    """`repeats`; of slow calls with a budget, as many timings of `timing_ms` as it has room for."""
    if budget_s is None or call_ms <= SLOW_CALL_MS:
        return repeats
    return min(repeats, max(LEAST_REPEATS, int(budget_s * 1e3 / timing_ms)))


@dataclass
class Recording:
    """Calls captured into a graph."""

    graph: torch.cuda.CUDAGraph
    outputs: list[Any]  # alive as long as the graph writes them
    laps: int  # over the input sets
    calls: int


class GraphTimer:
    """Device time on the current CUDA device, by graph replay."""

    def __init__(self, replay_ms: float = 1.0, max_calls: int = 4096, budget_s: float | None = None) -> None:
        self.replay_ms = replay_ms  # a replay shorter than this is lengthened by more laps
        self.max_calls = max_calls
        self.budget_s = budget_s  # of one measurement's replays

    def _capture(self, calls: Sequence[Call], laps: int, pool: Any = None) -> tuple[torch.cuda.CUDAGraph, list[Any]]:
        graph = torch.cuda.CUDAGraph()
        # One live output a set, so that outputs rotate as inputs do and are not written over while cached.
        outputs: list[Any] = [None] * len(calls)
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            for _ in range(laps):
                for i, call in enumerate(calls):
                    outputs[i] = call()
        return graph, outputs

    def _replay(self, graphs: Sequence[torch.cuda.CUDAGraph], repeats: int) -> list[float]:
        """Milliseconds of each replay, the graphs taking turns. Replays are queued ahead: launching is not timed."""
        starts = [torch.cuda.Event(enable_timing=True) for _ in range(repeats)]
        ends = [torch.cuda.Event(enable_timing=True) for _ in range(repeats)]
        for turn, (start, end) in enumerate(zip(starts, ends, strict=True)):
            start.record()
            graphs[turn % len(graphs)].replay()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in zip(starts, ends, strict=True)]

    def _lap(self, calls: Sequence[Call]) -> tuple[torch.cuda.CUDAGraph, list[Any], float, int]:
        """One captured lap over the sets, its outputs, its milliseconds, and the laps that fill a replay."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # capture needs a first run outside it: lazy set-up, compilation
            for call in (*calls[:3], calls[-1]):
                call()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph, outputs = self._capture(calls, 1)
        lap_ms = float(np.median(self._replay([graph], 4)[1:]))
        laps = int(min(max(1.0, np.ceil(self.replay_ms / max(lap_ms, 1e-4))), max(1, self.max_calls // len(calls))))
        return graph, outputs, lap_ms, laps

    def measure(self, calls: Sequence[Call], repeats: int) -> Stats:
        graph, outputs, lap_ms, laps = self._lap(calls)
        call_ms = lap_ms / len(calls)
        # A longer lap is cut into parts that take turns: as many timings cost less, and the sets still rotate.
        part = min(len(calls), int(np.ceil(self.replay_ms / max(call_ms, 1e-6))))
        if laps > 1:
            del graph, outputs
            captured = [self._capture(calls, laps)]
        elif part < len(calls):
            del graph, outputs
            pool = torch.cuda.graph_pool_handle()
            captured = [self._capture(calls[at : at + part], 1, pool) for at in range(0, len(calls), part)]
        else:
            captured = [(graph, outputs)]
        graphs = [one for one, _ in captured]
        sizes = [laps * len(kept) for _, kept in captured]
        self._replay(graphs, max(3, len(graphs)))
        repeats = _within(self.budget_s, repeats, call_ms, call_ms * sizes[0])
        replays = self._replay(graphs, repeats)
        times = [ms * 1e3 / sizes[turn % len(sizes)] for turn, ms in enumerate(replays)]
        return summarize(times, sizes[0])

    def record(self, calls: Sequence[Call], laps: int | None = None) -> Recording:
        """Captures whole laps, for `interleave`; as many as fill a replay where `laps` is None."""
        if laps is None:
            graph, outputs, _, laps = self._lap(calls)
            if laps == 1:
                return Recording(graph, outputs, 1, len(calls))
            del graph, outputs
        graph, outputs = self._capture(calls, laps)
        return Recording(graph, outputs, laps, laps * len(calls))

    def interleave(self, recordings: Mapping[str, Recording], rounds: int, seed: int = 0) -> dict[str, list[float]]:
        """Microseconds a call of each recording, one timing a round; every round takes them in a new order."""
        names = list(recordings)
        generator = np.random.default_rng(seed)
        order = [name for _ in range(rounds + 1) for name in generator.permutation(names)]
        replays = self._replay([recordings[name].graph for name in order], len(order))
        times: dict[str, list[float]] = {name: [] for name in names}
        for name, ms in list(zip(order, replays, strict=True))[len(names) :]:  # the first round warms up
            times[name].append(ms * 1e3 / recordings[name].calls)
        return times


class WallTimer:
    """Wall time on the host; the median of single calls, rotating through the sets."""

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        sample_us: float = 200.0,
        budget_s: float | None = None,
    ) -> None:
        self.clock = clock
        self.sample_us = sample_us  # calls shorter than this are timed several at once
        self.budget_s = budget_s  # of one measurement

    def measure(self, calls: Sequence[Call], repeats: int) -> Stats:
        for call in (*calls[:2], calls[-1]):
            call()
        begin = self.clock()
        calls[0]()
        once = max((self.clock() - begin) * 1e6, 1e-3)
        inner = int(max(1, np.ceil(self.sample_us / once)))
        repeats = _within(self.budget_s, repeats, once / 1e3, once * inner / 1e3)
        times = []
        position = 0
        for _ in range(repeats):
            begin = self.clock()
            for k in range(inner):
                calls[(position + k) % len(calls)]()
            times.append((self.clock() - begin) * 1e6 / inner)
            position += inner
        return summarize(times, inner)


def eager_wall_us(calls: Sequence[Call], synchronize: Call, about_us: float, rounds: int = 5) -> float:
    """Microseconds a call of a plain Python loop with one synchronisation at its end: host and device together.

    `about_us`, the device's part, says how many calls make a round of some milliseconds.
    """
    loops = int(min(200, max(3, 5000.0 / about_us)))
    for call in calls[:2]:
        call()
    synchronize()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        for k in range(loops):
            calls[k % len(calls)]()
        synchronize()
        times.append((time.perf_counter() - begin) * 1e6 / loops)
    return float(np.median(times))


def host_us(
    functions: dict[str, Call],
    loops: int = 2000,
    rounds: int = 7,
    synchronize: Call = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, float]]:
    """Host microseconds a call of each function: median, least and most of `rounds` rounds of `loops` calls.

    Rounds of all functions take turns, so that a change of the host's clock rate meets all of them.
    """
    for call in functions.values():
        for _ in range(min(50, loops)):
            call()
    synchronize()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, call in functions.items():
            synchronize()
            gc.disable()
            begin = clock()
            for _ in range(loops):
                call()
            elapsed = clock() - begin
            gc.enable()
            times[name].append(elapsed * 1e6 / loops)
    synchronize()
    return {
        name: {"median": float(np.median(per_call)), "least": float(min(per_call)), "most": float(max(per_call))}
        for name, per_call in times.items()
    }


def copy_bandwidth(device: torch.device, timer: Timer, megabytes: int, repeats: int = 20) -> dict[str, float]:
    """Bytes a second of one large copy by a kernel, read plus written, measured with the timer of the run."""
    source = torch.randint(0, 127, (megabytes << 20,), dtype=torch.int8, device=device).view(torch.float32)
    target = torch.empty_like(source)
    # An elementwise kernel, not copy_: a graph runs copy_ on a copy engine, which is slower than the memory.
    stats = timer.measure([lambda: torch.neg(source, out=target)], repeats)
    moved = 2 * source.numel() * source.element_size()
    return {
        "bytes": float(moved),
        "median_us": stats.median,
        "bytes_per_second": moved / (stats.median * 1e-6),
    }
