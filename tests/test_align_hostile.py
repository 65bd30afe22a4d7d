"""What only the data can tell: each fault with its exact words and place, odd numbers with their exact result."""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import robocache

from .backends import C_API, CPU, CUDA, DEVICE, HOST, TORCH, Backend, assert_same_bits
from .capi import CApiError
from .strategies import examples

NAN, INF = math.nan, math.inf
FLAT = [0.0, 1.0, 2.0, 3.0]

NOT_FINITE = "is NaN or infinite; expected finite times (cut padding off with lengths)"
BACKWARDS = "is earlier than the sample before it; expected times that never decrease"
COLLAPSED = (
    ": float32 cannot resolve these times, distinct stamps became equal; pass int64 nanoseconds or float64 seconds, "
    "or subtract the start before narrowing"
)
OUTSIDE = 'lies outside the samples of stream 0 and extrapolate is "raise"'
INVALID = 'is not valid in stream 0 (out of range, or max_gap or tolerance is exceeded) and invalid is "raise"'
LENGTH = ": expected a length between 0 and the number of samples"
SPLITS = ": expected offsets that never decrease, between 0 and the number of samples"
ROW = ": expected the index of a sequence, at least 0 and below their number"


def rows_of(*rows: list[float], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(rows, dtype=dtype)


def case(
    times: torch.Tensor | None = None,
    targets: torch.Tensor | None = None,
    values: torch.Tensor | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Arguments of a call with two sequences of four samples, sound but for what is given."""
    times = rows_of(FLAT, FLAT) if times is None else times
    if values is None:
        values = torch.arange(8.0).reshape(2, 4, 1)
    targets = torch.tensor([0.5, 1.5], dtype=times.dtype) if targets is None else targets
    return {"values": values, "times": times, "targets": targets, **options}


EPOCH32 = 1_700_000_000.0  # 128 s between neighbours in float32

FAULTS: dict[str, tuple[dict[str, Any], str, int, int, str]] = {
    "NaN time first": (
        case(rows_of(FLAT, [NAN, 1, 2, 3])),
        "time_not_finite",
        1,
        0,
        f"times: stream 0, sequence 1, sample 0 {NOT_FINITE}",
    ),
    "NaN time": (
        case(rows_of([0, NAN, 2, 3], FLAT)),
        "time_not_finite",
        0,
        1,
        f"times: stream 0, sequence 0, sample 1 {NOT_FINITE}",
    ),
    "NaN time last": (
        case(rows_of(FLAT, [0, 1, 2, NAN])),
        "time_not_finite",
        1,
        3,
        f"times: stream 0, sequence 1, sample 3 {NOT_FINITE}",
    ),
    "NaN time float32": (
        case(rows_of(FLAT, [0, 1, NAN, 3], dtype=torch.float32)),
        "time_not_finite",
        1,
        2,
        f"times: stream 0, sequence 1, sample 2 {NOT_FINITE}",
    ),
    "infinite time": (
        case(rows_of(FLAT, [0, 1, 2, INF])),
        "time_not_finite",
        1,
        3,
        f"times: stream 0, sequence 1, sample 3 {NOT_FINITE}",
    ),
    "infinite time first": (
        case(rows_of([-INF, 1, 2, 3], FLAT)),
        "time_not_finite",
        0,
        0,
        f"times: stream 0, sequence 0, sample 0 {NOT_FINITE}",
    ),
    "backwards": (
        case(rows_of(FLAT, [0, 2, 1, 3])),
        "time_backwards",
        1,
        2,
        f"times: stream 0, sequence 1, sample 2 {BACKWARDS}",
    ),
    "backwards int64": (
        case(rows_of([5, 4, 6, 7], FLAT, dtype=torch.int64), torch.tensor([5, 6])),
        "time_backwards",
        0,
        1,
        f"times: stream 0, sequence 0, sample 1 {BACKWARDS}",
    ),
    "backwards float32": (
        case(rows_of(FLAT, [0, 1, 2, 1], dtype=torch.float32)),
        "time_backwards",
        1,
        3,
        f"times: stream 0, sequence 1, sample 3 {BACKWARDS}",
    ),
    "epoch seconds in float32": (
        case(rows_of(FLAT, [EPOCH32, EPOCH32, EPOCH32, EPOCH32 + 128], dtype=torch.float32)),
        "time_collapsed",
        1,
        1,
        f"times: stream 0, sequence 1, sample 1{COLLAPSED}",
    ),
    "float32 out of steps": (
        case(rows_of(FLAT, [1.0, 1.0 + 2**-23, 1.0 + 2**-23, 3.0], dtype=torch.float32)),
        "time_collapsed",
        1,
        2,
        f"times: stream 0, sequence 1, sample 2{COLLAPSED}",
    ),
    "NaN target": (
        case(targets=rows_of([0.5, 1.5, 2.5], [0.5, 1.0, NAN])),
        "target_nan",
        1,
        2,
        "target_times: row 1, target 2 is NaN (after the time offset of stream 0)",
    ),
    "NaN target, shared": (
        case(targets=torch.tensor([0.5, NAN], dtype=torch.float64)),
        "target_nan",
        0,
        1,
        "target_times: row 0, target 1 is NaN (after the time offset of stream 0)",
    ),
    "outside raises": (
        case(targets=rows_of([0, 3], [2, 3.5]), extrapolate="raise"),
        "out_of_range",
        1,
        1,
        f"target_times: row 1, target 1 {OUTSIDE}",
    ),
    "outside through the offset": (
        case(targets=rows_of([0, 2], [1, 2]), extrapolate="raise", time_offset=1.5),
        "out_of_range",
        0,
        1,
        f"target_times: row 0, target 1 {OUTSIDE}",
    ),
    "invalid raises: gap": (
        case(rows_of(FLAT, [0, 1, 9, 10]), rows_of([0.5, 2], [0.5, 5]), max_gap=2.0, invalid="raise"),
        "invalid_target",
        1,
        1,
        f"target_times: row 1, target 1 {INVALID}",
    ),
    "invalid raises: outside": (
        case(targets=rows_of([-0.5, 0.5], [0, 1]), invalid="raise"),
        "invalid_target",
        0,
        0,
        f"target_times: row 0, target 0 {INVALID}",
    ),
    "invalid raises: tolerance": (
        case(targets=rows_of([0.25, 1], [0.5, 1]), kind="previous", tolerance=0.25, invalid="raise"),
        "invalid_target",
        1,
        0,
        f"target_times: row 1, target 0 {INVALID}",
    ),
    "length too long": (case(lengths=torch.tensor([4, 5])), "length", 1, 0, f"lengths: stream 0, sequence 1{LENGTH}"),
    "length negative": (case(lengths=torch.tensor([-1, 4])), "length", 0, 0, f"lengths: stream 0, sequence 0{LENGTH}"),
    "row_splits decrease": (
        case(torch.arange(8.0), torch.tensor([0.5]), torch.zeros(8, 1), row_splits=torch.tensor([0, 5, 3, 8])),
        "row_splits",
        1,
        0,
        f"row_splits: stream 0, sequence 1{SPLITS}",
    ),
    "row_splits past the end": (
        case(torch.arange(8.0), torch.tensor([0.5]), torch.zeros(8, 1), row_splits=torch.tensor([0, 4, 9])),
        "row_splits",
        1,
        0,
        f"row_splits: stream 0, sequence 1{SPLITS}",
    ),
    "row_splits negative": (
        case(torch.arange(8.0), torch.tensor([0.5]), torch.zeros(8, 1), row_splits=torch.tensor([-1, 4, 8])),
        "row_splits",
        0,
        0,
        f"row_splits: stream 0, sequence 0{SPLITS}",
    ),
    "row too large": (case(rows=torch.tensor([0, 1, 2])), "row", 2, 0, f"rows: stream 0, row 2{ROW}"),
    "row negative": (case(rows=torch.tensor([1, -1])), "row", 1, 0, f"rows: stream 0, row 1{ROW}"),
}

faults = pytest.mark.parametrize("name", FAULTS)


def run(backend: Backend, arguments: dict[str, Any], **options: Any) -> Any:
    return backend.resample(**arguments, **options)


def good(backend: Backend) -> None:
    """The call after an error is right."""
    out = run(backend, case())
    assert out.cpu()[..., 0].tolist() == [[0.5, 1.5], [4.5, 5.5]]


# Where several places are at fault at once, the device notes whichever thread came first.
SEVERAL = {"epoch seconds in float32", "float32 out of steps", "NaN target, shared", "outside through the offset"}


def check_error(error: Exception, name: str, device: str) -> None:
    """The fault's words and place. On a device the position in a fault of lengths, splits or rows is not told."""
    _, fault, row, position, sentence = FAULTS[name]
    said = str(error)
    if device == "cuda" and name in SEVERAL:
        assert re.sub(r"\d+", "#", said) == re.sub(r"\d+", "#", sentence)
        assert (error.fault, error.stream) == (fault, 0)
        return
    assert said == sentence
    if isinstance(error, CApiError):
        assert error.status == 3  # RC_BAD_DATA
        return
    assert (error.fault, error.stream, error.row) == (fault, 0, row)
    assert error.position == position or (device == "cuda" and fault in ("length", "row_splits", "row"))


@pytest.mark.parametrize("backend", HOST)
@faults
def test_fault(backend: Backend, name: str) -> None:
    with pytest.raises((robocache.DataError, CApiError)) as caught:
        run(backend, FAULTS[name][0])
    check_error(caught.value, name, "cpu")
    good(backend)


@pytest.mark.gpu
@pytest.mark.sanitize
@faults
def test_fault_on_the_device_is_deferred(name: str) -> None:
    """The call itself returns; check() raises once and forgets; the next call works."""
    moved = {key: CUDA.put(value) for key, value in FAULTS[name][0].items()}
    out = robocache.resample_trajectories(
        moved.pop("values"), moved.pop("times"), moved.pop("targets"), backend="cuda", **moved
    )
    with pytest.raises(robocache.DataError) as caught:
        robocache.check()
    check_error(caught.value, name, "cuda")
    robocache.check()
    assert out.shape[-1] == 1
    good(CUDA)


@pytest.mark.gpu
def test_a_fault_harms_only_what_it_touches() -> None:
    generator = torch.Generator().manual_seed(1)
    values, times = torch.randn(6, 50, 7, generator=generator), torch.rand(6, 50, generator=generator).cumsum(1)
    targets = torch.rand(6, 80, generator=generator) * 20
    want = CPU.resample(values, times, targets)
    times[3, 20] = NAN
    targets[5, 7] = NAN
    out = robocache.resample_trajectories(*(t.cuda() for t in (values, times, targets)), backend="cuda").cpu()
    with pytest.raises(robocache.DataError):
        robocache.check()
    rows = [0, 1, 2, 4]
    assert_same_bits(out[rows], want[rows])
    others = torch.arange(80) != 7
    assert_same_bits(out[5, others], want[5, others])
    assert bool(out[5, 7].isnan().all())


@pytest.mark.gpu
def test_check_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBOCACHE_CHECK", "sync")
    arguments, _, _, _, sentence = FAULTS["backwards"]
    moved = {key: CUDA.put(value) for key, value in arguments.items()}
    with pytest.raises(robocache.DataError) as caught:
        robocache.resample_trajectories(moved["values"], moved["times"], moved["targets"])
    assert str(caught.value) == sentence
    robocache.check()


@pytest.mark.gpu
def test_with_rows_only_what_is_read_is_checked() -> None:
    """A packed dataset is not scanned for a batch of windows; a sample that a target reads is looked at."""
    times = torch.cat([torch.arange(50.0), torch.tensor([5.0, NAN, 7.0, 9.0])])
    values, splits = torch.arange(54.0).reshape(54, 1), torch.tensor([0, 50, 54])
    options = {"row_splits": splits, "rows": torch.tensor([0, 0])}
    out = CUDA.resample(values, times, torch.tensor([1.5, 2.5]), **options)
    assert out.cpu()[..., 0].tolist() == [[1.5, 2.5]] * 2
    options["rows"] = torch.tensor([0, 0, 1])
    with pytest.raises(robocache.DataError) as caught:
        CUDA.resample(values, times, torch.tensor([6.0]), **options)
    assert (caught.value.fault, caught.value.row, caught.value.position) == ("time_not_finite", 1, 1)


@pytest.mark.parametrize("sequences", [40, 4000])  # of 4000 too many to remember which were looked through
@pytest.mark.parametrize("backend", HOST)
def test_a_bad_clock_is_found_however_often_it_is_drawn(backend: Backend, sequences: int) -> None:
    """The host looks once through a sequence that many rows draw, and only through those that are drawn."""
    generator = torch.Generator().manual_seed(3)
    times = torch.arange(30, dtype=torch.int64).repeat(sequences, 1)
    values = torch.rand(sequences, 30, 2, generator=generator)
    rows = torch.randint(0, 37, (60,), generator=generator)
    targets = torch.randint(0, 30, (60, 4), generator=generator)
    want = values[rows[:, None], targets]
    assert_same_bits(backend.resample(values, times, targets, rows=rows), want)
    times[39, 20:] = 0
    assert_same_bits(backend.resample(values, times, targets, rows=rows), want)  # nobody draws it
    rows[[20, 21, 50]] = 39
    with pytest.raises((robocache.DataError, CApiError), match="stream 0, sequence 39, sample 20 is earlier"):
        backend.resample(values, times, targets, rows=rows)


@pytest.mark.parametrize("backend", [pytest.param(CPU, id="cpu"), pytest.param(C_API, id="c")])
@faults
def test_a_fault_leaves_out_as_it_was(backend: Backend, name: str) -> None:
    from . import capi

    arguments = dict(FAULTS[name][0])
    rows, splits = arguments.get("rows"), arguments.get("row_splits")
    batch = rows.numel() if rows is not None else 2 if splits is None else splits.numel() - 1
    out = torch.full((batch, arguments["targets"].shape[-1], 1), 77.0)
    with pytest.raises((robocache.DataError, CApiError)):
        if backend.name == "c":
            targets = arguments.pop("targets")
            capi.align([arguments], targets, out=out)
        else:
            run(backend, arguments, out=out)
    assert bool((out == 77.0).all())


@pytest.mark.parametrize("backend", [*HOST, DEVICE[0]])
def test_a_fault_names_its_stream(backend: Backend) -> None:
    good_stream = {"values": torch.zeros(1, 4, 2), "times": rows_of(FLAT)}
    bad_stream = {"values": torch.zeros(1, 4, 1), "times": rows_of([0, 1, 3, 2])}
    with pytest.raises((robocache.DataError, CApiError)) as caught:
        backend.fuse([good_stream, good_stream, bad_stream], torch.tensor([[0.5]], dtype=torch.float64))
    assert str(caught.value) == f"times: stream 2, sequence 0, sample 3 {BACKWARDS}"
    if backend.name != "c":
        assert (caught.value.stream, caught.value.row, caught.value.position) == (2, 0, 3)
    good(backend)


# ---- Anything at all -----------------------------------------------------------------------------------------------


@st.composite
def garbage(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of the right shapes whose numbers keep no promise."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    b, s, d, t = (draw(st.sampled_from(sizes)) for sizes in ((1, 2, 5), (1, 2, 3, 17, 70), (1, 4, 8, 20), (1, 3, 40)))

    def wild(*shape: int) -> torch.Tensor:
        x = torch.randn(shape, generator=generator, dtype=torch.float64) * 10 ** draw(st.integers(-3, 3))
        odd = torch.tensor([NAN, INF, -INF, 0.0, -0.0, 1e300, -1e300, 5e-324], dtype=torch.float64)
        pick = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.05, 0.5]))
        x = torch.where(pick, odd[torch.randint(0, 8, shape, generator=generator)], x)
        return x.sort(dim=-1).values if draw(st.booleans()) else x

    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.int64]))
    times, targets = wild(b, s), wild(b, t)
    if dtype == torch.int64:
        times, targets = ((x.nan_to_num() * 10).clamp(-9e18, 9e18) for x in (times, targets))
    arguments: dict[str, Any] = {
        "values": wild(b, s, d).to(draw(st.sampled_from([torch.float16, torch.float32, torch.float64]))),
        "times": times.to(dtype),
        "targets": targets.to(dtype),
        "kind": draw(st.sampled_from(["linear", "nearest", "previous", "next", "pchip", "angle"])),
        "extrapolate": draw(st.sampled_from(["clamp", "nan", "linear", "raise"])),
        "invalid": draw(st.sampled_from(["keep", "nan", "raise"])),
        "max_gap": draw(st.sampled_from([None, 0.0, 1.0, 1e9])),
        "tolerance": draw(st.sampled_from([None, 0.0, 1.0, 1e9])),
    }
    if draw(st.booleans()):
        arguments["lengths"] = torch.randint(-1, s + 2, (b,), generator=generator)
    if draw(st.booleans()):
        arguments["rows"] = torch.randint(-1, b + 1, (b,), generator=generator)
    return arguments


