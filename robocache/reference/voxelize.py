"""Reference for voxelize: plain torch, any device, vectorised.

The functions take what the operators of torch.ops.robocache take and give the same tensors, bit for bit, in the same
order; they are differentiable by features and colours through autograd. Every operation rounds on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .align import to_dtype
from .voxel_points import (
    Cells,
    Frame,
    Points,
    check_data,
    cloud_points,
    compute_dtype,
    depth_points,
    find_cells,
    frame_of,
)
from .voxel_sums import count_rows, extreme, runs, tree_sum

_OCCUPANCY, _COUNT, _SUM, _MEAN, _MAX, _MIN, _ARGMAX, _ARGMIN = range(8)  # rc_reduce
_FIRST_APPEARANCE = 1  # rc_voxel_order
_BITS = 11
_DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.uint8, torch.int8, torch.int16),
    *(torch.int32, torch.int64),
)  # rc_dtype


def _number(value: float, dtype: torch.dtype, like: Tensor) -> Tensor:
    """A number of the host, rounded once to `dtype`."""
    return to_dtype(torch.full((), value, dtype=torch.float64, device=like.device), dtype)


# ---- Occupancy and counts -------------------------------------------------------------------------------------------


def _packed(occupied: Tensor) -> Tensor:
    """Eight cells along the last dimension a byte, the first in the lowest bit."""
    fill = -occupied.shape[-1] % 8
    eights = torch.nn.functional.pad(occupied.to(torch.uint8), (0, fill)).unflatten(-1, (-1, 8))
    shifted = eights << torch.arange(8, dtype=torch.uint8, device=occupied.device)
    return shifted.sum(-1).to(torch.uint8)


def _as_float(counts: Tensor, dtype: torch.dtype) -> Tensor:
    return to_dtype(counts.to(compute_dtype(dtype)), dtype)


def _counts_as(counts: Tensor, dtype: torch.dtype) -> Tensor:
    """Counts in an output's dtype; integers hold at their largest."""
    if dtype == torch.bool:
        return counts > 0
    if dtype.is_floating_point:
        return _as_float(counts, dtype)
    return counts.clamp(max=torch.iinfo(dtype).max).to(dtype)


def _added(before: Tensor, counts: Tensor) -> Tensor:
    """`before` and `counts` more."""
    dtype = before.dtype
    if dtype == torch.bool:
        return before | (counts > 0)
    if dtype.is_floating_point:
        wide = compute_dtype(dtype)
        return to_dtype(before.to(wide) + counts.to(wide), dtype)
    largest = torch.iinfo(dtype).max
    held = before.to(torch.int64)
    return torch.where(held > largest - counts, largest, held + counts).to(dtype)


def _occupancy(counts: Tensor, dtype: int) -> Tensor:
    return _packed(counts > 0) if dtype == _BITS else (counts > 0).to(_DTYPES[dtype])


# ---- Features -------------------------------------------------------------------------------------------------------


class _Reducer:
    """Reductions of the features over rows: the cells of dense grids, or sparse voxels."""

    def __init__(self, features: Tensor | None, rows: Tensor, index: Tensor, total: Any, empty_value: float) -> None:
        self.values: Tensor | None = None
        if features is not None:
            self.values = features.flatten(0, -2).to(compute_dtype(features.dtype))
        self.rows, self.index, self.total = rows, index, total
        self.counts = count_rows(rows, total)
        self.empty_value = empty_value
        self._sums: Tensor | None = None

    def sums(self) -> Tensor:
        if self._sums is None:
            assert self.values is not None
            self._sums = tree_sum(self.values, self.rows, self.total)
        return self._sums

    def __call__(self, reduce: int, dtype: torch.dtype) -> Tensor:
        """[total, C]"""
        assert self.values is not None
        occupied = (self.counts > 0).unsqueeze(-1)
        if reduce in (_SUM, _MEAN):
            made = self.sums()
            if reduce == _MEAN:
                made = made / self.counts.clamp(min=1).to(torch.float32).to(made.dtype).unsqueeze(-1)
        else:
            made, arg = extreme(self.values, self.rows, self.index, self.total, reduce in (_MAX, _ARGMAX))
            if reduce in (_ARGMAX, _ARGMIN):
                return arg.to(dtype)
        return torch.where(occupied, to_dtype(made, dtype), _number(self.empty_value, dtype, made))


# ---- Dense grids ----------------------------------------------------------------------------------------------------


def _extras(points: Points, cells: Cells, need_inverse: bool, need_dropped: bool) -> list[Tensor]:
    extras = []
    if need_inverse:
        extras.append(cells.cell.reshape(points.shape))
    if need_dropped:
        outside = torch.where(cells.outside, points.sample, -1)
        extras.append(count_rows(outside, points.batch))
    return extras


