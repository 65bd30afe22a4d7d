"""The harness itself: statistics, byte counts, provenance, reports, errors that do not end a run, the graph timer."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import align, cases, peers, provenance, report, timing, traffic

TINY = cases.Case("tiny", 2, 5, (cases.StreamSpec(9, 3),), tags=frozenset({"cpu"}))


# ---- The case table ------------------------------------------------------------------------------------------------


def test_names_are_unique() -> None:
    names = [case.name for case in cases.CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_inputs_are_sound_and_repeat(case: cases.Case) -> None:
    small = case.scaled(3, 40)
    inputs, again, other = cases.build(small, seed=1), cases.build(small, seed=1), cases.build(small, seed=2)
    for a, b in zip(inputs.tensors(), again.tensors(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(inputs.targets, other.targets)
    for spec, stream in zip(small.streams, inputs.streams, strict=True):
        times = stream["times"]
        assert times.dtype == cases.DTYPES[case.time_dtype] and stream["values"].dtype == cases.DTYPES[spec.dtype]
        if "row_splits" not in stream:
            assert bool((times[:, 1:] > times[:, :-1]).all())
            assert bool((inputs.targets >= times[:, :1]).all()) and bool((inputs.targets <= times[:, -1:]).all())
    sorted_targets = bool((inputs.targets[:, 1:] > inputs.targets[:, :-1]).all())
    assert sorted_targets == (case.order == "sorted")


def test_selection() -> None:
    assert {case.name for case in cases.select("cuda")} >= {case.name for case in cases.PUBLISHED}
    assert all("cpu" in case.tags for case in cases.select("cpu"))
    assert [c.name for c in cases.select("cuda", "fuse-4-50*")] == ["fuse-4-50-bf16"]
    assert cases.select("cuda", "no such case") == []


# ---- Bytes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "previous", "next", "nearest", "pchip"])
@pytest.mark.parametrize("layout", ["dense", "lengths"])
def test_used_samples_by_hand(kind: str, layout: str) -> None:
    case = cases.Case("bytes", 3, 6, (cases.StreamSpec(30, 2, kind=kind),), layout=layout)
    inputs = cases.build(case, seed=3)
    stream = inputs.streams[0]
    lengths = stream.get("lengths", torch.full((3,), 30))
    expected = 0
    for b in range(3):
        times, n, used = stream["times"][b].tolist(), int(lengths[b]), set()
        for t in inputs.targets[b].tolist():
            i = max((k for k in range(n) if times[k] <= t), default=0)
            if t <= times[0] or t >= times[n - 1] or times[i] == t:
                used.add(0 if t <= times[0] else n - 1 if t >= times[n - 1] else i)
                continue
            nearer = i + 1 if times[i + 1] - t < t - times[i] else i
            reads = {"linear": [i, i + 1], "previous": [i], "next": [i + 1], "nearest": [nearer]}
            reads["pchip"] = [k for k in range(i - 1, i + 3) if 0 <= k < n]
            used.update(reads[kind])
        expected += len(used)
    out = torch.empty(3, 6, 2)
    moved = traffic.bytes_moved(inputs, out, None)
    assert moved["values"] == expected * 2 * 4
    assert moved["times"] == int(lengths.sum()) * 4
    assert moved["targets"] == 3 * 6 * 4 and moved["out"] == 3 * 6 * 2 * 4
    assert moved["total"] == sum(v for k, v in moved.items() if k != "total")


def test_packed_rows_that_share_a_sequence_count_once() -> None:
    case = cases.Case("packed", 4, 5, (cases.StreamSpec(20, 3),), layout="rows")
    inputs = cases.build(case, seed=1)
    inputs.streams[0]["rows"] = torch.zeros(4, dtype=torch.int64)
    inputs.targets = inputs.targets[:1].expand(4, 5).contiguous()
    once = cases.Inputs(case, [{**inputs.streams[0], "rows": torch.zeros(1, dtype=torch.int64)}], inputs.targets[:1])
    four, one = (traffic.bytes_moved(i, torch.empty(0), None)["values"] for i in (inputs, once))
    assert four == one > 0


# ---- Statistics ----------------------------------------------------------------------------------------------------


def test_summarize() -> None:
    rng = np.random.default_rng(1)
    times = rng.normal(100.0, 2.0, 400)
    stats = timing.summarize(times, calls=7)
    assert stats.median == pytest.approx(float(np.median(times)))
    assert stats.p5 < stats.median < stats.p95 <= stats.p99
    assert stats.ci95[0] < stats.median < stats.ci95[1]
    assert stats.ci95[1] - stats.ci95[0] < 1.5  # 1.25 * 2 / sqrt(400) either side, twice 1.96
    assert stats.ci95[1] - stats.ci95[0] > 0.1
    assert stats.p95 < stats.ci95_p99[0] <= stats.p99 <= stats.ci95_p99[1] <= times.max()
    assert (stats.repeats, stats.calls) == (400, 7)
    assert timing.summarize(times, 7) == stats  # the bootstrap repeats
    for bad in ([], [1.0, float("nan")], [1.0, 0.0]):
        with pytest.raises(ValueError, match="finite and positive"):
            timing.summarize(bad, 1)


class FakeClock:
    """Advances by `cost` seconds a call of `work`."""

    def __init__(self, cost: float) -> None:
        self.now, self.cost, self.calls = 0.0, cost, 0

    def __call__(self) -> float:
        return self.now

    def work(self) -> None:
        self.now += self.cost
        self.calls += 1


def test_wall_timer_counts_calls() -> None:
    clock = FakeClock(60e-6)
    stats = timing.WallTimer(clock, sample_us=200.0).measure([clock.work, clock.work, clock.work], 20)
    assert stats.median == pytest.approx(60.0) and stats.calls == 4 and stats.repeats == 20


def test_host_cost_by_function() -> None:
    clock = FakeClock(0.0)

    def costs(seconds: float) -> Any:
        def call() -> None:
            clock.now += seconds

        return call

    times = timing.host_us({"clone": costs(2e-6), "ours": costs(3e-6)}, loops=100, rounds=3, clock=clock)
    assert times["clone"]["median"] == pytest.approx(2.0) and times["ours"]["median"] == pytest.approx(3.0)


class FakeDevice:
    """Stands in for torch.cuda: a captured call costs `us` microseconds when its graph is replayed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, us: float) -> None:
        self.us, self.now, self.graphs = us, 0.0, []
        self.capturing: Any = None
        device = self

        class Graph:
            calls = 0

            def replay(self) -> None:
                device.now += self.calls * device.us

        class Event:
            at = -1.0

            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = device.now

            def elapsed_time(self, end: Event) -> float:
                return (end.at - self.at) / 1e3

        @contextlib.contextmanager
        def graph(captured: Graph, pool: Any, capture_error_mode: str) -> Any:
            assert capture_error_mode == "thread_local"
            device.capturing = captured
            device.graphs.append(captured)
            yield
            device.capturing = None

        class Stream:
            def wait_stream(self, other: Stream) -> None:
                assert isinstance(other, Stream)

        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "graph", graph)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "current_stream", Stream)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)

    def call(self) -> None:
        if self.capturing is not None:
            self.capturing.calls += 1


