"""The tuner without a GPU: its rule on planted timings, its search, and the table that it writes."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import launch_table, tune, tune_cases
from benchmarks.measure import CheckFailed
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
    for wrong in (["--only", "nothing"], ["--budget", "0"], ["--rounds", "3"], ["--device", "cpu"]):
        with pytest.raises(SystemExit):
            tune.parse(wrong)
    assert "align.threads" in tune.listing()


# ---- The table -----------------------------------------------------------------------------------------------------


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


def test_the_text_of_a_table() -> None:
    won = {"small": 32, "medium": 64, "large": 128}
    text = launch_table.text([result(align_threads=won), result(100)], PARAMETERS)
    for words in ("90: NVIDIA H200, 2026-01-02", "driver 580.1, CUDA 13.0, nvcc release 13.0", "commit abc"):
        assert words in text
    assert "python -m benchmarks.tune --write\n" in text
    assert text.index(".arch = 90") < text.index(".arch = 100")
    assert "[RC_TUNE_ALIGN_THREADS] = {32, 64, 128}," in text and "[RC_TUNE_ALIGN_WARPS] = {16, 16, 16}," in text
    assert launch_table.text([result(100), result(align_threads=won)], PARAMETERS) == text


def test_gpus_of_one_capability_share_a_row_and_the_newest_has_it() -> None:
    old = result(date="2026-01-01T00:00:00+00:00", align_threads=dict.fromkeys(ENDS, 32))
    text = launch_table.text([result(), old], PARAMETERS)
    assert text.count(".arch") == 1 and "[RC_TUNE_ALIGN_THREADS] = {128, 128, 128}," in text


def test_results_of_another_build_are_refused() -> None:
    lacking = result()
    del lacking["table"]["align.warps"]
    with pytest.raises(ValueError, match=r"table of 90: expected a value of align.warps, got none; tune anew"):
        launch_table.text([lacking], PARAMETERS)
    with pytest.raises(ValueError, match=r"align.nothing is no launch parameter of this build"):
        launch_table.text([result(align_nothing=dict.fromkeys(ENDS, 1))], PARAMETERS)
    with pytest.raises(ValueError, match=r"align.threads: expected one of \[32, 64, 128\], got 48"):
        launch_table.text([result(align_threads=dict.fromkeys(ENDS, 48))], PARAMETERS)
    hostile = copy.deepcopy(result())
    hostile["provenance"]["arguments"] = ["*/ {.arch = 1} /*"]
    assert launch_table.text([hostile], PARAMETERS).count("*/") == 3  # the head's end, and two about the format


def test_the_committed_table_is_what_the_committed_results_say() -> None:
    assert launch_table.TABLE.read_text() == launch_table.text(launch_table.committed(), native.launch_parameters())


def test_every_parameter_stands_in_every_row_and_in_the_enumeration() -> None:
    header = (launch_table.TABLE.parent / "launch_table.h").read_text()
    names = [launch_table.enumerator(parameter["name"]) for parameter in native.launch_parameters()]
    assert re.findall(r"^    (RC_TUNE_\w+),", header, re.MULTILINE) == names
    rows = launch_table.TABLE.read_text().split(".arch = ")[1:]
    assert len(rows) == len({r["arch"] for r in launch_table.committed()})
    for row in rows:
        assert re.findall(r"\[(RC_TUNE_\w+)\]", row) == names


def test_the_results_on_disk_are_found(tmp_path: Path) -> None:
    assert launch_table.text(launch_table.committed(tmp_path), PARAMETERS).count("No GPU has been measured") == 1
    (tmp_path / "nvidia-h200").mkdir()
    (tmp_path / "nvidia-h200" / "tune.json").write_text(json.dumps(result()))
    assert launch_table.committed(tmp_path) == [result()]
