"""Depth images straight to dense grids on torch tensors: `voxelize_depth`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from . import _dispatch
from ._fast import voxelize_depth as _fast_voxelize_depth
from ._voxel_call import prepare_features, prepare_images
from ._voxel_dense import Options, run_dense
from .voxelize import Numbers


def voxelize_depth(
    depth: Tensor,
    intrinsics: Tensor,
    camera_to_grid: Tensor | None,
    color: Tensor | None = None,
    *,
    depth_scale: float = 1.0,
    mask: Tensor | None = None,
    voxel_size: Numbers | list[Numbers],
    grid_min: Numbers | str | list[Numbers | str],
    grid_size: int | Sequence[int] | list[Sequence[int]],
    reduce: str | Sequence[str] = "occupancy",
    bounds: str = "drop",
    layout: str = "channels_last",
    out_dtype: torch.dtype | str | Mapping[str, Any] | None = None,
    empty_value: float = 0,
    deterministic: bool | None = None,
    return_counts: bool = False,
    return_inverse: bool = False,
    return_dropped: bool = False,
    out: Tensor | Mapping[str, Tensor] | None = None,
    backend: str = "auto",
) -> Any:
    """Puts the pixels of depth images into the cells of a grid; the kernels store no points in between.

    Pixel (h, w) of depth d sees z = d * depth_scale, x = ((w - cx) * z) / fx, y = ((h - cy) * z) / fy in its camera's
    frame, every operation rounded to float32, and `camera_to_grid` moves that into the grid's frame. A depth that is
    zero, negative, NaN or infinite after scaling is no point.

    Args:
        depth: [H, W], [B, H, W], or [B, V, H, W] for V cameras that see one sample; uint16 or float32.
        intrinsics: pinhole cameras in pixels, [..., 3, 3] matrices or [..., 4] as fx, fy, cx, cy; dimensions that are
            left out in front, or are 1, are shared by samples or cameras.
        camera_to_grid: [..., 3, 4] or [..., 4, 4], likewise; None where cameras stand in the grid's frame.
        color: what the pixels carry, shaped as the depth and C columns; floating or uint8.
        depth_scale: meters (or what `voxel_size` is in) a unit of depth, 0.001 for millimeters.
        mask: bool, shaped as the depth: where a pixel counts.
        voxel_size, grid_min, grid_size, reduce, bounds, layout, out_dtype, empty_value, deterministic, return_counts,
            return_inverse, return_dropped, out, backend: as in `voxelize_point_cloud`; `reduce` is over `color`. The
            inverse is shaped as the depth. grid_min="auto" does make points in between.

    Returns:
        As `voxelize_point_cloud`; depth [H, W] gives results without B. The index of a pixel in its sample is
        (v * H + h) * W + w.

    Raises:
        ValueError, TypeError, DataError: as in `voxelize_point_cloud`.

    Gradients reach `color`.

    Example:
        >>> depth = torch.tensor([[1000, 2000], [0, 1000]], dtype=torch.uint16)  # millimeters
        >>> camera = torch.tensor([2.0, 2.0, 0.5, 0.5])
        >>> grid = robocache.voxelize_depth(
        ...     depth, camera, None, depth_scale=0.001, voxel_size=1.0, grid_min=(-1.0, -1.0, 0.0), grid_size=(2, 2, 3)
        ... )
        >>> grid.nonzero().tolist()
        [[0, 0, 1], [1, 0, 2], [1, 1, 1]]
    """
    if _dispatch.ACTIVE and _dispatch.considers(depth) and (routed := _dispatch.route("voxelize_depth", locals())):
        return routed.answer
    if not is_compiling():
        done = _fast_voxelize_depth(
            depth,
            intrinsics,
            camera_to_grid,
            color,
            depth_scale,
            mask,
            voxel_size,
            grid_min,
            grid_size,
            reduce,
            bounds,
            layout,
            out_dtype,
            empty_value,
            deterministic,
            return_counts,
            return_inverse,
            return_dropped,
            out,
            backend,
        )
        if done is not NotImplemented:
            return done
    source = prepare_images(depth, intrinsics, camera_to_grid, depth_scale, mask)
    options = Options(
        *(voxel_size, grid_min, grid_size, reduce, bounds, layout, out_dtype, empty_value, deterministic),
        *(return_counts, return_inverse, return_dropped, out, backend),
    )
    return run_dense(source, prepare_features("color", source, color), "color", options)