@pytest.mark.parametrize(
    "backend", [pytest.param(CPU, id="cpu"), pytest.param(C_API, id="c"), pytest.param(TORCH, id="torch"), DEVICE[0]]
)
@examples(300)
@given(arguments=garbage())
def test_garbage_is_refused_or_computed(backend: Backend, arguments: dict[str, Any]) -> None:
    """Never a crash, never a write past the output, and the same verdict from every backend on the host."""
    batch = arguments["rows"].numel() if "rows" in arguments else arguments["values"].shape[0]
    shape = (batch, arguments["targets"].shape[-1], arguments["values"].shape[-1])
    fence = 64
    buffer = torch.full((math.prod(shape) + 2 * fence,), 77.0, dtype=arguments["values"].dtype, device=backend.device)
    out = buffer[fence:-fence].view(shape)
    try:
        if backend.name == "c":
            from . import capi

            plain = dict(arguments)
            capi.align([plain], plain.pop("targets"), out=out)
        else:
            run(backend, arguments, out=out)
        refused = None
    except (robocache.DataError, CApiError) as error:
        refused = str(error)
    assert bool((buffer[:fence] == 77.0).all()) and bool((buffer[-fence:] == 77.0).all())
    if backend.device == "cuda":
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            want = run(CPU, arguments)
            verdict = None
        except robocache.DataError as error:
            verdict = str(error)
    assert refused == verdict
    if refused is None and arguments["kind"] != "pchip":
        assert_same_bits(out, want)
