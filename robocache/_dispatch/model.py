"""What a call costs on either side: sums of measured parts, corrected by a monotone curve.

A side's time is first a weighted sum: a constant, the call's work (see `calls`), and for the GPU the copies. The
weights are fitted to measured points by least squares of relative errors, none below 0. What the sum gets wrong by size
(caches, threads that start late, latency that hides) a curve puts right: piecewise straight in log-log, monotone,
through the medians of the points along the sum. Times are microseconds throughout.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .calls import Workload

Array = npt.NDArray[np.float64]
KNOTS = 16  # of a curve, at most
_LEAST_US = 1e-3
_OUTLIER = 0.3  # in the logarithm of a time: what is further off counts less
_ROUNDS = 4
_NEIGHBOURS = 3  # that tell an outlier, either side
_FAR = 2.0


class Curve:
    """A monotone function of a positive number, straight between its knots in log-log.

    Below the first knot it stays at the first value (latency does not shrink with the work); above the last it goes on
    in proportion.

    Args:
        knots: (x, y) pairs, x increasing, y not decreasing, both positive.
    """

    def __init__(self, knots: Sequence[tuple[float, float]]) -> None:
        if not knots:
            raise ValueError("knots: expected at least one (x, y), got none")
        for (x0, y0), (x1, y1) in pairwise(knots):
            if not (x1 > x0 and y1 >= y0):
                raise ValueError(f"knots: expected x to increase and y not to fall, got {(x0, y0)} before {(x1, y1)}")
        if not all(0 < value < math.inf for knot in knots for value in knot):
            raise ValueError(f"knots: expected positive numbers, got {list(knots)}")
        self.knots = tuple((float(x), float(y)) for x, y in knots)
        self._x = [x for x, _ in self.knots]
        self._slopes = [math.log(y1 / y0) / math.log(x1 / x0) for (x0, y0), (x1, y1) in pairwise(self.knots)]

    def __call__(self, x: float) -> float:
        at = bisect_right(self._x, x) - 1
        if at < 0:
            return self.knots[0][1]
        x0, y0 = self.knots[at]
        if at == len(self._slopes):
            return y0 * (x / x0)
        return float(y0 * (x / x0) ** self._slopes[at])

    def inverse(self) -> Curve:
        """The x of a y; where the curve is level, that of the level's middle."""
        levels: dict[float, list[float]] = {}
        for x, y in self.knots:
            levels.setdefault(y, []).append(math.log(x))
        return Curve([(y, math.exp(sum(xs) / len(xs))) for y, xs in levels.items()])


IDENTITY = Curve([(_LEAST_US, _LEAST_US), (1e9, 1e9)])


