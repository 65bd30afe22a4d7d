"""What README and the docs show of the results: headlines, whole tables, numbers in the text, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import committed, evidence, report, timing
from benchmarks.evidence import Results

README, PAGE = Path("README.md"), Path("docs/performance.md")


def row(name: str, ours: float, **peers: float) -> dict[str, Any]:
    variants = {key: {"cold": timing.summarize([us] * 3, 1).as_dict()} for key, us in peers.items()}
    variants["robocache"] = {"cold": timing.summarize([ours] * 3, 1).as_dict(), "warm": {"median": ours / 2}}
    made: dict[str, Any] = {"name": name, "variants": variants, "errors": {}, "share_of_bandwidth": 0.43}
    return made | {"bytes": {"total": 1000}, "floor_us": 2.0}


def file(suite: str, *rows: dict[str, Any], machine: str = "a-gpu", device: str = "cuda") -> Results:
    facts = {"gpu": "A GPU", "driver": "1", "cuda": "13", "cpu": "A CPU", "threads": 2, "torch": "2.11"}
    facts |= {"date": "2026-01-01", "git": {"commit": "c" * 40, "dirty": False}}
    content = {"suite": suite, "device": device, "provenance": facts, "plan": {"repeats": 100}, "cases": list(rows)}
    content["bandwidth"] = {"bytes_per_second": 4.2e12}
    content["host"] = {"no_grad": {"clone": {"median": 5.5, "of_clone": 1.0}}}
    return Results(machine, suite, content)


ALIGN = file("align", row("fuse-256-128-bf16", 6.2, eager=77.4, compile=8.7), row("other", 12.0))
GRAPHS = file("rollout", row("pipeline", 20.0, eager=90.0))


def block(name: str, inside: str = "") -> str:
    begin, end = report.markers(name)
    return f"{begin}\n{inside}\n{end}\n"


def pages(readme: str = "", page: str = "", suites: tuple[str, ...] = ("align", "rollout")) -> dict[Path, str]:
    return {
        README: f"# A\n\n## Performance\n\n{readme}\n{block('headline')}\n## B\n\nTakes 3 us, 4x as fast.\n",
        PAGE: f"# P\n\n{page}\n" + "".join(block(suite) for suite in suites),
    }


def test_headlines_and_whole_tables_of_known_and_new_suites() -> None:
    drawn, wrong = evidence.draw(pages(), [ALIGN, GRAPHS])
    assert wrong == []
    assert "| align | `fuse-256-128-bf16` | 6.20 | 77.4 | 8.70 (compile) | 1.40x | 43% |" in drawn[README]
    assert "other" not in drawn[README] and "| rollout | `pipeline` |" in drawn[README]
    assert "### align on A GPU" in drawn[PAGE] and "| other |" in drawn[PAGE]
    assert "| case | robocache | P99 | eager |" in drawn[PAGE]  # a suite without columns of its own
    again, _ = evidence.draw(drawn, [ALIGN, GRAPHS])
    assert again == drawn


def test_each_machine_has_its_section() -> None:
    other = file("align", row("cpu-fuse-256-128-bf16", 144.0, eager=4736.0), machine="a-cpu", device="cpu")
    drawn, wrong = evidence.draw(pages(suites=("align",)), [ALIGN, other])
    assert wrong == [] and drawn[PAGE].index("### align on A GPU") < drawn[PAGE].index("### align on A CPU, 2 threads")
    assert drawn[README].count("| suite | case |") == 2


def test_a_changed_result_changes_the_pages() -> None:
    drawn, _ = evidence.draw(pages(), [ALIGN, GRAPHS])
    faster = copy.deepcopy(ALIGN)
    faster.content["cases"][0]["variants"]["robocache"]["cold"]["median"] = 6.1
    again, _ = evidence.draw(drawn, [faster, GRAPHS])
    assert again[README] != drawn[README] and again[PAGE] != drawn[PAGE]


def test_a_suite_without_a_place_is_told() -> None:
    _, wrong = evidence.draw(pages(suites=("align",)), [ALIGN, GRAPHS])
    assert wrong == ["rollout: expected its markers on one page, found them on 0"]
    drawn, wrong = evidence.draw(pages(suites=("align", "rollout", "voxelize")), [ALIGN, GRAPHS])
    assert wrong == [] and drawn[PAGE].endswith(block("voxelize"))  # nothing measured, nothing shown


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("fuse-256-128-bf16#median", "6.20"),
        ("fuse-256-128-bf16#p99", "6.20"),
        ("fuse-256-128-bf16#warm.median", "3.10"),
        ("fuse-256-128-bf16#eager.median", "77.4"),
        ("fuse-256-128-bf16#ratio:compile", "1.40"),
        ("fuse-256-128-bf16#share", "43"),
        ("host#clone", "5.50"),
        ("copy#GB/s", "4200"),
    ],
)
def test_numbers_in_the_text_are_drawn(what: str, told: str) -> None:
    drawn, wrong = evidence.draw(pages(f"It is <!-- n:a-gpu/align/{what} -->0<!-- /n --> us."), [ALIGN, GRAPHS])
    assert wrong == [] and f"-->{told}<!-- /n --> us." in drawn[README]


@pytest.mark.parametrize(
    "key", ["a-gpu/align/no-such-row#median", "a-gpu/voxelize/x#median", "median", "a-gpu/align/other#eager.median"]
)
def test_a_number_without_a_result_is_told(key: str) -> None:
    _, wrong = evidence.draw(pages(page=f"<!-- n:{key} -->7<!-- /n --> us"), [ALIGN, GRAPHS])
    assert len(wrong) == 1 and key in wrong[0]


@pytest.mark.parametrize(
    "words",
    [
        *("6.2 us", "14x faster", "1.4 x", "95 % of it", "4238 GB/s", "60 G points/s", "3 ms", "60 % of its bound"),
        *("6.2 microseconds", "1 millisecond", "3 seconds", "2.5 s", "40 sec", "7 minutes", "1e3 ns", "a 6-us call"),
        *("95 percent", "95 per cent", "43%", "4.2 GiB/s", "4 TB/s", "800 TFLOP/s", "800 TFLOPS", "5 Gbit/s"),
        *("900 samples/s", "3.5k steps/sec", "900 samples a second", "60 G points per second", "9 us/call"),
        *("14 times as fast", "1.5 times the time of eager", "10-fold", "10 fold", "tenfold", "ten-fold", "10 %"),
        *("twice as fast", "three times faster", "half the time", "**6.2** us", "6.2 **us**", "6.2&nbsp;us", "~14x"),
    ],
)
def test_bare_numbers_with_units_are_told(words: str) -> None:
    for place in ({"readme": f"Takes {words}."}, {"page": f"Takes {words}."}):
        _, wrong = evidence.draw(pages(**place), [ALIGN, GRAPHS])
        assert len(wrong) == 1 and "has no result" in wrong[0], words


@pytest.mark.parametrize(
    "words",
    [
        *("its 95 % confidence interval", "under 60 % of its floor", "`--limit 3 us`", "B = 32", "a 3x3 grid", "2e-5"),
        *(
            "twice as many samples",
            "3 streams",
            "100 timings",
            "16 samples",
            "bf16 x",
            "2 minimal sets",
            "60 MB",
            "v2.10",
        ),
    ],
)
def test_rules_code_and_sizes_are_no_numbers(words: str) -> None:
    assert evidence.bare_numbers(words) == []


def test_a_range_is_told() -> None:
    assert evidence.bare_numbers("It takes 10-20 us, of which 3–4 % wait.") == ["20 us", "4 %"]


def test_a_key_does_not_reach_past_the_next() -> None:
    key = "<!-- n:a-gpu/align/fuse-256-128-bf16#median -->"
    drawn, wrong = evidence.draw(pages(page=f"{key}7 us, {key}8<!-- /n --> us"), [ALIGN, GRAPHS])
    assert wrong == ["performance.md: '7 us' has no result: write it with a key"]
    assert f"{key}7 us, {key}6.20<!-- /n --> us" in drawn[PAGE]


@pytest.mark.parametrize("page", [README, PAGE, Path("docs/store.md")], ids=lambda path: path.stem)
def test_markers_that_nobody_draws_are_told_and_hide_nothing(page: Path) -> None:
    given = {**pages(), Path("docs/store.md"): "# S\n"}
    given[page] = given[page].replace("\n## B\n", f"{block('mine', 'Takes 6 us.')}\n## B\n") + block("headlines")
    if page == PAGE:
        given[page] += block("mine", "Takes 6 us.")
    if page == Path("docs/store.md"):
        given[page] += block("mine") + block("plots")  # what performance.md alone shows
    _, wrong = evidence.draw(given, [ALIGN, GRAPHS])
    stray = ["mine", "headlines", *(["plots"] if page.stem == "store" else [])]
    for name in stray:
        assert any(
            w.startswith(f"{page.name}: {report.markers(name)[0]}: expected a marker that is drawn") for w in wrong
        )
    hidden = [words for words in wrong if words.startswith(f"{page.name}: '6 us' has no result")]
    assert len(wrong) == len(stray) + len(hidden) and len(hidden) == (page.stem != "store")


def test_what_the_side_by_side_report_draws_is_no_stray() -> None:
    given = pages()
    given[PAGE] += block("findings", "| a | 50% of its bound |") + block("plots", "![takes 6 us](plots/a.svg)")
    assert evidence.draw(given, [ALIGN, GRAPHS])[1] == []


TOOL = {"exit_status": 0, "tests_passed": 12, "errors": 0, "passed": True}
TESTS = {"kind": "tests", "exit_status": 0, "tests": 9, "failures": 0, "errors": 0, "skipped": 2, "time": 138.4}
SOAK = {"kind": "soak", "rounds": {"align": 5}, "seconds": 9.0, "failures": [], "memory_flat": True, "passed": True}
DDP = {"kind": "training-ddp", "rows": {"eager": {"times": {"ready": 1.9}}}, "complete": True}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (TESTS, "9 tests, 0 failed, 2 skipped, 138 s"),
        ({**TESTS, "failures": 1, "exit_status": 1}, "**FAILED**, 9 tests, 1 failed, 2 skipped, 138 s"),
        ({**TESTS, "exit_status": 1}, "**FAILED**, 9 tests, 0 failed, 2 skipped, 138 s"),
        ({"kind": "sanitize", "tools": {"memcheck": TOOL}}, "memcheck: 12 tests, 0 errors"),
        (
            {"kind": "sanitize", "tools": {"memcheck": TOOL, "racecheck": {**TOOL, "exit_status": 1, "passed": False}}},
            "memcheck: 12 tests, 0 errors; racecheck: **FAILED**, 12 tests, 0 errors",
        ),
        (
            {"kind": "sanitize", "tools": {"memcheck": {**TOOL, "errors": None, "passed": False}}},
            "memcheck: **FAILED**, 12 tests, no count of errors",
        ),
        ({"kind": "sanitize", "tools": {}}, "**FAILED**, no tool"),
        ({**SOAK, "passed": False, "memory_flat": False}, "**FAILED**, 5 rounds in 9 s, 0 failures, memory grew"),
        ({**DDP, "complete": False}, "**FAILED**, eager ready: 1.900 x one"),
        (DDP, "eager ready: 1.900 x one"),
    ],
)
def test_a_failed_run_is_shown_as_failed(tmp_path: Path, content: dict[str, Any], told: str) -> None:
    facts = {"git": {"commit": "d" * 40, "dirty": False}, "torch": "2.11", "date": "2026-01-02T03:04"}
    (tmp_path / "a-gpu").mkdir()
    (tmp_path / "a-gpu" / "some.json").write_text(json.dumps({**content, "provenance": facts}))
    assert f"| some | a-gpu | {told} | 2.11 |" in evidence.runs(tmp_path)


def test_runs_are_shown_as_they_were_left(tmp_path: Path) -> None:
    facts = {"git": {"commit": "d" * 40, "dirty": True}, "torch": "2.11", "date": "2026-01-02T03:04"}
    left = {
        "tests-gpu": {**TESTS, "failures": 1, "errors": 1, "exit_status": 1},
        "sanitize-gpu": {"kind": "sanitize", "tools": {"memcheck": TOOL}},
        "soak": {**SOAK, "rounds": {"align": 5, "graphs": 6}, "seconds": 120.2},
        "tests-gpu-partial": {"kind": "tests"},
    }
    (tmp_path / "a-gpu").mkdir()
    for name, content in left.items():
        (tmp_path / "a-gpu" / f"{name}.json").write_text(json.dumps({**content, "provenance": facts}))
    table = evidence.runs(tmp_path)
    assert "| tests-gpu | a-gpu | **FAILED**, 9 tests, 2 failed, 2 skipped, 138 s | 2.11 | dddddddddddd+ |" in table
    assert "memcheck: 12 tests, 0 errors" in table and "11 rounds in 120 s, 0 failures, memory flat" in table
    assert len(table.splitlines()) == 5
    given = pages()
    _, wrong = evidence.draw(given, [ALIGN, GRAPHS], table)
    assert wrong == ["runs: expected its markers on one page, found them on 0"]
    given[PAGE] += block("runs")
    drawn, wrong = evidence.draw(given, [ALIGN, GRAPHS], table)
    assert wrong == [] and table in drawn[PAGE]


def test_quick_and_partial_runs_and_test_summaries_are_no_evidence(tmp_path: Path) -> None:
    folder = tmp_path / "a-gpu"
    folder.mkdir()
    for name, text in {"align": '{"cases": []', "align-quick": '{"cases": []', "tests-gpu": '{"tests": 1'}.items():
        (folder / f"{name}.json").write_text(f'{text}, "device": "cuda"}}')
    assert [(one.machine, one.suite) for one in evidence.load(tmp_path)] == [("a-gpu", "align")]


# ---- What keeps a committed file from being evidence -----------------------------------------------------------------


def measured(repeats: int = 100, us: float = 5.0, name: str = "robocache", **plan: Any) -> dict[str, Any]:
    """A suite's results with one timing."""
    times = {"cold": {"median": us, "repeats": repeats}, "first_call_s": 1.0}
    content = {"plan": {"repeats": 100, **plan}, "cases": [{"name": "a", "variants": {name: times}}]}
    return {"complete": True, "provenance": {"git": {"commit": "c" * 40}}, "device": "cuda", **content}


