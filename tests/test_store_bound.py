"""Streams bound once and drawn from many times: the answers of fuse_multimodal, and what the short way refuses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch

import robocache
from robocache import EpisodeStore, Stream, _fast
from robocache.store.bound import BoundLaunch

from .backends import assert_same_bits
from .recordings import recordings

pytestmark = pytest.mark.skipif(not _fast.ENABLED, reason="this torch has no DLPack exchange table")


def packed(kind: Any = "linear", columns: int = 3, dtype: torch.dtype = torch.float32, **options: Any) -> Stream:
    """Three sequences of 5, 0 and 4 samples."""
    generator = torch.Generator().manual_seed(columns)
    values = torch.randn(9, columns, generator=generator).to(dtype)
    times = torch.tensor([0, 10, 20, 30, 40, 5, 6, 7, 50])
    return Stream(values, times, kind, row_splits=torch.tensor([0, 5, 5, 9]), **options)


STREAMS = {
    "one": [packed()],
    "kinds": [packed([(slice(0, 2), "linear"), (slice(2, 3), "previous")]), packed("nearest", 2)],
    "spans": [packed(max_gap=5.0, tolerance=3.0), packed("pchip", 4, torch.float64)],
    "whole numbers": [packed("previous", 2, torch.int64)],
}
DELTAS = torch.tensor([-7, 0, 3, 12])
TABLE = torch.tensor([[0, 2, 0, 1, 2], [0, 6, 33, 4, -2], [9, 9, 9, 9, 9]])


def fused(streams: list[Stream], rows: torch.Tensor, times: torch.Tensor) -> Any:
    placed = [replace(stream, rows=rows, time_offset=times) for stream in streams]
    return robocache.fuse_multimodal(placed, DELTAS, return_valid=True, backend="torch")


@pytest.mark.parametrize("streams", STREAMS.values(), ids=STREAMS)
def test_a_draw_is_fuse_at_its_rows_and_anchors(streams: list[Stream]) -> None:
    want = fused(streams, TABLE[0], TABLE[1])
    bound = _fast.bind(streams, DELTAS)
    for drawn in (_fast.draw(bound, TABLE, None), _fast.draw(bound, TABLE[0], TABLE[1])):
        assert drawn is not NotImplemented
        for got, wanted in zip(drawn, want, strict=True):
            assert_same_bits(got, wanted)


def test_a_table_may_be_a_view_whose_rows_lie_apart() -> None:
    launch = BoundLaunch(STREAMS["one"], DELTAS)
    wide = torch.zeros(4, 11, dtype=torch.int64)
    wide[:3, 3:8] = TABLE
    assert _fast.draw(launch._native, wide[:2, 3:8], None) is not NotImplemented
    assert_same_bits(launch.read(wide[:, 3:8])[0], launch.read(TABLE)[0])


@pytest.mark.parametrize(
    "anchors",
    [
        (TABLE.float(), None),
        (TABLE[:1], None),
        (TABLE[0], None),
        (TABLE.T.contiguous().T, None),  # rows that are no contiguous vectors
        (TABLE[0].int(), TABLE[1]),
        (TABLE[0], TABLE[1].double()),
        (TABLE[0], TABLE[1][:2]),
        (TABLE[0], TABLE),
        ([0, 1], None),
        (TABLE[0], [1, 2]),
        (TABLE.to("meta"), None),
    ],
    ids=lambda given: None,
)
def test_other_anchors_are_not_for_the_short_way(anchors: Any) -> None:
    assert _fast.draw(_fast.bind(STREAMS["one"], DELTAS), *anchors) is NotImplemented


@pytest.mark.parametrize("bound", [None, NotImplemented, 3, "robocache.bound_streams"], ids=str)
def test_what_is_not_bound_cannot_be_drawn_from(bound: Any) -> None:
    assert _fast.draw(bound, TABLE, None) is NotImplemented


@pytest.mark.parametrize(
    "given",
    [
        ([], DELTAS),
        (tuple(STREAMS["one"]), DELTAS),
        (STREAMS["one"] * 17, DELTAS),
        ([packed(), 3], DELTAS),
        (STREAMS["one"], [0, 1]),
        ([replace(packed(), values=torch.zeros(9, 3, requires_grad=True))], DELTAS),
        ([replace(packed(), kind="spline")], DELTAS),
    ],
    ids=["none", "a tuple", "too many", "no stream", "no targets", "a gradient", "no kind"],
)
def test_other_streams_are_not_bound(given: Any) -> None:
    assert _fast.bind(*given) is NotImplemented


def test_a_launch_that_was_not_bound_raises_the_message_of_fuse() -> None:
    with pytest.raises(ValueError, match="kind"):
        BoundLaunch([replace(packed(), kind="spline")], DELTAS).read(TABLE)


def test_the_list_given_may_change_afterwards() -> None:
    streams = list(STREAMS["one"])
    bound = _fast.bind(streams, DELTAS)
    want = _fast.draw(bound, TABLE, None)
    streams.clear()
    assert_same_bits(_fast.draw(bound, TABLE, None)[0], want[0])


def test_bound_streams_keep_their_tensors() -> None:
    bound = _fast.bind([packed()], DELTAS.clone())
    want = fused([packed()], TABLE[0], TABLE[1])
    for _ in range(50):  # memory that was given back would be given out again
        torch.full((9, 3), 7.0)
    assert_same_bits(_fast.draw(bound, TABLE, None)[0], want[0])


def test_a_mode_sees_the_call() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    launch = BoundLaunch(STREAMS["one"], DELTAS)
    want = launch.read(TABLE)
    with Watch():
        got = launch.read(TABLE)
    assert any("robocache" in name for name in seen)
    assert_same_bits(got[0], want[0])


def test_threads_draw_from_one_store() -> None:
    store = EpisodeStore.from_dataset(recordings((40, 1, 25, 63, 7)), "cpu", show_progress=False)
    windows = store.windows(4)
    rows = torch.arange(5).repeat(40)
    want = windows.at(rows, torch.zeros(200, dtype=torch.int64)).values

    def draw(_: int) -> bool:
        return torch.equal(windows.at(rows, torch.zeros(200, dtype=torch.int64)).values, want)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(draw, range(200)))
