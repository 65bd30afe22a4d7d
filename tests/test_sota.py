"""The side-by-side report: findings, reasons, tables, plots and their index, from synthetic and committed results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import findings, plots, reasons, report, sota
from benchmarks.findings import Finding
from benchmarks.reasons import Reason

pytest.importorskip("matplotlib")


def timed(us: float) -> dict[str, Any]:
    return {"cold": {"median": us, "p99": us, "ci95": [us, us], "repeats": 100}}


def row(name: str, us: float, share: float | None = None, **peers: float) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "batch": 2, "targets": 10, "streams": [{"columns": 4}], "errors": {}}
    made |= {"bytes": {"total": 4000}, "variants": {"robocache": timed(us), "op": timed(us / 2)}}
    made["variants"] |= {peer.replace("_", "-"): timed(one) for peer, one in peers.items()}
    return made | ({} if share is None else {"share_of_bandwidth": share, "floor_us": us * share})


def results(*rows: dict[str, Any], device: str = "cuda", suite: str = "align") -> dict[str, Any]:
    facts: dict[str, Any] = {"gpu": "NVIDIA H300", "driver": "1", "cuda": "14", "torch": "3", "date": "2026-01-01T00"}
    facts |= {"cpu": "A CPU", "threads": 2, "git": {"commit": "abc", "dirty": False}}
    made = {"suite": suite, "device": device, "provenance": facts, "plan": {"repeats": 100}, "cases": list(rows)}
    return made | {"complete": True, "bandwidth": {"bytes_per_second": 4e12}}


FAST = row("fast", 10.0, 0.9, eager=50.0, compile=12.0)
SLOWER = row("slower", 10.0, 0.8, eager=50.0, compile=8.0, triton=9.0)
BELOW = row("below", 10.0, 0.5, eager=50.0)
BOTH = row("both", 10.0, 0.1, triton=5.0)
ALL = results(FAST, SLOWER, BELOW, BOTH, row("single", 3.0))
REASONS = (
    Reason("slower", "cuda", "align", ("slower", "bo*"), "It is so."),
    Reason("bound", "cuda", "align", ("below", "both"), "Small."),
    Reason("slower", "cpu", "align", ("slower",), "Of another device."),
)


# ---- Findings and reasons ------------------------------------------------------------------------------------------


def test_findings_are_drawn_from_the_results() -> None:
    found = {one.case: one for one in findings.findings(ALL)}
    assert set(found) == {"slower", "below", "both"}
    assert found["slower"] == Finding("nvidia-h300", "cuda", "align", "slower", "compile", 0.8, None)
    assert found["below"].words() == "50% of its bound"
    assert found["both"].words() == "0.50x against triton, 10% of its bound"
    assert findings.findings(results(FAST, suite="attention")) == []
    assert findings.findings(results({"name": "failed", "variants": {}, "errors": {"robocache": "x"}})) == []


def test_our_own_operator_is_no_peer() -> None:
    assert findings.fastest_peer(FAST) == ("compile", 1.2)
    assert findings.fastest_peer(row("alone", 3.0)) is None


def test_a_finding_without_a_reason_is_missing_and_a_reason_without_one_stale() -> None:
    found = findings.findings(ALL)
    assert findings.missing(found, REASONS) == []
    assert [pattern for _, pattern in findings.stale(found, REASONS)] == ["slower"]  # the CPU's
    assert [one.case for one in findings.missing(found, REASONS[1:])] == ["slower", "both"]
    fewer = findings.findings(results(FAST, BELOW))
    assert [pattern for _, pattern in findings.stale(fewer, REASONS[:2])] == ["slower", "bo*", "both"]
    other = Reason("slower", "cuda", "align", ("*",), "Elsewhere.", machine="nvidia-h100")
    assert len(findings.missing(found, [other])) == 3


def test_a_reason_for_the_bound_does_not_excuse_a_faster_peer() -> None:
    both = [one for one in findings.findings(ALL) if one.case == "both"]
    assert findings.reasons_of(both[0], REASONS) == {"slower": "It is so.", "bound": "Small."}
    assert findings.reasons_of(both[0], REASONS[1:]) == {"slower": None, "bound": "Small."}
    assert findings.missing(both, REASONS[1:]) == both and findings.missing(both, REASONS[:1]) == both


def test_every_row_of_the_committed_results_has_its_reason() -> None:
    found = sota.all_findings(sota.load(sota.paths()))
    assert findings.missing(found) == [], "give each of these rows a reason in benchmarks/reasons.py"
    texts = [reason.text for reason in reasons.REASONS]
    assert all(text.endswith(".") and len(text) > 30 for text in texts)


# ---- Tables --------------------------------------------------------------------------------------------------------


def test_the_page_shows_ratios_winners_reasons_and_absences() -> None:
    absent = [{**FAST, "absent": {"cupy": "it has none"}}] * 5
    page = sota.page([ALL, results(*absent, suite="voxelize")], REASONS)
    lines = page.splitlines()
    assert "| slower | 10.0 | 5.00x | 0.80x | 0.90x | compile |" in lines
    assert "| fast | 10.0 | 5.00x | 1.20x | - | robocache |" in lines
    assert "| single | 3.00 | - | - | - | - |" in lines
    assert "| `both` | 0.50x against triton, 10% of its bound | It is so. Small. |" in lines
    assert "RoboCache is the fastest in 2 of the 4 rows that have a peer." in lines
    assert "- *cupy*: it has none (`fast`, `fast`, `fast` and 2 more)" in lines
    assert "- align, cpu, slower: `slower`" in lines  # stale
    assert "**No reason is given why it is slower.**" in sota.findings_markdown([ALL], REASONS[1:])
    assert "none of 1 rows" in sota.findings_markdown([results(FAST)])


def test_the_page_says_what_compiling_took() -> None:
    tuned = {**SLOWER, "variants": {**SLOWER["variants"], "triton": {**timed(9.0), "first_call_s": 2.6}}}
    assert "tuning included: triton 5 s over 2 rows." in sota.section(results(tuned, tuned))
    assert "tuning" not in sota.section(ALL)


def test_results_of_suites_that_came_later_do_not_end_the_report() -> None:
    plain = {"name": "steps", "errors": {}, "variants": {"robocache": timed(5.0), "eager": timed(9.0)}}
    later = results(plain, suite="graphs")
    assert sota.plots([later]) == [("nvidia-h300-graphs-ratio.svg", sota.plots([later])[0][1])]
    assert "| steps | 5.00 | 1.80x | robocache |" in sota.page([later], ())
    other = results({"name": "curve", "errors": {}}, suite="dispatch")
    del other["bandwidth"]
    assert sota.plots([other]) == [] and "are no comparison" in sota.page([other], ())


# ---- Plots ---------------------------------------------------------------------------------------------------------


def test_plots_are_named_without_being_drawn() -> None:
    named = sota.plots([ALL, results(FAST, device="cpu")])
    kinds = [file.removesuffix(".svg") for file, _ in named]
    assert kinds[:3] == ["nvidia-h300-align-roofline", "nvidia-h300-align-speed", "nvidia-h300-align-ratio"]
    assert kinds[3:] == ["a-cpu-2-threads-align-speed", "a-cpu-2-threads-align-ratio"]
    assert sota.plots_markdown([ALL]).count("](plots/nvidia-h300-align-") == 3


def test_plots_are_the_same_each_time_and_hold_their_rows(tmp_path: Path) -> None:
    first, second = plots.draw([ALL], tmp_path / "a"), plots.draw([ALL], tmp_path / "b")
    assert [path.name for path in first] == [file for file, _ in sota.plots([ALL])]
    for one, other in zip(first, second, strict=True):
        text = one.read_text()
        assert text == other.read_text() and "<dc:date>" not in text and len(text) < 60_000
    ratio = first[2].read_text()
    assert all(name in ratio for name in ("slower", "both", "triton", "compile")) and "single" not in ratio
    assert "a large copy, same run" in first[0].read_text()
    changed = results(row("fast", 11.0, 0.9, eager=50.0, compile=12.0), *ALL["cases"][1:])
    plots.draw([changed], tmp_path / "c")
    assert (tmp_path / "c" / first[2].name).read_text() != ratio


def test_speed_is_of_what_a_call_makes() -> None:
    assert plots.amount(FAST) == (2 * 10 * 4, "output values")
    assert plots.amount({"batch": 3, "points": 100}) == (300, "points")
    assert plots.amount({"name": "other"}) is None


# ---- Files and the command -----------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "results" / "nvidia-h300"
    folder.mkdir(parents=True)
    (folder / "align.json").write_text(json.dumps(ALL))
    (folder / "align-quick.json").write_text(json.dumps(ALL))
    (folder / "note.json").write_text("{}")
    text = [mark for name in ("findings", "plots") for mark in report.markers(name)]
    (tmp_path / "performance.md").write_text("\n".join(["before", *text, "after\n"]))
    monkeypatch.setattr(sota, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(sota, "PAGE", tmp_path / "comparison.md")
    monkeypatch.setattr(sota, "PERFORMANCE", tmp_path / "performance.md")
    return tmp_path


def test_the_command_writes_and_checks(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tree / "plots")]
    assert [path.name for path in sota.paths(tree / "results")] == ["align.json"]
    assert sota.main([*out, "--check"]) == 1 and "is missing" in capsys.readouterr().err
    (tree / "plots").mkdir()
    (tree / "plots" / "gone.svg").write_text("old")
    assert sota.main(out) == 1  # written, but three rows have no reason
    told = capsys.readouterr().err
    assert told.count("no reason in benchmarks/reasons.py") == 3 and "stale reason" in told
    assert not (tree / "plots" / "gone.svg").exists()
    page = (tree / "performance.md").read_text()
    assert page.startswith("before\n") and page.endswith("after\n") and "| `both` |" in page and "(plots/" in page
    files = sota.paths(tree / "results")
    assert sota.check(files, sota.load(files), tree / "plots") == []
    assert set(json.loads((tree / "plots" / "index.json").read_text())["results"]) == {"nvidia-h300/align.json"}

    files[0].write_text(json.dumps(ALL) + "\n")  # the same rows, another file
    wrong = sota.check(files, sota.load(files), tree / "plots")
    assert wrong == ["plots/index.json is not of these results"]
    files[0].write_text(json.dumps({**ALL, "seconds": 1.0}))  # an index that was put right by hand
    kept = tree / "plots" / "index.json"
    kept.write_text(json.dumps(sota.index(files, sota.load(files), tree / "plots")))
    wrong = sota.check(files, sota.load(files), tree / "plots")
    assert len(wrong) == 3 and all(words.endswith("was drawn from other results") for words in wrong)
    (tree / "plots" / "nvidia-h300-align-ratio.svg").unlink()
    assert "plots/nvidia-h300-align-ratio.svg is missing" in sota.check(files, sota.load(files), tree / "plots")
    files[0].write_text(json.dumps({**ALL, "complete": False}))
    assert sota.main(out) == 1 and sota.check(files, sota.load(files), tree / "plots") == [
        "nvidia-h300/align.json: complete: expected true, got false: not all of it was measured; measure again"
    ]
    with pytest.raises(SystemExit, match="no results of other"):
        sota.main(["--machine", "other"])


def test_a_plot_that_was_changed_by_hand_is_told(tree: Path) -> None:
    sota.main(["--out", str(tree / "plots")])
    files = sota.paths(tree / "results")
    results_, plot = sota.load(files), tree / "plots" / "nvidia-h300-align-ratio.svg"
    assert sota.check(files, results_, tree / "plots") == []
    drawn = plot.read_text()
    plot.write_text(drawn.replace("slower", "faster"))  # what it says of its results stays
    wrong = sota.check(files, results_, tree / "plots")
    assert len(wrong) == 1 and wrong[0].startswith("plots/nvidia-h300-align-ratio.svg is not as drawn: SHA-256 ")
    plot.write_text(drawn)
    assert sota.check(files, results_, tree / "plots") == []
    kept = tree / "plots" / "index.json"
    told = json.loads(kept.read_text())
    del told["plots"][0]["sha256"]  # an index that vouches for no content
    kept.write_text(json.dumps(told))
    assert [words.endswith("index.json holds none") for words in sota.check(files, results_, tree / "plots")] == [True]


def test_the_command_prints_a_machine(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "REASONS", REASONS)
    assert sota.main(["--machine", "nvidia-h300", "--out", str(tree / "plots")]) in (0, 1)
    assert "# Side by side" in capsys.readouterr().out
    assert len(list((tree / "plots").glob("*.svg"))) == 3 and not (tree / "comparison.md").exists()


def test_pages_and_plots_are_of_the_committed_results() -> None:
    files = sota.paths()
    wrong = sota.check(files, sota.load(files), sota.PLOTS)
    assert wrong == [], "\n".join(["measure again what must be, then run python -m benchmarks.sota:", *wrong])
