"""Point clouds to occupied cells alone on torch tensors: `voxelize_point_cloud_sparse`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling

from . import _dispatch
from ._checks import FLOAT_DTYPES
from ._fast import voxelize_sparse as _fast_voxelize_sparse
from ._kinds import choice
from ._voxel_call import call, prepare_cloud, prepare_features, prepare_grid, want_deterministic
from ._voxel_checks import dtype_name, grid_sizes, remembered, want_number, want_room, want_whole
from ._voxel_names import BOUNDS, DTYPES, FEATURED, ORDERS, REDUCES, output_dtypes, reductions
from .reference.align import to_dtype
from .voxelize import Numbers


class SparseVoxels(NamedTuple):
    """Occupied cells as rows of a fixed capacity V; without a batch, all but `inverse` have no B.

    Attributes:
        coords: [B, V, 3] int32: x, y, z; -1 in rows past the last voxel.
        features: [B, V, C]; a dict of them for several reductions; with `max_points` [B, V, P, C]; None without
            features. `empty_value` (with `max_points` 0) in rows past the last voxel.
        counts: [B, V] int32: points in the voxel; with `max_points` at most P.
        num_voxels: [B] int64: occupied cells, more than V where some were not kept.
        inverse: [B, N] or packed [N] int64: each point's row, -1 where it has none.
    """

    coords: Tensor
    features: Any
    counts: Tensor
    num_voxels: Tensor
    inverse: Tensor


class _Plan(NamedTuple):
    """What the options of a call decide, whatever its tensors hold."""

    names: tuple[str, ...]
    reduce: tuple[int, ...]
    numbers: tuple[int, ...]  # rc_dtype of each
    gathered: torch.dtype | None  # with max_points
    size: tuple[Any, Any, Any]
    voxels: int
    points: int
    order: int
    bounds: int


def _gathered_dtype(out_dtype: Any, own: torch.dtype) -> torch.dtype:
    if out_dtype is None:
        return own
    if not isinstance(out_dtype, torch.dtype) or dtype_name(out_dtype) not in (*FLOAT_DTYPES, dtype_name(own)):
        raise TypeError(
            f"out_dtype: expected a floating dtype or that of the features beside max_points, "
            f"got {dtype_name(out_dtype)}"
        )
    return out_dtype


def _plan(
    max_voxels: Any,
    max_points: Any,
    order: Any,
    reduce: Any,
    bounds: Any,
    out_dtype: Any,
    deterministic: Any,
    grid_size: Any,
    carried: tuple[torch.dtype, Any] | None,  # dtype and columns of what the voxels hold
    batch: Any,
    device: torch.device,
) -> _Plan:
    voxels = want_whole("max_voxels", max_voxels, 0)
    points = 0 if max_points is None else want_whole("max_points", max_points, 1)
    if points and reduce is not None:
        raise ValueError(f"reduce: expected None beside max_points, which lists points instead, got {reduce!r}")
    names: tuple[str, ...] = ()
    if reduce is not None or (carried is not None and not points):
        asked = "mean" if reduce is None else reduce
        names = reductions(asked, FEATURED, carried is not None, "features", "a torch.Tensor")
    own, columns = (None, 0) if carried is None else (dtype_name(carried[0]), carried[1])
    dtypes = output_dtypes(names, out_dtype, own, dtype_name) if names else []
    forms: list[tuple[tuple[Any, ...], str]] = [((batch, voxels, columns), dtype) for dtype in dtypes]
    forms += [((batch, voxels, 3), "int32"), ((batch, voxels), "int32")]
    gathered = None
    if points:
        assert carried is not None and own is not None
        gathered = _gathered_dtype(out_dtype, carried[0])
        forms.append(((batch, voxels, points, columns), own))
    elif out_dtype is not None and not names:
        raise TypeError(f"out_dtype: expected None without features, got {dtype_name(out_dtype)}")
    ordered, outside = choice("order", order, ORDERS), choice("bounds", bounds, BOUNDS)
    want_deterministic(deterministic)
    size = grid_sizes(grid_size, batch)
    want_room("max_voxels", lambda: f"{voxels} voxels of {batch} samples", forms, device)
    reduced = tuple([REDUCES[name] for name in ("count", *names)])
    numbers = tuple([DTYPES[dtype] for dtype in ("int32", *dtypes)])
    return _Plan(names, reduced, numbers, gathered, size, voxels, points, ordered, outside)


def voxelize_point_cloud_sparse(
    points: Tensor,
    features: Tensor | None = None,
    *,
    voxel_size: Numbers,
    grid_min: Numbers | str,
    grid_size: int | Sequence[int],
    max_voxels: int,
    max_points: int | None = None,
    order: str = "sorted",
    reduce: str | Sequence[str] | None = None,
    row_splits: Tensor | None = None,
    mask: Tensor | None = None,
    pose: Tensor | None = None,
    bounds: str = "drop",
    out_dtype: torch.dtype | Mapping[str, Any] | None = None,
    empty_value: float = 0,
    deterministic: bool | None = None,
    backend: str = "auto",
) -> SparseVoxels:
    """Gathers the points of each occupied cell into a row; cells without points take no memory.

    The number of rows is the caller's, and how many of them are voxels stays on the device: nothing waits for it, so
    the call can be captured in a CUDA graph.

    Args:
        points, features, voxel_size, grid_min, grid_size, row_splits, mask, pose, bounds, empty_value, deterministic,
            backend: as in `voxelize_point_cloud`, for one grid.
        max_voxels: V, rows for each sample. Of more voxels the first V in order are kept.
        max_points: P: give the first P points of each voxel, by index, instead of a reduction ("hard voxels", as in
            VoxelNet; Zhou and Tuzel, CVPR 2018). Without features their own coordinates are given.
        order: "sorted" (by cell), or "first_appearance" (by the lowest index of a cell's points).
        reduce: of the features, one name or several of "sum", "mean", "max", "min"; None is "mean" where there are
            features. None beside `max_points`.
        out_dtype: a floating dtype of the features that are returned, or a dict by name; beside `max_points` also the
            features' own.

    Returns:
        SparseVoxels(coords, features, counts, num_voxels, inverse); points [N, 3] give results without B.

    Raises:
        ValueError, TypeError, DataError: as in `voxelize_point_cloud`.

    Gradients reach `features`.

    Example:
        >>> points = torch.tensor([[2.5, 0.5, 0.5], [0.5, 0.5, 0.5], [2.6, 0.5, 0.5]])
        >>> marks = torch.tensor([[1.0], [2.0], [5.0]])
        >>> found = robocache.voxelize_point_cloud_sparse(
        ...     points, marks, voxel_size=1.0, grid_min=0.0, grid_size=4, max_voxels=3
        ... )
        >>> found.coords.tolist(), found.features.flatten().tolist(), int(found.num_voxels)
        ([[0, 0, 0], [2, 0, 0], [-1, -1, -1]], [2.0, 3.0, 0.0], 2)
    """
    if _dispatch.ACTIVE and _dispatch.considers(points) and (routed := _dispatch.route("voxelize_sparse", locals())):
        return routed.answer
    if not is_compiling():
        done = _fast_voxelize_sparse(
            points,
            features,
            voxel_size,
            grid_min,
            grid_size,
            max_voxels,
            max_points,
            order,
            reduce,
            row_splits,
            mask,
            pose,
            bounds,
            out_dtype,
            empty_value,
            deterministic,
            backend,
        )
        if done is not NotImplemented:
            return SparseVoxels._make(done)
    source = prepare_cloud(points, row_splits, mask, pose)
    carried = prepare_features("features", source, features)
    own = None if carried is None else (carried.dtype, carried.shape[-1])
    hard = own is None and max_points is not None  # voxels of bare points hold their coordinates
    own = (source.data.dtype, 3) if hard else own
    plan: _Plan = remembered(
        _plan, max_voxels, max_points, order, reduce, bounds, out_dtype, deterministic, grid_size, own, source.batch,
        source.data.device,
    )  # fmt: skip
    carried = source.data if hard else carried
    empty = want_number("empty_value", empty_value)
    grid = prepare_grid(source, voxel_size, grid_min)
    args: tuple[Any, ...] = (source.data, carried, plan.reduce, plan.numbers, plan.size, *grid, source.row_splits)
    args = (*args, source.mask, source.poses, plan.voxels, plan.points, plan.order, plan.bounds, empty, True)
    made = list(call("voxelize_sparse", backend, source.data.device, (carried,), args))
    coords, num_voxels, counts, *rest = made
    kept = len(plan.names) + (1 if plan.points else 0)
    outputs, inverse = rest[:kept], rest[kept].reshape(source.shape)
    if source.alone:
        coords, counts, num_voxels = coords.squeeze(0), counts.squeeze(0), num_voxels.reshape(())
        outputs = [one.squeeze(0) for one in outputs]
    told: Any = None
    if plan.gathered is not None:
        told = to_dtype(outputs[0], plan.gathered)
        counts = counts.clamp(max=plan.points)
    elif plan.names:
        single = reduce is None or isinstance(reduce, str)
        told = outputs[0] if single else dict(zip(plan.names, outputs, strict=True))
    return SparseVoxels(coords, told, counts, num_voxels, inverse)
