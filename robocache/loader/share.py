"""What of an epoch a rank gets: a step takes the next batch x world positions, each rank every world-th of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .order import EpochOrder, PoolPlan

Cut: TypeAlias = "tuple[int, int, int, bool]"  # batch, rank, world and drop_last of a RankShare


@dataclass(frozen=True)
class Piece:
    """What a rank takes of one pool.

    Attributes:
        pool: the pool.
        begin, end: the rank's samples, counted from where the rank began in this epoch.
        positions: int64 [end - begin], positions of the epoch.
    """

    pool: PoolPlan
    begin: int
    end: int
    positions: NDArray[np.int64]


class RankShare:
    """A rank's part of an epoch from a position on.

    The order is a fact of the epoch alone. From `start`, step k takes positions start + k * batch * world to
    start + (k + 1) * batch * world, and rank r those at r, r + world, r + 2 * world, ... of them. So any world size can
    go on where another stopped.

    Args:
        pools: of the epoch, in order.
        total: positions in the epoch.
        start: positions that are consumed already.
        batch: samples of a step on one rank.
        rank, world: which share.
        drop_last: True leaves out what does not fill a step on all ranks. False makes of it one more, smaller step, of
            the same size on all ranks: up to world - 1 positions of the last pool are then given twice.
    """

    def __init__(
        self, pools: Sequence[PoolPlan], total: int, start: int, batch: int, rank: int, world: int, drop_last: bool
    ) -> None:
        left = max(0, total - start)
        whole, rest = divmod(left, batch * world)
        tail = 0 if drop_last else -(-rest // world)
        self.batch = batch
        self.start = start
        self.world = world
        self.steps = whole + (tail > 0)
        self.samples = whole * batch + tail
        self.pieces = self._pieces(pools, total, rank)
        self._ends = [piece.end for piece in self.pieces]

    def _pieces(self, pools: Sequence[PoolPlan], total: int, rank: int) -> list[Piece]:
        pieces = []
        done = 0
        for pool in pools:
            reached = -(-(pool.end - self.start - rank) // self.world)  # samples of the rank before the pool's end
            end = self.samples if pool is pools[-1] else min(max(reached, 0), self.samples)
            if end > done:
                positions = self.start + rank + self.world * np.arange(done, end, dtype=np.int64)
                again = positions >= total
                positions[again] = pool.begin + (positions[again] - total) % (pool.end - pool.begin)
                pieces.append(Piece(pool, done, end, positions))
                done = end
        return pieces

    def step(self, number: int) -> list[tuple[int, int, int]]:
        """The pieces of a step: (index of the piece, begin and end within it)."""
        begin, end = number * self.batch, min((number + 1) * self.batch, self.samples)
        first, last = bisect_right(self._ends, begin), bisect_left(self._ends, end)
        return [
            (index, max(begin, piece.begin) - piece.begin, min(end, piece.end) - piece.begin)
            for index, piece in enumerate(self.pieces[first : last + 1], first)
        ]

    def consumed(self, steps: int, total: int) -> int:
        """The position of the epoch after so many steps, on every rank alike."""
        return min(self.start + steps * self.batch * self.world, total) if steps < self.steps else total


def share_of(order: EpochOrder, epoch: int, start: int, cut: Cut) -> RankShare:
    return RankShare(order.pools(epoch), order.total, start, *cut)


def pieces_from(order: EpochOrder, epoch: int, start: int, cut: Cut) -> Iterator[Piece]:
    """What a rank takes, pool after pool, from a position on, without end. No method: the background thread holds it,
    and must not hold the loader, which would then never end by itself."""
    while True:
        yield from share_of(order, epoch, start, cut).pieces
        epoch, start = epoch + 1, 0
