"""Points, images, frames and outputs of a voxel call as native code takes them: arrays in batched forms.

Part of the NumPy door; torch is not imported. What is prepared here goes into the dict of arguments that
robocache._native reads (csrc/python/voxel_numpy.cpp), an array beside its dtype's number.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._arrays import as_array, dtype_name, index_vector
from ._checks import FLOAT_DTYPES, INDEX_DTYPES, shape_text
from ._voxel_names import DTYPES, FEATURE_DTYPES, want_cells

Array = NDArray[Any]


@dataclass
class Points:
    """Where the points of a call come from: a cloud or depth images."""

    arguments: dict[str, Any]  # what native code takes of them
    lead: tuple[int, ...]  # the caller's dimensions before those of a sample's own points
    shape: tuple[int, ...]  # of one number a point, as the caller has it
    batch: int
    alone: bool  # results have no batch dimension
    images: bool
    compute: np.dtype[Any]

    def widened(self, array: Array) -> Array:
        """An array of one row a point as native code has it: [B, N, ..], packed [N, ..], [B, V, H, W, ..]."""
        if not self.images:
            return array[None] if self.alone else array
        wide = array[None, None] if not self.lead else array[:, None] if len(self.lead) == 1 else array
        # Pixels must walk with one stride; other images are copied.
        in_line = wide.shape[2] <= 1 or wide.strides[2] == wide.shape[3] * wide.strides[3]
        return wide if in_line else np.ascontiguousarray(wide)


def pair(array: Array) -> tuple[Array, int]:
    return array, DTYPES[dtype_name(array.dtype)]


def want_shape(name: str, symbols: str, sizes: Sequence[int], array: Array) -> None:
    if array.shape != tuple(sizes):
        raise ValueError(f"{name}: expected {symbols} = {shape_text(sizes)}, got {shape_text(array.shape)}")


def want_dtype(name: str, array: Array, dtypes: Sequence[str]) -> None:
    if dtype_name(array.dtype) not in dtypes:
        told = "an integer dtype" if dtypes is INDEX_DTYPES else ", ".join(dtypes)
        raise TypeError(f"{name}: expected {told}, got {dtype_name(array.dtype)}")


def _masked(points: Points, mask: Any) -> None:
    if mask is not None:
        array = as_array("mask", mask)
        want_dtype("mask", array, ("bool",))
        want_shape("mask", "the points' shape" if not points.images else "the depth's shape", points.shape, array)
        points.arguments["mask"] = pair(points.widened(array))


def _transforms(name: str, value: Any, lead: tuple[int, ...], compute: np.dtype[Any]) -> Array:
    """Poses [*lead, 3, 4] of the compute dtype, shared where the caller's have fewer dimensions."""
    array = as_array(name, value)
    want_dtype(name, array, FLOAT_DTYPES)
    if array.ndim < 2 or array.shape[-2:] not in ((3, 4), (4, 4)):
        raise ValueError(f"{name}: expected [..., 3, 4] or [..., 4, 4], got {shape_text(array.shape)}")
    try:
        return np.broadcast_to(np.ascontiguousarray(array[..., :3, :], dtype=compute), (*lead, 3, 4))
    except ValueError:
        wanted = shape_text([*lead, 3, 4])
        raise ValueError(f"{name}: expected what spreads to {wanted}, got {shape_text(array.shape)}") from None


def prepare_cloud(points: Any, row_splits: Any, mask: Any, pose: Any) -> Points:
    array = as_array("points", points)
    want_dtype("points", array, FLOAT_DTYPES)
    packed = row_splits is not None
    if array.ndim not in ((2,) if packed else (2, 3)) or array.shape[-1] != 3:
        symbols = "[N, 3] beside row_splits" if packed else "[N, 3] or [B, N, 3]"
        raise ValueError(f"points: expected {symbols}, got {shape_text(array.shape)}")
    compute = np.dtype(np.float64 if array.dtype == np.float64 else np.float32)
    alone = array.ndim == 2 and not packed
    arguments: dict[str, Any] = {}
    batch = 1 if alone else array.shape[0]
    if packed:
        splits = as_array("row_splits", row_splits)
        want_dtype("row_splits", splits, INDEX_DTYPES)
        if splits.ndim != 1 or splits.shape[0] < 1:
            raise ValueError(f"row_splits: expected [B + 1], at least one offset, got {shape_text(splits.shape)}")
        batch = splits.shape[0] - 1
        arguments["row_splits"] = pair(index_vector(splits))  # type: ignore[arg-type]
    lead = () if alone else (batch,)
    made = Points(arguments, lead, array.shape[:-1], batch, alone, False, compute)
    arguments["points"] = pair(made.widened(array))
    arguments["batch"] = batch
    _masked(made, mask)
    if pose is not None:
        transforms = _transforms("pose", pose, lead, compute)
        arguments["poses"] = pair(transforms[None] if alone else transforms)
    return made


