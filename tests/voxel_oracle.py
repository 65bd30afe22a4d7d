"""Voxelize once more, slow and obvious: NumPy numbers of one precision, one operation at a time, loops
over the points of each cell. Shares no code with the project.

Takes what the public functions take (tensors on the host) and returns a dict of tensors by name. Written from the
documented rules.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

BLOCK = 128  # sums run in blocks of this many neighbours, and so do the sums of blocks
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class Outside(Exception):
    """bounds="raise" speaks; carries the sample and the point's index in it."""

    def __init__(self, sample: int, index: int) -> None:
        super().__init__(f"sample {sample}, point {index}")
        self.sample, self.index = sample, index


def real_of(dtype: torch.dtype) -> type[np.floating[Any]]:
    return np.float64 if dtype == torch.float64 else np.float32


def numbers(tensor: torch.Tensor, real: type) -> np.ndarray:
    return tensor.detach().to(torch.float64 if real is np.float64 else torch.float32).numpy()


def rounded(values: Any, dtype: torch.dtype) -> torch.Tensor:
    """Numbers of a compute dtype to an output's: half types by way of float32."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor if dtype == torch.float64 else tensor.to(torch.float32).to(dtype)


def triple(value: Any, batch: int, real: type) -> np.ndarray:
    """A number, three, [3] or [B, 3] as [B, 3] of the compute dtype."""
    array = numbers(value, real) if isinstance(value, torch.Tensor) else np.asarray(value, np.float64).astype(real)
    return np.broadcast_to(array, (batch, 3))


def sizes(grid_size: Any) -> tuple[int, int, int]:
    x, y, z = (grid_size,) * 3 if isinstance(grid_size, int) else tuple(grid_size)
    return int(x), int(y), int(z)


def transform(pose: np.ndarray | None, points: np.ndarray) -> np.ndarray:
    """Points [n, 3] through a row-major [R | t], each operation rounded on its own."""
    if pose is None:
        return points
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    with np.errstate(all="ignore"):
        moved = [((row[0] * x + row[1] * y) + row[2] * z) + row[3] for row in pose[:3]]
    return np.stack(moved, axis=1).astype(points.dtype, copy=False)


@dataclass
class Sample:
    """One grid's points: where each stands in the input, whether it counts, what it carries."""

    points: np.ndarray  # [n, 3], in the grid's frame
    counted: np.ndarray  # [n]
    features: np.ndarray | None  # [n, C]
    places: np.ndarray  # [n]: position in the flattened inverse
    cells: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    outside: int = 0
    members: dict[int, list[int]] = field(default_factory=dict)


def locate(sample: Sample, b: int, voxel: np.ndarray, low: np.ndarray, size: tuple[int, ...], bounds: str) -> None:
    """Fills in each point's cell (or -1), how many lie outside, and the members of each cell in order of index."""
    with np.errstate(all="ignore"):
        q = np.floor((sample.points - low) / voxel)
    assert q.dtype == sample.points.dtype
    sample.cells = np.full(len(q), -1, np.int64)
    for i in range(len(q)):
        if not sample.counted[i]:
            continue
        inside = all(0 <= q[i, d] < size[d] for d in range(3))
        if not inside:
            sample.outside += 1
            if bounds == "raise":
                raise Outside(b, i)
            if bounds == "drop" or np.isnan(q[i]).any():
                continue
        x, y, z = (int(min(max(q[i, d], 0), size[d] - 1)) for d in range(3))
        cell = (x * size[1] + y) * size[2] + z
        sample.cells[i] = cell
        sample.members.setdefault(cell, []).append(i)


def tree_sum(rows: np.ndarray) -> np.ndarray:
    """Of rows [m, C], m > 0: blocks of 128 from left to right, then their sums likewise."""
    while len(rows) > 1:
        sums = []
        for begin in range(0, len(rows), BLOCK):
            total = rows[begin].copy()
            for row in rows[begin + 1 : begin + BLOCK]:
                with np.errstate(all="ignore"):
                    total = total + row
            sums.append(total)
        rows = np.stack(sums)
    return rows[0]


