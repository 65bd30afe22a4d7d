"""`voxelize_point_cloud`, `voxelize_point_cloud_sparse`, `voxelize_depth`, `devoxelize` and `auto_grid_min` on arrays:
what robocache.numpy has of robocache/voxelize.py and its neighbours. torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import _native
from ._arrays import as_array, dtype_name, thread_count
from ._checks import FLOAT_DTYPES, VALUE_DTYPES, shape_text
from ._kinds import choice
from ._numpy_dense import run_dense
from ._voxel_arrays import (
    asked_name,
    empty_number,
    grid_sizes,
    lowest_corners,
    made,
    pair,
    prepare_cloud,
    prepare_features,
    prepare_grid,
    prepare_images,
    voxel_rows,
    want_dtype,
    want_room,
)
from ._voxel_names import BOUNDS, DTYPES, FEATURED, LAYOUTS, MODES, ORDERS, REDUCES, output_dtypes, reductions


class SparseVoxels(NamedTuple):
    """Occupied cells as rows of a fixed capacity; see `robocache.SparseVoxels`."""

    coords: Any
    features: Any
    counts: Any
    num_voxels: Any
    inverse: Any


def voxelize_point_cloud(
    points: ArrayLike,
    features: ArrayLike | None = None,
    *,
    voxel_size: Any,
    grid_min: Any,
    grid_size: Any,
    reduce: str | Sequence[str] = "occupancy",
    row_splits: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    pose: ArrayLike | None = None,
    bounds: str = "drop",
    layout: str = "channels_last",
    out_dtype: Any = None,
    empty_value: float = 0,
    return_counts: bool = False,
    return_inverse: bool = False,
    return_dropped: bool = False,
    out: Any = None,
    threads: int | None = None,
) -> Any:
    """Points to a grid; see `robocache.voxelize_point_cloud`.

    Args:
        points, features, voxel_size, grid_min, grid_size, reduce, row_splits, mask, pose, bounds, layout, empty_value,
            return_counts, return_inverse, return_dropped, out: as there, arrays for tensors.
        out_dtype: a NumPy dtype, "bits", or a dict of them by name.
        threads: at most this many. None: one for each core where there is much to do, else 1.

    Returns:
        [B, X, Y, Z] or [B, X, Y, Z, C], for points [N, 3] without B; a dict of them for several names, and a tuple
        with what else was asked for behind it.

    Raises:
        ValueError, TypeError: an argument does not fit.
        DataError: the data breaks a promise.
    """
    source = prepare_cloud(points, row_splits, mask, pose)
    options = {
        "voxel_size": voxel_size,
        "grid_min": grid_min,
        "grid_size": grid_size,
        "reduce": reduce,
        "bounds": bounds,
        "layout": layout,
        "out_dtype": out_dtype,
        "empty_value": empty_value,
        "return_counts": return_counts,
        "return_inverse": return_inverse,
        "return_dropped": return_dropped,
        "out": out,
        "threads": threads,
    }
    return run_dense(source, prepare_features("features", source, features), "features", options)


def voxelize_depth(
    depth: ArrayLike,
    intrinsics: ArrayLike,
    camera_to_grid: ArrayLike | None,
    color: ArrayLike | None = None,
    *,
    depth_scale: float = 1.0,
    mask: ArrayLike | None = None,
    voxel_size: Any,
    grid_min: Any,
    grid_size: Any,
    reduce: str | Sequence[str] = "occupancy",
    bounds: str = "drop",
    layout: str = "channels_last",
    out_dtype: Any = None,
    empty_value: float = 0,
    return_counts: bool = False,
    return_inverse: bool = False,
    return_dropped: bool = False,
    out: Any = None,
    threads: int | None = None,
) -> Any:
    """Depth images to a grid; see `robocache.voxelize_depth`. `out_dtype` and `threads` as in
    `voxelize_point_cloud`."""
    source = prepare_images(depth, intrinsics, camera_to_grid, depth_scale, mask)
    options = {
        "voxel_size": voxel_size,
        "grid_min": grid_min,
        "grid_size": grid_size,
        "reduce": reduce,
        "bounds": bounds,
        "layout": layout,
        "out_dtype": out_dtype,
        "empty_value": empty_value,
        "return_counts": return_counts,
        "return_inverse": return_inverse,
        "return_dropped": return_dropped,
        "out": out,
        "threads": threads,
    }
    return run_dense(source, prepare_features("color", source, color), "color", options)


def voxelize_point_cloud_sparse(
    points: ArrayLike,
    features: ArrayLike | None = None,
    *,
    voxel_size: Any,
    grid_min: Any,
    grid_size: Any,
    max_voxels: int,
    max_points: int | None = None,
    order: str = "sorted",
    reduce: str | Sequence[str] | None = None,
    row_splits: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    pose: ArrayLike | None = None,
    bounds: str = "drop",
    out_dtype: Any = None,
    empty_value: float = 0,
    threads: int | None = None,
) -> SparseVoxels:
    """Points to occupied cells; see `robocache.voxelize_point_cloud_sparse`. `out_dtype` and `threads` as in
    `voxelize_point_cloud`."""
    source = prepare_cloud(points, row_splits, mask, pose)
    carried = prepare_features("features", source, features)
    voxels = _count("max_voxels", max_voxels, 0)
    per_voxel = 0 if max_points is None else _count("max_points", max_points, 1)
    if per_voxel and reduce is not None:
        raise ValueError(f"reduce: expected None beside max_points, which lists points instead, got {reduce!r}")
    if per_voxel and carried is None:
        carried = prepare_features("points", source, points)
    names: tuple[str, ...] = ()
    if reduce is not None or (carried is not None and not per_voxel):
        names = reductions("mean" if reduce is None else reduce, FEATURED, carried is not None, "features", "an array")
    own = None if carried is None else dtype_name(carried.dtype)
    batch, columns = source.batch, 0 if carried is None else carried.shape[-1]
    size = grid_sizes(grid_size, batch)
    dtypes = dict(zip(names, output_dtypes(names, out_dtype, own, asked_name) if names else (), strict=True))
    forms: dict[str, tuple[tuple[int, ...], str]] = {n: ((batch, voxels, columns), d) for n, d in dtypes.items()}
    forms |= {"coords": ((batch, voxels, 3), "int32"), "counts": ((batch, voxels), "int32")}
    if per_voxel:
        listed = own if out_dtype is None else asked_name(out_dtype)
        if listed != own and listed not in FLOAT_DTYPES:
            raise TypeError(
                f"out_dtype: expected a floating dtype or that of the features beside max_points, got {listed}"
            )
        forms["gathered"] = ((batch, voxels, per_voxel, columns), str(listed))
    elif out_dtype is not None and not names:
        raise TypeError(f"out_dtype: expected None without features, got {out_dtype!r}")
    want_room("max_voxels", f"{voxels} voxels of {batch} samples", list(forms.values()))
    brought = [*(out_dtype.values() if isinstance(out_dtype, Mapping) else (out_dtype,))]
    brought += [] if carried is None else [carried.dtype]
    outputs = {name: made(shape, dtype, brought) for name, (shape, dtype) in forms.items()}
    num_voxels, inverse = np.empty(batch, np.int64), np.empty(source.shape, np.int64)
    arguments = source.arguments | prepare_grid(source, voxel_size, grid_min, size)
    arguments |= {
        "bounds": choice("bounds", bounds, BOUNDS),
        "order": choice("order", order, ORDERS),
        "empty_value": empty_number(empty_value),
        "outputs": [(REDUCES[name], outputs[name], DTYPES[dtypes[name]]) for name in names]
        + [(REDUCES["count"], outputs["counts"], DTYPES["int32"])],
        "inverse": pair(source.widened(inverse)),
        "max_voxels": voxels,
        "coords": pair(outputs["coords"]),
        "num_voxels": pair(num_voxels),
        "max_points": per_voxel,
        "gathered": pair(outputs["gathered"]) if per_voxel else None,
    }
    work = sum(array.nbytes for array in outputs.values()) + int(np.prod(source.shape)) * 64
    _native.voxelize_sparse_arrays(arguments, thread_count(threads, work))
    if per_voxel:
        np.minimum(outputs["counts"], per_voxel, out=outputs["counts"])
    if source.alone:
        outputs = {name: array[0] for name, array in outputs.items()}
    told: Any = outputs["gathered"] if per_voxel else None
    if names:
        single = reduce is None or isinstance(reduce, str)
        told = outputs[names[0]] if single else {name: outputs[name] for name in names}
    number = num_voxels.reshape(()) if source.alone else num_voxels
    return SparseVoxels(outputs["coords"], told, outputs["counts"], number, inverse)


def _count(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected a whole number, got {type(value).__name__}")
    if not least <= value < 2**31:
        raise ValueError(f"{name}: expected {least} to 2147483647, got {value}")
    return int(value)


def devoxelize(
    grid: ArrayLike,
    points: ArrayLike,
    *,
    voxel_size: Any,
    grid_min: Any,
    mode: str = "trilinear",
    layout: str = "channels_last",
    row_splits: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    pose: ArrayLike | None = None,
    bounds: str = "drop",
    empty_value: float = 0,
    out_dtype: Any = None,
    threads: int | None = None,
) -> Any:
    """A grid read at points; see `robocache.devoxelize`. `threads` as in `voxelize_point_cloud`."""
    source = prepare_cloud(points, row_splits, mask, pose)
    values = as_array("grid", grid)
    kind = choice("mode", mode, MODES)
    want_dtype("grid", values, FLOAT_DTYPES if kind else VALUE_DTYPES)
    first = bool(choice("layout", layout, LAYOUTS))
    symbols = "C, X, Y, Z" if first else "X, Y, Z, C"
    told = f"[{symbols}]" if source.alone else f"[B, {symbols}] of {source.batch} samples"
    if values.ndim != (4 if source.alone else 5) or (not source.alone and values.shape[0] != source.batch):
        raise ValueError(f"grid: expected {told}, got {shape_text(values.shape)}")
    values = values[None] if source.alone else values
    values = np.moveaxis(values, 1, -1) if first else values
    if 0 in values.shape[1:4]:
        raise ValueError(f"grid: expected at least one cell along each axis, got {shape_text(np.shape(grid))}")
    own = dtype_name(values.dtype)
    asked = own if out_dtype is None else asked_name(out_dtype)
    if asked not in (FLOAT_DTYPES if own in FLOAT_DTYPES else (own,)):
        expected = "a floating dtype" if own in FLOAT_DTYPES else own
        raise TypeError(f"out_dtype: expected {expected} for a grid of {own}, got {asked}")
    out = made((*source.shape, values.shape[-1]), asked, (out_dtype, values.dtype))
    arguments = source.arguments | prepare_grid(
        source, voxel_size, grid_min, grid_sizes(values.shape[1:4], source.batch)
    )
    arguments |= {
        "mode": kind,
        "bounds": choice("bounds", bounds, BOUNDS),
        "values": pair(values),
        "empty_value": empty_number(empty_value),
        "out": pair(source.widened(out)),
    }
    work = out.nbytes * 8 + int(np.prod(source.shape)) * 16
    _native.devoxelize_arrays(arguments, thread_count(threads, work))
    return out


def auto_grid_min(
    points: ArrayLike,
    voxel_size: Any,
    row_splits: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    pose: ArrayLike | None = None,
) -> Any:
    """The corner of a grid that begins where the points do: [B, 3], [3] for points [N, 3]; see
    `robocache.auto_grid_min`."""
    source = prepare_cloud(points, row_splits, mask, pose)
    corners = lowest_corners(source, voxel_rows(source, voxel_size))
    return corners[0] if source.alone else corners
