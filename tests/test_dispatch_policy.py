"""Who decides, in which order, and where the sides meet."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import robocache
from robocache import _dispatch
from robocache._dispatch import points, settings
from robocache._dispatch import policy as policies
from robocache._dispatch.calls import OPERATIONS, Workload
from robocache._dispatch.policy import BAND, Policy

from .dispatch_fakes import (  # noqa: F401  (fixtures)
    FakeDevice,
    cpu_us,
    device_fixture,
    gpu_us,
    policy_fixture,
    recorded,
    tuned_fixture,
)


def call(op: str, size: int) -> tuple[Any, dict[str, Any]]:
    """A public function and its arguments; `size` points or samples."""
    where = {"voxel_size": 0.1, "grid_min": 0.0}
    points_ = torch.rand(size, 3)
    side = max(2, int(size**0.5))
    return {
        "resample": (
            robocache.resample_trajectories,
            {
                "values": torch.rand(1, size, 2),
                "times": torch.arange(size) * 1.0,
                "target_times": torch.rand(size) * size,
            },
        ),
        "fuse": (
            robocache.fuse_multimodal,
            {
                "streams": [robocache.Stream(torch.rand(1, size, 2), torch.arange(size) * 1.0)] * 2,
                "target_times": torch.rand(size) * size,
            },
        ),
        "voxelize": (robocache.voxelize_point_cloud, {"points": points_, "grid_size": 10, **where}),
        "voxelize_sparse": (
            robocache.voxelize_point_cloud_sparse,
            {"points": points_, "grid_size": 10, "max_voxels": 100, **where},
        ),
        "voxelize_depth": (
            robocache.voxelize_depth,
            {
                "depth": torch.rand(side, side),
                "intrinsics": torch.tensor([50.0, 50.0, side / 2, side / 2]),
                "camera_to_grid": None,
                "grid_size": 10,
                **where,
            },
        ),
        "devoxelize": (
            robocache.devoxelize,
            {"grid": torch.rand(10, 10, 10, 2), "points": points_, **where},
        ),
    }[op]


def tensors(answer: Any) -> list[torch.Tensor]:
    from robocache._dispatch.calls import tensors_in

    return tensors_in(answer)


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


each_op = pytest.mark.parametrize("op", OPERATIONS)


# ---- Where the sides meet -------------------------------------------------------------------------------------------


@each_op
def test_small_stays_and_large_goes(op: str, tuned: Policy, device: FakeDevice) -> None:
    function, arguments = call(op, 2200)
    function(**arguments)
    assert device.trips == 0
    function, arguments = call(op, 400_000)
    want = function(**arguments, backend="cpu")
    assert device.trips == 0
    got = function(**arguments)
    assert device.trips == 1 and len(device.uploads) == len(device.downloads) == 1
    assert same(got, want)
    assert type(got) is type(want)


def load_of(amount: float) -> Workload:
    return Workload("devoxelize", int(12 * amount), 0, int(8 * amount), (1.0, amount, 0.0, 2 * amount))


def decide_load(policy: Policy, monkeypatch: pytest.MonkeyPatch, load: Workload, **said: Any) -> policies.Decision:
    monkeypatch.setattr(policies, "describe", lambda op, arguments, pinned: load)
    policy._weighed.clear()
    return policy.decide(load.op, {"backend": "auto", **call("devoxelize", 2)[1], **_REST}, **said)


_REST = {"mode": "trilinear", "layout": "channels_last", "row_splits": None, "out_dtype": None}


def crossing(policy: Policy) -> float:
    """The size at which the model's two estimates are equal."""
    low, high = 1e2, 1e8
    for _ in range(80):
        middle = (low * high) ** 0.5
        found = policy.model().estimate(load_of(middle), "host")
        low, high = (middle, high) if found.cpu_us < found.gpu_us else (low, middle)
    return low


