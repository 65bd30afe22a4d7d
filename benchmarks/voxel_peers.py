"""What a user would write in plain torch for the voxelize cases, eager and compiled; on the CPU in NumPy and SciPy too.

Cell by floor and range test, then index_fill_, index_add_ or scatter_reduce_ into the grid; sparse voxels by sort and
cumulative sum, so that nothing waits for the device. Points outside go to one more cell at the end that is cut off, so
that all shapes are static. Trilinear reads are grid_sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .voxel_cases import VoxelCase
from .voxel_inputs import VoxelInputs


def _cells(case: VoxelCase, points: Tensor) -> Tensor:
    """The cell of each point in the whole batch, flat; B * cells outside the grid."""
    (gx, gy, gz), low, edge = case.size, case.grid_min, case.voxel
    qx = torch.floor((points[..., 0] - low[0]) / edge[0])
    qy = torch.floor((points[..., 1] - low[1]) / edge[1])
    qz = torch.floor((points[..., 2] - low[2]) / edge[2])
    inside = (qx >= 0) & (qx < gx) & (qy >= 0) & (qy < gy) & (qz >= 0) & (qz < gz)
    cell = (qx.long() * gy + qy.long()) * gz + qz.long()
    if case.batch > 1:
        cell = cell + torch.arange(case.batch, device=points.device)[:, None] * case.cells
    return torch.where(inside, cell, case.batch * case.cells).flatten()


def _unproject(case: VoxelCase, depth: Tensor, intrinsics: Tensor, poses: Tensor) -> Tensor:
    """Depth images as points [B, V * H * W, 3] in the grid's frame."""
    _, height, width = case.image
    z = depth.view(torch.int16).float() * 0.001  # the cases' depths fit int16
    fx, fy, cx, cy = (one[..., None, None] for one in intrinsics.unbind(-1))
    rows = torch.arange(height, device=depth.device)[:, None]
    columns = torch.arange(width, device=depth.device)
    points = torch.stack([(columns - cx) * z / fx, (rows - cy) * z / fy, z], dim=-1)
    moved = points.flatten(2, 3) @ poses[..., :3].transpose(-1, -2) + poses[..., None, :, 3]
    return moved.flatten(1, 2)


def _occupancy(case: VoxelCase, cell: Tensor, dtype: str) -> Tensor:
    total = case.batch * case.cells
    grid = torch.zeros(total + 1, dtype=torch.uint8 if dtype == "bits" else getattr(torch, dtype), device=cell.device)
    grid = grid.index_fill_(0, cell, 1)[:total].view(case.batch, *case.size)
    if dtype != "bits":
        return grid
    grid = torch.nn.functional.pad(grid, (0, -case.size[2] % 8)).unflatten(-1, (-1, 8))
    return (grid << torch.arange(8, device=cell.device, dtype=torch.uint8)).sum(-1, dtype=torch.uint8)


def _counts(cell: Tensor, rows: int, dtype: torch.dtype) -> Tensor:
    ones = torch.ones((), dtype=dtype, device=cell.device).expand(cell.shape[0])
    return torch.zeros(rows, dtype=dtype, device=cell.device).index_add_(0, cell, ones)


def _means(cell: Tensor, rows: int, features: Tensor) -> Tensor:
    sums = torch.zeros(rows, features.shape[1], device=cell.device).index_add(0, cell, features)
    return sums / _counts(cell, rows, torch.float32).clamp_min(1)[:, None]


def _largest(cell: Tensor, rows: int, features: Tensor) -> Tensor:
    lowest = torch.full((rows, features.shape[1]), -torch.inf, device=cell.device)
    best = lowest.scatter_reduce(0, cell[:, None].expand_as(features), features, "amax")
    return torch.where(best == -torch.inf, 0.0, best)


def _dense(case: VoxelCase, points: Tensor, features: Tensor | None) -> Any:
    cell = _cells(case, points)
    total, dtypes, made = case.batch * case.cells, dict(case.out), {}
    rows = None if features is None else features.reshape(-1, case.columns).float()
    shape = (case.batch, *case.size)
    for name in case.reduce:
        if name == "occupancy":
            made[name] = _occupancy(case, cell, dtypes.get(name, "bool"))
        elif name == "count":
            made[name] = _counts(cell, total + 1, torch.int32)[:total].view(shape)
        else:
            reduced = (_means if name == "mean" else _largest)(cell, total + 1, rows)
            made[name] = reduced[:total].view(*shape, case.columns)
    return made if len(case.reduce) > 1 else made[case.reduce[0]]