def _cameras(intrinsics: Any, lead: tuple[int, ...]) -> Array:
    """Intrinsics [*lead, 4] float32: fx, fy, cx, cy."""
    array = as_array("intrinsics", intrinsics)
    want_dtype("intrinsics", array, FLOAT_DTYPES)
    if array.ndim >= 2 and array.shape[-2:] == (3, 3):
        array = np.stack([array[..., 0, 0], array[..., 1, 1], array[..., 0, 2], array[..., 1, 2]], axis=-1)
    elif array.ndim < 1 or array.shape[-1] != 4:
        raise ValueError(f"intrinsics: expected [..., 3, 3] or [..., 4], got {shape_text(array.shape)}")
    try:
        return np.broadcast_to(np.ascontiguousarray(array, dtype=np.float32), (*lead, 4))
    except ValueError:
        wanted = shape_text([*lead, 4])
        raise ValueError(f"intrinsics: expected what spreads to {wanted}, got {shape_text(array.shape)}") from None


def prepare_images(depth: Any, intrinsics: Any, camera_to_grid: Any, depth_scale: Any, mask: Any) -> Points:
    array = as_array("depth", depth)
    want_dtype("depth", array, ("uint16", "float32"))
    if not 2 <= array.ndim <= 4:
        raise ValueError(f"depth: expected [H, W], [B, H, W] or [B, V, H, W], got {shape_text(array.shape)}")
    if isinstance(depth_scale, bool) or not isinstance(depth_scale, (int, float, np.number)):
        raise TypeError(f"depth_scale: expected a number, got {type(depth_scale).__name__}")
    lead = array.shape[:-2]
    batch = lead[0] if lead else 1
    made = Points({"batch": batch}, lead, array.shape, batch, not lead, True, np.dtype(np.float32))

    def per_camera(rows: Array) -> Array:
        return rows[None, None] if not lead else rows[:, None] if len(lead) == 1 else rows

    made.arguments["depth"] = pair(made.widened(array))
    made.arguments["depth_scale"] = float(depth_scale)
    made.arguments["intrinsics"] = pair(per_camera(_cameras(intrinsics, lead)))
    if camera_to_grid is not None:
        made.arguments["poses"] = pair(per_camera(_transforms("camera_to_grid", camera_to_grid, lead, made.compute)))
    _masked(made, mask)
    return made


def prepare_features(name: str, points: Points, features: Any) -> Array | None:
    """The caller's features as an array; native code gets them too."""
    if features is None:
        return None
    array = as_array(name, features)
    want_dtype(name, array, FEATURE_DTYPES)
    of = "depth" if points.images else "points"
    if array.ndim != len(points.shape) + 1:
        raise ValueError(f"{name}: expected the shape of {of} and columns behind, got {shape_text(array.shape)}")
    want_shape(name, f"the shape of {of} and C", (*points.shape, array.shape[-1]), array)
    points.arguments["features"] = pair(points.widened(array))
    return array


# ---- The grid -------------------------------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _per_axis(name: str, value: Any, points: Points, positive: bool) -> tuple[tuple[float, ...], Array | None]:
    """Three numbers of all samples, or an array [B, 3] in the compute dtype."""
    numbers: tuple[Any, ...] = ()
    if _is_number(value):
        numbers = (value,) * 3
    elif isinstance(value, (list, tuple)) and len(value) == 3 and all(_is_number(one) for one in value):
        numbers = tuple(value)
    if numbers:
        constants = tuple(float(one) for one in numbers)
        with np.errstate(over="ignore", under="ignore"):
            rounded = np.array(constants).astype(points.compute)
        if not (np.isfinite(rounded).all() and ((rounded > 0).all() or not positive)):
            kind = "finite numbers above 0" if positive else "finite numbers"
            raise ValueError(f"{name}: expected {kind} (in {points.compute.name}), got {value!r}")
        return constants, None
    array = as_array(name, value)
    want_dtype(name, array, (*FLOAT_DTYPES, *INDEX_DTYPES) if array.dtype.kind in "iu" else FLOAT_DTYPES)
    if array.shape not in ((), (3,)) and (points.alone or array.shape != (points.batch, 3)):
        symbols = "a number, three numbers or [3]"
        if not points.alone:
            symbols = f"a number, three numbers, [3] or [B, 3] = [{points.batch}, 3]"
        raise ValueError(f"{name}: expected {symbols}, got {shape_text(array.shape)}")
    rows = np.broadcast_to(np.ascontiguousarray(array, dtype=points.compute), (points.batch, 3))
    return (1.0, 1.0, 1.0), rows


def grid_sizes(value: Any, batch: int) -> tuple[int, int, int]:
    """X, Y, Z of a whole number or three."""
    sizes = (value,) * 3 if isinstance(value, (int, np.integer)) else value
    if (
        not isinstance(sizes, (list, tuple, np.ndarray))
        or len(sizes) != 3
        or not all(isinstance(size, (int, np.integer)) and not isinstance(size, bool) for size in sizes)
    ):
        raise TypeError(f"grid_size: expected a whole number or three, got {value!r}")
    x, y, z = (int(size) for size in sizes)
    want_cells((x, y, z), batch)
    return x, y, z


