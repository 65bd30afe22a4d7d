"""Recorded motion capture (TUM RGB-D): decimated and restored as SciPy does, with its holes and sign flips."""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.interpolate import interp1d
from scipy.spatial.transform import Rotation, Slerp

from .backends import Backend, assert_same_bits, every_backend

pytestmark = pytest.mark.real_data

POSE = [(slice(0, 3), "linear"), (slice(3, 7), "slerp_xyzw")]
MILLISECOND = 1_000_000
FILES = ["freiburg1_xyz-groundtruth.txt", "fr2_desk_groundtruth.txt"]


@cache
def trajectory(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Stamps as exact int64 nanoseconds (read as text: a double holds epoch seconds to 0.2 us) and poses [S, 7]."""
    rows = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
    stamps = [int(Decimal(row[0]) * 10**9) for row in rows]
    return torch.tensor(stamps), torch.tensor([[float(x) for x in row[1:8]] for row in rows], dtype=torch.float64)


def load(folder: Path, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    return trajectory(folder / "tum" / name)


def rotation_error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle between rotations given as quaternions, degrees."""
    dot = np.abs((a * b).sum(1)) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return np.degrees(2 * np.arccos(np.clip(dot, 0, 1)))


def test_stamps_are_exact(real_data: Path) -> None:
    times, _ = load(real_data, "fr2_desk_groundtruth.txt")
    assert times[0].item() == 1_311_868_163_869_700_000
    assert times[1].item() == 1_311_868_163_873_100_000
    in_doubles = (times.double() / 1e9 * 1e9).long()
    assert bool((in_doubles != times).any())  # what reading them as floats would have lost


@every_backend
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [2, 10])
def test_restored_as_scipy_restores(backend: Backend, real_data: Path, name: str, keep: int) -> None:
    times, poses = load(real_data, name)
    first = torch.cat([torch.tensor([True]), times[1:] != times[:-1]])  # SciPy takes no equal stamps
    times, poses = times[first], poses[first]
    kept_times, kept = times[::keep].contiguous(), poses[::keep].contiguous()
    inside = times <= kept_times[-1]
    targets, truth = times[inside], poses[inside].numpy()
    out = backend.resample(kept[None], kept_times[None], targets[None], kind=POSE)[0].cpu().numpy()
    seconds, at = (kept_times - times[0]).numpy() / 1e9, (targets - times[0]).numpy() / 1e9
    scipy_position = interp1d(seconds, kept[:, :3].numpy(), axis=0)(at)
    scipy_rotation = Slerp(seconds, Rotation.from_quat(kept[:, 3:].numpy()))(at).as_quat()
    np.testing.assert_allclose(out[:, :3], scipy_position, rtol=0, atol=1e-11)
    assert rotation_error(out[:, 3:], scipy_rotation).max() < 3e-6
    # and so the error of restoring is SciPy's: millimetres and fractions of a degree
    ours, theirs = (np.linalg.norm(p - truth[:, :3], axis=1) for p in (out[:, :3], scipy_position))
    assert np.median(ours) == pytest.approx(np.median(theirs), abs=1e-9)
    assert np.median(ours) < 0.002
    angles, theirs = rotation_error(out[:, 3:], truth[:, 3:]), rotation_error(scipy_rotation, truth[:, 3:])
    assert angles.max() == pytest.approx(theirs.max(), abs=1e-5)
    assert np.median(angles) < 0.5


@every_backend
def test_samples_are_hit_exactly(backend: Backend, real_data: Path) -> None:
    times, poses = load(real_data, "fr2_desk_groundtruth.txt")
    out, valid = backend.resample(
        poses[None], times[None], times[None], kind=POSE, max_gap=MILLISECOND, return_valid=True
    )
    last = torch.searchsorted(times, times, right=True) - 1  # of equal stamps the last
    assert_same_bits(out[0], poses[last])
    assert bool(valid.all())
    assert int((last != torch.arange(len(times))).sum()) == 1  # the file's one duplicate


@every_backend
def test_holes_are_masked(backend: Backend, real_data: Path) -> None:
    """27 holes over 100 ms, one of 12 s: every target in one is invalid, every other valid."""
    times, poses = load(real_data, "fr2_desk_groundtruth.txt")
    gaps = times[1:] - times[:-1]
    holes = (gaps > 100 * MILLISECOND).nonzero()[:, 0]
    assert len(holes) == 27
    assert int((gaps > 10_000 * MILLISECOND).sum()) == 1 and round(int(gaps.max()) / (1000 * MILLISECOND)) == 12
    targets = torch.arange(int(times[0]), int(times[-1]), 10 * MILLISECOND)
    out, valid = backend.resample(
        poses[None], times[None], targets[None], kind=POSE, max_gap=100 * MILLISECOND, return_valid=True
    )
    expected = torch.ones(len(targets), dtype=torch.bool)
    for i in holes.tolist():
        expected &= ~((targets > times[i]) & (targets < times[i + 1]))
    assert valid.cpu()[0].tolist() == expected.tolist()
    assert 1000 < int((~expected).sum()) < len(targets) // 4
    assert bool(out.isfinite().all())
    masked = backend.resample(
        poses[None], times[None], targets[None], kind=POSE, max_gap=100 * MILLISECOND, invalid="nan"
    )
    assert torch.equal(masked.cpu()[0].isnan().all(dim=1), ~expected)


@every_backend
def test_sign_flips_do_no_harm(backend: Backend, real_data: Path) -> None:
    """The recorded quaternion changes sign 29 times; in the middle of each the rotation stays on its way."""
    times, poses = load(real_data, "fr2_desk_groundtruth.txt")
    q = poses[:, 3:]
    flips = ((q[1:] * q[:-1]).sum(1) < 0).nonzero()[:, 0]
    assert len(flips) == 29
    middle = (times[flips] + (times[flips + 1] - times[flips]) // 2)[None]
    out = backend.resample(poses[None], times[None], middle, kind=POSE)[0, :, 3:].cpu().numpy()
    before, after = q[flips].numpy(), q[flips + 1].numpy()
    whole = rotation_error(before, after)
    np.testing.assert_allclose(rotation_error(before, out), whole / 2, atol=1e-4 + whole.max() * 1e-3)
    np.testing.assert_allclose(rotation_error(out, after), whole / 2, atol=1e-4 + whole.max() * 1e-3)
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1.0, atol=1e-12)
    lerped = backend.resample(poses[None], times[None], middle, kind="linear")[0, :, 3:].cpu().numpy()
    assert np.linalg.norm(lerped, axis=1).max() < 0.5  # what plain interpolation makes of them


@every_backend
def test_two_recorders_fused(backend: Backend, real_data: Path) -> None:
    """Motion capture and a 30 Hz SLAM estimate, two clocks, at the camera's frames."""
    mocap_times, mocap = load(real_data, "fr2_desk_groundtruth.txt")
    slam_times, slam = load(real_data, "fr2_desk_ORB.txt")
    streams = [
        {"values": mocap[None], "times": mocap_times[None], "kind": POSE, "max_gap": 50 * MILLISECOND},
        {"values": slam[None], "times": slam_times[None], "kind": POSE, "tolerance": 40 * MILLISECOND},
    ]
    fused, valid = backend.fuse(streams, slam_times[None], return_valid=True)
    assert fused.shape == (1, len(slam_times), 14)
    assert_same_bits(fused[0, :, 7:], slam)
    assert bool(valid[..., 1].all())
    share = valid[..., 0].float().mean().item()
    assert 0.5 < share < 1.0