def test_graph_timer_divides_by_the_calls_of_a_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice(monkeypatch, us=7.0)
    stats = timing.GraphTimer(replay_ms=1.0).measure([device.call] * 20, repeats=100)
    assert stats.median == pytest.approx(7.0) and stats.p99 == pytest.approx(7.0)
    assert stats.repeats == 100
    assert stats.calls == 160  # 20 calls of 7 us are 140 us: 8 laps make a millisecond
    assert [g.calls for g in device.graphs] == [20, 160]


def test_graph_timer_keeps_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice(monkeypatch, us=0.5)
    assert timing.GraphTimer(replay_ms=10.0, max_calls=100).measure([device.call] * 30, 10).calls == 90


def test_a_long_lap_is_timed_in_parts_that_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice(monkeypatch, us=300.0)
    stats = timing.GraphTimer(replay_ms=1.0, budget_s=0.001).measure([device.call] * 10, repeats=100)
    assert [g.calls for g in device.graphs] == [10, 4, 4, 2]  # the lap of 3 ms, then parts of at least 1 ms
    assert stats.median == pytest.approx(300.0) and stats.p99 == pytest.approx(300.0) and stats.repeats == 100


def test_a_budget_cuts_timings_of_slow_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice(monkeypatch, us=25_000.0)
    assert timing.GraphTimer(budget_s=0.5).measure([device.call] * 2, repeats=100).repeats == 20


def test_eager_wall_time_counts_host_and_device() -> None:
    calls: list[int] = []
    wall = timing.eager_wall_us([lambda: calls.append(1)], lambda: None, about_us=1000.0, rounds=3)
    assert wall > 0 and len(calls) == 1 + 3 * 5


