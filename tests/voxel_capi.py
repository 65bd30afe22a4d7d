"""The voxel part of the C API through ctypes, on torch tensors: the public functions' calls with no layer between.

Every output lies between guard bands, at an address that is a multiple of its elements' size and of no more, and is
full of rubbish before the call.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import torch

from .capi import DTYPES as VALUE_DTYPES
from .capi import check, library
from .voxel_oracle import camera_numbers, default_dtype, sizes
from .voxel_structs import (
    I64,
    POINTER,
    DepthImages,
    DevoxelizeCall,
    PointCloud,
    PointFeatures,
    SparseCall,
    VoxelCall,
    VoxelGrid,
    VoxelOutput,
)

DTYPES = {**VALUE_DTYPES, torch.uint16: 10, "bits": 11}
BOUNDS = {"drop": 0, "clamp": 1, "raise": 2}
REDUCE = {"occupancy": 0, "count": 1, "sum": 2, "mean": 3, "max": 4, "min": 5, "argmax": 6, "argmin": 7}
ORDER = {"sorted": 0, "first_appearance": 1}
GUARD, RUBBISH = 256, 0xA5


RANGE_FN = ctypes.CFUNCTYPE(None, I64, I64, POINTER)
PARALLEL_FOR = ctypes.CFUNCTYPE(None, POINTER, I64, I64, RANGE_FN, POINTER)


def in_parts(parts: int) -> Any:
    """A parallel_for that runs up to `parts` pieces, the last of them first."""

    def run(_pool: Any, count: int, grain: int, body: Callable[..., None], context: Any) -> None:
        pieces = max(1, min(parts, count // max(grain, 1)))
        edges = [count * k // pieces for k in range(pieces + 1)]
        for k in reversed(range(pieces)):
            body(edges[k], edges[k + 1], context)

    return PARALLEL_FOR(run)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


class Arguments:
    """What descriptors point to: kept alive for the call, guard bands looked at after it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.alive: list[Any] = []
        self.bands: list[torch.Tensor] = []

    def at(self, tensor: torch.Tensor | None) -> int | None:
        if tensor is None:
            return None
        self.alive.append(tensor)
        return tensor.data_ptr() or None

    def of(self, structure: ctypes.Structure) -> Any:
        self.alive.append(structure)
        return ctypes.pointer(structure)

    def out(
        self, shape: tuple[int, ...], dtype: torch.dtype, fill: torch.Tensor | None = None, aligned: bool = False
    ) -> torch.Tensor:
        element = torch.empty(0, dtype=dtype).element_size()
        size, begin = math.prod(shape) * element, GUARD + (0 if aligned else element)
        space = torch.full((size + 2 * GUARD,), RUBBISH, dtype=torch.uint8, device=self.device)
        self.bands += [space[:begin], space[begin + size :]]
        made = space[begin : begin + size].view(dtype).view(shape)
        if fill is not None:
            made.copy_(fill)
        return made

    def check_bands(self) -> None:
        for band in self.bands:
            assert bool((band == RUBBISH).all()), "written beside an output"

    def grid(self, d: VoxelGrid, batch: int, real: torch.dtype, options: dict[str, Any]) -> None:
        d.size[:] = sizes(options["grid_size"])
        for name, many in (("voxel_size", "voxel_sizes"), ("grid_min", "grid_mins")):
            value = options[name]
            if isinstance(value, torch.Tensor):
                moved = value.to(self.device, real).contiguous()
                setattr(d, many, self.at(moved))
                setattr(d, f"{many}_stride", 3 if moved.dim() == 2 and batch > 1 else 0)
            else:
                getattr(d, name)[:] = (value,) * 3 if isinstance(value, (int, float)) else tuple(value)

    def cloud(self, points: torch.Tensor, splits: torch.Tensor | None) -> PointCloud:
        d = PointCloud(points=self.at(points), num_points=points.shape[-2], dtype=DTYPES[points.dtype])
        d.points_stride[:] = points.stride() if points.dim() == 3 else (0, *points.stride())
        d.row_splits = None if splits is None else self.at(splits.contiguous())
        return d

    def poses(self, pose: torch.Tensor | None, real: torch.dtype) -> torch.Tensor | None:
        return None if pose is None else pose[..., :3, :].to(self.device, real).contiguous()


