"""Dispatch on a GPU: round trips give the CPU's bits by the CUDA kernels, with bounded memory."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import robocache
from robocache import _dispatch
from robocache._dispatch import points, sweep, tune
from robocache._dispatch import policy as policies
from robocache._dispatch.calls import FUNCTIONS, OPERATIONS, tensors_in
from robocache._dispatch.device import CudaDevice
from robocache._dispatch.policy import Policy
from robocache._dispatch.transfers import CHUNK_BYTES, CHUNKS, Transfers

pytestmark = pytest.mark.gpu

COUNTERS = {
    "resample": "align_cuda",
    "fuse": "align_cuda",
    "voxelize": "voxelize_cuda",
    "voxelize_sparse": "voxelize_sparse_cuda",
    "voxelize_depth": "voxelize_cuda",
    "devoxelize": "devoxelize_cuda",
}
each_op = pytest.mark.parametrize("op", OPERATIONS)


@pytest.fixture(autouse=True)
def _own_policy(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[None]:
    """An untuned policy, and no file of this machine's user."""
    monkeypatch.setenv(points.DIRECTORY, str(tmp_path / "cache"))
    monkeypatch.setattr(policies, "_policy", Policy(CudaDevice()))
    assert _dispatch.ACTIVE
    yield
    _dispatch.refresh()


def call(op: str, number: int = 3) -> tuple[Any, dict[str, Any]]:
    return getattr(robocache, FUNCTIONS[op]), sweep.build(op, sweep.grid(op, True)[number])


def rose(before: dict[str, int]) -> set[str]:
    """The kernels that ran since."""
    return {name for name, count in robocache.launch_counts().items() if count > before.get(name, 0)}


