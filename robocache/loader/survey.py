"""What a loader must know of a dataset before it reads it: frames and bytes of every episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._progress import progress
from ..datasets import Dataset, DatasetError
from ..datasets._work import count_frames
from ..store.streams import StreamLayout
from .workers import PARSED_FORMATS, Workers

_ANCHOR_BYTES = 4 * 8  # row, time, episode and frame
_TIME_BYTES = 8
_CHUNK = 64  # episodes that a worker counts at once


@dataclass(frozen=True, eq=False)
class Survey:
    """Frames of the main clock and estimated bytes in memory, by episode; no frames where `skipped` tells why."""

    frames: NDArray[np.int64]
    sizes: NDArray[np.int64]
    skipped: dict[int, DatasetError]


def survey(workers: Workers, layouts: Sequence[StreamLayout], clock: int, skip: bool, show_progress: bool) -> Survey:
    """Frames from the dataset's metadata; bytes from them and one episode, read to see each stream's samples a frame.

    Raises:
        DatasetError: no episode can be read; without `skip` also where an episode's frames cannot be told.
    """
    dataset = workers.dataset
    episode = _first_that_reads(dataset, layouts)
    samples = [len(episode.streams[layout.name]) if layout.name in episode.streams else 0 for layout in layouts]
    counted = None if samples[clock] == episode.length else layouts[clock].name
    frames, skipped = _frames(workers, counted, skip, show_progress)
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
    workers: Workers, clock: str | None, skip: bool, show_progress: bool
) -> tuple[NDArray[np.int64], dict[int, DatasetError]]:
    """By episode. Workers have nothing to gain where metadata tells; a format that is read to be counted, RLDS, is
    counted by them."""
    count = len(workers.dataset)
    frames = np.zeros(count, dtype=np.int64)
    skipped: dict[int, DatasetError] = {}
    chunks = [range(begin, min(begin + _CHUNK, count)) for begin in range(0, count, _CHUNK)]
    if workers.kind == "process" or workers.dataset.format in PARSED_FORMATS:
        futures = [workers.submit(count_frames, clock, chunk) for chunk in chunks]
        results = (future.result() for future in futures)
    else:
        results = (count_frames(workers.dataset, clock, chunk) for chunk in chunks)
        show_progress = False
    for chunk, found in zip(
        chunks, progress(results, total=len(chunks), what="frames", show=show_progress), strict=True
    ):
        for index, number in zip(chunk, found, strict=True):
            if isinstance(number, int):
                frames[index] = number
            elif skip:
                skipped[index] = number
            else:
                raise number
    return frames, skipped