def batch_of(points: torch.Tensor, splits: torch.Tensor | None) -> int:
    return splits.numel() - 1 if splits is not None else 1 if points.dim() == 2 else points.shape[0]


def on_device(call: Any, device: torch.device) -> None:
    if device.type == "cuda":
        call.device = device.index if device.index is not None else torch.cuda.current_device()
        call.cuda_stream = torch.cuda.current_stream(device).cuda_stream


def describe_cloud(
    a: Arguments, points: torch.Tensor, features: torch.Tensor | None, options: dict[str, Any]
) -> VoxelCall:
    splits, mask = options.get("row_splits"), options.get("mask")
    real = compute_dtype(points.dtype)
    call = VoxelCall(struct_size=ctypes.sizeof(VoxelCall), batch=batch_of(points, splits))
    call.cloud = a.of(a.cloud(points, splits))
    batched = points.dim() == 3
    if mask is not None:
        call.mask = a.at(mask)
        call.mask_stride[:] = (mask.stride(0) if batched else 0, 0, mask.stride(-1))
    pose = a.poses(options.get("pose"), real)
    call.poses = a.at(pose)
    call.poses_stride[:] = (12 if pose is not None and pose.dim() == 3 and pose.shape[0] > 1 else 0, 0)
    if features is not None:
        d = PointFeatures(a.at(features), num_columns=features.shape[-1], dtype=DTYPES[features.dtype])
        d.stride[:] = (features.stride(0) if batched else 0, 0, features.stride(-2), features.stride(-1))
        call.features = a.of(d)
    a.grid(call.grid, call.batch, real, options)
    return call


def describe_depth(
    a: Arguments,
    depth: torch.Tensor,
    intrinsics: torch.Tensor,
    pose: torch.Tensor | None,
    color: torch.Tensor | None,
    options: dict[str, Any],
) -> VoxelCall:
    lead = tuple(depth.shape[:-2])
    batch, cameras = (1, 1) if not lead else (lead[0], 1) if len(lead) == 1 else lead
    height, width = depth.shape[-2:]
    whole = depth.reshape(batch, cameras, height * width)
    numbers = camera_numbers(intrinsics).expand(*lead, 4).float().reshape(batch, cameras, 4).contiguous()
    d = DepthImages(a.at(whole), intrinsics=a.at(numbers), num_cameras=cameras, height=height, width=width)
    d.depth_stride[:], d.intrinsics_stride[:] = whole.stride(), numbers.stride()[:2]
    d.depth_scale, d.dtype = options.get("depth_scale", 1.0), DTYPES[depth.dtype]
    call = VoxelCall(struct_size=ctypes.sizeof(VoxelCall), batch=batch, depth=a.of(d))
    if options.get("mask") is not None:
        mask = options["mask"].reshape(batch, cameras, height * width)
        call.mask = a.at(mask)
        call.mask_stride[:] = mask.stride()
    if pose is not None:
        poses = a.poses(pose, torch.float32)
        assert poses is not None
        poses = poses.expand(*lead, 3, 4).reshape(batch, cameras, 12).contiguous()
        call.poses = a.at(poses)
        call.poses_stride[:] = poses.stride()[:2]
    if color is not None:
        flat = color.reshape(batch, cameras, height * width, color.shape[-1])
        f = PointFeatures(a.at(flat), num_columns=flat.shape[-1], dtype=DTYPES[flat.dtype])
        f.stride[:] = flat.stride()
        call.features = a.of(f)
    a.grid(call.grid, batch, torch.float32, options)
    return call


def names_of(reduce: Any) -> tuple[str, ...]:
    return (reduce,) if isinstance(reduce, str) else tuple(reduce or ())


