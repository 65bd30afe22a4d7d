"""A small multi-rate robot log, made up: what a ten-second recording of an arm looks like before it is aligned.

Each sensor has its own clock: another rate, jitter, sometimes a hole, sometimes a latency. Stamps are int64
nanoseconds since 1970, as ROS and most loggers write them. Everything follows from one seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

START_NS = 1_760_000_000_000_000_000
SECOND_NS = 1_000_000_000
LOG_SECONDS = 10.0


@dataclass
class Recording:
    """One sensor's samples and what is known about them."""

    name: str
    values: torch.Tensor  # [S, D]
    times: torch.Tensor  # [S] int64, nanoseconds
    columns: list[str]  # D names
    kind: Any  # as robocache takes it
    options: dict[str, Any] = field(default_factory=dict)  # max_gap, time_offset, ... for robocache.Stream
    about: str = ""

    @property
    def kind_name(self) -> str:
        """The kinds in words: "linear" or "linear, slerp_xyzw"."""
        return self.kind if isinstance(self.kind, str) else ", ".join(dict.fromkeys(name for _, name in self.kind))


def _clock(
    rng: np.random.Generator, rate: float, jitter: float, hole: tuple[float, float] | None = None
) -> np.ndarray:  # [S] int64
    """Stamps at `rate` hertz from a random phase, moved by normal noise of `jitter` periods, less a hole [s, s)."""
    count = int(LOG_SECONDS * rate)
    ticks = (np.arange(count) + rng.uniform()) / rate
    ticks = np.sort(ticks + rng.normal(0.0, jitter / rate, count))
    if hole is not None:
        ticks = ticks[(ticks < hole[0]) | (ticks >= hole[1])]
    return START_NS + np.round(ticks * SECOND_NS).astype(np.int64)


def _seconds(stamps: np.ndarray) -> np.ndarray:
    return (stamps - START_NS) / SECOND_NS


def joint_positions(t: np.ndarray) -> np.ndarray:
    """Six arm joints in radians and a wrist that keeps turning, wrapped to [-pi, pi): [n] seconds -> [n, 7]."""
    phase = np.arange(6) * 0.7
    arm = 0.9 * np.sin(0.8 * t[:, None] + phase) * np.exp(-0.05 * t[:, None])
    wrist = (1.9 * t + np.pi) % (2.0 * np.pi) - np.pi
    return np.concatenate([arm, wrist[:, None]], axis=1)


def orientation(t: np.ndarray) -> np.ndarray:
    """Orientation of the wrist as unit quaternions x, y, z, w: [n] seconds -> [n, 4]."""
    angle = 1.4 * np.sin(0.9 * t) + 0.4 * t
    axis = np.stack([np.sin(0.3 * t), np.cos(0.3 * t), np.full_like(t, 0.5)], axis=1)
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    return np.concatenate([axis * np.sin(angle / 2)[:, None], np.cos(angle / 2)[:, None]], axis=1)


def contact_force(t: np.ndarray) -> np.ndarray:
    """Force and torque at the wrist with two contacts, N and Nm: [n] seconds -> [n, 6]."""
    press = 12.0 / (1.0 + np.exp(-14.0 * (t - 3.0))) * (t < 5.2) * np.exp(-0.1 * (t - 3.0))
    slide = 4.0 * np.sin(7.0 * t) * ((t > 6.0) & (t < 8.5))
    scale = np.array([0.3, 0.1, 1.0, 0.02, 0.05, 0.01])
    return (press + slide)[:, None] * scale


