"""The slow and obvious way once more for results that are rows: sparse voxels, and values of a grid at points."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .voxel_oracle import (
    cloud_samples,
    dtype_of,
    filled,
    locate,
    numbers,
    real_of,
    reduced,
    rounded,
    sizes,
    triple,
    unbatched,
)


def sparse(points: torch.Tensor, features: torch.Tensor | None = None, **options: Any) -> dict[str, torch.Tensor]:
    """Of voxelize_point_cloud_sparse: "coords", "counts", "num_voxels", "inverse", each reduction by name; with
    `max_points` "gathered" and "slots"."""
    splits, real = options.get("row_splits"), real_of(points.dtype)
    samples = cloud_samples(points, features, splits, options.get("mask"), options.get("pose"))
    size, batch, cap = sizes(options["grid_size"]), len(samples), int(options["max_voxels"])
    per_voxel = options.get("max_points") or 0
    names = options.get("reduce")
    if names is None:
        names = ("mean",) if features is not None and not per_voxel else ()
    names = (names,) if isinstance(names, str) else names
    voxel, low = (triple(options[name], batch, real) for name in ("voxel_size", "grid_min"))
    places = int(np.prod(points.shape[:-1]))
    carried = features if features is not None else points if per_voxel else None
    empty = options.get("empty_value", 0)
    results: dict[str, torch.Tensor] = {
        "coords": torch.full((batch, cap, 3), -1, dtype=torch.int32),
        "counts": torch.zeros(batch, cap, dtype=torch.int32),
        "num_voxels": torch.zeros(batch, dtype=torch.int64),
    }
    inverse, slots = torch.full((places,), -1), torch.full((places,), -1)
    for name in names:
        assert features is not None
        dtype = dtype_of(name, options.get("out_dtype"), features)
        shape = (batch, cap, features.shape[-1])
        results[name] = torch.full(shape, -1, dtype=dtype) if name.startswith("arg") else filled(shape, empty, dtype)
    if per_voxel:
        assert carried is not None
        dtype = options.get("out_dtype") or carried.dtype
        results["gathered"] = torch.zeros(batch, cap, per_voxel, carried.shape[-1], dtype=dtype)
    flat_carried = None if carried is None else carried.detach().reshape(-1, carried.shape[-1])
    for b, sample in enumerate(samples):
        locate(sample, b, voxel[b], low[b], size, options.get("bounds", "drop"))
        found = sorted(sample.members) if options.get("order", "sorted") == "sorted" else list(sample.members)
        results["num_voxels"][b] = len(found)
        for row, cell in enumerate(found[:cap]):
            members = sample.members[cell]
            rest, z = divmod(cell, size[2])
            results["coords"][b, row] = torch.tensor([rest // size[1], rest % size[1], z])
            results["counts"][b, row] = len(members)
            inverse[sample.places[members]] = row
            for name in names:
                assert sample.features is not None
                made = reduced(name, sample.features[members], members)
                dtype = results[name].dtype
                results[name][b, row] = torch.from_numpy(made) if name.startswith("arg") else rounded(made, dtype)
            for place, i in enumerate(members[:per_voxel]):
                assert flat_carried is not None
                given, gathered = flat_carried[sample.places[i]], results["gathered"]
                gathered[b, row, place] = converted(given, gathered.dtype)
                slots[sample.places[i]] = row * per_voxel + place
    results["inverse"] = inverse.reshape(points.shape[:-1])
    if per_voxel:
        results["slots"] = slots.reshape(points.shape[:-1])
    return unbatched(results, ("inverse", "slots")) if points.dim() == 2 and splits is None else results


def converted(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return values if values.dtype == dtype else rounded(numbers(values, real_of(values.dtype)), dtype)


# ---- Devoxelize -----------------------------------------------------------------------------------------------------


def trilinear(grid: np.ndarray, place: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Of grid [X, Y, Z, C] at a place in cells, where whole numbers are cell centres."""
    real = grid.dtype.type
    ends, weights = [], []
    for d in range(3):
        low = np.floor(place[d])
        weights.append(real(place[d] - low))
        ends.append([int(min(max(at, 0), size[d] - 1)) for at in (low, low + 1)])
    with np.errstate(all="ignore"):

        def along_z(x: int, y: int) -> np.ndarray:
            v0, v1 = (grid[x, y, z] for z in ends[2])
            return v0 + weights[2] * (v1 - v0)

        def along_y(x: int) -> np.ndarray:
            v0, v1 = (along_z(x, y) for y in ends[1])
            return v0 + weights[1] * (v1 - v0)

        v0, v1 = (along_y(x) for x in ends[0])
        return np.asarray(v0 + weights[0] * (v1 - v0))


def devoxelize(grid: torch.Tensor, points: torch.Tensor, **options: Any) -> torch.Tensor:
    """[N, C], [B, N, C], or packed [N, C]."""
    splits, real = options.get("row_splits"), real_of(points.dtype)
    samples = cloud_samples(points, None, splits, options.get("mask"), options.get("pose"))
    nearest, bounds = options.get("mode", "trilinear") == "nearest", options.get("bounds", "drop")
    values = grid.detach() if grid.dim() == 5 else grid.detach()[None]
    if options.get("layout") == "channels_first":
        values = values.permute(0, 2, 3, 4, 1)
    size = tuple(values.shape[1:4])
    voxel, low = (triple(options[name], len(samples), real) for name in ("voxel_size", "grid_min"))
    dtype = options.get("out_dtype") or grid.dtype
    places, columns = int(np.prod(points.shape[:-1])), values.shape[-1]
    empty = options.get("empty_value", 0)
    out = filled((places, columns), empty, dtype) if dtype.is_floating_point else torch.full((places, columns), empty)
    out = out.to(dtype)
    wide = np.float64 if np.float64 in (real, real_of(values.dtype)) else np.float32
    for b, sample in enumerate(samples):
        locate(sample, b, voxel[b], low[b], size, bounds)
        own = numbers(values[b], wide) if not nearest else None
        for i, cell in enumerate(sample.cells.tolist()):
            if cell < 0:
                continue
            if nearest:
                found = values[b].reshape(-1, columns)[cell]
                out[sample.places[i]] = found if not dtype.is_floating_point else converted(found, dtype)
                continue
            with np.errstate(all="ignore"):
                place = (sample.points[i] - low[b]) / voxel[b] - real(0.5)
            for d in range(3):
                place[d] = min(max(place[d], real(-0.5)), real(size[d]) - real(0.5))
            assert own is not None
            out[sample.places[i]] = rounded(trilinear(own, place, size), dtype)
    return out.reshape(*points.shape[:-1], columns)