def test_a_case_on_the_graph_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeDevice(monkeypatch, us=1.0)
    plan = align.Plan("cpu", repeats=3, compile_modes=(), max_sets=3)

    class Fake(timing.GraphTimer):
        def _replay(self, graphs: Any, repeats: int) -> list[float]:
            return [2.0] * repeats

    row = align.run_case(TINY, plan, Fake(), 1e9, lambda text: None)
    assert row["variants"]["robocache"]["cold"]["median"] > 0 and row["errors"] == {}
    assert row["share_of_bandwidth"] == pytest.approx(row["floor_us"] / row["variants"]["robocache"]["cold"]["median"])


# ---- Checks --------------------------------------------------------------------------------------------------------


def test_ulps() -> None:
    one = torch.ones(3)
    assert align.ulps(one, one) == 0.0
    assert align.ulps(torch.nextafter(one, one + 1), one) == 1.0
    assert align.ulps(torch.tensor([float("nan")]), torch.tensor([float("nan")])) == 0.0
    assert align.ulps(torch.tensor([float("nan")]), torch.tensor([0.0])) == float("inf")
    assert align.ulps(torch.tensor([1]), torch.tensor([2])) == float("inf")
    assert align.ulps(torch.tensor([float("inf")]), torch.tensor([1.0])) == float("inf")
    assert align.ulps(torch.tensor([float("inf")]), torch.tensor([float("inf")])) == 0.0
    with pytest.raises(align.CheckFailed):
        align.ulps(one, one.double())


def test_a_wrong_answer_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = align.call_public

    def wrong(inputs: cases.Inputs, backend: str = "auto", **options: Any) -> Any:
        out = right(inputs, backend, **options)
        return out + 1e-3 if backend == "cpu" else out

    monkeypatch.setattr(align, "call_public", wrong)
    with pytest.raises(align.CheckFailed, match="off the reference"):
        align.run_case(TINY, align.Plan("cpu", repeats=3), timing.WallTimer(), None, lambda text: None)


@pytest.mark.parametrize("case", [c for c in cases.CASES if peers.supports(c)], ids=lambda case: case.name)
def test_peers_compute_the_same(case: cases.Case) -> None:
    small = case.scaled(3, 60)
    inputs = cases.build(small, seed=5)
    got = peers.obvious(small)(*peers.peer_arguments(inputs))
    ours = cases.call_public(inputs, backend="cpu")
    assert got.shape == ours.shape and got.dtype == ours.dtype
    assert align.check_peer(small, "eager", got, ours)["agree"] > 0.98
    with pytest.raises(align.CheckFailed):
        align.check_peer(small, "eager", got + (1 if not got.dtype.is_floating_point else 0.1), ours)


# ---- Provenance, reports, the command ------------------------------------------------------------------------------


def test_no_paths_in_provenance() -> None:
    facts = provenance.provenance("cpu", provenance.without_paths(["--out", "/tmp/here/x.json"]))
    text = json.dumps(facts)
    assert "/tmp/" not in text and "/usr/" not in text and str(provenance.ROOT) not in text
    for key in ("date", "git", "torch", "cpu", "compiler", "arguments", "config"):
        assert key in facts
    assert provenance.without_paths("nvcc /usr/local/cuda/bin/nvcc 13.0, 1/2") == "nvcc nvcc 13.0, 1/2"


def test_commit_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_first_line", lambda *command: None)
    monkeypatch.setenv("ROBOCACHE_COMMIT", "abc123-dirty")
    assert provenance.commit() == {"commit": "abc123", "dirty": True, "source": "environment"}
    monkeypatch.delenv("ROBOCACHE_COMMIT")
    assert provenance.commit()["commit"] is None


def test_the_commit_of_a_repository_around_the_sources_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    around = {"--show-toplevel": str(provenance.ROOT.parent), "HEAD": "abc123", "--porcelain": ""}
    monkeypatch.setattr(provenance, "_first_line", lambda *command: next(v for k, v in around.items() if k in command))
    monkeypatch.delenv("ROBOCACHE_COMMIT", raising=False)
    assert provenance.commit() == {"commit": None, "dirty": None, "source": "none"}
    around["--show-toplevel"] = str(provenance.ROOT)
    assert provenance.commit() == {"commit": "abc123", "dirty": False, "source": "git"}


