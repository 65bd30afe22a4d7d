"""Each way that a dense CUDA call can take to its grid: sizes from one cell to 600^3, crowds, millions in one cell."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import robocache
from benchmarks.voxel_cases import VoxelCase
from benchmarks.voxel_inputs import build

from .test_voxel_gpu import FEATURED, FRAME
from .voxel_backends import CPU, CUDA, CUDA_WAYS, Call, compare

pytestmark = pytest.mark.gpu

UNIT: dict[str, Any] = {"voxel_size": 1.0, "grid_min": 0.0}

SWEEP: list[tuple[int, int, Any, Any, Any]] = [
    (1, 0, 8, "occupancy", None),
    (1, 1, 1, "count", torch.uint8),
    (1, 100, (1, 1, 1), "occupancy", "bits"),
    (64, 500, 16, "occupancy", torch.uint8),
    (64, 500, 16, "count", None),
    (300, 300, (7, 9, 11), "occupancy", torch.float32),
    (256, 2000, 64, "occupancy", torch.uint8),
    (16, 20_000, 100, "occupancy", None),
    (16, 20_000, 100, ("occupancy", "count"), None),
    (1, 500_000, 128, "occupancy", torch.uint8),
    (1, 500_000, 128, "count", torch.int32),
    (1, 500_000, 128, "count", torch.uint8),
    (1, 3_000_000, 256, "count", torch.float16),
    (1, 3_000_000, 256, ("count", "occupancy"), {"occupancy": "bits", "count": torch.int64}),
    (2, 1_000_000, (400, 30, 500), "occupancy", "bits"),
    (3, 200_000, (3, 2000, 5), "count", torch.int16),
    (1, 20_000_000, 256, "count", torch.int32),
    (1, 20_000_000, 128, "occupancy", torch.uint8),
    (1, 20_000_000, 4, "count", torch.uint8),
    (1, 100_000, 600, "count", None),
    (4, 30_000, 20, "mean", None),
    (4, 30_000, (20, 1, 33), ("max", "count"), None),
    (1, 300_000, 200, ("mean", "occupancy", "min"), {"occupancy": "bits"}),
]


@pytest.mark.parametrize(("batch", "count", "size", "reduce", "out_dtype"), SWEEP, ids=str)
def test_every_size_is_right(batch: int, count: int, size: Any, reduce: Any, out_dtype: Any) -> None:
    """Uniform points a little past the grid; whichever way the launch plan takes, the CPU kernel's bits."""
    generator = torch.Generator().manual_seed(count + batch)
    extent = torch.tensor((size,) * 3 if isinstance(size, int) else size)
    points = torch.rand(batch, count, 3, generator=generator) * (extent + 2) - 1
    names = (reduce,) if isinstance(reduce, str) else reduce
    featured = any(name not in ("occupancy", "count") for name in names)
    features = torch.randn(batch, count, 3, generator=generator) if featured else None
    options = {"voxel_size": 1.0, "grid_min": 0.0, "grid_size": size, "reduce": reduce, "out_dtype": out_dtype}
    for extras in ({}, {"return_dropped": True, "return_inverse": True}):
        call = Call("dense", (points, features), {**options, **extras})
        compare(CUDA.run(call), CPU.run(call))  # run() checks that the four ways sum up to the calls


def test_every_way_is_taken() -> None:
    """The sizes above leave none of the four ways out."""
    taken: set[str] = set()
    for batch, count, size, reduce, out_dtype in SWEEP:
        extent = torch.tensor((size,) * 3 if isinstance(size, int) else size, device="cuda")
        points = torch.rand(batch, count, 3, device="cuda") * extent
        before = robocache.launch_counts()
        options = {"grid_size": size, "reduce": reduce, "out_dtype": out_dtype, "backend": "cuda", **UNIT}
        robocache.voxelize_point_cloud(points, points, **options)
        after = robocache.launch_counts()
        rose = {way for way in CUDA_WAYS if after[f"voxelize_{way}_cuda"] > before[f"voxelize_{way}_cuda"]}
        assert len(rose) == 1 and after["voxelize_cuda"] == before["voxelize_cuda"] + 1
        taken |= rose
    assert taken == set(CUDA_WAYS)


@pytest.mark.sanitize
@pytest.mark.parametrize("reduce", ["occupancy", "count", "mean", ("max", "count")], ids=str)
@pytest.mark.parametrize(("batch", "size"), [(1, 3), (40, 8), (2, (130, 3, 140)), (1, 190)], ids=str)
def test_crowds(batch: int, size: Any, reduce: Any) -> None:
    """All points in one cell, in two, on one line."""
    names = (reduce,) if isinstance(reduce, str) else reduce
    generator = torch.Generator().manual_seed(1)
    for spread in ((0.5, 0.5, 0.5), (0.5, 0.5, 2.0), (3.0, 0.5, 0.5)):
        points = torch.rand(batch, 1500, 3, generator=generator) * torch.tensor(spread)
        features = None if set(names) <= {"occupancy", "count"} else torch.randn(batch, 1500, 2, generator=generator)
        call = Call(
            "dense",
            (points, features),
            {"voxel_size": 1.0, "grid_min": 0.0, "grid_size": size, "reduce": reduce, "return_counts": True},
        )
        compare(CUDA.run(call), CPU.run(call))


