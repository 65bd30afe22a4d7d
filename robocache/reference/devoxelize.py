"""Reference for devoxelize: plain torch, any device, differentiable by the grid and the points through autograd."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .align import to_dtype
from .voxel_points import CLAMP, Frame, Points, check_data, cloud_points, compute_dtype, find_cells, frame_of, rows_of

_NEAREST = 0  # rc_devoxelize_mode


def _axis(t: Tensor, size: int, clamp: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The two neighbouring cell centres around places t, and the weight of the second."""
    if clamp:
        t = torch.where(t < -0.5, -0.5, torch.where(t > size - 0.5, size - 0.5, t))
    low = torch.floor(t.detach())
    at = [torch.where(q < 0, 0, torch.where(q > size - 1, size - 1, q)).to(torch.int64) for q in (low, low + 1)]
    return at[0], at[1], t - low


def _between(v0: Tensor, v1: Tensor, weight: Tensor) -> Tensor:
    return v0 + weight.unsqueeze(-1) * (v1 - v0)


def _trilinear(flat: Tensor, points: Points, t: Tensor, size: Sequence[int], clamp: bool) -> Tensor:
    """Values [M, C] of flat [B * X * Y * Z, C] between the eight cell centres around places t [M, 3]."""
    x0, x1, wx = _axis(t[:, 0], size[0], clamp)
    y0, y1, wy = _axis(t[:, 1], size[1], clamp)
    z0, z1, wz = _axis(t[:, 2], size[2], clamp)
    wx, wy, wz = (w.to(flat.dtype) for w in (wx, wy, wz))

    def along_z(x: Tensor, y: Tensor) -> Tensor:
        row = ((points.sample * size[0] + x) * size[1] + y) * size[2]
        return _between(flat[row + z0], flat[row + z1], wz)

    def along_y(x: Tensor) -> Tensor:
        return _between(along_z(x, y0), along_z(x, y1), wy)

    return _between(along_y(x0), along_y(x1), wx)


def _places(points: Points, frame: Frame, counts: Tensor) -> Tensor:
    """Where points stand between cell centres [M, 3], in cells; 0 without a cell, which has no gradient either."""
    place = (points.at - rows_of(frame.low, points.sample)) / rows_of(frame.voxel, points.sample) - 0.5
    return torch.where(counts, place, 0)


def devoxelize(
    grid: Tensor,
    points: Tensor,
    mode: int,
    voxel_size: Sequence[float],
    grid_min: Sequence[float],
    voxel_sizes: Tensor | None = None,
    grid_mins: Tensor | None = None,
    row_splits: Tensor | None = None,
    mask: Tensor | None = None,
    poses: Tensor | None = None,
    bounds: int = 0,
    empty_value: float = 0.0,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """torch.ops.robocache.devoxelize: values [B, N, C], packed [N, C], of a grid [B, X, Y, Z, C] at points."""
    size, columns = tuple(grid.shape[1:4]), grid.shape[-1]
    dtype = grid.dtype if out_dtype is None else out_dtype
    made = cloud_points(points, row_splits, mask, poses)
    frame = frame_of(size, voxel_size, grid_min, voxel_sizes, grid_mins, made.at)
    cells = find_cells(made, frame, bounds)
    check_data(made, frame, row_splits, cells, bounds)
    empty = to_dtype(torch.full((), empty_value, dtype=torch.float64, device=grid.device), dtype)
    counts = (cells.cell >= 0).unsqueeze(-1)
    flat = grid.flatten(0, -2)
    if flat.shape[0] == 0:  # no samples, so no point has a cell
        return empty.expand(*made.shape, columns).clone()
    if mode == _NEAREST:
        count = size[0] * size[1] * size[2]
        value = flat[torch.where(cells.cell < 0, 0, made.sample * count + cells.cell)]
        if points.requires_grad and value.is_floating_point():
            # Values that do not move with their point: gradients of 0, as from the operator.
            value = torch.where(torch.zeros_like(counts), made.at.sum(-1, keepdim=True).to(value.dtype), value)
    else:
        place = _places(made, frame, counts)
        wide = compute_dtype(torch.promote_types(compute_dtype(grid.dtype), made.at.dtype))
        value = _trilinear(flat.to(wide), made, place, size, bounds == CLAMP)
    return torch.where(counts, to_dtype(value, dtype), empty).reshape(*made.shape, columns)


def grid_gradient(
    grad: Tensor,
    grid: Tensor,
    points: Tensor,
    mode: int,
    voxel_size: Sequence[float],
    grid_min: Sequence[float],
    voxel_sizes: Tensor | None = None,
    grid_mins: Tensor | None = None,
    row_splits: Tensor | None = None,
    mask: Tensor | None = None,
    poses: Tensor | None = None,
    bounds: int = 0,
    empty_value: float = 0.0,
) -> Tensor:
    """Gradient of the grid [B, X, Y, Z, C] from that of the values read, as torch.ops.robocache.devoxelize_backward
    has it. Its sums have a fixed order on every device: index_put with accumulate sorts on CUDA."""
    size, columns = tuple(grid.shape[1:4]), grid.shape[-1]
    made = cloud_points(points, row_splits, mask, poses)
    frame = frame_of(size, voxel_size, grid_min, voxel_sizes, grid_mins, made.at)
    cells = find_cells(made, frame, bounds)
    counts = (cells.cell >= 0).unsqueeze(-1)
    wide = compute_dtype(grid.dtype)
    by_grid = torch.zeros(grid.shape, dtype=wide, device=grid.device).flatten(0, -2)
    if by_grid.numel() == 0 or cells.cell.numel() == 0:
        return by_grid.reshape(grid.shape).to(grid.dtype)
    shares = torch.where(counts, grad.reshape(-1, columns).to(wide), 0)
    if mode == _NEAREST:
        row = torch.where(cells.cell < 0, 0, made.sample * (size[0] * size[1] * size[2]) + cells.cell)
        return by_grid.index_put((row,), shares, accumulate=True).reshape(grid.shape).to(grid.dtype)
    place = _places(made, frame, counts)
    axes = []
    for d in range(3):
        low, high, weight = _axis(place[:, d], size[d], bounds == CLAMP)
        weight = weight.to(wide)
        axes.append(((low, 1 - weight), (high, weight)))
    for x, by_x in axes[0]:
        for y, by_y in axes[1]:
            for z, by_z in axes[2]:
                row = ((made.sample * size[0] + x) * size[1] + y) * size[2] + z
                part = shares * (by_x * by_y * by_z).unsqueeze(-1)
                by_grid = by_grid.index_put((row,), part, accumulate=True)
    return by_grid.reshape(grid.shape).to(grid.dtype)
