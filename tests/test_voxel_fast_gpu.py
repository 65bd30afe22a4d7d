"""The fast path of the voxel functions on CUDA tensors: it is taken, agrees with the operators, keeps to the current
stream and torch's allocator, and can be captured."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import robocache

from .test_voxel_fast import (
    CELLS,
    FEATURES,
    GRID,
    LEFT,
    POINTS,
    TAKEN,
    assert_alike,
    both,
    dense,
    devoxelize,
    run,
    sparse,
)
from .test_voxel_gpu import NAMES, every_call, tensors_in
from .voxel_backends import CUDA, Call

pytestmark = pytest.mark.gpu


def on_gpu(call: Call) -> Call:
    given, options = CUDA.arguments(call)
    if options.get("backend") == "cpu":
        options["backend"] = "cuda"
    return Call(call.op, tuple(given), options)


@pytest.mark.parametrize("name", TAKEN)
def test_plain_calls_are_taken(name: str) -> None:
    call = on_gpu(TAKEN[name])
    before = robocache.launch_counts()
    assert both(call)
    robocache.check()
    after = robocache.launch_counts()
    ran = sum(after[kernel] - before[kernel] for kernel in after if kernel in (
        "voxelize_cuda", "voxelize_sparse_cuda", "devoxelize_cuda"
    ))  # fmt: skip
    assert ran == 2 or all(t is None or t.numel() == 0 for t in call.given), ran
    assert all(t.is_cuda for t in tensors_in(run(call)[0]))


@pytest.mark.parametrize("name", NAMES)
def test_both_ways_agree_on_larger_calls(name: str) -> None:
    assert both(on_gpu(every_call(5)[name]))


@pytest.mark.parametrize("name", [n for n in LEFT if n not in ("larger than small", "negated", "another backend")])
def test_other_calls_are_left_alone(name: str) -> None:
    assert not both(on_gpu(LEFT[name]))


def test_a_mix_of_devices_is_the_slow_ways_error() -> None:
    for call in (
        dense(POINTS.cuda(), points=POINTS),
        dense(points=POINTS.cuda(), mask=POINTS[..., 0] < 1),
        dense(points=POINTS.cuda(), voxel_size=torch.ones(3)),
        devoxelize(CELLS, POINTS.cuda()),
    ):
        fast, taken = run(call)
        assert not taken
        assert isinstance(fast, ValueError)
        assert "expected device" in str(fast)


@pytest.mark.sanitize
@pytest.mark.parametrize("make", [
    lambda: dense(FEATURES, reduce=("mean", "count"), return_inverse=True),
    lambda: sparse(FEATURES, max_points=2),
    lambda: devoxelize(CELLS),
], ids=["dense", "sparse", "devoxelize"])  # fmt: skip
def test_work_goes_to_the_current_stream(make: Any) -> None:
    """What is made on a busy side stream is read there, too: an output on another stream would come too early."""
    call = on_gpu(make())
    want, _ = run(call, closed=True)
    stream = torch.cuda.Stream()
    late = [t.clone() if isinstance(t, torch.Tensor) else t for t in call.given]
    filled = [torch.zeros_like(t) if isinstance(t, torch.Tensor) else t for t in call.given]
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        for to, source in zip(filled, late, strict=True):
            if isinstance(to, torch.Tensor):
                to.copy_(source)
        got, taken = run(Call(call.op, tuple(filled), call.options))
    assert taken
    stream.synchronize()
    assert_alike(got, want)


def test_results_and_workspace_come_from_torch() -> None:
    call = on_gpu(dense(FEATURES, reduce="mean"))
    run(call)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    result, taken = run(call)
    assert taken
    assert torch.cuda.memory_allocated() - before >= result.numel() * result.element_size()
    result.record_stream(torch.cuda.Stream())
    del result
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before


def test_capture_takes_the_fast_path() -> None:
    points, features = POINTS.cuda(), FEATURES.cuda()
    call = dense(features, points=points, reduce=("mean", "count"))
    run(call)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made, taken = run(call)
    assert taken
    points.copy_(POINTS.flip(1) * 0.5)
    graph.replay()
    torch.cuda.synchronize()
    want = robocache.voxelize_point_cloud(points.cpu(), FEATURES, reduce=("mean", "count"), **GRID)
    assert_alike({name: grid.cpu() for name, grid in made.items()}, want)


def test_grids_of_the_caller_are_noted_as_written() -> None:
    out = torch.zeros(2, 4, 4, 4, dtype=torch.int32, device="cuda")
    for turn in (1, 2):
        result, taken = run(on_gpu(dense(reduce="count", out=out)))
        assert taken
        assert result is out
        assert out._version == turn
    assert torch.equal(out.cpu(), robocache.voxelize_point_cloud(POINTS, reduce="count", **GRID) * 2)


def test_synchronous_checks_go_the_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBOCACHE_CHECK", "sync")
    outside = on_gpu(dense(points=POINTS - 100, bounds="raise"))
    error, taken = run(outside)
    assert not taken
    assert isinstance(error, robocache.DataError)
