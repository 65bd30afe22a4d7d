"""Numbers from elsewhere: NumPy histograms, torch index_add_ and scatter_reduce_; corners from data; errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import robocache

from . import voxel_oracle
from .backends import assert_same_bits, assert_within_ulps
from .strategies import examples
from .voxel_backends import CPU, TORCH, Call, VoxelBackend, every_backend, native_backend, public_backend
from .voxel_strategies import POINT_DTYPES, cloud_of


def cloud(seed: int, count: int = 30_000, columns: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, 3, generator=generator) * torch.tensor([1.0, 2.0, 0.5])
    return points, torch.randn(count, columns, generator=generator)


FRAME: dict[str, Any] = {"voxel_size": 0.25, "grid_min": (-2.0, -4.0, -1.0), "grid_size": (16, 32, 8)}


def cells_of(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and which points count, in exact powers of two."""
    at = ((points - torch.tensor(FRAME["grid_min"])) / FRAME["voxel_size"]).floor().long()
    inside = ((at >= 0) & (at < torch.tensor(FRAME["grid_size"]))).all(1)
    x, y, z = at.unbind(1)
    return (x * 32 + y) * 8 + z, inside


@every_backend
def test_counts_are_numpys_histogram(backend: VoxelBackend) -> None:
    points, _ = cloud(1)
    got = backend.run(Call("dense", (points, None), {**FRAME, "reduce": "count", "return_dropped": True}))
    edges = [np.arange(n + 1) * 0.25 + low for n, low in zip(FRAME["grid_size"], FRAME["grid_min"], strict=True)]
    want, _ = np.histogramdd(points.double().numpy(), bins=edges)
    np.testing.assert_array_equal(got["count"].numpy(), want)
    assert got["dropped"].item() == len(points) - int(want.sum()) > 0


@every_backend
def test_sums_are_those_of_index_add(backend: VoxelBackend) -> None:
    points, features = cloud(2)
    cell, inside = cells_of(points)
    got = backend.run(Call("dense", (points, features), {**FRAME, "reduce": ("sum", "mean", "count")}))
    sums = torch.zeros(4096, 6, dtype=torch.float64).index_add_(0, cell[inside], features[inside].double())
    torch.testing.assert_close(got["sum"].reshape(4096, 6).double(), sums, rtol=1e-5, atol=1e-4)
    count = torch.zeros(4096).index_add_(0, cell[inside], torch.ones(int(inside.sum())))
    assert_same_bits(got["count"].flatten().float(), count)
    means = torch.where(count[:, None] > 0, got["sum"].reshape(4096, 6) / count[:, None], 0.0)
    assert_same_bits(got["mean"].reshape(4096, 6), means)


@every_backend
def test_extremes_are_those_of_scatter_reduce(backend: VoxelBackend) -> None:
    points, features = cloud(3)
    features -= 3  # mostly negative
    cell, inside = cells_of(points)
    got = backend.run(Call("dense", (points, features), {**FRAME, "reduce": ("max", "min"), "empty_value": 77}))
    index = cell[inside][:, None].expand(-1, 6)
    for name, how in (("max", "amax"), ("min", "amin")):
        want = torch.full((4096, 6), 77.0).scatter_reduce_(0, index, features[inside], how, include_self=False)
        assert_same_bits(got[name].reshape(4096, 6), want, name)
    assert bool((got["max"] < 0).any())


@every_backend
def test_whole_numbers_sum_exactly_and_thirds_to_the_last_place(backend: VoxelBackend) -> None:
    points, _ = cloud(4)
    whole = torch.randint(-1000, 1000, (len(points), 3), generator=torch.Generator().manual_seed(5)).float()
    cell, inside = cells_of(points)
    got = backend.run(Call("dense", (points, whole), {**FRAME, "reduce": ("sum", "mean")}))
    sums = torch.zeros(4096, 3).index_add_(0, cell[inside], whole[inside])
    assert_same_bits(got["sum"].reshape(4096, 3), sums)
    count = torch.bincount(cell[inside], minlength=4096).clamp(min=1)[:, None]
    assert_within_ulps(got["mean"].reshape(4096, 3), (sums.double() / count).float(), 0)


# ---- Corners from the data ------------------------------------------------------------------------------------------