@pytest.mark.parametrize(
    ("options", "part"),
    [([], ""), (["--repeats", "20"], "-partial"), (["--no-host"], "-partial"), (["--check", "peer"], "-partial")],
)
def test_what_is_no_full_run_is_not_written_as_one(options: list[str], part: str) -> None:
    parsed = command.parse(["--device", "cpu", "--suite", "align", *options])
    assert command.default_path(parsed, "align").name == f"align{part}.json"


def test_only_a_quick_run_cuts_slow_calls_short() -> None:
    for options, budget in ([], None), (["--quick"], 0.02):
        parsed = command.parse(["--device", "cpu", *options])
        assert command.make_plan(parsed, "voxelize").budget_s == budget


FAULTS = """
import resource
import torch
from benchmarks import memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(16 << 20).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = min(faults() for _ in range(5))
with memory.kept() as kept:
    for _ in range(20):  # aligned blocks find the hole that another left only once the heap has some room
        faults()
    during = [faults() for _ in range(5)]
print(kept, before, max(during))
"""


def test_freed_memory_is_kept_while_a_cpu_is_measured() -> None:
    """A block of 64 MB, which the C library gives back and gets anew, keeps its pages. In a process of its own: what a
    heap does with a block depends on all that was freed before."""
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], cwd=provenance.ROOT, capture_output=True, text=True, check=True
    )
    kept, before, during = done.stdout.split()
    if kept == "False":
        pytest.skip("this C library cannot be told to keep freed memory")
    assert int(before) > 10 * int(during) + 100  # without it, 16384 pages of 4 KiB each time


def test_slug() -> None:
    assert provenance.slug("NVIDIA H200") == "nvidia-h200"
    assert provenance.slug("AMD EPYC (Genoa)  9B14") == "amd-epyc-genoa-9b14"


@pytest.fixture
def tiny_table(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = cases.Case("broken", 2, 5, (cases.StreamSpec(9, 3, dtype="no such dtype"),), tags=frozenset({"cpu"}))
    monkeypatch.setattr(cases, "CASES", (broken, TINY))
    monkeypatch.setattr(timing, "copy_bandwidth", lambda *a, **k: {"bytes_per_second": 1e10})
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("tiny_table")
def test_one_broken_case_does_not_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    status = command.main(["--device", "cpu", "--cases", "tiny,broken", "--repeats", "3", "--out", str(out)])
    results = json.loads(out.read_text())
    assert status == 1 and results["complete"] is False
    rows = {row["name"]: row for row in results["cases"]}
    assert "no such dtype" in rows["broken"]["errors"]["robocache"]
    tiny = rows["tiny"]
    assert tiny["errors"] == {} and {"robocache", "eager", "numpy"} <= set(tiny["variants"])
    assert tiny["check"][0]["ulp"] == 0 and tiny["variants"]["robocache"]["cold"]["repeats"] == 3
    assert str(tmp_path) not in out.read_text()
    printed = capsys.readouterr().out
    assert "broken: robocache:" in printed and "tiny" in printed
    assert command.main(["--device", "cpu", "--cases", "tiny", "--repeats", "3", "--out", str(out)]) == 0


@pytest.mark.usefixtures("tiny_table")
def test_no_matching_case_is_an_error() -> None:
    with pytest.raises(SystemExit, match="no case"):
        command.main(["--device", "cpu", "--cases", "nothing"])


@pytest.mark.usefixtures("tiny_table")
def test_report_between_markers(tmp_path: Path) -> None:
    out, page = tmp_path / "results.json", tmp_path / "README.md"
    command.main(["--device", "cpu", "--cases", "tiny", "--repeats", "3", "--out", str(out)])
    begin, end = report.markers("align")
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    assert report.main([str(out), "--write", str(page), "--check"]) == 1
    assert report.main([str(out), "--write", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| tiny |" in text
    assert report.main([str(out), "--write", str(page), "--check"]) == 0
    page.write_text("no markers")
    with pytest.raises(SystemExit, match="bench:align:begin"):
        report.main([str(out), "--write", str(page)])


def test_host_cost_runs_on_the_cpu() -> None:
    from benchmarks.host import run_host

    result = run_host("cpu", 20, 2, lambda text: None)
    assert "errors" not in result
    for mode in ("no_grad", "grad"):
        assert result[mode]["clone"]["of_clone"] == 1.0
        assert {"resample_trajectories", "fuse_multimodal", "ops.resample_trajectories"} <= set(result[mode])
