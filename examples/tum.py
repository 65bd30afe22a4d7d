"""Reads trajectories in the TUM format: one pose a line, `timestamp tx ty tz qx qy qz qw`.

The format is that of the TUM RGB-D benchmark (Sturm et al., IROS 2012): seconds since 1970 as decimal text, metres,
unit quaternions with the scalar last, `#` before comments.
"""

from __future__ import annotations

import decimal
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

LARGE_FILE = 20_000_000  # bytes; reading more than this takes seconds and shows its progress


class TrajectoryError(ValueError):
    """A trajectory file that cannot be read; says where and why."""


@dataclass
class Trajectory:
    """Poses and their stamps."""

    times: torch.Tensor  # [N] int64, nanoseconds since 1970
    poses: torch.Tensor  # [N, 7] float64: tx ty tz in metres, qx qy qz qw


def nanoseconds(text: str) -> int:
    """Decimal seconds as nanoseconds, exactly: a float64 of epoch seconds would be off by 100 ns.

    >>> nanoseconds("1305031098.6659")
    1305031098665900000
    """
    scaled = decimal.Decimal(text).scaleb(9)
    if not scaled.is_finite():
        raise ValueError(f"{text} is not a time")
    return int(scaled.to_integral_value(rounding=decimal.ROUND_HALF_EVEN))


def _pose(fields: list[str]) -> list[float]:
    pose = [float(word) for word in fields]
    if not all(math.isfinite(number) for number in pose):
        raise ValueError("a number is not finite")
    if sum(number * number for number in pose[3:]) == 0.0:
        raise ValueError("the quaternion is zero, which is no rotation")
    return pose


def read_tum(path: Path) -> Trajectory:
    """Reads a trajectory. Raises TrajectoryError with the line's number where the file is not one.

    Equal stamps may follow one another; stamps that go backwards are an error.
    """
    times: list[int] = []
    poses: list[list[float]] = []
    try:
        size = path.stat().st_size
        with open(path, encoding="utf-8") as file:
            bar = tqdm(file, unit=" lines", desc=path.name, disable=size < LARGE_FILE, mininterval=0.5)
            for number, line in enumerate(bar, start=1):
                fields = line.split("#", 1)[0].split()
                if not fields:
                    continue
                if len(fields) != 8:
                    raise TrajectoryError(
                        f"{path}, line {number}: expected 8 numbers (timestamp tx ty tz qx qy qz qw), "
                        f"got {len(fields)} fields: {line.strip()[:60]!r}"
                    )
                try:
                    stamp, pose = nanoseconds(fields[0]), _pose(fields[1:])
                except (ValueError, decimal.InvalidOperation) as wrong:
                    reason = str(wrong) if isinstance(wrong, ValueError) else f"{fields[0]!r} is not a number"
                    raise TrajectoryError(f"{path}, line {number}: {reason}") from None
                if times and stamp < times[-1]:
                    back = (times[-1] - stamp) / 1e9
                    raise TrajectoryError(f"{path}, line {number}: its time lies {back:.6f} s before the line above")
                times.append(stamp)
                poses.append(pose)
    except UnicodeDecodeError:
        raise TrajectoryError(f"{path}: not a text file") from None
    except OSError as wrong:
        raise TrajectoryError(f"{path}: {wrong.strerror}") from None
    if len(times) < 3:
        raise TrajectoryError(f"{path}: holds {len(times)} poses, expected at least 3")
    if not -(2**63) <= times[0] <= times[-1] < 2**63:
        raise TrajectoryError(f"{path}: its times do not fit int64 nanoseconds")
    return Trajectory(torch.tensor(times, dtype=torch.int64), torch.tensor(poses, dtype=torch.float64))
