"""Small recordings with several clocks, for the tests of the store and the loader."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence, Set
from fractions import Fraction
from typing import Any

import numpy as np

from robocache.datasets import Dataset, DatasetError, Episode, EpisodeStream, StreamSpec, from_arrays

FPS = 30
POSE_KIND = [(slice(0, 3), "linear"), (slice(3, 7), "slerp_xyzw"), (7, "angle"), (8, "previous")]


def episode(rng: np.random.Generator, frames: int, first: int = 0) -> dict[str, Any]:
    """State and action on frames at 30 Hz, a pose with several kinds near 100 Hz, a force at 1 kHz, a gripper in whole
    numbers at 10 Hz. All clocks but the frames' are irregular and start where they like."""

    def clock(rate: int) -> np.ndarray[Any, Any]:
        steps = max(1, frames * rate // FPS)
        jitter = rng.integers(0, 10**9 // rate // 3, steps)
        return first + np.arange(steps, dtype=np.int64) * (10**9 // rate) + jitter

    pose_times, force_times, grip_times = clock(100), clock(1000), clock(10)
    pose = rng.standard_normal((len(pose_times), 9))
    pose[:, 3:7] /= np.linalg.norm(pose[:, 3:7], axis=1, keepdims=True)
    return {
        "state": rng.standard_normal((frames, 7)).astype(np.float32),
        "action": rng.standard_normal((frames, 7)).astype(np.float32),
        "pose": (pose.astype(np.float32), pose_times),
        "force": (rng.standard_normal((len(force_times), 6)), force_times),
        "gripper": (rng.integers(0, 1000, (len(grip_times), 1)), grip_times),
    }


def recordings(frames: Sequence[int] = (40, 1, 25, 63, 7), seed: int = 0, fps: Any = FPS) -> Dataset:
    """A dataset of such episodes in memory."""
    rng = np.random.default_rng(seed)
    return from_arrays(
        [episode(rng, count) for count in frames],
        fps=fps,
        rates={"pose": 100, "force": 1000, "gripper": 10},
        kinds={"pose": POSE_KIND},
        text=[{"task": f"task {index % 3}"} for index in range(len(frames))],
    )


def frames_only(frames: Sequence[int] = (40, 1, 25, 63, 7), fps: Any = FPS, seed: int = 0) -> Dataset:
    """State and action alone, both on the frames."""
    rng = np.random.default_rng(seed)
    return from_arrays(
        [{"state": rng.standard_normal((n, 3), np.float32), "action": rng.standard_normal((n, 2))} for n in frames],
        fps=fps,
    )


NTSC = Fraction(30000, 1001)


class Pictures:
    """A lazy sequence of images, each filled with its episode and frame number."""

    def __init__(self, episode: int, count: int, height: int = 4, bad: Set[int] = frozenset()) -> None:
        self.episode, self.count, self.height, self.bad = episode, count, height, bad
        self.asked: list[list[int]] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        return self.batch([index])[0]

    def batch(self, indices: Sequence[int]) -> np.ndarray[Any, Any]:
        self.asked.append(list(indices))
        if not self.bad.isdisjoint(indices):
            raise OSError("damaged frame")
        images = np.zeros((len(indices), self.height, 5, 3), np.uint8)
        images[..., 0], images[..., 1] = self.episode, np.asarray(indices)[:, None, None]
        return images


class Faulty(Dataset):
    """A dataset around another, whose frames are those of the state: some episodes cannot be read, a camera is added,
    reading takes time."""

    def __init__(
        self, inner: Dataset, bad: Sequence[int] = (), camera: bool = False, seconds: float = 0.0, error: Any = None
    ) -> None:
        super().__init__()
        self.inner, self.bad, self.camera, self.seconds, self.error = inner, set(bad), camera, seconds, error
        self.path, self.name, self.fps = inner.path, inner.name, inner.fps
        self.format = "files"  # of a kind that tells an episode's length without opening it
        self.ticks_per_second, self.on_error = inner.ticks_per_second, "raise"
        self.specs = dict(inner.specs)
        self.bad_pictures: set[int] = set()
        self.bad_frames: dict[int, set[int]] = {}
        self.heights: dict[int, int] = {}
        self.reads: list[int] = []
        if camera:
            self.specs["camera"] = StreamSpec("camera", (4, 5, 3), np.dtype(np.uint8), "nearest", "video")

    def __len__(self) -> int:
        return len(self.inner)

    def length(self, index: int) -> int:
        return len(self.inner.episode(index).streams["state"])

    def episode(self, index: int) -> Episode:
        self.reads.append(index)
        time.sleep(self.seconds)
        if index in self.bad and self.error == "die":
            os._exit(3)
        if index in self.bad:
            raise self.error or DatasetError("checksum does not match", file="shard.bin", category="checksum")
        found = self.inner.episode(index)
        frames = found.streams["state"]
        streams = dict(found.streams)
        if self.camera:
            streams["camera"] = self._camera(index, frames)
        return Episode(index, found.name, len(frames), found.ticks_per_second, streams, found.text)

    def _camera(self, index: int, frames: EpisodeStream) -> EpisodeStream:
        pictures = Pictures(index, len(frames), self.heights.get(index, 4), self.bad_frames.get(index, set()))
        if index in self.bad_pictures:
            pictures.batch = _no_picture  # type: ignore[method-assign]
        return EpisodeStream(self.specs["camera"], len(frames), lambda: pictures, lambda: frames.times)


def _no_picture(indices: Sequence[int]) -> Any:
    raise OSError("moov atom not found")
