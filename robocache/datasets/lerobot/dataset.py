"""What LeRobot v2.1 and v3.0 share: features to streams, times from frame_index, files by template."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._kinds import Kind
from .._clock import frame_ticks, rational_rate, ticks_for
from .._episode import IMAGE, TEXT, VECTOR, VIDEO, Dataset, Episode, EpisodeStream, StreamSpec, with_kinds
from .._errors import DatasetError
from .._files import filled_template, is_file
from .._images import EncodedImages
from .._kinds import kind_of_columns, units_of_columns
from .._values import check_finite
from . import parquet
from .images import ImageBytes
from .info import Feature, Info
from .video import VideoFile, VideoFrames

_KEPT_CLOCKS = 64  # episodes whose checked frame numbers stay in memory
_KEPT_VIDEOS = 16  # video files whose frame tables stay in memory


@dataclass(frozen=True)
class Place:
    """Where an episode's rows lie."""

    path: Path
    begin: int
    end: int


@dataclass(frozen=True)
class VideoPlace:
    """Where an episode's frames lie: from second `start` of the file to `end`, None where nothing tells it."""

    path: Path
    start: float
    end: float | None


class LeRobotDataset(Dataset):
    """A LeRobot folder; see `robocache.datasets.open` for the arguments.

    `info` is meta/info.json. A missing parquet file is an error of its episode, a missing video one of its stream.
    """

    info: Info

    def __init__(
        self,
        info: Info,
        *,
        split: str | None = None,
        on_error: str = "raise",
        kinds: Mapping[str, Kind] | None = None,
        rate: Any = None,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__()
        parquet.pyarrow()
        self.info = info
        self.path = info.root
        self.name = info.root.resolve().name
        self.on_error = on_error
        self._nonfinite = nonfinite
        self.fps = info.fps if rate is None else rational_rate(rate)
        self.ticks_per_second = ticks_for([self.fps])
        self.specs = with_kinds({name: self._spec(feature) for name, feature in info.features.items()}, kinds)
        self.parquet = parquet.ParquetReader()
        self._clocks: OrderedDict[int, NDArray[np.int64]] = OrderedDict()
        self._videos: OrderedDict[Path, VideoFile] = OrderedDict()
        numbers = self._listed = self._read_episodes()
        if split is not None:
            if split not in info.splits:
                raise ValueError(f"split: expected one of {', '.join(info.splits)}, got {split!r}")
            begin, end = info.splits[split]
            numbers = [number for number in numbers if begin <= number < end]
        self._numbers = self._present(numbers) if on_error == "skip" else numbers

    @abstractmethod
    def _read_episodes(self) -> list[int]:
        """Reads the table of episodes; returns their numbers in order."""

    @abstractmethod
    def place(self, number: int) -> Place:
        """Where the rows of an episode lie, by its own number."""

    @abstractmethod
    def claimed_length(self, number: int) -> int:
        """Frames of an episode by the metadata."""

    @abstractmethod
    def task_table(self) -> dict[int, str]:
        """Task by task_index, from the table of tasks."""

    @abstractmethod
    def _tasks(self, number: int) -> list[str]:
        """What an episode's metadata says it does."""

    @abstractmethod
    def video_place(self, number: int, feature: str) -> VideoPlace:
        """Where an episode's video lies."""

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, index: int) -> int:
        """The dataset's own number of the episode at `index`."""
        return self._numbers[index]

    def numbers(self) -> list[int]:
        """The numbers of all episodes that the metadata lists, whether or not they are there."""
        return list(self._listed)

    def length(self, index: int) -> int:
        number = self._numbers[self.checked_index(index)]
        length = self.claimed_length(number)
        if length == 0:
            raise DatasetError("has no frames", file=self.info.file, episode=number, category="empty episode")
        return length

    def episode(self, index: int) -> Episode:
        length, number = self.length(index), self._numbers[index]
        times = partial(self._times, index)
        streams = {
            name: EpisodeStream(self.specs[name], length, partial(self._values, index, name), times)
            for name in self.specs
        }
        text = {"task": "; ".join(self._tasks(number))}
        return Episode(index, f"episode_{number:06d}", length, self.ticks_per_second, streams, text)

    def frames(self, index: int) -> NDArray[np.int64]:
        """frame_index of an episode [S], checked: the rows are this episode's, and the numbers rise from 0 on."""
        with self._lock:
            if index in self._clocks:
                self._clocks.move_to_end(index)
                return self._clocks[index]
        frames = self._checked_frames(index)
        with self._lock:
            self._clocks[index] = frames
            while len(self._clocks) > _KEPT_CLOCKS:
                self._clocks.popitem(last=False)
        return frames

    def column(self, index: int, name: str) -> tuple[Any, Path]:
        """(pyarrow array, file) of one column of an episode's rows."""
        place = self.place(self._numbers[index])
        return self.parquet.column(place.path, name, place.begin, place.end), place.path

    def video_file(self, path: Path) -> VideoFile:
        """A video's frame table; the last few stay in memory."""
        with self._lock:
            if path not in self._videos:
                self._videos[path] = VideoFile(path)
            self._videos.move_to_end(path)
            while len(self._videos) > _KEPT_VIDEOS:
                self._videos.popitem(last=False)
            return self._videos[path]

    def close(self) -> None:
        self.parquet.clear()
        with self._lock:
            self._clocks.clear()
            self._videos.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_clocks": OrderedDict(), "_videos": OrderedDict()}

    def _present(self, numbers: list[int]) -> list[int]:
        present = []
        for number in numbers:
            try:
                path = self.place(number).path
                if not is_file(path):
                    raise DatasetError("missing file", file=path, episode=number, category="missing file")
            except DatasetError as error:
                self.count_skipped(f"episode_{number:06d}", error.at(episode=number))
            else:
                present.append(number)
        return present

    def _filled(self, template: Any, what: str, **fields: str | int) -> Path:
        if template is None:
            raise DatasetError(f"has no {what}", file=self.info.file)
        return self.info.root / filled_template(template, fields, file=self.info.file)

    def _checked_frames(self, index: int) -> NDArray[np.int64]:
        number, length = self._numbers[index], self.length(index)
        try:
            columns = {}
            for name in ("frame_index", "episode_index"):
                array, path = self.column(index, name)
                columns[name] = parquet.integers(array, name, path)
            frames = columns["frame_index"]
            if len(frames) != length:
                raise DatasetError(
                    f"expected {length} rows as the metadata says, got {len(frames)}",
                    file=path,
                    category="wrong length",
                )
            if (columns["episode_index"] != number).any():
                wrong = int(columns["episode_index"][columns["episode_index"] != number][0])
                raise DatasetError(f"episode_index: expected {number}, got {wrong}", file=path, category="schema")
            if frames[0] < 0 or (np.diff(frames) <= 0).any():
                raise DatasetError("frame_index does not rise from row to row", file=path, category="frame order")
        except DatasetError as error:
            raise error.at(episode=number) from error
        return frames

    def _times(self, index: int) -> NDArray[np.int64]:
        assert self.fps is not None
        try:
            return frame_ticks(self.frames(index), self.fps, self.ticks_per_second)
        except ValueError as error:
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(str(error), episode=self._numbers[index]) from error

    def _values(self, index: int, name: str) -> Any:
        feature, number = self.info.features[name], self._numbers[index]
        frames = self.frames(index)
        try:
            if feature.form == VIDEO:
                return self._video(number, feature, frames)
            array, path = self.column(index, name)
            blame = partial(_blame, path, number, name)
            if feature.form == IMAGE:
                return EncodedImages(ImageBytes(array, self.info.root, blame), feature.shape, feature.dtype, blame)
            if feature.form == TEXT:
                return parquet.strings(array, name, path)
            values = parquet.vector(array, feature, path)
            if self._nonfinite == "raise":
                check_finite(name, values)
        except DatasetError as error:
            raise error.at(file=self.place(number).path, episode=number) from error
        return values

    def _video(self, number: int, feature: Feature, frames: NDArray[np.int64]) -> VideoFrames:
        place = self.video_place(number, feature.name)
        file = self.video_file(place.path)
        positions = file.positions(frames, self.info.fps, place.start, place.end)
        return VideoFrames(file, positions, feature, partial(_blame, place.path, number, feature.name))

    def _spec(self, feature: Feature) -> StreamSpec:
        rate = self.fps
        if feature.form != VECTOR:
            return StreamSpec(feature.name, feature.shape, feature.dtype, "previous", feature.form, rate=rate)
        names = feature.names
        if names is None and feature.elements == 1:
            names = (feature.name.rpartition(".")[2],)
        kind = kind_of_columns(feature.name, feature.dtype, feature.elements, names)
        units = units_of_columns(names)
        return StreamSpec(feature.name, (feature.elements,), feature.dtype, kind, VECTOR, units, names, rate)


def _blame(path: Path, episode: int, stream: str, reason: str) -> DatasetError:
    return DatasetError(f"{stream}: {reason}", file=path, episode=episode)
