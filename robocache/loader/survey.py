"""What a loader must know of a dataset before it reads it: frames and bytes of every episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets import Dataset, DatasetError
from ..store.streams import StreamLayout

_ANCHOR_BYTES = 4 * 8  # row, time, episode and frame
_TIME_BYTES = 8


@dataclass(frozen=True, eq=False)
class Survey:
    """Frames of the main clock and estimated bytes in memory, by episode."""

    frames: NDArray[np.int64]
    sizes: NDArray[np.int64]


def survey(dataset: Dataset, layouts: Sequence[StreamLayout], clock: int) -> Survey:
    """Frames from the dataset's metadata; bytes from them and one episode, read to see each stream's samples a frame.

    Raises:
        DatasetError: no episode can be read.
    """
    episode = _first_that_reads(dataset, layouts)
    samples = [len(episode.streams[layout.name]) if layout.name in episode.streams else 0 for layout in layouts]
    frames = _frames(dataset, layouts[clock].name, samples[clock] == episode.length)
    ratio = [count / max(1, samples[clock]) for count in samples]
    per_frame = sum(
        share * (max(layout.value_bytes, _raw_bytes(dataset, layout)) + _TIME_BYTES)
        for share, layout in zip(ratio, layouts, strict=True)
    )
    return Survey(frames, np.ceil(frames * (per_frame + _ANCHOR_BYTES)).astype(np.int64))


def _raw_bytes(dataset: Dataset, layout: StreamLayout) -> int:
    return layout.columns * np.dtype(dataset.specs[layout.name].dtype).itemsize


def _first_that_reads(dataset: Dataset, layouts: Sequence[StreamLayout]) -> Any:
    failure: DatasetError | None = None
    for index in range(len(dataset)):
        try:
            episode = dataset[index]
            for layout in layouts:
                if layout.name in episode.streams:
                    np.asarray(episode.streams[layout.name].times)
            return episode
        except DatasetError as error:
            failure = error
    if failure is not None:
        raise failure
    raise ValueError("dataset: expected at least one episode, got none")


def _frames(dataset: Dataset, clock: str, is_main: bool) -> NDArray[np.int64]:
    """By episode; from the episodes themselves where the clock is not the one that the metadata counts."""
    if is_main:
        return np.array([dataset.length(index) for index in range(len(dataset))], dtype=np.int64)
    return np.array([len(dataset[index].streams[clock]) for index in range(len(dataset))], dtype=np.int64)
