"""What workers do for a loader: read an episode, decode frames. NumPy only, so that a worker process needs no torch."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._episode import Dataset
from ._errors import DatasetError
from ._vectors import Vector, clock_problem, read_vectors


@dataclass(frozen=True)
class ReadEpisode:
    """What comes back from a worker.

    Attributes:
        vectors: of each stream; None where the episode lacks one.
        image_times: int64 [S] of each image stream.
        text: of the episode.
    """

    vectors: list[Vector | None]
    image_times: list[NDArray[np.int64]]
    text: dict[str, str]

    @property
    def nbytes(self) -> int:
        arrays = [array for pair in self.vectors if pair is not None for array in pair]
        return sum(array.nbytes for array in (*arrays, *self.image_times))


@dataclass(frozen=True)
class Request:
    """What is wanted of every episode."""

    streams: tuple[tuple[str, int], ...]  # name and columns
    clock: int
    images: tuple[str, ...]


def read_episode(dataset: Dataset, request: Request, index: int, frames: int) -> ReadEpisode:
    """Reads one episode; DatasetError names it, whatever went wrong."""
    try:
        episode = dataset[index]
        vectors = read_vectors(episode, request.streams)
        clock = vectors[request.clock]
        found = 0 if clock is None else len(clock[1])
        if found != frames:
            raise DatasetError(
                f"{request.streams[request.clock][0]}: expected {frames} frames, as the dataset's metadata says, "
                f"got {found}"
            )
        times = [_image_times(episode, name) for name in request.images]
        return ReadEpisode(vectors, times, dict(episode.text))
    except DatasetError as error:
        raise error.at(episode=index) from error
    except Exception as error:
        raise DatasetError(f"{type(error).__name__}: {error}", file=dataset.path, episode=index) from error


def _image_times(episode: Any, name: str) -> NDArray[np.int64]:
    if name not in episode.streams:
        raise DatasetError(f"{name}: the episode lacks this stream")
    times: NDArray[np.int64] = np.asarray(episode.streams[name].times)
    problem = clock_problem(times, len(times)) if len(times) else "times: expected at least one frame, got none"
    if problem is not None:
        raise DatasetError(f"{name}: {problem}")
    return times


def decode_frames(dataset: Dataset, index: int, name: str, frames: Sequence[int]) -> NDArray[np.uint8]:
    """Frames [n, H, W, C] of one episode's image stream."""
    try:
        images: NDArray[np.uint8] = np.asarray(dataset[index].streams[name].values.batch(list(frames)))
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(frames):
            raise DatasetError(
                f"{name}: expected uint8 [{len(frames)}, H, W, C], got {images.dtype} {list(images.shape)}"
            )
        return images
    except DatasetError as error:
        raise error.at(episode=index) from error
    except Exception as error:
        raise DatasetError(f"{name}: {type(error).__name__}: {error}", file=dataset.path, episode=index) from error


def count_samples(
    dataset: Dataset, names: Sequence[str] | None, indices: Sequence[int]
) -> list[list[int] | DatasetError]:
    """Samples of each named stream in each episode, by opening it, 0 of one that it lacks; without names one number an
    episode, its frames by the dataset's word."""
    found: list[list[int] | DatasetError] = []
    for index in indices:
        try:
            if names is None:
                found.append([dataset.length(index)])
                continue
            streams = dataset[index].streams
            found.append([len(streams[name]) if name in streams else 0 for name in names])
        except DatasetError as error:
            found.append(error.at(episode=index))
        except Exception as error:
            found.append(DatasetError(f"{type(error).__name__}: {error}", file=dataset.path, episode=index))
    return found


# A worker process's own dataset, handed over once when it starts.
_dataset: Dataset | None = None


def start_process(dataset: Dataset) -> None:
    global _dataset
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends its workers
    _dataset = dataset


def in_process(function: Any, *arguments: Any) -> Any:
    assert _dataset is not None
    return function(_dataset, *arguments)
