"""A Dataset of arrays that are already in memory: for one's own data, and for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._kinds import Kind
from ._clock import NANOSECONDS, frame_ticks, rational_rate, second_ticks, ticks_for
from ._episode import Dataset, Episode, EpisodeStream, StreamSpec, with_kinds
from ._errors import DatasetError


def from_arrays(
    episodes: Sequence[Mapping[str, Any]],
    *,
    fps: Any = None,
    rates: Mapping[str, Any] | None = None,
    kinds: Mapping[str, Kind] | None = None,
    units: Mapping[str, str] | None = None,
    column_names: Mapping[str, Sequence[str]] | None = None,
    text: Sequence[Mapping[str, str]] | None = None,
    name: str = "arrays",
) -> Dataset:
    """A dataset of arrays in memory, with the face of one on disk.

    Args:
        episodes: a mapping an episode, stream name to values [S, D] (or [S], taken as [S, 1]); or to (values, times)
            with times [S]: int64 nanoseconds or float seconds, since the episode's own zero. All episodes have the same
            streams.
        fps: samples per second of the main clock; stream values without times are frames of it, from 0.
        rates: other rates, by stream.
        kinds: by stream, as in `robocache.Stream`; else "linear" for floats, "previous" for integers and booleans.
        units: by stream.
        column_names: by stream, one name a column.
        text: a mapping an episode, as `Episode.text`.
        name: of the dataset.

    Returns:
        A Dataset with format "arrays". An episode's `length` is that of its longest stream.

    Raises:
        DatasetError: streams, shapes or dtypes that differ between episodes; times and values of different lengths; a
            stream with neither times nor a rate.

    Example:
        >>> ds = from_arrays([{"state": np.zeros((90, 7), "f4"), "imu": (imu, imu_nanoseconds)}], fps=30)
    """
    rows = [dict(episode) for episode in episodes]
    if not rows:
        raise DatasetError("from_arrays: expected at least one episode, got none")
    if text is not None and len(text) != len(rows):
        raise DatasetError(f"text: expected one mapping an episode, {len(rows)}, got {len(text)}")
    frame_rate = None if fps is None else rational_rate(fps, "fps")
    known = {stream: rational_rate(rate, f"rates[{stream!r}]") for stream, rate in (rates or {}).items()}
    specs = {
        stream: _spec(stream, entry, known.get(stream, frame_rate), units, column_names)
        for stream, entry in rows[0].items()
    }
    return _ArrayDataset(
        rows, with_kinds(specs, kinds), frame_rate, [dict(words) for words in text or [{}] * len(rows)], name
    )


def _pair(entry: Any) -> tuple[NDArray[Any], NDArray[Any] | None]:
    values, times = entry if isinstance(entry, tuple) else (entry, None)
    array = np.asarray(values)
    return array[:, None] if array.ndim == 1 else array, None if times is None else np.asarray(times)


def _spec(
    name: str,
    entry: Any,
    rate: Fraction | None,
    units: Mapping[str, str] | None,
    column_names: Mapping[str, Sequence[str]] | None,
) -> StreamSpec:
    values, times = _pair(entry)
    if values.ndim != 2 or values.dtype.kind not in "fiub":
        raise DatasetError(
            f"{name}: expected numbers [S, D] or [S], got {values.dtype} {list(values.shape)}", episode=0
        )
    if rate is None and times is None:
        raise DatasetError(f"{name}: has no times, and neither fps nor rates tells its rate", episode=0)
    names = (column_names or {}).get(name)
    if names is not None and len(names) != values.shape[1]:
        raise DatasetError(f"column_names[{name!r}]: expected {values.shape[1]} names, got {len(names)}")
    return StreamSpec(
        name=name,
        shape=(values.shape[1],),
        dtype=values.dtype,
        kind="linear" if values.dtype.kind == "f" else "previous",
        units=(units or {}).get(name),
        column_names=None if names is None else tuple(names),
        rate=rate,
    )


class _ArrayDataset(Dataset):
    def __init__(
        self,
        rows: list[dict[str, Any]],
        specs: Mapping[str, StreamSpec],
        fps: Fraction | None,
        text: list[dict[str, str]],
        name: str,
    ) -> None:
        super().__init__()
        self.path = Path()
        self.format = "arrays"
        self.name = name
        self.fps = fps
        self.specs = specs
        self.on_error = "raise"
        self.ticks_per_second = ticks_for([fps, *(spec.rate for spec in specs.values())])
        self._text = text
        self._data = [self._checked(index, row) for index, row in enumerate(rows)]

    def _checked(self, index: int, row: dict[str, Any]) -> dict[str, tuple[NDArray[Any], NDArray[np.int64]]]:
        if set(row) != set(self.specs):
            raise DatasetError(f"expected streams {sorted(self.specs)}, got {sorted(row)}", episode=index)
        return {name: self._samples(index, spec, row[name]) for name, spec in self.specs.items()}

    def _samples(self, index: int, spec: StreamSpec, entry: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
        values, times = _pair(entry)
        if values.ndim != 2 or values.shape[1:] != spec.shape or values.dtype != spec.dtype:
            raise DatasetError(
                f"{spec.name}: expected {spec.dtype} [S, {spec.shape[0]}], got {values.dtype} {list(values.shape)}",
                episode=index,
            )
        if times is None:
            if spec.rate is None:
                raise DatasetError(
                    f"{spec.name}: has no times, and neither fps nor rates tells its rate", episode=index
                )
            return values, frame_ticks(np.arange(len(values), dtype=np.int64), spec.rate, self.ticks_per_second)
        if times.shape != values.shape[:1]:
            raise DatasetError(
                f"{spec.name}: times: expected [S] = [{len(values)}], got {list(times.shape)}", episode=index
            )
        return values, self._ticks(index, spec.name, times)

    def _ticks(self, index: int, name: str, times: NDArray[Any]) -> NDArray[np.int64]:
        if times.dtype.kind == "f":
            if not np.isfinite(times).all():
                raise DatasetError(f"{name}: times: expected finite seconds, got NaN or Inf", episode=index)
            return second_ticks(times.astype(np.float64), self.ticks_per_second)
        if times.dtype.kind not in "iu":
            raise DatasetError(f"{name}: times: expected int64 nanoseconds or float seconds, got {times.dtype}")
        return times.astype(np.int64) * (self.ticks_per_second // NANOSECONDS)

    def __len__(self) -> int:
        return len(self._data)

    def length(self, index: int) -> int:
        return max((len(values) for values, _ in self._data[self.checked_index(index)].values()), default=0)

    def episode(self, index: int) -> Episode:
        streams = {
            name: EpisodeStream(self.specs[name], len(values), _Given(values), _Given(times))
            for name, (values, times) in self._data[index].items()
        }
        return Episode(
            index, f"episode_{index:06d}", self.length(index), self.ticks_per_second, streams, self._text[index]
        )


class _Given:
    """A loader of what is already there; picklable, as a lambda is not."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def __call__(self) -> NDArray[Any]:
        return self.array
