"""What a DataLoader gives: windows, with what else was asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..store.batch import WindowBatch
from ..store.windows import WindowPlan
from .aligning import Segment, StepWindows
from .images import Gathered
from .pools import ROW, ReadyPool


class LoaderBatch(WindowBatch):
    """A `WindowBatch` of a DataLoader; `episode` counts as the dataset does.

    Attributes:
        frame: int64 [B], the anchor's frame in its episode.
        images: uint8 [B, T, H, W, C] by image stream, on the loader's device.
        image_valid: bool [B, T] by image stream: False where the step lies outside the stream's frames.
        text: what each window's episode says (instruction, task), on the host.
    """

    __slots__ = ("_texts", "frame", "image_valid", "images")

    def __init__(
        self,
        plan: WindowPlan,
        parts: list[tuple[Tensor, Tensor]],
        anchors: Tensor,
        images: dict[str, Tensor],
        image_valid: dict[str, Tensor],
        texts: list[tuple[Sequence[dict[str, str] | None], NDArray[np.int64]]],
    ) -> None:
        _, time, episode, self.frame = anchors.unbind(0)
        super().__init__(plan, parts, (episode, time))
        self.images = images
        self.image_valid = image_valid
        self._texts = texts

    @property
    def text(self) -> list[dict[str, str]]:
        return [texts[row] or {} for texts, rows in self._texts for row in rows.tolist()]


def batch_of(
    plan: WindowPlan,
    windows: StepWindows,
    segments: Sequence[Segment],
    gathered: Gathered | None,
    device: torch.device,
) -> LoaderBatch:
    """A step's windows with its images, on their way to the device, and its texts."""
    images: dict[str, Tensor] = {}
    image_valid: dict[str, Tensor] = {}
    if gathered is not None:
        images = {name: found.to(device, non_blocking=True) for name, found in gathered.frames.items()}
        image_valid = {name: found.to(device, non_blocking=True) for name, found in gathered.valid.items()}
    texts = [texts_of(*segment) for segment in segments]
    return LoaderBatch(plan, windows.parts, windows.anchors, images, image_valid, texts)


def texts_of(pool: ReadyPool, begin: int, end: int) -> tuple[Sequence[dict[str, str] | None], NDArray[np.int64]]:
    """The texts of a pool's episodes and the row of each of the samples [begin, end)."""
    return pool.texts, pool.host_anchors[ROW, begin:end]
