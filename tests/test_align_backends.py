"""One call, the same bits: native kernels, reference, NumPy and C, every vector code, fuse and single resamples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cases import CASES, Case, build

from . import capi
from .backends import (
    C_API,
    CPU,
    CUDA,
    NUMPY,
    TORCH,
    TORCH_ON_CUDA,
    Backend,
    assert_same_bits,
    assert_within_ulps,
    native_backend,
)
from .strategies import FLOATS, INTEGERS, Call, calls, examples, strided

OTHERS = [
    pytest.param(TORCH, id="torch"),
    pytest.param(C_API, id="c"),
    pytest.param(NUMPY, id="numpy"),
    pytest.param(CUDA, id="cuda", marks=pytest.mark.gpu),
    pytest.param(TORCH_ON_CUDA, id="torch-on-cuda", marks=pytest.mark.gpu),
]
against_cpu = pytest.mark.parametrize("other", OTHERS)
SAME_ARITHMETIC = ("c", "numpy")  # other doors to the CPU kernel: every kind to the bit
ISAS = ("portable", "avx2", "avx512", "neon")


def compare(got: torch.Tensor, want: torch.Tensor, call: Call, other: Backend) -> None:
    got, want = got.cpu(), want.cpu()
    if other.name in SAME_ARITHMETIC:
        assert_same_bits(got, want)
        return
    exact = call.exact_columns
    assert_same_bits(got[..., exact], want[..., exact])
    assert_within_ulps(got, want, 2)


@against_cpu
@examples(300)
@given(call=calls())
def test_equal_to_the_cpu_kernel(other: Backend, call: Call) -> None:
    if other.needs_torch_dtype(*call.dtypes):
        return
    want, want_valid = CPU.resample(call.values, call.times, call.targets, return_valid=True, **call.options)
    got, got_valid = other.resample(call.values, call.times, call.targets, return_valid=True, **call.options)
    assert_same_bits(got_valid, want_valid, "valid")
    compare(got, want, call, other)


@pytest.mark.parametrize("backend", [pytest.param(CPU, id="cpu"), pytest.param(C_API, id="c"), *OTHERS[3:]])
@examples(150)
@given(data=st.data())
def test_strides_do_not_matter(backend: Backend, data: st.DataObject) -> None:
    call = data.draw(calls())
    other = data.draw(strided(call))
    want, want_valid = backend.resample(call.values, call.times, call.targets, return_valid=True, **call.options)
    got, got_valid = backend.resample(other.values, other.times, other.targets, return_valid=True, **other.options)
    assert_same_bits(got, want)
    assert_same_bits(got_valid, want_valid)


@examples(300)
@given(call=calls())
def test_every_vector_code_agrees(call: Call) -> None:
    results: dict[str, Any] = {}
    for isa in ISAS:
        with capi.cpu_isa(isa) as had:
            if had:
                results[isa] = CPU.resample(call.values, call.times, call.targets, return_valid=True, **call.options)
    want, want_valid = results["portable"]
    for isa, (got, got_valid) in results.items():
        assert_same_bits(got, want, isa)
        assert_same_bits(got_valid, want_valid, isa)


def test_vector_codes_of_this_machine_are_there() -> None:
    """The test above compares something: what the processor has, the build has."""
    with open("/proc/cpuinfo") as file:
        flags = file.read()
    for isa, flag in (("avx2", " avx2 "), ("avx512", " avx512vl ")):
        with capi.cpu_isa(isa) as had:
            assert had == (flag in flags), isa
            if had:
                assert capi.library().rc_cpu_isa().decode() == isa
    with capi.cpu_isa("portable") as had:
        assert had and capi.library().rc_cpu_isa() == b"portable"
    with capi.cpu_isa("sse9") as had:
        assert not had


@st.composite
def fusions(draw: st.DrawFn) -> tuple[list[Call], torch.Tensor]:
    """Up to 6 streams with one batch, one time dtype and the same targets, everything else their own."""
    time_dtype = draw(st.sampled_from((torch.float32, torch.float64, torch.int64)))
    dtypes = draw(st.sampled_from([FLOATS, INTEGERS, FLOATS + INTEGERS]))
    first = draw(calls(value_dtypes=dtypes, time_dtypes=(time_dtype,)))
    out_rows = _batch(first)
    streams = [first]
    for _ in range(draw(st.integers(0, 5))):
        call = draw(calls(value_dtypes=dtypes, time_dtypes=(time_dtype,)))
        streams.append(_with_batch(call, out_rows))
    targets = first.targets
    return streams, targets


def _batch(call: Call) -> int:
    if "rows" in call.options:
        return call.options["rows"].numel()
    return call.options["row_splits"].numel() - 1 if "row_splits" in call.options else call.values.shape[0]


def _with_batch(call: Call, batch: int) -> Call:
    """The same stream read by `batch` output rows."""
    options = dict(call.options)
    if _batch(call) != batch:
        sequences = options["row_splits"].numel() - 1 if "row_splits" in options else call.values.shape[0]
        options["rows"] = torch.arange(batch) % sequences
        if isinstance(options.get("time_offset"), torch.Tensor):
            options["time_offset"] = options["time_offset"][torch.arange(batch) % options["time_offset"].numel()]
    return Call(call.values, call.times, call.targets, options)


@pytest.mark.parametrize(
    "backend",
    [pytest.param(CPU, id="cpu"), pytest.param(TORCH, id="torch"), pytest.param(NUMPY, id="numpy"), *OTHERS[3:]],
)
@examples(120)
@given(fusion=fusions(), data=st.data())
def test_fuse_is_the_concatenation(
    backend: Backend, fusion: tuple[list[Call], torch.Tensor], data: st.DataObject
) -> None:
    streams, targets = fusion
    promoted = streams[0].values.dtype
    for call in streams[1:]:
        promoted = torch.promote_types(promoted, call.values.dtype)
    if (
        any("nan" in (c.options["extrapolate"], c.options.get("invalid")) for c in streams)
        and not promoted.is_floating_point
    ):
        promoted = torch.float32
    out_dtype = data.draw(st.sampled_from([promoted, *FLOATS]))
    if backend.needs_torch_dtype(out_dtype, *(c.values.dtype for c in streams)):
        return
    fused, fused_valid = backend.fuse([c.stream() for c in streams], targets, return_valid=True, out_dtype=out_dtype)
    parts, masks = [], []
    for call in streams:
        options = {k: v for k, v in call.options.items() if k != "out_dtype"}
        out, valid = backend.resample(
            call.values, call.times, targets, return_valid=True, out_dtype=out_dtype, **options
        )
        parts.append(out.cpu())
        masks.append(valid.cpu())
    assert_same_bits(fused, torch.cat(parts, dim=-1))
    assert_same_bits(fused_valid, torch.stack(masks, dim=-1))


def test_fuse_promotes_by_default() -> None:
    times = torch.arange(3.0)
    streams = [
        {"values": torch.ones(1, 3, 2, dtype=torch.int32), "times": times, "kind": "previous"},
        {"values": torch.full((1, 3, 1), 0.5, dtype=torch.float16), "times": times},
    ]
    for backend in (CPU, TORCH):
        out = backend.fuse(streams, times)
        assert out.dtype == torch.float16
        assert out[0, 1].tolist() == [1.0, 1.0, 0.5]


def test_sixteen_streams() -> None:
    generator = torch.Generator().manual_seed(1)
    times = [torch.rand(2, 5 + k, generator=generator).cumsum(1) for k in range(16)]
    streams = [
        {"values": torch.randn(2, 5 + k, 1 + k % 3, generator=generator), "times": t} for k, t in enumerate(times)
    ]
    targets = torch.rand(2, 20, generator=generator) * 4
    for backend in (CPU, TORCH, C_API, NUMPY):
        fused = backend.fuse(streams, targets)
        want = torch.cat([CPU.resample(s["values"], s["times"], targets) for s in streams], dim=-1)
        assert_same_bits(fused, want, backend.name)


def case_call(backend: Backend, case: Case, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = build(case, "cpu", seed)
    options: dict[str, Any] = {"return_valid": True}
    if case.out_dtype is not None:
        from benchmarks.cases import DTYPES

        options["out_dtype"] = DTYPES[case.out_dtype]
    if case.op == "resample":
        return backend.resample(targets=inputs.targets, **inputs.streams[0], **options)
    return backend.fuse(inputs.streams, inputs.targets, **options)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("other", [OTHERS[0], OTHERS[1], *OTHERS[3:]])
def test_case_table_small(other: Backend, case: Case) -> None:
    """Every case that is benchmarked, made small, is right."""
    small = case.scaled(3, 37)
    want, want_valid = case_call(CPU, small, 1)
    got, got_valid = case_call(other, small, 1)
    assert_same_bits(got_valid, want_valid)
    if case.exact or other.name in SAME_ARITHMETIC:
        assert_same_bits(got, want)
    else:
        assert_within_ulps(got, want, 2)


@pytest.mark.gpu
@pytest.mark.parametrize("case", [c for c in CASES if "gpu" in c.tags], ids=lambda case: case.name)
def test_case_table_full_size(case: Case) -> None:
    """The shapes that are timed, whole, on the device: kernel against reference."""
    from benchmarks.align import check_ours

    assert check_ours(case, build(case, "cuda", 3))["ulp"] <= (0 if case.exact else 2)


@pytest.mark.gpu
@pytest.mark.sanitize
@pytest.mark.parametrize(
    "name",
    [
        "resample-32x500x256-256-bf16",
        "resample-2048x1000x8-500-fp32",
        "fuse-256-128-bf16",
        "robot-64-100-mixed",
        "pchip-512x500x32-250-fp32",
        "windows-1024x500x64-16-bf16",
        "lengths-512x500x64-250-bf16",
        "nearest-512x500x32-250-u8",
    ],
)
def test_case_table_under_the_sanitizer(name: str) -> None:
    case = next(c for c in CASES if c.name == name).scaled(4, 130)
    want, _ = case_call(CPU, case, 2)
    got, _ = case_call(CUDA, case, 2)
    assert_within_ulps(got, want, 0 if case.exact else 2)


@native_backend
def test_a_call_twice_is_the_same(backend: Backend) -> None:
    generator = torch.Generator().manual_seed(2)
    values, times = torch.randn(8, 300, 33, generator=generator), torch.rand(8, 300, generator=generator).cumsum(1)
    targets = torch.rand(8, 500, generator=generator) * 150
    for kind in ("linear", "pchip", "angle"):
        first = backend.resample(values, times, targets, kind=kind)
        for _ in range(3):
            assert_same_bits(backend.resample(values, times, targets, kind=kind), first, kind)


def test_threads_do_not_change_bits() -> None:
    case = next(c for c in CASES if c.name == "cpu-resample-512x100x64-1000-fp32")
    threads = torch.get_num_threads()
    inputs = build(case.scaled(32, 1000), "cpu", 4)
    try:
        torch.set_num_threads(1)
        one = CPU.resample(targets=inputs.targets, **inputs.streams[0])
        torch.set_num_threads(max(2, threads))
        many = CPU.resample(targets=inputs.targets, **inputs.streams[0])
    finally:
        torch.set_num_threads(threads)
    assert_same_bits(many, one)
    assert_same_bits(C_API.resample(targets=inputs.targets, **inputs.streams[0]), one)  # serial, no pool