def without_commit(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "provenance": {"git": {"commit": None}}}


BUDGET = {"budget_s": 0.15, "slow_call_ms": 20.0}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({**measured(), "complete": False}, "complete: expected true, got false"),
        ({key: value for key, value in measured().items() if key != "complete"}, "complete: expected true, got null"),
        (without_commit(measured()), "provenance.git.commit: expected the commit that was measured, got none"),
        ({**measured(60), "plan": {"repeats": 60}}, "plan.repeats: expected at least 100, got 60"),
        (measured(repeats=7), "100 of ours and of calls under 20 ms, got 7 of a robocache cold"),
        (measured(repeats=99, us=3e3, name="scipy", **BUDGET), "calls under 20 ms, got 99 of a scipy cold"),
        (measured(repeats=7, us=8e4, **BUDGET), "got 7 of a robocache cold"),  # slow, but ours
        (without_commit({"kind": "tests", "exit_status": 0}), "commit"),
        (without_commit({"kind": "sanitize"}), "commit"),
        (without_commit({"kind": "soak", "passed": True}), "commit"),
        ({**measured(), "kind": "training-ddp", "complete": False}, "complete"),
        (without_commit({"suite": "tune", "complete": True, "plan": {"budget_s": 9.0}}), "commit"),
    ],
)
def test_a_file_that_is_no_evidence_is_told(tmp_path: Path, content: dict[str, Any], told: str) -> None:
    (tmp_path / "a-gpu").mkdir()
    for name in ("some", "some-partial", "some-quick"):
        (tmp_path / "a-gpu" / f"{name}.json").write_text(json.dumps(content))
    (words,) = committed.audit(tmp_path)
    assert words.startswith("a-gpu/some.json: ") and told in words and words.endswith("; measure again")


