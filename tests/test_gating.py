"""The gates themselves: what is left out is told, and --require-gpu turns every way round a GPU test into a failure."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import robocache

from .backends import CPU, CUDA, TORCH, Backend

ROOT = Path(__file__).resolve().parent.parent

TESTS = """
    import pytest

    @pytest.mark.gpu
    def test_on_a_gpu():
        {body}

    @pytest.mark.real_data
    def test_on_recordings(real_data):
        assert real_data.is_dir()

    def test_anywhere():
        pass
"""


def run(tmp_path: Path, body: str, *options: str, gpu: bool, tests: str = TESTS, **environment: str) -> tuple[int, str]:
    """pytest in a process of its own, on a machine that says it has a GPU or that it has none."""
    (tmp_path / "test_sample.py").write_text(textwrap.dedent(tests).format(body=body))
    (tmp_path / "pretend.py").write_text(
        "import robocache\n"
        "import tests.conftest\n"
        "robocache.check = lambda: None  # what it finds is not the matter here, and it loads torch\n"
        f"tests.conftest.gpu_problem = lambda: {None if gpu else 'no CUDA device for this test'!r}\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest", "-p", "pretend"]
    command += ["-c", os.devnull, "--rootdir", str(tmp_path), *options, str(tmp_path / "test_sample.py")]
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    # These tests may run in a worker themselves; the run inside knows nothing of it.
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_XDIST", "OMP_"))}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**outside, "PYTHONPATH": path, "ROBOCACHE_REAL_DATA": str(tmp_path / "none"), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def test_left_out_tests_are_counted(tmp_path: Path) -> None:
    code, said = run(tmp_path, "raise AssertionError", gpu=False)
    assert code == 0, said
    assert "left out: 1 GPU tests" in said and "left out: 1 tests on recorded data" in said
    assert "1 passed, 2 deselected" in said


def test_recorded_data_is_used_where_it_is(tmp_path: Path) -> None:
    code, said = run(tmp_path, "pass", gpu=False, ROBOCACHE_REAL_DATA=str(tmp_path))
    assert code == 0 and "2 passed, 1 deselected" in said and "recorded data" not in said, said


def test_a_required_gpu_that_is_missing_fails(tmp_path: Path) -> None:
    code, said = run(tmp_path, "pass", "--require-gpu", gpu=False)
    assert code not in (0, 5) and "--require-gpu: no CUDA device for this test" in said


def test_a_skipped_gpu_test_fails_when_required(tmp_path: Path) -> None:
    code, said = run(tmp_path, "pytest.skip('not today')", gpu=True)
    assert code == 0 and "1 skipped" in said
    code, said = run(tmp_path, "pytest.skip('not today')", "--require-gpu", gpu=True)
    assert code == 1 and "1 failed" in said and "was skipped" in said


def test_a_marked_skip_fails_when_required(tmp_path: Path) -> None:
    body = "pass\n\ntest_on_a_gpu = pytest.mark.skip(reason='never')(test_on_a_gpu)"
    code, said = run(tmp_path, body, "--require-gpu", gpu=True)
    assert code == 1 and "was skipped" in said


def test_no_gpu_test_at_all_fails_when_required(tmp_path: Path) -> None:
    code, said = run(tmp_path, "pass", "--require-gpu", gpu=True, tests="def test_plain():\n    pass\n")
    assert code not in (0, 5) and "no GPU test was collected" in said


WORKERS = ("-n", "2", "--dist", "worksteal")


def test_workers_tell_once_what_was_left_out(tmp_path: Path) -> None:
    code, said = run(tmp_path, "raise AssertionError", *WORKERS, gpu=False)
    assert code == 0, said
    assert said.count("left out: 1 GPU tests") == 1 and said.count("left out: 1 tests on recorded data") == 1
    assert "1 passed, 2 deselected" in said


def test_workers_keep_to_a_required_gpu(tmp_path: Path) -> None:
    code, said = run(tmp_path, "pass", "--require-gpu", *WORKERS, gpu=False)
    assert code not in (0, 5) and "--require-gpu: no CUDA device for this test" in said and "passed" not in said
    code, said = run(tmp_path, "pytest.skip('not today')", "--require-gpu", *WORKERS, gpu=True)
    assert code == 1 and "1 failed" in said and "was skipped" in said
    code, said = run(tmp_path, "pass", "--require-gpu", *WORKERS, gpu=True, tests="def test_plain():\n    pass\n")
    assert code not in (0, 5) and "no GPU test was collected" in said


def test_workers_share_the_cores(tmp_path: Path) -> None:
    tests = """
        import os
        import pytest
        import torch

        @pytest.mark.gpu
        @pytest.mark.parametrize("number", range(4))
        def test_threads(number):
            {body}
    """
    body = f"assert torch.get_num_threads() == {max(1, len(os.sched_getaffinity(0)) // 2)}"
    code, said = run(tmp_path, body, *WORKERS, gpu=True, tests=tests)
    assert code == 0 and "4 passed" in said, said


def test_only_one_test_runs_that_wants_to_be_alone(tmp_path: Path) -> None:
    tests = """
        import time
        from pathlib import Path
        import pytest

        HERE = Path(__file__).parent

        @pytest.mark.gpu
        @pytest.mark.parametrize("number", range(6))
        def test_with_others(number):
            {body}
            mark = HERE / f"running-{{number}}"
            mark.touch()
            time.sleep(0.05)
            mark.unlink()

        @pytest.mark.gpu
        @pytest.mark.alone
        @pytest.mark.parametrize("number", range(3))
        def test_alone(number):
            for _ in range(5):
                assert not list(HERE.glob("running-*"))
                time.sleep(0.02)
    """
    code, said = run(tmp_path, "pass", "-n", "3", gpu=True, tests=tests)
    assert code == 0 and "9 passed" in said, said


def test_counters_catch_a_backend_that_stood_in() -> None:
    """`Backend` fails when another kernel than the named one ran, and when none did."""
    values, times, targets = torch.zeros(1, 3, 1), torch.arange(3.0), torch.tensor([0.5])
    CPU.resample(values, times, targets)
    TORCH.resample(values, times, targets)
    pretender = Backend("cpu", "cpu")
    with pytest.raises(AssertionError, match="align_cpu rose by 0, expected 1"):
        pretender._run(lambda: robocache.resample_trajectories(values, times, targets, backend="torch"))
    with pytest.raises(AssertionError, match="align_cpu rose by 1, expected 0"):
        TORCH._run(lambda: robocache.resample_trajectories(values, times, targets, backend="cpu"))
    with pytest.raises(AssertionError, match="align_cpu rose by 1, expected 0"):
        Backend("cuda", "cpu")._run(lambda: robocache.resample_trajectories(values, times, targets))
    assert CUDA.counter == "align_cuda"
