"""LeRobot v3.0: episodes share parquet and video files; meta/episodes says which rows and seconds are whose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import DatasetError
from .dataset import LeRobotDataset, Place, VideoPlace
from .info import Feature
from .parquet import ParquetReader, integers, lists, strings, vector

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_WHOLE = (
    *("episode_index", "length", "dataset_from_index", "dataset_to_index"),
    *("data/chunk_index", "data/file_index"),
)


class LeRobotV30(LeRobotDataset):
    format = "lerobot_v3.0"

    def _read_episodes(self) -> list[int]:
        tables = sorted((self.info.root / "meta" / "episodes").glob("chunk-*/file-*.parquet"))
        if not tables:
            raise DatasetError(
                "no chunk-*/file-*.parquet is here",
                file=self.info.root / "meta" / "episodes",
                category="missing file",
            )
        videos = [name for name, feature in self.info.features.items() if feature.form == "video"]
        reader = ParquetReader()
        parts = [_episode_table(reader, path, videos) for path in tables]
        for path, part in zip(tables, parts, strict=True):
            differing = sorted(part.keys() ^ parts[0].keys())
            if differing:
                raise DatasetError(
                    f"expected the columns of {tables[0].name}, {', '.join(differing[:3])} is in only one of them",
                    file=path,
                    category="schema",
                )
        self._table: dict[str, NDArray[Any]] = {
            name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "tasks"
        }
        self._task_lists: list[list[str]] = [tasks for part in parts for tasks in part["tasks"]]
        numbers: list[int] = self._table["episode_index"].tolist()
        self._row = {number: row for row, number in enumerate(numbers)}
        if len(self._row) != len(numbers):
            raise DatasetError("an episode stands twice", file=tables[0].parent.parent)
        self._file_starts: dict[tuple[int, int], int] = {}
        for chunk, file, first in zip(
            *(self._table[name].tolist() for name in ("data/chunk_index", "data/file_index", "dataset_from_index")),
            strict=True,
        ):
            self._file_starts[chunk, file] = min(first, self._file_starts.get((chunk, file), first))
        return sorted(numbers)

    def task_table(self) -> dict[int, str]:
        """meta/tasks.parquet: task by task_index. The text is a column, or pandas' index."""
        path = self.info.root / "meta" / "tasks.parquet"
        reader = ParquetReader()
        rows, columns = reader.num_rows(path), reader.column_names(path)
        text = next((name for name in ("task", "__index_level_0__") if name in columns), None)
        if text is None:
            raise DatasetError(f"has neither a column 'task' nor an index of text, but {sorted(columns)}", file=path)
        numbers = integers(reader.column(path, "task_index", 0, rows), "task_index", path)
        return dict(zip(numbers.tolist(), strings(reader.column(path, text, 0, rows), text, path), strict=True))

    def place(self, number: int) -> Place:
        chunk, file = self._value("data/chunk_index", number), self._value("data/file_index", number)
        begin, end = self._value("dataset_from_index", number), self._value("dataset_to_index", number)
        if end - begin != self.claimed_length(number) or begin < 0:
            raise DatasetError(
                f"rows {begin} to {end} are not the {self.claimed_length(number)} frames that `length` says",
                file=self.info.root / "meta" / "episodes",
                episode=number,
                category="wrong length",
            )
        template = self.info.data_path or DATA_PATH
        path = self._filled(template, "data_path", chunk_index=chunk, file_index=file)
        start = self._file_starts[chunk, file]
        return Place(path, begin - start, end - start)

    def claimed_length(self, number: int) -> int:
        return max(self._value("length", number), 0)

    def _tasks(self, number: int) -> list[str]:
        return self._task_lists[self._row[number]]

    def video_place(self, number: int, feature: str) -> VideoPlace:
        key = f"videos/{feature}"
        if f"{key}/from_timestamp" not in self._table:
            raise DatasetError(f"meta/episodes does not place {feature!r}", file=self.info.file, episode=number)
        path = self._filled(
            self.info.video_path or VIDEO_PATH,
            "video_path",
            video_key=feature,
            chunk_index=self._value(f"{key}/chunk_index", number),
            file_index=self._value(f"{key}/file_index", number),
        )
        start = float(self._table[f"{key}/from_timestamp"][self._row[number]])
        return VideoPlace(path, start, self._video_end(number, key, start))

    def _video_end(self, number: int, key: str, start: float) -> float | None:
        """Where an episode's part of a video ends: as meta/episodes says, else where the next part begins."""
        row, ends = self._row[number], self._table.get(f"{key}/to_timestamp")
        if ends is not None:
            return float(ends[row])
        chunks, files = self._table[f"{key}/chunk_index"], self._table[f"{key}/file_index"]
        starts = self._table[f"{key}/from_timestamp"][(chunks == chunks[row]) & (files == files[row])]
        return float(starts[starts > start].min()) if (starts > start).any() else None

    def _value(self, column: str, number: int) -> int:
        return int(self._table[column][self._row[number]])


def _has(columns: frozenset[str], video: str, bound: str) -> bool:
    return f"videos/{video}/{bound}_timestamp" in columns


def _episode_table(reader: ParquetReader, path: Path, videos: list[str]) -> dict[str, Any]:
    """The columns of one file of meta/episodes that place episodes; its statistics are not read."""
    rows, there = reader.num_rows(path), reader.column_names(path)
    wanted = list(_WHOLE)
    seconds = []
    for video in videos:
        if _has(there, video, "from"):
            wanted += [f"videos/{video}/chunk_index", f"videos/{video}/file_index"]
            seconds += [f"videos/{video}/{bound}_timestamp" for bound in ("from", "to") if _has(there, video, bound)]
    table: dict[str, Any] = {name: integers(reader.column(path, name, 0, rows), name, path) for name in wanted}
    for name in seconds:
        second = Feature(name, "vector", (1,), np.dtype(np.float64), None, {})
        table[name] = vector(reader.column(path, name, 0, rows), second, path)[:, 0]
        if not np.isfinite(table[name]).all():
            raise DatasetError(f"column {name!r} holds NaN or Inf", file=path)
    tasks = lists(reader.column(path, "tasks", 0, rows), "tasks", path) if "tasks" in there else [[]] * rows
    table["tasks"] = [[str(task) for task in found] if isinstance(found, list) else [] for found in tasks]
    return table
