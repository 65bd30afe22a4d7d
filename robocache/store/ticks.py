"""Seconds to ticks, exactly: every number is taken as the fraction that it is, multiplied, and rounded once."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np

_INT64 = 2**63


def tick(seconds: Any, ticks_per_second: int, name: str = "seconds") -> int:
    """The tick nearest to a time in seconds (a tie takes the even one).

    -1/30 at 3e9 ticks a second is -100000000: the float's error, 1e-18 s, is far below half a tick.

    Raises:
        TypeError, ValueError: not a finite number, or beyond int64 ticks.
    """
    if isinstance(seconds, (bool, np.bool_)) or not isinstance(
        seconds, (int, float, Fraction, np.integer, np.floating)
    ):
        raise TypeError(f"{name}: expected a number of seconds, got {type(seconds).__name__}")
    number = seconds.item() if isinstance(seconds, np.generic) else seconds
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError(f"{name}: expected a finite number of seconds, got {number}")
    ticks = round(Fraction(number) * ticks_per_second)
    if not -_INT64 <= ticks < _INT64:
        raise ValueError(f"{name}: {number} s at {ticks_per_second} ticks a second lies beyond int64")
    return ticks


def whole_number(value: Any, name: str, what: str) -> int:
    """A count of 1 or more, as an int; NumPy's integers are taken, booleans are not.

    Raises:
        ValueError: anything else.
    """
    try:
        number = 0 if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name}: expected a number of {what} of 1 or more, got {value!r}")
    return number


def ticks_of(seconds: Iterable[Any], ticks_per_second: int, name: str = "seconds") -> tuple[int, ...]:
    """`tick` of each entry."""
    if isinstance(seconds, (str, bytes)) or not isinstance(seconds, Iterable):
        raise TypeError(f"{name}: expected a sequence of numbers of seconds, got {type(seconds).__name__}")
    return tuple(tick(entry, ticks_per_second, f"{name}[{index}]") for index, entry in enumerate(seconds))


def steps_at(count: int, rate: Fraction, ticks_per_second: int) -> tuple[int, ...]:
    """Ticks of steps 0 to count - 1 at `rate` steps a second, each rounded on its own, so nothing adds up."""
    return tuple(round(Fraction(step * ticks_per_second) / rate) for step in range(count))
