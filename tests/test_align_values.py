"""What becomes of values: NaN, padding, packed rows, kinds by column, angles, quaternions, integers, rounding."""

from __future__ import annotations

import math

import pytest
import torch

from .backends import CPU, DEVICE, HOST, Backend, assert_same_bits, every_backend
from .test_align_semantics import KINDS, NAN, STEP_KINDS, at, column, stamps


@every_backend
@pytest.mark.parametrize("kind", ["linear", "nearest", "previous", "next", "pchip", "angle"])
def test_a_nan_value_reaches_only_outputs_that_touch_it(backend: Backend, kind: str) -> None:
    values = torch.randn(1, 9, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    clean = values.clone()
    values[0, 4, 1] = NAN
    times = torch.arange(9, dtype=torch.float64)[None]
    targets = torch.arange(0, 8.25, 0.25, dtype=torch.float64)[None]
    out, want = (backend.resample(v, times, targets, kind=kind).cpu()[0] for v in (values, clean))
    t = targets[0]
    touches = {
        "linear": (t > 3) & (t < 5),
        "angle": (t > 3) & (t < 5),
        "previous": (t >= 4) & (t < 5),
        "next": (t > 3) & (t <= 4),
        "nearest": (t > 3.5) & (t <= 4.5),
        # the slopes of the cubic see one more sample on either side
        "pchip": (t > 2) & (t < 6) & (t != 3) & (t != 5),
    }[kind]
    assert out[:, 1].isnan().tolist() == touches.tolist()
    assert_same_bits(out[:, [0, 2]], want[:, [0, 2]])
    assert_same_bits(out[~touches], want[~touches])


@every_backend
def test_padding_is_never_read(backend: Backend) -> None:
    generator = torch.Generator().manual_seed(5)
    values = torch.randn(3, 20, 4, generator=generator)
    times = torch.rand(3, 20, generator=generator).cumsum(1)
    lengths = torch.tensor([20, 7, 1])
    targets = torch.rand(3, 30, generator=generator) * 8
    for kind in KINDS:
        want = backend.resample(values, times, targets, kind=kind, lengths=lengths)
        poisoned_values, poisoned_times = values.clone(), times.clone()
        for b, n in enumerate(lengths.tolist()):
            poisoned_values[b, n:] = NAN
            poisoned_times[b, n:] = NAN
        got = backend.resample(poisoned_values, poisoned_times, targets, kind=kind, lengths=lengths)
        assert_same_bits(got, want, kind)
        poisoned_times[poisoned_times.isnan()] = -5.0  # backwards, were it read
        assert_same_bits(
            backend.resample(poisoned_values, poisoned_times, targets, kind=kind, lengths=lengths), want, kind
        )


@every_backend
def test_packed_rows_and_lengths_say_the_same(backend: Backend) -> None:
    generator = torch.Generator().manual_seed(6)
    lengths = torch.tensor([5, 0, 12, 1])
    values = torch.randn(4, 12, 3, generator=generator)
    times = torch.rand(4, 12, generator=generator).cumsum(1)
    targets = torch.rand(4, 25, generator=generator) * 7
    keep = torch.arange(12) < lengths[:, None]
    splits = torch.tensor([0, 5, 5, 17, 18])
    packed_values, packed_times = values[keep], times[keep]
    for kind in ("linear", "next", "pchip"):
        dense = backend.resample(values, times, targets, kind=kind, lengths=lengths)
        packed = backend.resample(packed_values, packed_times, targets, kind=kind, row_splits=splits)
        assert_same_bits(packed, dense, kind)
        rows = torch.tensor([2, 2, 0, 3, 1, 2])
        chosen = targets[:, :6].repeat(2, 1)[:6].contiguous()
        picked = backend.resample(packed_values, packed_times, chosen, kind=kind, row_splits=splits, rows=rows)
        for b, r in enumerate(rows.tolist()):
            alone = backend.resample(
                values[r : r + 1], times[r : r + 1], chosen[b : b + 1], kind=kind, lengths=lengths[r : r + 1]
            )
            assert_same_bits(picked[b : b + 1], alone, f"{kind} row {b}")
        dense_rows = backend.resample(values, times, chosen, kind=kind, lengths=lengths, rows=rows)
        assert_same_bits(dense_rows, picked, kind)


@every_backend
def test_kinds_by_column(backend: Backend) -> None:
    generator = torch.Generator().manual_seed(7)
    values = torch.randn(2, 15, 12, generator=generator)
    times = torch.rand(2, 15, generator=generator).cumsum(1)
    targets = torch.rand(2, 40, generator=generator) * 9
    kind = [
        (slice(0, 3), "linear"),
        ([4, 5, 6, 7], "slerp_wxyz"),
        (range(8, 10), "angle"),
        (3, "previous"),
        (..., "pchip"),
    ]
    out = backend.resample(values, times, targets, kind=kind).cpu()
    for columns, name in ((slice(0, 3), "linear"), (slice(3, 4), "previous"), (slice(4, 8), "slerp_wxyz")):
        assert_same_bits(out[..., columns], backend.resample(values[..., columns], times, targets, kind=name), name)
    for columns, name in ((slice(8, 10), "angle"), (slice(10, 12), "pchip")):
        assert_same_bits(out[..., columns], backend.resample(values[..., columns], times, targets, kind=name), name)


@every_backend
def test_scattered_columns(backend: Backend) -> None:
    values = torch.randn(1, 6, 5, generator=torch.Generator().manual_seed(8))
    times, targets = torch.arange(6.0)[None], torch.tensor([[0.4, 2.6, 4.9]])
    out = backend.resample(values, times, targets, kind=[([0, 3, 4], "next"), (..., "linear")]).cpu()
    stepped = backend.resample(values, times, targets, kind="next").cpu()
    lerped = backend.resample(values, times, targets, kind="linear").cpu()
    assert_same_bits(out[..., [0, 3, 4]], stepped[..., [0, 3, 4]])
    assert_same_bits(out[..., [1, 2]], lerped[..., [1, 2]])


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_angles_stay_in_their_interval(backend: Backend, dtype: torch.dtype) -> None:
    pi = torch.tensor(math.pi, dtype=dtype)
    below = torch.nextafter(pi, torch.zeros((), dtype=dtype))
    values = torch.stack([below, -pi, pi, torch.tensor(3.0 * math.pi, dtype=dtype), -below]).reshape(1, -1, 1)
    times = torch.arange(5, dtype=torch.float64)[None]
    targets = torch.linspace(-1, 5, 601, dtype=torch.float64)[None]
    out = backend.resample(values, times, targets, kind="angle", extrapolate="linear").cpu()
    assert bool((out >= -pi).all()) and bool((out < pi).all())
    hits = backend.resample(values, times, times, kind="angle").cpu()[0, :, 0]
    assert hits[0] == below and hits[1] == -pi and hits[2] == -pi and hits[4] == -below
    assert abs(abs(float(hits[3])) - math.pi) < 1e-5


@every_backend
def test_angle_takes_the_shorter_arc(backend: Backend) -> None:
    values = column(3.0, -3.0, 3.0, dtype=torch.float64)
    out = at(backend, values, stamps(0, 1, 2), stamps(0.25, 0.5, 1.75), kind="angle")
    step = 2 * math.pi - 6.0
    assert out == pytest.approx([3.0 + step / 4, -math.pi, 3.0 + step / 4], abs=1e-12)


@every_backend
@pytest.mark.parametrize("kind", ["slerp_xyzw", "slerp_wxyz"])
def test_slerp_corner_inputs(backend: Backend, kind: str) -> None:
    half = math.sqrt(0.5)
    one, turned = [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, half, half]
    rows = {
        "identical": (one, one, one),
        "opposite signs": (one, [-v for v in one], one),
        "scaled": (
            [0.0, 0.0, 0.0, 5.0],
            [0.0, 0.0, 0.01, 0.01],
            [0.0, 0.0, math.sin(math.pi / 8), math.cos(math.pi / 8)],
        ),
        "sign flip": (turned, [0.0, 0.0, 0.0, -1.0], [0.0, 0.0, math.sin(math.pi / 8), math.cos(math.pi / 8)]),
        "half turn": (one, [1.0, 0.0, 0.0, 0.0], [half, 0.0, 0.0, half]),
    }
    for name, (first, second, middle) in rows.items():
        values = torch.tensor([[first, second]], dtype=torch.float64)
        out = backend.resample(values, stamps(0, 1), stamps(0, 0.5, 1), kind=kind)[0]
        assert out[0].tolist() == first and out[2].tolist() == second, name
        assert out[1].tolist() == pytest.approx(middle, abs=1e-15), name
    zero = torch.tensor([[[0.0] * 4, one]], dtype=torch.float64)
    out = backend.resample(zero, stamps(0, 1), stamps(0, 0.5, 1), kind=kind)[0]
    assert out[0].tolist() == [0.0] * 4 and bool(out[1].isnan().all()) and out[2].tolist() == one


@every_backend
@pytest.mark.parametrize("kind", STEP_KINDS)
@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=lambda d: str(d)[6:]
)
def test_integers_are_carried_exactly(backend: Backend, kind: str, dtype: torch.dtype) -> None:
    if dtype == torch.bool:
        values = column(1, 0, 1, 1, dtype=dtype)
    else:
        info = torch.iinfo(dtype)
        values = column(info.min, info.max, 3, info.max - 1, dtype=dtype)
    index = {"nearest": [0, 0, 1, 2, 3], "previous": [0, 0, 0, 2, 3], "next": [0, 1, 1, 3, 3]}[kind]
    out = backend.resample(values, stamps(0, 10, 20, 30), stamps(0, 4, 6, 24, 30)[:, :5], kind=kind)
    if kind == "nearest":
        index = [0, 0, 1, 2, 3]
    assert_same_bits(out, values[:, index])


