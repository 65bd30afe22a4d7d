"""Goes through a dataset once and says what is in it and what is wrong. Memory does not grow with the dataset."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._progress import progress
from .._episode import IMAGE, VECTOR, VIDEO, Dataset, Episode, EpisodeStream
from .._errors import DatasetError
from ..lerobot import LeRobotDataset
from ..rlds import RldsDataset
from . import checks, lerobot_checks, rlds_checks
from .findings import ERROR, WARNING, Finding, from_error

_KEPT_TASKS = 1000  # different tasks that are counted by name


@dataclass
class StreamSummary:
    """What the audited episodes hold of one stream: samples, and of vectors each column's least and greatest value."""

    samples: int = 0
    least: NDArray[Any] | None = None
    greatest: NDArray[Any] | None = None

    def add(self, values: NDArray[Any]) -> None:
        self.samples += len(values)
        finite = np.where(np.isfinite(values), values, np.nan) if values.dtype.kind == "f" else values
        if not len(values):
            return
        least, greatest = np.fmin.reduce(finite, axis=0), np.fmax.reduce(finite, axis=0)
        self.least = least if self.least is None else np.fmin(self.least, least)
        self.greatest = greatest if self.greatest is None else np.fmax(self.greatest, greatest)


@dataclass
class Audit:
    """What an audit saw.

    Attributes:
        episodes: indices that were audited.
        readable: how many of them could be read.
        frames: frames of the main clock in those.
        seconds: their length, None where the rate is not known.
        streams: a summary by stream.
        tasks: how many episodes have which task or instruction.
        bytes_on_disk: size of the dataset's files.
        lengths: (episode index, frames, in order) of readable episodes, for the plot.
        findings: everything that is wrong.
    """

    episodes: range
    readable: int = 0
    frames: int = 0
    seconds: float | None = 0.0
    streams: dict[str, StreamSummary] = field(default_factory=dict)
    tasks: Counter[str] = field(default_factory=Counter)
    bytes_on_disk: int = 0
    lengths: list[tuple[int, int]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    _told: set[Finding] = field(default_factory=set, init=False, repr=False)

    def add(self, findings: Iterable[Finding]) -> None:
        """Notes findings; one that is of no episode, however many episodes meet it, once."""
        for finding in findings:
            if finding.episode is None:
                if finding in self._told:
                    continue
                self._told.add(finding)
            self.findings.append(finding)

    @property
    def errors(self) -> int:
        return sum(finding.severity == ERROR for finding in self.findings)

    @property
    def warnings(self) -> int:
        return sum(finding.severity == WARNING for finding in self.findings)


def audit(dataset: Dataset, *, episodes: range | None = None, decode: bool = False, show: bool = False) -> Audit:
    """Audits a dataset that was opened with nonfinite="keep", so that NaN is counted rather than refused.

    Args:
        dataset: what to go through.
        episodes: indices to read; None reads all.
        decode: decode every image and video frame; otherwise the first image of each stream, and video by its stamps.
        show: a progress bar.

    Returns:
        An Audit. Damage of an episode is a finding, not an exception.
    """
    chosen = range(len(dataset)) if episodes is None else episodes
    result = Audit(chosen, streams={name: StreamSummary() for name in dataset.specs})
    if dataset.format != "arrays":
        result.bytes_on_disk = _size(dataset.path)
    result.add(_dataset_findings(dataset))
    tasks = lerobot_checks.known_tasks(dataset) if isinstance(dataset, LeRobotDataset) else None
    for index in progress(chosen, what="inspect", unit="episode", show=show):
        before = len(result.findings)
        _audit_episode(dataset, index, result, tasks, decode=decode)
        result.readable += all(finding.severity != ERROR for finding in result.findings[before:])
    result.add(_constant_columns(dataset, result))
    return result


def _dataset_findings(dataset: Dataset) -> Iterator[Finding]:
    if isinstance(dataset, RldsDataset):
        yield from rlds_checks.check_dataset(dataset)
    elif isinstance(dataset, LeRobotDataset):
        yield from lerobot_checks.check_dataset(dataset)


def _audit_episode(dataset: Dataset, index: int, result: Audit, tasks: frozenset[int] | None, *, decode: bool) -> None:
    try:
        episode = dataset[index]
        seconds = _read_streams(dataset, episode, result, decode=decode)
    except DatasetError as error:
        result.add([from_error(error, index)])
        return
    if isinstance(dataset, RldsDataset):
        result.add(rlds_checks.check_episode(dataset, index))
    elif isinstance(dataset, LeRobotDataset):
        result.add(lerobot_checks.check_episode(dataset, index, tasks))
    result.frames += episode.length
    result.lengths.append((index, episode.length))
    result.seconds = None if seconds is None or result.seconds is None else result.seconds + seconds
    task = episode.text.get("task") or episode.text.get("language_instruction")
    if task and (task in result.tasks or len(result.tasks) < _KEPT_TASKS):
        result.tasks[task] += 1


def _read_streams(dataset: Dataset, episode: Episode, result: Audit, *, decode: bool) -> float | None:
    """Reads and checks every stream; returns the episode's seconds. Streams of one clock have it checked once."""
    seconds: float | None = None
    clocks: list[NDArray[np.int64]] = []
    number = dataset.number(episode.index) if isinstance(dataset, LeRobotDataset) else episode.index
    for name, stream in episode.streams.items():
        if dataset.fps is not None or stream.spec.rate is not None:
            times = stream.times
            if not any(times is known or np.array_equal(times, known) for known in clocks):
                clocks.append(times)
                rate = stream.spec.rate
                result.add(checks.check_times(times, episode.ticks_per_second, rate, number, name))
            step = float(1 / stream.spec.rate) if stream.spec.rate else 0.0
            span = float(times[-1] - times[0]) / episode.ticks_per_second + step if len(times) else 0.0
            seconds = max(seconds or 0.0, span)
        try:
            _read_stream(stream, result, number, decode=decode)
        except DatasetError as error:
            if error.category == "missing file" and stream.spec.modality == VECTOR:
                raise  # the episode's file: once, not once a stream
            if stream.spec.modality != VIDEO:  # of videos that do not open the format's own check tells, with more
                result.add([from_error(error, number, name)])
    return seconds


def _read_stream(stream: EpisodeStream, result: Audit, number: int, *, decode: bool) -> None:
    summary = result.streams[stream.name]
    if stream.spec.modality == VECTOR:
        values = stream.values
        summary.add(values)
        result.add(checks.check_values(values, stream.spec, number))
        return
    try:
        values = stream.values
        if stream.spec.modality in (IMAGE, VIDEO):
            try:
                for frame in range(len(values) if decode else 1 if stream.spec.modality == IMAGE else 0):
                    values[frame]
            except DatasetError as error:
                result.add([from_error(error, number, stream.name)])
                return
    except ImportError as error:
        result.add([Finding(WARNING, "not checked", str(error), None, stream.name)])
        return
    summary.samples += len(values)


def _constant_columns(dataset: Dataset, result: Audit) -> Iterator[Finding]:
    for name, summary in result.streams.items():
        if summary.least is None or summary.greatest is None or summary.samples < 2:
            continue
        constant = np.flatnonzero(summary.least == summary.greatest)
        if not constant.size:
            continue
        names = dataset.specs[name].column_names
        shown = ", ".join(names[column] if names else str(column) for column in constant[:8])
        more = f" and {constant.size - 8} more" if constant.size > 8 else ""
        total = len(summary.least)
        message = f"{constant.size} of {total} columns never change: {shown}{more}"
        yield Finding(WARNING, "constant", message, stream=name)


def _size(path: Path) -> int:
    """Bytes of a file, or of the files below a folder that can be looked at: a link may lead nowhere."""
    if path.is_file():
        return path.stat().st_size
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(folder) / name).stat().st_size
    return total
