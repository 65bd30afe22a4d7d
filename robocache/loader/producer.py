"""The background thread: reads pools ahead, packs them, copies them to the device."""

from __future__ import annotations

import queue
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..datasets import DatasetError
from ..datasets._work import ReadEpisode, Request, read_episode
from ..store.streams import StreamLayout
from .meter import Timeline
from .order import EpochOrder
from .pools import HostPool, ReadyPool, Slot, grown, pack, replace_missing
from .share import Piece
from .workers import Workers

_POLL_S = 0.1  # how soon a wait notices that the loader was closed


class Stopped(Exception):
    """The loader was closed while the thread waited."""


@dataclass(frozen=True, eq=False)
class _Wanted:
    """A piece, with the row and frame of each sample, and the rows that have any."""

    piece: Piece
    rows: NDArray[np.int64]
    frames: NDArray[np.int64]
    needed: tuple[int, ...]


class PoolProducer:
    """Makes ReadyPools in order, as many ahead as there are free slots.

    Args:
        workers: who read episodes.
        order: of epochs, for frames and permutations.
        pieces: what the rank takes, pool after pool, without end.
        layouts, request, clock: what to read and pack.
        device: where pools go.
        slots: how many pools may be on the device, with those in use; `add_slot` makes room for more.
        skip: True passes over episodes that cannot be read.
    """

    def __init__(
        self,
        workers: Workers,
        order: EpochOrder,
        pieces: Iterator[Piece],
        layouts: Sequence[StreamLayout],
        request: Request,
        device: torch.device,
        slots: int,
        skip: bool,
    ) -> None:
        self.timeline = Timeline()
        self.skipped: dict[int, DatasetError] = {}
        self.peak_host_bytes = 0
        self.staging: Tensor | None = None
        self.slots = [Slot() for _ in range(slots)]
        self._workers = workers
        self._order = order
        self._pieces = pieces
        self._layouts = layouts
        self._request = request
        self._device = device
        self._skip = skip
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in self.slots:
            self._free.put(slot)
        self._ready: queue.SimpleQueue[ReadyPool | BaseException] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._wanted: deque[_Wanted] = deque()
        self._to_read: deque[tuple[_Wanted, int]] = deque()
        self._reading: deque[Future[ReadEpisode]] = deque()
        self._copied: Any = None
        self._copy_stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._thread = threading.Thread(target=self._run, name="robocache-loader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def take(self, block: bool = True) -> ReadyPool | None:
        """The next pool; None where there is none yet and `block` is False. Raises what failed in the background."""
        try:
            found = self._ready.get(block)
        except queue.Empty:
            return None
        if isinstance(found, BaseException):
            self._ready.put(found)  # asked again, it fails again
            raise found
        return found

    def add_slot(self) -> None:
        """Room for one more pool; its buffer is made as the others' are, when a pool comes into it."""
        slot = Slot()
        self.slots.append(slot)
        self._free.put(slot)

    def release(self, pool: ReadyPool) -> None:
        """No batch will read the pool any more."""
        pool.slot.release()
        self._free.put(pool.slot)

    def cancel(self) -> None:
        """Ends the thread soon, and the wait of a `take` in whatever thread, which raises."""
        self._stop.set()
        self._ready.put(RuntimeError("the DataLoader is closed"))

    def close(self) -> None:
        """Ends the thread and frees the buffers; memory that queued kernels still read is kept until they are done."""
        self.cancel()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()  # the thread itself comes here where it collects a loader that was dropped
        for future in self._reading:
            future.cancel()
        for slot in self.slots:
            for stream in slot.users.values():
                if slot.buffer is not None:
                    slot.buffer.record_stream(stream)
            for event in slot.released:
                event.synchronize()
            slot.buffer = None
        self.staging = None

    @property
    def device_bytes(self) -> int:
        return sum(slot.buffer.numel() for slot in self.slots if slot.buffer is not None)

    # ---- The thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)
            while not self._stop.is_set():
                self._ready.put(self._make())
        except Stopped:
            pass
        except BaseException as error:  # the consumer raises it
            self._ready.put(error)

    def _make(self) -> ReadyPool:
        self.timeline.enter("disk")
        try:
            host = self._collect()
        except BrokenExecutor as error:
            raise RuntimeError(
                f"a worker process died while it read an episode of {self._workers.dataset.path} (killed, out of "
                f"memory, or crashed in a library)"
            ) from error
        self.timeline.enter("copy")
        return self._copy(host) if self._copy_stream is not None else self._place(host)

    def _top_up(self) -> None:
        """Keeps twice as many reads under way as there are workers, into the next pools if need be."""
        while len(self._reading) < 2 * self._workers.count:
            while not self._to_read:
                wanted = self._want(next(self._pieces))
                self._wanted.append(wanted)
                self._to_read.extend((wanted, row) for row in wanted.needed)
            wanted, row = self._to_read.popleft()
            episode = wanted.piece.pool.episodes[row]
            frames = int(self._order.frames[episode])
            self._reading.append(self._workers.submit(read_episode, self._request, episode, frames))

    def _want(self, piece: Piece) -> _Wanted:
        rows, frames = self._order.frames_at(piece.pool, piece.positions)
        return _Wanted(piece, rows, frames, tuple(np.unique(rows).tolist()))

    def _collect(self) -> HostPool:
        """The next pool's episodes, read."""
        self._top_up()
        wanted = self._wanted.popleft()
        pool = wanted.piece.pool
        episodes: list[ReadEpisode | None] = [None] * len(pool.episodes)
        missing = []
        for row in wanted.needed:
            self._top_up()
            future = self._reading.popleft()
            try:
                episodes[row] = self._result(future)
            except DatasetError as error:
                if not self._skip:
                    raise
                self.skipped[pool.episodes[row]] = error
                missing.append(row)
        host = HostPool(wanted.piece, episodes, wanted.rows, wanted.frames)
        if missing:
            if len(missing) == len(wanted.needed):
                raise DatasetError(
                    f"none of the {len(missing)} episodes of a pool could be read; the last: "
                    f"{self.skipped[pool.episodes[missing[-1]]]}"
                )
            host = replace_missing(host, missing, self._order.frames[list(pool.episodes)])
        return host

    def _result(self, future: Future[ReadEpisode]) -> ReadEpisode:
        while not future.done():
            if self._stop.is_set():
                raise Stopped
            wait([future], timeout=_POLL_S)
        return future.result()

    def _free_slot(self) -> Slot:
        while True:
            if self._stop.is_set():
                raise Stopped
            try:
                return self._free.get(timeout=_POLL_S)
            except queue.Empty:
                continue

    def _waiting_reads(self) -> int:
        """Bytes of episodes that are read already but not packed."""
        done = [future for future in self._reading if future.done() and future.exception() is None]
        return sum(future.result().nbytes for future in done)

    def _note_memory(self, host: HostPool, packed: int) -> None:
        self.peak_host_bytes = max(self.peak_host_bytes, host.nbytes + self._waiting_reads() + packed)

    def _ready_pool(
        self, host: HostPool, slot: Slot, sections: Any, anchors: NDArray[np.int64], event: Any
    ) -> ReadyPool:
        assert slot.buffer is not None
        return ReadyPool(
            host.piece,
            slot,
            sections.streams(slot.buffer),
            sections.anchors.view(slot.buffer),
            anchors,
            [None if episode is None else episode.image_times for episode in host.episodes],
            [None if episode is None else episode.text for episode in host.episodes],
            event,
        )

    def _place(self, host: HostPool) -> ReadyPool:
        """Packs straight into a slot: the CPU's way."""
        slot = self._free_slot()

        def buffer(nbytes: int) -> Tensor:
            slot.buffer = grown(slot.buffer, nbytes)
            return slot.buffer

        sections, anchors = pack(host, self._layouts, self._request.clock, buffer)
        self._note_memory(host, self.device_bytes)
        return self._ready_pool(host, slot, sections, anchors, None)

    def _copy(self, host: HostPool) -> ReadyPool:
        """Packs into pinned memory, then copies in one piece on the copy stream."""
        if self._copied is not None:
            self._copied.synchronize()  # the staging memory is still being read; only this thread waits

        def buffer(nbytes: int) -> Tensor:
            self.staging = grown(self.staging, nbytes, pin_memory=True)
            return self.staging

        sections, anchors = pack(host, self._layouts, self._request.clock, buffer)
        assert self.staging is not None and self._copy_stream is not None
        self._note_memory(host, self.staging.numel())
        slot = self._free_slot()
        self.timeline.enter("copy")
        if slot.buffer is None or slot.buffer.numel() < sections.nbytes:
            for event in slot.released:
                event.synchronize()  # before the old buffer goes back to the allocator
            slot.buffer = None
        with torch.cuda.stream(self._copy_stream):
            slot.buffer = grown(slot.buffer, sections.nbytes, device=self._device)
            for event in slot.released:
                self._copy_stream.wait_event(event)
            self._copy_into(slot.buffer, sections.nbytes)
            self._copied = torch.cuda.Event()
            self._copied.record(self._copy_stream)
        return self._ready_pool(host, slot, sections, anchors, self._copied)

    def _copy_into(self, buffer: Tensor, nbytes: int) -> None:
        """Queues the copy of a packed pool on the current stream."""
        assert self.staging is not None
        buffer[:nbytes].copy_(self.staging[:nbytes], non_blocking=True)


def skipped_counts(skipped: dict[int, DatasetError]) -> Counter[str]:
    """How many episodes were passed over, by reason."""
    return Counter(error.category for error in skipped.values())