@every_backend
def test_integers_to_floating_outputs(backend: Backend) -> None:
    values = column(2**53 + 1, -(2**62) - 3, 16_777_217, dtype=torch.int64)
    times = stamps(0, 1, 2)
    for out_dtype in (torch.float32, torch.float64, torch.float16):
        out = backend.resample(values, times, times, kind="previous", out_dtype=out_dtype)
        through = torch.float64 if out_dtype == torch.float64 else torch.float32
        assert_same_bits(out, values.to(through).to(out_dtype))
    wide = backend.resample(values.to(torch.int32), times, times, kind="next", out_dtype=torch.int64)
    assert_same_bits(wide, values.to(torch.int32).to(torch.int64))


@every_backend
@pytest.mark.parametrize("out_dtype", [torch.float16, torch.bfloat16])
def test_doubles_reach_half_types_through_float32(backend: Backend, out_dtype: torch.dtype) -> None:
    """Twice rounded, as documented: this double lies just above a tie that float32 rounds onto."""
    if backend.needs_torch_dtype(out_dtype):
        pytest.skip("NumPy has no bfloat16")
    eps = torch.finfo(out_dtype).eps
    value = 1.0 + eps / 2 + 2.0**-40
    out = backend.resample(column(value, value, dtype=torch.float64), stamps(0, 1), stamps(0, 0.5), out_dtype=out_dtype)
    assert_same_bits(out, torch.ones(1, 2, 1, dtype=out_dtype))


