"""Values of a grid at points on torch tensors: `devoxelize`."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.compiler import is_compiling

from . import _dispatch
from ._checks import FLOAT_DTYPES, VALUE_DTYPES, shape_text
from ._fast import devoxelize as _fast_devoxelize
from ._kinds import choice
from ._voxel_call import call, prepare_cloud, prepare_grid
from ._voxel_checks import dtype_name, grid_sizes, want_device, want_number, want_tensor
from ._voxel_names import BOUNDS, LAYOUTS, MODES
from .voxelize import Numbers


def _grid_of(grid: Tensor, alone: bool, batch: int, first: bool) -> Tensor:
    """The grid as [B, X, Y, Z, C]."""
    if grid.ndim != (4 if alone else 5) or (not alone and grid.shape[0] != batch):
        symbols = "C, X, Y, Z" if first else "X, Y, Z, C"
        told = f"[{symbols}]" if alone else f"[B, {symbols}] of {batch} samples"
        raise ValueError(f"grid: expected {told}, got {shape_text(grid.shape)}")
    values = grid.unsqueeze(0) if alone else grid
    values = values.permute(0, 2, 3, 4, 1) if first else values
    if values.shape[1] == 0 or values.shape[2] == 0 or values.shape[3] == 0:
        raise ValueError(f"grid: expected at least one cell along each axis, got {shape_text(grid.shape)}")
    return values


def devoxelize(
    grid: Tensor,
    points: Tensor,
    *,
    voxel_size: Numbers,
    grid_min: Numbers | str,
    mode: str = "trilinear",
    layout: str = "channels_last",
    row_splits: Tensor | None = None,
    mask: Tensor | None = None,
    pose: Tensor | None = None,
    bounds: str = "drop",
    empty_value: float = 0,
    out_dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> Tensor:
    """Reads a grid at points: the way back from `voxelize_point_cloud`.

    "nearest" gives the value of the point's cell. "trilinear" blends the eight cell centres around it: with t =
    (p - grid_min) / voxel_size - 0.5 and w = t - floor(t), v0 + w * (v1 - v0) along z, then y, then x, each operation
    rounded in float32 (float64 for float64 points or values), then once to the output. Towards a face the outermost
    centre holds.

    Args:
        grid: [X, Y, Z, C] for points [N, 3], else [B, X, Y, Z, C], any strides; floating, for "nearest" also bool and
            integers.
        points: [N, 3], [B, N, 3], or packed [N, 3] with `row_splits`; floating.
        voxel_size, grid_min, row_splits, mask, pose: as in `voxelize_point_cloud`.
        mode: "trilinear" or "nearest".
        layout: "channels_last", or "channels_first" for a grid [B, C, X, Y, Z].
        bounds: points outside the grid: "drop" (they get `empty_value`), "clamp" (the nearest cell's value; trilinear
            at the nearest place in the grid), "raise".
        empty_value: what stands at points outside the grid and at masked ones.
        out_dtype: floating, of a floating grid; that of the grid where None.
        backend: as in `voxelize_point_cloud`.

    Returns:
        [N, C] or [B, N, C].

    Raises:
        ValueError, TypeError, DataError: as in `voxelize_point_cloud`.

    Gradients reach `grid`, and `points` where the mode is trilinear.

    Example:
        >>> grid = torch.tensor([0.0, 10.0]).reshape(2, 1, 1, 1)
        >>> points = torch.tensor([[0.5, 0.5, 0.5], [1.0, 0.5, 0.5], [1.9, 0.5, 0.5]])
        >>> robocache.devoxelize(grid, points, voxel_size=1.0, grid_min=0.0).flatten()
        tensor([ 0.,  5., 10.])
    """
    if _dispatch.ACTIVE and _dispatch.considers(points) and (routed := _dispatch.route("devoxelize", locals())):
        return routed.answer
    if not is_compiling():
        done = _fast_devoxelize(
            grid,
            points,
            voxel_size,
            grid_min,
            mode,
            layout,
            row_splits,
            mask,
            pose,
            bounds,
            empty_value,
            out_dtype,
            backend,
        )
        if done is not NotImplemented:
            return cast(Tensor, done)
    source = prepare_cloud(points, row_splits, mask, pose)
    kind, outside = choice("mode", mode, MODES), choice("bounds", bounds, BOUNDS)
    first = bool(choice("layout", layout, LAYOUTS))
    values = want_tensor("grid", grid, FLOAT_DTYPES if kind else VALUE_DTYPES)
    want_device("grid", values, "points", source.data.device)
    values = _grid_of(values, source.alone, source.batch, first)
    grid_sizes(tuple(values.shape[1:4]), source.batch)
    if out_dtype is not None:
        floating = values.dtype.is_floating_point
        told = "a floating dtype" if floating else dtype_name(values.dtype)
        if dtype_name(out_dtype) not in (FLOAT_DTYPES if floating else (dtype_name(values.dtype),)):
            raise TypeError(
                f"out_dtype: expected {told} for a grid of {dtype_name(values.dtype)}, got {dtype_name(out_dtype)}"
            )
    empty = want_number("empty_value", empty_value)
    frame = prepare_grid(source, voxel_size, grid_min)
    # Told only where it differs from the grid's: AOTInductor of torch 2.10 misreads a dtype among the arguments.
    asked = None if out_dtype == values.dtype else out_dtype
    args = (values, source.data, kind, *frame, source.row_splits, source.mask, source.poses, outside, empty, asked)
    made: Tensor = call("devoxelize", backend, source.data.device, (values, source.data), args)
    return made.squeeze(0) if source.alone else made