def test_the_choice_changes_where_the_curves_cross(tuned: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    at = crossing(tuned)
    true = next(
        a for a in [10 ** (k / 50) for k in range(100, 400)]
        if cpu_us(load_of(a)) > 20 + 20 * a / 6000 + gpu_us(load_of(a))
    )  # fmt: skip
    assert at == pytest.approx(true, rel=0.15)
    assert decide_load(tuned, monkeypatch, load_of(at / 1.5)).side == "cpu"
    tuned.forget()
    assert decide_load(tuned, monkeypatch, load_of(at * 1.5)).side == "cuda"


def test_within_the_band_the_last_side_is_kept(tuned: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    def ratio_at(size: float) -> float:
        found = tuned.model().estimate(load_of(size), "host")
        return found.cpu_us / found.gpu_us

    at = crossing(tuned)
    above = next(size for size in [at * 1.002**k for k in range(200)] if ratio_at(size) > 1 + BAND / 2)
    below = next(size for size in [at / 1.002**k for k in range(200)] if ratio_at(size) < 1 / (1 + BAND / 2))
    assert ratio_at(above) < 1 + BAND and ratio_at(below) > 1 / (1 + BAND)
    sides = []
    for size in (at / 10, above, at * 10, below, at / 10, above):
        decision = decide_load(tuned, monkeypatch, load_of(size))
        sides.append((decision.side, decision.held))
    assert sides == [("cpu", False), ("cpu", True), ("cuda", False), ("cuda", True), ("cpu", False), ("cpu", True)]
    tuned.forget()  # without a last side the better one is taken
    assert decide_load(tuned, monkeypatch, load_of(above)).side == "cuda"
    tuned.forget()
    assert decide_load(tuned, monkeypatch, load_of(below)).side == "cpu"


def test_asking_does_not_change_the_side(tuned: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    at = crossing(tuned)
    decide_load(tuned, monkeypatch, load_of(at / 10))
    decide_load(tuned, monkeypatch, load_of(at * 10), remember=False)
    assert decide_load(tuned, monkeypatch, load_of(at * 1.001)).side == "cpu"


def test_each_result_has_a_side_of_its_own(tuned: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the answer wanted on the device the CPU pays the upload, so the GPU is better earlier."""
    at = crossing(tuned)
    load = load_of(at / 1.3)
    assert decide_load(tuned, monkeypatch, load).side == "cpu"
    with robocache.dispatch(result="device"):
        there = decide_load(tuned, monkeypatch, load)
    assert there.side == "cuda" and there.estimates is not None and there.estimates.copy_out_us == 0
    assert there.estimates.cpu_upload_us > 0


def test_page_locked_inputs_go_earlier(tuned: Policy, device: FakeDevice) -> None:
    function, arguments = call("devoxelize", 60_000)
    usual = robocache.explain(function, **arguments)
    device.locked |= {tensor.data_ptr() for tensor in tensors(list(arguments.values()))}
    locked = robocache.explain(function, **arguments)
    assert locked.bytes_pinned > 0 and usual.bytes_pinned == 0 and locked.bytes_in == usual.bytes_in
    assert locked.copy_in_us < usual.copy_in_us / 2  # type: ignore[operator]


# ---- Authority ------------------------------------------------------------------------------------------------------


def test_defaults_keep_the_cpu_until_the_gpu_looks_twice_as_fast(policy: Policy, device: FakeDevice) -> None:
    function, arguments = call("resample", 200_000)
    said = robocache.explain(function, **arguments)
    assert (said.choice, said.authority) == ("cpu", "default")
    assert "defaults" in said.reason and "2 times faster" in said.reason
    # Twenty quaternion interpolations a sample are work enough, whatever the number of threads of this machine.
    values = torch.rand(64, 4000, 64)
    heavy = (values, torch.arange(4000.0), torch.rand(4000) * 4000)
    said = robocache.explain(robocache.resample_trajectories, *heavy, kind="slerp_xyzw")
    threads = torch.get_num_threads()
    assert said.authority == "default"
    assert said.choice == ("cuda" if threads <= 4 else said.choice)
    assert (said.choice == "cuda") == (said.cpu_us > 2 * said.gpu_us)  # type: ignore[operator]


def test_file_over_default(policy: Policy, device: FakeDevice) -> None:
    function, arguments = call("devoxelize", 400_000)
    assert robocache.explain(function, **arguments).authority == "default"
    points.save(recorded(gpu=lambda load: 1e6))  # measured: the GPU never pays
    policy.forget()
    said = robocache.explain(function, **arguments)
    assert (said.choice, said.authority) == ("cpu", "file")
    points.save(recorded(cpu=lambda load: 1e6))
    policy.forget()
    assert robocache.explain(function, **arguments).choice == "cuda"


@pytest.mark.parametrize("environment", ["cpu", "cuda", "auto", ""])
def test_environment_over_file(
    environment: str,
    tuned: Policy,
    device: FakeDevice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings, "_environment", environment)
    _dispatch.refresh()
    for size, by_file in ((2000, "cpu"), (400_000, "cuda")):
        function, arguments = call("devoxelize", size)
        want = environment if environment in ("cpu", "cuda") else by_file
        said = robocache.explain(function, **arguments)
        assert said.choice == want
        assert said.authority == ("environment" if environment in ("cpu", "cuda") else "file")
        before = device.trips
        function(**arguments)
        assert device.trips - before == (want == "cuda")


def test_a_wrong_environment_is_an_error(
    tuned: Policy,
    device: FakeDevice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings, "_environment", "gpu")
    _dispatch.refresh()
    function, arguments = call("devoxelize", 10)
    with pytest.raises(ValueError, match="^ROBOCACHE_BACKEND: expected one of 'auto', 'cpu', 'cuda', got 'gpu'$"):
        function(**arguments)
    function(**arguments, backend="cpu")


@pytest.mark.parametrize("said", ["cpu", "cuda", "auto"])
def test_context_over_environment(
    said: str,
    tuned: Policy,
    device: FakeDevice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for environment in ("cpu", "cuda"):
        monkeypatch.setattr(settings, "_environment", environment)
        _dispatch.refresh()
        for size, by_file in ((50, "cpu"), (400_000, "cuda")):
            function, arguments = call("devoxelize", size)
            before = device.trips
            with robocache.dispatch(backend=said):
                explained = robocache.explain(function, **arguments)
                function(**arguments)
            want = by_file if said == "auto" else said
            assert explained.choice == want
            assert explained.authority == ("file" if said == "auto" else "context")
            assert device.trips - before == (want == "cuda")


def test_argument_over_context(tuned: Policy, device: FakeDevice) -> None:
    function, arguments = call("devoxelize", 400_000)
    with robocache.dispatch(backend="cuda"):
        for backend in ("cpu", "torch"):
            said = robocache.explain(function, **arguments, backend=backend)
            assert (said.choice, said.authority) == (backend, "argument")
            function(**arguments, backend=backend)
        assert device.trips == 0
        with pytest.raises(ValueError, match="^backend: 'cuda' computes cuda tensors, got tensors on cpu$"):
            function(**arguments, backend="cuda")
        function(**arguments)
    assert device.trips == 1


def test_contexts_nest_and_end(tuned: Policy, device: FakeDevice) -> None:
    function, arguments = call("devoxelize", 50)

    def trips() -> int:
        before = device.trips
        function(**arguments)
        return device.trips - before

    with robocache.dispatch(backend="cuda"):
        assert trips() == 1
        with robocache.dispatch(backend="cpu"):
            assert trips() == 0
            with robocache.dispatch(result="host"):
                assert trips() == 0
        assert trips() == 1
        with pytest.raises(ZeroDivisionError), robocache.dispatch(backend="cpu"):
            _ = 1 / 0
        assert trips() == 1
    assert trips() == 0 and not _dispatch.FORCED


def test_a_context_as_decorator(tuned: Policy, device: FakeDevice) -> None:
    function, arguments = call("devoxelize", 50)

    @robocache.dispatch(backend="cuda")
    def work(depth: int) -> None:
        function(**arguments)
        if depth:
            work(depth - 1)

    work(2)
    assert device.trips == 3
    function(**arguments)
    assert device.trips == 3


def test_contexts_belong_to_their_thread(tuned: Policy, device: FakeDevice) -> None:
    function, arguments = call("devoxelize", 50)
    entered, done = threading.Event(), threading.Event()

    def other() -> None:
        with robocache.dispatch(backend="cuda"):
            entered.set()
            done.wait(10)

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(other)
        assert entered.wait(10)
        function(**arguments)
        assert device.trips == 0
        done.set()
        job.result()
    assert not _dispatch.FORCED


def test_wrong_contexts() -> None:
    with pytest.raises(ValueError, match="^backend: expected one of 'auto', 'cpu', 'cuda', got 'gpu'$"):
        robocache.dispatch(backend="gpu")
    with pytest.raises(ValueError, match="^result: expected one of 'host', 'device', got 'cuda'$"):
        robocache.dispatch(result="cuda")
    with pytest.raises(ValueError, match="^backend: expected one of"):
        robocache.dispatch(backend=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("asked", [{"backend": "cuda"}, {"result": "device"}])
def test_a_context_that_needs_a_gpu_says_that_there_is_none(
    asked: dict[str, str],
    policy: Policy,
    device: FakeDevice,
) -> None:
    device.refusal = "the driver is on holiday"
    with pytest.raises(RuntimeError, match="no GPU can be used: the driver is on holiday"), robocache.dispatch(**asked):
        pass
    assert not _dispatch.FORCED


# ---- Rules ----------------------------------------------------------------------------------------------------------


def test_what_cannot_go_stays_or_raises(tuned: Policy, device: FakeDevice) -> None:
    function, arguments = call("devoxelize", 400_000)
    leaf = arguments["points"].clone().requires_grad_()
    resample, given = call("resample", 400_000)
    out = torch.empty(1, 400_000, 2)
    cases = [
        (function, {**arguments, "points": leaf}, "a gradient is wanted"),
        (resample, {**given, "out": out}, "out= is given"),
    ]
    for public, one, why in cases:
        said = robocache.explain(public, **one)
        assert (said.choice, said.authority) == ("cpu", "rule") and why in said.reason
        public(**one)
        assert device.trips == 0
        with robocache.dispatch(backend="cuda"):
            assert why in str(robocache.explain(public, **one).error)
            with pytest.raises(RuntimeError, match=f"this call cannot run there: {why}"):
                public(**one)
            public(**one, backend="cpu")
    with torch.no_grad():
        function(**cases[0][1])
    assert device.trips == 1


def test_gradients_are_those_of_the_cpu(tuned: Policy, device: FakeDevice) -> None:
    function, arguments = call("devoxelize", 400_000)
    grid = arguments["grid"].requires_grad_()
    function(**arguments).sum().backward()
    assert device.trips == 0 and grid.grad is not None and bool(grid.grad.any())


def test_a_capture_a_queue_and_a_full_gpu_keep_the_cpu(tuned: Policy, device: FakeDevice) -> None:
    function, arguments = call("devoxelize", 4_000_000)
    for name, value, why in (
        ("records", True, "records a CUDA graph"),
        ("has_queue", True, "has work that the answer would wait behind"),
        ("free", 100 << 20, "MiB of GPU memory, and 100 MiB are free"),
        ("refusal", "gone", "no GPU can be used: gone"),
    ):
        before = getattr(device, name)
        setattr(device, name, value)
        said = robocache.explain(function, **arguments)
        assert (said.choice, said.authority) == ("cpu", "rule") and why in said.reason
        setattr(device, name, before)
    device.has_queue = True
    with robocache.dispatch(result="device"):  # nothing waits for an answer that stays there
        assert robocache.explain(function, **arguments).choice == "cuda"
    device.records = True
    with robocache.dispatch(backend="cuda"), pytest.raises(RuntimeError, match="records a CUDA graph"):
        function(**arguments)


def test_a_process_without_cuda_is_left_without(policy: Policy, device: FakeDevice) -> None:
    """Untuned, CUDA is not started for a call on host tensors; tuned, it is."""
    device.in_use = False
    function, arguments = call("devoxelize", 4_000_000)
    said = robocache.explain(function, **arguments)
    assert (said.choice, said.authority) == ("cpu", "rule") and "has not started CUDA" in said.reason
    points.save(recorded())
    policy.forget()
    assert robocache.explain(function, **arguments).choice == "cuda"


def test_a_loader_worker_leaves_the_gpu_alone(tuned: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    function, arguments = call("devoxelize", 400_000)
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: object())
    said = robocache.explain(function, **arguments)
    assert (said.choice, said.authority) == ("cpu", "rule") and "DataLoader worker" in said.reason


def test_a_machine_without_a_gpu_is_asked_once(policy: Policy, device: FakeDevice) -> None:
    device.refusal = "none here"
    function, arguments = call("devoxelize", 400_000)
    assert _dispatch.ACTIVE
    function(**arguments)
    assert not _dispatch.ACTIVE


def test_torch_without_cuda_never_asks() -> None:
    if torch.version.cuda is None:
        assert not _dispatch.ACTIVE and not _dispatch.FORCED


def test_modes_transforms_and_subclasses_are_left_alone(tuned: Policy, device: FakeDevice) -> None:
    function, arguments = call("devoxelize", 400_000)
    rest = {name: value for name, value in arguments.items() if name != "points"}
    many = arguments["points"].reshape(4, 100_000, 3)
    mapped = torch.vmap(lambda one: function(points=one, **rest))(many)
    assert device.trips == 0 and mapped.shape == (4, 100_000, 2)

    class Mine(torch.Tensor):
        pass

    said = robocache.explain(function, points=arguments["points"].as_subclass(Mine), **rest)
    assert said.authority == "rule" and "no plain CPU tensor" in said.reason


def test_wrong_arguments_get_the_usual_error(tuned: Policy, device: FakeDevice) -> None:
    function, arguments = call("devoxelize", 400_000)
    with pytest.raises(ValueError, match="^grid: expected"):
        function(**{**arguments, "grid": torch.rand(3)})
    with pytest.raises(TypeError, match="^voxel_size"):
        function(**{**arguments, "voxel_size": "0.1"})
    with pytest.raises(TypeError, match="^points: expected a torch.Tensor"):
        function(**{**arguments, "points": [[0.0, 0.0, 0.0]]})


def test_settled_calls_are_not_weighed_again(
    tuned: Policy,
    device: FakeDevice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    function, arguments = call("resample", 2200)
    weighed = []
    describe = policies.describe
    monkeypatch.setattr(policies, "describe", lambda *given: weighed.append(1) or describe(*given))
    for _ in range(50):
        function(**arguments)
    assert len(weighed) == 1 and device.trips == 0
    function(**{**arguments, "kind": "nearest"})
    assert len(weighed) == 2
    with robocache.dispatch(backend="cuda"):
        function(**arguments)  # a context is heard all the same
    assert device.trips == 1


# ---- torch.compile --------------------------------------------------------------------------------------------------


def test_compiled_calls_never_ask(tuned: Policy, device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    function, arguments = call("devoxelize", 400_000)
    monkeypatch.setattr(Policy, "decide", lambda *given, **said: pytest.fail("asked inside torch.compile"))
    monkeypatch.setattr(Policy, "is_settled", lambda *given: pytest.fail("asked inside torch.compile"))

    @torch.compile(fullgraph=True, backend="eager")
    def compiled(points: torch.Tensor) -> torch.Tensor:
        return function(**{**arguments, "points": points}) + 1

    got = compiled(arguments["points"])
    assert torch.equal(got, function(**arguments, backend="cpu") + 1) and device.trips == 0


# ---- Threads --------------------------------------------------------------------------------------------------------


def test_many_threads_decide_alike(tuned: Policy, device: FakeDevice) -> None:
    small, large = call("devoxelize", 5000), call("devoxelize", 400_000)
    want = [function(**arguments, backend="cpu") for function, arguments in (small, large)]

    def work(k: int) -> bool:
        function, arguments = (small, large)[k % 2]
        return same(function(**arguments), want[k % 2])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))
    assert device.trips == 20
