"""The voxelize and devoxelize operators as direct callers meet them: results, errors, strides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import robocache

from .voxel_calls import (  # noqa: F401 (one_thread is a fixture)
    ALL,
    ALL_DTYPES,
    BITS,
    BOOL,
    COUNT,
    F32,
    GRID,
    I32,
    MEAN,
    OCCUPANCY,
    OPS,
    SPLITS,
    SUM,
    U8,
    cloud,
    images,
    one_thread,
    some_options,
)

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
