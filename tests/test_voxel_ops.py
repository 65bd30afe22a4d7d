"""The voxelize and devoxelize operators as direct callers of torch.ops meet them: schemas, fakes, errors, gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import robocache
from robocache import _ops, _schemas, _voxel_ops

OPS = torch.ops.robocache
GRID: tuple[list[int], list[float], list[float]] = ([3, 4, 5], [1.0, 0.5, 1.0], [0.0, 0.0, -1.0])
OCCUPANCY, COUNT, SUM, MEAN, MAX, MIN, ARGMAX, ARGMIN = range(8)
F16, F32, F64, BOOL, U8, I32, I64, BITS = 0, 2, 3, 4, 5, 8, 9, 11
ALL = [SUM, OCCUPANCY, COUNT, MEAN, MAX, MIN, ARGMAX, ARGMIN]  # opcheck adds results up, a floating one first
ALL_DTYPES = [F32, BITS, I32, F32, F32, F16, I64, I32]
CELLS = 3 * 4 * 5


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """One thread: gradcheck makes thousands of tiny calls."""
    torch.manual_seed(11)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cloud(batch: int = 2, count: int = 30, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(batch, count, 3, dtype=dtype) * torch.tensor([3.6, 2.4, 6.0], dtype=dtype) - torch.tensor(
        [0.3, 0.2, 1.5], dtype=dtype
    )


def images(batch: int = 2, cameras: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    depth = torch.rand(batch, cameras, 4, 6) * 3
    depth[0, 0, 0, :2] = torch.tensor([0.0, float("nan")])
    intrinsics = torch.tensor([5.0, 5.0, 2.0, 1.5]).expand(batch, cameras, 4).contiguous()
    return depth, intrinsics, torch.randn(batch, cameras, 4, 6, 3)


def some_options() -> dict[str, Any]:
    return {
        "voxel_sizes": torch.tensor([[1.0, 0.5, 1.0], [0.5, 0.5, 0.7]]),
        "grid_mins": torch.tensor([[0.0, 0.0, -1.0]]),
        "mask": torch.rand(2, 30) < 0.7,
        "poses": torch.eye(4)[:3].expand(2, 3, 4).contiguous(),
        "bounds": 1,
        "channels_first": True,
        "empty_value": -3.0,
        "need_inverse": True,
        "need_dropped": True,
    }


SPLITS = torch.tensor([1, 12, 12, 28])


def test_schemas_name_what_fakes_and_gradients_read() -> None:
    for name in _voxel_ops.OPS:
        schema = getattr(OPS, name).default._schema
        assert "str" not in {str(argument.type) for argument in schema.arguments}, name
    for name in _voxel_ops.FUNCTIONAL:
        for twin in (f"_{name}", f"_{name}_grad"):
            assert _schemas.names_of(twin) == _schemas.names_of(name)


def test_everything_is_registered() -> None:
    assert set(_voxel_ops.OPS) <= set(_ops.OPS)
    assert _ops.unregistered() == []


# ---- opcheck ---------------------------------------------------------------------------------------------------------

FORMS: dict[str, dict[str, Any]] = {"plain": {}, "all": some_options()}


@pytest.mark.parametrize("with_grad", [False, True], ids=["plain", "grad"])
@pytest.mark.parametrize("form", FORMS)
def test_opcheck_voxelize(form: str, with_grad: bool) -> None:
    features = torch.randn(2, 30, 3).requires_grad_(with_grad)
    torch.library.opcheck(OPS.voxelize.default, (cloud(), features, ALL, ALL_DTYPES, *GRID), FORMS[form])


def opcheck_sparse(arguments: tuple[Any, ...], options: dict[str, Any], with_grad: bool) -> None:
    """With a gradient opcheck adds all results up in place, which it cannot where integers come first;
    tests/test_voxel_compile.py has the gradients of compiled sparse calls."""
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(OPS.voxelize_sparse.default, arguments, options, test_utils=tests[:3] if with_grad else tests)


def test_opcheck_voxelize_without_features() -> None:
    torch.library.opcheck(OPS.voxelize.default, (cloud(), None, [COUNT, OCCUPANCY], [I64, BOOL], *GRID))


@pytest.mark.parametrize("with_grad", [False, True], ids=["plain", "grad"])
def test_opcheck_packed(with_grad: bool) -> None:
    points, features = cloud(1)[0], torch.randn(30, 3).requires_grad_(with_grad)
    arguments = (points, features, [MEAN, MAX], [F32, F64], *GRID)
    options = {"row_splits": SPLITS, "need_inverse": True}
    torch.library.opcheck(OPS.voxelize.default, arguments, options)
    opcheck_sparse(arguments, {**options, "max_voxels": 9}, with_grad)


@pytest.mark.parametrize("with_grad", [False, True], ids=["plain", "grad"])
@pytest.mark.parametrize("kind", [torch.float32, torch.uint16], ids=str)
def test_opcheck_depth(kind: torch.dtype, with_grad: bool) -> None:
    depth, intrinsics, color = images()
    depth = depth if kind == torch.float32 else (depth.nan_to_num() * 1000).to(kind)
    arguments = (depth, intrinsics, color.requires_grad_(with_grad), [MEAN, OCCUPANCY, MIN], [F32, BITS, F16], *GRID)
    options = {"depth_scale": 1.0 if kind == torch.float32 else 1e-3, "need_inverse": True, "need_dropped": True}
    torch.library.opcheck(OPS.voxelize_depth.default, arguments, options)


@pytest.mark.parametrize("with_grad", [False, True], ids=["plain", "grad"])
@pytest.mark.parametrize("hard", [False, True], ids=["reduce", "hard"])
def test_opcheck_sparse(hard: bool, with_grad: bool) -> None:
    features = torch.randn(2, 30, 3).requires_grad_(with_grad)
    lists: tuple[list[int], list[int]] = ([], []) if hard else ([COUNT, MEAN, MAX, ARGMAX], [I32, F32, F32, I64])
    options = {"max_voxels": 7, "max_points": 2 if hard else 0, "order": 1, "need_inverse": True}
    opcheck_sparse((cloud(), features, *lists, *GRID), options, with_grad)


def test_opcheck_out() -> None:
    out = [torch.zeros(2, 3, 4, 5, dtype=torch.uint8), torch.zeros(2, 3, 4, 5, dtype=torch.int32)]
    lists = ([OCCUPANCY, COUNT], [U8, I32])
    more = {"need_dropped": True, "out": out}
    depth, intrinsics, _ = images()
    for prefix in ("", "_"):
        op = getattr(OPS, f"{prefix}voxelize_out").default
        torch.library.opcheck(op, (cloud(), None, *lists, *GRID), more)
        op = getattr(OPS, f"{prefix}voxelize_depth_out").default
        torch.library.opcheck(op, (depth, intrinsics, None, *lists, *GRID), more)


@pytest.mark.parametrize("with_grad", [False, True], ids=["plain", "grad"])
@pytest.mark.parametrize("mode", [0, 1], ids=["nearest", "trilinear"])
def test_opcheck_devoxelize(mode: int, with_grad: bool) -> None:
    grid = torch.randn(2, 3, 4, 5, 2).requires_grad_(with_grad)
    points = cloud().requires_grad_(with_grad)
    options = {**some_options(), "out_dtype": torch.float64}
    for name in ("channels_first", "need_inverse", "need_dropped"):
        del options[name]
    torch.library.opcheck(OPS.devoxelize.default, (grid, points, mode, *GRID[1:]), options)
    torch.library.opcheck(OPS.devoxelize.default, (grid, points, mode, *GRID[1:]))


@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True)])
def test_opcheck_devoxelize_backward(needs: tuple[bool, bool]) -> None:
    grid, points, grad = torch.randn(2, 3, 4, 5, 2), cloud(), torch.randn(2, 30, 2)
    options = {"need_grid": needs[0], "need_points": needs[1]}
    torch.library.opcheck(OPS.devoxelize_backward.default, (grad, grid, points, 1, *GRID[1:]), options)
    halves = (grad.half(), grid.half(), points.bfloat16())
    torch.library.opcheck(OPS.devoxelize_backward.default, (*halves, 1, *GRID[1:]), options)


@pytest.mark.parametrize("channels_first", [False, True])
def test_opcheck_voxelize_backward(channels_first: bool) -> None:
    counts, argmax, inverse = OPS.voxelize(
        cloud(), torch.randn(2, 30, 3), [COUNT, ARGMAX], [I32, I32], *GRID, channels_first=channels_first,
        need_inverse=True,
    )  # fmt: skip
    grads = [torch.randn(argmax.shape) for _ in range(2)]
    arguments = (grads, [MEAN, MAX], [torch.empty(0, dtype=torch.int32), argmax], inverse, counts, None, CELLS)
    torch.library.opcheck(OPS.voxelize_backward.default, (*arguments, channels_first, torch.float32))


# ---- Fakes -----------------------------------------------------------------------------------------------------------


def same_layout(made: Any, expected: Any) -> None:
    made = made if isinstance(made, (list, tuple)) else [made]
    expected = expected if isinstance(expected, (list, tuple)) else [expected]
    for fake, real in zip(made, expected, strict=True):
        assert fake.shape == real.shape
        assert fake.dtype == real.dtype
        assert fake.stride() == real.stride()


@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 1, 30])
@pytest.mark.parametrize("columns", [0, 1, 3])
def test_meta_tensors_have_the_layout_of_real_ones(batch: int, count: int, columns: int) -> None:
    points, features = cloud(batch, count), torch.randn(batch, count, columns)
    both = ((points, features), (points.to("meta"), features.to("meta")))
    for channels_first in (False, True):
        real, fake = (
            OPS.voxelize(*pair, ALL, ALL_DTYPES, *GRID, channels_first=channels_first, need_inverse=True)
            for pair in both
        )
        same_layout(fake, real)
    for options in ({"max_voxels": 5, "max_points": 2, "need_inverse": True}, {"max_voxels": 0}):
        real, fake = (OPS.voxelize_sparse(*pair, [MEAN], [F32], *GRID, **options) for pair in both)
        same_layout(fake, real)
    grid = torch.randn(batch, 3, 4, 5, columns)
    real = OPS.devoxelize(grid, points, 1, *GRID[1:])
    same_layout(OPS.devoxelize(grid.to("meta"), points.to("meta"), 1, *GRID[1:]), real)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": (30, 3)}, r"points: expected \[B, N, 3\], got \[30, 3\]"),
        ({"points": (2, 30, 4)}, "points: expected three coordinates"),
        ({"features": (2, 29, 3)}, r"features: expected \[2, 30, C\], got \[2, 29, 3\]"),
        ({"features": None}, "features: expected values, got none"),
        ({"reduce": [8]}, "reduce: expected 0 to 7, got 8"),
        ({"out_dtypes": [10]}, "out_dtypes: expected 0 to 9 or 11, got 10"),
        ({"out_dtypes": []}, "out_dtypes: expected one number for each of the 1 reductions, got 0"),
        ({"grid_size": [3, 4]}, "grid_size: expected 3 numbers, got 2"),
    ],
)
def test_fakes_refuse_what_kernels_refuse(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "points": (2, 30, 3),
        "features": (2, 30, 3),
        "reduce": [MEAN],
        "out_dtypes": [F32],
        **dict(zip(("grid_size", "voxel_size", "grid_min"), GRID, strict=True)),
        **change,
    }
    for name in ("points", "features"):
        shape = arguments[name]
        arguments[name] = None if shape is None else torch.empty(shape, device="meta")
    with pytest.raises(RuntimeError, match=message):
        OPS._voxelize(**arguments)


# ---- Direct callers --------------------------------------------------------------------------------------------------


def test_results_come_in_the_order_asked_for() -> None:
    points, features = cloud(), torch.randn(2, 30, 3)
    occupancy, mean, inverse, dropped = OPS.voxelize(
        points, features, [OCCUPANCY, MEAN], [BOOL, F32], *GRID, need_inverse=True, need_dropped=True
    )
    assert occupancy.shape == (2, 3, 4, 5)
    assert mean.shape == (2, 3, 4, 5, 3)
    assert torch.equal(dropped, (inverse < 0).sum(1))
    assert 0 < int(dropped.sum()) < 60
    flat = occupancy.flatten(1)
    assert all(bool(flat[b, inverse[b][inverse[b] >= 0]].all()) for b in range(2))
    (swapped,) = OPS.voxelize(points, features, [MEAN], [F32], *GRID, channels_first=True)
    assert torch.equal(swapped, mean.movedim(-1, 1))
    assert OPS.voxelize(points, None, [], [], *GRID) == []


def test_one_launch_a_call() -> None:
    before = robocache.launch_counts()["voxelize_cpu"]
    OPS.voxelize(cloud(), torch.randn(2, 30, 3), ALL, ALL_DTYPES, *GRID)
    assert robocache.launch_counts()["voxelize_cpu"] == before + 1


def test_out_accumulates() -> None:
    lists = ([OCCUPANCY, COUNT], [U8, I32])
    out = [torch.zeros(2, 3, 4, 5, dtype=torch.uint8), torch.zeros(2, 3, 4, 5, dtype=torch.int32)]
    parts = cloud(), cloud()
    assert OPS.voxelize_out(parts[0], None, *lists, *GRID, out=out) == []
    inverse, dropped = OPS.voxelize_out(parts[1], None, *lists, *GRID, need_inverse=True, need_dropped=True, out=out)
    wanted = OPS.voxelize(torch.cat(parts, 1), None, *lists, *GRID)
    assert all(torch.equal(a, b) for a, b in zip(out, wanted, strict=True))
    alone = OPS.voxelize(parts[1], None, [], [], *GRID, need_inverse=True, need_dropped=True)
    assert torch.equal(inverse, alone[0])
    assert torch.equal(dropped, alone[1])
    (only,) = OPS.voxelize_out(parts[1], None, *lists, *GRID, need_dropped=True, out=out)
    assert torch.equal(only, dropped)


def test_depth_out_accumulates() -> None:
    depth, intrinsics, _ = images()
    out = [torch.zeros(2, 3, 4, 5, dtype=torch.int32)]
    for _ in range(2):
        OPS.voxelize_depth_out(depth, intrinsics, None, [COUNT], [I32], *GRID, out=out)
    (once,) = OPS.voxelize_depth(depth, intrinsics, None, [COUNT], [I32], *GRID)
    assert int(once.sum()) > 0
    assert torch.equal(out[0], 2 * once)


def test_out_bumps_the_version() -> None:
    out = torch.ones(2, 3, 4, 5)
    result = out * torch.ones(2, 3, 4, 5, requires_grad=True)
    version = out._version
    OPS.voxelize_out(cloud(), None, [COUNT], [F32], *GRID, out=[out])
    assert out._version > version
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.zeros(30, 3)}, r"points: expected \[B, N, 3\], got \[30, 3\]"),
        ({"points": torch.zeros(2, 30, 4)}, r"points: expected \[B, N, 3\], got \[2, 30, 4\]"),
        ({"points": torch.zeros(2, 30, 3, dtype=torch.int32)}, "points: expected float16.* got int32"),
        ({"points": torch.zeros(2, 30, 3, dtype=torch.complex64)}, "points: expected float16.* got an unsupported"),
        ({"row_splits": torch.tensor([0, 30])}, r"points: expected \[N, 3\], got \[2, 30, 3\]"),
        ({"features": torch.zeros(2, 29, 3)}, r"features: expected \[2, 30, C\], got \[2, 29, 3\]"),
        ({"features": torch.zeros(2, 30, 3, dtype=torch.int64)}, "features: expected .*uint8, got int64"),
        ({"features": None}, "features: expected values for mean, got none"),
        ({"mask": torch.ones(2, 29, dtype=torch.bool)}, r"mask: expected \[2, 30\], got \[2, 29\]"),
        ({"mask": torch.ones(2, 30)}, "mask: expected bool, got float32"),
        ({"poses": torch.zeros(3, 3, 4)}, r"poses: expected \[B, 3, 4\] = \[2, 3, 4\] or \[1, 3, 4\], got \[3, 3, 4\]"),
        ({"poses": torch.zeros(2, 3, 4).double()}, "poses: expected float32 .* got float64"),
        ({"voxel_sizes": torch.ones(3)}, r"voxel_sizes: expected \[B, 3\] = \[2, 3\] or \[1, 3\], got \[3\]"),
        ({"voxel_sizes": torch.ones(2, 3).double()}, "voxel_sizes: expected float32 .* got float64"),
        ({"grid_mins": torch.ones(2, 2)}, r"grid_mins: expected \[B, 3\]"),
        ({"grid_size": [3, 4]}, "grid_size: expected 3 numbers, got 2"),
        ({"grid_size": [3, 4, 0]}, r"grid_size: expected 1 to 16777216 cells along each axis, got \[3, 4, 0\]"),
        ({"voxel_size": [1.0]}, "voxel_size: expected 3 numbers, got 1"),
        ({"voxel_size": [1.0, 0.0, 1.0]}, "voxel_size: expected finite sizes above 0"),
        ({"grid_min": [0.0] * 4}, "grid_min: expected 3 numbers, got 4"),
        ({"reduce": [8]}, "reduce: expected 0 to 7, got 8"),
        ({"reduce": [MEAN] * 9, "out_dtypes": [F32] * 9}, "reduce: expected at most 8 numbers, got 9"),
        ({"reduce": [MEAN, MEAN], "out_dtypes": [F32, F32]}, "expected each reduction once, got mean again"),
        ({"out_dtypes": []}, "out_dtypes: expected one number for each of the 1 reductions, got 0"),
        ({"out_dtypes": [BITS]}, "out_dtypes: expected 0 to 9, .* got 11 for mean"),
        ({"out_dtypes": [I32]}, "mean expected a floating dtype, got int32"),
        ({"bounds": 3}, "bounds: expected 0 to 2, got 3"),
        ({"bounds": 2**32}, "bounds: expected 0 to 2"),
        ({"voxel_sizes": torch.tensor([[1.0, -1.0, 1.0]])}, "voxel_size: sample 0, axis 1: expected"),
        ({"bounds": 2}, "outside"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "points": cloud(),
        "features": torch.randn(2, 30, 3),
        "reduce": [MEAN],
        "out_dtypes": [F32],
        **dict(zip(("grid_size", "voxel_size", "grid_min"), GRID, strict=True)),
        **change,
    }
    with pytest.raises(RuntimeError, match=message):
        OPS.voxelize(**arguments)


def test_a_wrong_depth_call_says_what_is_wrong() -> None:
    depth, intrinsics, color = images()
    rest = ([MEAN], [F32], *GRID)
    for given, message in [
        ((depth[0], intrinsics, color), r"depth: expected \[B, V, H, W\], got \[2, 4, 6\]"),
        ((depth.double(), intrinsics, color), "depth: expected uint16 or float32, got float64"),
        ((depth, intrinsics[:1], color), r"intrinsics: expected \[B, V, 4\] = \[2, 2, 4\], got \[1, 2, 4\]"),
        ((depth, intrinsics.double(), color), "intrinsics: expected float32, got float64"),
        ((depth, intrinsics, color[..., 0]), r"color: expected \[2, 2, 4, 6, C\], got \[2, 2, 4, 6\]"),
        ((depth, intrinsics, None), "color: expected values for mean, got none"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            OPS.voxelize_depth(*given, *rest)
    with pytest.raises(RuntimeError, match=r"poses: expected \[B or 1, V or 1, 3, 4\] with B = 2, V = 2"):
        OPS.voxelize_depth(depth, intrinsics, color, *rest, poses=torch.zeros(3, 1, 3, 4))


def test_a_wrong_sparse_call_says_what_is_wrong() -> None:
    for options, message in [
        ({"max_voxels": -1}, "max_voxels: expected 0 to 2147483647, got -1"),
        ({"max_voxels": 2**31}, "max_voxels: expected 0 to 2147483647"),
        ({"max_points": -1}, "max_points: expected 0 or more, got -1"),
        ({"max_points": 2}, "features: expected values for max_points, got none"),
        ({"order": 2}, "order: expected 0 or 1, got 2"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            OPS.voxelize_sparse(cloud(), None, [COUNT], [I32], *GRID, **options)
    with pytest.raises(RuntimeError, match="occupancy has no sparse form"):
        OPS.voxelize_sparse(cloud(), None, [OCCUPANCY], [BOOL], *GRID, max_voxels=3)


def test_a_wrong_out_is_named() -> None:
    good = torch.zeros(2, 3, 4, 5, dtype=torch.int32)
    for out, message in [
        ([], "out: expected one tensor for each of the 1 reductions, got 0"),
        ([good[:1]], r"out\[0\]: expected \[2, 3, 4, 5\], got \[1, 3, 4, 5\]"),
        ([good.long()], r"out\[0\]: expected int32, got int64"),
        ([torch.zeros(5, 4, 3, 2, dtype=torch.int32).permute(3, 2, 1, 0)], r"out\[0\]: expected a contiguous tensor"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            OPS.voxelize_out(cloud(), None, [COUNT], [I32], *GRID, out=out)
    with pytest.raises(RuntimeError, match="accumulate: expected occupancy and count alone, got sum"):
        OPS.voxelize_out(cloud(), torch.ones(2, 30, 1), [SUM], [F32], *GRID, out=[torch.zeros(2, 3, 4, 5, 1)])


def test_a_wrong_devoxelize_call_says_what_is_wrong() -> None:
    grid = torch.zeros(2, 3, 4, 5, 2)
    for given, mode, message in [
        ((grid[:1], cloud()), 1, r"grid: expected \[B, X, Y, Z, C\] with B = 2, got \[1, 3, 4, 5, 2\]"),
        ((grid[0], cloud()), 1, r"grid: expected \[B, X, Y, Z, C\]"),
        ((grid.int(), cloud()), 1, "grid: expected a floating dtype for trilinear, got int32"),
        ((grid, cloud()[0]), 1, r"points: expected \[B, N, 3\], got \[30, 3\]"),
        ((grid, cloud()), 2, "mode: expected 0 or 1, got 2"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            OPS.devoxelize(*given, mode, *GRID[1:])
    with pytest.raises(RuntimeError, match=r"grad: expected \[2, 30, 2\], got \[2, 30, 1\]"):
        OPS.devoxelize_backward(torch.zeros(2, 30, 1), grid, cloud(), 1, *GRID[1:])


def test_a_grid_that_int64_cannot_count_says_its_bytes() -> None:
    huge = [2**24, 2**24, 2**24]
    bytes_wanted = 2 * 2**72 * 4
    with pytest.raises(RuntimeError, match=rf"grid_size: count .* would need {bytes_wanted} bytes"):
        OPS.voxelize(cloud(), None, [COUNT], [I32], huge, *GRID[1:])
    with pytest.raises(RuntimeError, match=r"max_points: gathered points .* would need \d+ bytes"):
        OPS.voxelize_sparse(cloud(), torch.ones(2, 30, 3), [], [], *GRID, max_voxels=2**31 - 1, max_points=2**40)


def test_gradients_of_a_failing_call_raise_its_error() -> None:
    features = torch.randn(2, 30, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="bounds: expected 0 to 2, got 9"):
        OPS.voxelize(cloud(), features, [MEAN], [F32], *GRID, bounds=9)
    with pytest.raises(RuntimeError, match="mode: expected 0 or 1"):
        OPS.devoxelize(torch.zeros(2, 3, 4, 5, 2, requires_grad=True), cloud(), 7, *GRID[1:])


# ---- Strides ---------------------------------------------------------------------------------------------------------


def test_strided_arguments_are_read_right() -> None:
    def spread(tensor: Tensor) -> Tensor:
        """The same values, every other element of something larger, dimensions the other way round in memory."""
        turned = tensor.permute(*reversed(range(tensor.ndim)))
        wide = torch.zeros((*turned.shape, 2), dtype=tensor.dtype)
        wide[..., 0] = turned
        return wide[..., 0].permute(*reversed(range(tensor.ndim)))

    options = some_options()
    tensors = {name: spread(value) for name, value in options.items() if isinstance(value, Tensor)}
    points, features = cloud(), torch.randn(2, 30, 3)
    plain = OPS.voxelize(points, features, ALL, ALL_DTYPES, *GRID, **options)
    strided = OPS.voxelize(spread(points), spread(features), ALL, ALL_DTYPES, *GRID, **{**options, **tensors})
    assert all(torch.equal(a, b) for a, b in zip(plain, strided, strict=True))
    packed = OPS.voxelize(points[0], features[0], [MEAN], [F32], *GRID, row_splits=SPLITS)
    strided = OPS.voxelize(spread(points[0]), spread(features[0]), [MEAN], [F32], *GRID, row_splits=spread(SPLITS))
    assert torch.equal(packed[0], strided[0])
    depth, intrinsics, color = images()
    poses, mask = torch.eye(4)[:3].repeat(2, 2, 1, 1), torch.rand(2, 2, 4, 6) < 0.8
    for images_of in (depth, (depth.nan_to_num() * 1000).to(torch.uint16)):
        given = (images_of, intrinsics, color, mask, poses)
        first, second = (
            OPS.voxelize_depth(d, i, c, [COUNT, SUM], [I32, F32], *GRID, mask=m, poses=p, depth_scale=0.7)
            for d, i, c, m, p in (given, tuple(spread(tensor) for tensor in given))
        )
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    grid = torch.randn(2, 3, 4, 5, 2)
    expected = OPS.devoxelize(grid, points, 1, *GRID[1:], mask=options["mask"])
    assert torch.equal(OPS.devoxelize(spread(grid), spread(points), 1, *GRID[1:], mask=tensors["mask"]), expected)


def test_depth_images_of_any_strides() -> None:
    depth, intrinsics, color = images()
    expected = OPS.voxelize_depth(depth, intrinsics, color, [COUNT, MEAN], [I32, F32], *GRID)
    views = [
        (depth.transpose(2, 3).contiguous().transpose(2, 3), color),
        (depth, color.movedim(-1, 2).contiguous().movedim(2, -1)),
        (depth, torch.cat([color, color], 3)[:, :, :, :6]),
        (torch.cat([depth, depth], 2)[:, :, :4], color),
    ]
    for some_depth, some_color in views:
        got = OPS.voxelize_depth(some_depth, intrinsics, some_color, [COUNT, MEAN], [I32, F32], *GRID)
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


# ---- Gradients -------------------------------------------------------------------------------------------------------


def test_the_gradient_twin_runs_only_where_a_gradient_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[str] = []
    save = _voxel_ops.save
    monkeypatch.setattr(_voxel_ops, "save", lambda ctx, name, *rest: (saved.append(name), save(ctx, name, *rest)))
    points, features = cloud(), torch.randn(2, 30, 3)
    OPS.voxelize(points, features, [MEAN], [F32], *GRID)
    OPS.voxelize(points.requires_grad_(), None, [COUNT], [I32], *GRID)
    features.requires_grad_()
    with torch.no_grad():
        OPS.voxelize(points, features, [MEAN], [F32], *GRID)
    assert saved == []
    result = OPS.voxelize(points, features, [COUNT, MEAN], [F32, F32], *GRID, need_inverse=True)
    assert saved == ["voxelize"]
    assert [tensor.requires_grad for tensor in result] == [False, True, False]


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("bounds", [0, 1])
def test_gradcheck_voxelize(bounds: int, channels_first: bool) -> None:
    points = cloud(dtype=torch.float64)
    features = torch.randn(2, 30, 2, dtype=torch.float64, requires_grad=True)
    options = {"bounds": bounds, "channels_first": channels_first, "empty_value": 2.0}
    for need_inverse in (False, True):

        def function(f: Tensor, need_inverse: bool = need_inverse) -> Any:
            lists = ([COUNT, SUM, MEAN, MAX, MIN], [I32, F64, F64, F64, F64])
            return tuple(OPS.voxelize(points, f, *lists, *GRID, **options, need_inverse=need_inverse)[1:5])

        assert torch.autograd.gradcheck(function, features)


def test_gradcheck_one_by_one() -> None:
    points, splits = cloud(1, dtype=torch.float64)[0], SPLITS
    features = torch.randn(30, 2, dtype=torch.float64, requires_grad=True)
    for reduce in (SUM, MEAN, MAX, MIN):

        def function(f: Tensor, reduce: int = reduce) -> Tensor:
            return OPS.voxelize(points, f, [reduce], [F64], *GRID, row_splits=splits)[0]

        assert torch.autograd.gradcheck(function, features)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("cap", [4, 60])
@pytest.mark.parametrize("hard", [0, 2])
@pytest.mark.parametrize("need_inverse", [False, True])
def test_gradcheck_sparse(need_inverse: bool, hard: int, cap: int, order: int) -> None:
    points = cloud(dtype=torch.float64)
    features = torch.randn(2, 30, 2, dtype=torch.float64, requires_grad=True)
    options = {"max_voxels": cap, "max_points": hard, "order": order, "need_inverse": need_inverse}

    def function(f: Tensor) -> Any:
        made = OPS.voxelize_sparse(points, f, [MEAN, MAX], [F64, F64], *GRID, **options)
        return tuple(made[2 : 5 if hard else 4])

    assert torch.autograd.gradcheck(function, features)


def test_gradcheck_depth() -> None:
    depth, intrinsics, color = images()
    color = color.double().requires_grad_()

    def function(c: Tensor) -> Any:
        return tuple(OPS.voxelize_depth(depth, intrinsics, c, [SUM, MEAN, MAX], [F64, F64, F64], *GRID))

    assert torch.autograd.gradcheck(function, color)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mode", [0, 1], ids=["nearest", "trilinear"])
def test_gradcheck_devoxelize(mode: int, packed: bool) -> None:
    points = cloud(1 if packed else 2, dtype=torch.float64)
    points = (points[0] if packed else points).requires_grad_()
    grid = torch.randn(3 if packed else 2, 3, 4, 5, 2, dtype=torch.float64, requires_grad=True)
    options = {"row_splits": SPLITS if packed else None, "bounds": 1, "empty_value": 0.5}
    assert torch.autograd.gradcheck(lambda g, p: OPS.devoxelize(g, p, mode, *GRID[1:], **options), (grid, points))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_gradients_have_the_dtype_of_their_leaf(dtype: torch.dtype) -> None:
    features = torch.randn(2, 30, 2).to(dtype).requires_grad_()
    (mean,) = OPS.voxelize(cloud(), features, [MEAN], [F32], *GRID)
    grid = torch.randn(2, 3, 4, 5, 2).to(dtype).requires_grad_()
    points = cloud().to(dtype).requires_grad_()
    read = OPS.devoxelize(grid, points, 1, *GRID[1:])
    (mean.sum() + read.sum()).backward()
    for leaf in (features, grid, points):
        assert leaf.grad is not None
        assert leaf.grad.dtype == dtype
        assert leaf.grad.shape == leaf.shape
        assert bool(leaf.grad.abs().sum() > 0)


def test_results_that_nobody_uses_cost_no_gradient() -> None:
    features = torch.randn(2, 30, 2, requires_grad=True)
    total, mean = OPS.voxelize(cloud(), features, [SUM, MEAN], [F32, F32], *GRID)
    before = robocache.launch_counts()
    total.sum().backward(retain_graph=True)
    after = robocache.launch_counts()
    assert after["voxelize_backward_cpu"] == before["voxelize_backward_cpu"] + 1
    assert after["voxelize_cpu"] == before["voxelize_cpu"] + 1  # the inverse again
    (by_mean,) = torch.autograd.grad(mean.sum(), features)
    assert not torch.equal(by_mean, features.grad)


def test_a_returned_inverse_is_used_again() -> None:
    features = torch.randn(2, 30, 2, requires_grad=True)
    count, mean, _ = OPS.voxelize(cloud(), features, [COUNT, MEAN], [I32, F32], *GRID, need_inverse=True)
    before = robocache.launch_counts()["voxelize_cpu"]
    mean.sum().backward()
    assert robocache.launch_counts()["voxelize_cpu"] == before
    assert int(count.sum()) > 0


# ---- torch.func ------------------------------------------------------------------------------------------------------


def mean_and_max(points: Tensor, features: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    _, mean, peak = OPS.voxelize(points, features, [COUNT, MEAN, MAX], [I32, F32, F32], *GRID, **options)
    return mean, peak


def scalar(points: Tensor, features: Tensor, **options: Any) -> Tensor:
    mean, peak = mean_and_max(points, features, **options)
    return mean.square().sum() + peak.sin().sum()


def by_autograd(function: Any, leaf: Tensor) -> Tensor:
    leaf = leaf.detach().clone().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0]


@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0)], ids=str)
@pytest.mark.parametrize("packed", [False, True])
def test_vmap_equals_a_loop(packed: bool, dims: tuple[int | None, int | None]) -> None:
    points = torch.stack([cloud(), cloud(), cloud()])
    features = torch.randn(3, 2, 30, 3)
    options: dict[str, Any] = {"poses": torch.eye(4)[:3].expand(1, 3, 4)}
    if packed:
        points, features = points[:, 0], features[:, 0]
        options["row_splits"] = SPLITS
    given = tuple(
        tensor if dim is not None else tensor[0] for tensor, dim in zip((points, features), dims, strict=True)
    )
    results = torch.vmap(lambda p, f: mean_and_max(p, f, **options), in_dims=dims)(*given)
    grads = torch.vmap(torch.func.grad(lambda f, p: scalar(p, f, **options)), in_dims=dims[::-1])(*given[::-1])
    for k in range(3):
        p, f = (tensor[k] if dim is not None else tensor for tensor, dim in zip(given, dims, strict=True))
        assert all(torch.equal(a[k], b) for a, b in zip(results, mean_and_max(p, f, **options), strict=True))
        assert torch.equal(grads[k], by_autograd(lambda f, p=p: scalar(p, f, **options), f))


def test_vmap_over_grids_of_their_own() -> None:
    points, mins = cloud(), torch.rand(3, 1, 3) - 1
    sizes = torch.rand(2, 3) + 0.5

    def counts(grid_mins: Tensor) -> Tensor:
        return OPS.voxelize(points, None, [COUNT], [I32], *GRID, voxel_sizes=sizes, grid_mins=grid_mins)[0]

    before = robocache.launch_counts()["voxelize_cpu"]
    together = torch.vmap(counts)(mins)
    assert robocache.launch_counts()["voxelize_cpu"] == before + 1
    assert torch.equal(together, torch.stack([counts(one) for one in mins]))


def test_vmap_of_depth_and_sparse() -> None:
    depth = torch.stack([images()[0] for _ in range(3)])
    _, intrinsics, color = images()

    def of_images(d: Tensor) -> tuple[Tensor, ...]:
        return tuple(OPS.voxelize_depth(d, intrinsics, color, [MEAN], [F32], *GRID, need_inverse=True))

    together = torch.vmap(of_images)(depth)
    features = torch.randn(3, 2, 30, 3)
    points = cloud()

    def sparse(f: Tensor) -> tuple[Tensor, ...]:
        options = {"max_voxels": 6, "max_points": 2, "need_inverse": True}
        return tuple(OPS.voxelize_sparse(points, f, [COUNT, MIN], [I32, F32], *GRID, **options))

    voxels = torch.vmap(sparse)(features)
    grads = torch.vmap(torch.func.grad(lambda f: sparse(f)[3].sum() + sparse(f)[4].sin().sum()))(features)
    for k in range(3):
        assert all(torch.equal(a[k], b) for a, b in zip(together, of_images(depth[k]), strict=True))
        assert all(torch.equal(a[k], b) for a, b in zip(voxels, sparse(features[k]), strict=True))
        expected = by_autograd(lambda f: sparse(f)[3].sum() + sparse(f)[4].sin().sum(), features[k])
        assert torch.equal(grads[k], expected)


@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0)], ids=str)
@pytest.mark.parametrize("packed", [False, True])
def test_vmap_of_devoxelize(packed: bool, dims: tuple[int | None, int | None]) -> None:
    grid, points = torch.randn(3, 2, 3, 4, 5, 2), torch.stack([cloud(), cloud(), cloud()])
    splits = torch.tensor([0, 20, 30]) if packed else None
    points = points[:, 0] if packed else points
    given = tuple(tensor if dim is not None else tensor[0] for tensor, dim in zip((grid, points), dims, strict=True))

    def read(g: Tensor, p: Tensor) -> Tensor:
        return OPS.devoxelize(g, p, 1, *GRID[1:], row_splits=splits)

    def loss(g: Tensor, p: Tensor) -> Tensor:
        return read(g, p).sin().sum()

    out = torch.vmap(read, in_dims=dims)(*given)
    by_grid, by_points = torch.vmap(torch.func.grad(loss, (0, 1)), in_dims=dims)(*given)
    for k in range(3):
        g, p = (tensor[k] if dim is not None else tensor for tensor, dim in zip(given, dims, strict=True))
        assert torch.equal(out[k], read(g, p))
        assert torch.equal(by_grid[k], by_autograd(lambda g, p=p: loss(g, p), g))
        assert torch.equal(by_points[k], by_autograd(lambda p, g=g: loss(g, p), p))


def test_jacobians() -> None:
    points, features = cloud(1, 6), torch.randn(1, 6, 2)
    (by_rows,) = torch.autograd.functional.jacobian(lambda f: mean_and_max(points, f)[0], (features,))
    assert torch.equal(torch.func.jacrev(lambda f: mean_and_max(points, f)[0])(features), by_rows)


def test_an_outer_gradient_reaches_through_vmap() -> None:
    points, features = cloud(), torch.randn(3, 2, 30, 3, requires_grad=True)
    torch.vmap(lambda f: mean_and_max(points, f)[0])(features).sin().sum().backward()
    for k in range(3):
        expected = by_autograd(lambda f: mean_and_max(points, f)[0].sin().sum(), features[k])
        assert torch.equal(features.grad[k], expected)


# ---- Memory ----------------------------------------------------------------------------------------------------------


def test_calls_do_not_leak() -> None:
    import gc
    import resource

    points, features = cloud(), torch.randn(2, 30, 3)
    depth, intrinsics, color = images()
    strided = depth.transpose(2, 3).contiguous().transpose(2, 3)
    leaf = torch.randn(2, 30, 3, requires_grad=True)
    out = [torch.zeros(2, 3, 4, 5, dtype=torch.int32)]
    grid = torch.randn(2, 3, 4, 5, 2)

    def work() -> None:
        OPS.voxelize(points, features, ALL, ALL_DTYPES, *GRID, need_inverse=True)
        OPS.voxelize_depth(strided, intrinsics, color, [MEAN], [F32], *GRID, need_dropped=True)
        OPS.voxelize_sparse(points, features, [MEAN], [F32], *GRID, max_voxels=5, max_points=2, need_inverse=True)
        OPS.voxelize_out(points, None, [COUNT], [I32], *GRID, out=out)
        OPS.voxelize(points, leaf, [MEAN, MAX], [F32, F32], *GRID)[0].sum().backward()
        OPS.devoxelize(grid, points, 1, *GRID[1:])
        with pytest.raises(RuntimeError):
            OPS.voxelize(points, features, [MEAN], [F32], *GRID, bounds=7)

    for _ in range(200):
        work()
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(800):
        work()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2048  # KiB
