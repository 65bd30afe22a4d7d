"""The order of an epoch and the shares of ranks, as plain numbers: permutations, pools, resuming at any world size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robocache.loader.order import EpochOrder, PoolPlan, permutation
from robocache.loader.share import RankShare

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(any)


@given(size=st.integers(0, 2000), key=st.lists(st.integers(0, 2**63), min_size=1, max_size=4))
def test_a_permutation_holds_every_number_once_and_depends_on_the_key_alone(size: int, key: list[int]) -> None:
    np.random.seed(0)  # noqa: NPY002 - the global state must neither matter nor change
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    found = permutation(size, *key)
    assert sorted(found.tolist()) == list(range(size))
    assert np.array_equal(found, permutation(size, *key))
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_a_permutation_never_changes_from_version_to_version() -> None:
    assert permutation(8, 0, 0, 0).tolist() == EXPECTED[0]
    assert permutation(8, 1, 2, 1, 3).tolist() == EXPECTED[1]


def test_permutations_are_uniform_and_keys_independent() -> None:
    size, draws = 6, 6000
    first = np.array([permutation(size, seed, 0) for seed in range(draws)])
    for place in range(size):
        counts = np.bincount(first[:, place], minlength=size)
        assert abs(counts - draws / size).max() < 6 * (draws / size) ** 0.5
    other = np.array([permutation(size, seed, 1) for seed in range(draws)])
    equal = int((first == other).all(1).sum())
    assert equal < 40  # 6000 / 720 = 8.3 are expected


def order_of(lengths: list[int], pool_bytes: int = 60, seed: int = 0, shuffle: bool = True) -> EpochOrder:
    return EpochOrder(lengths, lengths, pool_bytes, seed, shuffle)


def everything(order: EpochOrder, epoch: int) -> list[tuple[int, int]]:
    """(episode, frame) at every position of an epoch."""
    found = []
    for pool in order.pools(epoch):
        rows, frames = order.frames_at(pool, np.arange(pool.begin, pool.end))
        found += [(pool.episodes[row], frame) for row, frame in zip(rows.tolist(), frames.tolist(), strict=True)]
    return found


@given(lengths=LENGTHS, pool_bytes=st.integers(1, 200), seed=st.integers(0, 5), shuffle=st.booleans())
def test_every_frame_has_one_position_and_pools_keep_to_their_bytes(
    lengths: list[int], pool_bytes: int, seed: int, shuffle: bool
) -> None:
    order = order_of(lengths, pool_bytes, seed, shuffle)
    frames = [(episode, frame) for episode, length in enumerate(lengths) for frame in range(length)]
    for epoch in (0, 3):
        pools = order.pools(epoch)
        assert [pool.number for pool in pools] == list(range(len(pools)))
        assert [0, *(p.end for p in pools)] == [*(p.begin for p in pools), order.total]
        for pool in pools:
            assert len(pool.episodes) == 1 or sum(lengths[e] for e in pool.episodes) <= pool_bytes
        found = everything(order, epoch)
        assert found == frames if not shuffle else sorted(found) == frames


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    lengths = [20] * 10
    orders = [everything(order_of(lengths, seed=seed), epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])
    assert everything(order_of(lengths, seed=1), 1) == orders[3]


def shares(
    order: EpochOrder, epoch: int, start: int, batch: int, world: int, drop_last: bool
) -> tuple[list[RankShare], list[PoolPlan]]:
    pools = order.pools(epoch)
    return [RankShare(pools, order.total, start, batch, r, world, drop_last) for r in range(world)], pools


def positions_of(share: RankShare, number: int) -> list[int]:
    return [int(p) for index, a, b in share.step(number) for p in share.pieces[index].positions[a:b]]


@given(
    lengths=LENGTHS,
    batch=st.integers(1, 9),
    world=st.integers(1, 5),
    start=st.integers(0, 100),
    drop_last=st.booleans(),
)
def test_ranks_share_each_steps_positions(
    lengths: list[int], batch: int, world: int, start: int, drop_last: bool
) -> None:
    order = order_of(lengths)
    start = min(start, order.total)
    ranks, pools = shares(order, 1, start, batch, world, drop_last)
    left = order.total - start
    whole = left // (batch * world)
    assert {share.steps for share in ranks} == {whole if drop_last else -(-left // (batch * world))}
    for step in range(ranks[0].steps):
        taken = [positions_of(share, step) for share in ranks]
        assert len({len(found) for found in taken}) == 1  # every rank the same size
        begin = start + step * batch * world
        if step < whole:
            for rank, found in enumerate(taken):
                assert found == list(range(begin + rank, begin + batch * world, world))
            assert ranks[0].consumed(step + 1, order.total) in (begin + batch * world, order.total)
        else:
            every = [p for found in taken for p in found]
            assert set(range(begin, order.total)) <= set(every)
            assert len(every) - (order.total - begin) < world
            assert all(pools[-1].begin <= p < order.total for p in every if every.count(p) > 1)
    for share in ranks:
        for piece in share.pieces:
            assert all(piece.pool.begin <= p < piece.pool.end for p in piece.positions.tolist())
            assert len(piece.positions) == piece.end - piece.begin


@given(lengths=LENGTHS, plan=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 4)), max_size=6))
def test_another_world_goes_on_where_one_stopped(lengths: list[int], plan: list[tuple[int, int, int]]) -> None:
    order = order_of(lengths)
    position, consumed = 0, []
    for world, batch, steps in [*plan, (1, 1, 10**9)]:
        ranks, _ = shares(order, 0, position, batch, world, True)
        steps = min(steps, ranks[0].steps)
        for step in range(steps):
            consumed += sorted(p for share in ranks for p in positions_of(share, step))
        position = position + steps * batch * world
    assert consumed == list(range(order.total))


@pytest.mark.parametrize("drop_last", [True, False])
def test_nothing_is_left_at_the_end(drop_last: bool) -> None:
    ranks, _ = shares(order_of([10, 5]), 0, 15, 4, 2, drop_last)
    assert [(share.steps, share.pieces) for share in ranks] == [(0, []), (0, [])]


EXPECTED = [[0, 3, 7, 5, 1, 2, 6, 4], [6, 7, 4, 2, 0, 5, 1, 3]]
