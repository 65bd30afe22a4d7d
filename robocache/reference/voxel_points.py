"""Points and cells for the reference: samples, poses, depth images, the index, and what only the data can tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._backend import checks_synchronously
from .._errors import FAULTS, data_error

CLAMP, RAISE = 1, 2  # rc_bounds
_LARGEST = 3.40282346638528859811704183484516925e38  # of float32

_SENTENCES = {
    "point_outside": 'points: sample {r}, point {p} lies outside the grid or is NaN, and bounds is "raise"',
    "voxel_size": "voxel_size: sample {r}, axis {p}: expected a finite size above 0",
    "grid_min": "grid_min: sample {r}, axis {p}: expected a finite coordinate",
    "point_splits": "row_splits: sample {r}: expected offsets that never decrease, between 0 and the number of points",
}


class Points(NamedTuple):
    """The points of a call, all samples one behind the other."""

    at: Tensor  # [M, 3], compute dtype
    sample: Tensor  # [M] int64
    position: Tensor  # [M] int64, in its sample
    counted: Tensor  # [M] bool: not masked, not without depth, not outside row_splits
    batch: Any
    shape: tuple[Any, ...]  # of one number a point, as the operators have it


class Frame(NamedTuple):
    """The grids of a call; voxel and low are [1 or B, 3] in the compute dtype."""

    size: tuple[Any, Any, Any]
    voxel: Tensor
    low: Tensor


class Cells(NamedTuple):
    cell: Tensor  # [M] int64, -1 where there is none
    at: Tensor  # [M, 3] int64: its coordinates, 0 where there is none
    outside: Tensor  # [M] bool: counted, and not in the grid


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def numbers(values: Sequence[float], like: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers of the host as a tensor [1, n], without a copy to the device."""
    return torch.stack([torch.full((), value, dtype=dtype, device=like.device) for value in values]).unsqueeze(0)


def rows_of(table: Tensor, sample: Tensor) -> Tensor:
    """Row `sample` of a table [1 or B, ...]; a row of a table without rows is that of no point, and all ones."""
    if table.shape[0] == 1:
        return table.expand(sample.shape[0], *table.shape[1:])
    if table.shape[0] == 0:
        return table.new_ones((sample.shape[0], *table.shape[1:]))
    return table[sample]


# ---- Points ---------------------------------------------------------------------------------------------------------


def transform(pose: Tensor, at: Tensor) -> Tensor:
    """Points [..., 3] through [R | t] [..., 3, 4], each operation rounded on its own."""
    x, y, z = at.unbind(-1)
    rows = [((row[..., 0] * x + row[..., 1] * y) + row[..., 2] * z) + row[..., 3] for row in pose.unbind(-2)]
    return torch.stack(rows, -1)


