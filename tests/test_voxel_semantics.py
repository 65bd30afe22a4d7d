"""What the documentation promises about dense grids, case by case, with the expected numbers written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from .backends import assert_same_bits
from .voxel_backends import Call, VoxelBackend, c_backend, every_backend

NAN, INF = math.nan, math.inf
UNIT: dict[str, Any] = {"voxel_size": 1.0, "grid_min": 0.0}


def run(backend: VoxelBackend, points: Any, features: Any = None, **options: Any) -> dict[str, torch.Tensor]:
    points = torch.tensor(points) if isinstance(points, list) else points
    features = torch.tensor(features) if isinstance(features, list) else features
    return backend.run(Call("dense", (points, features), options))


def where(grid: torch.Tensor) -> list[list[int]]:
    return grid.nonzero().tolist()


# ---- Axes and the index ---------------------------------------------------------------------------------------------


@every_backend
@pytest.mark.parametrize("size", [(2, 3, 5), (5, 3, 2), (3, 5, 2), (1, 1, 7), (7, 1, 1)], ids=str)
def test_axes_are_x_y_z(backend: VoxelBackend, size: tuple[int, int, int]) -> None:
    """Each cell's own point lands in grid[x, y, z], and its id is (x * Y + y) * Z + z."""
    cells = [(x, y, z) for x in range(size[0]) for y in range(size[1]) for z in range(size[2])]
    points = torch.tensor(cells, dtype=torch.float32) + 0.5
    marks = torch.arange(len(cells), dtype=torch.float32)[:, None] + 100
    got = run(backend, points, marks, grid_size=size, reduce=("sum", "occupancy"), return_inverse=True, **UNIT)
    assert got["sum"].shape == (*size, 1) and got["occupancy"].shape == size
    for n, (x, y, z) in enumerate(cells):
        assert got["sum"][x, y, z, 0].item() == 100 + n
        assert got["inverse"][n].item() == (x * size[1] + y) * size[2] + z == n
    assert bool(got["occupancy"].all())


@every_backend
def test_each_axis_has_its_own_voxel_size_and_corner(backend: VoxelBackend) -> None:
    options = {"voxel_size": (1.0, 0.5, 2.0), "grid_min": (-1.0, 10.0, -4.0), "grid_size": (2, 3, 4)}
    got = run(backend, [[0.5, 11.25, 1.0], [-0.5, 10.0, 3.9], [-1.0, 11.4, -4.0]], **options)
    assert where(got["occupancy"]) == [[0, 0, 3], [0, 2, 0], [1, 2, 2]]
    tensors = {k: torch.tensor(v) if k != "grid_size" else v for k, v in options.items()}
    again = run(backend, [[0.5, 11.25, 1.0], [-0.5, 10.0, 3.9], [-1.0, 11.4, -4.0]], **tensors)
    assert_same_bits(again["occupancy"], got["occupancy"])


@every_backend
def test_each_sample_has_its_own_grid(backend: VoxelBackend) -> None:
    points = torch.full((3, 1, 3), 2.25)
    voxel = torch.tensor([[1.0, 1.0, 1.0], [0.5, 1.0, 2.0], [1.0, 1.0, 1.0]])
    low = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [2.0, 2.0, 2.0]])
    got = run(backend, points, voxel_size=voxel, grid_min=low, grid_size=(5, 4, 3))
    assert where(got["occupancy"]) == [[0, 2, 2, 2], [1, 4, 1, 1], [2, 0, 0, 0]]


@every_backend
def test_cells_are_half_open(backend: VoxelBackend) -> None:
    below = float(np.nextafter(np.float32(2), np.float32(0)))
    got = run(
        backend,
        [[0.0, 0, 0], [-0.0, 0, 0], [1.0, 0, 0], [below, 0, 0], [2.0, 0, 0], [-1e-30, 0, 0]],
        grid_size=(2, 1, 1),
        reduce="count",
        return_inverse=True,
        return_dropped=True,
        **UNIT,
    )
    assert got["inverse"].tolist() == [0, 0, 1, 1, -1, -1]
    assert got["count"].flatten().tolist() == [2, 2] and got["dropped"].item() == 2


# ---- Reductions -----------------------------------------------------------------------------------------------------

