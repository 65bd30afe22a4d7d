"""Point clouds to dense grids on torch tensors: `voxelize_point_cloud`, and `auto_grid_min` for grids that begin where
the points do.

A call goes the shortest way there is. Plain eager tensors without gradients go straight into the native library
(`_fast`); everything else is checked here, brought into the form of torch.ops.robocache and computed there;
backend="torch" is the plain torch reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from . import _dispatch
from ._fast import voxelize as _fast_voxelize
from ._voxel_call import lowest_corners, prepare_cloud, prepare_features, voxel_table
from ._voxel_checks import per_axis, want_device
from ._voxel_dense import Options, run_dense

Numbers = float | Sequence[float] | Tensor


def voxelize_point_cloud(
    points: Tensor,
    features: Tensor | None = None,
    *,
    voxel_size: Numbers | list[Numbers],
    grid_min: Numbers | str | list[Numbers | str],
    grid_size: int | Sequence[int] | list[Sequence[int]],
    reduce: str | Sequence[str] = "occupancy",
    row_splits: Tensor | None = None,
    mask: Tensor | None = None,
    pose: Tensor | None = None,
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
    """Puts points into the cells of a grid, in one pass for any number of reductions.

    Along each axis a point has the place q = floor((p - grid_min) / voxel_size), with IEEE subtraction and division in
    float64 for float64 points and in float32 for others. It lies in the grid where 0 <= q < size on all three axes, and
    its cell is (x * Y + y) * Z + z. This index is the same to the bit on every backend, and so are all results.

    Args:
        points: [N, 3], [B, N, 3], or packed [N, 3] with `row_splits`; float16, bfloat16, float32 or float64, any
            strides, in the unit of `voxel_size`.
        features: what the points carry, [N, C] or [B, N, C], floating or uint8. float64 computes in float64, others in
            float32.
        voxel_size: edge of a cell: a number, three (x, y, z), or a tensor [3] or [B, 3] that stays on its device.
        grid_min: the grid's lower corner, likewise; or "auto": for each sample the least coordinates of its points, as
            `auto_grid_min` gives them.
        grid_size: cells along x, y and z: a number or three, 1 to 2^24 each. A list of triples asks for several grids
            of one cloud; `voxel_size` and `grid_min` may then be lists of the same length.
        reduce: what a cell holds, one name or several: "occupancy" (1 where a point lies), "count", and of the
            features, column by column, "sum", "mean", "max", "min". A NaN feature makes its cell's column NaN; ties of
            max and min go to the lowest index, which gets the gradient.
        row_splits: [B + 1], integer: sample b is points row_splits[b] to row_splits[b + 1]. Points before the first and
            past the last count nowhere.
        mask: bool, shaped as the points without their axis: where a point counts.
        pose: [3, 4] or [4, 4] for all samples, [B, 3, 4] or [B, 4, 4]: points become R p + t first.
        bounds: points outside the grid: "drop"; "clamp" (they count in the nearest cell, NaN is dropped); "raise".
        layout: "channels_last" [B, X, Y, Z, C] or "channels_first" [B, C, X, Y, Z].
        out_dtype: a dtype, for every output that can have it; "bits" (occupancy, eight cells along z a byte, the first
            in the lowest bit: [B, X, Y, ceil(Z / 8)] uint8); or a dict of them by name. Without it occupancy is bool,
            count int32, and the others are of the features' dtype (float32 for uint8). Occupancy and count may be of
            any dtype (integers hold at their largest), the others floating.
        empty_value: what stands in sum, mean, max and min of a cell without points.
        deterministic: either setting gives the same bits: sums always run in one fixed order.
        return_counts: also return the counts, int32 [B, X, Y, Z].
        return_inverse: also return each point's cell in its sample or -1, int64, shaped as `mask`.
        return_dropped: also return how many points of each sample lie outside (where clamped, too), int64 [B]; masked
            points are not among them.
        out: grids to add to (a dict of them for several names): occupancy sets 1 and leaves the rest, counts are added.
            Only these two; contiguous; returned again.
        backend: "auto" (the native kernels for the tensors' device; host tensors go through a GPU and back where that
            takes less time, see `robocache.explain`), "cpu", "cuda", or "torch" (the plain torch reference). A backend
            that is named and cannot run raises.

    Returns:
        Occupancy and count [B, X, Y, Z], the others [B, X, Y, Z, C]; points [N, 3] give results without B. A dict by
        name where `reduce` is a sequence, a list of results for several grids. With extras a tuple: the grid, then
        counts, inverse and dropped, those that were asked for.

    Raises:
        ValueError, TypeError: an argument does not fit, with its name, what was expected and what came; also when the
            grid needs more memory than there is, with its bytes.
        DataError: a point outside under bounds="raise", a voxel size in a tensor that is not finite and positive, a
            corner that is not finite, row_splits that decrease. On CUDA this is deferred: `robocache.check()` raises
            it, and the points are dropped.

    Gradients reach `features`.

    Example:
        >>> points = torch.tensor([[0.1, 0.1, 0.1], [0.2, 0.1, 0.1], [1.5, 0.1, 0.1]])
        >>> robocache.voxelize_point_cloud(points, voxel_size=1.0, grid_min=0.0, grid_size=(2, 1, 1), reduce="count")
        tensor([[[2]],
        <BLANKLINE>
                [[1]]], dtype=torch.int32)
    """
    if _dispatch.ACTIVE and _dispatch.considers(points) and (routed := _dispatch.route("voxelize", locals())):
        return routed.answer
    if not is_compiling():
        done = _fast_voxelize(
            points,
            features,
            row_splits,
            mask,
            pose,
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
    source = prepare_cloud(points, row_splits, mask, pose)
    options = Options(
        *(voxel_size, grid_min, grid_size, reduce, bounds, layout, out_dtype, empty_value, deterministic),
        *(return_counts, return_inverse, return_dropped, out, backend),
    )
    return run_dense(source, prepare_features("features", source, features), "features", options)


def auto_grid_min(
    points: Tensor,
    voxel_size: Numbers,
    row_splits: Tensor | None = None,
    mask: Tensor | None = None,
    pose: Tensor | None = None,
) -> Tensor:
    """The corner of a grid that begins where the points do, snapped down to a whole number of voxels.

    floor(min / voxel_size) * voxel_size along each axis, over the points of a sample that are not masked and finite,
    after the pose. Plain torch; nothing waits for the device.

    Args:
        points, voxel_size, row_splits, mask, pose: as in `voxelize_point_cloud`.

    Returns:
        [B, 3], [3] for points [N, 3]; float64 for float64 points, else float32. 0 for a sample without such points.

    Raises:
        ValueError, TypeError: an argument does not fit, with its name, what was expected and what came.

    Example:
        >>> robocache.auto_grid_min(torch.tensor([[0.9, 2.3, -0.2], [1.4, 2.0, 5.0]]), 0.5)
        tensor([ 0.5000,  2.0000, -0.5000])
    """
    source = prepare_cloud(points, row_splits, mask, pose)
    numbers, table = per_axis("voxel_size", voxel_size, source.batch, source.alone, source.compute, True)
    want_device("voxel_size", table, "points", source.data.device)
    corners = lowest_corners(source, voxel_table(source, numbers, table))
    return corners.squeeze(0) if source.alone else corners
