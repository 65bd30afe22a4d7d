"""Dtypes, packed bits, layouts, accumulation over calls, several resolutions, repeatability of dense grids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import robocache

from . import voxel_capi
from .backends import assert_same_bits
from .test_voxel_semantics import FOUR, UNIT, run, where
from .voxel_backends import CPU, Call, VoxelBackend, c_backend, every_backend, native_backend, public_backend

OCCUPANCY_DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
OCCUPANCY_DTYPES += [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@every_backend
@pytest.mark.parametrize("dtype", OCCUPANCY_DTYPES, ids=str)
def test_occupancy_and_count_in_every_dtype(backend: VoxelBackend, dtype: torch.dtype) -> None:
    asked = {"occupancy": dtype, "count": dtype}
    call = Call("dense", (torch.tensor(FOUR), None), {"grid_size": (1, 1, 3), "reduce": ("occupancy", "count"), **UNIT})
    call.options["out_dtype"] = asked
    if not backend.takes(call):
        pytest.skip("NumPy has no bfloat16")
    got = backend.run(call)
    assert got["occupancy"].dtype == got["count"].dtype == dtype
    assert got["occupancy"].flatten().tolist() == [1, 1, 0]
    assert got["count"].flatten().tolist() == ([True, True, False] if dtype == torch.bool else [3, 1, 0])


@every_backend
@pytest.mark.parametrize(
    ("dtype", "points", "held"),
    [
        (torch.uint8, 300, 255),
        (torch.uint8, 256, 255),
        (torch.int8, 128, 127),
        (torch.int16, 32769, 32767),
        (torch.float16, 2049, 2048),
    ],
    ids=str,
)
def test_counts_hold_at_their_largest(backend: VoxelBackend, dtype: torch.dtype, points: int, held: int) -> None:
    given = torch.full((points, 3), 0.5)
    got = run(backend, given, grid_size=(1, 2, 1), reduce="count", out_dtype=dtype, **UNIT)
    assert got["count"].flatten().tolist() == [held, 0]


@every_backend
@pytest.mark.parametrize("depth", [1, 7, 8, 9, 16, 33, 64, 100])
def test_bits_are_those_of_packbits(backend: VoxelBackend, depth: int) -> None:
    generator = torch.Generator().manual_seed(depth)
    size = (3, 5, depth)
    points = torch.rand(2, 7 * depth, 3, generator=generator) * torch.tensor(size)
    plain = run(backend, points, grid_size=size, **UNIT)["occupancy"]
    packed = run(backend, points, grid_size=size, out_dtype="bits", **UNIT)["occupancy"]
    assert packed.dtype == torch.uint8 and packed.shape == (2, 3, 5, -(-depth // 8))
    np.testing.assert_array_equal(packed.numpy(), np.packbits(plain.numpy(), axis=-1, bitorder="little"))
    assert bool(plain.any()) and not bool(plain.all())


@every_backend
def test_float64_points_keep_their_precision(backend: VoxelBackend) -> None:
    """A hair under a face in double is a hair that float32 cannot see."""
    under = np.nextafter(1.0, 0.0)
    points = torch.tensor([[under, 0.5, 0.5]], dtype=torch.float64)
    assert where(run(backend, points, grid_size=2, **UNIT)["occupancy"]) == [[0, 0, 0]]
    assert where(run(backend, points.float(), grid_size=2, **UNIT)["occupancy"]) == [[1, 0, 0]]


@every_backend
def test_float64_features_sum_in_double(backend: VoxelBackend) -> None:
    features = torch.tensor([[1e16], [1.0], [-1e16]], dtype=torch.float64)
    points = torch.full((3, 3), 0.5)
    got = run(backend, points, features + 0, grid_size=1, reduce=("sum", "mean"), **UNIT)
    assert got["sum"].dtype == torch.float64 and got["sum"].item() == (1e16 + 1.0) - 1e16
    tenth = torch.full((3, 1), 0.1, dtype=torch.float64)
    assert run(backend, points, tenth, grid_size=1, reduce="sum", **UNIT)["sum"].item() == 0.1 + 0.1 + 0.1


@every_backend
def test_half_features_sum_in_single(backend: VoxelBackend) -> None:
    """Ones past 2048 get lost in a half's own arithmetic."""
    points, ones = torch.full((4000, 3), 0.5), torch.ones(4000, 1, dtype=torch.float16)
    got = run(backend, points, ones, grid_size=1, reduce=("sum", "mean"), **UNIT)
    assert got["sum"].dtype == torch.float16
    assert got["sum"].item() == 4000 and got["mean"].item() == 1


