"""Beyond 2^31: points and features by stride, grids by cells, batches by both; and errors where memory has an end.

On the host the tensors reserve address space and touch only the pages that are read, so memory stays small; on the GPU
they are real.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import pytest
import torch

import robocache

from . import voxel_capi
from .backends import assert_same_bits
from .capi import CApiError
from .voxel_backends import C_API, CPU, CUDA, TORCH, Call, every_backend

FAR = 2**31
UNIT: dict[str, Any] = {"voxel_size": 1.0, "grid_min": 0.0}

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def peak_mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.fixture
def space() -> Callable[..., torch.Tensor]:
    """Makes tensors of address space; the test fails when their pages were touched after all."""
    before = peak_mebibytes()

    def make(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype)

    yield make
    assert peak_mebibytes() - before < 1024


def test_strides_past_2_31(space: Callable[..., torch.Tensor]) -> None:
    """Two samples, and the points of each, further apart than int32 counts."""
    raw = space(3 * FAR, dtype=torch.uint8)
    features = torch.as_strided(raw, (2, 4, 3), (FAR + 11, FAR // 3, 1))
    marks = torch.randint(0, 256, (2, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    features.copy_(marks)
    points = torch.tensor([[0.5, 0.5, 0.5], [1.5, 0.5, 0.5], [0.5, 0.5, 0.5], [1.5, 1.5, 1.5]]).repeat(2, 1, 1)
    options = {"grid_size": 2, "reduce": ("sum", "max"), **UNIT}
    want = CPU.run(Call("dense", (points, marks), options))
    for backend in (CPU, C_API):
        got = backend.run(Call("dense", (points, features), options))
        for name in got:
            assert_same_bits(got[name], want[name], name)
    rows = {**options, "max_voxels": 4}
    want = CPU.run(Call("sparse", (points, marks), rows))
    for name, got in CPU.run(Call("sparse", (points, features), rows)).items():
        assert_same_bits(got, want[name], name)


def test_packed_points_past_2_31(space: Callable[..., torch.Tensor]) -> None:
    """Eight points over more than 2^31 numbers."""
    points = torch.as_strided(space(FAR + 4096, dtype=torch.float16), (8, 3), (FAR // 7, 5))
    points.copy_(torch.tensor([[9.0] * 3, [0.5] * 3, [1.5] * 3, [0.5, 1.5, 0.5], [1.5, 0.5, 0.5], *[[0.5] * 3] * 3]))
    points[7] = torch.tensor([1.5, 0.5, 0.5])
    splits = torch.tensor([4, 5, 5, 8])
    options = {"grid_size": 2, "reduce": "count", "row_splits": splits, **UNIT}
    for backend in (CPU, C_API):
        got = backend.run(Call("dense", (points, None), options))["count"].flatten(1).tolist()
        assert got == [[0, 0, 0, 0, 1, 0, 0, 0], [0] * 8, [2, 0, 0, 0, 1, 0, 0, 0]]


def test_a_grid_of_more_than_2_31_cells_in_bits(space: Callable[..., torch.Tensor]) -> None:
    """2^32 cells in half a gigabyte, of which a few are looked at."""
    size = (2**11, 2**11, 2**10)
    points = torch.tensor([[2047.5, 2047.5, 1023.5], [0.5, 0.5, 0.5], [1024.5, 7.5, 9.5]])
    got = CPU.run(
        Call("dense", (points, None), {"grid_size": size, "out_dtype": "bits", "return_inverse": True, **UNIT})
    )
    assert got["inverse"].tolist() == [2**32 - 1, 0, (1024 * 2**11 + 7) * 2**10 + 9]
    bits = got["occupancy"]
    assert bits.numel() == 2**29
    assert (bits[2047, 2047, 127], bits[0, 0, 0], bits[1024, 7, 1]) == (128, 1, 2)
    assert int(bits.view(torch.int64).count_nonzero()) == 3


def test_samples_times_cells_past_2_31(space: Callable[..., torch.Tensor]) -> None:
    """Each grid is small, all of them together are not."""
    batch, size = 2**14, (64, 64, 64)
    points = torch.full((batch, 1, 3), 63.5)
    points[-1] = torch.tensor([1.5, 2.5, 3.5])
    got = CPU.run(
        Call("dense", (points, None), {"grid_size": size, "out_dtype": "bits", "return_inverse": True, **UNIT})
    )
    bits = got["occupancy"]
    assert batch * 64**3 > FAR and bits.shape == (batch, 64, 64, 8)
    assert bits[-1].nonzero().tolist() == [[1, 2, 0]] and bits[-1, 1, 2, 0].item() == 8
    assert bits[-2].nonzero().tolist() == [[63, 63, 7]] and bits[-2, 63, 63, 7].item() == 128
    assert got["inverse"][-1].item() == (1 * 64 + 2) * 64 + 3


@every_backend
def test_sparse_ids_past_2_31(backend: Any) -> None:
    """Three samples of 2^60 cells each, close to the 2^62 that a call may have: every id is int64."""
    size = 2**20
    generator = torch.Generator().manual_seed(2)
    cells = torch.randint(0, size, (3, 60, 3), generator=generator)
    points = cells.double() + 0.5
    got = backend.run(Call("sparse", (points, None), {"grid_size": size, "max_voxels": 64, **UNIT}))
    for b in range(3):
        want = cells[b].unique(dim=0)
        assert torch.equal(got["coords"][b, : len(want)].long(), want) and got["num_voxels"][b].item() == len(want)


def test_dense_grids_past_memory_are_errors() -> None:
    """And so are those that int64 cannot count."""
    one = torch.zeros(1, 3)
    for size in ((2**20, 2**20, 2**20), (2**24, 2**24, 2**24), (2**21, 2**21, 2**20)):
        for backend in (CPU, TORCH):
            with pytest.raises(ValueError, match="grid_size"):
                backend.run(Call("dense", (one, None), {"grid_size": size, **UNIT}))
    with pytest.raises(CApiError, match="size") as caught:  # X * Y * Z * B reaches 2^62
        voxel_capi.voxelize_sparse(one, grid_size=(2**21, 2**21, 2**20), max_voxels=1, **UNIT)
    assert caught.value.status == 1  # RC_INVALID_ARGUMENT
    with pytest.raises(CApiError, match="size"):
        voxel_capi.voxelize_sparse(torch.zeros(4, 1, 3), grid_size=2**20, max_voxels=1, **UNIT)


def test_devoxelize_reads_past_2_31(space: Callable[..., torch.Tensor]) -> None:
    grid = space(2**11, 2**10, 2**10, 1, dtype=torch.uint8)
    assert grid.numel() == FAR
    grid[-1, -1, -1], grid[0, 0, 0] = 200, 7
    points = torch.tensor([[2047.5, 1023.5, 1023.5], [0.5, 0.5, 0.5]])
    for backend in (CPU, C_API, TORCH):
        got = backend.run(Call("devoxelize", (grid, points), {"mode": "nearest", **UNIT}))["out"]
        assert got.flatten().tolist() == [200, 7]
    halves = space(2**11, 2**10, 2**10 + 3, 1, dtype=torch.float16)
    halves[-2:, -2:, -2:], halves[:2, :2, :2] = 3.0, 1.5
    points = torch.tensor([[2047.25, 1023.25, 1026.25], [0.75, 0.75, 0.75]])
    for backend in (CPU, C_API):
        got = backend.run(Call("devoxelize", (halves, points), dict(UNIT)))["out"]
        assert got.flatten().tolist() == [3.0, 1.5]


# ---- On the GPU ----------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_gpu_cells_past_2_31() -> None:
    """2^32 + 2^22 bytes of occupancy and as many counts of one byte, dense."""
    size = (2**11, 2**11 + 2, 2**10)
    generator = torch.Generator().manual_seed(3)
    points = (torch.rand(200_000, 3, generator=generator) * torch.tensor(size)).cuda()
    points[0] = torch.tensor(size) - 0.5
    grids, inverse = robocache.voxelize_point_cloud(
        points,
        grid_size=size,
        reduce=("occupancy", "count"),
        out_dtype={"occupancy": torch.uint8, "count": torch.uint8},
        return_inverse=True,
        backend="cuda",
        **UNIT,
    )
    robocache.check()
    cells, counts = inverse[inverse >= 0].unique(return_counts=True)
    assert int(cells.max()) == size[0] * size[1] * size[2] - 1 > 2 * FAR
    assert torch.equal(grids["count"].view(-1)[cells].long(), counts.clamp(max=255))
    assert int(grids["count"].view(torch.int64).count_nonzero()) <= len(cells)
    assert int(grids["occupancy"].view(-1).sum(dtype=torch.int64)) == len(cells)


@pytest.mark.gpu
def test_gpu_samples_times_cells_past_2_31() -> None:
    generator = torch.Generator().manual_seed(4)
    points = torch.rand(2100, 64, 3, generator=generator) * 101
    features = torch.randn(2100, 64, 1, generator=generator)
    given = {"grid_size": (100, 101, 102), "reduce": "max", "out_dtype": torch.float16, "empty_value": -9, **UNIT}
    got = robocache.voxelize_point_cloud(points.cuda(), features.cuda(), backend="cuda", **given)
    robocache.check()
    assert got.numel() > FAR
    for b in (0, 1, 1999, 2099):
        want = CPU.run(Call("dense", (points[b], features[b]), given))["max"]
        assert_same_bits(got[b], want, str(b))


@pytest.mark.gpu
def test_gpu_a_hundred_million_points() -> None:
    generator = torch.Generator(device="cuda").manual_seed(5)
    points = torch.rand(100_000_000, 3, generator=generator, device="cuda")
    frame = {"voxel_size": 1 / 64, "grid_min": 0.0, "grid_size": 64, "backend": "cuda"}
    count = robocache.voxelize_point_cloud(points, reduce="count", **frame)
    assert int(count.sum(dtype=torch.int64)) == 100_000_000
    x, y, z = (points * 64).long().unbind(1)
    want = torch.bincount((x * 64 + y) * 64 + z, minlength=64**3)
    assert torch.equal(count.flatten().long(), want)


@pytest.mark.gpu
def test_gpu_features_past_2_31() -> None:
    """Two thousand million bytes of features: the sort carries ids, the gather reads them all."""
    count, columns = 34_000_000, 64
    features = torch.randint(0, 256, (count, columns), dtype=torch.uint8, device="cuda")
    assert features.numel() > FAR
    cell = torch.arange(count, device="cuda") % 50
    points = torch.stack([cell, torch.zeros_like(cell), torch.zeros_like(cell)], dim=1) + 0.5
    options = {"grid_size": (50, 1, 1), "reduce": "max", "backend": "cuda", **UNIT}
    got = robocache.voxelize_point_cloud(points, features[:, :], **options)
    want = features.view(-1, 50, columns).amax(0)
    assert torch.equal(got.reshape(50, columns), want.float())


@pytest.mark.gpu
def test_gpu_a_grid_that_cannot_fit() -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    size = int(total ** (1 / 3)) + 100
    before = torch.cuda.memory_allocated()
    with pytest.raises(ValueError, match=r"grid_size.*bytes"):
        robocache.voxelize_point_cloud(torch.zeros(1, 3, device="cuda"), grid_size=size, backend="cuda", **UNIT)
    assert torch.cuda.memory_allocated() - before < 4096
    assert CUDA.run(Call("dense", (torch.zeros(1, 3), None), {"grid_size": 2, **UNIT}))["occupancy"].sum() == 1
