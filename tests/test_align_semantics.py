"""What stands at a target, rule by rule, on hand-written numbers: hits, ends, gaps, tolerances, latency, wrap."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from .backends import Backend, assert_same_bits, every_backend

NAN = math.nan
KINDS = ["linear", "nearest", "previous", "next", "pchip", "slerp_xyzw", "slerp_wxyz", "angle"]
STEP_KINDS = ["nearest", "previous", "next"]
TIME_DTYPES = [torch.float32, torch.float64, torch.int64]

every_time = pytest.mark.parametrize("time_dtype", TIME_DTYPES, ids=["f32", "f64", "i64"])
every_kind = pytest.mark.parametrize("kind", KINDS)


def column(*values: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """One sequence of one column: [1, S, 1]."""
    return torch.tensor(values, dtype=dtype).reshape(1, -1, 1)


def stamps(*times: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor([times], dtype=dtype)


def at(backend: Backend, values: torch.Tensor, times: torch.Tensor, targets: torch.Tensor, **options: Any) -> list:
    """One sequence, one column: the outputs as a list."""
    out = backend.resample(values, times, targets, **options)
    assert out.shape == (1, targets.shape[-1], 1)
    return out[0, :, 0].tolist()


def at_valid(
    backend: Backend, values: torch.Tensor, times: torch.Tensor, targets: torch.Tensor, **options: Any
) -> tuple[list, list]:
    out, valid = backend.resample(values, times, targets, return_valid=True, **options)
    assert valid.dtype == torch.bool and valid.shape == (1, targets.shape[-1])
    return out[0, :, 0].tolist(), valid[0].tolist()


# ---- Hits, ties, half-open intervals -------------------------------------------------------------------------------


@every_backend
@every_kind
@every_time
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_an_exact_hit_copies_the_sample(
    backend: Backend, kind: str, time_dtype: torch.dtype, dtype: torch.dtype
) -> None:
    if backend.needs_torch_dtype(dtype):
        pytest.skip("NumPy has no bfloat16")
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(2, 9, 8, generator=generator, dtype=torch.float64).to(dtype)
    times = torch.tensor([0, 10, 11, 30, 31, 50, 70, 71, 100]).to(time_dtype).expand(2, 9).contiguous()
    order = torch.tensor([8, 0, 3, 3, 7, 1, 2, 4, 5, 6])
    out, valid = backend.resample(values, times, times[:, order], kind=kind, return_valid=True, max_gap=1, tolerance=0)
    expected = values[:, order]
    if kind == "angle":
        inside = (expected.double() >= -math.pi) & (expected.double() < math.pi)
        assert inside.sum() > 100
        out, expected = out.cpu()[inside], expected[inside]
    assert_same_bits(out, expected)
    assert bool(valid.all())


@every_backend
@every_time
def test_intervals_are_half_open(backend: Backend, time_dtype: torch.dtype) -> None:
    values, times = column(0, 1, 2, 3), stamps(0, 10, 20, 30, dtype=time_dtype)
    just = {torch.float32: 1e-3, torch.float64: 1e-9, torch.int64: 1}[time_dtype]
    targets = (torch.tensor([[10, 20, 30]]).to(torch.float64) - just).to(time_dtype)
    assert at(backend, values, times, targets, kind="previous") == [0, 1, 2]
    assert at(backend, values, times, targets, kind="next") == [1, 2, 3]
    exact = stamps(10, 20, 30, dtype=time_dtype)
    assert at(backend, values, times, exact, kind="previous") == [1, 2, 3]
    assert at(backend, values, times, exact, kind="next") == [1, 2, 3]


@every_backend
@every_time
def test_nearest_takes_the_earlier_at_a_tie(backend: Backend, time_dtype: torch.dtype) -> None:
    values, times = column(0, 1, 2), stamps(0, 10, 20, dtype=time_dtype)
    targets = stamps(4, 5, 6, 14, 15, 16, dtype=time_dtype)
    assert at(backend, values, times, targets, kind="nearest") == [0, 0, 1, 1, 1, 2]


@every_backend
@every_time
def test_equal_stamps(backend: Backend, time_dtype: torch.dtype) -> None:
    values = column(0, 1, 2, 3, 4, 5)
    times = stamps(0, 10, 10, 10, 20, 20, dtype=time_dtype)
    targets = stamps(4, 8, 10, 14, 16, 18, 20, dtype=time_dtype)
    assert at(backend, values, times, targets, kind="previous") == [0, 0, 3, 3, 3, 3, 5]
    assert at(backend, values, times, targets, kind="next") == [1, 1, 1, 4, 4, 4, 4]
    assert at(backend, values, times, targets, kind="nearest") == [0, 3, 3, 3, 5, 5, 5]
    got = at(backend, values.double(), times, targets, kind="linear")
    assert got == pytest.approx([0.4, 0.8, 3.0, 3.4, 3.6, 3.8, 5.0], abs=1e-7)


@every_backend
@every_time
def test_pchip_at_equal_stamps_starts_anew(backend: Backend, time_dtype: torch.dtype) -> None:
    """A repeated stamp is a jump: the curves on its sides do not see each other."""
    left, right = [0.0, 1.0, 4.0], [100.0, 101.0, 104.0]
    values = column(*left, *right, dtype=torch.float64)
    times = stamps(0, 10, 20, 20, 30, 40, dtype=time_dtype)
    targets = stamps(5, 15, 20, 25, 35, dtype=time_dtype)
    got = at(backend, values, times, targets, kind="pchip")
    alone = at(
        backend,
        column(*left, dtype=torch.float64),
        stamps(0, 10, 20, dtype=time_dtype),
        stamps(5, 15, dtype=time_dtype),
        kind="pchip",
    )
    assert got[:2] == pytest.approx(alone, abs=1e-12)
    assert got[2] == 100.0
    assert got[3:] == pytest.approx([100.0 + v for v in alone], abs=1e-12)


@every_backend
def test_targets_need_not_be_sorted(backend: Backend) -> None:
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(2, 50, 3, generator=generator)
    times = torch.rand(2, 50, generator=generator).cumsum(1)
    targets = torch.rand(2, 80, generator=generator) * 30 - 2
    order = targets.argsort(dim=1)
    ordered = backend.resample(values, times, targets.gather(1, order)).cpu()
    shuffled = backend.resample(values, times, targets).cpu()
    assert_same_bits(shuffled.gather(1, order[..., None].expand(-1, -1, 3)), ordered)


# ---- Outside the range ---------------------------------------------------------------------------------------------


@every_backend
@every_time
@pytest.mark.parametrize(
    ("kind", "extrapolate", "expected"),
    [
        ("linear", "clamp", [1, 1, 1, 2, 4, 4, 4]),
        ("previous", "clamp", [1, 1, 1, 1, 4, 4, 4]),
        ("next", "clamp", [1, 1, 1, 4, 4, 4, 4]),
        ("nearest", "clamp", [1, 1, 1, 1, 4, 4, 4]),
        ("linear", "nan", [NAN, NAN, 1, 2, 4, NAN, NAN]),
        ("previous", "nan", [NAN, NAN, 1, 1, 4, NAN, NAN]),
        ("linear", "linear", [-2, 0, 1, 2, 4, 5, 7]),
        ("pchip", "linear", [-2, 0, 1, 2, 4, 5, 7]),
        ("previous", "linear", [1, 1, 1, 1, 4, 4, 4]),
        ("next", "linear", [1, 1, 1, 4, 4, 4, 4]),
    ],
)
def test_outside(backend: Backend, time_dtype: torch.dtype, kind: str, extrapolate: str, expected: list[float]) -> None:
    values, times = column(1, 4, dtype=torch.float64), stamps(100, 130, dtype=time_dtype)
    targets = stamps(70, 90, 100, 110, 130, 140, 160, dtype=time_dtype)
    got, valid = at_valid(backend, values, times, targets, kind=kind, extrapolate=extrapolate)
    assert got == pytest.approx(expected, nan_ok=True, abs=1e-6 if time_dtype == torch.float32 else 1e-12)
    assert valid == [False, False, True, True, True, False, False]


@every_backend
def test_extrapolation_with_equal_stamps_at_the_ends(backend: Backend) -> None:
    values = column(9, 0, 1, 2, 7, dtype=torch.float64)
    times = stamps(0, 0, 1, 2, 2)
    targets = stamps(-1, 3)
    # before: the last of the equal stamps and the next one; after: up to the first of the equal stamps
    assert at(backend, values, times, targets, extrapolate="linear") == [-1.0, 3.0]
    assert at(backend, values, times, targets, extrapolate="clamp") == [0.0, 7.0]
    assert at(backend, values, times, targets, kind="next", extrapolate="clamp") == [9.0, 2.0]
    together = stamps(4, 4, 4, 4, 4)
    assert at(backend, values, together, stamps(3, 4, 5), extrapolate="linear") == [7.0, 7.0, 7.0]


@every_backend
def test_slerp_and_angle_extrapolate_at_constant_rate(backend: Backend) -> None:
    turn = 0.3
    quaternions = torch.tensor([[[0, 0, math.sin(a / 2), math.cos(a / 2)] for a in (0.0, turn)]], dtype=torch.float64)
    targets = stamps(-2, 3)
    got = backend.resample(quaternions, stamps(0, 1), targets, kind="slerp_xyzw", extrapolate="linear")[0]
    for row, angle in zip(got.tolist(), (-2 * turn, 3 * turn), strict=True):
        assert row == pytest.approx([0, 0, math.sin(angle / 2), math.cos(angle / 2)], abs=1e-12)
    angles = column(3.0, -3.0, dtype=torch.float64)  # through pi
    step = 2 * math.pi - 6.0
    assert at(backend, angles, stamps(0, 1), targets, kind="angle", extrapolate="linear") == pytest.approx(
        [3.0 - 2 * step, -3.0 + 2 * step], abs=1e-12
    )


@every_backend
@every_kind
def test_one_sample_holds(backend: Backend, kind: str) -> None:
    values = torch.tensor([[[0.5, -0.5, 0.5, 0.5]]])
    targets = stamps(4, 5, 6)
    for extrapolate in ("clamp", "linear"):
        out, valid = backend.resample(values, stamps(5), targets, kind=kind, extrapolate=extrapolate, return_valid=True)
        assert_same_bits(out, values.expand(1, 3, 4))
        assert valid.tolist() == [[False, True, False]]


@every_backend
@every_kind
def test_infinite_targets_are_outside(backend: Backend, kind: str) -> None:
    values = torch.tensor([[[0.5, -0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]])
    out, valid = backend.resample(
        values, stamps(0, 1), stamps(-math.inf, math.inf), kind=kind, return_valid=True, tolerance=5.0
    )
    assert_same_bits(out, values)
    assert valid.tolist() == [[False, False]]


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.int32])
def test_an_empty_sequence(backend: Backend, dtype: torch.dtype) -> None:
    kind = "linear" if dtype == torch.float32 else "previous"
    values, times = torch.ones(2, 3, 2, dtype=dtype), torch.arange(3.0).expand(2, 3).contiguous()
    lengths = torch.tensor([0, 3])
    out, valid = backend.resample(values, times, times, kind=kind, lengths=lengths, return_valid=True)
    filler = NAN if dtype == torch.float32 else 0
    assert_same_bits(out[0], torch.full((3, 2), filler, dtype=dtype))
    assert_same_bits(out[1], values[1])
    assert valid.tolist() == [[False] * 3, [True] * 3]


# ---- Gaps, tolerances, masks ---------------------------------------------------------------------------------------


@every_backend
@every_time
@every_kind
def test_max_gap(backend: Backend, time_dtype: torch.dtype, kind: str) -> None:
    values = torch.tensor([[[0.5, -0.5, 0.5, 0.5]] * 5])
    times, targets = (
        stamps(0, 10, 20, 50, 60, dtype=time_dtype),
        stamps(5, 10, 15, 20, 21, 49, 50, 55, dtype=time_dtype),
    )
    for gap, hole in ((10, False), (29, False), (30, True)):
        _, valid = backend.resample(values, times, targets, kind=kind, max_gap=gap, return_valid=True)
        assert valid.tolist() == [[True, True, True, True, hole, hole, True, True]], gap
    _, valid = backend.resample(values, times, targets, kind=kind, max_gap=9, return_valid=True)
    assert valid.tolist() == [[False, True, False, True, False, False, True, False]]


@every_backend
@every_time
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("previous", [True, True, True, False, False, False, True]),
        ("next", [True, False, False, False, True, True, True]),
        ("nearest", [True, True, True, False, True, True, True]),
        ("linear", [True, True, True, False, True, True, True]),
        ("pchip", [True, True, True, False, True, True, True]),
        ("angle", [True, True, True, False, True, True, True]),
    ],
)
def test_tolerance_inside(backend: Backend, time_dtype: torch.dtype, kind: str, expected: list[bool]) -> None:
    values, times = column(1, 2), stamps(0, 100, dtype=time_dtype)
    targets = stamps(0, 10, 20, 50, 80, 90, 100, dtype=time_dtype)
    _, valid = at_valid(backend, values, times, targets, kind=kind, tolerance=20)
    assert valid == expected


@every_backend
@every_time
@pytest.mark.parametrize("kind", KINDS)
def test_tolerance_admits_step_kinds_outside(backend: Backend, time_dtype: torch.dtype, kind: str) -> None:
    values = torch.tensor([[[0.5, -0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]])
    times, targets = stamps(100, 110, dtype=time_dtype), stamps(94, 95, 115, 116, dtype=time_dtype)
    out, valid = backend.resample(values, times, targets, kind=kind, tolerance=5, extrapolate="nan", return_valid=True)
    admitted = kind in STEP_KINDS
    assert valid.tolist() == [[False, admitted, admitted, False]]
    nan = torch.full((4,), NAN)
    first, last = (values[0, 0], values[0, 1]) if admitted else (nan, nan)
    assert_same_bits(out[0], torch.stack([nan, first, last, nan]))


@every_backend
def test_spans_round_to_the_time_dtype(backend: Backend) -> None:
    """0.1 as a double is more than 0.1f; a float32 gap of 0.1f is still no longer than 0.1."""
    times = torch.tensor([[0.0, 0.1]])
    _, valid = at_valid(backend, column(0, 1), times, torch.tensor([[0.05]]), max_gap=0.1)
    assert valid == [True]
    just_less = float(torch.nextafter(torch.tensor(0.1), torch.tensor(0.0)))
    _, valid = at_valid(backend, column(0, 1), times, torch.tensor([[0.05]]), max_gap=just_less)
    assert valid == [False]
    ns = stamps(0, 10, dtype=torch.int64)
    for gap, expected in ((10.9, True), (9.9, False)):  # floor
        _, valid = at_valid(backend, column(0, 1), ns, stamps(5, dtype=torch.int64), max_gap=gap)
        assert valid == [expected]


@every_backend
def test_invalid_nan_writes_over_every_column(backend: Backend) -> None:
    values = torch.arange(9.0).reshape(1, 3, 3)
    times, targets = stamps(0, 10, 50), stamps(-1, 0, 5, 30, 50, 51)
    kind = [(0, "linear"), (1, "previous"), (2, "angle")]
    kept, valid = backend.resample(values, times, targets, kind=kind, max_gap=10, return_valid=True)
    assert valid.tolist() == [[False, True, True, False, True, False]]
    assert bool(kept.isfinite().all())
    out = backend.resample(values, times, targets, kind=kind, max_gap=10, invalid="nan").cpu()
    assert_same_bits(out, torch.where(valid.cpu()[..., None], kept.cpu(), torch.tensor(NAN)))


@every_backend
def test_validity_is_that_of_every_kind(backend: Backend) -> None:
    values, times = torch.zeros(1, 2, 2), stamps(0, 100)
    targets = stamps(10, 90)
    _, valid = backend.resample(values, times, targets, kind="linear", tolerance=20, return_valid=True)
    assert valid.tolist() == [[True, True]]
    _, valid = backend.resample(
        values, times, targets, kind=[(0, "linear"), (1, "previous")], tolerance=20, return_valid=True
    )
    assert valid.tolist() == [[True, False]]


# ---- Latency -------------------------------------------------------------------------------------------------------


@every_backend
@every_time
def test_time_offset_shifts_the_target(backend: Backend, time_dtype: torch.dtype) -> None:
    """A sample stamped t was taken at t - offset: at target x stands the sample stamped x + offset."""
    values, times = column(0, 1, 2, 3), stamps(0, 10, 20, 30, dtype=time_dtype)
    targets = stamps(0, 10, 20, dtype=time_dtype)
    assert at(backend, values, times, targets, time_offset=10) == [1, 2, 3]
    assert at(backend, values, times, targets, time_offset=-10) == [0, 0, 1]
    got, valid = at_valid(backend, values, times, targets, time_offset=15, kind="previous")
    assert (got, valid) == ([1, 2, 3], [True, True, False])


@every_backend
@every_time
def test_time_offset_by_row(backend: Backend, time_dtype: torch.dtype) -> None:
    values = torch.arange(4.0).reshape(1, 4, 1).expand(3, 4, 1).contiguous()
    times, targets = torch.arange(0, 40, 10).to(time_dtype), torch.tensor([0, 10]).to(time_dtype)
    offsets = torch.tensor([0, 10, -10]).to(time_dtype)
    out = backend.resample(values, times, targets, time_offset=offsets)
    assert out[..., 0].tolist() == [[0, 1], [1, 2], [0, 0]]


@every_backend
def test_int64_targets_saturate_instead_of_wrapping(backend: Backend) -> None:
    top = 2**63 - 1
    values, times = column(1, 2), stamps(0, top, dtype=torch.int64)
    targets = torch.tensor([[top - 5]])
    assert at(backend, values, times, targets, time_offset=100, kind="previous") == [2]
    low = torch.tensor([[-(2**63) + 5]])
    got, valid = at_valid(backend, values, times, low, time_offset=-100, kind="previous")
    assert (got, valid) == ([1], [False])


@every_backend
def test_the_whole_int64_range(backend: Backend) -> None:
    low, top = -(2**63), 2**63 - 1
    values, times = column(0, 1, dtype=torch.float64), stamps(low, top, dtype=torch.int64)
    targets = torch.tensor([[low, -(2**62), 0, 2**62, top]])
    assert at(backend, values, times, targets) == pytest.approx([0, 0.25, 0.5, 0.75, 1.0], abs=1e-15)


@every_backend
def test_epoch_nanoseconds_give_what_small_times_give(backend: Backend) -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(2, 60, 4, generator=generator)
    small = torch.randint(1, 9_000_000, (2, 60), generator=generator).cumsum(1)
    targets = torch.randint(0, 300_000_000, (2, 90), generator=generator)
    epoch = 1_750_000_000_123_456_789
    for kind in ("linear", "nearest", "pchip", "angle"):
        here = backend.resample(values, small, targets, kind=kind)
        there = backend.resample(values, small + epoch, targets + epoch, kind=kind)
        assert_same_bits(there, here, kind)
