"""What runs leave beside the results: the summary of tests, of sanitizers and of a soak."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import soak
from benchmarks.measure import CheckFailed
from build_tools import sanitize_gpu

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = """
    import pytest

    def test_good(): pass
    def test_bad(): assert False
    def test_left(): pytest.skip("not today")
    @pytest.fixture
    def broken(): raise ValueError
    def test_error(broken): pass
"""


# ---- Tests -----------------------------------------------------------------------------------------------------------


def run_sample(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs the sample's tests with a summary `some`."""
    (folder / "tests").mkdir(exist_ok=True)
    (folder / "tests" / "test_sample.py").write_text(textwrap.dedent(SAMPLE))
    (folder / "pytest.ini").write_text("[pytest]\ntestpaths = tests\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "build_tools.test_summary"]
    command += ["--summary", "some", "--summary-folder", str(folder), *options]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment = {**outside, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "workers"])
def test_a_run_leaves_its_summary(tmp_path: Path, workers: tuple[str, ...]) -> None:
    done = run_sample(tmp_path, "-p", "no:cacheprovider", *workers)
    assert done.returncode == 1 and (tmp_path / "some.json").exists(), done.stdout + done.stderr
    told = json.loads((tmp_path / "some.json").read_text())
    counts = {"tests": 4, "failures": 1, "errors": 1, "skipped": 1}
    assert {key: told[key] for key in counts} == counts and told["exit_status"] == 1
    assert told["files"]["tests/test_sample.py"].items() >= counts.items() and len(told["failed"]) == 2
    assert {"date", "git", "torch", "cpu", "arguments"} <= set(told["provenance"])
    assert str(tmp_path) not in (tmp_path / "some.json").read_text()


@pytest.mark.parametrize(
    ("options", "tests"),
    [
        (("-k", "good"), 1),
        (("-m", "nothing"), 0),
        (("--deselect", "tests/test_sample.py::test_bad"), 3),
        (("--ignore", "tests/test_other.py"), 4),
        (("--ignore-glob", "*other*"), 4),
        (("--collect-only",), 0),
        (("--maxfail", "1"), 2),
        (("-x", "-n", "1"), None),
        (("--stepwise",), 2),
        (("--setup-plan",), None),
        (("tests/test_sample.py",), 4),
    ],
    ids=lambda one: one[0].lstrip("-") if isinstance(one, tuple) else "",
)
def test_a_part_of_the_tests_leaves_a_partial_summary(
    tmp_path: Path, options: tuple[str, ...], tests: int | None
) -> None:
    done = run_sample(tmp_path, *options)
    assert (tmp_path / "some-partial.json").exists() and not (tmp_path / "some.json").exists(), done.stdout
    told = json.loads((tmp_path / "some-partial.json").read_text())["tests"]
    assert tests is None or told == tests, done.stdout


def test_a_file_that_cannot_be_collected_leaves_a_partial_summary(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_broken.py").write_text("import nothing_of_that_name\n")
    done = run_sample(tmp_path, "--continue-on-collection-errors")
    assert done.returncode == 1 and (tmp_path / "some-partial.json").exists(), done.stdout
    assert not (tmp_path / "some.json").exists()


# ---- Sanitizers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said", "passed", "errors"),
    [
        (0, "12 passed, 3 deselected in 9 s\n========= ERROR SUMMARY: 0 errors\n", True, 0),
        (0, "12 passed in 9 s\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n", True, 0),
        (0, "12 passed in 9 s\n========= RACECHECK SUMMARY: 2 hazards displayed (0 errors, 2 warnings)\n", False, 2),
        (1, "12 passed in 9 s\n========= ERROR SUMMARY: 1 error\n", False, 1),
        (1, "1 failed, 11 passed in 9 s\n========= ERROR SUMMARY: 0 errors\n", False, 0),
        (0, "no tests ran\n========= ERROR SUMMARY: 0 errors\n", False, 0),
        (0, "12 passed in 9 s\n", False, None),
    ],
)
def test_what_a_sanitizer_says(status: int, said: str, passed: bool, errors: int | None) -> None:
    told = sanitize_gpu.verdict(status, said)
    assert (told["passed"], told["errors"]) == (passed, errors)


