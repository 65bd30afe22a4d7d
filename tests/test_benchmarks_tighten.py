"""What tightens a baseline: better measurements alone, of a clean and whole run, each with its provenance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compare, report

from .made_results import compared, found, results, stats, write


@pytest.fixture
def run(tmp_path: Path) -> Any:
    return lambda *arguments: compared(tmp_path, *arguments)


def rows(path: Path) -> dict[str, Any]:
    return {row["name"]: row for row in json.loads(path.read_text())["cases"]}


def test_better_measurements_tighten_the_baseline_and_keep_their_provenance(run: Any, tmp_path: Path) -> None:
    base, better = results(1), results(2, factor=0.8)
    assert found(base, better) == "faster" and run(base, better) == 0
    assert json.loads((tmp_path / "base.json").read_text()) == base  # not asked, not touched
    assert run(base, better, "--tighten") == 0
    merged = json.loads((tmp_path / "base.json").read_text())
    taken = rows(tmp_path / "base.json")["a"]["variants"]
    wanted = {**better["cases"][0]["variants"]["robocache"]["cold"], "provenance": better["provenance"]}
    assert taken["robocache"]["cold"] == wanted and merged["provenance"] == base["provenance"]
    assert merged["cases"][1:] == base["cases"][1:]
    assert run(merged, results(3)) == 1  # what was good enough before is a loss now
    again = results(4, factor=0.6)
    assert run(merged, again, "--tighten", "--out", str(tmp_path / "third.json")) == 0
    taken = rows(tmp_path / "third.json")["a"]["variants"]
    assert taken["robocache"]["cold"]["provenance"] == again["provenance"]


def test_only_what_is_faster_is_replaced(run: Any, tmp_path: Path) -> None:
    """The row's other measurements may be worse within the limits: they must not become the baseline."""
    base, new = results(1), results(2, factor=0.8)
    new["cases"][0]["variants"]["robocache"]["warm"] = stats(0.7 * 6.2 * 1.08, 11)
    assert run(base, new, "--tighten") == 0
    taken = rows(tmp_path / "base.json")["a"]["variants"]
    assert taken["robocache"]["warm"] == base["cases"][0]["variants"]["robocache"]["warm"]
    assert taken["robocache"]["cold"]["median"] == new["cases"][0]["variants"]["robocache"]["cold"]["median"]


def test_a_faster_median_with_a_longer_tail_is_not_taken(run: Any, tmp_path: Path) -> None:
    base, new = results(1), results(2)
    new["cases"][1]["variants"]["robocache"]["cold"] = stats(88.0 * 0.9, 5, tail=1.25)
    assert found(base, new, "b") == "faster"
    assert run(base, new, "--tighten") == 0
    assert json.loads((tmp_path / "base.json").read_text()) == base


def test_p99_that_was_judged_stays_judged(run: Any, tmp_path: Path) -> None:
    base, new = results(1), results(2)
    new["cases"][1]["variants"]["robocache"]["cold"] = stats(88.0 * 0.8, 5, repeats=40)
    assert found(base, new, "b") == "faster" and run(base, new, "--tighten") == 0
    assert json.loads((tmp_path / "base.json").read_text()) == base


def test_peers_of_the_baseline_stay_where_the_run_had_none(run: Any, tmp_path: Path) -> None:
    base, new = results(1), results(2, factor=0.5)
    ours, eager = (base["cases"][0]["variants"][name]["cold"]["median"] for name in ("robocache", "eager"))
    base["cases"][0] |= {"speedup": {"eager": eager / ours}, "bytes_per_second": 1e9, "share_of_bandwidth": 0.4}
    del new["cases"][0]["variants"]["eager"]
    assert run(base, new, "--tighten") == 0
    row = rows(tmp_path / "base.json")["a"]
    faster = row["variants"]["robocache"]["cold"]["median"]
    assert row["variants"]["eager"] == base["cases"][0]["variants"]["eager"]
    assert row["speedup"] == {"eager": eager / faster}  # what follows from our time follows the new one
    assert row["bytes_per_second"] == pytest.approx(1e9 * ours / faster)
    assert row["share_of_bandwidth"] == pytest.approx(0.4 * ours / faster)


