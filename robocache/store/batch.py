"""What a draw of windows returns."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .bound import Anchors
from .windows import Steps, WindowPlan


def _at_steps(tensor: Tensor, steps: Steps, last: slice | int) -> Tensor:
    """Some steps of some columns, or of one mask: a view where the steps are evenly spaced."""
    if isinstance(steps, slice):
        return tensor[:, steps, last]
    return tensor[..., last].index_select(1, steps)


class WindowBatch:
    """B windows: every stream at U times each. Views where they can be; nothing here waits for the device.

    Attributes:
        values: [B, U, sum D], the streams side by side. U counts the union of all streams' steps.
        valid: bool [B, U, streams]: False outside a stream's samples and, where asked for, across gaps.
        columns: which columns of `values` are whose.
        names: the streams in the order of `columns` and of `valid`.
        episode: int64 [B], the row of the store (the episode of the dataset in a `DataLoader`'s batch).
        time: int64 [B], the anchors in ticks.
        ticks_per_second: the unit of `time`, `times` and `deltas`.
        deltas: int64 [U], the steps in ticks from the anchor.

    `batch[name]` is one stream at its own steps [B, T, D], `batch.is_pad(name)` is LeRobot's mask [B, T] for it.

    Example:
        >>> batch = store.sample(256, delta_times={"state": [-0.1, 0.0], "action": [0.0, 1 / 30, 2 / 30]})
        >>> batch["state"].shape, batch["action"].shape, batch.is_pad("action").shape
        (torch.Size([256, 2, 7]), torch.Size([256, 3, 7]), torch.Size([256, 3]))
    """

    __slots__ = ("_anchors", "_parts", "_plan")

    def __init__(self, plan: WindowPlan, parts: list[tuple[Tensor, Tensor]], anchors: Anchors) -> None:
        self._plan = plan
        self._parts = parts
        self._anchors = anchors

    @property
    def episode(self) -> Tensor:
        return self._anchors[0]

    @property
    def time(self) -> Tensor:
        return self._anchors[1]

    @property
    def values(self) -> Tensor:
        if len(self._parts) == 1:
            return self._parts[0][0]
        return torch.cat([values for values, _ in self._parts], -1)

    @property
    def valid(self) -> Tensor:
        if len(self._parts) == 1:
            return self._parts[0][1]
        return torch.cat([valid for _, valid in self._parts], -1)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._plan.places)

    @property
    def columns(self) -> dict[str, slice]:
        begins = [0]
        for values, _ in self._parts:
            begins.append(begins[-1] + values.shape[-1])
        return {
            name: slice(begins[place.launch] + place.columns.start, begins[place.launch] + place.columns.stop)
            for name, place in self._plan.places.items()
        }

    @property
    def ticks_per_second(self) -> int:
        return self._plan.ticks_per_second

    @property
    def deltas(self) -> Tensor:
        return self._plan.deltas

    @property
    def times(self) -> Tensor:
        """int64 [B, U], ticks since the episode's zero."""
        return self.time[:, None] + self._plan.deltas

    @property
    def seconds(self) -> Tensor:
        """float64 [B], the anchors in seconds since the episode's zero."""
        return self.time.double() / self._plan.ticks_per_second

    def __getitem__(self, name: str) -> Tensor:
        """Values [B, T, D] of one stream at its own steps."""
        place = self._plan.places[name]
        return _at_steps(self._parts[place.launch][0], place.steps, place.columns)

    def is_valid(self, name: str) -> Tensor:
        """bool [B, T] of one stream at its own steps."""
        place = self._plan.places[name]
        return _at_steps(self._parts[place.launch][1], place.steps, place.mask)

    def is_pad(self, name: str) -> Tensor:
        """LeRobot's mask [B, T]: True where a step lies outside the stream's samples."""
        return ~self.is_valid(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._plan.places)

    def __contains__(self, name: object) -> bool:
        return name in self._plan.places

    def __len__(self) -> int:
        return self._parts[0][0].shape[0]

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {list(self[name].shape)}" for name in self)
        return f"WindowBatch({len(self)} windows, {shapes}, {self.episode.device})"
