"""The voxelize and devoxelize operators under opcheck, and their fakes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from robocache import _ops, _schemas, _voxel_ops

from .voxel_calls import (  # noqa: F401 (one_thread is a fixture)
    ALL,
    ALL_DTYPES,
    ARGMAX,
    BITS,
    BOOL,
    CELLS,
    COUNT,
    F16,
    F32,
    F64,
    GRID,
    I32,
    I64,
    MAX,
    MEAN,
    MIN,
    OCCUPANCY,
    OPS,
    SPLITS,
    U8,
    cloud,
    images,
    one_thread,
    some_options,
)


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