def _sparse(case: VoxelCase, points: Tensor, features: Tensor | None) -> tuple[Tensor, ...]:
    """As SparseVoxels, sorted: coords, features where asked, counts, num_voxels, inverse."""
    cell, device = _cells(case, points), points.device
    keep, columns = case.max_voxels, case.columns
    ordered, order = torch.sort(cell, stable=case.max_points > 0)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    sample = torch.div(ordered, case.cells, rounding_mode="floor").clamp_max(case.batch - 1)
    real = ordered < case.batch * case.cells
    voxel = torch.cumsum(new & real, 0) - 1
    begin = torch.searchsorted(ordered, torch.arange(case.batch + 1, device=device) * case.cells)  # of each sample
    before = torch.where(begin[:-1] > 0, voxel[(begin[:-1] - 1).clamp_min(0)] + 1, 0)  # voxels of the samples before
    found = voxel[(begin[1:] - 1).clamp_min(0)] + 1 - before
    row = voxel - before[sample]
    kept = real & (row < keep)
    flat = torch.where(kept, sample * keep + row, case.batch * keep)
    at = torch.full((case.batch * keep + 1,), -1, dtype=torch.int64, device=device)
    local = at.index_copy(0, flat, ordered)[:-1].view(case.batch, keep)
    empty = local < 0
    local = local - torch.arange(case.batch, device=device)[:, None] * case.cells
    x, yz = local // (case.size[1] * case.size[2]), local % (case.size[1] * case.size[2])
    coords = torch.stack([x, yz // case.size[2], yz % case.size[2]], dim=-1).int()
    coords = torch.where(empty[..., None], -1, coords)
    counts = _counts(flat, case.batch * keep + 1, torch.int32)[:-1].view(case.batch, keep)
    inverse = torch.full_like(flat, -1).index_copy(0, order, torch.where(kept, row, -1)).view(points.shape[:-1])
    if features is None:
        return coords, counts, found, inverse
    rows = features.reshape(-1, columns)
    if not case.max_points:
        means = _means(flat, case.batch * keep + 1, rows[order])[:-1].view(case.batch, keep, columns)
        return coords, means, counts, found, inverse
    place = torch.arange(ordered.shape[0], device=device)
    rank = place - torch.cummax(torch.where(new, place, 0), 0).values
    slot = torch.where(
        kept & (rank < case.max_points), flat * case.max_points + rank, case.batch * keep * case.max_points
    )
    gathered = torch.zeros(case.batch * keep * case.max_points + 1, columns, device=device)
    gathered = gathered.index_copy(0, slot, rows[order])[:-1].view(case.batch, keep, case.max_points, columns)
    return coords, gathered, counts.clamp_max(case.max_points), found, inverse


def _sample_places(case: VoxelCase, points: Tensor) -> Tensor:
    """Places for grid_sample: [B, 1, 1, N, 3] as z, y, x in [-1, 1]."""
    low = torch.tensor(case.grid_min, device=points.device)
    extent = torch.tensor([c * e for c, e in zip(case.size, case.voxel, strict=True)], device=points.device)
    return (((points - low) / extent) * 2 - 1).flip(-1)[:, None, None]


def _channels_first(case: VoxelCase, grid: Tensor) -> Tensor:
    return grid if case.layout == "channels_first" else grid.permute(0, 4, 1, 2, 3)


def obvious(case: VoxelCase) -> Callable[..., Any]:
    """The peer for a case, a function of `peer_arguments(inputs)`. Of a step, the forward half."""
    if case.op in ("dense", "step"):
        return lambda points, features: _dense(case, points, features)
    if case.op == "sparse":
        return lambda points, features: _sparse(case, points, features)
    if case.op == "images":
        return lambda depth, intrinsics, poses, color: _dense(case, _unproject(case, depth, intrinsics, poses), color)
    if case.op == "devoxelize":

        def read(grid: Tensor, places: Tensor) -> Tensor:
            got = torch.nn.functional.grid_sample(
                _channels_first(case, grid), places, "bilinear", "border", align_corners=False
            )
            return got[:, :, 0, 0].transpose(1, 2)  # [B, N, C], not copied

        return read
    if case.op == "devoxelize_backward":

        def read_backward(grad: Tensor, grid: Tensor, places: Tensor) -> list[Tensor]:
            shaped = grad.transpose(1, 2)[:, :, None, None]
            by_grid, by_places = torch.ops.aten.grid_sampler_3d_backward(
                shaped, _channels_first(case, grid), places, 0, 1, False, list(case.gradients)
            )
            by_grid = by_grid.permute(0, 2, 3, 4, 1)
            if not case.gradients[1]:
                return [by_grid]
            scale = [2 / (c * e) for c, e in zip(case.size, case.voxel, strict=True)]
            x, y, z = by_places[:, 0, 0].flip(-1).unbind(-1)
            return [by_grid, torch.stack([x * scale[0], y * scale[1], z * scale[2]], dim=-1)]

        return read_backward

    def backward(grad: Tensor, inverse: Tensor, counts: Tensor | None, arg: Tensor | None) -> Tensor:
        grad = grad.view(case.batch * case.cells, -1)
        row = inverse.flatten()
        got = grad.index_select(0, row)
        if counts is not None:
            return (got / counts.view(-1).index_select(0, row)[:, None]).view(*inverse.shape, -1)
        index = torch.arange(row.shape[0], device=grad.device)[:, None]
        chosen = arg.view(grad.shape).index_select(0, row) == index
        return torch.where(chosen, got, 0.0).view(*inverse.shape, -1)

    return backward


def bind_peer(function: Callable[..., Any], inputs: VoxelInputs) -> Callable[[], Any]:
    """`function`, which is `obvious(case)` or the same compiled, on one input set."""
    case = inputs.case
    if case.op == "images":
        return lambda: function(inputs.depth, inputs.intrinsics, inputs.poses, inputs.features)
    if case.op == "backward":
        return lambda: function(inputs.grad, inputs.inverse, inputs.counts, inputs.arg)
    if case.op in ("devoxelize", "devoxelize_backward"):
        given = [] if inputs.grad is None else [inputs.grad]
        given += [inputs.grid, _sample_places(case, inputs.points)]  # the places are made outside the clock
        return lambda: function(*given)
    if case.op == "step":

        def step() -> Tensor:
            with torch.enable_grad():
                features = inputs.features.detach().requires_grad_()
                return torch.autograd.grad(function(inputs.points, features), features, inputs.grad)[0]

        return step
    return lambda: function(inputs.points, inputs.features)


# ---- NumPy and SciPy -----------------------------------------------------------------------------------------------


def has_numpy(case: VoxelCase) -> bool:
    """True where the few lines of NumPy compute what the case asks."""
    plain = len(case.reduce) == 1 and case.batch == 1 and ("occupancy", "bits") not in case.out
    return case.op == "dense" and plain


def bind_numpy(inputs: VoxelInputs) -> Callable[[], Tensor]:
    """A one-sample dense call in NumPy: bincount for counts and sums, assignment, np.maximum.at."""
    case = inputs.case
    points = inputs.points[0].numpy()
    features = None if inputs.features is None else inputs.features[0].numpy()
    low, edge = np.asarray(case.grid_min, np.float32), np.asarray(case.voxel, np.float32)

    def call() -> Tensor:
        place = np.floor((points - low) / edge).astype(np.int64)
        inside = ((place >= 0) & (place < case.size)).all(axis=1)
        cell = np.ravel_multi_index(tuple(place[inside].T), case.size)
        name, total = case.reduce[0], case.cells
        if name == "occupancy":
            grid = np.zeros(total, np.uint8)
            grid[cell] = 1
        elif name == "count":
            grid = np.bincount(cell, minlength=total).astype(np.int32)
        elif name == "mean":
            counts = np.maximum(np.bincount(cell, minlength=total), 1)
            grid = np.empty((total, case.columns), np.float32)
            for column in range(case.columns):
                grid[:, column] = np.bincount(cell, features[inside, column], minlength=total) / counts
        else:
            grid = np.full((total, case.columns), -np.inf, np.float32)
            np.maximum.at(grid, cell, features[inside])
            grid[np.isneginf(grid)] = 0
        return torch.from_numpy(grid).view(1, *case.size, *grid.shape[1:])

    return call


def bind_scipy(inputs: VoxelInputs) -> Callable[[], Tensor]:
    """A one-sample count, mean or maximum by `scipy.stats.binned_statistic_dd`."""
    from scipy.stats import binned_statistic_dd

    case, name = inputs.case, inputs.case.reduce[0]
    points = inputs.points[0].numpy()
    values = np.zeros(len(points)) if inputs.features is None else inputs.features[0].numpy().T  # [C, N]
    low, edge = np.asarray(case.grid_min, np.float32), np.asarray(case.voxel, np.float32)
    faces = [np.arange(cells + 1.0) for cells in case.size]  # in cells, so that faces are whole numbers

    def call() -> Tensor:
        got = binned_statistic_dd((points - low) / edge, values, name, bins=faces).statistic
        if name == "count":
            return torch.from_numpy(got.astype(np.int32)).view(1, *case.size)
        grid = np.nan_to_num(np.moveaxis(got, 0, -1).astype(np.float32), copy=False)  # empty cells are NaN
        return torch.from_numpy(grid)[None]

    return call
