"""Small recordings with several clocks, for the tests of the store and the loader."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from robocache.datasets import Dataset, from_arrays

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