@public_backend
def test_auto_corner_by_hand(backend: VoxelBackend) -> None:
    points = torch.tensor([[1.3, -0.2, 5.0], [2.0, 0.7, 4.0], [torch.nan, -9.0, -9.0], [-3.0, torch.inf, -9.0]])
    got = robocache.auto_grid_min(backend.put(points), 0.5)
    assert got.tolist() == [1.0, -0.5, 4.0] and got.device.type == backend.device
    masked = robocache.auto_grid_min(
        backend.put(points), 0.5, mask=backend.put(torch.tensor([True, False, True, True]))
    )
    assert masked.tolist() == [1.0, -0.5, 5.0]
    options = {"voxel_size": 0.5, "grid_size": (3, 3, 3), "return_inverse": True}
    grid = backend.run(Call("dense", (points, None), {**options, "grid_min": "auto"}))
    named = backend.run(Call("dense", (points, None), {**options, "grid_min": (1.0, -0.5, 4.0)}))
    for name in grid:
        assert_same_bits(grid[name], named[name], name)
    assert grid["inverse"].tolist() == [2, (2 * 3 + 2) * 3, -1, -1]


@public_backend
@examples(60)
@given(data=st.data())
def test_auto_corner(backend: VoxelBackend, data: st.DataObject) -> None:
    """Of any cloud in which every sample has a point."""
    points, _, options, _ = cloud_of(data.draw, POINT_DTYPES)
    given = {name: options[name] for name in ("row_splits", "mask", "pose") if name in options}
    try:
        want = voxel_oracle.auto_grid_min(points, options["voxel_size"], **given)
    except ValueError:  # a sample without a point has no lowest one
        return
    moved = {name: backend.put(value) for name, value in given.items()}
    got = robocache.auto_grid_min(backend.put(points), backend.put(options["voxel_size"]), **moved)
    assert_same_bits(got, want)


@public_backend
def test_auto_corner_of_nothing_is_finite(backend: VoxelBackend) -> None:
    """Samples without points get a grid like any other."""
    points = torch.full((2, 3, 3), 4.25)
    points[1] = torch.nan
    options = {"voxel_size": 0.5, "grid_size": 2, "grid_min": "auto", "reduce": "count"}
    got = backend.run(Call("dense", (points, None), options))
    assert got["count"].flatten(1).sum(1).tolist() == [3, 0]
    assert bool(robocache.auto_grid_min(backend.put(points), 0.5).isfinite().all())
    assert not bool(backend.run(Call("dense", (torch.zeros(0, 3), None), options))["count"].any())


# ---- Conveniences ---------------------------------------------------------------------------------------------------


@public_backend
def test_forms_of_frames_say_the_same(backend: VoxelBackend) -> None:
    points, _ = cloud(6, 500)
    want = None
    for voxel in (0.25, (0.25, 0.25, 0.25), [0.25] * 3, torch.tensor([0.25] * 3), torch.tensor(0.25)):
        for low in (-2, (-2.0, -2, -2), torch.tensor([-2.0, -2.0, -2.0])):
            for size in (16, (16, 16, 16), [16] * 3, torch.Size((16, 16, 16))):
                frame = {"voxel_size": voxel, "grid_min": low, "grid_size": size}
                got = backend.run(Call("dense", (points, None), frame))["occupancy"]
                want = got if want is None else want
                assert_same_bits(got, want)


@public_backend
def test_names_of_reductions_give_tensors_and_dicts(backend: VoxelBackend) -> None:
    points, features = (backend.put(t) for t in cloud(7, 100))
    options = {"voxel_size": 1.0, "grid_min": -2.0, "grid_size": 4, "backend": backend.name}
    assert isinstance(robocache.voxelize_point_cloud(points, **options), torch.Tensor)
    assert isinstance(robocache.voxelize_point_cloud(points, features, reduce="max", **options), torch.Tensor)
    for names in (["sum"], ("sum",), ("count", "mean"), ["mean", "count"]):
        got = robocache.voxelize_point_cloud(points, features, reduce=names, **options)
        assert isinstance(got, dict) and list(got) == list(names)
    grid, counts, inverse, dropped = robocache.voxelize_point_cloud(
        points, return_counts=True, return_inverse=True, return_dropped=True, **options
    )
    assert grid.dtype == torch.bool and counts.dtype == torch.int32 and inverse.shape == (100,)
    assert int(dropped) == int((inverse < 0).sum()) and int(counts.sum()) == 100 - int(dropped)


