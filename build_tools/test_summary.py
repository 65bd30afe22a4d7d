"""pytest plugin: leaves a small summary of a run with its provenance beside the machine's results.

`pytest -p build_tools.test_summary --summary tests-gpu` writes benchmarks/results/<machine>/tests-gpu.json at the end:
what JUnit's <testsuite> says (tests, failures, errors, skipped, time), the same by file, and the provenance that
results have. A run of a part of the tests goes to <name>-partial.json: files or a choice of tests on the command line
(-k, -m, --deselect, --ignore and the like), a collection alone, an exit before the end, or a file that could not be
collected. With pytest-xdist the controller, which hears of every test, writes it.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

Counts = Counter[str]

# Options of pytest that run a part of the tests or none, as its parser names them. What the tests themselves leave out
# where a machine lacks something is no choice, and they tell it.
CHOOSING = (
    *("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf", "stepwise"),
    *("collectonly", "setuponly", "setupplan", "showfixtures", "show_fixtures_per_test"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--summary", metavar="NAME", help="leave a summary of this run beside the machine's results")
    parser.addoption("--summary-folder", metavar="FOLDER", help="put it there instead")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--summary") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Summary(config), "robocache-test-summary")


class Summary:
    """Counts reports as JUnit does: a test fails in its call, an error is a failure around it."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.begin = time.time()
        self.files: dict[str, Counts] = {}
        self.seconds: Counter[str] = Counter()
        self.failed: list[str] = []
        self.uncollected = 0  # files whose collection failed

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.uncollected += report.failed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = report.nodeid.split("::")[0]
        counts = self.files.setdefault(file, Counter())
        self.seconds[file] += report.duration  # type: ignore[assignment]
        if report.when == "setup":
            counts["tests"] += 1
        if report.failed:
            counts["failures" if report.when == "call" else "errors"] += 1
            self.failed.append(report.nodeid)
        elif report.skipped:
            counts["skipped"] += 1

    def content(self, exit_status: int) -> dict[str, Any]:
        """The summary as it is written."""
        total: Counts = sum(self.files.values(), Counter())
        names = ("tests", "failures", "errors", "skipped")
        return {
            "kind": "tests",
            "exit_status": exit_status,
            **{name: total[name] for name in names},
            "time": round(time.time() - self.begin, 1),
            "failed": self.failed[:50],
            "files": {
                file: {**{name: counts[name] for name in names}, "time": round(float(self.seconds[file]), 1)}
                for file, counts in sorted(self.files.items())
            },
        }

    def partial(self, session: pytest.Session, exit_status: int) -> bool:
        """True when this was a part of the tests."""
        chosen = any(getattr(self.config.option, name, None) for name in CHOOSING)
        ended_early = bool(session.shouldfail or session.shouldstop)  # -x and --maxfail leave an exit status of 1
        where = [Path(one.split("::")[0]) for one in self.config.args]
        usual = {self.config.rootpath / one for one in self.config.getini("testpaths")}
        elsewhere = {self.config.rootpath / one for one in where} != usual
        return chosen or ended_early or self.uncollected > 0 or elsewhere or exit_status not in (0, 1)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        import torch

        from benchmarks import provenance

        device = "cuda" if torch.cuda.is_available() else "cpu"
        status = int(session.exitstatus)
        name = self.config.getoption("--summary") + ("-partial" if self.partial(session, status) else "")
        folder = self.config.getoption("--summary-folder")
        path = Path(folder) / f"{name}.json" if folder else provenance.evidence_path(name, device)
        arguments = [str(one) for one in self.config.invocation_params.args]
        facts = provenance.provenance(device, provenance.without_paths(arguments))
        provenance.write_summary(path, {**provenance.without_paths(self.content(status)), "provenance": facts})
