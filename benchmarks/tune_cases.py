"""What each launch parameter is tuned on: cases of the tables, some of them in other sizes, by shape class.

A group is parameters that share cases and the measure of their work, which is the one that the launcher counts
(csrc/common/launch_table.h). The shape class of a case comes from that work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from . import cases, voxel_cases, voxel_inputs

_ALIGN = {case.name: case for case in cases.CASES}
_VOXEL = {case.name: case for case in voxel_cases.CASES}


@dataclass(frozen=True)
class CopyCase:
    """`count` tensors of `megabytes` in all, copied in one call."""

    name: str
    count: int
    megabytes: float

    @property
    def elements(self) -> int:
        """float32 elements of each."""
        return int(self.megabytes * 2**20 / 4 / self.count)


@dataclass(frozen=True)
class Group:
    """Launch parameters whose names begin with one of `prefixes`, and what they are timed on."""

    name: str
    prefixes: tuple[str, ...]
    cases: tuple[Any, ...]
    work: Callable[[Any], int]
    exact: bool = True  # False: atomics add in any order, so results agree to rounding only

    def parameters(self, names: list[str]) -> list[str]:
        return [name for name in names if name.startswith(self.prefixes)]


def align_vectors(case: cases.Case) -> int:
    """Vectors of the output: 16 bytes, or half of that, or single elements, whatever divides a stream's columns."""
    vectors = 0
    for stream in case.streams:
        widest = max(1, 16 // max(cases.DTYPES[case.out_dtype or stream.dtype].itemsize, 1))
        width = next(w for w in (widest, widest // 2, 1) if w and stream.columns % w == 0)
        vectors += case.batch * case.targets * (stream.columns // width)
    return vectors


def _points(case: voxel_cases.VoxelCase) -> int:
    return case.all_points


def _elements(case: voxel_cases.VoxelCase) -> int:
    return case.all_points * case.columns


def _column_fours(case: voxel_cases.VoxelCase) -> int:
    return case.all_points * case.columns // 4


def _sized(name: str, suffix: str, **changes: Any) -> voxel_cases.VoxelCase:
    return replace(_VOXEL[name], name=f"{name}-{suffix}", base=None, **changes)


def _cube(cells: int) -> tuple[int, int, int]:
    return (cells, cells, cells)


def _pictures(suffix: str, *image: int, reduce: str = "occupancy") -> voxel_cases.VoxelCase:
    """Depth images: cameras, height, width."""
    return _sized(_IMAGES, suffix, image=image, points=math.prod(image), reduce=(reduce,), out=())


_MEAN, _PERACT = "mean-1x1M-c16-200-fp32", "peract-16x65536-c7-100"
_SPARSE, _KITTI = "sparse-mean-1x1M-c16-200", "hard-kitti-second"
_GATHER, _BACK = "devoxelize-1x1M-c16-100-fp32", "devoxelize-backward-1x1M-c16-100-both"
_IMAGES, _BITS = "images-16x480x640-100-occupancy", "occupancy-1x500k-128-bits"
_COLOR = "images-16x480x640-100-color-mean"
_COUNT, _MANY_COUNT = "count-1x500k-128-i32", "count-1x20M-128-i32"
_FULL, _MANY_FULL = "occupancy-1x500k-128-u8", "occupancy-1x100M-128-u8"
_BATCH, _BROAD_BATCH = "occupancy-64x65536-100-u8", "occupancy-256x16384-64-u8"
_LARGE = {"batch": 8, "columns": 4, "size": _cube(100)}

GROUPS: tuple[Group, ...] = (
    Group(
        "align",
        ("align.",),
        tuple(
            _ALIGN[name]
            for name in (
                "fuse-4-50-bf16",
                "resample-256x500x32-250-bf16",
                "robot-64-100-mixed",
                "resample-32x500x256-256-bf16",
                "resample-2048x1000x8-500-fp32",
                "fuse-32-250-bf16",
                "resample-1024x500x256-250-bf16",
                "resample-512x100x64-1000-fp32",
            )
        ),
        align_vectors,
    ),
    Group(
        "voxel_tile_broad",
        ("voxel_tile.cells_broad",),
        (
            _sized(_MEAN, "small", points=100_000, size=_cube(64)),
            _VOXEL[_MEAN],
            _VOXEL[f"{_MEAN}-scan"],
            _sized(_MEAN, "large", batch=6, size=_cube(100)),
        ),
        _points,
    ),
    Group(
        "voxel_tile_narrow",
        ("voxel_tile.cells_narrow",),
        (
            _sized(_PERACT, "small", batch=2),
            _VOXEL[_PERACT],
            _VOXEL[f"{_PERACT}-scan"],
            _sized(_MEAN, "narrow", **_LARGE),
            _VOXEL[_COLOR],
        ),
        _points,
    ),
    Group(
        "voxel_tile_rows",
        ("voxel_tile.ahead", "voxel_tile.vector"),
        (
            _sized(_MEAN, "small", points=100_000, size=_cube(64)),
            _VOXEL[_MEAN],
            _VOXEL["max-1x1M-c16-200-fp32-scan"],
            _sized(_MEAN, "narrow", columns=4),
            _sized(_MEAN, "first", layout="channels_first"),
            _sized(_MEAN, "large", batch=6, size=_cube(100)),
            _sized(_MEAN, "narrow-large", **_LARGE),
            _VOXEL[_COLOR],
        ),
        _points,
    ),
    Group(
        "voxel_planes",
        ("voxel_planes.",),
        (
            _sized(_MEAN, "first-small", points=100_000, size=_cube(64), layout="channels_first"),
            _sized(_MEAN, "first", layout="channels_first"),
            _sized(_MEAN, "first-large", layout="channels_first", **_LARGE),
        ),
        _points,
    ),
    Group(
        "voxel_sorted",
        ("voxel_keys.", "voxel_levels."),
        (
            _sized(_MEAN, "small", points=100_000, size=_cube(64)),
            _VOXEL[_MEAN],
            _VOXEL[f"{_MEAN}-onecell"],
            _sized(_MEAN, "large", **_LARGE),
            _VOXEL[_COLOR],
        ),
        _points,
    ),
    # Few points to count, packed bits whose rows end within a byte, and images: what goes through global memory.
    Group(
        "voxel_global",
        ("voxel_each.", "voxel_global."),
        (
            _sized(_BITS, "small", points=100_000, size=_cube(100)),
            _sized(_COUNT, "small", points=100_000),
            _pictures("small", 1, 240, 320),
            _sized(_BITS, "medium", size=_cube(100)),
            _VOXEL[f"{_COUNT}-scan"],
            _pictures("medium", 4, 480, 640),
            _sized(_BITS, "large", points=5_000_000, size=_cube(100)),
            _VOXEL[_IMAGES],
            _pictures("count", 16, 480, 640, reduce="count"),
        ),
        _points,
    ),
    # Batches around those where a sample has blocks of its own, and grids around what their shared memory holds.
    Group(
        "voxel_bits",
        ("voxel_bits.",),
        (
            _VOXEL[_BATCH],
            _VOXEL[f"{_BATCH}-scan"],
            _VOXEL[_BROAD_BATCH],
            _sized(_BATCH, "wide", size=_cube(110)),
            _sized(_BATCH, "16", batch=16),
            _sized(_BATCH, "32", batch=32),
            _sized(_BATCH, "16-small", batch=16, points=8192),
            _sized(_BROAD_BATCH, "32-small", batch=32, points=8000),
        ),
        _points,
    ),
    Group(
        "voxel_partition",
        ("voxel_partition.", "voxel_slab."),
        (
            _sized(_FULL, "small", points=200_000),
            _VOXEL[f"{_FULL}-scan"],
            _sized(_MANY_COUNT, "medium", points=2_000_000),
            _VOXEL[_FULL],
            _sized(_FULL, "batch", batch=4),
            _sized(f"{_MANY_FULL}-scan", "large", points=20_000_000),
            _VOXEL[_MANY_COUNT],
        ),
        _points,
    ),
    Group(
        "devoxelize",
        ("devoxelize.",),
        (
            _sized(_GATHER, "small", points=50_000, size=_cube(64)),
            _VOXEL[_GATHER],
            _sized(_GATHER, "large", points=4_000_000),
        ),
        _column_fours,
    ),
    Group(
        "voxel_sparse",
        ("voxel_sparse_points.", "voxel_sparse_rows."),
        (
            _sized(_SPARSE, "small", points=100_000, size=_cube(64), max_voxels=100_000),
            _sized(_KITTI, "small", batch=1),
            _VOXEL[_SPARSE],
            _VOXEL[_KITTI],
            _sized(_SPARSE, "large", batch=8, points=600_000, columns=4, max_voxels=400_000),
        ),
        _points,
    ),
    Group(
        "voxel_backward",
        ("voxel_backward.",),
        (
            _sized("mean-backward-1x1M-c16-200", "small", points=10_000, size=_cube(64)),
            _sized("mean-backward-1x1M-c16-200", "medium", points=100_000, size=_cube(64)),
            _VOXEL["mean-backward-1x1M-c16-200"],
        ),
        _elements,
    ),
    Group(
        "devoxelize_backward",
        ("devoxelize_backward.",),
        (
            _sized(_BACK, "small", points=100_000, size=_cube(64)),
            _VOXEL[_BACK],
            _sized(_BACK, "large", points=5_000_000, columns=4),
        ),
        _points,
        exact=False,
    ),
    Group(
        "copy_many",
        ("copy_many.",),
        (CopyCase("copy-8x128K", 8, 1.0), CopyCase("copy-8x2M", 8, 16.0), CopyCase("copy-8x16M", 8, 128.0)),
        lambda case: int(case.count * case.elements * 4 // 16),
    ),
)


def shape_class(work: int, ends: Mapping[str, int | None]) -> str:
    """The class of so much work; `ends` as `native.shape_class_ends()` gives them."""
    return next(name for name, end in ends.items() if end is None or work < end)


def of_class(group: Group, name: str, ends: Mapping[str, int | None]) -> list[Any]:
    """The group's cases of a shape class."""
    return [case for case in group.cases if shape_class(group.work(case), ends) == name]


@dataclass
class Bound:
    """A case's call on one input set. `clear` wipes what the call writes in place."""

    call: Callable[[], Any]
    bytes: int
    clear: Callable[[], None] = lambda: None


def _size(tensors: list[torch.Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def bind(case: Any, device: str, seed: int) -> Bound:
    """Makes an input set and the call on it."""
    if isinstance(case, CopyCase):
        return _bind_copy(case, device, seed)
    if isinstance(case, cases.Case):
        inputs = cases.build(case, device, seed)
        return Bound(cases.bind_public(inputs, backend=device), _size(inputs.tensors()))
    made = voxel_inputs.build(case, device, seed)
    return Bound(voxel_inputs.bind(made, device), _size(list(made.tensors())))


def _bind_copy(case: CopyCase, device: str, seed: int) -> Bound:
    from robocache._backend import native
    from robocache.graphs._key import READY  # whether the door that copy_many reads tensors through is set up

    if native is None or not READY:
        raise RuntimeError("copy_many: the native library did not load, or its door is not set up")
    generator = torch.Generator(device=device).manual_seed(seed)
    made = [torch.randn(case.elements, generator=generator, device=device) for _ in range(case.count)]
    targets = [torch.empty_like(one) for one in made]

    def call() -> list[torch.Tensor]:
        native.copy_many(targets, made)
        return targets

    def clear() -> None:
        for target in targets:
            target.zero_()

    return Bound(call, 2 * _size(made), clear)


def flat(result: Any) -> list[torch.Tensor]:
    """The tensors of a result, in order."""
    return voxel_inputs.flat(result)