@native_backend
def test_auto_is_the_kernel(backend: VoxelBackend) -> None:
    points, features = (backend.put(t) for t in cloud(8, 1000))
    options = {"reduce": "mean", **FRAME}
    before = robocache.launch_counts()
    got = robocache.voxelize_point_cloud(points, features, **options)
    after = robocache.launch_counts()
    assert after[f"voxelize_{backend.name}"] == before[f"voxelize_{backend.name}"] + 1
    assert_same_bits(got, TORCH.run(Call("dense", (points.cpu(), features.cpu()), options))["mean"])


@pytest.mark.parametrize("backend", [CPU, TORCH], ids=["cpu", "torch"])
@pytest.mark.parametrize(
    ("given", "options", "name"),
    [
        ((torch.zeros(4, 2),), {}, "points"),
        ((torch.zeros(4, 3).long(),), {}, "points"),
        ((torch.zeros(2, 2, 4, 3),), {}, "points"),
        ((torch.zeros(4, 3), torch.zeros(5, 2)), {"reduce": "sum"}, "features"),
        ((torch.zeros(4, 3), torch.zeros(4)), {"reduce": "sum"}, "features"),
        ((torch.zeros(4, 3), torch.zeros(4, 2).int()), {"reduce": "sum"}, "features"),
        ((torch.zeros(4, 3),), {"reduce": "mean"}, "features"),
        ((torch.zeros(4, 3),), {"reduce": "median"}, "reduce"),
        ((torch.zeros(4, 3),), {"reduce": ("count", "count")}, "reduce"),
        ((torch.zeros(4, 3),), {"reduce": ()}, "reduce"),
        ((torch.zeros(4, 3),), {"voxel_size": (1.0, 1.0)}, "voxel_size"),
        ((torch.zeros(4, 3),), {"voxel_size": torch.ones(2, 3)}, "voxel_size"),
        ((torch.zeros(4, 3),), {"grid_min": "lowest"}, "grid_min"),
        ((torch.zeros(4, 3),), {"grid_min": torch.zeros(3, 3)}, "grid_min"),
        ((torch.zeros(4, 3),), {"grid_size": (4, 4)}, "grid_size"),
        ((torch.zeros(4, 3),), {"grid_size": 4.5}, "grid_size"),
        ((torch.zeros(4, 3),), {"bounds": "wrap"}, "bounds"),
        ((torch.zeros(4, 3),), {"layout": "sideways"}, "layout"),
        ((torch.zeros(4, 3),), {"out_dtype": torch.complex64}, "out_dtype"),
        ((torch.zeros(4, 3),), {"reduce": "count", "out_dtype": "bits"}, "out_dtype"),
        ((torch.zeros(4, 3), torch.zeros(4, 1)), {"reduce": "sum", "out_dtype": torch.int32}, "out_dtype"),
        ((torch.zeros(4, 3),), {"mask": torch.ones(3, dtype=torch.bool)}, "mask"),
        ((torch.zeros(4, 3),), {"mask": torch.ones(4)}, "mask"),
        ((torch.zeros(4, 3),), {"pose": torch.eye(3)}, "pose"),
        ((torch.zeros(2, 4, 3),), {"pose": torch.eye(4).repeat(3, 1, 1)}, "pose"),
        ((torch.zeros(2, 4, 3),), {"row_splits": torch.tensor([0, 4])}, "row_splits|points"),
        ((torch.zeros(4, 3),), {"row_splits": torch.tensor([0.0, 4.0])}, "row_splits"),
        ((torch.zeros(4, 3),), {"backend": "gpu"}, "backend"),
        ((torch.zeros(4, 3), torch.zeros(4, 1)), {"reduce": "sum", "out": torch.zeros(4, 4, 4, 1)}, "out"),
        ((torch.zeros(4, 3),), {"out": torch.zeros(4, 4, 3, dtype=torch.bool)}, "out"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_wrong_arguments_are_named(backend: VoxelBackend, given: Any, options: dict[str, Any], name: str) -> None:
    frame = {"voxel_size": 1.0, "grid_min": 0.0, "grid_size": 4, "backend": backend.name}
    with pytest.raises((ValueError, TypeError), match=name):
        robocache.voxelize_point_cloud(*given, **{**frame, **options})
