"""Time of evenly sampled streams in whole ticks: no float is ever summed."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

NANOSECONDS = 10**9
# Broadcast rates that metadata writes rounded: 29.97 is 30 * 1000/1001 (SMPTE ST 12-1), and so on.
_NTSC_BASES = (24, 30, 48, 60, 120, 240)
# Claimed rates are rounded to such a denominator. It keeps lcm(10**9, numerator) small enough for days of int64 ticks.
_MAX_DENOMINATOR = 1001
_MAX_RATE = 1_000_000


def rational_rate(rate: Any, name: str = "rate") -> Fraction:
    """Samples per second as a fraction.

    Whole numbers and Fractions are taken as they are. 23.976, 29.97, 59.94 and their like, written with two or more
    decimals, mean n * 1000/1001. Any other float is the nearest fraction with a denominator of at most 1001.

    Raises:
        ValueError: not a positive finite number, or above a million a second.

    Example:
        >>> rational_rate(29.97)
        Fraction(30000, 1001)
    """
    if isinstance(rate, bool) or not isinstance(rate, (int, float, Fraction, np.integer, np.floating)):
        raise ValueError(f"{name}: expected samples per second as a number, got {rate!r}")
    if isinstance(rate, (float, np.floating)):
        number = float(rate)
        if not math.isfinite(number):
            raise ValueError(f"{name}: expected samples per second as a finite number, got {rate!r}")
        exact = _rounded(number)
    else:
        exact = Fraction(rate) if isinstance(rate, Fraction) else Fraction(int(rate))
    if not 0 < exact <= _MAX_RATE:
        raise ValueError(f"{name}: expected samples per second in (0, {_MAX_RATE}], got {rate!r}")
    return exact


def _rounded(number: float) -> Fraction:
    decimals = len(repr(number).partition(".")[2])
    if decimals >= 2:
        for base in _NTSC_BASES:
            broadcast = Fraction(base * 1000, 1001)
            if round(float(broadcast), decimals) == number:
                return broadcast
    return Fraction(repr(number)).limit_denominator(_MAX_DENOMINATOR)


def ticks_for(rates: Any) -> int:
    """Ticks a second in which whole nanoseconds and every frame of every rate are whole numbers."""
    return math.lcm(NANOSECONDS, *(rate.numerator for rate in rates if rate is not None))


def frame_ticks(frames: NDArray[np.int64], rate: Fraction, ticks_per_second: int) -> NDArray[np.int64]:
    """Ticks of frame numbers: frame * ticks_per_second / rate, exact because `ticks_for` chose the tick.

    Raises:
        ValueError: the last frame lies beyond int64.
    """
    step = ticks_per_second * rate.denominator // rate.numerator
    furthest = int(np.abs(frames).max()) if frames.size else 0
    if furthest * step > np.iinfo(np.int64).max:
        raise ValueError(f"frame {furthest} at {float(rate):g} a second lies beyond int64 ticks")
    return np.multiply(frames, step, dtype=np.int64)


def second_ticks(seconds: NDArray[np.float64], ticks_per_second: int) -> NDArray[np.int64]:
    """Ticks nearest to times in seconds. Whole seconds are split off: the product stays exact enough."""
    whole = np.floor(seconds)
    return whole.astype(np.int64) * ticks_per_second + np.rint((seconds - whole) * ticks_per_second).astype(np.int64)
