"""What runs behind a loader, and what of it is in hand: pools, and images on their way."""

from __future__ import annotations

import os
import time
from collections import deque
from concurrent.futures import Future

from ..store.windows import WindowPlan
from .aligning import Aligner, Segment
from .images import Gathered, ImageGatherer
from .pools import ReadyPool
from .producer import PoolProducer
from .share import RankShare
from .workers import Workers


class Feed:
    """Pools and images for one step after the other.

    Args:
        producer: of the pools from the first share's first piece on, without end.
        gatherer: of images, or None.
        plan: of the windows that are read from the pools.
        batch_size: samples of a step.
        prefetch: batches of images to decode ahead.
    """

    def __init__(
        self, producer: PoolProducer, gatherer: ImageGatherer | None, plan: WindowPlan, batch_size: int, prefetch: int
    ) -> None:
        self.producer = producer
        self.gatherer = gatherer
        self.aligner = Aligner(plan.deltas.device)
        self._plan = plan
        self._batch_size = batch_size
        self._prefetch = prefetch
        self._held: deque[ReadyPool] = deque()
        self._first = 0  # which of the share's pieces is the first in `_held`
        self._decoding: dict[int, Future[Gathered]] = {}  # by step, until it was given
        self._share: RankShare | None = None
        self.process = os.getpid()  # threads do not live on in a fork

    def begin(self, share: RankShare) -> None:
        """Goes on to a share, the one behind the last; its first pools may be in hand already."""
        self._share = share
        self._first = 0
        self._decoding.clear()

    def segments(self, step: int, waits: dict[str, float]) -> list[Segment]:
        """Where a step's samples lie; waits for the pools, and notes what was waited for."""
        assert self._share is not None
        return [(self._pool(index, waits), a, b) for index, a, b in self._share.step(step)]

    def images(self, step: int, waits: dict[str, float]) -> Gathered | None:
        """A step's images, once `segments` has its pools; starts on those of the next steps as far as theirs are there.

        Asked again for the same step, it gives the same, or raises the same.
        """
        if self.gatherer is None:
            return None
        assert self._share is not None
        for number in range(step, min(step + self._prefetch + 1, self._share.steps)):
            if number in self._decoding:
                continue
            pieces = self._share.step(number)
            while not self._has(pieces[-1][0]) and self._take(None):
                pass
            if not self._has(pieces[-1][0]):
                break
            found = [(self._held[index - self._first], a, b) for index, a, b in pieces]
            self._decoding[number] = self.gatherer.submit(found)
        begin = time.perf_counter()
        gathered = self._decoding[step].result()
        waits["decode"] = waits.get("decode", 0.0) + time.perf_counter() - begin
        return gathered

    def given(self, steps: int) -> None:
        """So many of the share's steps were given out: pools that are behind go back."""
        assert self._share is not None
        self._decoding.pop(steps - 1, None)
        samples = min(steps * self._batch_size, self._share.samples)
        while self._held and self._first < len(self._share.pieces):
            if self._share.pieces[self._first].end > samples:
                break
            self.producer.release(self._held.popleft())
            self._first += 1

    def close(self, workers: Workers) -> None:
        """Ends everything, the workers too."""
        self.producer.close()  # first: it hands out work
        workers.close()
        if self.gatherer is not None:
            self.gatherer.close()

    # ---- Pools in hand ----------------------------------------------------------------------------------------------

    def _has(self, index: int) -> bool:
        return index < self._first + len(self._held)

    def _pool(self, index: int, waits: dict[str, float]) -> ReadyPool:
        """The pool of one of the share's pieces; notes what was waited for."""
        while not self._has(index):
            self._take(waits)
        pool = self._held[index - self._first]
        if pool.bound is None:
            pool.bound = self._plan.bind(pool.streams)
        return pool

    def _take(self, waits: dict[str, float] | None) -> bool:
        """Takes the next pool into hand; without `waits` only if it is there. False where it is not."""
        pool = self.producer.take(block=False)
        if pool is None:
            if waits is None:
                return False
            if len(self._held) >= len(self.producer.slots):
                self.producer.add_slot()  # one batch spans all of them: nothing goes back before it is read
            begin = time.perf_counter()
            pool = self.producer.take()
            for part, seconds in self.producer.timeline.split(begin, time.perf_counter()).items():
                waits[part] = waits.get(part, 0.0) + seconds
        assert pool is not None
        self._held.append(pool)
        return True