def test_new_cases_come_in_with_their_provenance(run: Any, tmp_path: Path) -> None:
    base, new = results(1), results(2)
    new["cases"].append({**new["cases"][0], "name": "d"})
    assert run(base, new, "--tighten") == 0
    assert rows(tmp_path / "base.json")["d"] == {**new["cases"][-1], "provenance": new["provenance"]}


def test_a_run_with_a_loss_tightens_nothing(run: Any, tmp_path: Path) -> None:
    base, new = results(1), results(2, factor=0.8)
    del new["cases"][2]
    assert run(base, new, "--tighten") == 1
    assert json.loads((tmp_path / "base.json").read_text()) == base


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"complete": False}, "expected a run that ended well, got complete: False"),
        ({"git": {"commit": "f" * 40, "dirty": True}}, "expected results of a commit without changes"),
        ({"git": {"commit": None, "dirty": None}}, "expected results of a commit without changes"),
    ],
)
def test_what_is_no_whole_run_of_a_commit_is_refused(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, words: str
) -> None:
    base, new = results(1), results(2, factor=0.8)
    (new["provenance"] if "git" in change else new).update(change)
    assert run(base, new) == 0  # judged all the same
    assert run(base, new, "--tighten") == 2 and words in capsys.readouterr().err
    assert json.loads((tmp_path / "base.json").read_text()) == base


def test_results_of_another_machine_tighten_nothing(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(results(1), results(2), "--tighten", "--anyway")
    assert "--tighten: expected no --anyway beside it" in capsys.readouterr().err


def test_captions_list_the_commits_of_a_tightened_file(run: Any, tmp_path: Path) -> None:
    base, better = results(1), results(2, factor=0.8)
    for one in (base, better):
        one["bandwidth"] = {"bytes_per_second": 1e12}
        one["provenance"] |= {"driver": "1", "cuda": "13"}
    assert report.caption(base).endswith(f"Commit {'1' * 12}, 2026-01-02.")
    assert run(base, better, "--tighten") == 0
    told = report.caption(json.loads((tmp_path / "base.json").read_text()))
    assert told.endswith(
        f"Commit {'1' * 12}, 2026-01-02; some measurements of ours of commit {'2' * 12} of 2026-01-03."
    )
    merged = json.loads((tmp_path / "base.json").read_text())
    assert run(merged, merged, "--markdown", str(tmp_path / "report.md")) == 0
    assert f"Base {'1' * 12} of 2026-01-02, {'2' * 12} of 2026-01-03" in (tmp_path / "report.md").read_text()


def test_training_is_committed_whole(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its variants are shares of a ceiling of the same run."""
    base, new = results(1, suite="training"), results(2, factor=0.8, suite="training")
    assert run(base, new, "--tighten") == 0 and "commit a whole new run" in capsys.readouterr().out
    assert json.loads((tmp_path / "base.json").read_text()) == base


def test_folders_are_tightened_suite_by_suite(tmp_path: Path) -> None:
    for suite in ("align", "voxelize"):
        write(tmp_path / "base" / f"{suite}.json", results(1, suite=suite))
        write(tmp_path / "new" / f"{suite}.json", results(2, 0.8 if suite == "align" else 1.0, suite=suite))
    before = (tmp_path / "base" / "voxelize.json").read_text()
    assert compare.main([str(tmp_path / "base"), str(tmp_path / "new"), "--tighten"]) == 0
    assert (tmp_path / "base" / "voxelize.json").read_text() == before
    assert "provenance" in rows(tmp_path / "base" / "align.json")["a"]["variants"]["robocache"]["cold"]
    write(tmp_path / "new" / "align.json", results(3, 0.5))
    write(tmp_path / "new" / "voxelize.json", results(3, suite="voxelize", complete=False))
    before = (tmp_path / "base" / "align.json").read_text()
    assert compare.main([str(tmp_path / "base"), str(tmp_path / "new"), "--tighten"]) == 2
    assert (tmp_path / "base" / "align.json").read_text() == before  # one suite is refused: none is tightened