def _dense(
    points: Points,
    frame: Frame,
    cells: Cells,
    features: Tensor | None,
    reduce: Sequence[int],
    out_dtypes: Sequence[int],
    channels_first: bool,
    empty_value: float,
) -> list[Tensor]:
    grid = (points.batch, *frame.size)
    count = frame.size[0] * frame.size[1] * frame.size[2]
    rows = torch.where(cells.cell < 0, -1, points.sample * count + cells.cell)
    reducer = _Reducer(features, rows, points.position, points.batch * count, empty_value)
    counts = reducer.counts.reshape(grid)
    made = []
    for name, dtype in zip(reduce, out_dtypes, strict=True):
        if name == _OCCUPANCY:
            made.append(_occupancy(counts, dtype))
        elif name == _COUNT:
            made.append(_counts_as(counts, _DTYPES[dtype]))
        else:
            result = reducer(name, _DTYPES[dtype])
            result = result.reshape(*grid, result.shape[-1])
            made.append(result.permute(0, 4, 1, 2, 3).contiguous() if channels_first else result)
    return made


def _accumulate(
    points: Points, frame: Frame, cells: Cells, reduce: Sequence[int], out_dtypes: Sequence[int], out: Sequence[Tensor]
) -> None:
    wide = [_COUNT]
    counts = _dense(points, frame, cells, None, wide, [_DTYPES.index(torch.int64)], False, 0.0)[0]
    for name, dtype, into in zip(reduce, out_dtypes, out, strict=True):
        if name == _COUNT:
            into.copy_(_added(into, counts))
        elif dtype == _BITS:
            into.copy_(into | _packed(counts > 0))
        else:
            into.copy_(torch.where(counts > 0, torch.ones_like(into), into))


def _cloud(args: tuple[Any, ...]) -> tuple[Points, Frame, Cells]:
    """Points and cells of a call's arguments, checked."""
    points, grid_size, voxel_size, grid_min, voxel_sizes, grid_mins, row_splits, mask, poses, bounds = args
    made = cloud_points(points, row_splits, mask, poses)
    frame = frame_of(grid_size, voxel_size, grid_min, voxel_sizes, grid_mins, made.at)
    cells = find_cells(made, frame, bounds)
    check_data(made, frame, row_splits, cells, bounds)
    return made, frame, cells


def _images(args: tuple[Any, ...]) -> tuple[Points, Frame, Cells]:
    (depth, intrinsics, grid_size, voxel_size, grid_min, voxel_sizes, grid_mins, mask, poses, depth_scale, bounds) = (
        args
    )
    made = depth_points(depth, intrinsics, depth_scale, mask, poses)
    frame = frame_of(grid_size, voxel_size, grid_min, voxel_sizes, grid_mins, made.at)
    cells = find_cells(made, frame, bounds)
    check_data(made, frame, None, cells, bounds)
    return made, frame, cells


