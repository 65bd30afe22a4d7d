"""Which steps of which streams a window has, and which launches read them.

All streams of a launch share its targets, so the targets are the union of the streams' steps. A stream's own steps are
a slice of the union where they are evenly spaced in it, which costs nothing, else an index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .._checks import MAX_STREAMS
from .._stream import Stream
from .bound import BoundLaunch
from .packed import PackedStreams
from .streams import StreamLayout
from .ticks import steps_at, tick, ticks_of, whole_number

Steps: TypeAlias = "slice | Tensor"
Span: TypeAlias = "float | Fraction | Mapping[str, Any] | None"


@dataclass(frozen=True)
class Deltas:
    """Steps of a window in ticks from its anchor.

    Attributes:
        union: of all streams; ascending where streams differ, else as given.
        by_stream: the positions of each stream's own steps in the union.
    """

    union: tuple[int, ...]
    by_stream: Mapping[str, tuple[int, ...]]


def horizon_deltas(names: Sequence[str], horizon: int, rate: Fraction, ticks_per_second: int) -> Deltas:
    """Steps 0 to horizon - 1 at `rate`, for all streams."""
    horizon = whole_number(horizon, "horizon", "steps")
    every = tuple(range(horizon))
    return Deltas(steps_at(horizon, rate, ticks_per_second), dict.fromkeys(names, every))


def given_deltas(names: Sequence[str], delta_times: Any, ticks_per_second: int) -> Deltas:
    """Steps as a caller lists them in seconds: one list for all streams, or one a stream."""
    if not isinstance(delta_times, Mapping):
        union = ticks_of(delta_times, ticks_per_second, "delta_times")
        if not union:
            raise ValueError("delta_times: expected at least one step, got none")
        return Deltas(union, dict.fromkeys(names, tuple(range(len(union)))))
    missing = [name for name in names if name not in delta_times]
    if missing:
        raise ValueError(f"delta_times: expected steps of every stream, got none of {missing}")
    steps = {name: ticks_of(delta_times[name], ticks_per_second, f"delta_times[{name!r}]") for name in names}
    for name, found in steps.items():
        if not found:
            raise ValueError(f"delta_times[{name!r}]: expected at least one step, got none")
    first = next(iter(steps.values()))
    if all(found == first for found in steps.values()):
        return Deltas(first, dict.fromkeys(names, tuple(range(len(first)))))
    union = tuple(sorted({step for found in steps.values() for step in found}))
    place = {step: index for index, step in enumerate(union)}
    return Deltas(union, {name: tuple(place[step] for step in found) for name, found in steps.items()})


def _steps(positions: tuple[int, ...], total: int, device: torch.device) -> Steps:
    """Positions as a slice where they are evenly spaced and ascending, else as an index on the device."""
    stride = positions[1] - positions[0] if len(positions) > 1 else 1
    if stride > 0 and positions == tuple(range(positions[0], positions[-1] + 1, stride)):
        return slice(None) if len(positions) == total else slice(positions[0], positions[-1] + 1, stride)
    return torch.tensor(positions, dtype=torch.int64, device=device)


def _check_names(span: Span, name: str, known: Sequence[str]) -> None:
    """Refuses spans of streams that are not there: a misspelt name would leave its stream without the limit."""
    unknown = [stream for stream in span if stream not in known] if isinstance(span, Mapping) else []
    if unknown:
        raise ValueError(f"{name}: expected names of {', '.join(map(repr, known))}, got {unknown}")


def _span_ticks(span: Span, name: str, stream: str, ticks_per_second: int) -> int | None:
    """max_gap or tolerance of a stream in ticks."""
    value = span.get(stream) if isinstance(span, Mapping) else span
    if value is None:
        return None
    ticks = tick(value, ticks_per_second, name)
    if ticks < 0:
        raise ValueError(f"{name}: expected None or seconds of 0 or more, got {value}")
    return ticks


@dataclass(frozen=True)
class Place:
    """Where one stream lies in a draw.

    Attributes:
        launch: which launch reads it.
        columns: of that launch's values.
        mask: its entry in that launch's validity.
        steps: its own steps among the union.
    """

    launch: int
    columns: slice
    mask: int
    steps: Steps


def launches_of(layouts: Sequence[StreamLayout]) -> list[list[int]]:
    """Streams by launch, 16 at most: floating ones together, whole numbers together, so that neither loses digits."""
    kinds: dict[bool, list[int]] = {}
    for index, layout in enumerate(layouts):
        kinds.setdefault(layout.dtype.is_floating_point, []).append(index)
    return [
        found[begin : begin + MAX_STREAMS] for found in kinds.values() for begin in range(0, len(found), MAX_STREAMS)
    ]


class WindowPlan:
    """Everything about a kind of window that does not change from draw to draw.

    Args:
        layouts: the streams that the packed parts hold, in their order.
        names: the streams that windows read.
        deltas: their steps.
        device: of the parts.
        ticks_per_second: the unit.
        max_gap, tolerance: in seconds, for all streams or by name, as in `robocache.resample_trajectories`.

    Raises:
        ValueError, TypeError: a span that is no time, or is of a stream that `layouts` lack.
    """

    def __init__(
        self,
        layouts: Sequence[StreamLayout],
        names: Sequence[str],
        deltas: Deltas,
        device: torch.device,
        ticks_per_second: int,
        max_gap: Span = None,
        tolerance: Span = None,
    ) -> None:
        by_name = {layout.name: index for index, layout in enumerate(layouts)}
        _check_names(max_gap, "max_gap", list(by_name))
        _check_names(tolerance, "tolerance", list(by_name))
        self.names = tuple(names)
        self.ticks_per_second = ticks_per_second
        self.delta_ticks = deltas.union
        self.deltas = torch.tensor(deltas.union, dtype=torch.int64, device=device)
        self.streams = [by_name[name] for name in names]
        wanted = [layouts[index] for index in self.streams]
        self.launches = launches_of(wanted)
        self.places: dict[str, Place] = {}
        steps = {name: _steps(deltas.by_stream[name], len(deltas.union), device) for name in names}
        for number, launch in enumerate(self.launches):
            begin = 0
            for mask, index in enumerate(launch):
                layout = wanted[index]
                end = begin + layout.columns
                self.places[layout.name] = Place(number, slice(begin, end), mask, steps[layout.name])
                begin = end
        self._options: list[dict[str, Any]] = [
            {
                "kind": layout.kind,
                "max_gap": _span_ticks(max_gap, "max_gap", layout.name, ticks_per_second),
                "tolerance": _span_ticks(tolerance, "tolerance", layout.name, ticks_per_second),
            }
            for layout in wanted
        ]

    def bind(self, part: PackedStreams) -> list[BoundLaunch]:
        """The streams of each launch over one part."""
        return [
            BoundLaunch(
                [
                    Stream(
                        part.values[self.streams[index]],
                        part.times[self.streams[index]],
                        row_splits=part.row_splits[self.streams[index]],
                        **self._options[index],
                    )
                    for index in launch
                ],
                self.deltas,
            )
            for launch in self.launches
        ]
