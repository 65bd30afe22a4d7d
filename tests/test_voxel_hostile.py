"""Coordinates on faces and beyond numbers, grids and splits that keep no promise, grids that cannot fit."""

from __future__ import annotations

import ctypes
import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import robocache

from . import capi
from .backends import assert_same_bits
from .strategies import examples
from .voxel_backends import C_API, CPU, CUDA, DEVICE, HOST, TORCH, Call, VoxelBackend, agrees_with_oracle, every_backend

NAN, INF = math.nan, math.inf
ODD = (NAN, INF, -INF, 0.0, -0.0, 1e30, -1e30, 1e-42, -1e-42, 3.4028235e38, -3.4028235e38, 1e-20, -1e-20, 0.5, 2.5)
AWKWARD = (0.1, 0.05, 1 / 3, 0.7, 1e-3, 3.3, 1.0)
EXPONENTS = {torch.float32: (23, -149, 2.0**128), torch.float64: (52, -1074, math.inf)}


def dense(points: torch.Tensor, features: torch.Tensor | None = None, **options: Any) -> Call:
    return Call("dense", (points, features), options)


# ---- The index to the bit, from rational numbers --------------------------------------------------------------------


def nearest_number(exact: Fraction, dtype: torch.dtype) -> Fraction:
    """A rational number rounded to nearest, ties to even, in a floating dtype (far from its largest)."""
    if exact == 0:
        return exact
    places, lowest, _ = EXPONENTS[dtype]
    exponent = math.floor(math.log2(abs(exact.numerator)) - math.log2(exact.denominator)) - places
    for step in (exponent - 2, exponent - 1, exponent, exponent + 1, exponent + 2):  # log2 may be off by one
        unit = Fraction(2) ** max(step, lowest)
        if abs(exact) / unit < 2 ** (places + 1):
            return round(exact / unit) * unit  # round() of a Fraction takes ties to even
    raise AssertionError(exact)


def exact_cell(p: float, low: float, voxel: float, dtype: torch.dtype) -> int:
    """floor of the rounded quotient of the rounded difference."""
    difference = nearest_number(Fraction(p) - Fraction(low), dtype)
    return math.floor(nearest_number(difference / Fraction(voxel), dtype))


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("voxel", AWKWARD, ids=lambda v: f"{v:.3g}")
def test_every_face_and_a_hair_beside_it(backend: VoxelBackend, voxel: float, dtype: torch.dtype) -> None:
    """Points at k * voxel_size + grid_min and the next numbers under and over them, on each axis."""
    count = 40
    for low in (0.0, -1.7, 0.3):
        v, corner = torch.tensor(voxel, dtype=dtype), torch.tensor(low, dtype=dtype)
        faces = corner + torch.arange(-1, count + 2).to(dtype) * v
        up, down = torch.tensor(INF, dtype=dtype), torch.tensor(-INF, dtype=dtype)
        line = torch.cat([faces, torch.nextafter(faces, up), torch.nextafter(faces, down)])
        want = [exact_cell(p, corner.item(), v.item(), dtype) for p in line.tolist()]
        assert len(set(want)) >= count
        for axis in range(3):
            points = (corner + v / 2).repeat(len(line), 3)
            points[:, axis] = line
            size = [1, 1, 1]
            size[axis] = count
            call = dense(points, voxel_size=voxel, grid_min=low, grid_size=tuple(size), return_inverse=True)
            got = backend.run(call)["inverse"].tolist()
            assert got == [q if 0 <= q < count else -1 for q in want], (low, axis)


