"""The tuner without a GPU: its rule on planted timings, its search, and the table that it writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import launch_table, provenance, timing, tune, tune_bench, tune_cases
from benchmarks.measure import CheckFailed
from benchmarks.tune_bench import GpuBench, same
from benchmarks.tune_decide import CONTROL, CURRENT, decide, ratio_of
from robocache._backend import native

PARAMETERS: list[dict[str, Any]] = [
    {"name": "align.threads", "work": "output vectors", "values": [32, 64, 128], "default": 128},
    {"name": "align.warps", "work": "output vectors", "values": [8, 16], "default": 16},
]
ENDS = {"small": 1 << 18, "medium": 1 << 22, "large": None}


def timings(costs: dict[str, float], rounds: int = 21, noise: float = 0.01, seed: int = 0) -> dict[str, list[float]]:
    """Microseconds by label: its cost, with noise of its own and a drift that all share."""
    generator = np.random.default_rng(seed)
    drift = 1 + 0.1 * np.linspace(0, 1, rounds)
    return {label: list(cost * drift * generator.normal(1, noise, rounds)) for label, cost in costs.items()}


# ---- The rule ------------------------------------------------------------------------------------------------------


def test_a_planted_winner_is_found_in_spite_of_drift() -> None:
    times = {
        name: timings({CURRENT: cost, CONTROL: cost, "32": 0.97 * cost, "64": 0.9 * cost}, seed=k)
        for k, (name, cost) in enumerate({"a": 10.0, "b": 300.0}.items())
    }
    verdict = decide(times, [32, 64])
    assert verdict.winner == 64 and verdict.ratios["64"].ratio == pytest.approx(0.9, abs=0.01)
    low, high = verdict.ratios["64"].ci99
    assert low < 0.9 < high and high - low < 0.03


@pytest.mark.parametrize("seed", range(20))
def test_noise_wins_nothing(seed: int) -> None:
    times = {"a": timings(dict.fromkeys((CURRENT, CONTROL, "32", "64"), 50.0), noise=0.05, seed=seed)}
    assert decide(times, [32, 64]).winner is None


def test_a_gain_within_the_noise_of_the_control_wins_nothing() -> None:
    times = {"a": timings({CURRENT: 50.0, CONTROL: 48.0, "32": 48.0}, noise=0.001)}
    verdict = decide(times, [32])  # the current value itself seems 4 % better: such a gain says nothing
    assert verdict.winner is None and "noise" in verdict.why


def test_less_than_two_percent_wins_nothing() -> None:
    verdict = decide({"a": timings({CURRENT: 50.0, CONTROL: 50.0, "32": 49.4}, noise=0.0005)}, [32])
    assert verdict.winner is None and verdict.why == "none gains 2%"


def test_a_gain_that_costs_one_case_wins_nothing() -> None:
    times = {
        "a": timings({CURRENT: 50.0, CONTROL: 50.0, "32": 35.0}),
        "b": timings({CURRENT: 50.0, CONTROL: 50.0, "32": 53.0}, seed=1),
    }
    verdict = decide(times, [32])
    assert verdict.winner is None and "a case loses" in verdict.why
    assert verdict.ratios["32"].worst == pytest.approx(1.06, abs=0.01)


@pytest.mark.parametrize("bad", [[1.0], [1.0, 0.0], [1.0, float("nan")], []])
def test_broken_timings_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="rounds|finite and positive"), np.errstate(divide="ignore"):
        ratio_of({"a": {CURRENT: [1.0, 1.0], "32": bad}}, "32")


# ---- The search ----------------------------------------------------------------------------------------------------


class FakeBench:
    """Costs by parameter and value; where `lucky`, a first measurement shows a gain that the second does not."""

    def __init__(self, costs: dict[str, dict[int, float]], lucky: bool = False, broken: str = "") -> None:
        self.costs, self.lucky, self.broken = costs, lucky, broken
        self.loads: list[tuple[str, int]] = []
        self.forced: dict[tuple[str, str], int] = {}
        self.measured: list[tuple[str, str, int, list[int]]] = []

    def load(self, group: tune_cases.Group, cases: Sequence[Any]) -> None:
        self.loads.append((group.name, len(cases)))

    def unload(self) -> None:
        self.loads.append(("none", 0))

    def force(self, parameter: str, shape_class: str, value: int) -> None:
        self.forced[parameter, shape_class] = value

    def times(
        self, parameter: str, shape_class: str, current: int, values: Sequence[int], rounds: int, seed: int
    ) -> dict[str, dict[str, list[float]]]:
        if parameter == self.broken:
            raise CheckFailed(f"{parameter} changes the result")
        self.measured.append((parameter, shape_class, current, list(values)))
        costs = self.costs[parameter]
        second = sum(1 for one in self.measured if one[:2] == (parameter, shape_class)) > 1
        factor = 1.3 if self.lucky and second else 1.0
        by_label = {CURRENT: costs[current], CONTROL: costs[current]}
        by_label |= {str(value): factor * costs[value] for value in values}
        return {"case": timings(by_label, rounds, seed=seed)}


GROUP = tune_cases.Group("align", ("align.",), tune_cases.GROUPS[0].cases, tune_cases.align_vectors)
COSTS = {"align.threads": {32: 8.0, 64: 9.0, 128: 10.0}, "align.warps": {8: 10.0, 16: 9.9}}


def defaults() -> tune.Table:
    return {p["name"]: dict.fromkeys(ENDS, p["default"]) for p in PARAMETERS}


def result(arch: int = 90, date: str = "2026-01-02T03:04:05+00:00", **table: dict[str, int]) -> dict[str, Any]:
    return {
        "arch": arch,
        "provenance": {
            "date": date,
            "gpu": "NVIDIA H200",
            "driver": "580.1",
            "cuda": "13.0",
            "compiler": {"nvcc": "release 13.0"},
            "git": {"commit": "abc", "dirty": False},
            "arguments": ["--write"],
        },
        "table": {**defaults(), **{name.replace("_", ".", 1): values for name, values in table.items()}},
    }


def test_the_search_finds_what_is_planted_and_goes_on_from_there() -> None:
    bench, table = FakeBench(COSTS), defaults()
    entries, left_out, errors = tune.search(tune.tasks_of([GROUP], PARAMETERS, ENDS), bench, table, 1e9)
    assert (left_out, errors) == ([], []) and len(entries) == 6
    assert table == {"align.threads": dict.fromkeys(ENDS, 32), "align.warps": dict.fromkeys(ENDS, 16)}
    assert {key: value for key, value in bench.forced.items() if key[0] == "align.threads"} == {
        ("align.threads", name): 32 for name in ENDS
    }
    assert [name for name, _ in bench.loads] == ["align"] * 3 + ["none"]  # once a shape class
    winner = entries[0]
    assert (winner["before"], winner["chosen"], winner["shape_class"]) == (128, 32, "small")
    assert winner["confirmation"]["32"]["ratio"] == pytest.approx(0.8, abs=0.02) and "less time" in winner["why"]
    assert "128 -> 32" in tune.line(winner) and winner["cases"]


def test_a_lucky_measurement_is_not_believed() -> None:
    bench, table = FakeBench(COSTS, lucky=True), defaults()
    entries, _, _ = tune.search(tune.tasks_of([GROUP], PARAMETERS, ENDS), bench, table, 1e9)
    assert table == defaults() and bench.forced == {}
    assert entries[0]["why"] == "not better when measured again" and entries[0]["chosen"] == 128


def test_a_value_that_changes_the_result_is_an_error_and_the_rest_goes_on() -> None:
    bench, table = FakeBench(COSTS, broken="align.threads"), defaults()
    entries, _, errors = tune.search(tune.tasks_of([GROUP], PARAMETERS, ENDS), bench, table, 1e9)
    assert len(errors) == 3 and "CheckFailed: align.threads changes the result" in errors[0]
    assert {entry["parameter"] for entry in entries} == {"align.warps"} and table == defaults()


def test_the_budget_ends_the_search_and_the_rest_is_told() -> None:
    clock = iter(float(k) for k in range(100))
    tasks = tune.tasks_of([GROUP], PARAMETERS, ENDS)
    entries, left_out, _ = tune.search(tasks, FakeBench(COSTS), defaults(), 3.0, clock=lambda: next(clock))
    assert len(entries) == 2 and len(left_out) == 4 and left_out[-1] == "align.warps large"


# ---- Measuring, with a made-up clock --------------------------------------------------------------------------------


class FakeTimer:
    """Recordings that tell what was forced when they were made, and timings that say so."""

    def __init__(self) -> None:
        self.laps: list[int | None] = []

    def record(self, calls: Sequence[Any], laps: int | None = None) -> Any:
        self.laps.append(laps)
        for call in calls:
            call()
        return SimpleNamespace(laps=3, forced=native.launch_parameter("align.warps", "small", 0))

    def interleave(self, recordings: dict[str, Any], rounds: int, seed: int) -> dict[str, list[float]]:
        return {label: [float(one.forced)] * rounds for label, one in recordings.items()}


def loaded_bench() -> tuple[GpuBench, FakeTimer, list[str]]:
    timer = FakeTimer()
    bench = GpuBench(rotate_bytes=1 << 16, timer=timer, device="cpu")  # type: ignore[arg-type]
    bench.load(GROUP, [case.scaled(2, 9) for case in GROUP.cases[:2]])
    return bench, timer, [case.name for case in GROUP.cases[:2]]


def test_every_label_is_recorded_with_its_value_forced() -> None:
    bench, timer, names = loaded_bench()
    assert all(len(sets) >= 2 for sets in bench.sets.values())
    times = bench.times("align.warps", "small", 16, [8, 32], rounds=7, seed=0)
    assert list(times) == names
    for by_label in times.values():
        assert {label: column[0] for label, column in by_label.items()} == {
            CURRENT: 16.0,
            CONTROL: 16.0,
            "8": 8.0,
            "32": 32.0,
        }
    assert timer.laps == [None, 3, 3, 3] * 2  # one lap count for all values of a case
    assert native.launch_parameter("align.warps", "small", 0) == 16
    bench.unload()
    assert not bench.sets and not bench.expected
    native.reset_launch_parameters()


def test_a_result_that_differs_is_caught_and_the_value_given_back() -> None:
    bench, _, names = loaded_bench()
    bench.expected[names[1]] = [tensor + 1 for tensor in bench.expected[names[1]]]
    with pytest.raises(CheckFailed, match=f"{names[1]}: align.warps = 16 changes the result"):
        bench.times("align.warps", "small", 16, [8], rounds=7, seed=0)
    assert native.launch_parameter("align.warps", "small", 0) == 16
    native.reset_launch_parameters()


def test_same_bits() -> None:
    a = torch.tensor([1.0, float("nan"), 0.0])
    assert same([a], [a.clone()], exact=True) and not same([a], [a, a], exact=True)
    assert not same([torch.tensor([0.0])], [torch.tensor([-0.0])], exact=True)
    assert same([torch.tensor([100.0, 1.0])], [torch.tensor([100.0, 1.0001])], exact=False)
    assert not same([torch.tensor([100.0, 1.0])], [torch.tensor([100.0, 1.1])], exact=False)
    assert same([torch.tensor(3)], [torch.tensor(3)], exact=True) and not same([a], [a.double()], exact=True)


class FakeReplays(timing.GraphTimer):
    """Replays that take as long as their graph says."""

    def _replay(self, graphs: Sequence[Any], repeats: int) -> list[float]:
        return [float(graphs[turn % len(graphs)]) for turn in range(repeats)]


def test_interleaved_replays_take_turns_and_keep_their_names() -> None:
    recordings: dict[str, Any] = {
        name: timing.Recording(graph, [], 1, calls)  # type: ignore[arg-type]
        for name, graph, calls in (("a", 2.0, 4), ("b", 3.0, 1), ("c", 8.0, 2))
    }
    times = FakeReplays().interleave(recordings, rounds=5, seed=1)
    assert times == {"a": [500.0] * 5, "b": [3000.0] * 5, "c": [4000.0] * 5}


# ---- The command ---------------------------------------------------------------------------------------------------


class FakeGpu(FakeBench):
    """Every parameter's least value takes half the time."""

    def __init__(self) -> None:
        super().__init__({p["name"]: dict.fromkeys(p["values"], 2.0) for p in native.launch_parameters()})
        for costs in self.costs.values():
            costs[min(costs)] = 1.0
        self.native = native


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A made-up GPU, and results and a table of its own; its folder of results."""
    facts = {**result()["provenance"], "arguments": ["--write"]}
    monkeypatch.setattr(tune_bench, "GpuBench", FakeGpu)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(provenance, "provenance", lambda device, arguments: dict(facts))
    monkeypatch.setattr(provenance, "clocks", lambda: None)
    monkeypatch.setattr(provenance, "machine_slug", lambda device: "made-up")
    monkeypatch.setattr(launch_table, "RESULTS", tmp_path)
    monkeypatch.setattr(launch_table, "TABLE", tmp_path / "launch_table.inc")
    return tmp_path / "made-up"


def test_the_command_leaves_results_and_a_table(gpu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune.main(["--write"]) == 0
    told = capsys.readouterr().out
    results = json.loads((gpu / "tune.json").read_text())
    listed = native.launch_parameters()
    assert results["complete"] and len(results["entries"]) == 3 * len(listed) and results["arch"] == 90
    assert all(results["table"][p["name"]]["small"] == min(p["values"]) for p in listed)
    assert "align.threads" in told and "written: csrc/common/launch_table.inc" in told
    assert launch_table.TABLE.read_text() == launch_table.text([results], listed)
    assert f"[RC_TUNE_ALIGN_THREADS] = {{{', '.join(['32'] * 3)}}}" in launch_table.TABLE.read_text()


def test_a_search_afresh_starts_from_the_defaults(gpu: Path) -> None:
    starts = {}
    for options in ([], ["--afresh"]):
        assert tune.main(["--only", "voxel_tile_narrow", *options]) == 0
        entries = json.loads((gpu / "tune.json").read_text())["entries"]
        starts[len(options)] = {entry["before"] for entry in entries}
    default = next(p["default"] for p in native.launch_parameters() if p["name"] == "voxel_tile.cells_narrow")
    assert starts[1] == {default} and default not in starts[0]  # the table holds others


def test_a_later_run_keeps_the_entries_that_still_say_why() -> None:
    def entry(parameter: str, shape_class: str, chosen: int, date: str) -> dict[str, Any]:
        return {"parameter": parameter, "shape_class": shape_class, "chosen": chosen, "date": date}

    table = {"align.threads": {"small": 32, "large": 64}, "align.warps": {"small": 16}}
    anew = [entry("align.threads", "small", 32, "new")]
    held = entry("align.threads", "large", 64, "old")
    earlier = [
        entry("align.threads", "small", 128, "old"),  # measured anew
        held,
        entry("align.warps", "small", 8, "old"),  # the table says otherwise by now
        entry("align.gone", "small", 1, "old"),  # no such parameter any more
    ]
    assert tune.merged(anew, {"entries": earlier}, table) == [held, *anew]
    assert tune.merged(anew, {}, table) == anew


def test_a_budget_that_is_spent_is_told(gpu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune.main(["--budget", "1e-9"]) == 0
    results = json.loads((gpu / "tune.json").read_text())
    assert not results["complete"] and results["entries"] == [] and "left out" in capsys.readouterr().err


# ---- What is tuned on what -----------------------------------------------------------------------------------------


def test_every_parameter_has_a_group_and_every_class_cases() -> None:
    parameters, ends = native.launch_parameters(), native.shape_class_ends()
    tasks = tune.tasks_of(tune_cases.GROUPS, parameters, ends)
    covered = [(task.parameter, task.shape_class) for task in tasks]
    assert sorted(covered) == sorted((p["name"], name) for p in parameters for name in ends)
    assert all(len({case.name for case in task.cases}) == len(task.cases) > 0 for task in tasks)


def test_shape_classes() -> None:
    assert [tune_cases.shape_class(work, ENDS) for work in (0, (1 << 18) - 1, 1 << 18, 1 << 22)] == [
        "small",
        "small",
        "medium",
        "large",
    ]


def test_command_line() -> None:
    assert tune.parse(["--only", "align"]).only == ["align"]
    for wrong in (
        ["--only", "nothing"],
        ["--budget", "0"],
        ["--rounds", "3"],
        ["--device", "cpu"],
        ["--write", "--out", "x"],
    ):
        with pytest.raises(SystemExit):
            tune.parse(wrong)
    assert "align.threads" in tune.listing()
