"""The semantics once more, slow and obvious: loops over rows and targets, exact integers, no shared code.

Takes what the public functions take (tensors on the host) and returns (out, valid). Written from the documented rules,
with SciPy for pchip and slerp. linear and the step kinds give the exact bits; angle, pchip and slerp are computed in
float64 and hold to a tolerance.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation, Slerp

STEP_KINDS = ("previous", "next", "nearest")
INT64_MAX, INT64_MIN = 2**63 - 1, -(2**63)


class Raises(Exception):
    """A `raise` policy speaks; carries the output row and the target's position."""

    def __init__(self, policy: str, row: int, position: int) -> None:
        super().__init__(f"{policy} at row {row}, target {position}")
        self.policy, self.row, self.position = policy, row, position


class Clock:
    """Arithmetic of a time dtype: floats in their own precision, int64 exactly."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.type = {torch.float32: np.float32, torch.float64: np.float64, torch.int64: int}[dtype]

    def list(self, times: torch.Tensor) -> list[Any]:
        return [self.type(t) for t in times.tolist()] if self.type is int else list(times.numpy())

    def span(self, length: float) -> Any:
        """A length of time as the caller gave it, in the dtype (int64: floor)."""
        if self.type is int:
            return math.floor(length) if math.isfinite(length) else math.inf
        return self.type(length)

    def shift(self, t: Any, offset: Any) -> Any:
        if self.type is int:
            return min(max(t + int(offset), INT64_MIN), INT64_MAX)
        return self.type(t + self.type(offset))

    def ratio(self, since: Any, gap: Any) -> float:
        return float(since) / float(gap) if self.type is int else float(self.type(since / gap))


def groups_of(kind: Any, columns: int) -> list[tuple[list[int], str]]:
    """Column lists and their kinds, from a name or a list of (columns, name)."""
    if isinstance(kind, str):
        return [(list(range(columns)), kind)]
    named = {c for cols, _ in kind if cols is not ... for c in _column_list(cols, columns)}
    rest = [c for c in range(columns) if c not in named]
    return [(rest if cols is ... else _column_list(cols, columns), name) for cols, name in kind]


def _column_list(cols: Any, columns: int) -> list[int]:
    if isinstance(cols, slice):
        return list(range(*cols.indices(columns)))
    return [cols] if isinstance(cols, int) else list(cols)


class Sequence:
    """One run of samples: its stamps and values, and what stands at a target."""

    def __init__(self, clock: Clock, times: torch.Tensor, values: torch.Tensor, options: dict[str, Any]) -> None:
        self.clock = clock
        self.times = clock.list(times)
        self.dtype = values.dtype
        if values.dtype == torch.float64:
            self.values = values.numpy()
        elif values.dtype.is_floating_point:
            self.values = values.float().numpy()
        else:
            self.values = values.to(torch.int64).numpy().astype(object)
        gap, tolerance = options.get("max_gap"), options.get("tolerance")
        self.max_gap = math.inf if gap is None else clock.span(gap)
        self.tolerance = None if tolerance is None else clock.span(tolerance)
        self.extrapolate = options.get("extrapolate") or "clamp"

    def at_or_before(self, t: Any) -> int:
        return max(i for i, stamp in enumerate(self.times) if stamp <= t)

    def first_of(self, i: int) -> int:
        return min(k for k, stamp in enumerate(self.times) if stamp == self.times[i])

    def last_of(self, i: int) -> int:
        return max(k for k, stamp in enumerate(self.times) if stamp == self.times[i])

    def read(self, t: Any, columns: list[int], kind: str) -> tuple[Any, bool, bool]:
        """Values at `t`, whether the target is valid for this kind, and whether `extrapolate` spoke."""
        first, last = self.times[0], self.times[-1]
        if first <= t <= last:
            i = self.at_or_before(t)
            if self.times[i] == t:
                return self.copy(self.first_of(i) if kind == "next" else i, columns, kind), True, False
            return self.between(i, t, columns, kind)
        return self.outside(t, columns, kind)

    def copy(self, i: int, columns: list[int], kind: str) -> Any:
        row = self.values[i, columns]
        return wrap(row) if kind == "angle" else row

    def between(self, i: int, t: Any, columns: list[int], kind: str) -> tuple[Any, bool, bool]:
        t0, t1 = self.times[i], self.times[i + 1]
        since, until, gap = t - t0, t1 - t, t1 - t0
        if kind == "previous":
            value, distance = self.values[i, columns], since
        elif kind == "next":
            value, distance = self.values[i + 1, columns], until
        elif kind == "nearest" and until < since:
            value, distance = self.values[self.last_of(i + 1), columns], until
        elif kind == "nearest":
            value, distance = self.values[i, columns], since
        else:
            value, distance = self.blend(i, self.clock.ratio(since, gap), columns, kind), min(since, until)
        valid = bool(gap <= self.max_gap) and (self.tolerance is None or bool(distance <= self.tolerance))
        return value, valid, False

    def outside(self, t: Any, columns: list[int], kind: str) -> tuple[Any, bool, bool]:
        before = t < self.times[0]
        end = self.last_of(0) if before else len(self.times) - 1
        distance = self.times[0] - t if before else t - self.times[-1]
        admitted = kind in STEP_KINDS and self.tolerance is not None and bool(distance <= self.tolerance)
        held = self.copy(self.first_of(end) if kind == "next" else end, columns, kind)
        if admitted or self.extrapolate == "clamp":
            return held, admitted, not admitted
        if self.extrapolate == "nan":
            return np.full(len(columns), np.nan), False, True
        if self.extrapolate == "linear" and kind not in STEP_KINDS:
            i = end if before else self.first_of(end) - 1
            if i >= 0 and i + 1 < len(self.times):
                t0, t1 = self.times[i], self.times[i + 1]
                w = -self.clock.ratio(t0 - t, t1 - t0) if before else self.clock.ratio(t - t0, t1 - t0)
                return self.blend(i, w, columns, kind), False, True
        return held, False, True

    def blend(self, i: int, w: float, columns: list[int], kind: str) -> Any:
        """Between samples i and i + 1 with weight w of the later one (outside 0..1: extrapolated)."""
        v0, v1 = self.values[i, columns], self.values[i + 1, columns]
        if kind == "linear":
            weight = v0.dtype.type(w)
            return v0 + weight * (v1 - v0)
        v0, v1 = v0.astype(np.float64), v1.astype(np.float64)
        if kind == "angle":
            return wrap(v0 + w * wrap(v1 - v0))
        if kind == "pchip":
            return self.cubic(i, w, columns)
        parts = [slerp(a, b, w, kind) for a, b in zip(v0.reshape(-1, 4), v1.reshape(-1, 4), strict=True)]
        return np.concatenate(parts) if parts else v0

    def cubic(self, i: int, w: float, columns: list[int]) -> np.ndarray:
        """Equal stamps break the curve: each run of distinct stamps is a monotone cubic of its own."""
        begin, end = i, i + 1
        while begin > 0 and self.times[begin - 1] != self.times[begin]:
            begin -= 1
        while end + 1 < len(self.times) and self.times[end + 1] != self.times[end]:
            end += 1
        origin = self.times[i]
        knots = np.array([float(t - origin) for t in self.times[begin : end + 1]])
        values = self.values[begin : end + 1][:, columns].astype(np.float64)
        length = float(self.times[i + 1] - origin)
        if len(knots) == 2:
            return values[0] + w * (values[1] - values[0])
        curve = PchipInterpolator(knots, values, axis=0)
        if w < 0.0:
            return curve(0.0) + w * length * curve.derivative()(0.0)
        if w > 1.0:
            return curve(length) + (w - 1.0) * length * curve.derivative()(length)
        return curve(w * length)


def wrap(a: np.ndarray) -> np.ndarray:
    """Into [-pi, pi) of the array's own precision; what is inside stays as it is."""
    pi = a.dtype.type(np.pi)
    inside = (a >= -pi) & (a < pi)
    turned = np.remainder(a.astype(np.float64) + np.pi, 2 * np.pi) - np.pi
    return np.where(inside, a, turned.astype(a.dtype))