@pytest.mark.parametrize(
    "content",
    [
        measured(),
        measured(repeats=600),
        measured(repeats=7, us=8e4, name="scipy"),  # a peer's slow call may have fewer
        measured(repeats=60, us=1.9e4, name="eager", **BUDGET),  # its first timing took longer
        {
            **measured(),
            "plan": {"sizes": 40, "budget_s": 0.06},
            "cases": [{"name": "size", "result": "host"}],
        },  # dispatch
        {**measured(), "plan": {}, "cases": [], "kind": "training-ddp"},
        *({"kind": kind, "provenance": measured()["provenance"]} for kind in ("tests", "sanitize", "soak")),
    ],
)
def test_a_kind_is_judged_by_what_it_has(content: dict[str, Any]) -> None:
    assert committed.flaws(Path("a-gpu/some.json"), content) == []


def test_many_short_timings_are_counted() -> None:
    content = measured(repeats=9)
    content["cases"] *= 5
    (words,) = committed.flaws(Path("a-gpu/some.json"), content)
    assert words.count("9 of a robocache cold") == 3 and "and 2 more; measure again" in words


def test_the_command_refuses_what_is_no_evidence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evidence, "read_pages", dict)
    monkeypatch.setattr(evidence, "draw", lambda *arguments: ({}, []))
    for flaw, status in (([], 0), (["a-gpu/some.json: complete: expected true, got null; measure again"], 1)):
        monkeypatch.setattr(evidence, "audit", lambda flaw=flaw: flaw)
        assert evidence.main(["--check"]) == status
    assert capsys.readouterr().err.startswith("a-gpu/some.json: complete")