def _without_outliers(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Pairs, sorted by x, without those that lie far above what follows or far below what goes before: the machine was
    disturbed for a moment. Nothing is left out near the ends, where a few points must do."""
    ys = [y for _, y in pairs]
    kept = []
    for k, pair in enumerate(pairs):
        before, behind = ys[max(0, k - _NEIGHBOURS) : k], ys[k + 1 : k + 1 + _NEIGHBOURS]
        high = len(behind) == _NEIGHBOURS and pair[1] > _FAR * float(np.median(behind))
        low = len(before) == _NEIGHBOURS and pair[1] < float(np.median(before)) / _FAR
        if not high and not low:
            kept.append(pair)
    return kept


def fit_curve(xs: Sequence[float], ys: Sequence[float], knots: int = KNOTS) -> Curve:
    """The monotone curve through points that scatter: medians of equal spans of log x, pooled where they fall.

    Pooling is that of isotonic regression (Ayer et al., Ann. Math. Stat. 26, 1955).
    """
    pairs = sorted((x, y) for x, y in zip(xs, ys, strict=True) if 0 < x < math.inf and 0 < y < math.inf)
    if not pairs:
        raise ValueError("points: expected positive numbers, got none")
    pairs = _without_outliers(pairs)
    low, high = math.log(pairs[0][0]), math.log(pairs[-1][0])
    width = (high - low) / knots or 1.0
    bins: dict[int, list[tuple[float, float]]] = {}
    for x, y in pairs:
        bins.setdefault(min(knots - 1, int((math.log(x) - low) / width)), []).append((math.log(x), math.log(y)))
    # (mean log x, mean log y, weight) of each pool
    pools: list[tuple[float, float, int]] = []
    for _, found in sorted(bins.items()):
        x_mid = float(np.mean([x for x, _ in found]))
        # The middle of y at x_mid: each point is moved there in proportion, so that a wide span does not bias it.
        y_mid = float(np.median([y + (x_mid - x) for x, y in found]))
        pool = (x_mid, y_mid, len(found))
        while pools and pools[-1][1] > pool[1]:
            before = pools.pop()
            weight = before[2] + pool[2]
            pool = (
                (before[0] * before[2] + pool[0] * pool[2]) / weight,
                (before[1] * before[2] + pool[1] * pool[2]) / weight,
                weight,
            )
        pools.append(pool)
    return Curve([(math.exp(x), math.exp(y)) for x, y, _ in pools])


def nonnegative_least_squares(a: Array, b: Array) -> Array:
    """argmin |a x - b| over x >= 0: the active set method of Lawson and Hanson, Solving Least Squares Problems, 1974.

    Args:
        a: [equations, unknowns].
        b: [equations].
    """
    scale = np.linalg.norm(a, axis=0)
    scale[scale == 0] = 1.0
    a = a / scale
    count = a.shape[1]
    x = np.zeros(count)
    passive = np.zeros(count, dtype=bool)
    tolerance = 1e-10 * max(1.0, float(np.abs(a.T @ b).max(initial=0.0)))
    for _ in range(3 * count + 10):
        gradient = a.T @ (b - a @ x)
        candidates = np.where(passive, -np.inf, gradient)
        best = int(np.argmax(candidates))
        if not candidates[best] > tolerance:
            break
        passive[best] = True
        while True:
            trial = np.zeros(count)
            trial[passive] = np.linalg.lstsq(a[:, passive], b, rcond=None)[0]
            if (trial[passive] > 0).all():
                x = trial
                break
            falling = passive & (trial <= 0)
            step = float(np.min(x[falling] / np.maximum(x[falling] - trial[falling], 1e-300)))
            x = x + step * (trial - x)
            passive &= x > 1e-14
            x[~passive] = 0.0
            if not passive.any():
                break
    return x / scale


def fit_weights(rows: Sequence[Sequence[float]], times: Sequence[float]) -> tuple[float, ...]:
    """Weights (a constant first) of rows of work for `times`, by relative errors; far outliers count less.

    A second and third round measure an error against the mean of the point and of its estimate, so that none of the
    two directions is cheaper.
    """
    y = np.maximum(np.asarray(times, dtype=np.float64), _LEAST_US)
    a = np.column_stack([np.ones(len(rows)), np.asarray(rows, dtype=np.float64)])
    scale = y
    found = np.zeros(a.shape[1])
    for _ in range(3):
        found = nonnegative_least_squares(a / scale[:, None], y / scale)
        estimate = np.maximum(a @ found, _LEAST_US)
        far = np.maximum(1.0, np.abs(np.log(estimate / y)) / _OUTLIER)
        scale = np.sqrt(estimate * y) * np.sqrt(far)
    return tuple(float(weight) for weight in found)


def fit_side(rows: Sequence[Sequence[float]], times: Sequence[float]) -> Side:
    """Weights and curve together: each round fits the weights to what the curve of the last one makes of the times."""
    target = list(times)
    for _ in range(_ROUNDS):
        weights = fit_weights(rows, target)
        sums = [max(weighted(weights, row), _LEAST_US) for row in rows]
        curve = fit_curve(sums, times)
        back = curve.inverse()
        target = [back(time) for time in times]
    return Side(weights, curve)


def weighted(weights: Sequence[float], work: Sequence[float]) -> float:
    """The constant and the weighted work."""
    total = weights[0]
    for weight, amount in zip(weights[1:], work, strict=True):
        total += weight * amount
    return total


class Copies(NamedTuple):
    """Microseconds of a copy by its bytes."""

    pageable_in: Curve
    pinned_in: Curve
    out: Curve

    def into(self, pageable: float, pinned: float) -> float:
        """Of bytes from ordinary and from page-locked memory to the GPU."""
        return (self.pageable_in(pageable) if pageable else 0.0) + (self.pinned_in(pinned) if pinned else 0.0)


class Estimates(NamedTuple):
    """What both sides would take. `cpu_us` and `gpu_us` are the totals that are compared."""

    cpu_us: float
    gpu_us: float
    cpu_upload_us: float  # part of cpu_us: the answer's way to the GPU, where it is wanted there
    copy_in_us: float  # these three make gpu_us
    kernel_us: float  # with its launch and the wait for it
    copy_out_us: float


@dataclass(frozen=True)
class Side:
    """One way to compute an operation.

    Attributes:
        weights: of a constant, on the GPU of the time of the copies, and of the call's work.
        curve: from the weighted sum to microseconds.
    """

    weights: tuple[float, ...]
    curve: Curve = IDENTITY


@dataclass(frozen=True)
class OperationModel:
    """The sides of one operation: the CPU, and the GPU with the answer wanted on the host or left on the device."""

    cpu: Side
    gpu: dict[str, Side]  # by result: "host", "device"

    def estimate(self, load: Workload, copies: Copies, result: str) -> Estimates:
        """What a call takes either way with its answer on `result`, "host" or "device"."""
        cpu = self.cpu.curve(weighted(self.cpu.weights, load.work))
        side = self.gpu[result]
        upload = copies.pageable_in(load.bytes_out) if result == "device" and load.bytes_out else 0.0
        copy_in = copies.into(load.pageable, load.pinned)
        copy_out = copies.out(load.bytes_out) if result == "host" and load.bytes_out else 0.0
        whole = max(weighted(side.weights, (copy_in + copy_out, *load.work)), _LEAST_US)
        gpu = side.curve(whole)
        # The copies are shown as they were measured, and the rest is the kernel's, unless they alone would be more.
        share = min(1.0, gpu / (copy_in + copy_out)) if copy_in + copy_out else 1.0
        copy_in, copy_out = copy_in * share, copy_out * share
        return Estimates(cpu + upload, gpu, upload, copy_in, max(gpu - copy_in - copy_out, 0.0), copy_out)


@dataclass(frozen=True, eq=False)
class CostModel:
    """Every operation's sides, and the copies they share.

    Attributes:
        margin: how many times faster the GPU must look before it is taken. 1 for measured points.
        source: "file" or "default": where the numbers come from.
        where: the file's name, or what to do to have one.
    """

    operations: dict[str, OperationModel]
    copies: Copies
    margin: float
    source: str
    where: str

    def estimate(self, load: Workload, result: str) -> Estimates:
        return self.operations[load.op].estimate(load, self.copies, result)


class Measured(NamedTuple):
    """One tuned point: a call's work and what it took."""

    load: Workload
    cpu_us: float
    host_us: float  # round trip, the answer back on the host
    device_us: float  # round trip, the answer left on the GPU


def fit_operation(points: Sequence[Measured], copies: Copies) -> OperationModel:
    """The model of one operation from its points."""
    loads = [point.load for point in points]
    into = [copies.into(load.pageable, load.pinned) for load in loads]
    both = [a + (copies.out(load.bytes_out) if load.bytes_out else 0.0) for a, load in zip(into, loads, strict=True)]
    rows = [load.work for load in loads]
    return OperationModel(
        fit_side(rows, [point.cpu_us for point in points]),
        {
            "host": fit_side(_behind(both, rows), [point.host_us for point in points]),
            "device": fit_side(_behind(into, rows), [point.device_us for point in points]),
        },
    )


def _behind(copied: Sequence[float], rows: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Rows of work behind the time of their copies."""
    return [(time, *row) for time, row in zip(copied, rows, strict=True)]
