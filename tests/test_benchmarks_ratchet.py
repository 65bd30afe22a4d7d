"""The ratchet as `make ratchet` runs it: folders of suites and machines, parts of them, and a report in every case."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import compare

from .made_results import host_costs, results, stats, write

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Compares the folders base and new, and returns the exit status and the report."""

    def compared(*options: str) -> tuple[int, str]:
        report = tmp_path / "out" / "report.md"
        report.unlink(missing_ok=True)
        status = compare.main([str(tmp_path / "base"), str(tmp_path / "new"), "--markdown", str(report), *options])
        return status, report.read_text()

    return compared


def suites(folder: Path, seed: int, *names: str, arguments: tuple[str, ...] = ()) -> None:
    """Results of these suites, run with these arguments."""
    for name in names:
        content = results(seed, suite=name)
        content["provenance"]["arguments"] = list(arguments)
        write(folder / f"{name}.json", content)


def test_folders_are_compared_suite_by_suite(run: Any, tmp_path: Path) -> None:
    suites(tmp_path / "base", 1, "align", "voxelize")
    suites(tmp_path / "new", 2, "align", "voxelize")
    write(tmp_path / "base" / "tests-gpu.json", {"tests": 1})  # no results: passed over
    status, report = run()
    assert status == 0 and "### align on A GPU" in report and "### voxelize on A GPU" in report
    assert report.count("<details>") == 2
    write(tmp_path / "new" / "voxelize.json", results(3, 1.3, suite="voxelize"))
    status, report = run()
    assert status == 1 and "1 of 6 measurements lost" in report
    assert report.index("### voxelize") < report.index("### align")  # what failed first: a comment may be cut


def test_a_suite_that_is_gone_is_told_and_the_others_are_judged(run: Any, tmp_path: Path) -> None:
    suites(tmp_path / "base", 1, "align", "voxelize")
    suites(tmp_path / "new", 2, "voxelize")
    status, report = run()
    assert status == 2 and "### align: not compared" in report and "### voxelize on A GPU: 6 measurements" in report
    write(tmp_path / "new" / "voxelize.json", results(3, 1.3, suite="voxelize"))
    assert run()[0] == 1


def test_a_suite_without_a_baseline_is_told_and_its_errors_fail(run: Any, tmp_path: Path) -> None:
    suites(tmp_path / "base", 1, "align")
    suites(tmp_path / "new", 2, "align", "store")
    status, report = run()
    assert status == 0 and "### store on A GPU" in report and "The baseline holds no results of this suite" in report
    broken = results(2, suite="store")
    broken["cases"][1] |= {"variants": {}, "errors": {"robocache": "CheckFailed: off"}}
    write(tmp_path / "new" / "store.json", broken)
    status, report = run()
    assert status == 1 and "error: CheckFailed: off" in report


def test_files_of_parts_are_passed_over(run: Any, tmp_path: Path) -> None:
    suites(tmp_path / "base", 1, "align")
    suites(tmp_path / "new", 2, "align")
    for name in ("base/store-partial", "base/align-quick", "new/align-partial"):
        write(tmp_path / f"{name}.json", results(3, factor=2.0))
    status, report = run()
    assert status == 0 and report.count("###") == 1


@pytest.mark.parametrize("there", [True, False])
def test_a_machine_without_a_baseline_is_told_what_to_do(run: Any, tmp_path: Path, there: bool) -> None:
    suites(tmp_path / "new" / "a-gpu", 2, "align")
    if there:
        write(tmp_path / "base" / "a-gpu" / "soak.json", {"kind": "soak"})
    status, report = run()
    assert status == 2 and "no baseline for this machine: looked for results in the folder a-gpu" in report
    assert "make bench-gpu" in report and str(tmp_path) not in report


def test_folders_of_machines_are_laid_beside_each_other(run: Any, tmp_path: Path) -> None:
    suites(tmp_path / "base" / "a-gpu", 1, "align", "voxelize")
    suites(tmp_path / "base" / "b-gpu", 1, "align")
    suites(tmp_path / "new" / "a-gpu", 2, "align", "voxelize")
    assert run()[0] == 0
    write(tmp_path / "new" / "a-gpu" / "align.json", results(2, factor=1.15))
    assert run()[0] == 1


def test_a_run_that_wrote_nothing_is_told(run: Any, tmp_path: Path) -> None:
    suites(tmp_path / "base" / "a-gpu", 1, "align")
    for make in (lambda: None, (tmp_path / "new").mkdir, (tmp_path / "new" / "a-gpu").mkdir):
        make()
        status, report = run()
        assert status == 2 and "not compared" in report


def test_a_file_that_cannot_be_read_is_told(run: Any, tmp_path: Path) -> None:
    suites(tmp_path / "base", 1, "align", "voxelize")
    suites(tmp_path / "new", 2, "align", "voxelize")
    (tmp_path / "new" / "align.json").write_text('{"schema": 1, "cas')
    for options in ((), ("--partial",)):
        status, report = run(*options)
        assert status == 2 and "align.json: not a results file" in report and "voxelize on A GPU" in report


# ---- Parts -----------------------------------------------------------------------------------------------------------


