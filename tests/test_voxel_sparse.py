"""Sparse voxels: order, caps, hard voxels, ids past 2^31, torch.unique's answers, and nothing past a cap."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import robocache

from . import voxel_capi
from .backends import assert_same_bits
from .voxel_backends import (
    Call,
    VoxelBackend,
    agrees_with_oracle,
    c_backend,
    every_backend,
    native_backend,
    public_backend,
)

UNIT: dict[str, Any] = {"voxel_size": 1.0, "grid_min": 0.0}
LINE = [[2.5, 0.5, 0.5], [0.5, 0.5, 0.5], [2.5, 0.5, 0.5], [9.0, 0.5, 0.5], [1.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
MARKS = [[1.0], [2.0], [3.0], [4.0], [5.0], [7.0]]


def run(backend: VoxelBackend, points: Any, features: Any = None, **options: Any) -> dict[str, torch.Tensor]:
    points = torch.tensor(points) if isinstance(points, list) else points
    features = torch.tensor(features) if isinstance(features, list) else features
    return backend.run(Call("sparse", (points, features), options))


@every_backend
def test_sorted_and_first_appearance(backend: VoxelBackend) -> None:
    options = {"grid_size": (4, 2, 3), "reduce": "sum", "max_voxels": 5, **UNIT}
    got = run(backend, LINE, MARKS, **options)
    assert got["coords"].tolist() == [[0, 0, 0], [1, 0, 0], [2, 0, 0], [-1] * 3, [-1] * 3]
    assert got["sum"].flatten().tolist() == [9, 5, 4, 0, 0] and got["counts"].tolist() == [2, 1, 2, 0, 0]
    assert got["num_voxels"].item() == 3 and got["inverse"].tolist() == [2, 0, 2, -1, 1, 0]
    assert got["coords"].dtype == got["counts"].dtype == torch.int32
    assert got["num_voxels"].dtype == got["inverse"].dtype == torch.int64
    first = run(backend, LINE, MARKS, order="first_appearance", empty_value=-3, **options)
    assert first["coords"].tolist() == [[2, 0, 0], [0, 0, 0], [1, 0, 0], [-1] * 3, [-1] * 3]
    assert first["sum"].flatten().tolist() == [4, 9, 5, -3, -3] and first["counts"].tolist() == [2, 2, 1, 0, 0]
    assert first["inverse"].tolist() == [0, 1, 0, -1, 2, 1]


@every_backend
@pytest.mark.parametrize("order", ["sorted", "first_appearance"])
@pytest.mark.parametrize("cap", [0, 1, 2, 3, 4])
def test_caps(backend: VoxelBackend, cap: int, order: str) -> None:
    """Three voxels: none kept, one, two, all, one to spare. num_voxels tells three every time."""
    options = {"grid_size": (4, 2, 3), "reduce": ("mean", "max"), "max_voxels": cap, "order": order, **UNIT}
    got = agrees_with_oracle(backend, Call("sparse", (torch.tensor(LINE), torch.tensor(MARKS)), options))
    assert got["num_voxels"].item() == 3
    assert got["coords"].shape == (cap, 3) and got["mean"].shape == (cap, 1)
    kept = [[0, 1, 2], [2, 0, 1]][order != "sorted"][:cap]
    assert got["coords"][:3, 0].tolist() == kept
    assert got["inverse"].max().item() == min(cap, 3) - 1


@every_backend
@pytest.mark.parametrize("order", ["sorted", "first_appearance"])
def test_caps_are_per_sample(backend: VoxelBackend, order: str) -> None:
    """Samples of 0, 1, many voxels and all outside, with a cap that some pass."""
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(4, 50, 3, generator=generator) * 3
    points[0] += 100
    points[1] = 0.5
    options = {"grid_size": 3, "max_voxels": 6, "order": order, "reduce": ("mean", "min"), **UNIT}
    features = torch.randn(4, 50, 3, generator=generator)
    got = agrees_with_oracle(backend, Call("sparse", (points, features), options))
    assert got["num_voxels"][:2].tolist() == [0, 1] and bool((got["num_voxels"][2:] > 6).all())
    splits = torch.tensor([0, 0, 3, 120, 200])
    flat = (points.reshape(200, 3), features.reshape(200, 3))
    agrees_with_oracle(backend, Call("sparse", flat, {**options, "row_splits": splits}))


@every_backend
def test_default_outputs(backend: VoxelBackend) -> None:
    """Features give their mean; without features there are none."""
    options = {"grid_size": 3, "max_voxels": 4, **UNIT}
    got = run(backend, LINE, MARKS, **options)
    assert got["mean"][:3].flatten().tolist() == [4.5, 5, 2]
    assert set(run(backend, LINE, **options)) == {"coords", "counts", "num_voxels", "inverse"}


@public_backend
def test_the_named_tuple(backend: VoxelBackend) -> None:
    points, features = torch.tensor(LINE), torch.tensor(MARKS)
    options = {"grid_size": 3, "max_voxels": 4, "backend": backend.name, **UNIT}
    got = robocache.voxelize_point_cloud_sparse(backend.put(points), backend.put(features), reduce="max", **options)
    assert isinstance(got, robocache.SparseVoxels)
    assert got._fields == ("coords", "features", "counts", "num_voxels", "inverse")
    assert isinstance(got.features, torch.Tensor) and got.num_voxels.shape == ()
    several = robocache.voxelize_point_cloud_sparse(
        backend.put(points), backend.put(features), reduce=("max", "sum"), **options
    )
    assert list(several.features) == ["max", "sum"]
    assert robocache.voxelize_point_cloud_sparse(backend.put(points), **options).features is None


# ---- Hard voxels ----------------------------------------------------------------------------------------------------


@every_backend
def test_the_first_points_of_each_voxel(backend: VoxelBackend) -> None:
    features = torch.arange(12, dtype=torch.float32).reshape(6, 2)
    options = {"grid_size": 3, "max_voxels": 4, "max_points": 1, "order": "first_appearance", **UNIT}
    got = run(backend, LINE, features, **options)
    assert got["gathered"].tolist() == [[[0, 1]], [[2, 3]], [[8, 9]], [[0, 0]]]
    assert got["counts"].tolist() == [1, 1, 1, 0]
    got = run(backend, LINE, features, **{**options, "max_points": 3})
    assert got["gathered"][1].tolist() == [[2, 3], [10, 11], [0, 0]] and got["counts"].tolist() == [2, 2, 1, 0]
    assert got["inverse"].tolist() == [0, 1, 0, -1, 2, 1]


@every_backend
def test_points_themselves_are_gathered(backend: VoxelBackend) -> None:
    options = {"grid_size": 3, "max_voxels": 2, "max_points": 2, **UNIT}
    got = run(backend, LINE, **options)
    assert got["gathered"].tolist() == [[LINE[1], LINE[5]], [LINE[4], [0, 0, 0]]]
    assert got["num_voxels"].item() == 3


@every_backend
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float64], ids=str)
def test_gathered_keeps_the_dtype(backend: VoxelBackend, dtype: torch.dtype) -> None:
    features = torch.tensor(MARKS).to(dtype)
    got = run(backend, LINE, features, grid_size=3, max_voxels=3, max_points=2, **UNIT)
    assert got["gathered"].dtype == dtype and got["gathered"][0].flatten().tolist() == [2, 7]


def test_the_c_api_counts_all_points_of_a_hard_voxel() -> None:
    options = {"grid_size": 3, "max_voxels": 4, "max_points": 1, **UNIT}
    assert voxel_capi.voxelize_sparse(torch.tensor(LINE), **options)["counts"].tolist() == [2, 1, 2, 0]


@c_backend
def test_slots_point_back(backend: VoxelBackend) -> None:
    generator = torch.Generator().manual_seed(2)
    points, features = torch.rand(3, 90, 3, generator=generator) * 3, torch.randn(3, 90, 4, generator=generator)
    got = run(backend, points, features, grid_size=3, max_voxels=20, max_points=4, **UNIT)
    for b in range(3):
        flat = got["gathered"][b].reshape(80, 4)
        for n, slot in enumerate(got["slots"][b].tolist()):
            if slot >= 0:
                assert_same_bits(flat[slot], features[b, n])
                assert slot // 4 == got["inverse"][b, n].item()
        used = got["slots"][b][got["slots"][b] >= 0]
        assert len(used) == len(used.unique()) == int(got["counts"][b].clamp(max=4).sum())


# ---- Guard bands: the C door checks them on every call --------------------------------------------------------------


@c_backend
@pytest.mark.parametrize("order", ["sorted", "first_appearance"])
@pytest.mark.parametrize("cap", [0, 1, 7, 63, 64, 65])
@pytest.mark.parametrize("per_voxel", [0, 1, 3])
def test_nothing_is_written_past_a_cap(backend: VoxelBackend, cap: int, per_voxel: int, order: str) -> None:
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(3, 700, 3, generator=generator) * 4
    features = torch.randn(3, 700, 5, generator=generator)
    options = {"grid_size": 4, "max_voxels": cap, "max_points": per_voxel, "order": order, **UNIT}
    options["reduce"] = ("sum", "max", "argmax", "min", "argmin", "mean")
    got = agrees_with_oracle(backend, Call("sparse", (points, features), options))
    assert got["num_voxels"].tolist() == [64, 64, 64]


# ---- Large grids ----------------------------------------------------------------------------------------------------


@every_backend
def test_a_grid_of_2_to_60_cells(backend: VoxelBackend) -> None:
    """Ids of 60 bits: neighbours that differ in one bit of one axis stay apart and in order."""
    top = 2**20 - 1
    cells = [[0, 0, 0], [0, 0, top], [0, top, 0], [top, 0, 0], [top, top, top], [top, top, top - 1], [2**19, 0, 0]]
    cells += [[0, 2**11, 0], [0, 2**12, 0], [0, 0, 2**15], [2**12, 2**3, 1]]
    points = torch.tensor(cells, dtype=torch.float64) + 0.5
    options = {"grid_size": 2**20, "max_voxels": 16, **UNIT}
    for dtype in (torch.float32, torch.float64):
        got = agrees_with_oracle(backend, Call("sparse", (points.to(dtype), None), options))
        assert got["coords"][: len(cells)].tolist() == sorted(cells)
        assert got["num_voxels"].item() == len(cells) and got["inverse"].tolist() == [
            sorted(cells).index(cell) for cell in cells
        ]


@every_backend
def test_a_batch_of_large_grids(backend: VoxelBackend) -> None:
    generator = torch.Generator().manual_seed(4)
    points = torch.rand(3, 400, 3, generator=generator) * 2**20
    options = {"grid_size": 2**20, "max_voxels": 300, "order": "first_appearance", **UNIT}
    agrees_with_oracle(backend, Call("sparse", (points, torch.randn(3, 400, 2, generator=generator)), options))


# ---- torch.unique's answers -----------------------------------------------------------------------------------------


@every_backend
def test_equal_to_unique(backend: VoxelBackend) -> None:
    generator = torch.Generator().manual_seed(5)
    points = (torch.randn(20_000, 3, generator=generator) * 3).clamp(-7.9, 7.9)
    features = torch.randint(-50, 50, (20_000, 3), generator=generator).float()  # sums are exact in any order
    voxel, low, size = 0.5, -8.0, 32
    options = {"voxel_size": voxel, "grid_min": low, "grid_size": size, "max_voxels": 20_000}
    got = run(backend, points, features, reduce=("sum", "max", "mean"), **options)
    coords = ((points - low) / voxel).floor().int()
    unique, inverse, counts = coords.unique(dim=0, return_inverse=True, return_counts=True)
    count = len(unique)
    assert got["num_voxels"].item() == count > 1000
    assert torch.equal(got["coords"][:count], unique) and torch.equal(got["inverse"], inverse)
    assert torch.equal(got["counts"][:count].long(), counts)
    assert bool((got["coords"][count:] == -1).all()) and not bool(got["counts"][count:].any())
    sums = torch.zeros(count, 3).index_add_(0, inverse, features)
    assert torch.equal(got["sum"][:count], sums)
    assert_same_bits(got["mean"][:count], sums / counts[:, None].float())
    tops = torch.full((count, 3), -torch.inf).scatter_reduce_(0, inverse[:, None].expand(-1, 3), features, "amax")
    assert torch.equal(got["max"][:count], tops)


@native_backend
def test_sparse_is_the_dense_grids_rows(backend: VoxelBackend) -> None:
    generator = torch.Generator().manual_seed(6)
    points, features = torch.rand(2, 4000, 3, generator=generator) * 6, torch.randn(2, 4000, 9, generator=generator)
    names = ("mean", "max", "sum", "min")
    frame = {"grid_size": (6, 5, 4), "reduce": names, "bounds": "clamp", **UNIT}
    rows = run(backend, points, features, max_voxels=120, **frame)
    grids = backend.run(Call("dense", (points, features), {**frame, "return_counts": True}))
    for b in range(2):
        count = int(rows["num_voxels"][b])
        x, y, z = rows["coords"][b, :count].long().unbind(1)
        for name in (*names, "counts"):
            assert_same_bits(rows[name][b, :count], grids[name][b, x, y, z], name)
        assert count == int((grids["counts"][b] > 0).sum())


# ---- Empty ----------------------------------------------------------------------------------------------------------


@every_backend
@pytest.mark.parametrize("per_voxel", [0, 2])
def test_empty_clouds(backend: VoxelBackend, per_voxel: int) -> None:
    options = {"grid_size": 3, "max_voxels": 2, "max_points": per_voxel or None, **UNIT}
    for shape in ((0, 3), (2, 0, 3), (0, 4, 3)):
        got = agrees_with_oracle(backend, Call("sparse", (torch.zeros(shape), torch.zeros(*shape[:-1], 4)), options))
        assert not bool(got["num_voxels"].any()) and bool((got["coords"] == -1).all())
    splits = torch.zeros(3, dtype=torch.int64)
    agrees_with_oracle(backend, Call("sparse", (torch.zeros(0, 3), None), {**options, "row_splits": splits}))


@public_backend
def test_arguments_that_do_not_go_together(backend: VoxelBackend) -> None:
    points, features = backend.put(torch.tensor(LINE)), backend.put(torch.tensor(MARKS))
    options = {"grid_size": 3, "backend": backend.name, **UNIT}
    with pytest.raises(ValueError, match="max_voxels"):
        robocache.voxelize_point_cloud_sparse(points, features, max_voxels=-1, **options)
    with pytest.raises(ValueError, match="reduce"):
        robocache.voxelize_point_cloud_sparse(points, features, max_voxels=4, max_points=2, reduce="mean", **options)
    with pytest.raises(ValueError, match="order"):
        robocache.voxelize_point_cloud_sparse(points, features, max_voxels=4, order="random", **options)
    with pytest.raises(ValueError, match="max_points"):
        robocache.voxelize_point_cloud_sparse(points, features, max_voxels=4, max_points=-2, **options)
    with pytest.raises((ValueError, TypeError), match="features"):
        robocache.voxelize_point_cloud_sparse(points, reduce="mean", max_voxels=4, **options)