def assert_same(got: Any, want: Any, rounded: bool = False) -> None:
    for a, b in zip(tensors_in(got), tensors_in(want), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        if rounded:
            torch.testing.assert_close(a, b, rtol=2.5e-7, atol=1e-7, equal_nan=True)
        else:
            assert torch.equal(a, b)


@each_op
def test_round_trips_are_the_cpus_bits_by_the_cuda_kernels(op: str) -> None:
    for number in range(0, len(sweep.grid(op, True)), 3):
        function, arguments = call(op, number)
        want = function(**arguments, backend="cpu")
        for there in ("host", "device"):
            before = robocache.launch_counts()
            with robocache.dispatch(backend="cuda", result=there):
                got = function(**arguments)
            ran = rose(before)
            assert COUNTERS[op] in ran and not any(name.endswith("_cpu") for name in ran), ran
            assert {tensor.is_cuda for tensor in tensors_in(got)} == {there == "device"}
            rounded = arguments.get("kind") in ("pchip", "slerp_xyzw") or op == "fuse"
            assert_same([tensor.cpu() for tensor in tensors_in(got)], tensors_in(want), rounded)
        assert type(got) is type(want)
        with robocache.dispatch(backend="cuda"):
            assert not any(tensor.is_pinned() for tensor in tensors_in(function(**arguments)))


@pytest.mark.sanitize
@each_op
def test_small_round_trips(op: str) -> None:
    function, arguments = call(op, 0)
    want = function(**arguments, backend="cpu")
    before = robocache.launch_counts()
    with robocache.dispatch(backend="cuda"):
        got = function(**arguments)
    assert COUNTERS[op] in rose(before)
    assert_same(got, want, rounded=op == "fuse")


def test_page_locked_inputs() -> None:
    function, arguments = call("devoxelize", 8)
    want = function(**arguments, backend="cpu")
    for there in ("host", "device"):
        locked = {**arguments, **{name: arguments[name].pin_memory() for name in ("grid", "points")}}
        assert robocache.explain(function, **locked).bytes_pinned > 0
        with robocache.dispatch(backend="cuda", result=there):
            got = function(**locked)
        locked["points"].add_(1)  # the call has read it
        locked["grid"].add_(1)
        assert_same(got.cpu(), want)


def test_inputs_may_change_as_soon_as_the_call_is_back() -> None:
    function, arguments = call("devoxelize", 8)
    want = function(**arguments, backend="cpu")
    torch.cuda._sleep(100_000_000)  # the copies wait behind this
    with robocache.dispatch(backend="cuda", result="device"):
        got = function(**arguments)
    arguments["points"].fill_(0.5)
    arguments["grid"].fill_(7)
    assert_same(got.cpu(), want)


def test_large_transfers_in_many_chunks() -> None:
    transfers = Transfers(torch.device("cuda", torch.cuda.current_device()), 1 << 16, 3)
    generator = torch.Generator().manual_seed(0)
    sent = [torch.randn(size, generator=generator) for size in (1, 100_000, 7, 300_001)]
    for _ in range(3):
        there = transfers.upload(sent, [False] * 4)
        back = transfers.download(there)
        assert all(a.is_cuda and torch.equal(a.cpu(), b) for a, b in zip(there, sent, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(back, sent, strict=True))
    assert transfers.staging_bytes() <= 3 << 16


def test_side_streams_and_threads() -> None:
    jobs = [call(op, 2) for op in OPERATIONS]
    want = [function(**arguments, backend="cpu") for function, arguments in jobs]

    def work(k: int) -> None:
        function, arguments = jobs[k % len(jobs)]
        with torch.cuda.stream(torch.cuda.Stream()), robocache.dispatch(backend="cuda"):
            for _ in range(5):
                got = function(**arguments)
        assert_same(got, want[k % len(jobs)], rounded=True)

    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(work, range(12)):
            pass


def test_memory_stays_flat_and_staging_is_bounded() -> None:
    jobs = [call(op, 5) for op in OPERATIONS]
    device = policies.policy().device

    def lap() -> None:
        for function, arguments in jobs:
            for there in ("host", "device"):
                with robocache.dispatch(backend="cuda", result=there):
                    function(**arguments)

    for _ in range(3):
        lap()
    torch.cuda.synchronize()
    gc.collect()
    before = torch.cuda.memory_allocated()
    for _ in range(20):
        lap()
    torch.cuda.synchronize()
    gc.collect()
    assert torch.cuda.memory_allocated() == before
    assert isinstance(device, CudaDevice) and 0 < device.staging_bytes() <= CHUNKS * CHUNK_BYTES


def test_faults_raise_at_once_as_on_the_cpu() -> None:
    values, times, targets = torch.rand(2, 5000, 1), torch.arange(5000.0).repeat(2, 1), torch.rand(2, 100)
    times[1, 77] = 0.0
    with pytest.raises(robocache.DataError) as want:
        robocache.resample_trajectories(values, times, targets, backend="cpu")
    with robocache.dispatch(backend="cuda"), pytest.raises(robocache.DataError) as got:
        robocache.resample_trajectories(values, times, targets)
    assert str(got.value) == str(want.value)
    robocache.check()  # nothing is left of it
    with robocache.dispatch(result="device", backend="cuda"):
        robocache.resample_trajectories(values, times, targets)  # as for any CUDA tensors: deferred
    with pytest.raises(robocache.DataError):
        robocache.check()


def test_an_earlier_fault_is_told_apart() -> None:
    values, times = torch.rand(1, 5000, 1), torch.arange(5000.0)
    bad = times.clone()
    bad[9] = 0.0
    robocache.resample_trajectories(values.cuda(), bad.cuda(), times[:10].cuda())
    with robocache.dispatch(backend="cuda"), pytest.raises(robocache.DataError, match="noted by an earlier call"):
        robocache.resample_trajectories(values, times, times[:10])


def test_a_capture_keeps_the_cpu() -> None:
    function, arguments = call("resample", 2)
    want = function(**arguments, backend="cpu")
    points.save(_tuned_to_the_gpu())
    policies.policy().forget()
    x = torch.zeros(8, device="cuda")
    torch.cuda.synchronize()
    # What is asked only once is asked before the capture.
    assert robocache.explain(function, **arguments).choice == "cuda"
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        x += 1
        said = robocache.explain(function, **arguments)
        got = function(**arguments)
        with pytest.raises(RuntimeError, match="records a CUDA graph"), robocache.dispatch(backend="cuda"):
            function(**arguments)
    assert said.choice == "cpu" and "records a CUDA graph" in said.reason
    assert torch.equal(got, want)
    graph.replay()
    torch.cuda.synchronize()
    assert float(x[0]) == 1


def test_a_busy_gpu_keeps_the_cpu() -> None:
    function, arguments = call("resample", 20)
    points.save(_tuned_to_the_gpu())
    policies.policy().forget()
    torch.cuda.synchronize()
    assert robocache.explain(function, **arguments).choice == "cuda"
    torch.cuda._sleep(500_000_000)
    said = robocache.explain(function, **arguments)
    assert said.choice == "cpu" and "wait behind" in said.reason
    torch.cuda.synchronize()


def _tuned_to_the_gpu() -> points.Tuned:
    """Points by which the GPU always pays, under this machine's key."""
    from .dispatch_fakes import recorded

    tuned = recorded(cpu=lambda load: 1e7)
    return tuned._replace(key=policies.policy().device.key())


def test_tensors_on_the_gpu_never_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dispatch, "route", lambda *given: pytest.fail("asked"))
    values, times = torch.rand(4, 5000, 2, device="cuda"), torch.arange(5000.0, device="cuda")
    robocache.resample_trajectories(values, times, times)
    robocache.fuse_multimodal([robocache.Stream(values, times)], times)
    assert robocache.explain("resample_trajectories", values, times, times).choice == "cuda"


def test_a_forked_child_stays_on_the_cpu() -> None:
    import os

    function, arguments = call("resample", 2)
    points.save(_tuned_to_the_gpu())
    policies.policy().forget()
    torch.cuda.synchronize()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a child has none of its parent's threads
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = "failed"
        try:
            function(**arguments)
            said = policies.policy().device.why_not() or "none"
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    torch.set_num_threads(threads)
    assert "forked" in os.read(reading, 1000).decode()
    os.close(reading)


def test_quick_tuning_makes_a_file_that_decides() -> None:
    device = policies.policy().device
    trials = [(op, spec) for op in OPERATIONS for spec in sweep.grid(op, True)[:6]]
    tuned = tune.measure(device, 5, show=False, trials=trials)
    path = points.save(tuned)
    policies.policy().forget()
    found = points.load(device.key())
    assert found is not None and found[1] == path and len(found[0].points) == len(trials)
    assert tuned.key["gpu"] == torch.cuda.get_device_name() and tuned.key["driver"] != "unknown"
    function, arguments = call("resample", 2)
    said = robocache.explain(function, **arguments)
    assert said.authority in ("file", "rule") and said.gpu_us is not None and said.gpu_us > 5
    assert robocache.show_config()["dispatch"].startswith("tuned: ")


@pytest.mark.parametrize("there", ["host", "device"])
@pytest.mark.parametrize("first", ["cpu", "cuda"])
def test_what_calls_take_corrects_a_wrong_model(first: str, there: str) -> None:
    """Points by which the GPU pays, and a small call; points by which the CPU does, and a large call with much work."""
    from .dispatch_fakes import recorded

    function = robocache.resample_trajectories
    if first == "cuda":
        arguments = sweep.build("resample", _spec(4, 400, "linear"))
        tuned = recorded(cpu=lambda load: 250.0, gpu=lambda load: 1.0)
    else:
        arguments = sweep.build("resample", _spec(64, 4000, "slerp_xyzw"))
        tuned = recorded(cpu=lambda load: 100.0, gpu=lambda load: 3000.0)
    points.save(tuned._replace(key=policies.policy().device.key()))
    policies.policy().forget()
    want = function(**arguments, backend="cpu")
    torch.cuda.synchronize()
    with robocache.dispatch(result=there):
        assert robocache.explain(function, **arguments).choice == first
        before = robocache.launch_counts()
        for _ in range(24):
            assert_same(function(**arguments).cpu(), want, rounded=True)
            torch.cuda.synchronize()
        ran = rose(before)
        said = robocache.explain(function, **arguments)
    measured = {"cpu": said.measured_cpu_us, "cuda": said.measured_gpu_us}
    assert measured[first] is not None and f"align_{first}" in ran, said
    assert said.measured_cpu_calls + said.measured_gpu_calls <= 12, said
    if first == "cuda" and there == "host":  # a round trip takes longer than so small a call on any CPU
        assert {"align_cuda", "align_cpu"} <= ran and said.choice == "cpu", said
    if measured["cpu"] is not None and measured["cuda"] is not None:
        other = "cuda" if said.choice == "cpu" else "cpu"
        assert measured[said.choice] < 1.5 * measured[other], said
    else:
        assert said.choice == first, said
    with robocache.dispatch(result=there, learn=False):
        assert robocache.explain(function, **arguments).choice == first


def _spec(batch: int, samples: int, kind: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "batch": batch,
        "columns": 8,
        "targets": samples,
        "samples": samples,
        "dtype": "float32",
    }


def test_expanded_inputs_make_the_round_trip() -> None:
    spec = next(spec for spec in sweep.grid("voxelize_depth", True) if spec["batch"] > 1)
    arguments = sweep.build("voxelize_depth", spec)
    assert 0 in arguments["camera_to_grid"].stride()
    want = robocache.voxelize_depth(**arguments, backend="cpu")
    locked = {**arguments, "depth": arguments["depth"].pin_memory()}
    for given in (arguments, locked):
        for there in ("host", "device"):
            with robocache.dispatch(backend="cuda", result=there):
                assert_same([one.cpu() for one in tensors_in(robocache.voxelize_depth(**given))], want)


def test_a_context_of_one_thread_is_not_anothers() -> None:
    function, arguments = call("resample", 0)
    ready, done = threading.Event(), threading.Event()

    def other() -> None:
        with robocache.dispatch(backend="cuda"):
            ready.set()
            done.wait(20)

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(other)
        assert ready.wait(20)
        before = robocache.launch_counts()
        function(**arguments)
        assert not any(name.endswith("_cuda") for name in rose(before))
        done.set()
        job.result()
