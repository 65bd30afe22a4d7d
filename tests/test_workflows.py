"""The workflows are valid, ask for little, pin what they use, and run make targets that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
yaml = pytest.importorskip("ruamel.yaml")  # comes with check-jsonschema, which `make lint` uses


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.YAML(typ="safe").load(path.read_text())
    return content


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


def test_each_is_valid_by_the_schema() -> None:
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*command, *map(str, WORKFLOWS)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_project_needs_is_there() -> None:
    assert {path.stem for path in WORKFLOWS} >= {"ci", "gpu", "ratchet", "sanitizers", "wheels", "docs", "security"}
    matrix = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]["lint-and-test"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    assert {row["torch"] for row in matrix["include"]} >= {"==2.10.*", ">=2.13"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_steps_run_make_targets_that_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = [step["run"] for step in steps(path) if "run" in step]
    assert commands
    for command in commands:
        if command != "bash .ci/run":
            found = re.fullmatch(r"make ([a-z-]+)(?: [A-Z]+=\S+)*", command)
            assert found and found.group(1) in targets, command


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_permissions_are_few_and_actions_are_pinned(path: Path) -> None:
    content = read(path)
    assert content["permissions"] == {"contents": "read"}
    for name, job in content["jobs"].items():
        writes = [key for key, value in job.get("permissions", {}).items() if value == "write"]
        runs = any("run" in step for step in job["steps"])
        # What may write to pull requests runs no code of theirs; CodeQL may write its findings.
        assert writes == [] or writes == ["security-events"] or (writes == ["pull-requests"] and not runs), name
        assert "timeout-minutes" in job, name
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w./-]+@v\d+(\.\d+)*", step["uses"]), step["uses"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_our_own_machines_run_no_code_of_forks(path: Path) -> None:
    content = read(path)
    on = content.get("on", content.get(True))
    for name, job in content["jobs"].items():
        if "self-hosted" in job["runs-on"] and "pull_request" in on:
            guard = job.get("if", "")
            apart = "github.event_name == 'schedule' || github.event_name == 'workflow_dispatch'"
            assert "head.repo.full_name == github.repository" in guard or guard == apart, name


def test_what_measurements_leave_is_kept_when_they_fail() -> None:
    """Summaries and reports say what failed, so they are uploaded then most of all."""
    kept = 0
    for path in WORKFLOWS:
        for step in steps(path):
            told = str(step.get("with", {}).get("path", ""))
            if step.get("uses", "").startswith("actions/upload-artifact") and ("results/" in told or "ratchet" in told):
                assert step.get("if") == "always()", f"{path.stem}: {told}"
                kept += 1
    assert kept >= 4


def test_a_comment_without_a_report_says_so() -> None:
    download, comment = read(ROOT / ".github" / "workflows" / "ratchet.yml")["jobs"]["comment"]["steps"]
    assert download["uses"].startswith("actions/download-artifact") and download["continue-on-error"] is True
    script = comment["with"]["script"]
    assert "fs.existsSync('ratchet.md')" in script and "ratchet: no report" in script


def test_a_push_cancels_no_run_of_another_event() -> None:
    """A nightly run and a push to main have the same ref."""
    for path in WORKFLOWS:
        content = read(path)
        on = content.get("on", content.get(True))
        cancels = content.get("concurrency", {}).get("cancel-in-progress", False)
        if cancels and {"push", "schedule"} <= set(on):
            assert "github.event_name" in content["concurrency"]["group"], path.stem
