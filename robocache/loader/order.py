"""The order of an epoch: a pure function of seed, epoch and position, the same for every rank and world size.

The episodes are permuted and cut into pools that fit in memory; the frames of a pool are permuted. Position p of an
epoch is one frame of one episode, and every frame has one position. Random numbers come from Philox (Salmon et al.,
SC 2011), a counter-based generator, keyed by what they are for, so no state is carried and nothing global is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_EPISODES, _FRAMES = 0, 1  # what a permutation is for


def permutation(size: int, *key: int) -> NDArray[np.int64]:
    """A permutation of range(size) that depends on the key alone.

    The order of Philox's raw 64-bit numbers, which NumPy promises not to change (NEP 19); ties keep their order.
    """
    numbers = np.random.Philox(np.random.SeedSequence(list(key))).random_raw(size)
    return np.argsort(numbers, kind="stable")


@dataclass(frozen=True)
class PoolPlan:
    """Episodes that are in memory together.

    Attributes:
        epoch, number: which pool it is.
        episodes: of the dataset, in the order in which they are packed.
        begin, end: positions of the epoch that its frames have.
    """

    epoch: int
    number: int
    episodes: tuple[int, ...]
    begin: int
    end: int


class EpochOrder:
    """Orders of all epochs of a dataset.

    Args:
        frames: of each episode.
        sizes: bytes of each episode in memory.
        pool_bytes: the most that the episodes of a pool may take; an episode larger than that has a pool of its own.
        seed: any whole number of 0 or more.
        shuffle: False keeps episodes and frames in the dataset's order.
    """

    def __init__(
        self, frames: Sequence[int], sizes: Sequence[int], pool_bytes: int, seed: int = 0, shuffle: bool = True
    ) -> None:
        self.frames = np.asarray(frames, dtype=np.int64)
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.pool_bytes = pool_bytes
        self.seed = seed
        self.shuffle = shuffle
        self.total = int(self.frames.sum())

    def pools(self, epoch: int) -> list[PoolPlan]:
        """The epoch's pools in order; episodes without frames are in none."""
        chosen = np.flatnonzero(self.frames > 0)
        if self.shuffle:
            chosen = chosen[permutation(len(chosen), self.seed, epoch, _EPISODES)]
        pools: list[PoolPlan] = []
        members: list[int] = []
        held = begin = end = 0
        for episode in chosen.tolist():
            size = int(self.sizes[episode])
            if members and held + size > self.pool_bytes:
                pools.append(PoolPlan(epoch, len(pools), tuple(members), begin, end))
                members, held, begin = [], 0, end
            members.append(episode)
            held += size
            end += int(self.frames[episode])
        if members:
            pools.append(PoolPlan(epoch, len(pools), tuple(members), begin, end))
        return pools

    def frames_at(self, pool: PoolPlan, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which of the pool's episodes (by place in it) and which frame stand at positions of its epoch."""
        inside = positions - pool.begin
        if self.shuffle:
            inside = permutation(pool.end - pool.begin, self.seed, pool.epoch, _FRAMES, pool.number)[inside]
        ends = np.cumsum(self.frames[list(pool.episodes)])
        rows = np.searchsorted(ends, inside, side="right")
        return rows, inside - np.where(rows > 0, ends[rows - 1], 0)
