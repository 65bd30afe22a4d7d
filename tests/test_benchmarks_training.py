"""The training suite: peers that align as np.interp does, checks that can fail, figures, bars and tables."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import measure, report, timing, training, training_measure, training_peers, training_table
from robocache import datasets

from .training_runs import ROOT

TINY = replace(training.CASES[0].quick(), name="training-tiny", form="lerobot_v2.1", steps=6, warm=1)
PLAN = measure.Plan("cpu", repeats=3, compile_modes=())


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dataset() -> Iterator[datasets.Dataset]:
    with training.on_disk(TINY) as (found, _):
        yield found


def stream_of(dataset: datasets.Dataset, align: str) -> training_peers.WindowStream:
    past = training.past_ticks(training.shape_of(TINY, dataset), dataset.ticks_per_second)
    steps = training_peers.Steps(past, TINY.samples, TINY.chunk)
    names = (training.OBSERVATION, training.ACTION)
    return training_peers.WindowStream(dataset, names, steps, TINY.batch, align, 3)


def test_names_are_unique_and_rows_are_the_published_ones() -> None:
    assert len({case.name for case in training.CASES}) == len(training.CASES)
    for case in training.CASES:
        assert (case.batch, case.samples, case.tokens, case.features) == (32, 500, 250, 256)
        assert (case.layers, case.heads, case.feedforward) == (4, 8, 1024)
        assert case.robot().nbytes > 16 * case.pool_bytes // 2
    assert {case.name for case in training.select("cpu")} < {case.name for case in training.select("cuda")}
    assert [case.name for case in training.select("cuda", "*graph")] == ["training-rlds-graph"]


def test_a_row_may_ask_for_torchs_threads() -> None:
    assert {case.threads for case in training.select("cpu")} == {1}
    assert {case.threads for case in training.select("cuda")} == {None}
    for asked, seen in ((2, 2), (None, 1)):
        with training.torch_threads(asked):
            assert torch.get_num_threads() == seen
        assert torch.get_num_threads() == 1


@pytest.mark.parametrize("align", ["numpy", "device"])
def test_a_peers_windows_are_those_of_the_recording(align: str, dataset: datasets.Dataset) -> None:
    stream = stream_of(dataset, align)
    batches = iter(stream)
    scale = dataset.ticks_per_second // 10**9
    seen = set()
    for _ in range(3):
        batch = next(batches)
        observation, past = batch["observation"], torch.from_numpy(stream.steps.past)
        valid = batch["time"][:, None] + past >= 0
        if align == "device":
            assert observation.shape == (8, 50, 16)
            observation = training_peers.align_on_device(observation, batch["times"], past)
        else:
            assert torch.equal(batch["valid"], valid)
        windows = training.Windows(observation, valid, batch["action"], batch["action_valid"])
        seen |= set(zip(batch["episode"].tolist(), batch["time"].tolist(), strict=True))
        anchors = batch["time"].numpy() // scale
        assert training.check(TINY, windows, batch["episode"].numpy(), anchors, stream.steps.past // scale, False) == 8
        windows.observation[0, 3, 5] += 0.01
        with pytest.raises(measure.CheckFailed, match="observation of window 0"):
            training.check(TINY, windows, batch["episode"].numpy(), anchors, stream.steps.past // scale, False)
    assert len(seen) == 24  # shuffled without replacement


def test_a_peers_epoch_has_every_window_once(dataset: datasets.Dataset) -> None:
    stream = stream_of(dataset, "numpy")
    batches = iter(stream)
    # 8 episodes of 200 frames, three at a time: 75, 75 and 50 batches.
    seen: list[tuple[int, int]] = []
    for _ in range(200):
        batch = next(batches)
        seen += zip(batch["episode"].tolist(), batch["time"].tolist(), strict=True)
    assert len(set(seen)) == len(seen) == 1600


@pytest.mark.parametrize("name", ["store", "loader"])
def test_our_windows_are_those_of_the_recording(name: str, dataset: datasets.Dataset) -> None:
    feed = training.open_feed(name, TINY, dataset, torch.device("cpu"), PLAN)
    try:
        assert training.checked(name, feed, TINY, dataset) == 8
        wrong = replace(TINY, features=17)  # another robot: what it saw is not what was recorded
        with pytest.raises(measure.CheckFailed, match="observation of window 0"):
            training.checked(name, feed, wrong, dataset)
    finally:
        feed.close()


def test_a_row_is_measured() -> None:
    said: list[str] = []
    row = training.run_case(replace(TINY, form="rlds"), PLAN, timing.WallTimer(), None, said.append)
    assert not row["errors"] and row["checked"] == {
        **dict.fromkeys(training.OURS, 8 * 2),
        **dict.fromkeys(training.PEERS, 8),
    }
    assert list(row["variants"]) == ["ready", *training.OURS, *training.PEERS]
    for name, found in row["variants"].items():
        rounds = 1 if name in training.PEERS else 2
        turns = 5 + 3 if name == "ready" else rounds
        assert found["cold"]["repeats"] == 3 * turns and len(found["prepared_s"]) == turns
        assert 0 < found["busy"] <= 1 and found["of_ceiling"] > 0 and len(found["of_ceiling_rounds"]) == rounds
        low, high = found["samples_per_second_ci95"]
        assert low <= found["samples_per_second"] <= high
        assert found["host_memory"]["main_peak"] > 1 << 20
        assert (found["host_memory"]["workers"] > 0) == (name in training.PEERS)
        assert (found["meter"] is not None) == (name == "loader")
    assert json.dumps(row) and "MB written" in said[0]


def test_figures_of_steps() -> None:
    rng = np.random.default_rng(0)
    steps = rng.normal(10.0, 0.5, 2000)
    found = training_measure.throughput([steps], 32)
    assert found["samples_per_second"] == pytest.approx(3200, rel=0.01)
    low, high = found["samples_per_second_ci95"]
    assert low < found["samples_per_second"] < high and (high - low) / 3200 == pytest.approx(
        4 * 0.05 / 2000**0.5, rel=0.4
    )
    assert found["cold"]["median"] == pytest.approx(10_000, rel=0.01)
    stalled = np.where(np.arange(2000) // 100 % 2, 10.0, 30.0)  # neighbours are alike: the interval must be wider
    wide = training_measure.throughput([stalled], 32)["samples_per_second_ci95"]
    assert wide[1] - wide[0] > 3 * (high - low)


def test_utilisation_is_read_from_the_lines_inside() -> None:
    begin = datetime.datetime(2026, 1, 1, 12, 0, 0)
    line = "2026/01/01 12:00:{:06.3f}, {}"
    text = "\n".join(line.format(at, value) for at, value in [(0.1, 5), (0.5, 90), (0.9, 100), (1.5, 0)])
    found = training_measure.parse_utilisation(text, begin, begin + datetime.timedelta(seconds=1))
    assert found == {"smi_percent": 95.0, "smi_samples": 2}
    absent = training_measure.parse_utilisation("No devices were found", begin, begin)
    assert absent["smi_percent"] is None and "No devices" in absent["smi_reason"]


def test_host_memory_sees_processes_below() -> None:
    code = "import time; held = bytearray(b'x' * (64 << 20)); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found, without = (
            training_measure.host_memory(),
            training_measure.host_memory(training_measure.descendants(os.getpid())),
        )
        child.kill()
    assert found["workers"] >= 1 and found["workers_peak"] > 64 << 20 and without["workers"] == 0


def variant(share: float, busy: float, meter: Any = None) -> dict[str, Any]:
    stats = timing.summarize([1000.0, 1100.0], 1).as_dict()
    memory = {"main_peak": 10**9, "workers": 2, "workers_peak": 2 * 10**9}
    return {"samples_per_second": 100.0, "samples_per_second_ci95": [99.0, 101.0], "of_ceiling": share, "busy": busy,
            "cold": stats, "host_memory": memory, "meter": meter, "smi_percent": 97.0}  # fmt: skip


def test_bars_and_table(tmp_path: Path) -> None:
    row = {"name": "training-rlds", "errors": {}, "variants": {
        "ready": variant(1.0, 0.99), "store": variant(0.985, 0.99), "loader": variant(0.975, 0.96, {"wait": 0.01}),
    }}  # fmt: skip
    assert training_table.verdict(row, "ready", "cuda") == "-"
    assert training_table.verdict(row, "store", "cuda") == "99% of ceiling: missed"
    assert training_table.verdict(row, "loader", "cuda") == "97% of ceiling: met, 95% busy: met"
    assert training_table.verdict(row, "loader", "cpu") == "-"
    row["variants"]["loader"]["busy"] = 0.94
    assert training_table.verdict(row, "loader", "cuda").endswith("95% busy: missed")
    cpu = {"cpu": "a CPU", "cpu_count": 16, "threads": 2, "torch": "2", "date": "2026-01-01"}
    results = {"suite": "training", "device": "cpu", "cases": [row], "provenance": {
        **cpu, "git": {"commit": "0" * 40, "dirty": False}}}  # fmt: skip
    text = report.text_table(results)
    assert "97.5%" in text and "1000" in text and text.count("training-rlds") == 3
    assert report.markdown(results).count("| training-rlds |") == 3
    assert "loader 100 ± 1 samples/s, 97.5% of the ceiling" in report.line(row, results)


def test_the_command_runs_the_suite_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = command.parse(["--device", "cpu", "--suite", "training", "--quick"])
    assert [case.features for case in command.select(options, "training")] == [16, 16]
    monkeypatch.setattr(training, "run_case", None)
    path = tmp_path / "training.json"
    monkeypatch.setitem(command._RUN, "training", lambda case, *rest: {
        "name": case.name, "errors": {}, "variants": {"ready": variant(1.0, 1.0)}})  # fmt: skip
    monkeypatch.setattr(timing, "copy_bandwidth", lambda *rest: {"bytes_per_second": 1e9})
    assert command.main(["--device", "cpu", "--suite", "training", "--quick", "--no-host", "--out", str(path)]) == 0
    assert json.loads(path.read_text())["complete"]


def test_two_processes_against_one(tmp_path: Path) -> None:
    path = tmp_path / "ddp.json"
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m",
           "benchmarks.training_ddp", "--device", "cpu", "--quick", "--form", "lerobot_v3.0", "--out",
           str(path)]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(run, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    assert found["complete"] and found["world"] == 2 and set(found["rows"]["eager"]["times"]) == {"ready", "loader"}
    assert "together" in done.stdout and len(found["rows"]["eager"]["together"]["loader"]["ranks"]) == 2
