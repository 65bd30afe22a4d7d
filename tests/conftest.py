"""Markers, GPU and real-data gating, what the summary says was left out, and how parallel workers share a machine.

With `-n` (pytest-xdist) each worker collects and gates the same tests; the controller's summary tells once what they
left out. What workers share lies in `shared_folder`, made under `locked`.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # for `benchmarks`, whose case table the tests share; behind an installed robocache

settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    max_examples=60,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
# ROBOCACHE_EXAMPLES=20 draws 20 times as many examples, new ones each time (see strategies.examples).
settings.register_profile("explore", parent=settings.get_profile("suite"), derandomize=False)
settings.load_profile("explore" if "ROBOCACHE_EXAMPLES" in os.environ else "suite")

MARKERS = {
    "gpu": "needs a CUDA device",
    "alone": "a GPU test that watches the whole device or fills it: no other GPU test runs meanwhile",
    "sanitize": "the subset that runs under compute-sanitizer",
    "slow": "takes seconds, or gigabytes of address space",
    "real_data": "reads recorded data (ROBOCACHE_REAL_DATA, else ../shared/data beside the repository)",
}
_left_out: pytest.StashKey[Counter[str]] = pytest.StashKey()
_problem: pytest.StashKey[str | None] = pytest.StashKey()  # why a run as asked for is not possible


def _share_cores(workers: str | None) -> None:
    """A worker's part of the cores, for torch here and for processes that tests start, unless the user says.

    OpenMP reads the variable when torch is loaded, so this must run before. The controller, and a run without workers,
    leave it alone.
    """
    if workers and not os.environ.get("OMP_NUM_THREADS"):
        os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // int(workers)))


_share_cores(os.environ.get("PYTEST_XDIST_WORKER_COUNT"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-gpu",
        action="store_true",
        help="GPU tests must run: no extension, no visible GPU or a skipped GPU test is a failure",
    )


def gpu_problem() -> str | None:
    """Why GPU tests cannot run here, or None."""
    import torch

    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    import robocache

    values, times = torch.zeros(1, 2, 1, device="cuda"), torch.arange(2.0, device="cuda")
    try:
        robocache.resample_trajectories(values, times, times, backend="cuda")
    except Exception as error:
        return f"the CUDA kernels cannot run: {type(error).__name__}: {error}"
    return None


def real_data_folder() -> Path | None:
    told = os.environ.get("ROBOCACHE_REAL_DATA")
    folder = Path(told) if told else ROOT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def is_controller(config: pytest.Config) -> bool:
    """True in the process that only hands tests to workers."""
    return bool(getattr(config.option, "dist", "no") != "no" and not hasattr(config, "workerinput"))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_left_out] = Counter()
    config.stash[_problem] = None
    for name, words in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {words}")
    if is_controller(config):
        config.pluginmanager.register(_FromWorkers(config), "robocache-from-workers")


def pytest_sessionstart(session: pytest.Session) -> None:
    """The controller asks before it starts workers, whose errors of use would read as crashes."""
    if session.config.getoption("--require-gpu") and is_controller(session.config):
        problem = gpu_problem()
        if problem:
            raise pytest.UsageError(f"--require-gpu: {problem}")


class _FromWorkers:
    """What workers tell the controller at their end. All collect the same tests, so the first answer is the answer."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.told = False
        self.problem: str | None = None

    def pytest_testnodedown(self, node, error: object) -> None:  # type: ignore[no-untyped-def]
        output = getattr(node, "workeroutput", {})
        if self.told or "left_out" not in output:
            return
        self.told = True
        self.problem = output["problem"]
        self.config.stash[_left_out].update(output["left_out"])
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        # The closing line counts what is listed here; the workers keep the tests themselves.
        reporter.stats.setdefault("deselected", []).extend(
            [SimpleNamespace()] * output["left_out"].get("deselected", 0)
        )


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    if items:
        items[0].config.stash[_left_out]["deselected"] += len(items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = {"deselected": 0, **session.config.stash[_left_out]}
        session.config.workeroutput["problem"] = session.config.stash[_problem]
    from_workers = session.config.pluginmanager.get_plugin("robocache-from-workers")
    if from_workers is not None and from_workers.problem:
        session.config.stash[_problem] = from_workers.problem
        session.exitstatus = pytest.ExitCode.USAGE_ERROR


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    required = config.getoption("--require-gpu")
    problem = gpu_problem() if gpu_items or required else None
    if problem and required:
        raise pytest.UsageError(f"--require-gpu: {problem}")
    if required and not gpu_items:
        config.stash[_problem] = "--require-gpu: no GPU test was collected"
        if not hasattr(config, "workerinput"):
            raise pytest.UsageError(config.stash[_problem])
        items.clear()  # a worker's error would read as a crash: it runs nothing, and the controller fails the run
    if problem:
        _leave_out(config, items, "gpu")
    if real_data_folder() is None:
        _leave_out(config, items, "real_data")


def _leave_out(config: pytest.Config, items: list[pytest.Item], marker: str) -> None:
    """Takes the marked tests off the list and counts them; the summary tells."""
    out = [item for item in items if item.get_closest_marker(marker)]
    if out:
        config.stash[_left_out][marker] += len(out)
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if not item.get_closest_marker(marker)]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):  # type: ignore[no-untyped-def]
    outcome = yield
    report = outcome.get_result()
    if report.skipped and item.get_closest_marker("gpu") and item.config.getoption("--require-gpu"):
        report.outcome = "failed"
        report.longrepr = f"--require-gpu: {item.nodeid} was skipped: {report.longrepr}"


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:  # type: ignore[no-untyped-def]
    left_out = config.stash[_left_out]
    if config.stash[_problem]:
        terminalreporter.write_line(f"error: {config.stash[_problem]}", red=True)
    if left_out["gpu"]:
        terminalreporter.write_line(f"left out: {left_out['gpu']} GPU tests (no usable CUDA device here)", yellow=True)
    if left_out["real_data"]:
        terminalreporter.write_line(
            f"left out: {left_out['real_data']} tests on recorded data (not found)", yellow=True
        )


@pytest.fixture
def real_data() -> Path:
    """The folder of recorded data; tests that use it carry the marker `real_data`."""
    folder = real_data_folder()
    assert folder is not None
    return folder


@contextmanager
def locked(path: Path, shared: bool = False) -> Iterator[None]:
    """Holds the file's lock, between processes: alone, or beside others that hold it as shared."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def shared_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run that all workers see."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if hasattr(request.config, "workerinput") else base


_MOST_KEPT = 1 << 30  # bytes of device memory that a test may leave in torch's cache


@pytest.fixture(autouse=True)
def _no_fault_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """A GPU test that leaves a deferred error for the next one to find fails itself."""
    if not request.node.get_closest_marker("gpu"):
        yield
        return
    import robocache

    folder: Path = request.getfixturevalue("shared_folder")
    with locked(folder / "gpu.lock", shared=request.node.get_closest_marker("alone") is None):
        yield
        robocache.check()
        import torch

        if torch.cuda.memory_reserved() > _MOST_KEPT:
            torch.cuda.empty_cache()  # other processes' tests need the device's memory, too