# ---- Layout, accumulation, several resolutions ----------------------------------------------------------------------


@every_backend
def test_channels_first(backend: VoxelBackend) -> None:
    generator = torch.Generator().manual_seed(3)
    points, features = torch.rand(2, 90, 3, generator=generator) * 3, torch.randn(2, 90, 4, generator=generator)
    names = ("count", "mean", "max", "sum", "min", "occupancy")
    last = run(backend, points, features, grid_size=(3, 4, 2), reduce=names, empty_value=-9, **UNIT)
    options = {"layout": "channels_first", "empty_value": -9, **UNIT}
    first = run(backend, points, features, grid_size=(3, 4, 2), reduce=names, **options)
    for name in names:
        assert first[name].is_contiguous()
        featured = name not in ("count", "occupancy")
        assert_same_bits(first[name], last[name].movedim(-1, 1) if featured else last[name], name)


@public_backend
def test_occupancy_and_counts_add_up_over_calls(backend: VoxelBackend) -> None:
    """Three clouds into one grid are the one cloud of all."""
    generator = torch.Generator().manual_seed(4)
    clouds = [torch.rand(2, n, 3, generator=generator) * 3 for n in (40, 0, 70)]
    options: dict[str, Any] = {"grid_size": (3, 2, 4), "reduce": ("count", "occupancy"), **UNIT}
    dtypes = {"count": torch.int16, "occupancy": torch.uint8}
    whole = run(backend, torch.cat(clouds, dim=1), out_dtype=dtypes, **options)
    out = {name: torch.zeros(2, 3, 2, 4, dtype=dtype, device=backend.device) for name, dtype in dtypes.items()}
    for cloud in clouds:
        given = robocache.voxelize_point_cloud(backend.put(cloud), out=out, backend=backend.name, **options)
        assert all(given[name] is out[name] for name in out)
    for name, grid in out.items():
        assert_same_bits(grid, whole[name], name)
    one = out["count"]
    same = robocache.voxelize_point_cloud(
        backend.put(clouds[0]), out=one, backend=backend.name, **{**options, "reduce": "count"}
    )
    assert same is one and int(one.sum()) > int(whole["count"].sum())


@c_backend
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.float16, torch.float32], ids=str)
def test_accumulated_counts_hold_or_round_once(backend: VoxelBackend, dtype: torch.dtype) -> None:
    base = torch.zeros(1, 1, 2, 1, dtype=dtype)
    base[0, 0, 0, 0], base[0, 0, 1, 0] = 120, 5
    points = torch.full((200, 3), 0.5)
    got = run(backend, points, grid_size=(1, 2, 1), reduce="count", out_dtype=dtype, out={"count": base}, **UNIT)
    held = {torch.uint8: 255, torch.int8: 127}.get(dtype, 320)
    assert got["count"].flatten().tolist() == [held, 5]


@c_backend
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.bfloat16, "bits"], ids=str)
def test_accumulated_occupancy_sets_and_leaves(backend: VoxelBackend, dtype: Any) -> None:
    base = torch.zeros(1, 1, 1, 2 if dtype == "bits" else 10, dtype=torch.uint8 if dtype == "bits" else dtype)
    base.view(-1)[1] = 2 if dtype == "bits" else 1  # cell 9 in bits, else 1
    points = torch.tensor([[0.5, 0.5, 3.5], [0.5, 0.5, 3.6]])
    out = {"occupancy": base}
    got = run(backend, points, grid_size=(1, 1, 10), out_dtype=dtype, out=out, **UNIT)["occupancy"].flatten()
    if dtype == "bits":
        assert got.tolist() == [8, 2]
    else:
        assert got.nonzero().flatten().tolist() == [1, 3] and bool((got[[1, 3]] == 1).all())