def test_suites_that_were_not_asked_for_are_not_missing(run: Any, tmp_path: Path) -> None:
    suites(tmp_path / "base", 1, "align", "store", "voxelize")
    suites(tmp_path / "new", 2, "store", arguments=("--device", "cuda", "--suite", "store"))
    assert run()[0] == 2
    status, report = run("--partial")
    assert status == 0 and report.count("###") == 1
    suites(tmp_path / "new", 2, "store", arguments=("--device", "cuda", "--suite", "store", "--suite=align"))
    status, report = run("--partial")
    assert status == 2 and "no align.json in it" in report and "voxelize" not in report
    suites(tmp_path / "new", 2, "store", arguments=("--device", "cuda", "--ours-only"))
    assert "no voxelize.json in it" in run("--partial")[1]  # all were asked for


@pytest.mark.parametrize("arguments", [("--cases", "a, c*"), ("--filter", "a"), ("--host-only",), ("--no-host",)])
def test_cases_that_were_not_asked_for_are_not_missing(run: Any, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    new = results(2)
    chosen = {"--cases": ["a", "c"], "--filter": ["a"], "--host-only": [], "--no-host": ["a", "b", "c"]}[arguments[0]]
    new["cases"] = [row for row in new["cases"] if row["name"] in chosen]
    if arguments == ("--host-only",):
        new["host"] = host_costs()
    new["provenance"]["arguments"] = ["--device", "cuda", *arguments]
    write(tmp_path / "base" / "align.json", results(1, host=host_costs()))
    write(tmp_path / "new" / "align.json", new)
    assert run()[0] == 1
    status, report = run("--partial")
    left_out = 3 - len(chosen)
    assert status == 0 and (f"{left_out} cases of the baseline were not asked for" in report) == (left_out > 0)
    for row in new["cases"]:
        row["variants"]["robocache"]["cold"] = stats(9000.0, 4)
    new.get("host", {}).update(host_costs(2.0))
    write(tmp_path / "new" / "align.json", new)
    assert run("--partial")[0] == 1
    if new["cases"]:
        new["cases"].pop()
        write(tmp_path / "new" / "align.json", new)
        assert "not in the new results" in run("--partial")[1]


def test_a_quick_run_says_so_in_its_plan(tmp_path: Path) -> None:
    out = tmp_path / "align.json"
    chosen = ["--device", "cpu", "--suite", "align", "--repeats", "3", "--no-host"]
    for arguments, quick in ((chosen, None), ([*chosen, "--quick"], True)):
        results_of_no_case, _ = command.run(command.parse(arguments), arguments, "align", [], out)
        assert results_of_no_case["plan"].get("quick") is quick


# ---- The make target -------------------------------------------------------------------------------------------------

STUB = """#!/bin/sh
# Stands in for python: measures what the test left in $MADE, ends with $STATUS, and hands the comparison on.
case "$*" in
*benchmarks.compare*) shift 2; exec {python} -m benchmarks.compare "$BASE" "$2" $3 "$4" "$5" ;;
*"-m benchmarks "*) [ -n "$MADE" ] && mkdir -p "$OUT_FOLDER/bench" && cp -r "$MADE" "$OUT_FOLDER/bench"; exit $STATUS ;;
*present_gpu*) echo 90 ;;
*setup.py*) exit $BUILD ;;
esac
"""


@pytest.mark.parametrize(
    ("status", "factor", "build", "ends", "told"),
    [
        (0, 1.0, 0, 0, "none lost"),
        (0, 1.15, 0, 2, "1 of 6 measurements lost"),
        (1, 1.0, 0, 2, "none lost"),  # measuring failed: judged all the same, and the status stays
        (1, 1.15, 0, 2, "1 of 6 measurements lost"),
        (1, None, 0, 2, "the run that measures wrote none"),
        (0, 1.0, 1, 2, None),  # no build: the report of an earlier run is gone
    ],
)
def test_make_judges_what_was_measured(
    tmp_path: Path, status: int, factor: float | None, build: int, ends: int, told: str | None
) -> None:
    suites(tmp_path / "base" / "a-gpu", 1, "align")
    if factor is not None:
        write(tmp_path / "made" / "a-gpu" / "align.json", results(2, factor))
    stub, out = tmp_path / "python", tmp_path / "out"
    stub.write_text(STUB.format(python=shlex.quote(sys.executable)))
    stub.chmod(0o755)
    out.mkdir()
    (out / "ratchet.md").write_text("what an earlier run left")
    made = tmp_path / "made" / "a-gpu" if factor is not None else ""
    environment = {**os.environ, "STATUS": str(status), "BUILD": str(build), "MADE": str(made), "OUT_FOLDER": str(out)}
    environment["BASE"] = str(tmp_path / "base")
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        environment.pop(name, None)
    done = subprocess.run(
        ["make", "-C", str(ROOT), "ratchet-gpu", f"PYTHON={stub}", f"OUT={out}"],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == ends, done.stdout + done.stderr
    assert (out / "ratchet.md").exists() == (told is not None)
    if told is not None:
        assert told in (out / "ratchet.md").read_text(), done.stdout + done.stderr
