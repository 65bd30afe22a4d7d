"""The ratchet, on synthetic results: what loses, what is noise, what is refused, what tightens the baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import compare, timing, verdicts

COLD, WARM = "robocache cold", "robocache warm"


def stats(us: float, seed: int, noise: float = 0.02, tail: float = 1.0, repeats: int = 100) -> dict[str, Any]:
    """Statistics of made-up timings around `us`; a tenth takes `tail` times as long."""
    times = us * np.random.default_rng(seed).normal(1.0, noise, repeats)
    times[: repeats // 10] *= tail
    return timing.summarize(times, 1).as_dict()


def results(seed: int, factor: float = 1.0, **changes: Any) -> dict[str, Any]:
    """Three rows, the first `factor` times as slow as the others would make it."""
    rows = []
    for number, (name, us) in enumerate((("a", 6.2), ("b", 88.0), ("c", 2800.0))):
        slow = factor if number == 0 else 1.0
        variants = {
            "robocache": {"cold": stats(us * slow, seed + number), "warm": stats(0.7 * us, seed + 10 + number)},
            "eager": {"cold": stats(us * 9 * slow, seed + 20 + number)},
        }
        rows.append({"name": name, "variants": variants, "errors": {}})
    facts = {"gpu": "A GPU", "torch": "2.11", "date": f"2026-01-0{1 + seed % 9}", "git": {"commit": "f" * 40}}
    facts["git"]["dirty"] = False
    made = {"schema": 1, "suite": "align", "device": "cuda", "provenance": facts, "cases": rows}
    return {**made, "plan": {"repeats": 100, "rotate_bytes": 1, "max_sets": 2}, **changes}


@pytest.fixture
def run(tmp_path: Path) -> Any:
    def compared(base: Any, new: Any, *options: str) -> int:
        for name, content in (("base", base), ("new", new)):
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return compare.main([str(tmp_path / "base.json"), str(tmp_path / "new.json"), *options])

    return compared


def found(base: Any, new: Any, case: str = "a", what: str = COLD) -> str:
    return next(v.verdict for v in verdicts.compare_results(base, new) if (v.case, v.what) == (case, what))


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
    base["cases"][0]["variants"]["robocache"]["cold"] = stats(6.2, 1, noise=0.2, repeats=20)
    new["cases"][0]["variants"]["robocache"]["cold"] = stats(6.2 * 1.15, 2, noise=0.2, repeats=20)
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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "expected schema 1, got 2"),
        ({"suite": "voxelize"}, "suite: the baseline is of align, the new results of voxelize"),
        ({"device": "cpu"}, "device: the baseline is of cuda"),
        ({"plan": {"rotate_bytes": 7, "max_sets": 2}}, "plan: rotate_bytes is 1 in the baseline, 7 now"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    run: Any, capsys: pytest.CaptureFixture[str], change: Any, words: str
) -> None:
    new = results(2, **change)
    new["provenance"] |= {"cpu": "A CPU", "threads": 2}
    assert run(results(1), new) == 2
    assert words in capsys.readouterr().err


def test_another_machine_is_refused_unless_told(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = results(2)
    new["provenance"]["gpu"] = "Another GPU"
    assert run(results(1), new) == 2
    assert "machine: the baseline is of A GPU, the new results of Another GPU" in capsys.readouterr().err
    assert run(results(1), new, "--anyway", "--markdown", str(tmp_path / "report.md")) == 0
    assert "of another machine: A GPU" in (tmp_path / "report.md").read_text()
    (tmp_path / "torn.json").write_text("{")
    assert compare.main([str(tmp_path / "torn.json"), str(tmp_path / "new.json")]) == 2


def test_better_rows_tighten_the_baseline_and_keep_their_provenance(run: Any, tmp_path: Path) -> None:
    base, better = results(1), results(2, factor=0.8)
    assert found(base, better) == "faster" and run(base, better) == 0
    assert json.loads((tmp_path / "base.json").read_text()) == base  # not asked, not touched
    assert run(base, better, "--tighten") == 0
    merged = json.loads((tmp_path / "base.json").read_text())
    rows = {row["name"]: row for row in merged["cases"]}
    assert rows["a"]["variants"] == better["cases"][0]["variants"]
    assert rows["a"]["provenance"] == better["provenance"] != base["provenance"] == rows["c"]["provenance"]
    assert rows["c"]["variants"] == base["cases"][2]["variants"] and merged["provenance"] == base["provenance"]
    assert run(merged, results(3)) == 1  # what was good enough before is a loss now
    again = results(4, factor=0.6)
    assert run(merged, again, "--tighten", "--out", str(tmp_path / "third.json")) == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "third.json").read_text())["cases"]}
    assert rows["a"]["provenance"] == again["provenance"] and rows["c"]["provenance"] == base["provenance"]


def test_a_run_with_a_loss_tightens_nothing(run: Any, tmp_path: Path) -> None:
    base, new = results(1), results(2, factor=0.8)
    del new["cases"][2]
    assert run(base, new, "--tighten") == 1
    assert json.loads((tmp_path / "base.json").read_text()) == base


def test_folders_are_compared_suite_by_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, seed in (("base", 1), ("new", 2)):
        (tmp_path / folder).mkdir()
        for suite in ("align", "voxelize"):
            (tmp_path / folder / f"{suite}.json").write_text(json.dumps(results(seed, suite=suite)))
    (tmp_path / "base" / "tests-gpu.json").write_text(json.dumps({"tests": 1}))  # no results: passed over
    arguments = [str(tmp_path / "base"), str(tmp_path / "new"), "--markdown", str(tmp_path / "out" / "report.md")]
    assert compare.main(arguments) == 0
    report = (tmp_path / "out" / "report.md").read_text()
    assert "### align on A GPU" in report and "### voxelize on A GPU" in report and report.count("<details>") == 2
    (tmp_path / "new" / "voxelize.json").write_text(json.dumps(results(3, 1.3, suite="voxelize")))
    assert compare.main(arguments) == 1
    assert "1 of 6 measurements lost" in (tmp_path / "out" / "report.md").read_text()
    (tmp_path / "new" / "align.json").unlink()
    assert compare.main(arguments) == 2 and "no align.json" in capsys.readouterr().err


def test_the_committed_results_compare_with_themselves() -> None:
    for path in sorted((Path(compare.__file__).parent / "results").glob("*/*.json")):
        if compare.is_results(path):
            one = compare.read(path)
            told = verdicts.compare_results(one, one)
            assert {v.verdict for v in told} == {"same"} and len(told) >= len(one["cases"]), path
