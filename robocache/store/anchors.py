"""Where windows are drawn: at frames of the main clock, or at any tick between an episode's first and last."""

from __future__ import annotations

import torch
from torch import Tensor

from .bound import Anchors


class FrameAnchors:
    """Every frame of the main clock is as likely as any other, as LeRobot indexes a dataset.

    Args:
        times: [N], the main clock's packed times.
        row_splits: [R + 1].
    """

    def __init__(self, times: Tensor, row_splits: Tensor) -> None:
        lengths = row_splits.diff()
        rows = torch.repeat_interleave(torch.arange(lengths.shape[0], device=times.device), lengths)
        self.table = torch.stack([rows, times])  # [2, N]: one gather finds row and time
        self.device = self.table.device
        self.count = times.shape[0]

    def draw(self, batch: int, generator: torch.Generator | None) -> Anchors:
        """Rows [B] and times [B] of `batch` anchors."""
        chosen = torch.randint(self.count, (batch,), generator=generator, device=self.device)
        return self.table.index_select(1, chosen)


class TimeAnchors:
    """Every tick in an episode's [first, last] frame is as likely as any other tick of any episode.

    Args:
        times: [N], the main clock's packed times.
        row_splits: [R + 1].
    """

    def __init__(self, times: Tensor, row_splits: Tensor) -> None:
        begins, ends = row_splits[:-1], row_splits[1:]
        filled = ends > begins
        first = torch.zeros_like(begins)
        ticks = torch.zeros_like(begins)
        first[filled] = times[begins[filled]]
        ticks[filled] = times[ends[filled] - 1] - first[filled] + 1
        self.ends = ticks.cumsum(0)  # [R]: ticks up to and with each episode
        self.shift = first - (self.ends - ticks)  # [R]: from a tick of all episodes to the episode's own
        self.count = int(self.ends[-1]) if ticks.numel() else 0

    def draw(self, batch: int, generator: torch.Generator | None) -> Anchors:
        """Rows [B] and times [B] of `batch` anchors."""
        chosen = torch.randint(self.count, (batch,), generator=generator, device=self.ends.device)
        rows = torch.searchsorted(self.ends, chosen, right=True)
        return rows, chosen + self.shift.index_select(0, rows)
