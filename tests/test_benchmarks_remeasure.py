"""What lost is measured again, in processes of its own: noise does not come back, a slower kernel does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import compare, remeasure

from .made_results import COLD, found, results, stats, write


class Process:
    """Stands in for new processes: results `factors[k]` times as slow in turn, and what was asked for."""

    def __init__(self, *factors: float) -> None:
        self.factors = list(factors)
        self.asked: list[list[str]] = []

    def __call__(self, new: dict[str, Any], cases: Sequence[str]) -> dict[str, Any]:
        self.asked.append(list(cases))
        made = results(40 + len(self.asked), self.factors[len(self.asked) - 1])
        return {**made, "cases": [row for row in made["cases"] if row["name"] in cases]}


def folders(tmp_path: Path, factor: float, suite: str = "align") -> tuple[Path, Path]:
    write(tmp_path / "base" / f"{suite}.json", results(1, suite=suite))
    write(tmp_path / "new" / f"{suite}.json", results(2, factor, suite=suite))
    return tmp_path / "base", tmp_path / "new"


def test_a_loss_that_does_not_come_back_is_replaced_with_its_provenance(tmp_path: Path) -> None:
    base, new = folders(tmp_path, 1.3)
    before = json.loads((new / "align.json").read_text())
    process = Process(1.25, 1.0, 1.0)
    assert remeasure.remeasure(base, new, 2, process) == {"align": [f"a {COLD}"]}
    assert process.asked == [["a"], ["a"]]  # only what lost, until it held
    after = json.loads((new / "align.json").read_text())
    assert found(results(1), after) in ("same", "noise", "faster")
    measured = after["cases"][0]["variants"]["robocache"]
    assert measured["cold"]["provenance"]["git"]["commit"] == results(42)["provenance"]["git"]["commit"]
    assert measured["warm"] == before["cases"][0]["variants"]["robocache"]["warm"]  # did not lose: stays
    assert after["cases"][1:] == before["cases"][1:]
    report = tmp_path / "report.md"
    assert compare.main([str(base), str(new), "--markdown", str(report)]) == 0
    assert "1 measurements lost at first and did not" in report.read_text()


def test_a_slower_kernel_loses_every_time(tmp_path: Path) -> None:
    base, new = folders(tmp_path, 1.15)
    before = (new / "align.json").read_text()
    process = Process(1.15, 1.16, 1.15)
    assert remeasure.remeasure(base, new, 2, process) == {"align": []}
    assert len(process.asked) == 2 and (new / "align.json").read_text() == before
    assert compare.main([str(base), str(new)]) == 1


def test_what_did_not_lose_is_not_measured_again(tmp_path: Path) -> None:
    base, new = folders(tmp_path, 1.0)
    assert remeasure.remeasure(base, new, 2, Process()) == {}


def test_training_and_what_is_missing_are_left_to_the_comparison(tmp_path: Path) -> None:
    base, new = folders(tmp_path, 1.3, "training")
    write(base / "store.json", results(1, suite="store"))
    write(new / "voxelize.json", results(1, 1.3, suite="voxelize"))
    assert remeasure.remeasure(base, new, 2, Process()) == {}


def test_a_broken_measurement_replaces_nothing(tmp_path: Path) -> None:
    base, new = folders(tmp_path, 1.3)

    def broken(content: dict[str, Any], cases: Sequence[str]) -> dict[str, Any]:
        made = results(41)
        made["cases"][0]["variants"]["robocache"]["cold"] = {**stats(6.2, 1), "median": float("nan")}
        return made

    assert remeasure.remeasure(base, new, 1, broken) == {"align": []}
    assert compare.main([str(base), str(new)]) == 1


def test_a_suite_that_cannot_be_compared_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, new = folders(tmp_path, 1.3, "voxelize")
    write(base / "align.json", results(1))
    write(new / "align.json", results(2, plan={"repeats": 100, "rotate_bytes": 1, "max_sets": 3}))
    assert remeasure.remeasure(base, new, 1, Process(1.0)) == {"voxelize": [f"a {COLD}"]}
    assert "align: not measured again: plan: max_sets" in capsys.readouterr().err


def test_no_baseline_is_told_and_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "new" / "align.json", results(1))
    assert remeasure.main([str(tmp_path / "base"), str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out == ""


def test_the_new_process_measures_the_cases_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[str]] = []

    def run(words: list[str], check: bool) -> None:
        told.append(words)
        options = command.parse(words[3:])
        assert (options.suite, options.cases, options.ours_only, options.no_host) == (["align"], "a,b", True, True)
        write(options.out, results(7))

    monkeypatch.setattr(remeasure.subprocess, "run", run)
    again = remeasure.measure_again(results(1), ["a", "b"])
    assert again is not None and len(again["cases"]) == 3 and len(told) == 1
    monkeypatch.setattr(remeasure.subprocess, "run", lambda words, check: None)
    assert remeasure.measure_again(results(1), ["a"]) is None
