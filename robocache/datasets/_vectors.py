"""An episode's vector streams as arrays, checked once so that no kernel meets a bad clock later. NumPy only: processes
that read episodes for others need no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._episode import Episode
from ._errors import DatasetError

Vector: TypeAlias = "tuple[NDArray[Any], NDArray[np.int64]]"  # values [S, D] and times [S]


def clock_problem(times: NDArray[Any], samples: int) -> str | None:
    """What is wrong with the times of `samples` samples, or None."""
    if times.dtype != np.int64 or times.shape != (samples,):
        return f"times: expected int64 [S] = [{samples}], got {times.dtype} {list(times.shape)}"
    backwards = np.flatnonzero(times[1:] < times[:-1])
    if backwards.size:
        at = int(backwards[0])
        return f"times: go backwards after sample {at}, from {times[at]} to {times[at + 1]}"
    return None


def read_vectors(episode: Episode, streams: Sequence[tuple[str, int]]) -> list[Vector | None]:
    """Values and times of each stream (name, columns); None for one that the episode lacks.

    Raises:
        DatasetError: what the episode holds is not what its dataset's specs say, or a clock goes backwards.
    """
    found: list[Vector | None] = []
    for name, columns in streams:
        stream = episode.streams.get(name)
        if stream is None:
            found.append(None)
            continue
        values, times = np.asarray(stream.values), np.asarray(stream.times)
        problem = clock_problem(times, len(values))
        if values.ndim != 2 or values.shape[1] != columns:
            problem = f"values: expected [S, {columns}], got {list(values.shape)}"
        if problem is not None:
            raise DatasetError(f"{name}: {problem}", episode=episode.index)
        found.append((values, times))
    return found
