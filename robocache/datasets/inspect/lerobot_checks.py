"""What only a LeRobot dataset can have wrong: totals, the timestamp column, tasks, videos."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .._errors import DatasetError
from .._files import is_file
from ..lerobot import LeRobotDataset, LeRobotV30, parquet
from ..lerobot.info import Feature
from .findings import ERROR, WARNING, Finding, from_error

_TOLERANCE = 1e-4  # seconds: LeRobot's own tolerance_s between timestamp and frame_index / fps
_FLOAT32 = 2.0**-23  # relative rounding of a float32 timestamp, which grows with the episode
_SECONDS = Feature("timestamp", "vector", (1,), np.dtype(np.float32), None, {})


def check_dataset(dataset: LeRobotDataset) -> Iterator[Finding]:
    """info.json against the table of episodes."""
    info, file = dataset.info, str(dataset.info.file)
    if len(dataset) == 0:
        yield Finding(ERROR, "empty", "there are no episodes", file=file)
    numbers = dataset.numbers()
    if info.total_episodes is not None and info.total_episodes != len(numbers):
        message = f"total_episodes is {info.total_episodes}, meta/episodes lists {len(numbers)}"
        yield Finding(ERROR, "total", message, file=file)
    frames = sum(dataset.claimed_length(number) for number in numbers)
    if info.total_frames is not None and info.total_frames != frames:
        yield Finding(ERROR, "total", f"total_frames is {info.total_frames}, meta/episodes sums to {frames}", file=file)
    for name in info.unread:
        yield Finding(WARNING, "unread feature", "its dtype is not one that this reader knows", stream=name, file=file)
    try:
        dataset.task_table()
    except DatasetError as error:
        yield Finding(ERROR, error.category, error.reason, file=error.file)


def known_tasks(dataset: LeRobotDataset) -> frozenset[int] | None:
    """The task_index of every task in the table, None where it cannot be read; `check_dataset` tells why."""
    try:
        return frozenset(dataset.task_table())
    except DatasetError:
        return None


def check_episode(dataset: LeRobotDataset, index: int, tasks: frozenset[int] | None) -> Iterator[Finding]:
    """The timestamp column against the clock, tasks against their table, videos against the frames."""
    number = dataset.number(index)
    try:
        yield from _check_timestamp(dataset, index, number)
        if tasks is not None:
            yield from _check_tasks(dataset, index, number, tasks)
    except DatasetError as error:
        yield from_error(error, number)
    for name, feature in dataset.info.features.items():
        if feature.form == "video":
            yield from _check_video(dataset, index, number, name)


def _check_timestamp(dataset: LeRobotDataset, index: int, number: int) -> Iterator[Finding]:
    array, path = dataset.column(index, "timestamp")
    kind = np.float64 if str(array.type) == "double" else np.float32
    declared = Feature(_SECONDS.name, "vector", (1,), np.dtype(kind), None, {})
    stamps = parquet.vector(array, declared, path)[:, 0].astype(np.float64)
    frames, fps = dataset.frames(index), float(dataset.info.fps)
    expected = frames / fps
    off = np.abs(stamps - expected)
    limit = _TOLERANCE + _FLOAT32 * np.abs(expected)
    if not np.isfinite(stamps).all():
        yield Finding(ERROR, "timestamp", "the timestamp column holds NaN or Inf", number, file=str(path))
        return
    if len(stamps) > 1 and (np.diff(stamps) <= 0).any():
        row = int(np.argmax(np.diff(stamps) <= 0)) + 1
        yield Finding(ERROR, "timestamp", f"timestamp does not rise at row {row}", number, file=str(path))
    if (off > limit).any():
        row = int(np.argmax(off > limit))
        usual = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0
        rate = f"; its usual rate is {1 / usual:.4g} a second" if usual > 0 else ""
        severity = ERROR if off.max() > 0.5 / fps else WARNING
        message = (
            f"timestamp is off frame_index / {fps:g} by up to {off.max():.4g} s, "
            f"{int((off > limit).sum())} rows, the first {row}{rate}"
        )
        yield Finding(severity, "timestamp", message, number, file=str(path))


def _check_tasks(dataset: LeRobotDataset, index: int, number: int, tasks: frozenset[int]) -> Iterator[Finding]:
    array, path = dataset.column(index, "task_index")
    used = set(np.unique(parquet.integers(array, "task_index", path)).tolist())
    unknown = sorted(used - tasks)
    if unknown:
        yield Finding(ERROR, "task", f"task_index {unknown[:5]} has no task in the table", number, file=str(path))


def _check_video(dataset: LeRobotDataset, index: int, number: int, name: str) -> Iterator[Finding]:
    try:
        place = dataset.video_place(number, name)
        path = place.path
        if not is_file(path):
            yield Finding(ERROR, "missing file", "missing video", number, name, str(path))
            return
        frames = len(dataset.episode(index).streams[name].values)
        if isinstance(dataset, LeRobotV30):
            fps = float(dataset.info.fps)
            if place.end is not None and abs(place.end - place.start - frames / fps) > 0.5 / fps:
                message = (
                    f"its part of the video is {place.end - place.start:.4g} s long, "
                    f"{frames} frames are {frames / fps:.4g} s"
                )
                yield Finding(WARNING, "video length", message, number, name, str(path))
        else:
            held = len(dataset.video_file(path).table.stamps)
            if held != frames:
                message = f"the video holds {held} frames, the episode {frames}"
                yield Finding(WARNING, "video length", message, number, name, str(path))
    except DatasetError as error:
        yield from_error(error, number, name)
    except ImportError as error:
        yield Finding(WARNING, "not checked", str(error), None, name)
