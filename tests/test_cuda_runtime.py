"""How a call behaves as CUDA work: captured, on any stream, thread and device, without waiting, one launch."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import robocache
from benchmarks.cases import CASES, build, call_public

from .backends import CPU, CUDA, assert_same_bits

pytestmark = pytest.mark.gpu

DEVICES = range(max(1, torch.cuda.device_count()))


def inputs(seed: int, b: int = 8, s: int = 100, d: int = 33, t: int = 70) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(b, s, d, generator=generator)
    times = torch.rand(b, s, generator=generator).cumsum(1)
    targets = torch.rand(b, t, generator=generator) * s * 0.6 - 1
    return values, times, targets


def streams_of(seed: int) -> list[dict[str, Any]]:
    shapes = ((100, 33, "linear"), (40, 8, "previous"), (200, 4, "slerp_xyzw"))
    made = []
    for k, (s, d, kind) in enumerate(shapes):
        values, times, _ = inputs(seed * 10 + k, s=s, d=d)
        made.append({"values": values, "times": times, "kind": kind})
    return made


def on_device(streams: list[dict[str, Any]]) -> list[robocache.Stream]:
    return [robocache.Stream(**{k: CUDA.put(v) for k, v in s.items()}) for s in streams]


# ---- Capture -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "pchip", "nearest"])
def test_capture_and_replay_with_changed_inputs(kind: str) -> None:
    static = [t.cuda() for t in inputs(0)]
    robocache.resample_trajectories(*static, kind=kind)
    graph = torch.cuda.CUDAGraph()
    before = robocache.launch_counts()["align_cuda"]
    with torch.cuda.graph(graph):
        out, valid = robocache.resample_trajectories(*static, kind=kind, max_gap=0.9, return_valid=True)
    assert robocache.launch_counts()["align_cuda"] == before + 1  # counted when captured
    for seed in range(1, 5):
        fresh = inputs(seed)
        for buffer, tensor in zip(static, fresh, strict=True):
            buffer.copy_(tensor)
        out.fill_(77)
        graph.replay()
        want, want_valid = CUDA.resample(*fresh, kind=kind, max_gap=0.9, return_valid=True)
        assert_same_bits(out, want)
        assert_same_bits(valid, want_valid)
        assert not bool((out == 77).any())
    robocache.check()


def test_capture_of_a_fusion_and_of_out_variants() -> None:
    streams, targets = on_device(streams_of(1)), inputs(1)[2].cuda()
    out = torch.empty(8, 70, 45, device="cuda")
    robocache.fuse_multimodal(streams, targets, out=out)
    want = out.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        robocache.fuse_multimodal(streams, targets, out=out)
    for _ in range(3):
        out.fill_(77)
        graph.replay()
        assert_same_bits(out, want)


def test_a_fault_in_a_replay_is_found_by_check() -> None:
    static = [t.cuda() for t in inputs(2)]
    robocache.resample_trajectories(*static)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        robocache.resample_trajectories(*static)
    graph.replay()
    robocache.check()
    static[2][3, 5] = torch.nan
    graph.replay()
    with pytest.raises(robocache.DataError) as caught:
        robocache.check()
    assert (caught.value.fault, caught.value.row, caught.value.position) == ("target_nan", 3, 5)
    static[2][3, 5] = 0.5
    graph.replay()
    robocache.check()


# ---- Streams and threads -------------------------------------------------------------------------------------------


def test_side_stream_order() -> None:
    """Inputs are made late on a side stream; a call on another stream would read them too early."""
    values, times, targets = inputs(3, b=64, s=500, d=64, t=300)
    want = CUDA.resample(values, times, targets).cpu()
    source = [t.cuda() for t in (values, times, targets)]
    static = [torch.zeros_like(t) for t in source]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        for buffer, tensor in zip(static, source, strict=True):
            buffer.copy_(tensor)
        out = robocache.resample_trajectories(*static)
        copied = out.clone()
    assert not side.query()  # the call did not wait for the sleep
    assert torch.cuda.default_stream().query()  # and put nothing on the default stream
    side.synchronize()
    assert_same_bits(copied, want)


def test_two_threads_on_two_streams() -> None:
    jobs = [inputs(seed, b=32, s=300, d=17 + seed, t=200) for seed in range(4)]
    want = [CPU.resample(*job) for job in jobs]

    def work(k: int) -> list[torch.Tensor]:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            moved = [t.cuda() for t in jobs[k]]
            outs = [robocache.resample_trajectories(*moved) for _ in range(50)]
        stream.synchronize()
        return [out.cpu() for out in outs]

    with ThreadPoolExecutor(2) as pool:
        for k, outs in enumerate(pool.map(work, range(4))):
            for out in outs:
                assert_same_bits(out, want[k])


def test_nothing_synchronises() -> None:
    """Every layout and option, with torch set to fail on a synchronisation."""
    values, times, targets = (t.cuda() for t in inputs(4))
    lengths = torch.full((8,), 60, device="cuda")
    splits = torch.arange(0, 801, 100, device="cuda")
    rows = torch.tensor([3, 3, 0, 7, 1, 2, 5, 6], device="cuda")
    offsets = torch.rand(8, device="cuda")
    packed, packed_times = values.reshape(800, 33), times.reshape(800)
    streams = on_device(streams_of(4))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for kind in ("linear", "nearest", "pchip", "angle"):
            robocache.resample_trajectories(values, times, targets, kind=kind, return_valid=True)
        robocache.resample_trajectories(values, times, targets, lengths=lengths, max_gap=0.5, tolerance=0.1)
        robocache.resample_trajectories(packed, packed_times, targets, row_splits=splits, rows=rows)
        robocache.resample_trajectories(values, times, targets, rows=rows, time_offset=offsets, invalid="nan")
        robocache.resample_trajectories(values, times, targets, kind=[(slice(0, 8), "slerp_wxyz"), (..., "next")])
        robocache.fuse_multimodal(streams, targets, return_valid=True, out_dtype=torch.bfloat16)
        robocache.resample_trajectories(values, times, targets, extrapolate="raise", time_offset=0.1)
        with pytest.raises(RuntimeError, match="synchroniz"):
            values.sum().item()  # the mode works
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with pytest.raises(robocache.DataError, match="extrapolate"):
        robocache.check()


# ---- Launches and memory -------------------------------------------------------------------------------------------


def device_work(function: Any) -> list[str]:
    """Names of everything that ran on the device during a call."""
    from torch.profiler import ProfilerActivity, profile

    function()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as prof:
        function()
        torch.cuda.synchronize()
    return [e.name for e in prof.events() if e.device_type == torch.autograd.DeviceType.CUDA]


@pytest.mark.parametrize("name", ["fuse-32-250-bf16", "robot-64-100-mixed", "windows-1024x500x64-16-bf16"])
def test_one_launch_a_call(name: str) -> None:
    case = next(c for c in CASES if c.name == name).scaled(8, 200)
    made = build(case, "cuda", 1)
    before = robocache.launch_counts()["align_cuda"]
    work = device_work(lambda: call_public(made, backend="cuda"))
    assert robocache.launch_counts()["align_cuda"] == before + 2  # one to warm up, one watched
    assert len(work) == 1, work


def test_sixteen_streams_are_one_launch() -> None:
    streams = []
    for k in range(16):
        values, times, targets = inputs(k, s=20 + 7 * k, d=1 + k)
        dtype = (torch.float32, torch.bfloat16, torch.float64, torch.float16)[k % 4]
        kind = ("linear", "nearest", "previous", "next")[k // 4]
        streams.append({"values": values.to(dtype), "times": times, "kind": kind})
    moved, at = on_device(streams), targets.cuda()
    work = device_work(lambda: robocache.fuse_multimodal(moved, at, out_dtype=torch.float32))
    assert len(work) == 1, work
    got = CUDA.fuse(streams, targets, out_dtype=torch.float32, return_valid=True)
    want = CPU.fuse(streams, targets, out_dtype=torch.float32, return_valid=True)
    assert_same_bits(got[0], want[0])
    assert_same_bits(got[1], want[1])


@pytest.mark.alone
def test_memory_stays_flat() -> None:
    values, times, targets = (t.cuda() for t in inputs(5, b=64, s=300, d=64, t=300))
    streams = on_device(streams_of(5))
    at = inputs(5)[2].cuda()

    def calls() -> None:
        robocache.resample_trajectories(values, times, targets, kind="pchip")
        robocache.fuse_multimodal(streams, at)

    calls()
    torch.cuda.synchronize()
    gc.collect()
    allocated, (free, _) = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()
    for _ in range(300):
        calls()
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == allocated
    assert free - torch.cuda.mem_get_info()[0] < 32 << 20
    torch.cuda.reset_peak_memory_stats()
    out = robocache.resample_trajectories(values, times, targets)
    assert torch.cuda.max_memory_allocated() - allocated <= out.numel() * 4 + 512  # the output and nothing else


# ---- Devices -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("current", DEVICES)
def test_the_tensors_device_computes(device: int, current: int) -> None:
    given = inputs(6)
    want = CPU.resample(*given)
    with torch.cuda.device(current):
        out = robocache.resample_trajectories(*(t.to(f"cuda:{device}") for t in given))
        assert out.device == torch.device("cuda", device)
        assert torch.cuda.current_device() == current
        robocache.check(device)
    assert_same_bits(out, want)


@pytest.mark.parametrize("device", DEVICES)
def test_faults_stay_on_their_device(device: int) -> None:
    values, times, targets = (t.to(f"cuda:{device}") for t in inputs(7))
    targets[1, 2] = torch.nan
    robocache.resample_trajectories(values, times, targets)
    for other in DEVICES:
        if other != device:
            robocache.check(other)
    with pytest.raises(robocache.DataError, match="row 1, target 2"):
        robocache.check(device)


def test_auto_takes_the_kernel() -> None:
    moved = [t.cuda() for t in inputs(8)]
    before = robocache.launch_counts()
    robocache.resample_trajectories(*moved)
    after = robocache.launch_counts()
    assert after["align_cuda"] == before["align_cuda"] + 1 and after["align_cpu"] == before["align_cpu"]
    config = robocache.show_config()
    assert "cuda" in config["backends"] and config["cuda_error"] is None
    major, minor = torch.cuda.get_device_capability()
    assert f"{major}{minor}" in config["cuda_archs"] or "ptx" in config["cuda_archs"]
    with pytest.raises(ValueError, match="'cpu' computes cpu tensors"):
        robocache.resample_trajectories(*moved, backend="cpu")