@c_backend
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32, "bits"], ids=str)
def test_accumulation_leaves_the_rest_of_a_large_grid(backend: VoxelBackend, dtype: Any) -> None:
    generator = torch.Generator().manual_seed(8)
    points = torch.rand(2, 3000, 3, generator=generator) * torch.tensor([90.0, 70.0, 10.0])
    options: dict[str, Any] = {"grid_size": (90, 70, 80), "out_dtype": dtype, **UNIT}
    for name in ("occupancy",) if dtype == "bits" else ("occupancy", "count"):
        alone = run(backend, points, reduce=name, **options)[name]
        base = torch.randint(0, 2, alone.shape, generator=generator).to(alone.dtype)
        if dtype == "bits":
            base = torch.randint(0, 256, alone.shape, generator=generator, dtype=torch.uint8)
        want = base + alone if name == "count" else base | alone if alone.dtype != torch.float32 else base.max(alone)
        got = run(backend, points, reduce=name, out={name: base}, **options)[name]
        assert_same_bits(got, want, name)


@public_backend
def test_outputs_at_odd_addresses(backend: VoxelBackend) -> None:
    """Grids of an odd number of bytes, one behind the other in one buffer."""
    generator = torch.Generator().manual_seed(9)
    for dtype, reduce in ((torch.uint8, "count"), (torch.bool, "occupancy"), (torch.int16, "count")):
        space = torch.zeros(3, 7 * 9 * 11, dtype=dtype, device=backend.device)
        for row in space:
            points = torch.rand(400, 3, generator=generator) * torch.tensor([7.0, 9.0, 11.0])
            out = row.view(7, 9, 11)
            options = {"grid_size": (7, 9, 11), "reduce": reduce, **UNIT}
            robocache.voxelize_point_cloud(backend.put(points), out=out, backend=backend.name, **options)
            assert_same_bits(out, run(backend, points, out_dtype=dtype, **options)[reduce], str(dtype))


@public_backend
def test_several_resolutions_in_one_call(backend: VoxelBackend) -> None:
    generator = torch.Generator().manual_seed(5)
    points, features = torch.rand(2, 200, 3, generator=generator), torch.randn(2, 200, 3, generator=generator)
    levels = [((8, 8, 8), 0.125), ((4, 4, 4), 0.25), ((2, 3, 5), 0.5)]
    given, carried = backend.put(points), backend.put(features)
    grids = robocache.voxelize_point_cloud(
        given,
        carried,
        voxel_size=[voxel for _, voxel in levels],
        grid_min=0.0,
        grid_size=[size for size, _ in levels],
        reduce="mean",
        backend=backend.name,
    )
    assert isinstance(grids, list) and len(grids) == 3
    for grid, (size, voxel) in zip(grids, levels, strict=True):
        want = run(backend, points, features, voxel_size=voxel, grid_min=0.0, grid_size=size, reduce="mean")["mean"]
        assert_same_bits(grid, want)


@native_backend
def test_every_call_is_the_same(backend: VoxelBackend) -> None:
    """Bit for bit, whichever way `deterministic` is set."""
    generator = torch.Generator().manual_seed(6)
    points, features = torch.rand(3, 5000, 3, generator=generator) * 4, torch.randn(3, 5000, 9, generator=generator)
    options = {"grid_size": 4, "reduce": ("sum", "mean", "max", "min", "count"), "return_inverse": True, **UNIT}
    first = run(backend, points, features, **options)
    for deterministic in (True, False, None):
        again = run(backend, points, features, deterministic=deterministic, **options)
        for name in first:
            assert_same_bits(again[name], first[name], name)


def test_strides_of_outputs_are_contiguous() -> None:
    points, features = torch.rand(2, 9, 3), torch.rand(2, 9, 3)
    for layout in ("channels_last", "channels_first"):
        got = CPU.run(Call("dense", (points, features), {"grid_size": 3, "reduce": "mean", "layout": layout, **UNIT}))
        assert got["mean"].is_contiguous()


def test_sums_of_the_c_api_do_not_depend_on_the_pieces() -> None:
    """A pool that runs one piece, two, seven or fifty, the last of them first."""
    generator = torch.Generator().manual_seed(7)
    points, features = torch.rand(3, 4000, 3, generator=generator) * 3, torch.randn(3, 4000, 5, generator=generator)
    names = ("sum", "mean", "max", "min", "argmax", "argmin", "count", "occupancy")
    options = {"grid_size": (3, 3, 2), "reduce": names, **UNIT}
    want = voxel_capi.voxelize(points, features, **options)
    for parts in (1, 2, 7, 50):
        got = voxel_capi.voxelize(points, features, parts=parts, **options)
        for name in want:
            assert_same_bits(got[name], want[name], f"{name} in {parts} pieces")
