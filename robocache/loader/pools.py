"""A pool of episodes as one buffer of bytes: packed on the host, moved in one copy, seen as tensors on either side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..datasets._work import ReadEpisode
from ..store.packed import PackedStreams, splits_of
from ..store.read import tensors
from ..store.streams import StreamLayout
from .share import Piece

_ALIGNMENT = 256  # of each tensor in the buffer, as the device's allocator gives
_GRANULE = 1 << 20  # buffers grow by whole megabytes
ROW, TIME, EPISODE, FRAME = range(4)  # rows of the table of anchors


@dataclass(frozen=True)
class Section:
    """One tensor's place in the buffer."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def view(self, buffer: Tensor) -> Tensor:
        return buffer[self.offset : self.end].view(self.dtype).view(self.shape)


@dataclass(frozen=True)
class PoolSections:
    """Where everything of a pool lies."""

    values: tuple[Section, ...]
    times: tuple[Section, ...]
    row_splits: tuple[Section, ...]
    anchors: Section
    nbytes: int

    def streams(self, buffer: Tensor) -> PackedStreams:
        every = (self.values, self.times, self.row_splits)
        return PackedStreams(*([section.view(buffer) for section in sections] for sections in every))


def sections_of(layouts: Sequence[StreamLayout], samples: Sequence[int], rows: int, anchors: int) -> PoolSections:
    """The places of streams with so many samples in all, of `rows` episodes, and of so many anchors."""
    offset = 0

    def place(shape: tuple[int, ...], dtype: torch.dtype) -> Section:
        nonlocal offset
        section = Section(offset, shape, dtype)
        offset = -(-section.end // _ALIGNMENT) * _ALIGNMENT
        return section

    values = tuple(place((n, layout.columns), layout.dtype) for layout, n in zip(layouts, samples, strict=True))
    times = tuple(place((n,), torch.int64) for n in samples)
    splits = tuple(place((rows + 1,), torch.int64) for _ in samples)
    table = place((4, anchors), torch.int64)
    return PoolSections(values, times, splits, table, offset)


@dataclass(frozen=True, eq=False)
class HostPool:
    """What a worker's episodes become before they are packed.

    Attributes:
        piece: what the rank takes of the pool.
        episodes: by the pool's rows; None where the rank needs nothing of one, or it could not be read.
        rows, frames: of each of the rank's samples.
    """

    piece: Piece
    episodes: list[ReadEpisode | None]
    rows: NDArray[np.int64]
    frames: NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        return sum(episode.nbytes for episode in self.episodes if episode is not None)


def replace_missing(pool: HostPool, missing: Sequence[int], frames: NDArray[np.int64]) -> HostPool:
    """The pool with the samples of missing rows taken from the rows that are there.

    So a batch keeps its size and every rank its number of steps. Which frames stand in follows from the positions.

    Args:
        pool: with at least one episode.
        missing: rows that could not be read.
        frames: of each row.
    """
    good = np.array([row for row, episode in enumerate(pool.episodes) if episode is not None], dtype=np.int64)
    gone = np.isin(pool.rows, missing)
    number = pool.piece.positions[gone]
    rows, at = pool.rows.copy(), pool.frames.copy()
    rows[gone] = good[number % len(good)]
    at[gone] = (number // len(good)) % frames[rows[gone]]
    return HostPool(pool.piece, pool.episodes, rows, at)


def pack(pool: HostPool, layouts: Sequence[StreamLayout], clock: int, buffer: Any) -> tuple[PoolSections, Any]:
    """Writes a pool into a buffer.

    Args:
        pool: what to pack.
        layouts: its streams.
        clock: the stream whose samples are the frames.
        buffer: called with the bytes that are needed; gives a uint8 tensor on the host with at least as many.

    Returns:
        The places of everything, and anchors int64 [4, M] as an array of its own: row, time, episode, frame.
    """
    nothing: list[Any] = [None] * len(layouts)
    vectors = [tensors(nothing if one is None else one.vectors, layouts) for one in pool.episodes]
    lengths = [[found[index][1].shape[0] for found in vectors] for index in range(len(layouts))]
    sections = sections_of(layouts, [sum(n) for n in lengths], len(vectors), len(pool.rows))
    memory = buffer(sections.nbytes)
    target = sections.streams(memory)
    for index in range(len(layouts)):
        splits = splits_of(lengths[index])
        target.row_splits[index].copy_(splits)
        begin = 0
        for found, length in zip(vectors, lengths[index], strict=True):
            values, times = found[index]
            target.values[index][begin : begin + length].copy_(values)
            target.times[index][begin : begin + length].copy_(times)
            begin += length
    anchors = _anchors(pool, target.times[clock].numpy(), target.row_splits[clock].numpy())
    sections.anchors.view(memory).copy_(torch.from_numpy(anchors))
    return sections, anchors


def _anchors(pool: HostPool, times: NDArray[np.int64], splits: NDArray[np.int64]) -> NDArray[np.int64]:
    episodes = np.array(pool.piece.pool.episodes, dtype=np.int64)
    return np.stack([pool.rows, times[splits[pool.rows] + pool.frames], episodes[pool.rows], pool.frames])


@dataclass(eq=False)
class Slot:
    """A buffer on the device that one pool after another lies in.

    Attributes:
        buffer: uint8; None before the first pool.
        users: streams that read the pool now in it, by handle.
        released: events behind the last reads of the pool before.
    """

    buffer: Tensor | None = None
    users: dict[int, Any] = field(default_factory=dict)
    released: list[Any] = field(default_factory=list)

    def release(self) -> None:
        """The reader is done: what it has queued on its streams is what a new pool must wait for."""
        self.released = []
        for stream in self.users.values():
            event = torch.cuda.Event()
            event.record(stream)
            self.released.append(event)
        self.users = {}


def grown(buffer: Tensor | None, nbytes: int, **options: Any) -> Tensor:
    """The buffer if it is large enough, else a new one of whole megabytes."""
    if buffer is not None and buffer.numel() >= nbytes:
        return buffer
    return torch.empty(-(-max(nbytes, 1) // _GRANULE) * _GRANULE, dtype=torch.uint8, **options)


@dataclass(eq=False)
class ReadyPool:
    """A pool that batches can be read from.

    Attributes:
        piece: what the rank takes of it.
        slot: where it lies.
        streams: its packed streams on the device.
        anchors: int64 [4, M] on the device: row, time, episode, frame of each of the rank's samples, in order.
        host_anchors: the same on the host.
        episodes: by row: image times and text; None where a row was not read.
        ready: the event behind its copy, or None on the CPU.
    """

    piece: Piece
    slot: Slot
    streams: PackedStreams
    anchors: Tensor
    host_anchors: NDArray[np.int64]
    image_times: list[list[NDArray[np.int64]] | None]
    texts: list[dict[str, str] | None]
    ready: Any
    bound: Any = None