def make_log(seed: int = 7) -> list[Recording]:
    """The log: joints, IMU, force, camera features and gripper, each with stamps of its own."""
    rng = np.random.default_rng(seed)

    times = _clock(rng, 100.0, 0.08)
    joints = joint_positions(_seconds(times)) + rng.normal(0.0, 0.002, (len(times), 7))
    joints[:, 6] = (joints[:, 6] + np.pi) % (2.0 * np.pi) - np.pi
    recordings = [
        Recording(
            "joints",
            torch.from_numpy(joints.astype(np.float32)),
            torch.from_numpy(times),
            [f"q{i}" for i in range(6)] + ["wrist"],
            [(slice(0, 6), "linear"), (6, "angle")],
            {"max_gap": 50e6},
            "the wrist turns past pi again and again",
        )
    ]

    times = _clock(rng, 200.0, 0.12)
    quaternion = orientation(_seconds(times))
    quaternion *= np.where(rng.uniform(size=len(times)) < 0.3, -1.0, 1.0)[:, None]
    motion = rng.normal(0.0, 0.05, (len(times), 6)) + np.array([0, 0, 0, 0, 0, 9.81])
    imu = np.concatenate([motion, quaternion], axis=1)
    recordings.append(
        Recording(
            "imu",
            torch.from_numpy(imu.astype(np.float32)),
            torch.from_numpy(times),
            ["wx", "wy", "wz", "ax", "ay", "az", "qx", "qy", "qz", "qw"],
            [(slice(0, 6), "linear"), (slice(6, 10), "slerp_xyzw")],
            {"max_gap": 50e6},
            "its driver flips the quaternion's sign at random",
        )
    )

    times = _clock(rng, 500.0, 0.05, hole=(2.9, 3.3))
    force = contact_force(_seconds(times))
    force += rng.normal(0.0, 0.02, force.shape) * np.array([1, 1, 1, 0.1, 0.1, 0.1])
    recordings.append(
        Recording(
            "force",
            torch.from_numpy(force.astype(np.float32)),
            torch.from_numpy(times),
            ["fx", "fy", "fz", "tx", "ty", "tz"],
            "pchip",
            {"max_gap": 20e6},
            "its cable drops out for 0.4 s",
        )
    )

    latency = 0.045
    times = _clock(rng, 30.0, 0.06)
    mixing = rng.normal(size=(8, 64)) / np.sqrt(2.0)
    seen = joint_positions(_seconds(times) - latency)
    seen = np.concatenate([seen[:, :6], np.cos(3.0 * seen[:, 6:]), np.sin(3.0 * seen[:, 6:])], axis=1)
    features = np.tanh(seen @ mixing)
    recordings.append(
        Recording(
            "camera",
            torch.from_numpy(features).to(torch.bfloat16),
            torch.from_numpy(times),
            [f"feature{i}" for i in range(64)],
            "linear",
            {"time_offset": latency * SECOND_NS, "max_gap": 100e6},
            "its features arrive 45 ms after the picture",
        )
    )

    times = _clock(rng, 20.0, 0.1)
    seconds = _seconds(times)
    closed = ((seconds > 2.8) & (seconds < 5.3)) | (seconds > 8.7)
    recordings.append(
        Recording(
            "gripper",
            torch.from_numpy(closed.astype(np.uint8)[:, None]),
            torch.from_numpy(times),
            ["closed"],
            "previous",
            {"tolerance": 200e6},
            "a state, so it is held and never blended",
        )
    )
    return recordings


def save_log(recordings: list[Recording], path: Path) -> None:
    """Writes `<name>.values` and `<name>.times` of each recording as .npz. NumPy has no bfloat16: its bits are kept."""
    arrays = {}
    for recording in recordings:
        values = recording.values
        stored = values.view(torch.int16).numpy() if values.dtype == torch.bfloat16 else values.numpy()
        arrays[f"{recording.name}.values"] = stored
        arrays[f"{recording.name}.times"] = recording.times.numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=False, **arrays)


def load_log(path: Path, template: list[Recording]) -> list[Recording]:
    """Reads what save_log wrote; names, kinds and dtypes come from `template`."""
    with np.load(path) as arrays:
        loaded = []
        for recording in template:
            stored = torch.from_numpy(arrays[f"{recording.name}.values"])
            values = stored.view(torch.bfloat16) if recording.values.dtype == torch.bfloat16 else stored
            times = torch.from_numpy(arrays[f"{recording.name}.times"])
            about = (recording.columns, recording.kind, recording.options, recording.about)
            loaded.append(Recording(recording.name, values, times, *about))
        return loaded
