"""LeRobot v2.1: meta/episodes.jsonl, one parquet file and one video a camera for each episode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .._errors import DatasetError
from .._files import is_file, read_json_lines, whole_number
from .dataset import LeRobotDataset, Place, VideoPlace

DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


class LeRobotV21(LeRobotDataset):
    format = "lerobot_v2.1"

    def _read_episodes(self) -> list[int]:
        self._rows: dict[int, tuple[int, list[str]]] = {}
        file = self.info.root / "meta" / "episodes.jsonl"
        for line, row in read_json_lines(file):
            number = whole_number(row.get("episode_index"), f"line {line}: episode_index", file=file)
            if number in self._rows:
                raise DatasetError(f"line {line}: episode {number} stands twice", file=file)
            tasks: Any = row.get("tasks", [])
            tasks = [tasks] if isinstance(tasks, str) else tasks
            if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
                raise DatasetError(f"line {line}: tasks: expected a list of text, got {tasks!r:.80}", file=file)
            self._rows[number] = (whole_number(row.get("length"), f"line {line}: length", file=file), tasks)
        return sorted(self._rows)

    def task_table(self) -> dict[int, str]:
        """meta/tasks.jsonl: task by task_index."""
        file = self.info.root / "meta" / "tasks.jsonl"
        return {
            whole_number(row.get("task_index"), f"line {line}: task_index", file=file): str(row.get("task", ""))
            for line, row in read_json_lines(file)
        }

    def place(self, number: int) -> Place:
        path = self._filled(self.info.data_path or DATA_PATH, "data_path", **self._fields(number))
        return Place(path, 0, self._rows_of(path, number))

    def _rows_of(self, path: Path, number: int) -> int:
        """Rows of the file where it is there, so that a wrong length shows; else what the metadata claims."""
        if not is_file(path):
            return self.claimed_length(number)
        return self.parquet.num_rows(path)

    def claimed_length(self, number: int) -> int:
        return self._rows[number][0]

    def _tasks(self, number: int) -> list[str]:
        return self._rows[number][1]

    def video_place(self, number: int, feature: str) -> VideoPlace:
        template = self.info.video_path or VIDEO_PATH
        return VideoPlace(self._filled(template, "video_path", video_key=feature, **self._fields(number)), 0.0, None)

    def _fields(self, number: int) -> dict[str, int]:
        return {"episode_chunk": number // self.info.chunks_size, "episode_index": number}