def add_outputs(
    a: Arguments,
    call: VoxelCall,
    names: tuple[str, ...],
    features: torch.Tensor | None,
    rows: tuple[int, ...],
    options: dict[str, Any],
) -> dict[str, torch.Tensor]:
    """Outputs of the call by name; `rows` are a dense grid's three sizes or a sparse call's capacity."""
    asked, into = options.get("out_dtype"), options.get("out")
    results: dict[str, torch.Tensor] = {}
    described = (VoxelOutput * max(len(names), 1))()
    for k, name in enumerate(names):
        dtype = asked.get(name) if isinstance(asked, dict) else asked
        dtype = dtype or default_dtype(name, features)
        shape = (call.batch, *rows)
        if dtype == "bits":
            shape = (*shape[:-1], -(-shape[-1] // 8))
        if name not in ("occupancy", "count"):
            assert features is not None
            columns = features.shape[-1]
            shape = (call.batch, columns, *rows) if call.channels_first else (*shape, columns)
        plain = torch.uint8 if dtype == "bits" else dtype
        results[name] = a.out(shape, plain, None if into is None else into[name])
        described[k] = VoxelOutput(a.at(results[name]), REDUCE[name], DTYPES[dtype])
    a.alive.append(described)
    call.outputs, call.num_outputs = described, len(names)
    call.accumulate = into is not None
    return results


def finish(a: Arguments, call: VoxelCall, options: dict[str, Any]) -> None:
    call.bounds = BOUNDS[options.get("bounds", "drop")]
    call.empty_value = options.get("empty_value", 0)
    if options.get("parts"):
        callback = in_parts(options["parts"])
        a.alive.append(callback)
        call.parallel_for = ctypes.cast(callback, POINTER)
    on_device(call, a.device)


def give_workspace(a: Arguments, call: VoxelCall, asking: str, described: Any) -> None:
    """What the CUDA entry point asks for, between guard bands."""
    size = ctypes.c_size_t()
    check(getattr(library(), asking)(ctypes.byref(described), ctypes.byref(size)))
    if size.value:
        call.workspace, call.workspace_size = a.at(a.out((size.value,), torch.uint8, aligned=True)), size.value


def run_dense(
    a: Arguments, call: VoxelCall, features: torch.Tensor | None, shape: Any, options: dict[str, Any]
) -> dict[str, torch.Tensor]:
    call.channels_first = options.get("layout") == "channels_first"
    names = names_of(options.get("reduce", "occupancy"))
    results = add_outputs(a, call, names, features, sizes(options["grid_size"]), options)
    if options.get("return_inverse", True):
        results["inverse"] = a.out(tuple(shape), torch.int64)
        call.inverse = a.at(results["inverse"])
    if options.get("return_dropped", True):
        results["dropped"] = a.out((call.batch,), torch.int64)
        call.dropped = a.at(results["dropped"])
    finish(a, call, options)
    if a.device.type == "cuda":
        give_workspace(a, call, "rc_voxelize_cuda_workspace", call)
        check(library().rc_voxelize_cuda(ctypes.byref(call)))
    else:
        check(library().rc_voxelize_cpu(ctypes.byref(call)))
    a.check_bands()
    return results


def voxelize(points: torch.Tensor, features: torch.Tensor | None = None, **options: Any) -> dict[str, torch.Tensor]:
    """rc_voxelize_cpu, or rc_voxelize_cuda for tensors on a GPU: outputs by name, "inverse" and "dropped".

    Beside the public function's options: `parts` runs the kernel in so many pieces; `out` as a dict by name; argmax
    and argmin."""
    a = Arguments(points.device)
    call = describe_cloud(a, points, features, options)
    results = run_dense(a, call, features, points.shape[:-1], options)
    if points.dim() == 2 and options.get("row_splits") is None:
        return {name: value if name == "inverse" else value[0] for name, value in results.items()}
    return results


def voxelize_depth(
    depth: torch.Tensor,
    intrinsics: torch.Tensor,
    camera_to_grid: torch.Tensor | None,
    color: torch.Tensor | None = None,
    **options: Any,
) -> dict[str, torch.Tensor]:
    a = Arguments(depth.device)
    call = describe_depth(a, depth, intrinsics, camera_to_grid, color, options)
    results = run_dense(a, call, color, depth.shape, options)
    if depth.dim() == 2:
        return {name: value if name == "inverse" else value[0] for name, value in results.items()}
    return results


def voxelize_sparse(
    points: torch.Tensor, features: torch.Tensor | None = None, **options: Any
) -> dict[str, torch.Tensor]:
    """rc_voxelize_sparse_cpu or _cuda: "coords", "num_voxels", "counts", "inverse", outputs by name, "gathered" and
    "slots" with max_points."""
    a = Arguments(points.device)
    cap, per_voxel = int(options["max_voxels"]), options.get("max_points") or 0
    carried = features if features is not None else points if per_voxel else None
    call = describe_cloud(a, points, carried, options)
    names = names_of(options.get("reduce"))
    if options.get("reduce") is None and features is not None and not per_voxel:
        names = ("mean",)
    asked = None if per_voxel else options.get("out_dtype")
    asked = dict.fromkeys(names, asked) if isinstance(asked, torch.dtype) else asked
    results = add_outputs(a, call, ("count", *names), features, (cap,), {"out_dtype": asked})
    results["counts"] = results.pop("count")
    d = SparseCall(struct_size=ctypes.sizeof(SparseCall), order=ORDER[options.get("order", "sorted")])
    d.call, d.max_voxels, d.max_points = ctypes.pointer(call), cap, per_voxel
    results["coords"] = a.out((call.batch, cap, 3), torch.int32)
    results["num_voxels"] = a.out((call.batch,), torch.int64)
    results["inverse"] = a.out(tuple(points.shape[:-1]), torch.int64)
    d.coords, d.num_voxels, call.inverse = (a.at(results[k]) for k in ("coords", "num_voxels", "inverse"))
    if per_voxel:
        assert carried is not None
        dtype = options.get("out_dtype") or carried.dtype
        results["gathered"] = a.out((call.batch, cap, per_voxel, carried.shape[-1]), dtype)
        results["slots"] = a.out(tuple(points.shape[:-1]), torch.int64)
        d.gathered, d.slots, d.gathered_dtype = a.at(results["gathered"]), a.at(results["slots"]), DTYPES[dtype]
    finish(a, call, options)
    if a.device.type == "cuda":
        give_workspace(a, call, "rc_voxelize_sparse_cuda_workspace", d)
        check(library().rc_voxelize_sparse_cuda(ctypes.byref(d)))
    else:
        check(library().rc_voxelize_sparse_cpu(ctypes.byref(d)))
    a.check_bands()
    if points.dim() == 2 and options.get("row_splits") is None:
        return {name: value if name in ("inverse", "slots") else value[0] for name, value in results.items()}
    return results


def devoxelize(grid: torch.Tensor, points: torch.Tensor, **options: Any) -> torch.Tensor:
    """rc_devoxelize_cpu or _cuda."""
    a = Arguments(points.device)
    splits, mask = options.get("row_splits"), options.get("mask")
    real = compute_dtype(points.dtype)
    values = grid if grid.dim() == 5 else grid[None]
    if options.get("layout") == "channels_first":
        values = values.permute(0, 2, 3, 4, 1)
    d = DevoxelizeCall(struct_size=ctypes.sizeof(DevoxelizeCall), batch=batch_of(points, splits))
    d.mode = 0 if options.get("mode") == "nearest" else 1
    d.bounds, d.empty_value = BOUNDS[options.get("bounds", "drop")], options.get("empty_value", 0)
    d.cloud, d.value_dtype = a.of(a.cloud(points, splits)), DTYPES[values.dtype]
    d.values, d.num_columns = a.at(values), values.shape[-1]
    d.values_stride[:] = values.stride()
    if mask is not None:
        d.mask = a.at(mask)
        d.mask_stride[:] = (mask.stride(0) if points.dim() == 3 else 0, mask.stride(-1))
    pose = a.poses(options.get("pose"), real)
    d.poses = a.at(pose)
    d.poses_stride = 12 if pose is not None and pose.dim() == 3 and pose.shape[0] > 1 else 0
    a.grid(d.grid, d.batch, real, {**options, "grid_size": tuple(values.shape[1:4])})
    dtype = options.get("out_dtype") or grid.dtype
    out = a.out((*points.shape[:-1], values.shape[-1]), dtype)
    d.out, d.out_dtype = a.at(out), DTYPES[dtype]
    if options.get("parts"):
        callback = in_parts(options["parts"])
        a.alive.append(callback)
        d.parallel_for = ctypes.cast(callback, POINTER)
    on_device(d, a.device)
    check(getattr(library(), f"rc_devoxelize_{'cuda' if a.device.type == 'cuda' else 'cpu'}")(ctypes.byref(d)))
    a.check_bands()
    return out