def test_the_rational_rounding_is_right() -> None:
    """The helper above against the machine's own arithmetic."""
    generator = torch.Generator().manual_seed(1)
    for dtype in EXPONENTS:
        a, b = (torch.randn(300, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
        tiny = torch.tensor([1e-42, 3e-45, 5e-324], dtype=dtype)
        for x, y in zip([*a.tolist(), *tiny.tolist()], [*b.tolist(), 3.0, 7.0, 2.0], strict=True):
            quotient = (torch.tensor(x, dtype=dtype) / torch.tensor(y, dtype=dtype)).item()
            assert nearest_number(Fraction(x) / Fraction(y), dtype) == Fraction(quotient)


@every_backend
@pytest.mark.parametrize("bounds", ["drop", "clamp"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_odd_coordinates_in_every_combination(backend: VoxelBackend, dtype: torch.dtype, bounds: str) -> None:
    points = torch.tensor(list(itertools.product(ODD, ODD, (0.5, NAN, -INF, 1e30, -0.0))), dtype=torch.float64)
    points = points.to(dtype)
    options = {"bounds": bounds, "return_inverse": True, "return_dropped": True, "return_counts": True}
    for shift in range(3):
        call = dense(
            points.roll(shift, 1), voxel_size=(1.0, 0.5, 2.0), grid_min=(0.0, -1.0, 0.0), grid_size=(3, 4, 5), **options
        )
        if backend.takes(call):
            agrees_with_oracle(backend, call)


@every_backend
def test_odd_frames(backend: VoxelBackend) -> None:
    """Cells so small that quotients overflow, so large that they vanish, corners so far that differences do."""
    values = (0.0, -0.0, 1e-42, -1e-42, 1.0, -1.0, 1e38, -1e38, 3e38, -3e38, INF)
    points = torch.tensor(values, dtype=torch.float32)[:, None].repeat(1, 3)
    for voxel in (1e-42, 1e-38, 1e30, 3e38):
        for low in (0.0, 1e-42, 1e38, -3e38, 3e38):
            for bounds in ("drop", "clamp"):
                options = {"return_inverse": True, "return_dropped": True, "bounds": bounds}
                call = dense(points, voxel_size=voxel, grid_min=low, grid_size=(2, 3, 1), **options)
                agrees_with_oracle(backend, call)


@every_backend
def test_a_vanishing_quotient_is_inside(backend: VoxelBackend) -> None:
    """-1e-42 / 1e30 is -0.0, whose floor is not below 0."""
    points = torch.tensor([[-1e-42, 0.0, 0.0], [-1e-42, -1e30, 0.0]])
    got = backend.run(dense(points, voxel_size=1e30, grid_min=0.0, grid_size=1, return_inverse=True))
    assert got["inverse"].tolist() == [0, -1]


@every_backend
def test_a_pose_that_is_no_number_drops(backend: VoxelBackend) -> None:
    poses = torch.eye(4).repeat(4, 1, 1)
    poses[1, 0, 0], poses[2, 1, 3], poses[3, 2, 3] = NAN, INF, 1e30
    for bounds in ("drop", "clamp"):
        options = {"voxel_size": 1.0, "grid_min": 0.0, "grid_size": 2, "pose": poses, "bounds": bounds}
        points = torch.full((4, 3, 3), 0.5)
        agrees_with_oracle(backend, dense(points, return_inverse=True, return_dropped=True, **options))


@every_backend
def test_large_sizes_are_exact(backend: VoxelBackend) -> None:
    """The last cells of an axis of 2^24, the most there may be."""
    size = 2**24
    line = torch.tensor([size - 1.0, size - 2.0, float(size), size - 0.5, -1.0])
    points = torch.stack([torch.zeros(5), torch.zeros(5), line], dim=1)
    options = {"voxel_size": 1.0, "grid_min": 0.0, "grid_size": (1, 1, size), "out_dtype": "bits"}
    got = backend.run(dense(points, return_inverse=True, **options))
    assert got["inverse"].tolist() == [size - 1, size - 2, -1, -1, -1]  # size - 0.5 rounds to size
    assert got["occupancy"].flatten()[-1].item() == 0b11000000 and got["occupancy"].sum().item() == 0b11000000


# ---- Faults ---------------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {"voxel_size": 1.0, "grid_min": 0.0, "grid_size": (2, 3, 4)}
HALF = torch.full((2, 5, 3), 0.5)


def with_point(b: int, n: int, value: float) -> torch.Tensor:
    points = HALF.clone()
    points[b, n, 1] = value
    return points


def frames(b: int, axis: int, value: float) -> torch.Tensor:
    made = torch.ones(2, 3)
    made[b, axis] = value
    return made


PACKED = torch.full((10, 3), 0.5)
FAULTS: dict[str, tuple[Call, str, int, int]] = {
    "a point outside": (dense(with_point(1, 3, 3.0), bounds="raise", **GOOD), "point_outside", 1, 3),
    "a point below": (dense(with_point(0, 4, -0.001), bounds="raise", **GOOD), "point_outside", 0, 4),
    "a NaN point": (dense(with_point(1, 0, NAN), bounds="raise", **GOOD), "point_outside", 1, 0),
    "an infinite point": (dense(with_point(0, 2, INF), bounds="raise", **GOOD), "point_outside", 0, 2),
    "a packed point outside": (
        dense(with_point(1, 2, 9.0).reshape(10, 3), bounds="raise", row_splits=torch.tensor([0, 4, 10]), **GOOD),
        "point_outside",
        1,
        3,
    ),
    "voxel size zero": (dense(HALF, **{**GOOD, "voxel_size": frames(1, 2, 0.0)}), "voxel_size", 1, 2),
    "voxel size negative": (dense(HALF, **{**GOOD, "voxel_size": frames(0, 1, -1.0)}), "voxel_size", 0, 1),
    "voxel size NaN": (dense(HALF, **{**GOOD, "voxel_size": frames(1, 0, NAN)}), "voxel_size", 1, 0),
    "voxel size infinite": (dense(HALF, **{**GOOD, "voxel_size": frames(1, 1, INF)}), "voxel_size", 1, 1),
    "grid_min NaN": (dense(HALF, **{**GOOD, "grid_min": frames(1, 2, NAN)}), "grid_min", 1, 2),
    "grid_min infinite": (dense(HALF, **{**GOOD, "grid_min": frames(0, 0, -INF)}), "grid_min", 0, 0),
    "splits decrease": (dense(PACKED, row_splits=torch.tensor([0, 6, 4, 10]), **GOOD), "point_splits", 1, 0),
    "splits past the end": (dense(PACKED, row_splits=torch.tensor([0, 4, 11]), **GOOD), "point_splits", 1, 0),
    "splits negative": (dense(PACKED, row_splits=torch.tensor([-1, 4, 10]), **GOOD), "point_splits", 0, 0),
}
AS_SPARSE = {"max_voxels": 4}
faults = pytest.mark.parametrize("name", FAULTS)


def forms(call: Call) -> list[Call]:
    """The same fault in each operation that takes points."""
    options = {k: v for k, v in call.options.items() if k != "grid_size"}
    points, splits = call.given[0], call.options.get("row_splits")
    batch = splits.numel() - 1 if splits is not None else 2
    grid = torch.zeros(batch, *GOOD["grid_size"], 1)
    sparse = Call("sparse", call.given, {**call.options, **AS_SPARSE})
    return [call, sparse, Call("devoxelize", (grid, points), options)]


def check_fault(error: Exception, call: Call, fault: str, row: int, position: int) -> None:
    if isinstance(error, capi.CApiError):
        assert error.status == 3, error  # RC_BAD_DATA
        report = (ctypes.c_int32 * 6)()
        capi.library().rc_last_fault(ctypes.byref(report))
        assert (report[2], report[4]) == (row, position), (call.op, list(report))  # the low halves of two int64
        return
    assert isinstance(error, robocache.DataError)
    assert (error.fault, error.row) == (fault, row), (call.op, str(error))
    assert error.position == position or fault == "point_splits", (call.op, str(error))


@pytest.mark.parametrize("backend", HOST)
@faults
def test_fault(backend: VoxelBackend, name: str) -> None:
    call, fault, row, position = FAULTS[name]
    for form in forms(call):
        with pytest.raises((robocache.DataError, capi.CApiError)) as caught:
            backend.run(form)
        check_fault(caught.value, form, fault, row, position)
    assert backend.run(dense(HALF, **GOOD))["occupancy"].sum() == 2


@pytest.mark.gpu
@pytest.mark.sanitize
@faults
def test_fault_on_the_device_is_deferred(name: str) -> None:
    """The call itself returns; check() raises once and forgets; the next call works."""
    call, fault, row, position = FAULTS[name]
    functions = {
        "dense": robocache.voxelize_point_cloud,
        "sparse": robocache.voxelize_point_cloud_sparse,
        "devoxelize": robocache.devoxelize,
    }
    for form in forms(call):
        given, options = CUDA.arguments(form)
        functions[form.op](*given, backend="cuda", **options)
        with pytest.raises(robocache.DataError) as caught:
            robocache.check()
        check_fault(caught.value, form, fault, row, position)
        robocache.check()
    assert CUDA.run(dense(HALF, **GOOD))["occupancy"].sum() == 2


@pytest.mark.gpu
def test_a_point_outside_harms_nothing_else() -> None:
    """On the device it is noted and dropped; every other point counts."""
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(2, 500, 3, generator=generator) * torch.tensor([2.0, 3.0, 4.0])
    points[1, 77] = NAN
    want = CPU.run(dense(points, reduce="count", **GOOD))["count"]
    given = robocache.voxelize_point_cloud(points.cuda(), reduce="count", bounds="raise", backend="cuda", **GOOD)
    with pytest.raises(robocache.DataError) as caught:
        robocache.check()
    assert (caught.value.fault, caught.value.row, caught.value.position) == ("point_outside", 1, 77)
    assert_same_bits(given, want)


@pytest.mark.parametrize("backend", [HOST[0], HOST[2]])
@faults
def test_a_fault_leaves_out_as_it_was(backend: VoxelBackend, name: str) -> None:
    call = FAULTS[name][0]
    splits = call.options.get("row_splits")
    out = torch.full((2 if splits is None else splits.numel() - 1, 2, 3, 4), 77, dtype=torch.int32)
    options = {**call.options, "reduce": "count"}
    with pytest.raises((robocache.DataError, capi.CApiError)):
        if backend.name == "c":
            backend.run(Call("dense", call.given, {**options, "out": {"count": out}}))
        else:
            robocache.voxelize_point_cloud(*call.given, out=out, **options)
    assert bool((out == 77).all())


@pytest.mark.parametrize("backend", HOST)
def test_a_wrong_voxel_size_of_the_host_is_named(backend: VoxelBackend) -> None:
    for value in (0.0, -1.0, NAN, INF, (1.0, 1.0, 0.0)):
        with pytest.raises((ValueError, capi.CApiError), match="voxel_size"):
            backend.run(dense(HALF, **{**GOOD, "voxel_size": value}))
    for value in (NAN, -INF):
        with pytest.raises((ValueError, capi.CApiError), match="grid_min"):
            backend.run(dense(HALF, **{**GOOD, "grid_min": value}))


# ---- Sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [HOST[0], HOST[1], HOST[3], DEVICE[0]])
def test_a_grid_that_cannot_fit_tells_its_bytes(backend: VoxelBackend) -> None:
    one = torch.zeros(1, 3)
    with pytest.raises(ValueError, match=r"grid_size.*1,?000,?000,?000,?000,?000 bytes"):
        backend.run(dense(one, voxel_size=1.0, grid_min=0.0, grid_size=(100_000, 100_000, 100_000)))
    with pytest.raises(ValueError, match="grid_size"):
        backend.run(dense(one, voxel_size=1.0, grid_min=0.0, grid_size=2**24))  # past int64 with the dtype's bytes
    carried = torch.zeros(1, 64)
    with pytest.raises(ValueError, match="grid_size"):
        backend.run(dense(one, carried, voxel_size=1.0, grid_min=0.0, grid_size=(2**14, 2**14, 2**14), reduce="mean"))


@pytest.mark.parametrize("backend", HOST)
@pytest.mark.parametrize("size", [0, -1, (2, 0, 2), 2**24 + 1, (1, 1, 2**24 + 1)], ids=str)
def test_sizes_that_cannot_be(backend: VoxelBackend, size: Any) -> None:
    options = {"voxel_size": 1.0, "grid_min": 0.0, "grid_size": size}
    calls = [Call("sparse", (HALF, None), {**options, "max_voxels": 1})]
    calls += [dense(HALF, **options)] * (backend.name != "c")  # whose test makes the outputs
    for call in calls:
        with pytest.raises((ValueError, capi.CApiError), match="grid_size"):
            backend.run(call)


@every_backend
def test_empty_clouds_give_empty_grids(backend: VoxelBackend) -> None:
    names = ("occupancy", "count", "sum", "max")
    options = {"reduce": names, "return_inverse": True, "return_dropped": True, "empty_value": -2, **GOOD}
    for shape in ((0, 3), (2, 0, 3), (0, 5, 3), (0, 0, 3)):
        points, features = torch.zeros(shape), torch.zeros(*shape[:-1], 4)
        got = agrees_with_oracle(backend, dense(points, features, **options))
        assert got["occupancy"].shape == (*shape[:-2], 2, 3, 4) and bool((got["sum"] == -2).all())
    splits = torch.zeros(4, dtype=torch.int64)
    got = agrees_with_oracle(backend, dense(torch.zeros(0, 3), torch.zeros(0, 4), row_splits=splits, **options))
    assert got["count"].shape == (3, 2, 3, 4) and not bool(got["count"].any())
    none = agrees_with_oracle(backend, dense(torch.zeros(5, 3), row_splits=torch.tensor([2]), **GOOD))
    assert none["occupancy"].shape == (0, 2, 3, 4)


@every_backend
def test_features_of_no_columns(backend: VoxelBackend) -> None:
    got = agrees_with_oracle(backend, dense(HALF, torch.zeros(2, 5, 0), reduce=("mean", "count"), **GOOD))
    assert got["mean"].shape == (2, 2, 3, 4, 0) and got["count"].sum() == 10


@every_backend
def test_all_outside(backend: VoxelBackend) -> None:
    names = ("mean", "count", "min")
    got = agrees_with_oracle(
        backend, dense(HALF + 50, torch.ones(2, 5, 3), reduce=names, return_dropped=True, return_inverse=True, **GOOD)
    )
    assert got["dropped"].tolist() == [5, 5] and bool((got["inverse"] == -1).all()) and not bool(got["count"].any())


# ---- Anything at all ------------------------------------------------------------------------------------------------


@st.composite
def garbage(draw: st.DrawFn) -> Call:
    """Arguments of the right shapes whose numbers keep no promise."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    b, n = draw(st.integers(1, 3)), draw(st.sampled_from([0, 1, 9, 70]))
    odd = torch.tensor([NAN, INF, -INF, 0.0, -0.0, 1e30, -1e30, 1e-42, 5.0, 0.25], dtype=torch.float32)

    def wild(*shape: int) -> torch.Tensor:
        plain = torch.rand(shape, generator=generator) * 4
        chosen = odd[torch.randint(0, len(odd), shape, generator=generator)]
        return torch.where(torch.rand(shape, generator=generator) < draw(st.sampled_from([0, 0.1, 0.6])), chosen, plain)

    options: dict[str, Any] = {"grid_size": (3, 2, 4), "voxel_size": wild(b, 3), "grid_min": wild(b, 3)}
    options["bounds"] = draw(st.sampled_from(["drop", "clamp", "raise"]))
    points, features = wild(b, n, 3), wild(b, n, 2)
    if draw(st.booleans()):
        points, features = points.reshape(b * n, 3), features.reshape(b * n, 2)
        options["row_splits"] = torch.randint(-1, b * n + 2, (b + 1,), generator=generator)
    if draw(st.booleans()):
        options["pose"] = wild(b, 3, 4)
    options["reduce"] = draw(st.sampled_from(["occupancy", "count", "mean", ("max", "count")]))
    if draw(st.booleans()):
        return Call("sparse", (points, features), {**options, "reduce": "max", "max_voxels": draw(st.integers(0, 9))})
    return dense(points, features, **options)


@pytest.mark.parametrize("backend", [HOST[0], HOST[1], HOST[2], DEVICE[0]])
@examples(80)
@given(call=garbage())
def test_garbage_gives_an_answer_or_an_error(backend: VoxelBackend, call: Call) -> None:
    """Nothing crashes; where one backend takes the data, all give the same."""
    try:
        want = TORCH.run(call)
    except robocache.DataError:
        with pytest.raises((robocache.DataError, capi.CApiError)):
            backend.run(call)
        return
    got = backend.run(call)
    for name in want.keys() & got.keys():
        assert_same_bits(got[name], want[name], name)


def test_points_are_not_changed() -> None:
    points = torch.tensor(np.array(ODD, np.float32)).repeat(3, 1).T.contiguous()
    before = points.clone()
    for backend in (CPU, TORCH, C_API):
        backend.run(dense(points, bounds="clamp", **GOOD))
    assert_same_bits(points, before)
