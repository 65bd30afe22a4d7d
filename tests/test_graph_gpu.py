"""Graph caches on a real device: results, memory, streams, threads, captures that break, random numbers, counters."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import robocache
from robocache.graphs import BorrowedOutputError, CUDAGraphCache

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def pipeline(values: Tensor, times: Tensor, targets: Tensor, points: Tensor) -> dict[str, Tensor]:
    aligned = robocache.resample_trajectories(values, times, targets)
    held = robocache.resample_trajectories(values, times, targets, kind="previous")
    grid = robocache.voxelize_point_cloud(points, voxel_size=0.25, grid_min=0.0, grid_size=8, reduce="count")
    normal = (aligned - aligned.mean(1, keepdim=True)) / (aligned.std(1, keepdim=True) + 1e-6)
    return {"state": torch.cat([normal, held], -1), "grid": grid}


def inputs(seed: int = 0, batch: int = 4) -> tuple[Tensor, ...]:
    generator = torch.Generator("cuda").manual_seed(seed)
    values = torch.randn(batch, 50, 16, device="cuda", generator=generator)
    times = torch.linspace(0, 1, 50, device="cuda").expand(batch, 50).contiguous()
    targets = torch.rand(batch, 20, device="cuda", generator=generator).sort(1).values
    points = torch.rand(batch, 500, 3, device="cuda", generator=generator) * 2
    return values, times, targets, points


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) and a[k].stride() == b[k].stride() for k in a)


def always(**options: Any) -> CUDAGraphCache:
    return CUDAGraphCache(measure_gain=False, **options)


def double(x: Tensor) -> Tensor:
    return x * 2 + 1


@pytest.mark.parametrize("outputs", ["clone", "ring", "borrow"])
def test_replays_give_what_eager_gives(outputs: str) -> None:
    cache = always(outputs=outputs)
    for seed in range(8):
        args = inputs(seed)
        want = pipeline(*args)
        assert same(cache(pipeline, *args), want), seed
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.captures, stats.failures) == (7, 1, stats.captures, 0), str(stats)
    assert stats.captures <= 3 and stats.graphs == 1


def test_the_copies_are_ours_and_the_captured_kernels_are_not_launched_again() -> None:
    cache = always()
    held = [inputs(seed) for seed in range(4)]
    for args in held:
        cache(pipeline, *args)
        cache(pipeline, *args)
    robocache.reset_launch_counts()
    for args in held:
        cache(pipeline, *args)
    counts = robocache.launch_counts()
    assert counts["align_cuda"] == 0 and counts["voxelize_cuda"] == 0
    assert counts["copy_many_cuda"] == 2 * len(held)  # one in, one out


def test_cloned_outputs_survive_later_calls() -> None:
    cache = always()
    kept = []
    for seed in range(6):
        args = inputs(seed)
        kept.append((cache(pipeline, *args), pipeline(*args)))
    assert all(same(got, want) for got, want in kept)


def test_inputs_in_place_are_not_copied() -> None:
    cache = always(outputs="borrow")
    x = torch.randn(1000, device="cuda")
    for _ in range(3):
        cache(double, x)
    before = robocache.launch_counts()["copy_many_cuda"]
    x.copy_(torch.arange(1000.0))
    assert torch.equal(cache(double, x), x * 2 + 1)
    assert robocache.launch_counts()["copy_many_cuda"] == before
    moved = torch.randn(1000, device="cuda")
    assert torch.equal(cache(double, moved), moved * 2 + 1)
    assert torch.equal(cache(double, x), x * 2 + 1)


def test_ring_outputs_live_for_as_many_calls() -> None:
    cache = always(outputs="ring", ring=3)
    held = [torch.randn(64, device="cuda") for _ in range(9)]
    cache(double, held[0])
    got = [cache(double, x) for x in held[1:]]
    for y, x in list(zip(got, held[1:], strict=True))[-3:]:
        assert torch.equal(y, x * 2 + 1)
    assert len({y.data_ptr() for y in got}) == 3


def test_borrowed_outputs_are_refused_once_overwritten() -> None:
    cache = always(outputs="borrow")
    x = torch.randn(64, device="cuda")
    for _ in range(3):
        lent = cache(double, x)
    assert torch.equal(cache(double, lent.clone()), (x * 2 + 1) * 2 + 1)
    with pytest.raises(BorrowedOutputError, match="written over"):
        cache(double, lent)
    with pytest.raises(BorrowedOutputError, match="written over"):
        cache(double, lent[:32])


def test_changed_arguments_that_are_no_tensors() -> None:
    cache = always()
    x = torch.randn(2, 3, 4, device="cuda")
    for _ in range(4):
        for dim in (0, 1, 2, (0, 1), None):
            for keepdim in (True, False):
                assert torch.equal(cache(torch.sum, x, dim=dim, keepdim=keepdim), x.sum(dim=dim, keepdim=keepdim))
    assert cache.stats().graphs == 10


def test_strides_are_kept() -> None:
    cache = always()
    bases = [torch.randn(6, 8, 10, device="cuda") for _ in range(3)]
    views = (
        lambda b: b.transpose(0, 2),
        lambda b: b[:, ::2],
        lambda b: b[:, :, 3:],
        lambda b: b[:1].expand(5, 8, 10),
        lambda b: b.unfold(2, 4, 2),
    )
    for base in bases:
        for view in views:
            got, want = cache(double, view(base)), double(view(base))
            assert torch.equal(got, want) and got.stride() == want.stride()
    assert cache.stats().graphs == len(views)


def test_the_least_recent_is_evicted_with_work_in_flight() -> None:
    cache = always(max_graphs=2)
    held = {n: torch.randn(n, device="cuda") for n in (1000, 2000, 3000)}
    for n in (1000, 2000):
        cache(double, held[n])
        cache(double, held[n])
    cache(double, held[1000])
    torch.cuda._sleep(50_000_000)  # the device is busy for tens of milliseconds
    late = [cache(double, held[n]) for n in (2000, 1000)]
    cache._budget.eager_us = 1e12
    cache(double, held[3000])
    new = cache(double, held[3000])
    assert cache.stats().evictions == 1
    assert sorted(k.arguments for k in cache.stats().keys) == ["float32[1000]", "float32[3000]"]
    for y, n in zip(late, (2000, 1000), strict=True):
        assert torch.equal(y, held[n] * 2 + 1)
    assert torch.equal(new, held[3000] * 2 + 1)
    torch.cuda.synchronize()
    cache.stats()
    assert not cache._records.leaving


def test_bytes_are_capped() -> None:
    cache = always(max_bytes=64 << 20)
    for mib in range(4, 12):
        x = torch.ones(mib << 18, device="cuda")
        for _ in range(3):
            assert torch.equal(cache(double, x), x * 2 + 1)
        assert sum(r.bytes for r in cache._records.live.values()) <= 64 << 20
    big = torch.ones(64 << 18, device="cuda")
    for _ in range(3):
        assert torch.equal(cache(double, big), big * 2 + 1)
    assert any("do not fit" in k.reason for k in cache.stats().keys)


def sync_inside(x: Tensor) -> Tensor:
    return x * float(x.sum().item() > -1e9)


def raises_when_captured(x: Tensor) -> Tensor:
    if torch.cuda.is_current_stream_capturing():
        raise LookupError("not now")
    return x + 1


def swallows(x: Tensor) -> Tensor:
    with contextlib.suppress(RuntimeError):
        x.sum().item()
    return x + 1


def writes(x: Tensor) -> Tensor:
    return x.add_(0)


def to_host(x: Tensor) -> Tensor:
    return torch.zeros(3)


def own_stream_not_joined(x: Tensor) -> Tensor:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        y = x + 1
    if not torch.cuda.is_current_stream_capturing():
        torch.cuda.current_stream().wait_stream(side)
    return y


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (sync_inside, "captur"),
        (raises_when_captured, "LookupError: not now"),
        (swallows, "captur"),
        (writes, "writes to its tensor argument 0"),
        (to_host, "it returns a tensor on cpu"),
        (own_stream_not_joined, "captur"),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_a_failed_capture_leaves_device_and_allocator_usable(fn: Any, words: str) -> None:
    cache = always()
    x = torch.randn(1 << 20, device="cuda")
    torch.cuda.synchronize()
    gc.collect()
    before = torch.cuda.memory_allocated()
    for _ in range(4):
        want = fn(x.clone())
        assert torch.equal(cache(fn, x), want)
    (key,) = cache.stats().keys
    assert (key.state == "failed" and words in key.reason.lower()) or words in key.reason, key.reason
    assert cache.stats().failures == 1
    # The device works, the allocator is not stuck in a private pool, and another capture succeeds.
    other = always()
    y = torch.randn(100, device="cuda")
    for _ in range(3):
        assert torch.equal(other(double, y), y * 2 + 1)
    assert other.stats().graphs == 1
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        z = y + 1
    graph.replay()
    assert torch.equal(z, y + 1)
    side = torch.cuda.Stream()
    crossing = torch.ones(1 << 20, device="cuda")
    crossing.record_stream(side)  # frees behind events are put off while the allocator believes in a capture
    del graph, z, want, y, crossing
    cache.clear()
    other.clear()
    torch.cuda.synchronize()
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() <= before
    robocache.check()


def test_random_numbers_go_on() -> None:
    cache = always()

    def noisy(x: Tensor) -> Tensor:
        return x + torch.rand_like(x)

    x = torch.zeros(1000, device="cuda")
    torch.manual_seed(7)
    want = [noisy(x) for _ in range(6)]
    torch.manual_seed(7)
    got = [cache(noisy, x) for _ in range(6)]
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)


def test_two_streams_take_turns_on_one_graph() -> None:
    cache = always()
    streams = [torch.cuda.Stream() for _ in range(2)]
    held = [torch.full((1 << 20,), float(i), device="cuda") for i in range(40)]
    torch.cuda.synchronize()
    got: list[Tensor] = []

    def slow(x: Tensor) -> Tensor:
        for _ in range(20):
            x = x + 1
        return x

    for i, x in enumerate(held):
        with torch.cuda.stream(streams[i % 2]):
            got.append(cache(slow, x))
    torch.cuda.synchronize()
    assert cache.stats().hits == len(held) - 1
    for i, y in enumerate(got):
        assert torch.equal(y, torch.full_like(y, i + 20.0)), i


def test_two_threads_on_streams_of_their_own() -> None:
    cache = always(max_graphs=3)
    problems: list[Any] = []

    def work(seed: int) -> None:
        try:
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad(), torch.cuda.stream(torch.cuda.Stream()):
                for turn in range(200):
                    n = 1000 * int(torch.randint(1, 6, (), generator=generator))
                    x = torch.full((n,), float(turn), device="cuda")
                    y = cache(double, x)
                    if not bool((y == turn * 2 + 1).all()):
                        problems.append((seed, turn, n))
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    stats = cache.stats()
    assert stats.hits + stats.misses + stats.off == 600 and stats.hits > 0


def settled_memory() -> tuple[int, int]:
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()


def test_clear_gives_all_memory_back() -> None:
    args = inputs()
    pipeline(*args)
    x = torch.randn(256, 256, device="cuda")
    x @ x
    cache = always()
    for _ in range(2):
        cache(double, x)
    cache.clear()  # a first capture leaves torch's own few bytes for the generator behind
    torch._C._cuda_clearCublasWorkspaces()
    before = settled_memory()
    for seed in range(3):
        for batch in (1, 2, 3):
            held = inputs(seed, batch)
            for _ in range(3):
                cache(pipeline, *held)
    for _ in range(3):
        cache(torch.matmul, x, x)
    del held
    assert cache.stats().graphs == 4 and cache.stats().bytes > 0
    cache.clear()
    torch._C._cuda_clearCublasWorkspaces()
    assert settled_memory() == before


@pytest.mark.slow
def test_ten_thousand_random_shapes_do_not_grow() -> None:
    cache = CUDAGraphCache(max_graphs=8)
    base = torch.randn(200, 200, device="cuda")
    generator = torch.Generator().manual_seed(1)
    cache(double, base)
    reserved = []
    for turn in range(10_000):
        a, b = (int(v) for v in torch.randint(1, 200, (2,), generator=generator))
        y = cache(double, base[:a, :b])
        if turn % 500 == 0:
            assert torch.equal(y, base[:a, :b] * 2 + 1)
            torch.cuda.synchronize()
            cache.stats()
            reserved.append(torch.cuda.memory_reserved())
    assert max(reserved[4:]) <= reserved[4] + (64 << 20)
    assert len(cache._records.live) <= 8 and cache._table.size <= 8 + 1024


def test_it_stays_out_of_the_way() -> None:
    cache = always()
    fast = cache.wrap(double)
    x = torch.randn(64, device="cuda")
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        for _ in range(3):
            fast(leaf).sum().backward()
        assert torch.equal(leaf.grad, torch.full_like(x, 6.0))  # type: ignore[arg-type]
    assert torch.equal(torch.func.vmap(fast)(x[None].expand(3, 64)), (x * 2 + 1)[None].expand(3, 64))
    assert torch.equal(fast(x.cpu()), x.cpu() * 2 + 1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(3):
            y = fast(x)
    graph.replay()
    assert torch.equal(y, x * 2 + 1)
    compiled = torch.compile(lambda t: fast(t), backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), x * 2 + 1)
    stats = cache.stats()
    assert stats.captures == 0
    assert stats.bypasses == {
        "gradient": 3,
        "vmap or functorch": 1,
        "cpu": 1,
        "inside a capture": 3,
        "torch.compile": 1,
    }


def test_closures_that_need_a_gradient_are_refused() -> None:
    weight = torch.randn(64, device="cuda", requires_grad=True)
    cache = always()

    def fn(x: Tensor) -> Tensor:
        return x * weight

    x = torch.randn(64, device="cuda")
    with torch.enable_grad():
        for _ in range(3):
            y = cache(fn, x)
            assert y.requires_grad
    assert [k.reason for k in cache.stats().keys] == ["its result needs a gradient"]


def test_inference_mode() -> None:
    cache = always()
    with torch.inference_mode():
        for seed in range(5):
            args = inputs(seed)
            assert same(cache(pipeline, *args), pipeline(*args))
    assert cache.stats().hits == 4


def test_autocast() -> None:
    cache = always()
    layer = torch.nn.Linear(64, 64, device="cuda")
    for _ in range(5):
        x = torch.randn(8, 64, device="cuda")
        with torch.autocast("cuda", torch.bfloat16):
            got, want = cache(layer, x), layer(x)
        assert got.dtype == torch.bfloat16 and torch.equal(got, want)
    assert cache.stats().hits == 4


def test_a_trial_decides_from_measured_times() -> None:
    cache = CUDAGraphCache()
    args = inputs()
    for _ in range(40):
        cache(pipeline, *args)
        torch.cuda.synchronize()
    (key,) = cache.stats().keys
    assert key.state == "on" and key.gain is not None and key.gain > 1.5, str(cache.stats())
    big = torch.randn(64 << 20, device="cuda")
    for _ in range(40):
        cache(torch.neg, big)
        torch.cuda.synchronize()
    (key,) = [k for k in cache.stats().keys if k.function.endswith("neg")]
    assert key.state == "off" and "eager takes" in key.reason, str(cache.stats())
    cache.clear()


@pytest.mark.sanitize
@pytest.mark.parametrize("offset", [0, 1, 3, 8])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.float64, torch.complex128])
def test_copy_many_copies_bytes_of_any_alignment(dtype: torch.dtype, offset: int) -> None:
    from robocache._backend import native

    sizes = [0, 1, 2, 15, 16, 17, 1023, 4096, 70_001]
    generator = torch.Generator().manual_seed(3)
    base = [torch.randint(0, 100, (n + 16,), generator=generator).to("cuda", dtype) for n in sizes]
    source = [b[offset : offset + n] for b, n in zip(base, sizes, strict=True)]
    target = [torch.full((n + 32,), 111, device="cuda").to(dtype) for n in sizes]
    before = robocache.launch_counts()["copy_many_cuda"]
    native.copy_many([t[5 : 5 + n] for t, n in zip(target, sizes, strict=True)], source)
    assert robocache.launch_counts()["copy_many_cuda"] == before + 1
    for t, s, n in zip(target, source, sizes, strict=True):
        assert torch.equal(t[5 : 5 + n], s)
        assert bool((t[:5] == 111).all()) and bool((t[5 + n :] == 111).all())  # nothing beside it was touched


@pytest.mark.sanitize
def test_copy_many_copies_strided_tensors() -> None:
    from robocache._backend import native

    base = torch.arange(2 * 3 * 4 * 5 * 6 * 7 * 2, device="cuda").reshape(2, 3, 4, 5, 6, 7, 2)
    views = [
        base,
        base.permute(6, 2, 0, 1, 5, 3, 4),
        base[:, 1:, ::2, :, 1::2, :, 0],
        base[..., 0].permute(5, 0, 4, 1, 3, 2)[::2],
        base[:, :, :, 0, 0].transpose(0, 3),
        base[:1].expand(4, 3, 4, 5, 6, 7, 2),
    ]
    target = [torch.zeros(v.shape, dtype=v.dtype, device="cuda") for v in views] + [torch.zeros_like(base)]
    native.copy_many([*target[:-1], target[-1].transpose(0, 1)], [*views, base.transpose(0, 1)])
    for t, v in zip(target, [*views, base], strict=True):
        assert torch.equal(t, v)
    many = [torch.randn(3, 5, device="cuda") for _ in range(150)]
    copies = [torch.zeros(3, 5, device="cuda") for _ in many]
    before = robocache.launch_counts()["copy_many_cuda"]
    native.copy_many(copies, many)
    assert robocache.launch_counts()["copy_many_cuda"] == before + 3
    assert all(torch.equal(a, b) for a, b in zip(copies, many, strict=True))


def test_copy_many_names_what_is_wrong() -> None:
    from robocache._backend import native

    a, b = torch.ones(3, device="cuda"), torch.ones(4, device="cuda")
    with pytest.raises(ValueError, match="pair 0: expected equal shapes and dtypes"):
        native.copy_many([a], [b])
    with pytest.raises(ValueError, match="as many sources"):
        native.copy_many([a], [])
    with pytest.raises(ValueError, match="on one CUDA device"):
        native.copy_many([a], [torch.ones(3)])
    with pytest.raises(ValueError, match="stride 0"):
        native.copy_many([a[:1].expand(3)], [a])