FOUR = [[0.5, 0.5, 0.5], [0.5, 0.5, 1.5], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
VALUES = [[-1.0, 4.0], [7.0, 7.0], [-3.0, 2.0], [-2.0, 6.0]]


@every_backend
def test_every_reduction(backend: VoxelBackend) -> None:
    names = ("occupancy", "count", "sum", "mean", "max", "min")
    got = run(backend, FOUR, VALUES, grid_size=(1, 1, 3), reduce=names, **UNIT)
    expected: dict[str, list[Any]] = {
        "occupancy": [True, True, False],
        "count": [3, 1, 0],
        "sum": [[-6, 12], [7, 7], [0, 0]],
        "mean": [[-2, 4], [7, 7], [0, 0]],
        "max": [[-1, 6], [7, 7], [0, 0]],
        "min": [[-3, 2], [7, 7], [0, 0]],
    }
    for name, cells in expected.items():
        assert got[name][0, 0].tolist() == cells, name
    assert got["occupancy"].dtype == torch.bool and got["count"].dtype == torch.int32
    assert all(got[name].dtype == torch.float32 for name in names[2:])


@every_backend
def test_max_of_negatives_is_negative(backend: VoxelBackend) -> None:
    points, features = torch.full((40, 3), 0.5), -torch.arange(1.0, 41.0)[:, None]
    got = run(backend, points, features, grid_size=(1, 1, 2), reduce=("max", "min"), empty_value=-7, **UNIT)
    assert got["max"].flatten().tolist() == [-1, -7] and got["min"].flatten().tolist() == [-40, -7]
    infinite = torch.full((3, 1), -INF)
    got = run(backend, points[:3], infinite, grid_size=(1, 1, 2), reduce="max", **UNIT)
    assert got["max"].flatten().tolist() == [-INF, 0]


@every_backend
def test_ties_of_zeros_keep_the_first(backend: VoxelBackend) -> None:
    points = [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.5, 0.5, 1.5], [0.5, 0.5, 1.5]]
    features = torch.tensor([[0.0], [-0.0], [-0.0], [0.0]])
    got = run(backend, points, features, grid_size=(1, 1, 2), reduce=("max", "min"), **UNIT)
    for name in ("max", "min"):
        assert_same_bits(got[name].flatten(), torch.tensor([0.0, -0.0]), name)


@every_backend
def test_nan_features_pass_through_their_cell_and_column_alone(backend: VoxelBackend) -> None:
    features = [[NAN, 1.0], [5.0, 5.0], [2.0, INF], [3.0, -INF]]
    got = run(backend, FOUR, features, grid_size=(1, 1, 3), reduce=("sum", "mean", "max", "min", "count"), **UNIT)
    for name in ("sum", "mean", "max", "min"):
        assert math.isnan(got[name][0, 0, 0, 0]) and got[name][0, 0, 1].tolist() == [5, 5], name
    assert math.isnan(got["sum"][0, 0, 0, 1]) and math.isnan(got["mean"][0, 0, 0, 1])  # inf - inf
    assert got["max"][0, 0, 0, 1].item() == INF and got["min"][0, 0, 0, 1].item() == -INF
    assert got["count"].flatten().tolist() == [3, 1, 0]


@c_backend
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_arguments_are_the_lowest_index(backend: VoxelBackend, dtype: torch.dtype) -> None:
    points = torch.tensor(FOUR * 2 + [[9.0, 9.0, 9.0]])
    features = torch.tensor([[1.0, NAN], [0.0, 0.0], [5.0, NAN], [5.0, 9.0], [5.0, 1.0], [0.0, 0.0], [1.0, 2.0]] * 2)
    features = features[:9]
    names = ("argmax", "argmin", "max", "min")
    asked = {"argmax": dtype, "argmin": dtype}
    got = run(backend, points, features, grid_size=(1, 1, 3), reduce=names, out_dtype=asked, **UNIT)
    assert got["argmax"].dtype == dtype
    assert got["argmax"][0, 0].tolist() == [[2, 0], [1, 1], [-1, -1]]
    assert got["argmin"][0, 0].tolist() == [[0, 0], [1, 1], [-1, -1]]
    assert math.isnan(got["max"][0, 0, 0, 1]) and math.isnan(got["min"][0, 0, 0, 1])


@every_backend
def test_several_reductions_in_one_pass_equal_single_ones(backend: VoxelBackend) -> None:
    generator = torch.Generator().manual_seed(1)
    points, features = torch.rand(2, 900, 3, generator=generator) * 4, torch.randn(2, 900, 5, generator=generator)
    names = ("min", "count", "mean", "occupancy", "sum", "max")
    together = run(backend, points, features, grid_size=(4, 3, 5), reduce=names, **UNIT)
    for name in names:
        carried = None if name in ("count", "occupancy") else features
        alone = run(backend, points, carried, grid_size=(4, 3, 5), reduce=name, **UNIT)
        assert_same_bits(together[name], alone[name], name)


@every_backend
def test_empty_value_stands_where_no_point_is(backend: VoxelBackend) -> None:
    names = ("occupancy", "count", "sum", "mean", "max", "min")
    for value in (-1.5, NAN, INF):
        got = run(backend, FOUR, VALUES, grid_size=(1, 1, 3), reduce=names, empty_value=value, **UNIT)
        assert got["count"].flatten().tolist() == [3, 1, 0] and got["occupancy"].flatten().tolist() == [1, 1, 0]
        for name in names[2:]:
            assert_same_bits(got[name][0, 0, 2], torch.tensor([value, value]), name)
            assert bool((got[name][0, 0, :2] != value).all())


@every_backend
def test_bytes_as_features(backend: VoxelBackend) -> None:
    features = torch.tensor([[255, 0], [9, 9], [254, 1], [255, 255]], dtype=torch.uint8)
    got = run(backend, FOUR, features, grid_size=(1, 1, 2), reduce=("sum", "mean", "max", "min"), **UNIT)
    assert all(got[name].dtype == torch.float32 for name in ("sum", "mean", "max", "min"))
    assert got["sum"][0, 0].tolist() == [[764, 256], [9, 9]]
    assert got["max"][0, 0].tolist() == [[255, 255], [9, 9]] and got["min"][0, 0, 0].tolist() == [254, 0]
    third = torch.tensor([764.0, 256.0]) / 3
    assert_same_bits(got["mean"][0, 0, 0], third)