def voxel_rows(points: Points, voxel_size: Any) -> Array:
    """Voxel sizes as an array [B, 3] in the compute dtype."""
    voxels, rows = _per_axis("voxel_size", voxel_size, points, True)
    return np.broadcast_to(np.array(voxels, points.compute), (points.batch, 3)) if rows is None else rows


def prepare_grid(points: Points, voxel_size: Any, grid_min: Any, grid_size: tuple[int, int, int]) -> dict[str, Any]:
    """What native code takes of a grid."""
    voxels, rows = _per_axis("voxel_size", voxel_size, points, True)
    if isinstance(grid_min, str):
        if grid_min != "auto":
            raise ValueError(f"grid_min: expected numbers or 'auto', got {grid_min!r}")
        mins, min_rows = (0.0, 0.0, 0.0), lowest_corners(points, voxel_rows(points, voxel_size))
    else:
        mins, min_rows = _per_axis("grid_min", grid_min, points, False)  # type: ignore[assignment]
    return {
        "grid_size": grid_size,
        "voxel_size": voxels,
        "grid_min": mins,
        "voxel_sizes": None if rows is None else pair(rows),
        "grid_mins": None if min_rows is None else pair(min_rows),
    }


def _unprojected(points: Points) -> Array:
    """Points [B, V, H, W, 3] of depth images in their cameras' frames; NaN where there is none."""
    depth, cameras = points.arguments["depth"][0], points.arguments["intrinsics"][0]
    fx, fy, cx, cy = (cameras[..., k, None, None] for k in range(4))
    z = depth.astype(np.float32) * np.float32(points.arguments["depth_scale"])
    z[~((z > 0) & np.isfinite(z))] = np.nan
    row = np.arange(depth.shape[2], dtype=np.float32)[:, None]
    column = np.arange(depth.shape[3], dtype=np.float32)
    return np.stack([((column - cx) * z) / fx, ((row - cy) * z) / fy, z], axis=-1)


def lowest_corners(points: Points, voxels: Array) -> Array:
    """For each sample the least coordinate of its finite points, down to a whole number of voxels: [B, 3]."""
    given = points.arguments
    with np.errstate(all="ignore"):
        at = _unprojected(points) if points.images else given["points"][0].astype(points.compute, copy=False)
        counts: Array = np.asarray(np.isfinite(at).all(axis=-1))
        if given.get("mask") is not None:
            counts &= given["mask"][0]
        spans = [(b, slice(None)) for b in range(points.batch)]
        if given.get("row_splits") is not None:
            edges = np.clip(given["row_splits"][0], 0, len(at))
            spans = [(slice(edges[b], edges[b + 1]),) for b in range(points.batch)]  # type: ignore[misc]
        corners = np.zeros((points.batch, 3), points.compute)
        for b, span in enumerate(spans):
            own, kept = at[span], counts[span]
            if given.get("poses") is not None:
                pose = given["poses"][0][b]
                r = pose[:, None, None] if points.images else pose  # [V, 1, 1, 3, 4] or [3, 4]
                own = np.stack(
                    [
                        ((r[..., k, 0] * own[..., 0] + r[..., k, 1] * own[..., 1]) + r[..., k, 2] * own[..., 2])
                        + r[..., k, 3]
                        for k in range(3)
                    ],
                    axis=-1,
                )
                kept = kept & np.isfinite(own).all(axis=-1)
            if kept.any():
                corners[b] = np.floor(own[kept].min(axis=0) / voxels[b]) * voxels[b]
    return corners


# ---- Outputs --------------------------------------------------------------------------------------------------------


def empty_number(value: Any) -> float:
    if not _is_number(value):
        raise TypeError(f"empty_value: expected a number, got {type(value).__name__}")
    return float(value)


def asked_name(dtype: Any) -> str:
    """What an out_dtype is called."""
    if isinstance(dtype, str) and dtype == "bits":
        return dtype
    try:
        return dtype_name(dtype)
    except TypeError:
        return repr(dtype)


def made(shape: Sequence[int], name: str, brought: Sequence[Any]) -> Array:
    """A new array by its dtype's name. NumPy has no bfloat16 of its own: it is that of whoever brought one."""
    if name == "bfloat16":
        return np.empty(shape, next(np.dtype(one) for one in brought if one is not None and asked_name(one) == name))
    return np.empty(shape, np.uint8 if name == "bits" else name)


def want_room(argument: str, told: str, forms: Sequence[tuple[Sequence[int], str]]) -> None:
    """Refuses outputs (shape, dtype) that this machine's memory cannot hold, before any is made."""
    needed = 0
    for shape, name in forms:
        elements = 1 if name == "bits" else 2 if name == "bfloat16" else np.dtype(name).itemsize
        for length in shape:
            elements *= int(length)
        needed += elements
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise ValueError(f"{argument}: {told} would need {needed} bytes, more than the {there} bytes of this machine")
