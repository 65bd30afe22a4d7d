"""What a loader must know of a dataset before it reads it: frames and bytes of every episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .._progress import progress
from ..datasets import Dataset, DatasetError
from ..datasets._work import count_samples
from ..store.streams import StreamLayout
from .workers import PARSED_FORMATS, Workers

_ANCHOR_BYTES = 4 * 8  # row, time, episode and frame
_TIME_BYTES = 8
_CHUNK = 64  # episodes that a worker counts at once


@dataclass(frozen=True, eq=False)
class Survey:
    """Frames of the main clock and bytes in memory, by episode; no frames where `skipped` tells why."""

    frames: NDArray[np.int64]
    sizes: NDArray[np.int64]
    skipped: dict[int, DatasetError]


def survey(workers: Workers, layouts: Sequence[StreamLayout], clock: int, skip: bool, show_progress: bool) -> Survey:
    """Frames and bytes by episode.

    Where the dataset tells an episode's frames, as LeRobot and RLDS do, bytes follow from them and each stream's
    samples a frame: those of an episode that is read to see them, or of the claimed rates, whichever are more. Where it
    does not, every episode is opened and all its streams are counted. The arrays of `from_arrays` always are: their
    length is that of the longest stream, which may be the clock in one episode and not in the next.

    Raises:
        DatasetError: no episode can be read; without `skip` also where an episode's frames cannot be told.
        ValueError: no episode has a sample of the clock.
    """
    dataset = workers.dataset
    names = [layout.name for layout in layouts]
    length, counts = _first_that_reads(dataset, names)
    told = dataset.format != "arrays" and counts[clock] == length
    found, skipped = _samples(workers, None if told else names, skip, show_progress)
    frames = found[:, 0 if told else clock]
    if not frames.any():
        raise ValueError(f"clock: expected a stream with samples, got {names[clock]!r}, of which no episode has any")
    samples = frames[:, None] * _ratios(layouts, clock, counts) if told else found
    sample_bytes = [max(layout.value_bytes, _raw_bytes(dataset, layout)) + _TIME_BYTES for layout in layouts]
    sizes = np.where(frames > 0, samples @ np.array(sample_bytes) + frames * _ANCHOR_BYTES, 0)
    return Survey(frames, np.ceil(sizes).astype(np.int64), skipped)


def _ratios(layouts: Sequence[StreamLayout], clock: int, counts: Sequence[int]) -> NDArray[np.float64]:
    """Each stream's samples a frame."""
    frame_rate = layouts[clock].rate
    claimed = [float(a.rate / frame_rate) if a.rate is not None and frame_rate else 0.0 for a in layouts]
    return np.maximum(np.array(counts) / max(1, counts[clock]), claimed)


def _raw_bytes(dataset: Dataset, layout: StreamLayout) -> int:
    return layout.columns * np.dtype(dataset.specs[layout.name].dtype).itemsize


def _first_that_reads(dataset: Dataset, names: Sequence[str]) -> tuple[int, list[int]]:
    """The length of an episode whose clocks can be read, and the samples of each stream in it."""
    failure: DatasetError | None = None
    for index in range(len(dataset)):
        try:
            episode = dataset[index]
            times = [np.asarray(episode.streams[name].times) if name in episode.streams else () for name in names]
            return episode.length, [len(found) for found in times]
        except DatasetError as error:
            failure = error.at(episode=index)
        except Exception as error:
            failure = DatasetError(f"{type(error).__name__}: {error}", file=dataset.path, episode=index)
    if failure is not None:
        raise failure
    raise ValueError("dataset: expected at least one episode, got none")


def _samples(
    workers: Workers, names: Sequence[str] | None, skip: bool, show_progress: bool
) -> tuple[NDArray[np.int64], dict[int, DatasetError]]:
    """What `count_samples` finds, by episode [E, columns]. Workers have nothing to gain where metadata tells; a format
    that is read to be counted, RLDS, is counted by them."""
    count = len(workers.dataset)
    samples = np.zeros((count, 1 if names is None else len(names)), dtype=np.int64)
    skipped: dict[int, DatasetError] = {}
    chunks = [range(begin, min(begin + _CHUNK, count)) for begin in range(0, count, _CHUNK)]
    if workers.kind == "process" or workers.dataset.format in PARSED_FORMATS:
        futures = [workers.submit(count_samples, names, chunk) for chunk in chunks]
        results = (future.result() for future in futures)
    else:
        results = (count_samples(workers.dataset, names, chunk) for chunk in chunks)
        show_progress = False
    for chunk, found in zip(
        chunks, progress(results, total=len(chunks), what="frames", show=show_progress), strict=True
    ):
        for index, numbers in zip(chunk, found, strict=True):
            if not isinstance(numbers, DatasetError):
                samples[index] = numbers
            elif skip:
                skipped[index] = numbers
            else:
                raise numbers
    return samples, skipped