# ---- Bounds, masks, ragged clouds -----------------------------------------------------------------------------------

AROUND = [[-0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [5.0, 9.0, -3.0], [NAN, 0.5, 0.5], [INF, 0.5, -INF], [1.5, 1.5, 1.5]]


@every_backend
def test_drop(backend: VoxelBackend) -> None:
    got = run(backend, AROUND, grid_size=2, reduce="count", return_dropped=True, return_inverse=True, **UNIT)
    assert got["inverse"].tolist() == [-1, 0, -1, -1, -1, 7]
    assert got["dropped"].tolist() == 4 and got["count"].sum() == 2
    assert got["dropped"].dtype == torch.int64 and got["inverse"].dtype == torch.int64


@every_backend
def test_clamp(backend: VoxelBackend) -> None:
    options = {"bounds": "clamp", "return_dropped": True, "return_inverse": True}
    got = run(backend, AROUND, grid_size=2, reduce="count", **options, **UNIT)
    assert got["inverse"].tolist() == [0, 0, 6, -1, 4, 7]  # a NaN has no nearest cell
    assert got["dropped"].item() == 4 and got["count"].sum() == 5


@every_backend
def test_masked_points_do_not_exist(backend: VoxelBackend) -> None:
    mask = torch.tensor([True, True, False, False, True, False])
    got = run(backend, AROUND, grid_size=2, mask=mask, return_dropped=True, return_inverse=True, **UNIT)
    assert got["inverse"].tolist() == [-1, 0, -1, -1, -1, -1] and got["dropped"].item() == 2
    only_good = torch.tensor([False, True, False, False, False, True])
    got = run(backend, AROUND, grid_size=2, mask=only_good, bounds="raise", return_counts=True, **UNIT)
    assert got["occupancy"].sum() == 2


@every_backend
def test_packed_clouds(backend: VoxelBackend) -> None:
    """Samples of 2, 0 and 3 points; one point before the first split and two past the last belong to none."""
    points = torch.tensor([[v, 0.5, 0.5] for v in (0.5, 0.5, 1.5, 1.5, -1.0, 0.5, 0.5, 1.5)])
    splits = torch.tensor([1, 3, 3, 6])
    features = torch.arange(8.0)[:, None]
    options = {"row_splits": splits, "grid_size": (2, 1, 1), "reduce": ("count", "sum"), **UNIT}
    got = run(backend, points, features, return_inverse=True, return_dropped=True, **options)
    assert got["count"].shape == (3, 2, 1, 1) and got["count"].flatten(1).tolist() == [[1, 1], [0, 0], [1, 1]]
    assert got["sum"].flatten(1).tolist() == [[1, 2], [0, 0], [5, 3]]
    assert got["inverse"].tolist() == [-1, 0, 1, 1, -1, 0, -1, -1] and got["dropped"].tolist() == [0, 0, 1]


@every_backend
def test_a_batch_is_its_samples(backend: VoxelBackend) -> None:
    generator = torch.Generator().manual_seed(2)
    points, features = torch.rand(5, 60, 3, generator=generator) * 3, torch.randn(5, 60, 4, generator=generator)
    options = {"grid_size": (3, 2, 4), "reduce": ("mean", "count"), "return_inverse": True, **UNIT}
    together = run(backend, points, features, **options)
    for b in range(5):
        alone = run(backend, points[b], features[b], **options)
        for name in ("mean", "count", "inverse"):
            assert_same_bits(together[name][b], alone[name], name)


# ---- Pose -----------------------------------------------------------------------------------------------------------


@every_backend
def test_a_pose_turns_and_shifts(backend: VoxelBackend) -> None:
    """A quarter turn about z, then a shift: (x, y, z) to (4 - y, x, z + 1)."""
    pose = torch.tensor([[0.0, -1.0, 0.0, 4.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    points = [[1.5, 0.5, 0.5], [3.5, 2.5, 1.5]]
    got = run(backend, points, pose=pose, grid_size=(5, 4, 3), **UNIT)
    assert where(got["occupancy"]) == [[1, 3, 2], [3, 1, 1]]
    square = torch.cat([pose, torch.tensor([[0.0, 0.0, 0.0, 1.0]])])
    assert_same_bits(run(backend, points, pose=square, grid_size=(5, 4, 3), **UNIT)["occupancy"], got["occupancy"])


@every_backend
def test_each_sample_has_its_own_pose(backend: VoxelBackend) -> None:
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[1, 0, 3], poses[2, 2, 3] = 1.0, 2.0
    got = run(backend, torch.full((3, 1, 3), 0.5), pose=poses, grid_size=3, **UNIT)
    assert where(got["occupancy"]) == [[0, 0, 0, 0], [1, 1, 0, 0], [2, 0, 0, 2]]
