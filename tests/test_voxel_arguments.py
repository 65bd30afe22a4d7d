"""Wrong calls of the voxel functions: each names the argument, what was expected and what came, before any kernel
runs."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import robocache

P, F = torch.zeros(2, 50, 3), torch.zeros(2, 50, 4)
FRAME: dict[str, Any] = {"voxel_size": 1.0, "grid_min": 0.0, "grid_size": (4, 5, 6)}
D, K, COLOR = torch.ones(2, 3, 6, 8), torch.tensor([50.0, 50.0, 4.0, 3.0]), torch.zeros(2, 3, 6, 8, 3)
G = torch.zeros(2, 4, 5, 6, 1)
FLOATS = "float16, bfloat16, float32, float64"
VALUES = f"{FLOATS}, bool, uint8, int8, int16, int32, int64"

FAST_DOORS = {
    "voxelize": "_fast_voxelize",
    "sparse_voxels": "_fast_voxelize_sparse",
    "depth_images": "_fast_voxelize_depth",
    "devoxel": "_fast_devoxelize",
}

Wrong = dict[str, tuple[dict[str, Any], type[Exception], str]]


def dense(**changes: Any) -> dict[str, Any]:
    return {"points": P, "features": F, "reduce": "mean", **FRAME, **changes}


def counted(**changes: Any) -> dict[str, Any]:
    return {"points": P, "reduce": "count", **FRAME, **changes}


def alone(**changes: Any) -> dict[str, Any]:
    return {"points": P[0], **FRAME, **changes}


DENSE: Wrong = {
    "points axes": (dense(points=P[..., :2]), ValueError, "points: expected [N, 3] or [B, N, 3], got [2, 50, 2]"),
    "points 4-D": (dense(points=P[None]), ValueError, "points: expected [N, 3] or [B, N, 3], got [1, 2, 50, 3]"),
    "points dtype": (dense(points=P.int()), TypeError, f"points: expected {FLOATS}, got int32"),
    "points packed": (
        dense(row_splits=torch.tensor([0, 50])), ValueError,
        "points: expected [N, 3] beside row_splits, got [2, 50, 3]",
    ),
    "row_splits empty": (
        alone(row_splits=torch.zeros(0, dtype=torch.int64)), ValueError,
        "row_splits: expected [B + 1], at least one offset, got [0]",
    ),
    "row_splits 2-D": (
        alone(row_splits=torch.zeros(2, 2, dtype=torch.int64)), ValueError,
        "row_splits: expected [B + 1], at least one offset, got [2, 2]",
    ),
    "row_splits dtype": (
        alone(row_splits=torch.tensor([0.0, 50.0])), TypeError,
        "row_splits: expected an integer dtype, got float32",
    ),
    "mask shape": (
        dense(mask=torch.ones(2, 49, dtype=torch.bool)), ValueError,
        "mask: expected the shape of points = [2, 50], got [2, 49]",
    ),
    "mask dtype": (dense(mask=torch.ones(2, 50)), TypeError, "mask: expected bool, got float32"),
    "pose shape": (
        dense(pose=torch.eye(3)), ValueError, "pose: expected [..., 3, 4] or [..., 4, 4], got [3, 3]"
    ),
    "pose batch": (
        dense(pose=torch.zeros(3, 3, 4)), ValueError,
        "pose: expected what spreads to [2, 3, 4], got [3, 3, 4]",
    ),
    "pose of one cloud": (
        alone(pose=torch.zeros(1, 4, 4)), ValueError, "pose: expected what spreads to [4, 4], got [1, 4, 4]"
    ),
    "pose dtype": (dense(pose=torch.eye(4).long()), TypeError, f"pose: expected {FLOATS}, got int64"),
    "features shape": (
        dense(features=F[:, :49]), ValueError,
        "features: expected the shape of points and columns, [2, 50, C], got [2, 49, 4]",
    ),
    "features without columns": (
        dense(features=F[..., 0]), ValueError,
        "features: expected the shape of points and columns, [2, 50, C], got [2, 50]",
    ),
    "features dtype": (dense(features=F.int()), TypeError, f"features: expected {FLOATS}, uint8, got int32"),
    "features missing": (
        dense(features=None), ValueError, "features: expected a torch.Tensor, which reduce='mean' needs, got None"
    ),
    "voxel_size zero": (
        dense(voxel_size=0.0), ValueError, "voxel_size: expected numbers above 0 (in float32), got 0.0"
    ),
    "voxel_size too small for float32": (
        dense(voxel_size=(1.0, 1e-50, 1.0)), ValueError,
        "voxel_size: expected numbers above 0 (in float32), got (1.0, 1e-50, 1.0)",
    ),
    "voxel_size NaN": (
        dense(voxel_size=float("nan")), ValueError, "voxel_size: expected finite numbers (in float32), got nan"
    ),
    "voxel_size two": (
        dense(voxel_size=(1.0, 2.0)), TypeError,
        "voxel_size: expected a number, three numbers or a torch.Tensor [3] or [B, 3], got 2 entries",
    ),
    "voxel_size bool": (
        dense(voxel_size=True), TypeError,
        "voxel_size: expected a number, three numbers or a torch.Tensor [3] or [B, 3], got True",
    ),
    "voxel_size batch": (
        dense(voxel_size=torch.ones(3, 3)), ValueError,
        "voxel_size: expected [], [3] or [B, 3] = [2, 3], got [3, 3]",
    ),
    "voxel_size of one cloud": (
        alone(voxel_size=torch.ones(1, 3)), ValueError, "voxel_size: expected [] or [3], got [1, 3]"
    ),
    "voxel_size dtype": (
        dense(voxel_size=torch.ones(3, dtype=torch.bool)), TypeError,
        "voxel_size: expected a floating or an integer dtype, got bool",
    ),
    "grid_min infinite": (
        dense(grid_min=(0.0, 0.0, -float("inf"))), ValueError,
        "grid_min: expected finite numbers (in float32), got (0.0, 0.0, -inf)",
    ),
    "grid_min past float32": (
        dense(grid_min=1e39), ValueError, "grid_min: expected finite numbers (in float32), got 1e+39"
    ),
    "grid_min name": (
        dense(grid_min="lowest"), ValueError,
        "grid_min: expected a number, three numbers, 'auto' or a torch.Tensor, got 'lowest'",
    ),
    "grid_min none": (
        dense(grid_min=None), TypeError,
        "grid_min: expected a number, three numbers, 'auto' or a torch.Tensor [3] or [B, 3], got None",
    ),
    "grid_min batch": (
        dense(grid_min=torch.zeros(2)), ValueError, "grid_min: expected [], [3] or [B, 3] = [2, 3], got [2]"
    ),
    "grid_size two": (dense(grid_size=(4, 5)), TypeError, "grid_size: expected a whole number or three, got (4, 5)"),
    "grid_size float": (dense(grid_size=4.0), TypeError, "grid_size: expected a whole number or three, got 4.0"),
    "grid_size bool": (
        dense(grid_size=(4, 5, True)), TypeError, "grid_size: expected a whole number or three, got (4, 5, True)"
    ),
    "grid_size zero": (
        dense(grid_size=(4, 0, 5)), ValueError,
        "grid_size: expected 1 to 16777216 cells along each axis, got 4 x 0 x 5",
    ),
    "grid_size past 2^24": (
        dense(grid_size=2**24 + 1), ValueError,
        "grid_size: expected 1 to 16777216 cells along each axis, got 16777217 x 16777217 x 16777217",
    ),
    "grid_size past 2^62 cells": (
        dense(grid_size=(2**21, 2**20, 2**20)), ValueError,
        "grid_size: expected fewer than 2^62 cells in all samples, got 2 grids of 2097152 x 1048576 x 1048576, which "
        "need 4611686018427387904 bytes at one byte a cell",
    ),
    "reduce unknown": (
        dense(reduce="median"), ValueError,
        "reduce: expected one of 'occupancy', 'count', 'sum', 'mean', 'max', 'min', got 'median'",
    ),
    "reduce none": (
        dense(reduce=()), TypeError,
        "reduce: expected a name or several of occupancy, count, sum, mean, max, min, got ()",
    ),
    "reduce number": (
        dense(reduce=3), TypeError,
        "reduce: expected a name or several of occupancy, count, sum, mean, max, min, got 3",
    ),
    "reduce twice": (
        dense(reduce=("sum", "sum")), ValueError, "reduce: expected each name once, got ('sum', 'sum')"
    ),
    "bounds": (dense(bounds="wrap"), ValueError, "bounds: expected one of 'drop', 'clamp', 'raise', got 'wrap'"),
    "layout": (
        dense(layout="NHWC"), ValueError,
        "layout: expected one of 'channels_last', 'channels_first', got 'NHWC'",
    ),
    "out_dtype integer": (
        dense(out_dtype=torch.int32), TypeError,
        f"out_dtype: expected {FLOATS} for mean, or a dict of dtypes by name, got int32",
    ),
    "out_dtype bits of counts": (
        counted(out_dtype="bits"), TypeError,
        f"out_dtype: expected {VALUES} for count, or a dict of dtypes by name, got bits",
    ),
    "out_dtype unknown": (
        counted(out_dtype=torch.complex64), TypeError,
        f"out_dtype: expected {VALUES} for count, or a dict of dtypes by name, got complex64",
    ),
    "out_dtype dict": (
        dense(out_dtype={"mean": torch.int8}), TypeError, f"out_dtype: expected {FLOATS} for mean, got int8"
    ),
    "out_dtype dict name": (
        dense(out_dtype={"sum": torch.float32}), ValueError, "out_dtype: expected names among mean, got 'sum'"
    ),
    "empty_value": (dense(empty_value="none"), TypeError, "empty_value: expected a number, got str"),
    "deterministic": (dense(deterministic=1), TypeError, "deterministic: expected None, True or False, got int"),
    "return_counts": (dense(return_counts=1), TypeError, "return_counts: expected True or False, got int"),
    "return_inverse": (dense(return_inverse=0), TypeError, "return_inverse: expected True or False, got int"),
    "return_dropped": (dense(return_dropped="no"), TypeError, "return_dropped: expected True or False, got str"),
    "out of mean": (
        dense(out=torch.zeros(2, 4, 5, 6, 4)), ValueError,
        "out: expected None, as only occupancy and count add up over calls, got mean",
    ),
    "out shape": (
        counted(out=torch.zeros(2, 4, 5, 7, dtype=torch.int32)), ValueError,
        "out: expected [B, X, Y, Z] = [2, 4, 5, 6], got [2, 4, 5, 7]",
    ),
    "out of one cloud": (
        alone(out=torch.zeros(1, 4, 5, 6, dtype=torch.bool)), ValueError,
        "out: expected [X, Y, Z] = [4, 5, 6], got [1, 4, 5, 6]",
    ),
    "out in bits": (
        alone(out=torch.zeros(4, 5, 6, dtype=torch.uint8), out_dtype="bits"), ValueError,
        "out: expected [X, Y, ceil(Z / 8)] = [4, 5, 1], got [4, 5, 6]",
    ),
    "out dtype": (
        counted(out=torch.zeros(2, 4, 5, 6), out_dtype=torch.int32), TypeError, "out: expected int32, got float32"
    ),
    "out dtype unknown": (
        counted(out=torch.zeros(2, 4, 5, 6, dtype=torch.complex64)), TypeError,
        f"out: expected {VALUES}, got complex64",
    ),
    "out strides": (
        counted(out=torch.zeros(2, 4, 6, 5, dtype=torch.int32).transpose(2, 3)), ValueError,
        "out: expected a contiguous tensor, got strides [120, 30, 1, 5]",
    ),
    "out with a gradient": (
        counted(out=torch.zeros(2, 4, 5, 6, requires_grad=True)), ValueError,
        "out: expected a tensor that requires no gradient",
    ),
    "out of several": (
        counted(reduce=("count", "occupancy"), out={"count": torch.zeros(2, 4, 5, 6, dtype=torch.int32)}), TypeError,
        "out: expected a dict of tensors for count, occupancy, got ['count']",
    ),
    "out among several": (
        counted(reduce=("count",), out={"count": torch.zeros(2, 4, 5, dtype=torch.int32)}), ValueError,
        "out['count']: expected [B, X, Y, Z] = [2, 4, 5, 6], got [2, 4, 5]",
    ),
    "out a dict of one": (
        counted(out={"count": torch.zeros(2, 4, 5, 6)}), TypeError, "out: expected one torch.Tensor, got ['count']"
    ),
    "counts beside out": (
        counted(out=torch.zeros(2, 4, 5, 6, dtype=torch.int32), return_counts=True), ValueError,
        "return_counts: expected False where out adds up counts already, got True",
    ),
    "several grids": (
        counted(grid_size=[(4, 4, 4), (2, 2, 2)], voxel_size=[1.0]), ValueError,
        "voxel_size: expected a list with one entry for each of 2 grids, got 1",
    ),
    "several grids into out": (
        counted(grid_size=[(4, 4, 4)], out=torch.zeros(2, 4, 4, 4)), ValueError,
        "out: expected None beside several grids",
    ),
}  # fmt: skip


def depth(**changes: Any) -> dict[str, Any]:
    return {"depth": D, "intrinsics": K, "camera_to_grid": None, **FRAME, **changes}


DEPTH: Wrong = {
    "depth dtype": (depth(depth=D.double()), TypeError, "depth: expected uint16, float32, got float64"),
    "depth 1-D": (
        depth(depth=D[0, 0, 0]), ValueError, "depth: expected [H, W], [B, H, W] or [B, V, H, W], got [8]"
    ),
    "intrinsics shape": (
        depth(intrinsics=K[:3]), ValueError, "intrinsics: expected [..., 3, 3] or [..., 4], got [3]"
    ),
    "intrinsics batch": (
        depth(intrinsics=K.expand(3, 3, 4)), ValueError,
        "intrinsics: expected what spreads to [2, 3, 4], got [3, 3, 4]",
    ),
    "intrinsics matrices": (
        depth(intrinsics=torch.eye(3).expand(2, 2, 3, 3)), ValueError,
        "intrinsics: expected what spreads to [2, 3, 3, 3], got [2, 2, 3, 3]",
    ),
    "intrinsics dtype": (depth(intrinsics=K.int()), TypeError, f"intrinsics: expected {FLOATS}, got int32"),
    "camera_to_grid shape": (
        depth(camera_to_grid=torch.eye(3)), ValueError,
        "camera_to_grid: expected [..., 3, 4] or [..., 4, 4], got [3, 3]",
    ),
    "camera_to_grid cameras": (
        depth(camera_to_grid=torch.zeros(2, 3, 4)), ValueError,
        "camera_to_grid: expected what spreads to [2, 3, 3, 4], got [2, 3, 4]",
    ),
    "depth_scale": (depth(depth_scale=None), TypeError, "depth_scale: expected a number, got NoneType"),
    "depth_scale infinite": (
        depth(depth_scale=1e300), ValueError, "depth_scale: expected a finite number (in float32), got 1e+300"
    ),
    "mask": (
        depth(mask=torch.ones(2, 6, 8, dtype=torch.bool)), ValueError,
        "mask: expected the shape of depth = [2, 3, 6, 8], got [2, 6, 8]",
    ),
    "color": (
        depth(color=COLOR[:, 0], reduce="mean"), ValueError,
        "color: expected the shape of depth and columns, [2, 3, 6, 8, C], got [2, 6, 8, 3]",
    ),
    "color missing": (
        depth(reduce="max"), ValueError, "color: expected a torch.Tensor, which reduce='max' needs, got None"
    ),
}  # fmt: skip


def sparse(**changes: Any) -> dict[str, Any]:
    return {"points": P, "features": F, "max_voxels": 8, **FRAME, **changes}


SPARSE: Wrong = {
    "max_voxels": (sparse(max_voxels=-1), ValueError, "max_voxels: expected 0 to 2147483647, got -1"),
    "max_voxels float": (sparse(max_voxels=8.0), TypeError, "max_voxels: expected a whole number, got float"),
    "max_voxels past int32": (
        sparse(max_voxels=2**31), ValueError, "max_voxels: expected 0 to 2147483647, got 2147483648"
    ),
    "max_points": (sparse(max_points=0), ValueError, "max_points: expected 1 to 2147483647, got 0"),
    "max_points bool": (sparse(max_points=True), TypeError, "max_points: expected a whole number, got bool"),
    "order": (
        sparse(order="random"), ValueError, "order: expected one of 'sorted', 'first_appearance', got 'random'"
    ),
    "reduce beside max_points": (
        sparse(max_points=2, reduce="mean"), ValueError,
        "reduce: expected None beside max_points, which lists points instead, got 'mean'",
    ),
    "reduce": (
        sparse(reduce="count"), ValueError, "reduce: expected one of 'sum', 'mean', 'max', 'min', got 'count'"
    ),
    "features": (
        sparse(features=None, reduce="max"), ValueError,
        "features: expected a torch.Tensor, which reduce='max' needs, got None",
    ),
    "out_dtype without features": (
        sparse(features=None, out_dtype=torch.float16), TypeError,
        "out_dtype: expected None without features, got float16",
    ),
    "out_dtype beside max_points": (
        sparse(max_points=2, out_dtype=torch.int8), TypeError,
        "out_dtype: expected a floating dtype or that of the features beside max_points, got int8",
    ),
    "out_dtype": (
        sparse(out_dtype="bits"), TypeError,
        f"out_dtype: expected {FLOATS} for mean, or a dict of dtypes by name, got bits",
    ),
    "bounds": (sparse(bounds=0), TypeError, "bounds: expected one of 'drop', 'clamp', 'raise', got int"),
    "grid_size": (
        sparse(grid_size=[(4, 4, 4), (2, 2, 2)]), TypeError,
        "grid_size: expected a whole number or three, got [(4, 4, 4), (2, 2, 2)]",
    ),
}  # fmt: skip


def devoxel(**changes: Any) -> dict[str, Any]:
    return {"grid": G, "points": P, "voxel_size": 1.0, "grid_min": 0.0, **changes}


DEVOXEL: Wrong = {
    "grid 4-D": (
        devoxel(grid=G[0]), ValueError, "grid: expected [B, X, Y, Z, C] of 2 samples, got [4, 5, 6, 1]"
    ),
    "grid batch": (
        devoxel(grid=G[:1]), ValueError, "grid: expected [B, X, Y, Z, C] of 2 samples, got [1, 4, 5, 6, 1]"
    ),
    "grid of one cloud": (
        devoxel(points=P[0], layout="channels_first"), ValueError,
        "grid: expected [C, X, Y, Z], got [2, 4, 5, 6, 1]",
    ),
    "grid without cells": (
        devoxel(grid=G[:, :, :0]), ValueError,
        "grid: expected at least one cell along each axis, got [2, 4, 0, 6, 1]",
    ),
    "grid dtype": (devoxel(grid=G.int()), TypeError, f"grid: expected {FLOATS}, got int32"),
    "grid dtype of nearest": (
        devoxel(grid=G.to(torch.complex64), mode="nearest"), TypeError, f"grid: expected {VALUES}, got complex64"
    ),
    "mode": (devoxel(mode="cubic"), ValueError, "mode: expected one of 'nearest', 'trilinear', got 'cubic'"),
    "out_dtype": (
        devoxel(out_dtype=torch.int32), TypeError,
        "out_dtype: expected a floating dtype for a grid of float32, got int32",
    ),
    "out_dtype of integers": (
        devoxel(grid=G.int(), mode="nearest", out_dtype=torch.int64), TypeError,
        "out_dtype: expected int32 for a grid of int32, got int64",
    ),
    "points": (
        devoxel(points=P[..., :2]), ValueError, "points: expected [N, 3] or [B, N, 3], got [2, 50, 2]"
    ),
    "empty_value": (devoxel(empty_value=None), TypeError, "empty_value: expected a number, got NoneType"),
    "voxel_size": (
        devoxel(voxel_size=-1), ValueError, "voxel_size: expected numbers above 0 (in float32), got -1"
    ),
}  # fmt: skip

FUNCTIONS: dict[str, tuple[str, Wrong]] = {
    "dense": ("voxelize_point_cloud", DENSE),
    "depth": ("voxelize_depth", DEPTH),
    "sparse": ("voxelize_point_cloud_sparse", SPARSE),
    "devoxel": ("devoxelize", DEVOXEL),
}
CASES = [(form, name) for form, (_, table) in FUNCTIONS.items() for name in table]


def function(form: str) -> Callable[..., Any]:
    made: Callable[..., Any] = getattr(robocache, FUNCTIONS[form][0])
    return made


@pytest.mark.parametrize("backend", ["auto", "cpu", "torch"])
@pytest.mark.parametrize(("form", "name"), CASES)
def test_wrong_call(form: str, name: str, backend: str) -> None:
    arguments, kind, words = FUNCTIONS[form][1][name]
    before = robocache.launch_counts()
    with pytest.raises(kind, match=f"^{re.escape(words)}$"):
        function(form)(**arguments, backend=backend)
    assert robocache.launch_counts() == before


RIGHT = {"dense": dense(), "depth": depth(color=COLOR, reduce="max"), "sparse": sparse(), "devoxel": devoxel()}
TENSORS = [
    ("dense", "points"),
    ("dense", "features"),
    ("dense", "mask"),
    ("dense", "pose"),
    ("depth", "depth"),
    ("depth", "intrinsics"),
    ("depth", "camera_to_grid"),
    ("depth", "mask"),
    ("depth", "color"),
    ("sparse", "points"),
    ("devoxel", "grid"),
    ("devoxel", "points"),
]


@pytest.mark.parametrize(("form", "name"), TENSORS)
def test_no_tensor_at_all(form: str, name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name}: expected a torch.Tensor, got list$"):
        function(form)(**{**RIGHT[form], name: [0, 1]}, backend="torch")


def test_no_tensor_of_row_splits_or_out() -> None:
    with pytest.raises(TypeError, match=r"^row_splits: expected a torch\.Tensor, got list$"):
        robocache.voxelize_point_cloud(P[0], row_splits=[0, 50], **FRAME)
    with pytest.raises(TypeError, match=r"^out: expected a torch\.Tensor, got list$"):
        robocache.voxelize_point_cloud(P[0], out=[0], **FRAME)


@pytest.mark.parametrize(
    ("form", "name", "value", "of"),
    [
        ("dense", "features", F, "points"),
        ("dense", "mask", torch.ones(2, 50, dtype=torch.bool), "points"),
        ("dense", "pose", torch.eye(4), "points"),
        ("dense", "voxel_size", torch.ones(3), "points"),
        ("dense", "grid_min", torch.zeros(2, 3), "points"),
        ("depth", "intrinsics", K, "depth"),
        ("depth", "camera_to_grid", torch.eye(4), "depth"),
        ("depth", "color", COLOR, "depth"),
        ("depth", "voxel_size", torch.ones(3), "depth"),
        ("sparse", "features", F, "points"),
        ("devoxel", "grid", G, "points"),
    ],
)
def test_wrong_device(form: str, name: str, value: torch.Tensor, of: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected device cpu \(that of {of}\), got meta$"):
        function(form)(**{**RIGHT[form], name: value.to("meta")}, backend="torch")


def test_wrong_device_of_row_splits_and_out() -> None:
    with pytest.raises(ValueError, match=r"^row_splits: expected device cpu \(that of points\), got meta$"):
        robocache.voxelize_point_cloud(P[0], row_splits=torch.zeros(2, dtype=torch.int64, device="meta"), **FRAME)
    out = torch.zeros(2, 4, 5, 6, dtype=torch.bool, device="meta")
    with pytest.raises(ValueError, match=r"^out: expected device cpu \(that of points\), got meta$"):
        robocache.voxelize_point_cloud(P, out=out, **FRAME)


@pytest.mark.parametrize("form", FUNCTIONS)
def test_backends_are_strict(form: str) -> None:
    with pytest.raises(ValueError, match="^backend: 'cuda' computes cuda tensors, got tensors on cpu$"):
        function(form)(**RIGHT[form], backend="cuda")
    with pytest.raises(RuntimeError, match="triton"):
        function(form)(**RIGHT[form], backend="triton")
    with pytest.raises(
        ValueError, match="^backend: expected one of 'auto', 'cuda', 'cpu', 'torch', 'triton', got 'gpu'$"
    ):
        function(form)(**RIGHT[form], backend="gpu")


def test_a_backend_that_did_not_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name it raises; "auto" computes with the reference and warns once."""
    from robocache import _backend, _ops

    monkeypatch.setattr(_ops, "LOAD_ERROR", "the library is not here")
    monkeypatch.setattr(_backend, "_warned", set())
    for door, name in FAST_DOORS.items():  # which are off where a library did not load
        monkeypatch.setattr(importlib.import_module(f"robocache.{door}"), name, lambda *args: NotImplemented)
    for form in FUNCTIONS:
        with pytest.raises(RuntimeError, match="^backend='cpu' cannot run: the library is not here$"):
            function(form)(**RIGHT[form], backend="cpu")
    with pytest.warns(RuntimeWarning, match="the library is not here") as caught:
        made = [function(form)(**RIGHT[form]) for form in FUNCTIONS]
    assert len(caught) == 1 and len(made) == len(FUNCTIONS)


def test_room_is_told_in_bytes() -> None:
    """The grid and the counts beside it, all columns and samples."""
    features = torch.zeros(2, 50, 1).expand(2, 50, 100_000)
    options = {"voxel_size": 1.0, "grid_min": 0.0, "grid_size": 10_000}
    needed = 2 * 10_000**3 * (100_000 * 4 + 4)
    with pytest.raises(
        ValueError, match=rf"^grid_size: mean of 2 x 10000 x 10000 x 10000 cells would need {needed} bytes, more than"
    ):
        robocache.voxelize_point_cloud(P, features, reduce="mean", return_counts=True, **options)
    needed = 2 * (2**31 - 1) * (100_000 * 4 + 16)
    with pytest.raises(
        ValueError, match=rf"^max_voxels: 2147483647 voxels of 2 samples would need {needed} bytes, more than"
    ):
        robocache.voxelize_point_cloud_sparse(P, features, max_voxels=2**31 - 1, **options)
