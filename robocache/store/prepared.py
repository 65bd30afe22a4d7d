"""Windows of one kind, ready to be drawn: what `EpisodeStore.windows` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .batch import WindowBatch
from .bound import BoundLaunch
from .ticks import whole_number
from .windows import WindowPlan

if TYPE_CHECKING:
    from .episodes import EpisodeStore


class PreparedWindows:
    """Windows with the same steps, of one store. Their arguments were checked when this was made.

    Attributes:
        store: where they are drawn from.

    Example:
        >>> windows = store.windows(delta_times={"state": [-0.1, 0.0], "action": [k / 30 for k in range(16)]})
        >>> for _ in range(1000):
        ...     batch = windows.sample(256)
    """

    __slots__ = ("_bound", "_plan", "store")

    def __init__(self, store: EpisodeStore, plan: WindowPlan, bound: list[list[BoundLaunch]]) -> None:
        self.store = store
        self._plan = plan
        self._bound = bound

    def sample(self, batch: int, generator: torch.Generator | None = None, *, anchors: str = "frames") -> WindowBatch:
        """Draws windows; arguments, errors and what comes back as in `EpisodeStore.sample`."""
        batch = whole_number(batch, "batch", "windows")
        drawn = self.store._drawable(anchors).draw(batch, generator)
        return WindowBatch(self._plan, self.store._read(self._bound, drawn), drawn)

    def at(self, episodes: Any, times: Any) -> WindowBatch:
        """Windows at given places; arguments, errors and what comes back as in `EpisodeStore.at`."""
        rows, anchors = self.store._rows(episodes), self.store._ticks(times)
        if rows.shape != anchors.shape:
            raise ValueError(f"times: expected [B] = [{rows.shape[0]}], got {list(anchors.shape)}")
        return WindowBatch(self._plan, self.store._read(self._bound, (rows, anchors)), (rows, anchors))