# Shapes that take each way: one cloud by slabs, in small chunks and in large ones; by atomics, of few points and where
# most bits are set already; samples that a cluster shares, of two blocks and of four, also with rows of bits that end
# within a byte; a sample a block.
SKEWED: list[tuple[int, int, Any, Any, Any]] = [
    (1, 300_000, 128, "occupancy", torch.uint8),
    (1, 3_000_000, 256, "occupancy", "bits"),
    (1, 3_000_000, (200, 130, 190), ("count", "occupancy"), {"count": torch.int32, "occupancy": torch.float16}),
    (3, 500_000, (64, 50, 70), "count", torch.int64),
    (1, 70_000, 128, "count", torch.int32),
    (1, 2_000_000, 50, "occupancy", torch.uint8),
    (64, 6001, 100, "occupancy", torch.uint8),
    (64, 9000, (40, 30, 100), "occupancy", "bits"),
    (40, 5000, 64, "occupancy", torch.float32),
    (130, 4500, (33, 20, 21), "occupancy", "bits"),
]


@pytest.mark.parametrize("scatter", ["scan", "depth", "onecell"])
@pytest.mark.parametrize(("batch", "count", "size", "reduce", "out_dtype"), SKEWED, ids=str)
def test_skewed_clouds(batch: int, count: int, size: Any, reduce: Any, out_dtype: Any, scatter: str) -> None:
    """Neighbours in one cell, walls in few slabs: the CPU kernel's bits, with and without what stands beside them."""
    cells = (size,) * 3 if isinstance(size, int) else size
    inputs = build(VoxelCase("skewed", count, cells, batch=batch, scatter=scatter), "cpu", 5)
    where = {"voxel_size": inputs.case.voxel, "grid_min": inputs.case.grid_min, "grid_size": cells}
    options = {**where, "reduce": reduce, "out_dtype": out_dtype}
    mask = torch.rand(batch, count, generator=torch.Generator().manual_seed(6)) < 0.9
    for extras in ({}, {"mask": mask, "return_dropped": True, "return_inverse": True}):
        call = Call("dense", (inputs.points, None), {**options, **extras})
        compare(CUDA.run(call), CPU.run(call))


@pytest.mark.parametrize("reduce", ["occupancy", "count"])
@pytest.mark.parametrize("image", [(1, 480, 640), (3, 33, 44), (2, 31, 37), (40, 24, 32)], ids=str)
@pytest.mark.parametrize("dtype", [torch.uint16, torch.float32], ids=str)
def test_images_of_every_shape(image: tuple[int, int, int], reduce: str, dtype: torch.dtype) -> None:
    """Rows of whole fours of pixels and others, one sample of cameras and a camera a sample."""
    case = VoxelCase("images", image[0] * image[1] * image[2], (100, 90, 80), op="images", image=image)
    inputs = build(case, "cpu", 7)
    assert inputs.depth is not None and inputs.intrinsics is not None and inputs.poses is not None
    raw = inputs.depth.view(torch.int16).float()
    depth = inputs.depth if dtype == torch.uint16 else raw * torch.tensor(0.001)
    given = (depth, inputs.intrinsics, inputs.poses, None)
    split = tuple(None if t is None else t.transpose(0, 1).contiguous() for t in given)
    for images in (given, split):
        options = {"voxel_size": 0.01, "grid_min": (-0.5, -0.45, -0.4), "grid_size": case.size, "reduce": reduce}
        options["depth_scale"] = 0.001 if dtype == torch.uint16 else 1.0
        for extras in ({}, {"return_dropped": True, "return_inverse": True}):
            call = Call("depth", images, {**options, **extras})
            compare(CUDA.run(call), CPU.run(call))


def test_millions_in_one_cell() -> None:
    points, features = torch.full((1, 2_000_000, 3), 0.55), torch.randn(1, 2_000_000, 3)
    for reduce, carried in (("occupancy", None), ("count", None), (FEATURED, features)):
        call = Call("dense", (points, carried), {**FRAME, "reduce": reduce, "return_counts": True})
        compare(CUDA.run(call), CPU.run(call))
    rows = Call("sparse", (points, features), {**FRAME, "reduce": ("sum", "max"), "max_voxels": 5})
    compare(CUDA.run(rows), CPU.run(rows))
