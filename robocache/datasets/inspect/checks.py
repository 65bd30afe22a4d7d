"""Checks of one stream of one episode: its clock and its values."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._kinds import KIND_NAMES, groups_of
from .._episode import StreamSpec
from .findings import ERROR, WARNING, Finding

GAP = 1.5  # intervals longer than this many usual ones
RATE_TOLERANCE = 0.02  # share by which the usual interval may miss the claimed rate
NORM_WARNING, NORM_ERROR = 1e-3, 0.1  # how far a quaternion's norm may be from 1
_FULL_TURN = 2 * np.pi + 1e-3  # an angle beyond it is hardly in radians


def check_times(
    times: NDArray[np.int64], ticks_per_second: int, rate: Fraction | None, episode: int, stream: str
) -> Iterator[Finding]:
    """Stamps that go backwards or stand twice, holes, and a rate that is not the claimed one."""
    steps = np.diff(times)
    back, twice = int((steps < 0).sum()), int((steps == 0).sum())
    if back:
        row = int(np.argmax(steps < 0)) + 1
        yield Finding(ERROR, "backwards", f"{back} stamps go backwards, the first at sample {row}", episode, stream)
    if twice:
        row = int(np.argmax(steps == 0)) + 1
        yield Finding(WARNING, "duplicate", f"{twice} stamps stand twice, the first at sample {row}", episode, stream)
    forward = steps[steps > 0]
    if not forward.size:
        return
    usual = float(np.median(forward))
    claimed = usual if rate is None else float(ticks_per_second / rate)
    if abs(usual - claimed) > RATE_TOLERANCE * claimed:
        yield Finding(
            ERROR,
            "rate",
            f"{ticks_per_second / usual:.4g} samples a second, {float(rate or 0):g} claimed",
            episode,
            stream,
        )
    holes = forward > GAP * usual
    if holes.any():
        longest = float(forward.max())
        message = (
            f"{int(holes.sum())} gaps, the longest {longest / ticks_per_second:.4g} s "
            f"({longest / usual:.1f} usual intervals)"
        )
        yield Finding(WARNING, "gap", message, episode, stream)


def check_values(values: NDArray[Any], spec: StreamSpec, episode: int) -> Iterator[Finding]:
    """NaN and Inf, quaternions that are none or change sign, angles that are no radians."""
    if values.dtype.kind != "f":
        return
    finite = np.isfinite(values)
    if not finite.all():
        step, column = (int(part) for part in np.argwhere(~finite)[0])
        yield Finding(
            ERROR,
            "not finite",
            f"{int((~finite).sum())} values are NaN or Inf, the first at step {step}, column {column}",
            episode,
            spec.name,
        )
    for begin, end, number in groups_of(spec.kind, spec.shape[0]):
        kind = KIND_NAMES[number]
        if kind.startswith("slerp"):
            for first in range(begin, end, 4):
                yield from _check_quaternion(values[:, first : first + 4], first, episode, spec.name)
        elif kind == "angle":
            furthest = float(np.abs(np.nan_to_num(values[:, begin:end])).max(initial=0))
            if furthest > _FULL_TURN:
                message = f"columns {begin} to {end - 1} reach {furthest:.4g}: are they radians?"
                yield Finding(WARNING, "angle range", message, episode, spec.name)


def _check_quaternion(quaternions: NDArray[Any], first: int, episode: int, stream: str) -> Iterator[Finding]:
    wide = quaternions.astype(np.float64)
    wide = wide[np.isfinite(wide).all(axis=1)]
    if not len(wide):
        return
    place = f"columns {first} to {first + 3}"
    off = np.abs(np.linalg.norm(wide, axis=1) - 1)
    if off.max() > NORM_WARNING:
        severity = ERROR if off.max() > NORM_ERROR else WARNING
        count = int((off > NORM_WARNING).sum())
        message = f"{place}: {count} quaternions are not of norm 1, the worst off by {off.max():.3g}"
        yield Finding(severity, "quaternion norm", message, episode, stream)
    flips = int(((wide[1:] * wide[:-1]).sum(axis=1) < 0).sum())
    if flips:
        message = f"{place}: {flips} sign flips between neighbours (slerp takes the short way; linear would not)"
        yield Finding(WARNING, "quaternion sign", message, episode, stream)
