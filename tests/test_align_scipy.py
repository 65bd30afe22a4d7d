"""Against SciPy in float64: interp1d for linear and the step kinds, PchipInterpolator, Slerp."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import PchipInterpolator, interp1d
from scipy.spatial.transform import Rotation, Slerp

from .backends import Backend, every_backend

ROWS, SAMPLES, COLUMNS, TARGETS = 3, 40, 5, 70


def signals(seed: int, time_dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """values [B, S, D] float64, times [B, S] with uneven steps, targets [B, T] inside (T of them exact hits)."""
    rng = np.random.default_rng(seed)
    steps = rng.uniform(0.01, 0.3, (ROWS, SAMPLES))
    times = np.cumsum(steps, axis=1)
    targets = rng.uniform(times[:, :1], times[:, -1:], (ROWS, TARGETS))
    targets[:, :10] = times[:, 5:15]
    if time_dtype == torch.int64:
        times, targets = (np.round(t * 1e9).astype(np.int64) + 1_700_000_000_000_000_000 for t in (times, targets))
    values = torch.from_numpy(rng.normal(size=(ROWS, SAMPLES, COLUMNS)))
    return values, torch.from_numpy(times), torch.from_numpy(targets)


def relative(times: torch.Tensor, origin: torch.Tensor) -> np.ndarray:
    """Seconds since `origin`, exact for int64 before the division."""
    difference = times - origin
    return difference.numpy() / (1e9 if times.dtype == torch.int64 else 1.0)


@every_backend
@pytest.mark.parametrize("time_dtype", [torch.float64, torch.int64])
@pytest.mark.parametrize("kind", ["linear", "nearest", "previous", "next", "pchip"])
def test_curves_match_scipy(backend: Backend, kind: str, time_dtype: torch.dtype) -> None:
    values, times, targets = signals(1, time_dtype)
    out = backend.resample(values, times, targets, kind=kind).cpu().numpy()
    for b in range(ROWS):
        knots, at = relative(times[b], times[b, 0]), relative(targets[b], times[b, 0])
        if kind == "pchip":
            expected = PchipInterpolator(knots, values[b].numpy(), axis=0)(at)
        else:
            expected = interp1d(knots, values[b].numpy(), kind=kind, axis=0)(at)
        np.testing.assert_allclose(out[b], expected, rtol=1e-11, atol=1e-12)
    assert np.ptp(out) > 1.0  # a constant answer would pass no comparison above by luck


@every_backend
def test_nearest_takes_the_earlier_at_a_tie_as_interp1d_does(backend: Backend) -> None:
    times = torch.arange(6, dtype=torch.float64)[None]
    values = torch.arange(6, dtype=torch.float64).reshape(1, 6, 1) * 10
    targets = torch.tensor([[0.5, 1.5, 2.5, 3.5, 4.5]], dtype=torch.float64)
    expected = interp1d(times[0].numpy(), values[0, :, 0].numpy(), kind="nearest")(targets[0].numpy())
    out = backend.resample(values, times, targets, kind="nearest")
    np.testing.assert_array_equal(out[0, :, 0].cpu().numpy(), expected)


@every_backend
def test_linear_extrapolation_matches_scipy(backend: Backend) -> None:
    values, times, _ = signals(2)
    outside = torch.linspace(-3.0, 0.0, 20, dtype=torch.float64)
    targets = torch.cat([times[:, :1] + outside, times[:, -1:] - outside], dim=1)
    out = backend.resample(values, times, targets, extrapolate="linear").cpu().numpy()
    for b in range(ROWS):
        curve = interp1d(times[b].numpy(), values[b].numpy(), axis=0, fill_value="extrapolate")
        np.testing.assert_allclose(out[b], curve(targets[b].numpy()), rtol=1e-9, atol=1e-9)


@every_backend
def test_pchip_continues_with_the_end_tangent(backend: Backend) -> None:
    values, times, _ = signals(3)
    ahead = torch.tensor([-0.5, -0.1, 0.0, 0.0, 0.1, 0.5], dtype=torch.float64)
    targets = torch.where(ahead < 0, times[:, :1], times[:, -1:]) + ahead
    out = backend.resample(values, times, targets, kind="pchip", extrapolate="linear").cpu().numpy()
    for b in range(ROWS):
        knots = times[b].numpy()
        curve = PchipInterpolator(knots, values[b].numpy(), axis=0)
        slope = curve.derivative()
        for k, t in enumerate(targets[b].numpy()):
            end = min(max(t, knots[0]), knots[-1])
            np.testing.assert_allclose(out[b, k], curve(end) + (t - end) * slope(end), rtol=1e-9, atol=1e-10)


@every_backend
@pytest.mark.parametrize("shape", ["peak", "plateau", "monotone", "steep"])
def test_pchip_shapes_match_scipy(backend: Backend, shape: str) -> None:
    knots = np.array([0.0, 1.0, 1.1, 4.0, 4.5, 9.0])
    samples = {
        "peak": [0.0, 1.0, 5.0, 1.0, 0.0, 3.0],
        "plateau": [0.0, 2.0, 2.0, 2.0, 5.0, 5.0],
        "monotone": [0.0, 0.1, 3.0, 3.1, 8.0, 8.0],
        "steep": [0.0, -100.0, 100.0, 0.0, 1e-3, -1e3],
    }[shape]
    at = np.linspace(0.0, 9.0, 200)
    out = backend.resample(
        torch.tensor(samples, dtype=torch.float64).reshape(1, -1, 1),
        torch.from_numpy(knots)[None],
        torch.from_numpy(at)[None],
        kind="pchip",
    )
    expected = PchipInterpolator(knots, samples)(at)
    np.testing.assert_allclose(out[0, :, 0].cpu().numpy(), expected, rtol=1e-11, atol=1e-11)


@every_backend
@pytest.mark.parametrize("kind", ["slerp_xyzw", "slerp_wxyz"])
@pytest.mark.parametrize("flips", [False, True], ids=["continuous", "sign flips"])
def test_slerp_matches_scipy(backend: Backend, kind: str, flips: bool) -> None:
    rng = np.random.default_rng(4)
    quaternions = Rotation.random(SAMPLES, random_state=5).as_quat()
    if flips:
        quaternions *= rng.choice([-1.0, 1.0], size=(SAMPLES, 1))
    times = np.cumsum(rng.uniform(0.05, 0.2, SAMPLES))
    targets = rng.uniform(times[0], times[-1], TARGETS)
    expected = Slerp(times, Rotation.from_quat(quaternions))(targets)
    given = quaternions if kind == "slerp_xyzw" else quaternions[:, [3, 0, 1, 2]]
    out = backend.resample(
        torch.from_numpy(given.copy())[None], torch.from_numpy(times)[None], torch.from_numpy(targets)[None], kind=kind
    )
    got = out[0].cpu().numpy()
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1.0, rtol=0, atol=1e-14)
    got = got if kind == "slerp_xyzw" else got[:, [1, 2, 3, 0]]
    # both signs name one rotation
    errors = (Rotation.from_quat(got).inv() * expected).magnitude()
    assert errors.max() < 1e-7  # magnitude() itself resolves sqrt(eps)
    np.testing.assert_allclose(np.abs((got * expected.as_quat()).sum(axis=1)), 1.0, rtol=0, atol=1e-13)


@every_backend
def test_angle_matches_unwrapped_interpolation(backend: Backend) -> None:
    rng = np.random.default_rng(6)
    times = np.cumsum(rng.uniform(0.05, 0.2, SAMPLES))
    unwrapped = np.cumsum(rng.uniform(-2.5, 2.5, (SAMPLES, 2)), axis=0)  # steps under pi: the shorter arc is the path
    wrapped = np.remainder(unwrapped + np.pi, 2 * np.pi) - np.pi
    targets = rng.uniform(times[0], times[-1], TARGETS)
    expected = interp1d(times, unwrapped, axis=0)(targets)
    out = backend.resample(
        torch.from_numpy(wrapped)[None], torch.from_numpy(times)[None], torch.from_numpy(targets)[None], kind="angle"
    )
    got = out[0].cpu().numpy()
    assert (got >= -np.pi).all() and (got < np.pi).all()
    np.testing.assert_allclose(np.exp(1j * got), np.exp(1j * expected), rtol=0, atol=1e-12)
