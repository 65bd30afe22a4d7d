"""Figures and tables of the demos: what a stream's clock looks like, how long a call takes, which kernel ran."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

import robocache


@dataclass(frozen=True)
class ClockFigures:
    """What a stream's stamps say about its clock."""

    samples: int
    rate: float  # hertz, from the median interval
    jitter: float  # seconds: spread of the intervals (half the distance of their 16th and 84th percentiles)
    largest_gap: float  # seconds
    gap_at: float  # seconds after the first sample


def choose_device(name: str) -> torch.device:
    """The device for "auto", "cpu" or "cuda"."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: --device cuda, but torch sees no GPU")
    return torch.device(name)


def kernels_run(before: dict[str, int]) -> str:
    """Names of the native kernels that were launched since `before`."""
    after = robocache.launch_counts()
    return ", ".join(name for name, count in after.items() if count > before.get(name, 0)) or "torch"


def clock_figures(times: torch.Tensor, unit: float = 1e-9) -> ClockFigures:
    """Figures of stamps [S] that count `unit` seconds."""
    intervals = times.diff().double().cpu() * unit
    if len(intervals) == 0:
        return ClockFigures(len(times), float("nan"), float("nan"), float("nan"), float("nan"))
    low, middle, high = torch.quantile(intervals, torch.tensor([0.16, 0.5, 0.84], dtype=torch.float64)).tolist()
    at = int(intervals.argmax())
    return ClockFigures(
        samples=len(times),
        rate=1.0 / middle if middle > 0 else float("inf"),
        jitter=(high - low) / 2,
        largest_gap=float(intervals[at]),
        gap_at=float(times[at] - times[0]) * unit,
    )


def median_time(call: Callable[[], object], device: torch.device, repeats: int = 30) -> float:
    """Median seconds of a call, after three to warm up. On a GPU each call is waited for."""
    taken = []
    for turn in range(repeats + 3):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn >= 3:
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def duration(seconds: float) -> str:
    """A length of time in a unit that suits it: "3.2 ms"."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(seconds) >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.2g} us"


def spread(errors: torch.Tensor) -> str:
    """Median, 95th percentile and largest of errors [N]."""
    if len(errors) == 0:
        return "-"
    middle, high = torch.quantile(errors, torch.tensor([0.5, 0.95], dtype=errors.dtype)).tolist()
    return f"{middle:.3g} / {high:.3g} / {float(errors.max()):.3g}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Columns side by side, numbers to the right, the columns listed in `left` to the left."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = (c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])
