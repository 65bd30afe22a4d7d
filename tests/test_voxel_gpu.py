"""How voxel calls behave as CUDA work: repeatable, captured, on any stream and device, without waiting."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import robocache

from .backends import assert_same_bits
from .held_stream import held
from .test_cuda_runtime import DEVICES, device_work
from .voxel_backends import CPU, CUDA, Call, compare

pytestmark = pytest.mark.gpu

FRAME: dict[str, Any] = {"voxel_size": 0.1, "grid_min": -1.0, "grid_size": (20, 19, 22)}
EXTRAS = {"return_counts": True, "return_inverse": True, "return_dropped": True}
FEATURED = ("mean", "max", "sum", "min", "count", "occupancy")


def cloud(seed: int, batch: int = 3, count: int = 5000, columns: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(batch, count, 3, generator=generator) * 2.4 - 1.2
    return points, torch.randn(batch, count, columns, generator=generator)


def images(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(2, 3, 48, 64, generator=generator)
    color = torch.randn(2, 3, 48, 64, 3, generator=generator)
    pose = torch.eye(4)[:3] + torch.randn(2, 3, 3, 4, generator=generator) * 0.1
    return depth, torch.tensor([50.0, 50.0, 32.0, 24.0]), pose, color


def every_call(seed: int) -> dict[str, Call]:
    """One call of each kind, by name; the same shapes for every seed."""
    points, features = cloud(seed)
    grid = torch.randn(3, 20, 19, 22, 4, generator=torch.Generator().manual_seed(seed))
    frame = {name: value for name, value in FRAME.items() if name != "grid_size"}
    mask = torch.rand(3, 5000, generator=torch.Generator().manual_seed(seed + 1)) < 0.7
    splits = torch.tensor([0, 4000 + seed, 4000 + seed, 15_000])
    flat = (points.reshape(-1, 3), features.reshape(-1, 5))
    return {
        "occupancy": Call("dense", (points, None), dict(FRAME)),
        "bits": Call("dense", (points, None), {**FRAME, "out_dtype": "bits"}),
        "count": Call("dense", (points, None), {**FRAME, "reduce": "count", "return_dropped": True}),
        "features": Call("dense", (points, features), {**FRAME, "reduce": FEATURED, **EXTRAS}),
        "first": Call("dense", (points, features), {**FRAME, "reduce": "mean", "layout": "channels_first"}),
        "masked": Call("dense", (points, features), {**FRAME, "reduce": "max", "mask": mask, "bounds": "clamp"}),
        "packed": Call("dense", flat, {**FRAME, "reduce": ("sum", "count"), "row_splits": splits, **EXTRAS}),
        "sparse": Call("sparse", (points, features), {**FRAME, "max_voxels": 3000, "reduce": ("mean", "max")}),
        "hard": Call("sparse", (points, None), {**FRAME, "max_voxels": 2000, "max_points": 3}),
        "appearing": Call("sparse", (points, features), {**FRAME, "max_voxels": 900, "order": "first_appearance"}),
        "depth": Call("depth", images(seed), {**FRAME, "reduce": ("mean", "count"), **EXTRAS}),
        "depth occupancy": Call("depth", (*images(seed)[:3], None), {**FRAME, "out_dtype": torch.uint8}),
        "trilinear": Call("devoxelize", (grid, points), frame),
        "nearest": Call("devoxelize", (grid, points), {**frame, "mode": "nearest"}),
    }


NAMES = list(every_call(0))
each_call = pytest.mark.parametrize("name", NAMES)


def tensors_in(result: Any) -> list[torch.Tensor]:
    """The tensors of a result, in order."""
    if isinstance(result, torch.Tensor):
        return [result]
    parts = result.values() if isinstance(result, dict) else result or ()
    return [tensor for part in parts for tensor in tensors_in(part)]


def bound(call: Call) -> Callable[[], Any]:
    """The public function on the device with its arguments bound."""
    given, options = CUDA.arguments(call)
    function = {
        "dense": robocache.voxelize_point_cloud,
        "sparse": robocache.voxelize_point_cloud_sparse,
        "depth": robocache.voxelize_depth,
        "devoxelize": robocache.devoxelize,
    }[call.op]
    return lambda: function(*given, backend="cuda", **options)


# ---- Bits -----------------------------------------------------------------------------------------------------------


@each_call
def test_every_call_equals_the_cpu(name: str) -> None:
    call = every_call(3)[name]
    compare(CUDA.run(call), CPU.run(call), name)


@each_call
def test_every_call_repeats_bit_for_bit(name: str) -> None:
    function = bound(every_call(4)[name])
    first = [tensor.clone() for tensor in tensors_in(function())]
    for _ in range(5):
        for got, want in zip(tensors_in(function()), first, strict=True):
            assert_same_bits(got, want, name)


# ---- Capture --------------------------------------------------------------------------------------------------------


@each_call
def test_capture_and_replay_with_changed_inputs(name: str) -> None:
    static = every_call(0)[name]
    given, options = CUDA.arguments(static)
    moved = Call(static.op, tuple(given), options)
    function = bound(moved)
    function()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = tensors_in(function())
    for seed in (1, 2, 3):
        fresh, fresh_options = CUDA.arguments(every_call(seed)[name])
        for buffer, tensor in zip(given, fresh, strict=True):
            if buffer is not None:
                buffer.copy_(tensor)
        for key, value in options.items():
            if isinstance(value, torch.Tensor):
                value.copy_(fresh_options[key])
        for tensor in made:
            tensor.fill_(77)
        for _ in range(2):  # the second replay finds what the first left
            graph.replay()
            want = tensors_in(bound(every_call(seed)[name])())
            for got, expected in zip(made, want, strict=True):
                assert_same_bits(got, expected, f"{name} {seed}")
    robocache.check()


def test_a_captured_call_counts_once() -> None:
    function = bound(every_call(0)["count"])
    function()
    before = robocache.launch_counts()["voxelize_cuda"]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    graph.replay()
    graph.replay()
    assert robocache.launch_counts()["voxelize_cuda"] == before + 1


def test_capture_of_forward_and_backward() -> None:
    points, features = (t.cuda() for t in cloud(5))
    leaf = features.clone().requires_grad_()
    weight = torch.randn(3, 20, 19, 22, 5, device="cuda")

    def step() -> torch.Tensor:
        made = robocache.voxelize_point_cloud(points, leaf, reduce=("mean", "max"), backend="cuda", **FRAME)
        (grad,) = torch.autograd.grad((made["mean"] * weight + made["max"]).sum(), leaf)
        return grad

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        grad = step()
    points.copy_(cloud(6)[0])
    graph.replay()
    got = grad.clone()
    assert_same_bits(got, step())
    assert bool(got.any())


def test_accumulation_in_a_graph() -> None:
    """Every replay adds the cloud once more."""
    points = cloud(7)[0].cuda()
    out = torch.zeros(3, 20, 19, 22, dtype=torch.int32, device="cuda")

    def step() -> None:
        robocache.voxelize_point_cloud(points, reduce="count", out=out, backend="cuda", **FRAME)

    step()
    once = out.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for _ in range(3):
        graph.replay()
    assert torch.equal(out, once * 4)


def test_a_fault_in_a_replay_is_found_by_check() -> None:
    points = (cloud(8)[0] * 0.5).cuda()
    for reduce in ("occupancy", "count"):
        function = bound(Call("dense", (points, None), {**FRAME, "bounds": "raise", "reduce": reduce}))
        function()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            function()
        graph.replay()
        robocache.check()
        points[2, 1234, 1] = 50
        graph.replay()
        with pytest.raises(robocache.DataError) as caught:
            robocache.check()
        assert (caught.value.fault, caught.value.row, caught.value.position) == ("point_outside", 2, 1234)
        points[2, 1234, 1] = 0
        graph.replay()
        robocache.check()


def test_check_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBOCACHE_CHECK", "sync")
    points, features = cloud(9)
    with pytest.raises(robocache.DataError, match="outside"):
        bound(Call("dense", (points, None), {**FRAME, "bounds": "raise"}))()
    with pytest.raises(robocache.DataError, match="outside"):
        bound(Call("sparse", (points, features), {**FRAME, "bounds": "raise", "max_voxels": 4}))()
    bound(Call("dense", (points * 0.5, None), {**FRAME, "bounds": "raise"}))()
    robocache.check()


# ---- Streams and threads --------------------------------------------------------------------------------------------


@each_call
def test_side_stream_order(name: str) -> None:
    """Inputs are made late on a side stream; work on another stream would read them too early."""
    call = every_call(1)[name]
    want = tensors_in(bound(call)())
    given, options = CUDA.arguments(call)
    late = [None if t is None else torch.zeros_like(t) for t in given]
    if name.startswith("depth"):
        late[1] = given[1]
    function = bound(Call(call.op, tuple(late), options))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        function()  # loads its kernels, and leaves memory for the next
        torch.cuda.synchronize()
        with held(side) as hold:
            for buffer, tensor in zip(late, given, strict=True):
                if buffer is not None and tensor is not None and buffer is not tensor:
                    buffer.copy_(tensor)
            made = tensors_in(function())
            assert torch.cuda.default_stream().query()  # nothing is on the default stream
            assert not side.query()
    assert not hold.expired, "the call waited for its stream"
    side.synchronize()
    for got, expected in zip(made, want, strict=True):
        assert_same_bits(got, expected, name)


def test_two_threads_on_two_streams() -> None:
    jobs = [every_call(seed)[name] for seed, name in enumerate(("features", "sparse", "count", "depth"))]
    want = [[tensor.cpu() for tensor in tensors_in(bound(job)())] for job in jobs]

    def work(k: int) -> list[list[torch.Tensor]]:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            function = bound(jobs[k])
            made = [tensors_in(function()) for _ in range(30)]
        stream.synchronize()
        return [[tensor.cpu() for tensor in one] for one in made]

    with ThreadPoolExecutor(2) as pool:
        for k, runs in enumerate(pool.map(work, range(4))):
            for one in runs:
                for got, expected in zip(one, want[k], strict=True):
                    assert_same_bits(got, expected, str(k))


def test_nothing_synchronises() -> None:
    """Every call and option, with torch set to fail on a synchronisation."""
    functions = [bound(call) for call in every_call(2).values()]
    points, features = (t.cuda() for t in cloud(10))
    leaf, at = features.clone().requires_grad_(), points.clone().requires_grad_()
    voxel, low = torch.full((3, 3), 0.1, device="cuda"), torch.full((3, 3), -1.0, device="cuda")
    pose, size = torch.eye(4, device="cuda").expand(3, 4, 4), (20, 19, 22)
    out = torch.zeros(3, *size, dtype=torch.int32, device="cuda")
    grid = torch.randn(3, *size, 4, device="cuda", requires_grad=True)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for function in functions:
            function()
        frame = {"voxel_size": voxel, "grid_min": low, "grid_size": size, "backend": "cuda"}
        made = robocache.voxelize_point_cloud(points, leaf, reduce=FEATURED, pose=pose, **frame)
        (made["mean"] + made["max"]).sum().backward()
        robocache.voxelize_point_cloud(points, reduce="count", out=out, **frame)
        robocache.voxelize_point_cloud(points, bounds="raise", return_inverse=True, return_dropped=True, **frame)
        robocache.voxelize_point_cloud(points, voxel_size=voxel, grid_min="auto", grid_size=size, backend="cuda")
        robocache.voxelize_point_cloud(points, voxel_size=[0.1, 0.2], grid_min=-1.0, grid_size=[size, (9, 9, 9)])
        hard = robocache.voxelize_point_cloud_sparse(points, leaf, max_voxels=90, max_points=4, pose=pose, **frame)
        hard.features.sum().backward()
        read = {"voxel_size": voxel, "grid_min": low, "backend": "cuda"}
        robocache.devoxelize(grid, at, pose=pose, **read).sum().backward()
        with pytest.raises(RuntimeError, match="synchroniz"):
            points.sum().item()  # the mode works
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with pytest.raises(robocache.DataError, match="outside"):
        robocache.check()


# ---- Launches and memory --------------------------------------------------------------------------------------------


def test_a_grid_is_written_by_few_launches() -> None:
    """Zero-fill included: no more device work than a fill, the points and a conversion."""
    for name in ("occupancy", "bits", "count"):
        work = device_work(bound(every_call(0)[name]))
        assert 1 <= len(work) <= 4, (name, work)


@pytest.mark.alone
def test_memory_stays_flat() -> None:
    functions = [bound(call) for call in every_call(0).values()]
    for function in functions:
        function()
    torch.cuda.synchronize()
    gc.collect()
    allocated, (free, _) = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()
    for _ in range(50):
        for function in functions:
            function()
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == allocated
    assert free - torch.cuda.mem_get_info()[0] < 64 << 20


def test_many_cameras_need_no_point_tensor() -> None:
    """The peak of a depth call stays under what its points alone would take."""
    depth = torch.rand(4, 4, 480, 640, device="cuda") * 2
    camera, pose = torch.tensor([500.0, 500.0, 320.0, 240.0], device="cuda"), torch.eye(4, device="cuda")
    function = bound(Call("depth", (depth, camera, pose, None), {**FRAME, "reduce": "occupancy"}))
    function()
    torch.cuda.synchronize()
    gc.collect()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    made = function()
    torch.cuda.synchronize()
    assert made.any()
    assert torch.cuda.max_memory_allocated() - before < depth.numel() * 3 * 4


# ---- Devices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("current", DEVICES)
def test_the_tensors_device_computes(device: int, current: int) -> None:
    points, features = cloud(11)
    options = {**FRAME, "reduce": ("mean", "count")}
    want = CPU.run(Call("dense", (points, features), options))
    with torch.cuda.device(current):
        moved = [t.to(f"cuda:{device}") for t in (points, features)]
        made = robocache.voxelize_point_cloud(*moved, **options)
        assert made["mean"].device == torch.device("cuda", device) and torch.cuda.current_device() == current
        robocache.check(device)
    compare(made, want)