def extreme(rows: np.ndarray, largest: bool) -> np.ndarray:
    """Of each column of [m, C], which row holds the extreme: the first NaN, else the first of the extremes."""
    best = []
    for column in rows.T:
        at = 0
        for i in range(1, len(column)):
            if np.isnan(column[at]):
                break
            if np.isnan(column[i]) or (column[i] > column[at] if largest else column[i] < column[at]):
                at = i
        best.append(at)
    return np.array(best, np.int64)


def reduced(name: str, rows: np.ndarray, members: Sequence[int]) -> np.ndarray:
    """One cell's features [m, C] to [C]."""
    if name == "sum":
        return tree_sum(rows)
    if name == "mean":
        with np.errstate(all="ignore"):
            return tree_sum(rows) / rows.dtype.type(np.float32(len(rows)))
    at = extreme(rows, name.endswith("max"))
    if name.startswith("arg"):
        return np.array([members[k] for k in at], np.int64)
    return rows[at, np.arange(rows.shape[1])]


def counted_as(count: int, dtype: torch.dtype) -> torch.Tensor:
    if dtype == torch.bool:
        return torch.tensor(count > 0)
    if dtype in INTEGERS:
        return torch.tensor(min(count, torch.iinfo(dtype).max), dtype=dtype)
    return torch.tensor(np.float32(count)).to(dtype)


def default_dtype(name: str, features: torch.Tensor | None) -> torch.dtype:
    if name in ("occupancy", "count"):
        return torch.bool if name == "occupancy" else torch.int32
    if name.startswith("arg"):
        return torch.int64
    assert features is not None
    return features.dtype if features.dtype.is_floating_point else torch.float32


def dtype_of(name: str, out_dtype: Any, features: torch.Tensor | None) -> Any:
    asked = out_dtype.get(name) if isinstance(out_dtype, dict) else out_dtype
    return default_dtype(name, features) if asked is None or name.startswith("arg") else asked


def filled(shape: tuple[int, ...], value: float, dtype: torch.dtype) -> torch.Tensor:
    return rounded(np.full(shape, value, np.float64), dtype)


# ---- The calls ------------------------------------------------------------------------------------------------------


def cloud_samples(
    points: torch.Tensor,
    features: torch.Tensor | None,
    row_splits: torch.Tensor | None,
    mask: torch.Tensor | None,
    pose: torch.Tensor | None,
) -> list[Sample]:
    real = real_of(points.dtype)
    feature_real = real_of(features.dtype) if features is not None else np.float32
    if row_splits is not None:
        edges = row_splits.tolist()
        spans = list(itertools.pairwise(edges))
    else:
        n = points.shape[-2]
        batch = 1 if points.dim() == 2 else points.shape[0]
        spans = [(b * n, (b + 1) * n) for b in range(batch)]
    flat = numbers(points, real).reshape(-1, 3)
    flat_mask = np.ones(len(flat), bool) if mask is None else mask.numpy().reshape(-1) != 0
    carried = None if features is None else numbers(features, feature_real).reshape(len(flat), features.shape[-1])
    poses = None if pose is None else numbers(pose, real).reshape(-1, *pose.shape[-2:])
    samples = []
    for b, (begin, end) in enumerate(spans):
        own = None if poses is None else poses[b if len(poses) > 1 else 0]
        samples.append(
            Sample(
                transform(own, flat[begin:end]),
                flat_mask[begin:end],
                None if carried is None else carried[begin:end],
                np.arange(begin, end),
            )
        )
    return samples


