"""The round trip, the staging buffers, the explanation and the tuning command, on a device that is none."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import robocache
from robocache import _cli, _dispatch
from robocache._dispatch import points, roundtrip, sweep, tune
from robocache._dispatch.calls import FUNCTIONS, OPERATIONS
from robocache._dispatch.policy import BAND, Policy
from robocache._dispatch.transfers import CHUNK_BYTES, CHUNKS, Transfers, chunks_of

from .dispatch_fakes import FakeDevice, device_fixture, policy_fixture, recorded, tuned_fixture  # noqa: F401  (fixtures)

DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.bool, torch.uint8, torch.int64, torch.uint16)

# ---- Staging --------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3000), max_size=12), st.sampled_from([256, 512, 1024]))
def test_chunks_cover_every_byte_once(sizes: list[int], chunk: int) -> None:
    seen = [bytearray(size) for size in sizes]
    for used, fragments in chunks_of(sizes, chunk):
        assert used > 0 and fragments
        end = 0
        for tensor, begin, stop, at in fragments:
            assert at >= end and begin < stop and (begin > 0 or at % 256 == 0)
            end = at + stop - begin
            assert end <= chunk
            for k in range(begin, stop):
                seen[tensor][k] += 1
    assert all(set(one) <= {1} for one in seen)


def some(seed: int, shapes: list[tuple[int, ...]]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for k, shape in enumerate(shapes):
        drawn = torch.randint(0, 100, shape, generator=generator)
        made.append(drawn.to(DTYPES[(seed + k) % len(DTYPES)]))
    return made


SHAPES = st.lists(st.lists(st.integers(0, 9), max_size=4).map(tuple), max_size=8)


@given(st.integers(0, 1000), SHAPES, st.integers(1, 4))
def test_what_goes_there_comes_back(seed: int, shapes: list[tuple[int, ...]], chunks: int) -> None:
    transfers = Transfers(torch.device("cpu"), 256, chunks)
    tensors = some(seed, shapes)
    there = transfers.upload(tensors, [False] * len(tensors))
    back = transfers.download(there)
    for sent, moved, got in zip(tensors, there, back, strict=True):
        assert moved.dtype == got.dtype == sent.dtype and moved.shape == got.shape == sent.shape
        assert torch.equal(moved, sent) and torch.equal(got, sent) and moved.is_contiguous()
        assert not sent.numel() or moved.data_ptr() != sent.data_ptr() != got.data_ptr()
    assert transfers.staging_bytes() <= chunks * 256


def test_strides_survive() -> None:
    transfers = Transfers(torch.device("cpu"), 256, 2)
    base = torch.arange(240.0).reshape(4, 5, 12)
    sent = [base.permute(2, 0, 1), base[:, ::2], torch.tensor(3.0).expand(7), base.unsqueeze(0)]
    there = transfers.upload(sent, [False] * 4)
    assert all(torch.equal(a, b) for a, b in zip(sent, there, strict=True))
    back = transfers.download([base.permute(2, 0, 1), base])
    assert torch.equal(back[0], base.permute(2, 0, 1)) and back[0].stride() == base.permute(2, 0, 1).stride()


@pytest.mark.parametrize("direct", [False, True])
def test_expanded_tensors_arrive_whole(direct: bool) -> None:
    """Strides of 0, larger than a chunk, alone and inside others, staged and straight."""
    transfers = Transfers(torch.device("cpu"), 256, 2)
    pose = torch.arange(12.0).reshape(3, 4)
    sent = [pose.expand(30, 1, 3, 4), torch.ones(5).as_strided((4, 2), (1, 1)), torch.tensor([3]).expand(1000)]
    there = transfers.upload(sent, [direct and tensor.is_contiguous() for tensor in sent])
    assert all(torch.equal(a, b) and a.is_contiguous() for a, b in zip(there, sent, strict=True))
    back = transfers.download([tensor.expand(2, *tensor.shape) for tensor in there])
    assert all(torch.equal(a, b.expand(2, *b.shape)) for a, b in zip(back, sent, strict=True))


def test_expanded_poses_make_the_trip(device: FakeDevice) -> None:
    spec = next(spec for spec in sweep.grid("voxelize_depth") if spec["batch"] > 1)
    arguments = tune.full_arguments("voxelize_depth", sweep.build("voxelize_depth", spec))
    assert 0 in arguments["camera_to_grid"].stride()
    transfers = Transfers(torch.device("cpu"), 4096, 2)
    moved = roundtrip.moved(arguments, lambda tensors: transfers.upload(tensors, [False] * len(tensors)))
    assert torch.equal(robocache.voxelize_depth(**moved), robocache.voxelize_depth(**arguments))


def test_threads_share_few_buffers() -> None:
    """More threads than buffers, each moving several chunks both ways: nobody waits for ever, nothing is mixed up."""
    transfers = Transfers(torch.device("cpu"), 256, 2)

    def work(k: int) -> bool:
        tensors = [torch.full((200 + k,), float(k)), torch.full((300,), k, dtype=torch.int64)]
        for _ in range(20):
            back = transfers.download(transfers.upload(tensors, [False, False]))
            if not all(torch.equal(a, b) for a, b in zip(tensors, back, strict=True)):
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(16), timeout=60))
    assert transfers.staging_bytes() == 2 * 256  # all are back, and no more were made


def test_a_copy_that_fails_gives_its_buffer_back(monkeypatch: pytest.MonkeyPatch) -> None:
    transfers = Transfers(torch.device("cpu"), 256, 1)
    transfers.upload([torch.ones(10)], [False])

    class Odd:
        def numel(self) -> int:
            return 40

        def __getitem__(self, where: Any) -> Any:
            raise MemoryError("no")

    from robocache._dispatch import transfers as module

    with monkeypatch.context() as patch:
        patch.setattr(module, "as_bytes", lambda tensor: Odd())
        for _ in range(3):
            with pytest.raises(MemoryError):
                transfers.upload([torch.ones(10)], [False])
            with pytest.raises(MemoryError):
                transfers.download([torch.ones(10)])
    assert transfers.staging_bytes() == 256
    transfers.upload([torch.ones(10)], [False])


@pytest.mark.parametrize(("chunk", "chunks"), [(0, 1), (100, 1), (256, 0)])
def test_wrong_staging(chunk: int, chunks: int) -> None:
    with pytest.raises(ValueError, match="^chunk_bytes, chunks: expected a multiple of 256"):
        Transfers(torch.device("cpu"), chunk, chunks)


# ---- The trip -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", OPERATIONS)
def test_the_answer_is_that_of_the_cpu(op: str, device: FakeDevice) -> None:
    spec = min(sweep.grid(op), key=lambda spec: spec["batch"] * spec.get("points", spec.get("targets", 1)))
    arguments = tune.full_arguments(op, sweep.build(op, spec))
    function = getattr(robocache, FUNCTIONS[op])
    want = function(**arguments)
    got = roundtrip.run(device, function, arguments, "host")
    assert type(got) is type(want)
    for a, b in zip(roundtrip.tensors_in(got), roundtrip.tensors_in(want), strict=True):
        assert torch.equal(a, b) and a.dtype == b.dtype
    assert len(device.uploads) == len(device.downloads) == device.checks == 1  # all tensors in one go
    there = roundtrip.run(device, function, arguments, "device")
    assert torch.equal(roundtrip.tensors_in(there)[0], roundtrip.tensors_in(want)[0])
    assert len(device.downloads) == device.checks == 1


def test_answers_keep_their_form(tuned: Policy, device: FakeDevice) -> None:
    cloud, rows = torch.rand(3000, 3), torch.rand(3000, 2)
    where = {"voxel_size": 0.1, "grid_min": 0.0, "grid_size": 10}
    with robocache.dispatch(backend="cuda"):
        named = robocache.voxelize_point_cloud(cloud, rows, reduce=("mean", "count"), return_inverse=True, **where)
        several = robocache.voxelize_point_cloud(cloud, **{**where, "grid_size": [(4, 4, 4), (5, 5, 5)]})
        sparse = robocache.voxelize_point_cloud_sparse(cloud, rows, max_voxels=50, **where)
        bare = robocache.voxelize_point_cloud_sparse(cloud, max_voxels=50, **where)
    assert device.trips == 4
    assert isinstance(named, tuple) and list(named[0]) == ["mean", "count"]
    assert isinstance(several, list) and [tuple(grid.shape) for grid in several] == [(4, 4, 4), (5, 5, 5)]
    assert isinstance(sparse, robocache.SparseVoxels) and bare.features is None


def test_a_tensor_given_twice_goes_once(device: FakeDevice) -> None:
    times = torch.arange(100.0)
    streams = {"a": robocache.Stream(torch.rand(100, 2), times), "b": robocache.Stream(torch.rand(100, 1), times)}
    arguments = tune.full_arguments("fuse", {"streams": streams, "target_times": times})
    roundtrip.run(device, robocache.fuse_multimodal, arguments, "host")
    assert device.uploads == [4 * (200 + 100 + 100)]
    assert streams["a"].times is times  # the caller's streams are as they were


def test_faults_in_the_data_raise_what_the_cpu_raises(tuned: Policy, device: FakeDevice) -> None:
    values, times = torch.rand(1, 5000, 1), torch.arange(5000.0)
    times[7] = 100.0
    with pytest.raises(robocache.DataError) as want:
        robocache.resample_trajectories(values, times, torch.rand(10), backend="cpu")
    device.fault = robocache.DataError("noted on the device", "time_backwards", 0, 0, 8)
    fast = device.backend
    device.backend = "torch"  # which lets backward times pass, as a device does that only notes them
    with robocache.dispatch(backend="cuda"), pytest.raises(robocache.DataError) as got:
        robocache.resample_trajectories(values, times, torch.rand(10))
    assert str(got.value) == str(want.value) and got.value.position == want.value.position
    device.backend = fast
    with robocache.dispatch(backend="cuda"), pytest.raises(robocache.DataError, match="noted by an earlier call"):
        robocache.resample_trajectories(values, torch.arange(5000.0), torch.rand(10))


def test_a_full_gpu_is_told_of_and_the_cpu_computes(tuned: Policy, device: FakeDevice) -> None:
    device.fails = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
    grid, cloud = torch.rand(10, 10, 10, 2), torch.rand(400_000, 3)
    with pytest.warns(RuntimeWarning, match="had no room, so the CPU computes: CUDA out of memory. Tried"):
        got = robocache.devoxelize(grid, cloud, voxel_size=0.1, grid_min=0.0)
    assert torch.equal(got, robocache.devoxelize(grid, cloud, voxel_size=0.1, grid_min=0.0, backend="cpu"))
    with robocache.dispatch(backend="cuda"), pytest.raises(torch.OutOfMemoryError):
        robocache.devoxelize(grid, cloud, voxel_size=0.1, grid_min=0.0)


def test_left_on_the_device_whoever_computes(tuned: Policy, device: FakeDevice) -> None:
    grid = torch.rand(10, 10, 10, 2)
    for size, uploads in ((50, [400]), (400_000, [4_800_000 + 8000])):
        cloud = torch.rand(size, 3)
        want = robocache.devoxelize(grid, cloud, voxel_size=0.1, grid_min=0.0, backend="cpu")
        device.uploads.clear()
        with robocache.dispatch(result="device"):
            got = robocache.devoxelize(grid, cloud, voxel_size=0.1, grid_min=0.0)
        assert torch.equal(got, want) and (size > 50 or got.data_ptr() in device.there)
        assert device.uploads == uploads and device.downloads == []
    with robocache.dispatch(result="device"):
        there = robocache.devoxelize(grid, torch.rand(50, 3), voxel_size=0.1, grid_min=0.0, backend="torch")
        assert there.data_ptr() in device.there
        out = torch.empty(1, 10, 2)
        with pytest.raises(ValueError, match=r"^out: expected None inside robocache.dispatch\(result='device'\)"):
            robocache.resample_trajectories(torch.rand(1, 5, 2), torch.arange(5.0), torch.rand(10), out=out)
        leaf = torch.rand(50, 3, requires_grad=True)
        robocache.devoxelize(grid, leaf, voxel_size=0.1, grid_min=0.0).sum().backward()
        assert leaf.grad is not None


# ---- The explanation ------------------------------------------------------------------------------------------------


def test_the_explanation_in_words(tuned: Policy, device: FakeDevice) -> None:
    grid, cloud = torch.rand(10, 10, 10, 2), torch.rand(400_000, 3)
    said = robocache.explain(robocache.devoxelize, grid, cloud, voxel_size=0.1, grid_min=0.0)
    assert device.trips == 0 and not device.uploads  # nothing ran
    name = points.path_for(device.key()).name
    lines = str(said).splitlines()
    assert lines[0] == "devoxelize: cuda (file), answer on the host"
    assert lines[1] == f"  reason  the GPU takes less, by tuned points in {name}"
    assert lines[2] == "  moves   4.8 MB in, 3.2 MB out"
    assert lines[3].startswith("  CPU     ") and lines[4].startswith("  GPU     ") and "copy in" in lines[4]
    assert lines[5] == f"  from    tuned points in {name}"
    assert said.copy_in_us + said.kernel_us + said.copy_out_us == pytest.approx(said.gpu_us)  # type: ignore[operator]
    assert said.gpu_us < said.cpu_us  # type: ignore[operator]
    by_name = robocache.explain("devoxelize", grid, cloud, voxel_size=0.1, grid_min=0.0)
    assert str(by_name) == str(said)
    with robocache.dispatch(result="device"):
        there = robocache.explain("devoxelize", grid, cloud, voxel_size=0.1, grid_min=0.0)
    assert "answer on the GPU" in str(there) and "(upload " in str(there) and there.copy_out_us == 0


def test_explanations_of_overrides(tuned: Policy, device: FakeDevice) -> None:
    given: Any = (torch.rand(10, 10, 10, 2), torch.rand(400_000, 3))
    where = {"voxel_size": 0.1, "grid_min": 0.0}
    said = robocache.explain("devoxelize", *given, backend="torch", **where)
    assert str(said).splitlines()[:2] == [
        "devoxelize: torch (argument), answer on the host",
        "  reason  the call says backend='torch'",
    ]
    with robocache.dispatch(backend="cpu"):
        said = robocache.explain("devoxelize", *given, **where)
        assert said.reason == "robocache.dispatch(backend='cpu') holds" and said.cpu_us is not None
    with robocache.dispatch(backend="cuda"):
        device.records = True
        said = robocache.explain("devoxelize", *given, **where)
        assert "  error   the call raises: the current stream records a CUDA graph" in str(said)


def test_the_page_keeps_its_word(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "dispatch.md").read_text()
    names: dict[str, Any] = {}
    for example in page.split("```python\n")[1:]:
        exec(example.split("```")[0], names)
    assert capsys.readouterr().out.startswith("voxelize_point_cloud: ")
    assert names["grid"].shape == (50, 50, 50)
    assert f"fewer than {_dispatch.SMALL} elements" in page
    assert f"within {BAND * 100:.0f} %" in page and f"{CHUNK_BYTES * CHUNKS >> 20} MiB" in page


def test_explaining_needs_no_gpu() -> None:
    said = robocache.explain("resample_trajectories", torch.rand(1, 500, 2), torch.arange(500.0), torch.rand(10))
    assert said.choice == "cpu" and said.cpu_us is not None and "resample_trajectories: cpu" in str(said)


def test_wrong_questions() -> None:
    with pytest.raises(ValueError, match="^function: expected one of resample_trajectories, "):
        robocache.explain("blur")
    with pytest.raises(ValueError, match="^function: expected one of"):
        robocache.explain(print)
    with pytest.raises(TypeError, match="missing a required argument"):
        robocache.explain("devoxelize", torch.rand(3))
    with pytest.raises(ValueError, match="^backend: expected one of"):
        robocache.explain("devoxelize", torch.rand(3), torch.rand(3), voxel_size=1.0, grid_min=0.0, backend="gpu")
    said = robocache.explain("devoxelize", 3, torch.rand(3), voxel_size=1.0, grid_min=0.0)
    assert said.choice == "cpu" and said.cpu_us is None


def test_the_configuration_says_which_numbers_hold(policy: Policy, device: FakeDevice) -> None:
    assert robocache.show_config()["dispatch"] == "defaults: not tuned (run `robocache tune`)"
    points.save(recorded())
    policy.forget()
    assert robocache.show_config()["dispatch"].startswith("tuned: dispatch-test-gpu-9000-")
    device.refusal = "asleep"
    assert robocache.show_config()["dispatch"] == "off: asleep"


# ---- robocache tune -------------------------------------------------------------------------------------------------


TINY = {
    op: sorted(sweep.grid(op), key=lambda s: s["batch"] * s.get("points", s.get("targets", 1)) * s.get("size", 1) ** 3)
    for op in OPERATIONS
}


def test_tuning_from_end_to_end(
    policy: Policy,
    device: FakeDevice,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    trials = [(op, spec) for op in OPERATIONS for spec in TINY[op][:4]]
    monkeypatch.setattr(tune, "_trials", lambda quick, only: trials)
    monkeypatch.setattr(tune, "_COPY_SIZES", (1024, 65536, 1 << 20))
    monkeypatch.setattr(tune.torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(tune, "measure", _with_wait(tune.measure))
    picture = tmp_path / "curves.png"
    assert _cli.main(["tune", "--seconds", "0.5", "--plot", str(picture)]) == 0
    said = capsys.readouterr()
    assert "tuning" in said.err  # the bar
    for name in FUNCTIONS.values():
        assert name in said.out
    assert "Test GPU 9000" in said.out and "points: " in said.out
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = points.load(device.key())
    assert found is not None and len(found[0].points) == len(trials)
    grid, cloud = torch.rand(10, 10, 10, 2), torch.rand(400_000, 3)
    assert robocache.explain("devoxelize", grid, cloud, voxel_size=0.1, grid_min=0.0).authority == "file"


def _with_wait(measure: Any) -> Any:
    return lambda *given, **said: measure(*given, **{"wait": lambda: None, **said})


def test_tuning_without_a_gpu_does_nothing(
    policy: Policy, device: FakeDevice, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    device.refusal = "the driver is on holiday"
    assert _cli.main(["tune"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and "no GPU can be used here, so every call stays on the CPU: the driver is on" in said.err
    assert not (tmp_path / "cache").exists() and not device.uploads


def test_tuning_into_an_unwritable_place_says_so_first(
    policy: Policy,
    device: FakeDevice,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(points.DIRECTORY, str(tmp_path / "file"))
    assert _cli.main(["tune"]) == 1
    assert "cannot be stored in" in capsys.readouterr().err and not device.uploads


def test_the_plot_says_how_to_get_it(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import argparse
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    options = argparse.Namespace(no_plot=False, plot=None)
    tuned = recorded()
    assert tune._plot(options, tuned, points.model_of(tuned, "x"), tmp_path / "x.json") == 0
    assert "pip install robocache[demo]" in capsys.readouterr().err


def test_the_crossing_of_a_plot() -> None:
    from robocache._dispatch.plot import crossing

    tuned = recorded()
    model = points.model_of(tuned, "x")
    line = list(tune.interpolated(tune.family("devoxelize", tuned), 200))
    at = crossing(model, line, "host")
    assert at is not None
    for load in line:
        found = model.estimate(load, "host")
        moved = load.pageable + load.bytes_out
        if abs(moved / at - 1) > 0.1:
            assert (found.gpu_us < found.cpu_us) == (moved > at)
    never = points.model_of(recorded(gpu=lambda load: 1e9), "x")
    assert crossing(never, line, "host") is None


def test_medians_of_a_call() -> None:
    calls = []
    lock = threading.Lock()

    def call() -> None:
        with lock:
            calls.append(1)

    assert tune.median_us(call, 0.0) >= 0
    assert len(calls) == 4  # one to warm up, three at least