def voxelize(
    points: Tensor,
    features: Tensor | None,
    reduce: Sequence[int],
    out_dtypes: Sequence[int],
    grid_size: Sequence[Any],
    voxel_size: Sequence[float],
    grid_min: Sequence[float],
    voxel_sizes: Tensor | None = None,
    grid_mins: Tensor | None = None,
    row_splits: Tensor | None = None,
    mask: Tensor | None = None,
    poses: Tensor | None = None,
    bounds: int = 0,
    channels_first: bool = False,
    empty_value: float = 0.0,
    need_inverse: bool = False,
    need_dropped: bool = False,
    *,
    out: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """torch.ops.robocache.voxelize, and with `out` voxelize_out."""
    found = _cloud((points, grid_size, voxel_size, grid_min, voxel_sizes, grid_mins, row_splits, mask, poses, bounds))
    made = _finish(found, features, reduce, out_dtypes, channels_first, empty_value, out)
    return made + _extras(found[0], found[2], need_inverse, need_dropped)


def voxelize_depth(
    depth: Tensor,
    intrinsics: Tensor,
    color: Tensor | None,
    reduce: Sequence[int],
    out_dtypes: Sequence[int],
    grid_size: Sequence[Any],
    voxel_size: Sequence[float],
    grid_min: Sequence[float],
    voxel_sizes: Tensor | None = None,
    grid_mins: Tensor | None = None,
    mask: Tensor | None = None,
    poses: Tensor | None = None,
    depth_scale: float = 1.0,
    bounds: int = 0,
    channels_first: bool = False,
    empty_value: float = 0.0,
    need_inverse: bool = False,
    need_dropped: bool = False,
    *,
    out: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """torch.ops.robocache.voxelize_depth, and with `out` voxelize_depth_out."""
    found = _images(
        (depth, intrinsics, grid_size, voxel_size, grid_min, voxel_sizes, grid_mins, mask, poses, depth_scale, bounds)
    )
    made = _finish(found, color, reduce, out_dtypes, channels_first, empty_value, out)
    return made + _extras(found[0], found[2], need_inverse, need_dropped)


def _finish(
    found: tuple[Points, Frame, Cells],
    features: Tensor | None,
    reduce: Sequence[int],
    out_dtypes: Sequence[int],
    channels_first: bool,
    empty_value: float,
    out: Sequence[Tensor] | None,
) -> list[Tensor]:
    if out is not None:
        _accumulate(*found, reduce, out_dtypes, out)
        return []
    return _dense(*found, features, reduce, out_dtypes, channels_first, empty_value)


# ---- Sparse voxels --------------------------------------------------------------------------------------------------


def _voxels(points: Points, frame: Frame, cells: Cells, order: int) -> tuple[Tensor, Tensor]:
    """Each point's voxel in its sample, -1 where it has none, and how many voxels each sample has."""
    count = frame.size[0] * frame.size[1] * frame.size[2]
    keys, places = torch.sort(torch.where(cells.cell < 0, -1, points.sample * count + cells.cell), stable=True)
    begin, _ = runs(keys)
    place = torch.arange(keys.shape[0], device=keys.device)
    opens = (begin == place) & (keys >= 0)
    number = opens.to(torch.int64).cumsum(0) - 1
    if order == _FIRST_APPEARANCE:
        first = torch.zeros_like(keys).scatter(0, places, opens.to(torch.int64))  # 1 at the lowest index of a cell
        number = (first.cumsum(0) - 1)[places[begin]] if keys.shape[0] else number
    sample = points.sample[places]
    num_voxels = count_rows(torch.where(opens, sample, -1), points.batch)
    before = num_voxels.cumsum(0) - num_voxels
    local = torch.where(keys < 0, -1, number - (before[sample] if points.batch > 0 else 0))
    return torch.zeros_like(keys).scatter(0, places, local), num_voxels


def _rank(rows: Tensor) -> Tensor:
    """How many entries before it name the same row."""
    keys, places = torch.sort(rows, stable=True)
    begin, _ = runs(keys)
    place = torch.arange(keys.shape[0], device=keys.device)
    return torch.zeros_like(rows).scatter(0, places, place - begin)


def voxelize_sparse(
    points: Tensor,
    features: Tensor | None,
    reduce: Sequence[int],
    out_dtypes: Sequence[int],
    grid_size: Sequence[Any],
    voxel_size: Sequence[float],
    grid_min: Sequence[float],
    voxel_sizes: Tensor | None = None,
    grid_mins: Tensor | None = None,
    row_splits: Tensor | None = None,
    mask: Tensor | None = None,
    poses: Tensor | None = None,
    max_voxels: int = 0,
    max_points: int = 0,
    order: int = 0,
    bounds: int = 0,
    empty_value: float = 0.0,
    need_inverse: bool = False,
) -> list[Tensor]:
    """torch.ops.robocache.voxelize_sparse: coords, num_voxels, the outputs, then what was asked for of the first
    points of each voxel, the inverse, and each point's slot among them."""
    made, frame, cells = _cloud(
        (points, grid_size, voxel_size, grid_min, voxel_sizes, grid_mins, row_splits, mask, poses, bounds)
    )
    local, num_voxels = _voxels(made, frame, cells, order)
    kept = torch.where(local < max_voxels, local, -1)
    total = made.batch * max_voxels
    rows = torch.where(kept < 0, -1, made.sample * max_voxels + kept)
    target = torch.where(rows < 0, total, rows)
    coords = torch.full((total + 1, 3), -1, dtype=torch.int32, device=points.device)
    coords = coords.index_put((target,), cells.at.to(torch.int32))[:total].reshape(made.batch, max_voxels, 3)
    reducer = _Reducer(features, rows, made.position, total, empty_value)
    results = [coords, num_voxels]
    for name, dtype in zip(reduce, out_dtypes, strict=True):
        if name == _COUNT:
            results.append(_counts_as(reducer.counts, _DTYPES[dtype]).reshape(made.batch, max_voxels))
        else:
            result = reducer(name, _DTYPES[dtype])
            results.append(result.reshape(made.batch, max_voxels, result.shape[-1]))
    slots = None
    if max_points > 0:
        assert features is not None
        rank = _rank(rows)
        slots = torch.where((kept < 0) | (rank >= max_points), -1, kept * max_points + rank)
        target = torch.where(slots < 0, total * max_points, made.sample * (max_voxels * max_points) + slots)
        gathered = features.new_zeros((total * max_points + 1, features.shape[-1]))
        gathered = gathered.index_put((target,), features.flatten(0, -2))[: total * max_points]
        results.append(gathered.reshape(made.batch, max_voxels, max_points, features.shape[-1]))
    if need_inverse:
        results.append(kept.reshape(made.shape))
        if slots is not None:
            results.append(slots.reshape(made.shape))
    return results