def camera_numbers(intrinsics: torch.Tensor) -> torch.Tensor:
    """[..., 3, 3] or [..., 4] as fx, fy, cx, cy."""
    if intrinsics.shape[-2:] == (3, 3):
        k = intrinsics
        return torch.stack([k[..., 0, 0], k[..., 1, 1], k[..., 0, 2], k[..., 1, 2]], dim=-1)
    return intrinsics


def unproject(depth: torch.Tensor, intrinsics: torch.Tensor, depth_scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Points [..., H, W, 3] in their cameras' frames, and where there is one."""
    height, width = depth.shape[-2:]
    raw = torch.from_numpy(depth.numpy().astype(np.float32))
    cameras = camera_numbers(intrinsics).expand(*depth.shape[:-2], 4).float()
    points = np.zeros((*depth.shape, 3), np.float32)
    there = np.zeros(depth.shape, bool)
    for lead in np.ndindex(*depth.shape[:-2]):
        fx, fy, cx, cy = (np.float32(v) for v in cameras[lead].tolist())
        for h in range(height):
            for w in range(width):
                with np.errstate(all="ignore"):
                    z = np.float32(raw[(*lead, h, w)].item()) * np.float32(depth_scale)
                    if not (z > 0 and np.isfinite(z)):
                        continue
                    x = ((np.float32(w) - cx) * z) / fx
                    y = ((np.float32(h) - cy) * z) / fy
                points[(*lead, h, w)] = x, y, z
                there[(*lead, h, w)] = True
    return points, there


def depth_samples(
    depth: torch.Tensor,
    intrinsics: torch.Tensor,
    camera_to_grid: torch.Tensor | None,
    color: torch.Tensor | None,
    depth_scale: float,
    mask: torch.Tensor | None,
) -> list[Sample]:
    points, there = unproject(depth, intrinsics, depth_scale)
    lead = depth.shape[:-2]
    batch, cameras = (1, 1) if not lead else (lead[0], 1) if len(lead) == 1 else (lead[0], lead[1])
    pixels = depth.shape[-2] * depth.shape[-1]
    if mask is not None:
        there = there & (mask.numpy() != 0)
    if camera_to_grid is not None:
        poses = numbers(camera_to_grid, np.float32)
        poses = np.broadcast_to(poses, (*lead, *poses.shape[-2:])).reshape(batch * cameras, *poses.shape[-2:])
        flat = points.reshape(batch * cameras, pixels, 3)
        points = np.stack([transform(pose, own) for pose, own in zip(poses, flat, strict=True)])
    points, there = points.reshape(batch, cameras * pixels, 3), there.reshape(batch, cameras * pixels)
    carried = None
    if color is not None:
        carried = numbers(color, real_of(color.dtype)).reshape(batch, cameras * pixels, color.shape[-1])
    every = np.arange(batch * cameras * pixels).reshape(batch, cameras * pixels)
    return [Sample(points[b], there[b], None if carried is None else carried[b], every[b]) for b in range(batch)]


def dense_grids(
    samples: list[Sample], features: torch.Tensor | None, shape: tuple[int, ...], real: type, options: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """Every result of a dense call, with a batch dimension; `shape` is that of the inverse."""
    size = sizes(options["grid_size"])
    batch = len(samples)
    voxel, low = (triple(options[name], batch, real) for name in ("voxel_size", "grid_min"))
    for b, sample in enumerate(samples):
        locate(sample, b, voxel[b], low[b], size, options.get("bounds", "drop"))
    names = options.get("reduce", "occupancy")
    results: dict[str, torch.Tensor] = {}
    for name in (names,) if isinstance(names, str) else names:
        results[name] = dense_grid(name, samples, features, size, options)
    counts = torch.zeros(batch, *size, dtype=torch.int32)
    inverse = torch.full((int(np.prod(shape)),), -1)
    for b, sample in enumerate(samples):
        for cell, members in sample.members.items():
            counts[b].view(-1)[cell] = len(members)
        inverse[sample.places] = torch.from_numpy(sample.cells)
    results |= {"counts": counts, "inverse": inverse.reshape(shape)}
    results["dropped"] = torch.tensor([sample.outside for sample in samples], dtype=torch.int64)
    return results


def dense_grid(
    name: str, samples: list[Sample], features: torch.Tensor | None, size: tuple[int, ...], options: dict[str, Any]
) -> torch.Tensor:
    dtype = dtype_of(name, options.get("out_dtype"), features)
    cells = size[0] * size[1] * size[2]
    if name in ("occupancy", "count"):
        plain = torch.bool if dtype == "bits" else dtype
        grid = torch.zeros(len(samples), cells, dtype=plain)
        for b, sample in enumerate(samples):
            for cell, members in sample.members.items():
                grid[b, cell] = 1 if name == "occupancy" else counted_as(len(members), dtype)
        grid = grid.reshape(len(samples), *size)
        if dtype == "bits":
            return torch.from_numpy(np.packbits(grid.numpy(), axis=-1, bitorder="little"))
        return grid
    assert features is not None
    columns = features.shape[-1]
    if name.startswith("arg"):
        grid = torch.full((len(samples), cells, columns), -1, dtype=dtype)
    else:
        grid = filled((len(samples), cells, columns), options.get("empty_value", 0), dtype)
    for b, sample in enumerate(samples):
        assert sample.features is not None
        for cell, members in sample.members.items():
            row = reduced(name, sample.features[members], members)
            grid[b, cell] = torch.from_numpy(row).to(dtype) if name.startswith("arg") else rounded(row, dtype)
    grid = grid.reshape(len(samples), *size, columns)
    return grid.permute(0, 4, 1, 2, 3).contiguous() if options.get("layout") == "channels_first" else grid


def unbatched(results: dict[str, torch.Tensor], flat: tuple[str, ...] = ("inverse",)) -> dict[str, torch.Tensor]:
    """Without the batch dimension; `flat` have none."""
    return {name: value if name in flat else value[0] for name, value in results.items()}


def dense(points: torch.Tensor, features: torch.Tensor | None = None, **options: Any) -> dict[str, torch.Tensor]:
    """Of voxelize_point_cloud: each reduction by name, and "counts", "inverse" and "dropped"."""
    splits = options.get("row_splits")
    samples = cloud_samples(points, features, splits, options.get("mask"), options.get("pose"))
    results = dense_grids(samples, features, tuple(points.shape[:-1]), real_of(points.dtype), options)
    return unbatched(results) if points.dim() == 2 and splits is None else results


def depth(
    depth: torch.Tensor,
    intrinsics: torch.Tensor,
    camera_to_grid: torch.Tensor | None,
    color: torch.Tensor | None = None,
    **options: Any,
) -> dict[str, torch.Tensor]:
    """Of voxelize_depth, likewise."""
    scale = options.get("depth_scale", 1.0)
    samples = depth_samples(depth, intrinsics, camera_to_grid, color, scale, options.get("mask"))
    results = dense_grids(samples, color, tuple(depth.shape), np.float32, options)
    return unbatched(results) if depth.dim() == 2 else results


def auto_grid_min(points: torch.Tensor, voxel_size: Any, **options: Any) -> torch.Tensor:
    """The lowest counted finite coordinate of each sample, down to a multiple of the voxel size."""
    splits, real = options.get("row_splits"), real_of(points.dtype)
    samples = cloud_samples(points, None, splits, options.get("mask"), options.get("pose"))
    voxel = triple(voxel_size, len(samples), real)
    found = []
    for b, sample in enumerate(samples):
        counted = sample.points[sample.counted & np.isfinite(sample.points).all(axis=1)]
        low = np.min(counted, axis=0)
        found.append(np.floor(low / voxel[b]) * voxel[b])
    result = torch.from_numpy(np.stack(found))
    return result[0] if points.dim() == 2 and splits is None else result