@every_backend
def test_linear_rounds_each_operation_on_its_own(backend: Backend) -> None:
    generator = torch.Generator().manual_seed(9)
    v0, v1 = torch.randn(2, 5000, generator=generator)
    w = torch.rand(1, generator=generator)
    values = torch.stack([v0, v1])[None]
    out = backend.resample(values, torch.tensor([[0.0, 1.0]]), w[None])
    product = w * (v1 - v0)  # its own rounding
    assert_same_bits(out[0, 0], v0 + product)
    fused = (v0.double() + w.double() * (v1 - v0).double()).float()
    assert bool((fused != v0 + product).any())  # a contraction would have been seen


# ---- Latencies and indices as other types --------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [pytest.param(CPU, id="cpu"), *HOST[1:2], HOST[3], *DEVICE])
def test_a_latency_larger_than_a_double_holds(backend: Backend) -> None:
    """Targets counted from the episode's start, stamps in epoch nanoseconds: the offset between is exact."""
    start = 1_750_000_000_123_456_789
    assert int(float(start)) != start
    relative = torch.tensor([[0, 10, 20, 30]])
    values = column(0, 1, 2, 3)
    at_start = torch.tensor([[0, 9, 10, 11, 30]])
    for kind in ("previous", "next", "linear"):
        want = backend.resample(values, relative, at_start, kind=kind)
        got = backend.resample(values, relative + start, at_start, kind=kind, time_offset=start)
        assert_same_bits(got, want, kind)
        by_tensor = backend.resample(values, relative + start, at_start, kind=kind, time_offset=torch.tensor(start))
        assert_same_bits(by_tensor, want, kind)


@pytest.mark.parametrize("backend", [pytest.param(CPU, id="cpu"), *HOST[1:2], HOST[3], *DEVICE])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_indices_of_other_integer_types(backend: Backend, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(10)
    values, times = torch.randn(18, 3, generator=generator), torch.rand(18, generator=generator).cumsum(0)
    splits, rows = torch.tensor([0, 5, 5, 18]), torch.tensor([2, 0, 1, 2])
    targets = torch.rand(4, 9, generator=generator) * 9
    want = backend.resample(values, times, targets, row_splits=splits, rows=rows)
    got = backend.resample(values, times, targets, row_splits=splits.to(dtype), rows=rows.to(dtype))
    assert_same_bits(got, want)
    dense, lengths = values[:16].reshape(2, 8, 3), torch.tensor([8, 3])
    stamps_of = times[:16].reshape(2, 8)
    want = backend.resample(dense, stamps_of, targets[:2], lengths=lengths)
    assert_same_bits(backend.resample(dense, stamps_of, targets[:2], lengths=lengths.to(dtype)), want)
