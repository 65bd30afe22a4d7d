"""Episodes into packed tensors: on the device up to a budget of bytes, values past it in pinned host memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .packed import PackedStreams, device_view, splits_of
from .read import Vectors
from .streams import StreamLayout

_CHUNK_BYTES = 64 << 20  # host bytes of one stream that gather before one copy to the device
_TIME_BYTES = 8


class _Column:
    """One growing tensor: host pieces that move to the device a chunk at a time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.chunks: list[Tensor] = []
        self.pieces: list[Tensor] = []
        self.bytes = 0

    def add(self, piece: Tensor) -> None:
        self.pieces.append(piece)
        self.bytes += piece.numel() * piece.element_size()
        if self.bytes >= _CHUNK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self.pieces:
            self.chunks.append(torch.cat(self.pieces).to(self.device))
            self.pieces, self.bytes = [], 0

    def finish(self, like: Tensor) -> Tensor:
        """All of it as one tensor, the chunks given up; `like` has the dtype and shape of no samples."""
        self._flush()
        if not self.chunks:
            return like.to(self.device)
        whole = self.chunks[0] if len(self.chunks) == 1 else torch.cat(self.chunks)
        self.chunks = []
        return whole


class Filler:
    """Takes episodes one by one; `finish` gives the parts.

    Host memory while filling: a chunk of 64 MB a stream, and what is spilled, one spilled stream twice. Device memory:
    what is kept, one stream twice.

    Args:
        layouts: the streams.
        device: of the packed tensors.
        max_bytes: of values and times on the device; None sets no limit. From the first episode that does not fit on,
            episodes spill: their values go to host memory, pinned where the device is CUDA. Times always stay on the
            device, because finding a sample reads them many times, and its values once; those of spilled episodes, 8
            bytes a sample, are not counted.
    """

    def __init__(self, layouts: Sequence[StreamLayout], device: torch.device, max_bytes: int | None) -> None:
        if max_bytes is not None and (isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 0):
            raise ValueError(f"max_bytes: expected None or bytes of 0 or more, got {max_bytes!r}")
        self.layouts = layouts
        self.device = device
        self.max_bytes = max_bytes
        self.kept_bytes = 0
        self.spilling = False
        count = len(layouts)
        host = torch.device("cpu")
        self._values = [[_Column(device) for _ in range(count)], [_Column(host) for _ in range(count)]]
        self._times = [[_Column(device) for _ in range(count)] for _ in range(2)]
        self._lengths: list[list[list[int]]] = [[[] for _ in range(count)] for _ in range(2)]

    def add(self, vectors: Vectors) -> None:
        """One more episode."""
        size = sum(times.shape[0] * (layout.value_bytes + _TIME_BYTES) for layout, (_, times) in self._each(vectors))
        if self.max_bytes is not None and self.kept_bytes + size > self.max_bytes:
            self.spilling = True  # for good: the kept episodes are the first ones, so one number parts them
        part = int(self.spilling)
        self.kept_bytes += 0 if self.spilling else size
        for index, (values, times) in enumerate(vectors):
            self._values[part][index].add(values)
            self._times[part][index].add(times)
            self._lengths[part][index].append(times.shape[0])

    def _each(self, vectors: Vectors) -> zip[tuple[StreamLayout, tuple[Tensor, Tensor]]]:
        return zip(self.layouts, vectors, strict=True)

    @property
    def kept_episodes(self) -> int:
        return len(self._lengths[0][0])

    def finish(self) -> list[PackedStreams]:
        """One part; where episodes spilled, two: the kept ones and an empty row, an empty row and the spilled ones.

        A draw reads both parts; each gives the rows of the other from its empty row.
        """
        if not self.spilling:
            return [self._part(0, [], [])]
        return [self._part(0, [], [0]), self._part(1, [0], [])]

    def _part(self, part: int, before: list[int], behind: list[int]) -> PackedStreams:
        values, times, splits = [], [], []
        for index, layout in enumerate(self.layouts):
            none = torch.empty(0, layout.columns, dtype=layout.dtype)
            if part and self.device.type == "cuda":
                values.append(self._pinned(self._values[part][index], none))
            else:
                values.append(self._values[part][index].finish(none))
            times.append(self._times[part][index].finish(torch.empty(0, dtype=torch.int64)))
            splits.append(splits_of([*before, *self._lengths[part][index], *behind]).to(self.device))
        return PackedStreams(values, times, splits)

    def _pinned(self, column: _Column, none: Tensor) -> Tensor:
        host = column.finish(none)
        with torch.cuda.device(self.device):
            return device_view(host.pin_memory() if host.numel() else host, self.device)