def packed_samples(row_splits: Tensor, count: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Of `count` packed points: their sample, their index in it, and whether they have one."""
    place = torch.arange(count, device=row_splits.device)
    sample = torch.searchsorted(row_splits[1:].contiguous(), place, right=True)
    begin = row_splits[sample]
    return sample, place - begin, (sample < row_splits.shape[0] - 1) & (place >= begin)


def cloud_points(points: Tensor, row_splits: Tensor | None, mask: Tensor | None, poses: Tensor | None) -> Points:
    """Points [B, N, 3], or packed [N, 3] beside row_splits."""
    at = points.reshape(-1, 3).to(compute_dtype(points.dtype))
    if row_splits is None:
        batch = points.shape[0]
        place = torch.arange(points.shape[1], device=points.device)
        index = place.expand(batch, -1).reshape(-1)
        sample = torch.arange(batch, device=points.device).unsqueeze(-1).expand(-1, points.shape[1]).reshape(-1)
        counted = torch.ones_like(sample, dtype=torch.bool)
    else:
        batch = row_splits.shape[0] - 1
        sample, index, counted = packed_samples(row_splits, points.shape[0])
        sample = torch.where(counted, sample, 0)
    if mask is not None:
        counted = counted & mask.reshape(-1)
    if poses is not None:
        at = transform(rows_of(poses.detach(), sample), at)
    return Points(at, sample, index, counted, batch, tuple(points.shape[:-1]))


def unproject(depth: Tensor, intrinsics: Tensor, depth_scale: float) -> tuple[Tensor, Tensor]:
    """Points [B, V, H, W, 3] of depth images in their cameras' frames, and where there is one."""
    z = depth.to(torch.float32) * torch.full((), depth_scale, dtype=torch.float32, device=depth.device)
    fx, fy, cx, cy = intrinsics.unsqueeze(-2).unsqueeze(-2).unbind(-1)
    row = torch.arange(depth.shape[2], device=depth.device, dtype=torch.float32).unsqueeze(-1)
    column = torch.arange(depth.shape[3], device=depth.device, dtype=torch.float32)
    at = torch.stack([((column - cx) * z) / fx, ((row - cy) * z) / fy, z], -1)
    return at, (z > 0) & (z <= _LARGEST)


def depth_points(
    depth: Tensor, intrinsics: Tensor, depth_scale: float, mask: Tensor | None, poses: Tensor | None
) -> Points:
    """The pixels of depth [B, V, H, W]."""
    at, counted = unproject(depth, intrinsics, depth_scale)
    if poses is not None:
        at = transform(poses.unsqueeze(2).unsqueeze(2), at)
    if mask is not None:
        counted = counted & mask
    batch, pixels = depth.shape[0], depth.shape[1] * depth.shape[2] * depth.shape[3]
    index = torch.arange(pixels, device=depth.device).expand(batch, -1).reshape(-1)
    sample = torch.arange(batch, device=depth.device).unsqueeze(-1).expand(-1, pixels).reshape(-1)
    return Points(at.reshape(-1, 3), sample, index, counted.reshape(-1), batch, tuple(depth.shape))


# ---- Cells ----------------------------------------------------------------------------------------------------------


def frame_of(
    size: Sequence[Any],
    voxel_size: Sequence[float],
    grid_min: Sequence[float],
    voxel_sizes: Tensor | None,
    grid_mins: Tensor | None,
    like: Tensor,
) -> Frame:
    x, y, z = size
    voxel = numbers(voxel_size, like, like.dtype) if voxel_sizes is None else voxel_sizes.detach()
    low = numbers(grid_min, like, like.dtype) if grid_mins is None else grid_mins.detach()
    return Frame((x, y, z), voxel, low)


def find_cells(points: Points, frame: Frame, bounds: int) -> Cells:
    """The index of the contract: floor((p - grid_min) / voxel_size), compared as floating numbers."""
    at = points.at.detach()
    place = torch.floor((at - rows_of(frame.low, points.sample)) / rows_of(frame.voxel, points.sample))
    inside, number = points.counted, points.counted
    held = []
    for q, size in zip(place.unbind(-1), frame.size, strict=True):
        inside = inside & (q >= 0) & (q < size)
        number = number & (q == q)
        held.append(torch.where(q < 0, 0, torch.where(q > size - 1, size - 1, q)))
    counts = number if bounds == CLAMP else inside
    x, y, z = (torch.where(counts, q, 0).to(torch.int64) for q in held)
    cell = (x * frame.size[1] + y) * frame.size[2] + z
    return Cells(torch.where(counts, cell, -1), torch.stack([x, y, z], -1), points.counted & ~inside)


# ---- Faults ---------------------------------------------------------------------------------------------------------


def _fault(name: str, row: int, position: int) -> None:
    raise data_error(_SENTENCES[name].format(r=row, p=position), FAULTS.index(name), 0, row, position)


def _first(faulty: Tensor) -> int:
    """Index of the first True of a vector; -1 if there is none."""
    found = torch.nonzero(faulty)
    return int(found[0]) if found.shape[0] else -1


def looks_at_data(tensor: Tensor) -> bool:
    """Whether host code may read values: not while compiling, under a transform, or of tensors without data; faults
    on a device are found only when ROBOCACHE_CHECK=sync."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or tensor.is_meta:
        return False
    return tensor.device.type == "cpu" or checks_synchronously()


def check_data(points: Points, frame: Frame, row_splits: Tensor | None, cells: Cells, bounds: int) -> None:
    """Raises the first DataError: of the splits, else of the grids, else of the points."""
    if not looks_at_data(points.at):
        return
    if row_splits is not None:
        begin, end = row_splits[:-1], row_splits[1:]
        row = _first((begin < 0) | (end < begin) | (end > points.at.shape[0]))
        if row >= 0:
            _fault("point_splits", row, 0)
    if points.batch > 0:
        bad_voxel = ~((frame.voxel > 0) & torch.isfinite(frame.voxel))
        bad_low = ~torch.isfinite(frame.low)
        row = _first((bad_voxel | bad_low).any(-1))
        if row >= 0:
            voxel, low = (bad[row if bad.shape[0] > 1 else 0] for bad in (bad_voxel, bad_low))
            axis = _first(voxel | low)
            _fault("voxel_size" if bool(voxel[axis]) else "grid_min", row, axis)
    if bounds == RAISE:
        point = _first(cells.outside)
        if point >= 0:
            _fault("point_outside", int(points.sample[point]), int(points.position[point]))