def slerp(q0: np.ndarray, q1: np.ndarray, w: float, kind: str) -> np.ndarray:
    """SciPy's rotation between two, in q0's half of the quaternions; outside 0..1 at constant rate."""
    if not np.isfinite([q0, q1]).all() or not q0.any() or not q1.any():
        return np.full(4, np.nan)
    order = [1, 2, 3, 0] if kind == "slerp_wxyz" else [0, 1, 2, 3]
    a, b = q0[order] / np.linalg.norm(q0), q1[order] / np.linalg.norm(q1)
    start = Rotation.from_quat(a)
    if 0.0 <= w <= 1.0:
        found = Slerp([0.0, 1.0], Rotation.from_quat([a, b]))(w).as_quat()
    else:
        step = (start.inv() * Rotation.from_quat(b)).as_rotvec()
        found = (start * Rotation.from_rotvec(w * step)).as_quat()
    near = a if w < 0.5 else (b if a @ b >= 0 else -b)  # keeps the hemisphere through the whole arc
    found = found if found @ near >= 0 else -found
    out = np.empty(4)
    out[order] = found
    return out


def _fill(dtype: torch.dtype) -> float | int:
    return math.nan if dtype.is_floating_point else 0


def to_out(row: Any, values_dtype: torch.dtype, out_dtype: torch.dtype) -> torch.Tensor:
    """Rounds as documented: half types through float32; integers to floating types through float32, or double."""
    array = np.asarray(row)
    if array.dtype == object:
        exact = torch.tensor([int(v) for v in array], dtype=torch.int64)
        if not out_dtype.is_floating_point:
            return exact.to(out_dtype)
        return exact.to(torch.float64 if out_dtype == torch.float64 else torch.float32).to(out_dtype)
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if not out_dtype.is_floating_point:
        return tensor.to(out_dtype)
    if out_dtype != torch.float64:
        tensor = tensor.to(torch.float32)
    return tensor.to(out_dtype)


