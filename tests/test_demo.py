"""The demo: its own log, TUM trajectories, and what it says of files that are none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
sys.path.append(str(EXAMPLES))

import align_robot_log  # noqa: E402
import report  # noqa: E402
import robot_log  # noqa: E402
import tum  # noqa: E402

POSE = "0.5 -1 2 0 0 0 1"


def run_demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(EXAMPLES / "align_robot_log.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})


def is_png(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 20_000


@pytest.mark.slow
def test_the_demo_says_what_became_of_each_stream(tmp_path: Path) -> None:
    done = run_demo("--out", tmp_path, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if "align_cpu" in line}
    assert list(rows) == ["joints", "imu", "force", "camera", "gripper"]
    assert "500.0 Hz" in rows["force"]
    (gap, valid) = re.search(r" (\d+) ms +pchip +([\d.]+)%", rows["force"]).groups()  # type: ignore[union-attr]
    assert 400 <= int(gap) <= 410
    assert 94.0 <= float(valid) <= 97.0
    assert "slerp_xyzw" in rows["imu"]
    assert "5 streams -> [500, 88] float32 at 50 Hz on cpu" in done.stdout
    assert is_png(tmp_path / "robot_log.png")
    assert (tmp_path / "robot_log.npz").exists()


def test_a_saved_log_comes_back_bit_for_bit(tmp_path: Path) -> None:
    made = robot_log.make_log()
    robot_log.save_log(made, tmp_path / "log.npz")
    loaded = robot_log.load_log(tmp_path / "log.npz", made)
    for before, after in zip(made, loaded, strict=True):
        assert before.values.dtype == after.values.dtype
        assert torch.equal(before.values, after.values)
        assert torch.equal(before.times, after.times)


def test_clock_figures() -> None:
    times = torch.tensor([0, 10, 20, 30, *range(80, 200, 10)], dtype=torch.int64) * 1_000_000
    figures = report.clock_figures(times)
    assert figures.samples == 16
    assert figures.rate == pytest.approx(100.0)
    assert figures.jitter == pytest.approx(0.0, abs=1e-9)
    assert figures.largest_gap == pytest.approx(0.05)
    assert figures.gap_at == pytest.approx(0.03)


def test_rotation_errors_in_degrees() -> None:
    quarter = torch.tensor([0.0, 0.0, 0.5**0.5, 0.5**0.5])
    identity = torch.tensor([0.0, 0.0, 0.0, 1.0])
    pairs = (
        torch.stack([identity, -identity, quarter, 3 * quarter]),
        torch.stack([identity, identity, identity, -quarter]),
    )
    expected = torch.tensor([0.0, 0.0, 90.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(align_robot_log.rotation_errors(*pairs), expected, atol=1e-5, rtol=0)


# ---- TUM files ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 4_000_000_000), st.integers(0, 999_999_999))
def test_decimal_seconds_become_exact_nanoseconds(seconds: int, fraction: int) -> None:
    assert tum.nanoseconds(f"{seconds}.{fraction:09d}") == seconds * 10**9 + fraction
    assert tum.nanoseconds(str(Decimal(f"{seconds}.{fraction:09d}").normalize())) == seconds * 10**9 + fraction


def test_a_trajectory_is_read(tmp_path: Path) -> None:
    path = tmp_path / "poses.txt"
    path.write_text(
        f"# timestamp tx ty tz qx qy qz qw\n\n1305031098.6659 {POSE}\n1305031098.6659 {POSE} # again\n2e9 {POSE}\n"
    )
    trajectory = tum.read_tum(path)
    assert trajectory.times.tolist() == [1305031098665900000, 1305031098665900000, 2000000000000000000]
    assert trajectory.poses.dtype == torch.float64
    assert trajectory.poses[2].tolist() == [0.5, -1.0, 2.0, 0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"1 {POSE}\n# fine\n2 0 0 0 0 0 1\n", r"line 3: expected 8 numbers \(timestamp .*\), got 7 fields: '2 0 0 0"),
        ("1,0,0,0,0,0,0,1\n", "line 1: expected 8 numbers .*, got 1 fields"),
        (f"2 {POSE}\n1.5 {POSE}\n", "line 2: its time lies 0.500000 s before the line above"),
        (f"one {POSE}\n", "line 1: 'one' is not a number"),
        (f"inf {POSE}\n", "line 1: inf is not a time"),
        ("1 0 0 x 0 0 0 1\n", "line 1: could not convert string to float: 'x'"),
        ("1 0 0 nan 0 0 0 1\n", "line 1: a number is not finite"),
        ("1 0 0 0 0 0 0 0\n", "line 1: the quaternion is zero, which is no rotation"),
        (f"1 {POSE}\n2 {POSE}\n", "holds 2 poses, expected at least 3"),
        (f"1e10 {POSE}\n" * 3, "its times do not fit int64 nanoseconds"),
    ],
)
def test_a_malformed_file_is_told_by_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "poses.txt"
    path.write_text(text)
    with pytest.raises(tum.TrajectoryError, match=rf"poses\.txt(, |: ).*{words}"):
        tum.read_tum(path)


def test_a_binary_file_and_no_file_at_all(tmp_path: Path) -> None:
    path = tmp_path / "poses.txt"
    path.write_bytes(bytes(range(255, 0, -1)))
    with pytest.raises(tum.TrajectoryError, match="not a text file"):
        tum.read_tum(path)
    with pytest.raises(tum.TrajectoryError, match="No such file"):
        tum.read_tum(tmp_path / "nothing.txt")


@pytest.mark.slow
def test_the_demo_restores_a_trajectory(tmp_path: Path) -> None:
    lines = ["# a circle with a hole from 2.0 to 2.5 s"]
    for i in range(500):
        t = torch.tensor(i / 100.0, dtype=torch.float64)
        if not 2.0 <= t < 2.5:
            x, y, half = torch.cos(t).item(), torch.sin(t).item(), t / 2
            lines.append(f"{1700000000 + i // 100}.{i % 100:02d} {x} {y} 1 0 0 {torch.sin(half)} {torch.cos(half)}")
    path = tmp_path / "circle.txt"
    path.write_text("\n".join(lines) + "\n")
    done = run_demo("--tum", path, "--keep-every", 5, "--out", tmp_path, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "circle.txt: 450 poses in 5.0 s, 100.0 Hz" in done.stdout
    assert "gaps longer than 3 periods: 1\n     0.510 s from 1.990 s on" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if "align_cpu" in line]
    assert [row[:4] for row in rows if row[3] == "valid"] == [
        ["linear", "+", "slerp", "valid"],
        ["pchip", "+", "slerp", "valid"],
    ]
    linear, cubic = ([float(row[i]) for i in (5, 7, 9)] for row in rows if row[3] == "valid")
    # Two fifths along a chord of 0.05 rad, the unit circle is 0.24 * 0.05^2 / 2 m away. Slerp keeps a constant rate.
    assert linear[2] == pytest.approx(0.300, abs=0.002)
    assert cubic[0] < linear[0]
    rotation = next(float(row[14]) for row in rows if row[3] == "valid")
    assert rotation < 1e-4
    assert is_png(tmp_path / "circle.png")


def test_the_demo_names_a_bad_file_and_fails(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_text("1 2 3\n")
    done = run_demo("--tum", path, "--out", tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {path}, line 1: expected 8 numbers")
