"""What the store suite compares with: LeRobot's per-item indexing, and the best that plain torch indexing does.

Both index frames: every stream was brought to the frames' clock before, as LeRobot's format asks. So they do less than
the store, which aligns four clocks at each draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

import robocache
from robocache.datasets import Dataset


class FrameTable:
    """A dataset's streams at its frames, concatenated over episodes, on the host.

    Attributes:
        columns: [N, D] by name.
        begins, ends: where each episode's frames lie.
    """

    def __init__(self, dataset: Dataset, names: Sequence[str], fps: int, dtype: torch.dtype) -> None:
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        lengths = []
        for episode in dataset:
            frames = torch.from_numpy(episode.streams[names[0]].times)
            lengths.append(len(frames))
            for name in names:
                stream = episode.streams[name]
                values, times = torch.from_numpy(stream.values), torch.from_numpy(stream.times)
                parts[name].append(robocache.resample_trajectories(values, times, frames, kind=stream.kind).to(dtype))
        self.columns = {name: torch.cat(found) for name, found in parts.items()}
        self.ends = torch.tensor(lengths).cumsum(0)
        self.begins = self.ends - torch.tensor(lengths)

    def windows(self, name: str, episode: Tensor, frame: Tensor, deltas: Sequence[int]) -> tuple[Tensor, Tensor]:
        """LeRobot's rule, vectorised: query = clamp(index + delta, begin, end - 1), is_pad outside [begin, end)."""
        begin, end = self.begins[episode][:, None], self.ends[episode][:, None]
        wanted = begin + frame[:, None] + torch.tensor(deltas)
        pad = (wanted < begin) | (wanted >= end)
        return self.columns[name][torch.minimum(torch.maximum(wanted, begin), end - 1)], pad


class LeRobotItems:
    """A dataset of items as LeRobotDataset.__getitem__ makes them with delta_timestamps: for each item and key a Python
    list of indices, a mask, and a stack of rows; default_collate makes a batch of them.

    Faithful to huggingface/lerobot's `_get_query_indices`, `_query_hf_dataset` and `__getitem__`, but for the table,
    which is in memory as tensors instead of Arrow, so this is faster than the original.
    """

    def __init__(self, table: FrameTable, deltas: Mapping[str, Sequence[int]], device: str) -> None:
        self._table = table
        self._deltas = deltas
        self._device = device
        self._begins = table.begins.tolist()
        self._ends = table.ends.tolist()
        self._episode_of = torch.repeat_interleave(torch.arange(len(self._ends)), table.ends - table.begins).tolist()

    def __len__(self) -> int:
        return len(self._episode_of)

    def _query(self, index: int, episode: int) -> tuple[dict[str, list[int]], dict[str, Tensor]]:
        begin, end = self._begins[episode], self._ends[episode]
        query = {
            key: [max(begin, min(end - 1, index + delta)) for delta in deltas] for key, deltas in self._deltas.items()
        }
        padding = {
            f"{key}_is_pad": torch.BoolTensor([(index + delta < begin) | (index + delta >= end) for delta in deltas])
            for key, deltas in self._deltas.items()
        }
        return query, padding

    def __getitem__(self, index: int) -> dict[str, Any]:
        episode = self._episode_of[index]
        query, padding = self._query(index, episode)
        item: dict[str, Any] = {"episode_index": torch.tensor(episode), "index": torch.tensor(index)}
        for key, wanted in query.items():
            column = self._table.columns[key]
            item[key] = torch.stack([column[q] for q in wanted])
        return {**item, **padding}

    def batch(self, size: int) -> Callable[[], dict[str, Tensor]]:
        """A call that makes a batch of random items on the device."""

        def draw() -> dict[str, Tensor]:
            indices = torch.randint(len(self), (size,)).tolist()
            batch = default_collate([self[index] for index in indices])
            return {key: tensor.to(self._device) for key, tensor in batch.items()}

        return draw


class IndexedFrames:
    """The same windows by vectorised indexing of tensors on the device: the most that frames alone allow."""

    def __init__(self, table: FrameTable, device: str) -> None:
        self._values = torch.cat([column.to(device) for column in table.columns.values()], -1)  # [N, sum D]
        lengths = table.ends - table.begins
        self._begin = torch.repeat_interleave(table.begins, lengths).to(device)
        self._end = torch.repeat_interleave(table.ends, lengths).to(device)
        self._steps: dict[int, Tensor] = {}

    def draw(self, batch: int, horizon: int) -> tuple[Tensor, Tensor]:
        """Values [B, T, sum D] and is_pad [B, T] of random windows."""
        device = self._values.device
        if horizon not in self._steps:
            self._steps[horizon] = torch.arange(horizon, device=device)
        index = torch.randint(self._values.shape[0], (batch,), device=device)
        begin, end = self._begin[index][:, None], self._end[index][:, None]
        wanted = index[:, None] + self._steps[horizon]
        pad = (wanted < begin) | (wanted >= end)
        return self._values[torch.minimum(torch.maximum(wanted, begin), end - 1)], pad
