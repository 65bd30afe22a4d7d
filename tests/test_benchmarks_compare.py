"""The ratchet, on synthetic results: what loses, what is noise, what is refused, what tightens the baseline."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import attention_cases, cases, comparable, compare, graphs, store, verdicts, voxel_cases

from .made_results import WARM, compared, found, host_costs, results, stats


@pytest.fixture
def run(tmp_path: Path) -> Any:
    return lambda *arguments: compared(tmp_path, *arguments)


# ---- Measurements ----------------------------------------------------------------------------------------------------


def test_a_planted_loss_of_15_percent_fails(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    base, new = results(1), results(2, factor=1.15)
    assert found(base, new) == "slower" and found(base, new, "b") == "same" and found(base, new, what=WARM) == "same"
    assert run(base, new) == 1
    assert "a robocache cold: 1.1" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(2, 40))
def test_noise_does_not_fail(seed: int) -> None:
    """Other draws of the same distribution, and a median 5 % higher: within what runs differ by."""
    assert not [v for v in verdicts.compare_results(results(1), results(seed)) if v.lost or v.verdict == "noise"]
    assert not [v for v in verdicts.compare_results(results(1), results(seed, factor=1.05)) if v.lost]


def test_over_the_limit_within_wide_intervals_is_noise(run: Any) -> None:
    base, new = results(1), results(2)
    base["cases"][0]["variants"]["robocache"]["cold"] = stats(6.2, 1, noise=0.2)
    new["cases"][0]["variants"]["robocache"]["cold"] = stats(6.2 * 1.15, 2, noise=0.2)
    assert found(base, new) == "noise" and run(base, new) == 0


def test_a_loss_of_p99_alone_fails(run: Any) -> None:
    base, new = results(1), results(2)
    new["cases"][1]["variants"]["robocache"]["cold"] = stats(88.0, 5, tail=1.6)
    assert found(base, new, "b") == "slower P99" and run(base, new) == 1
    one = stats(88.0, 5)
    one |= {"p99": one["p99"] * 1.5, "ci95_p99": [one["ci95_p99"][0], one["p99"] * 1.6]}  # one stray timing
    new["cases"][1]["variants"]["robocache"]["cold"] = one
    assert found(base, new, "b") == "noise" and run(base, new) == 0


def test_files_without_intervals_of_p99_are_read(run: Any, tmp_path: Path) -> None:
    base, new = results(1), results(2)
    for row in base["cases"]:
        for variant in row["variants"].values():
            for one in variant.values():
                del one["ci95_p99"]
    assert run(base, new, "--markdown", str(tmp_path / "report.md")) == 0
    assert "P99 not judged" in (tmp_path / "report.md").read_text()
    assert run(base, results(2, factor=1.15)) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("median", math.nan),
        ("median", 0.0),
        ("median", -6.2),
        ("median", None),
        ("median", "6.2"),
        ("p99", math.inf),
        ("ci95", None),
        ("ci95", [6.0, math.nan]),
        ("ci95", [7.0, 6.0]),
        ("ci95", [0.1, 0.2]),  # not around the median
        ("ci95_p99", None),
        ("ci95_p99", [6.5]),
        ("repeats", None),
    ],
)
def test_statistics_that_are_none_are_errors(
    run: Any, capsys: pytest.CaptureFixture[str], key: str, value: Any
) -> None:
    base, new = results(1), results(2)
    new["cases"][0]["variants"]["robocache"]["cold"][key] = value
    assert found(base, new) == "error" and run(base, new) == 1
    assert f"error: {key}: expected" in capsys.readouterr().out
    base, new = results(1), results(2)
    new["cases"][0]["variants"]["robocache"]["cold"].pop(key)
    assert found(base, new) == "error" and run(base, new) == 1
    new["cases"][0]["variants"]["robocache"]["cold"] = None
    assert found(base, new) == "error" and run(base, new) == 1
    new["cases"][0]["variants"]["robocache"] = None
    assert found(base, new) == "missing" and run(base, new) == 1


def test_a_baseline_whose_statistics_are_none_is_refused(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    base = results(1)
    base["cases"][0]["variants"]["robocache"]["cold"]["median"] = 0.0
    assert run(base, results(2)) == 2
    assert (
        "a robocache cold: the baseline's median: expected a finite number above 0, got 0.0" in capsys.readouterr().err
    )


def test_p99_of_few_timings_is_not_judged_and_told(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, new = results(1), results(2)
    new["cases"][1]["variants"]["robocache"]["cold"] = stats(88.0, 5, tail=1.6, repeats=90)
    assert found(base, new, "b") == "same"
    assert run(base, new, "--markdown", str(tmp_path / "report.md")) == 0
    assert "1 without P99" in capsys.readouterr().out
    report = (tmp_path / "report.md").read_text()
    assert "P99 not judged: 90 timings" in report and "P99 of 1 measurements is not judged" in report


# ---- Cases -----------------------------------------------------------------------------------------------------------


def test_what_is_gone_or_broken_fails(run: Any) -> None:
    base = results(1)
    missing = results(2)
    del missing["cases"][1]
    assert [v.case for v in verdicts.compare_results(base, missing) if v.verdict == "missing"] == ["b"]
    assert run(base, missing) == 1
    unmeasured = results(2)
    del unmeasured["cases"][0]["variants"]["robocache"]["warm"]
    assert found(base, unmeasured, what=WARM) == "missing" and run(base, unmeasured) == 1
    broken = results(2)
    broken["cases"][2] |= {"variants": {}, "errors": {"robocache": "CheckFailed: off"}}
    assert found(base, broken, "c", "robocache") == "error" and run(base, broken) == 1
    peer = results(2)
    del peer["cases"][0]["variants"]["eager"]
    peer["cases"][0]["errors"] = {"eager": "out of memory"}
    assert run(base, peer) == 0  # a peer's failure is not our loss


def test_new_cases_are_told_and_broken_new_cases_fail(run: Any) -> None:
    base, new = results(1), results(2)
    new["cases"].append({**new["cases"][0], "name": "d"})
    assert found(base, new, "d", "case") == "new" and run(base, new) == 0
    new["cases"][-1] = {"name": "d", "variants": {}, "errors": {"robocache": "no"}}
    assert run(base, new) == 1


@pytest.mark.parametrize("variant", ["op", "ring", "borrow", "store", "loader", "robocache-other"])
def test_every_variant_of_ours_is_judged(run: Any, variant: str) -> None:
    base, new = results(1), results(2)
    for content, us in ((base, 5.0), (new, 6.0)):
        content["cases"][0]["variants"][variant] = {"cold": stats(us, 3)}
    assert found(base, new, what=f"{variant} cold") == "slower" and run(base, new) == 1
    del new["cases"][0]["variants"][variant]
    assert found(base, new, what=f"{variant} cold") == "missing"
    new["cases"][0]["errors"][variant] = "out of memory"
    assert [v.words for v in verdicts.compare_results(base, new) if v.lost] == ["out of memory"]
    del base["cases"][0]  # a new case whose error is of that variant
    assert run(base, new) == 1


def test_a_new_measurement_of_a_known_case_is_told(run: Any) -> None:
    base, new = results(1), results(2)
    del base["cases"][0]["variants"]["robocache"]["warm"]
    assert found(base, new, what=WARM) == "new" and run(base, new) == 0
    new["cases"][0]["variants"]["robocache"]["warm"]["median"] = math.nan
    assert found(base, new, what=WARM) == "error" and run(base, new) == 1


def test_a_new_case_without_a_measurement_fails(run: Any) -> None:
    base, new = results(1), results(2)
    new["cases"].append({"name": "d", "variants": {}, "errors": {}})
    assert found(base, new, "d", "case") == "error" and run(base, new) == 1


@pytest.mark.parametrize(("key", "value"), [("batch", 31), ("order", "sorted"), ("batch", None)])
def test_other_work_under_an_old_name_fails(run: Any, capsys: pytest.CaptureFixture[str], key: str, value: Any) -> None:
    base, new = results(1), results(2)
    before = new["cases"][0].get(key)
    new["cases"][0] |= {key: value, "tags": ["published"], "bytes": {"total": 7}, "speedup": {"eager": 9.0}}
    assert found(base, new, "a", "case") == "changed" and run(base, new) == 1
    assert f"{key} is {before} in the baseline, {value} now" in capsys.readouterr().out
    new["cases"][0][key] = before
    assert run(base, new) == 0  # what measuring leaves in a row may differ


SUITES: dict[str, Callable[[str], Any]] = {
    "align": cases.select,
    "voxelize": voxel_cases.select,
    "attention": attention_cases.select,
    "graphs": lambda device: graphs.select(device, None),
    "store": store.select,
}


def test_what_rows_hold_beside_outcomes_is_what_describes_the_case() -> None:
    derived = {"align"}  # attention: the name of the case whose alignment it times
    for path in sorted((Path(compare.__file__).parent / "results").glob("nvidia-*/*.json")):
        if comparable.is_results(path) and path.stem in SUITES:
            described = {case.name: set(case.describe()) for case in SUITES[path.stem]("cuda")}
            for row in comparable.read(path)["cases"]:
                assert set(row) - verdicts.MEASURED - derived <= described[row["name"]], row["name"]
                assert not (described[row["name"]] - {"tags"}) & verdicts.MEASURED


def test_a_case_that_stands_twice_is_refused(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    doubled = results(2)
    doubled["cases"].append(doubled["cases"][0])
    for base, new in ((results(1), doubled), (doubled, results(3))):
        assert run(base, new) == 2 and "holds case a more than once" in capsys.readouterr().err


# ---- The host's costs ------------------------------------------------------------------------------------------------


def host_found(base: Any, new: Any) -> set[str]:
    return {v.verdict for v in compare.judge_suite(base, new) if v.case == "host"}


def test_host_costs_are_judged(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    base, new = results(1, host=host_costs()), results(2, host=host_costs(1.2))
    assert host_found(base, new) == {"slower"} and run(base, new) == 1
    assert "host no_grad resample: 1.200" in capsys.readouterr().out
    assert run(base, results(2, host=host_costs(1.05))) == 0
    assert run(base, results(2, host=host_costs(0.5))) == 0
    assert host_found(base, results(2)) == {"missing"} and run(base, results(2)) == 1
    broken = results(2, host=host_costs())
    broken["host"]["grad"]["resample"]["median"] = math.nan
    assert host_found(base, broken) == {"error", "same"} and run(base, broken) == 1
    failed = results(2, host={**host_costs(), "errors": {"grad": {"resample": "no"}}})
    del failed["host"]["grad"]["resample"]
    told = [(v.what, v.words) for v in compare.judge_suite(base, failed) if v.lost]
    assert told == [("grad resample", "no")] and run(base, failed) == 1
    assert run(results(1), failed) == 1  # an error needs no baseline


def test_a_slower_host_is_no_loss(run: Any) -> None:
    """clone() tells how fast the host is; a faster one makes nothing of ours slower."""
    base = results(1, host=host_costs())
    assert host_found(base, results(2, host=host_costs(1.3, clone=7.5 * 1.3))) == {"noise"}
    assert host_found(base, results(2, host=host_costs(1.0, clone=7.5 / 2))) == {"same"}
    assert run(base, results(2, host=host_costs(1.6, clone=7.5 * 1.3))) == 1


def test_host_costs_of_another_processor_are_not_judged(run: Any, tmp_path: Path) -> None:
    base, new = results(1, host=host_costs()), results(2, host=host_costs(1.5))
    new["provenance"]["cpu_count"] = 64
    assert run(base, new, "--markdown", str(tmp_path / "report.md")) == 0
    assert (
        "The host's costs are not judged: the baseline's are of A CPU, 16 cores" in (tmp_path / "report.md").read_text()
    )


# ---- What cannot be compared -----------------------------------------------------------------------------------------


PLAN = results(1)["plan"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "expected schema 1, got 2"),
        ({"suite": "voxelize"}, "suite: the baseline is of align, the new results of voxelize"),
        ({"device": "cpu"}, "device: the baseline is of cuda"),
        ({"plan": {"rotate_bytes": 7, "max_sets": 2}}, "plan: rotate_bytes is 1 in the baseline, 7 now"),
        ({"plan": {**PLAN, "quick": True}}, "plan: quick is None in the baseline, True now"),
        ({"plan": {**PLAN, "repeats": 99}}, "plan: repeats is 100 in the baseline, only 99 now"),
        ({"cases": {}}, "holds no 'cases'"),
        ({"cases": [{}]}, "expected a name in every case"),
        ({"provenance": None}, "holds no 'provenance'"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    run: Any, capsys: pytest.CaptureFixture[str], change: Any, words: str
) -> None:
    assert run(results(1), results(2, **change)) == 2
    assert words in capsys.readouterr().err
    assert run(results(1), results(2, plan={**PLAN, "repeats": 200})) == 0  # more of them are better


def test_another_machine_is_refused_unless_told(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = results(2)
    new["provenance"]["gpu"] = "Another GPU"
    assert run(results(1), new) == 2
    assert "machine: the baseline is of A GPU, the new results of Another GPU" in capsys.readouterr().err
    assert run(results(1), new, "--anyway", "--markdown", str(tmp_path / "report.md")) == 0
    assert "of another machine: A GPU" in (tmp_path / "report.md").read_text()
    (tmp_path / "torn.json").write_text("{")
    assert compare.main([str(tmp_path / "torn.json"), str(tmp_path / "new.json")]) == 2


@pytest.mark.parametrize(
    ("suite", "device", "refused"),
    [
        ("align", "cuda", False),
        ("voxelize", "cuda", False),
        ("store", "cuda", True),
        ("graphs", "cuda", True),
        ("training", "cuda", True),
        ("align", "cpu", True),
    ],
)
@pytest.mark.parametrize("change", [{"cpu": "Another CPU"}, {"cpu_count": 8}])
def test_another_processor_is_refused_where_the_host_is_timed(
    run: Any, capsys: pytest.CaptureFixture[str], suite: str, device: str, refused: bool, change: Any
) -> None:
    base, new = (results(seed, suite=suite, device=device) for seed in (1, 2))
    new["provenance"] |= change
    assert run(base, new) == (2 if refused else 0)
    assert ("machine: the baseline is of" in capsys.readouterr().err) == refused


def test_results_in_which_nothing_is_judged_do_not_pass(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    empty = [results(seed, cases=[]) for seed in (1, 2)]
    assert run(*empty) == 2 and "hold nothing of ours that could be judged" in capsys.readouterr().err
    assert run(*(results(seed, suite="dispatch") for seed in (1, 2))) == 2
    assert "dispatch: its rows hold no intervals" in capsys.readouterr().err


# ---- The committed results -------------------------------------------------------------------------------------------


def test_the_committed_results_compare_with_themselves() -> None:
    for path in sorted((Path(compare.__file__).parent / "results").glob("*/*.json")):
        if comparable.is_results(path):
            one = comparable.read(path)
            told = compare.judge_suite(one, one)
            assert {v.verdict for v in told} == {"same"} and len(told) >= len(one["cases"]), path
