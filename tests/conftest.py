"""Markers, GPU and real-data gating, and what the summary says was left out."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

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
    "sanitize": "the subset that runs under compute-sanitizer",
    "slow": "takes seconds, or gigabytes of address space",
    "real_data": "reads recorded data (ROBOCACHE_REAL_DATA, else ../shared/data beside the repository)",
}
_left_out: pytest.StashKey[Counter[str]] = pytest.StashKey()


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


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_left_out] = Counter()
    for name, words in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {words}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    required = config.getoption("--require-gpu")
    problem = gpu_problem() if gpu_items or required else None
    if problem and required:
        raise pytest.UsageError(f"--require-gpu: {problem}")
    if required and not gpu_items:
        raise pytest.UsageError("--require-gpu: no GPU test was collected")
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


@pytest.fixture(autouse=True)
def _no_fault_left_behind(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    """A GPU test that leaves a deferred error for the next one to find fails itself."""
    yield
    if request.node.get_closest_marker("gpu"):
        import robocache

        robocache.check()