def test_a_missing_sanitizer_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sanitize_gpu.main(["--out", str(tmp_path / "x.json")]) == 1
    with pytest.raises(SystemExit):
        sanitize_gpu.main(["--tools", "guesscheck"])


def test_the_summary_of_sanitizers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from benchmarks import provenance

    tool = tmp_path / "compute-sanitizer"
    tool.write_text("#!/bin/sh\necho '7 passed in 1 s'\necho \"========= ERROR SUMMARY: 0 errors\"\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(provenance, "provenance", lambda device, arguments: {"device": device})
    out = tmp_path / "sanitize.json"
    assert sanitize_gpu.main(["--out", str(out), "--tools", "memcheck,synccheck"]) == 0
    told = json.loads(out.read_text())
    assert set(told["tools"]) == {"memcheck", "synccheck"} and told["tools"]["memcheck"]["tests_passed"] == 7


# ---- Soak ------------------------------------------------------------------------------------------------------------


def test_memory_is_read_while_no_thread_works() -> None:
    gate, stop, inside, seen = soak.Gate(), threading.Event(), [0], []

    def work() -> None:
        while not stop.is_set():
            with gate.working():
                inside[0] += 1
                time.sleep(0.001)
                inside[0] -= 1

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(20):
        with gate.resting():
            before = inside[0]
            time.sleep(0.003)
            seen.append((before, inside[0]))
    stop.set()
    thread.join()
    assert seen == [(0, 0)] * 20


def test_a_short_soak_leaves_its_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "soak.json"
    arguments = ["--device", "cpu", "--minutes", str(2 / 60), "--threads", "2", "--seed", "3", "--out", str(out)]
    assert soak.main(arguments) == 0, capsys.readouterr().out
    told = json.loads(out.read_text())
    assert (
        told["passed"]
        and told["memory_flat"] is None
        and told["failures"] == []
        and set(told["rounds"]) == {"align", "voxelize"}
    )
    assert told["provenance"]["arguments"][:2] == ["--device", "cpu"]


def test_a_wrong_answer_is_noted_and_fails() -> None:
    def wrong(rng: random.Random) -> str:
        if rng.random() < 0.5:
            raise CheckFailed("off")
        return "good"

    told = soak.soak("cpu", 5.0, 2, 0, lambda text: None, [wrong])
    assert not told["passed"] and len(told["failures"]) >= 20 and "CheckFailed: off" in told["failures"][0]


def test_memory_that_grows_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    held = iter(range(0, 1 << 40, 8 << 20))
    monkeypatch.setattr(soak, "memory", lambda device: {"host": next(held)})
    told = soak.soak("cpu", 0.6, 1, 0, lambda text: None, [lambda rng: "good"], settled_s=0.5)
    assert told["memory_grown_bytes"]["host"] > 64 << 20 and told["memory_flat"] is False and not told["passed"]


def test_growth() -> None:
    def readings(*values: int) -> list[dict[str, Any]]:
        return [{"host": value} for value in values]

    assert soak.growth(readings(*range(7))) == {}  # too few to tell
    assert soak.growth(readings(0, 0, 50, 50, 50, 50, 50, 50)) == {"host": 0}  # the start does not count
    assert soak.growth(readings(0, 0, 50, 50, 60, 60, 70, 70)) == {"host": 20}


def test_a_seed_says_what_is_drawn() -> None:
    drawn: dict[int, list[float]] = {1: [], 2: []}
    for run in drawn:
        soak.soak("cpu", 0.05, 1, 7, lambda text: None, [lambda rng, r=run: drawn[r].append(rng.random()) or "good"])  # type: ignore[misc]
    count = min(len(drawn[1]), len(drawn[2]))
    assert count > 0 and drawn[1][:count] == drawn[2][:count]
