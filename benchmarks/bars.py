"""What rows are asked to reach, and whether they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bar:
    """A limit in `unit`: at most "us", "x uniform", "of eager"; at least "G points/s", "x eager", "x lerobot-style"."""

    limit: float
    unit: str


_ONE_CELL = Bar(3.0, "x uniform")  # all points in one cell against the same row with uniform points
_EAGER = Bar(3.0, "x eager")
_OF_EAGER = Bar(1.1, "of eager")  # a cache that does not hold the calls' shapes may cost this much

BARS: dict[str, Bar] = {
    "occupancy-1x500k-128-u8": Bar(7.5, "us"),
    "count-1x500k-128-i32": Bar(9.5, "us"),
    "occupancy-64x65536-100-u8": Bar(34.0, "us"),
    "occupancy-64x65536-100-fp32": Bar(82.0, "us"),
    "occupancy-256x16384-64-u8": Bar(31.0, "us"),
    "mean-1x1M-c16-200-fp32": Bar(200.0, "us"),
    "max-1x1M-c16-200-fp32": Bar(200.0, "us"),
    "peract-16x65536-c7-100": Bar(200.0, "us"),
    "count-1x100M-256-i32": Bar(60.0, "G points/s"),
    "occupancy-1x100M-128-u8": Bar(200.0, "G points/s"),
    "sparse-mean-1x1M-c16-200": Bar(5.0, "G points/s"),
    "sparse-coords-1x1M-200": Bar(5.0, "G points/s"),
    "pipeline-8": _EAGER,
    "pipeline-8-rotating": _EAGER,
    "stream-64-shapes": _OF_EAGER,
    "stream-new-shapes": _OF_EAGER,
    "stream-64-shapes-resample": _OF_EAGER,
    "stream-new-shapes-resample": _OF_EAGER,
    "cpu-occupancy-1x500k-128-u8": _EAGER,
    "cpu-count-1x500k-128-i32": _EAGER,
    "cpu-mean-1x200k-c16-100-fp32": _EAGER,
    "cpu-max-1x200k-c16-100-fp32": _EAGER,
}


# Of the store suite; a row may have several.
STORE_BARS: dict[str, tuple[Bar, ...]] = {
    "store-4096x16-4": (Bar(60.0, "us"), Bar(100.0, "x lerobot-style")),
}


def median(row: dict[str, Any], variant: str = "robocache") -> float | None:
    value: float | None = row.get("variants", {}).get(variant, {}).get("cold", {}).get("median")
    return value


OURS = ("robocache", "op", "ring", "borrow")  # variants that are no peers: our operator, our cache's other outputs


def peer_medians(row: dict[str, Any]) -> dict[str, float]:
    """Microseconds of every peer of a row."""
    found = {name: median(row, name) for name in row.get("variants", {}) if name not in OURS}
    return {name: one for name, one in found.items() if one is not None}


def of_base(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> float | None:
    """The row's time as a multiple of that of the row with uniform points."""
    base = next((one for one in rows if one["name"] == row.get("base")), None)
    ours, uniform = median(row), None if base is None else median(base)
    return ours / uniform if ours is not None and uniform is not None else None


def bar_of(name: str) -> Bar | None:
    return _ONE_CELL if name.endswith("-onecell") else BARS.get(name)


def store_verdict(row: dict[str, Any]) -> str:
    """The verdicts on a row of the store suite on a GPU, or "-"."""
    ours = median(row)
    told = []
    for bar in STORE_BARS.get(row["name"], ()):
        other = None if bar.unit == "us" else median(row, bar.unit.removeprefix("x "))
        if ours is not None and (bar.unit == "us" or other is not None):
            met = ours <= bar.limit if other is None else other / ours >= bar.limit
            told.append(f"{bar.limit:g} {bar.unit}: {'met' if met else 'missed'}")
    return ", ".join(told) or "-"


def verdict(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """ "7.5 us: met", "7.5 us: missed", or "-" where nothing is asked or nothing was measured."""
    bar, ours = bar_of(row["name"]), median(row)
    if bar is None or ours is None:
        return "-"
    eager = median(row, "eager")
    reached = {
        "us": ours,
        "of eager": None if eager is None else ours / eager,
        "G points/s": row.get("points_per_second", 0.0) / 1e9,
        "x uniform": of_base(row, rows),
        "x eager": None if eager is None else eager / ours,
    }[bar.unit]
    if reached is None:
        return "-"
    met = reached <= bar.limit if bar.unit in ("us", "x uniform", "of eager") else reached >= bar.limit
    return f"{bar.limit:g}{'' if bar.unit.startswith('x') else ' '}{bar.unit}: {'met' if met else 'missed'}"
