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
    """Frames of the main clock and estimated bytes in memory, by episode; no frames where `skipped` tells why."""

    frames: NDArray[np.int64]
    sizes: NDArray[np.int64]
    skipped: dict[int, DatasetError]


def survey(dataset: Dataset, layouts: Sequence[StreamLayout], clock: int, skip: bool) -> Survey:
    """Frames from the dataset's metadata; bytes from them and one episode, read to see each stream's samples a frame.

    Raises:
        DatasetError: no episode can be read; without `skip` also where an episode's frames cannot be told.
    """
    episode = _first_that_reads(dataset, layouts)
    samples = [len(episode.streams[layout.name]) if layout.name in episode.streams else 0 for layout in layouts]
    frames, skipped = _frames(dataset, layouts[clock].name, samples[clock] == episode.length, skip)
    ratio = [count / max(1, samples[clock]) for count in samples]
    per_frame = sum(
        share * (max(layout.value_bytes, _raw_bytes(dataset, layout)) + _TIME_BYTES)
        for share, layout in zip(ratio, layouts, strict=True)
    )
    return Survey(frames, np.ceil(frames * (per_frame + _ANCHOR_BYTES)).astype(np.int64), skipped)


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


def _frames(
    dataset: Dataset, clock: str, is_main: bool, skip: bool
) -> tuple[NDArray[np.int64], dict[int, DatasetError]]:
    """By episode; from the episodes themselves where the clock is not the one that the metadata counts."""
    frames = np.zeros(len(dataset), dtype=np.int64)
    skipped: dict[int, DatasetError] = {}
    for index in range(len(dataset)):
        try:
            frames[index] = dataset.length(index) if is_main else len(dataset[index].streams[clock])
        except DatasetError as error:
            if not skip:
                raise error.at(episode=index) from error
            skipped[index] = error
    return frames, skipped