def _sequence(
    values: torch.Tensor, times: torch.Tensor, r: int, lengths: torch.Tensor | None, row_splits: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    if row_splits is not None:
        begin, end = int(row_splits[r]), int(row_splits[r + 1])
        return times[begin:end], values[begin:end]
    end = values.shape[1] if lengths is None else int(lengths[r])
    return (times if times.dim() == 1 else times[r])[:end], values[r, :end]


def resample(
    values: torch.Tensor,
    times: torch.Tensor,
    target_times: torch.Tensor,
    *,
    kind: Any = "linear",
    lengths: torch.Tensor | None = None,
    row_splits: torch.Tensor | None = None,
    rows: torch.Tensor | None = None,
    invalid: str = "keep",
    time_offset: Any = None,
    out_dtype: torch.dtype | None = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(out [B, T, D], valid [B, T]) of a call with values [R, S, D], or [N, D] with row_splits."""
    clock = Clock(times.dtype)
    out_dtype = out_dtype or values.dtype
    if rows is not None:
        batch = rows.numel()
    else:
        batch = row_splits.numel() - 1 if row_splits is not None else values.shape[0]
    columns, count = values.shape[-1], target_times.shape[-1]
    out = torch.full((batch, count, columns), _fill(out_dtype), dtype=out_dtype)
    valid = torch.zeros(batch, count, dtype=torch.bool)
    for b in range(batch):
        r = b if rows is None else int(rows[b])
        stamps, samples = _sequence(values, times, r, lengths, row_splits)
        sequence = Sequence(clock, stamps, samples, options)
        offset = 0 if time_offset is None else time_offset
        offset = offset[b].item() if isinstance(offset, torch.Tensor) and offset.dim() else offset
        targets = clock.list(target_times if target_times.dim() == 1 else target_times[b])
        for k, target in enumerate(targets):
            t = clock.shift(target, offset)
            if not sequence.times or t != t:
                good = False
                if sequence.extrapolate == "raise" and not sequence.times:
                    raise Raises("extrapolate", b, k)
            else:
                good = True
                for cols, name in groups_of(kind, columns):
                    with np.errstate(all="ignore"):
                        row, group_valid, spoke = sequence.read(t, cols, name)
                    if spoke and sequence.extrapolate == "raise":
                        raise Raises("extrapolate", b, k)
                    good = good and group_valid
                    out[b, k, cols] = to_out(row, values.dtype, out_dtype)
            valid[b, k] = good
            if not good and invalid == "raise":
                raise Raises("invalid", b, k)
            if not good and invalid == "nan":
                out[b, k] = math.nan
    return out, valid


def exact_weight(t: int, t0: int, t1: int) -> Fraction:
    """The weight as a rational number, for tests of int64 time."""
    return Fraction(t - t0, t1 - t0)
