"""One call of the voxel functions: arguments checked and brought into the form of the operators, a backend picked, and
the operator or its reference run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling

from ._backend import checks_synchronously, native, resolve
from ._checks import FLOAT_DTYPES, INDEX_DTYPES, shape_text
from ._errors import data_error
from ._voxel_checks import per_axis, want_device, want_number, want_shape, want_tensor
from ._voxel_names import FEATURE_DTYPES
from .reference import devoxelize as _reference_devoxelize
from .reference import voxelize as _reference
from .reference.voxel_points import compute_dtype, numbers, packed_samples, transform, unproject

_REFERENCES: dict[str, Callable[..., Any]] = {
    "voxelize": _reference.voxelize,
    "voxelize_out": _reference.voxelize,
    "voxelize_depth": _reference.voxelize_depth,
    "voxelize_depth_out": _reference.voxelize_depth,
    "voxelize_sparse": _reference.voxelize_sparse,
    "devoxelize": _reference_devoxelize.devoxelize,
}


class Source(NamedTuple):
    """Where a call's points come from, in the operators' form: a cloud [B, N, 3] or packed [N, 3], or depth images."""

    name: str  # of the first argument
    data: Tensor  # points, or depth [B, V, H, W]
    intrinsics: Tensor | None  # [B, V, 4] of depth images
    row_splits: Tensor | None
    mask: Tensor | None
    poses: Tensor | None
    depth_scale: float
    batch: Any
    alone: bool  # results have no batch dimension
    shape: tuple[Any, ...]  # of one number a point, as the caller has it
    compute: torch.dtype


class Grid(NamedTuple):
    """A call's grid beside its size: numbers, or tensors [B or 1, 3] instead."""

    voxel_size: tuple[float, float, float]
    grid_min: tuple[float, float, float]
    voxel_sizes: Tensor | None
    grid_mins: Tensor | None


# ---- Points ---------------------------------------------------------------------------------------------------------


def _poses(name: str, value: Any, lead: tuple[Any, ...], device: torch.device, of: str, compute: torch.dtype) -> Tensor:
    """Poses [..., 3, 4] in the compute dtype that spread to [*lead, 3, 4]; a fourth row is cut off."""
    pose = want_tensor(name, value, FLOAT_DTYPES)
    want_device(name, pose, of, device)
    if pose.ndim < 2 or pose.shape[-1] != 4 or pose.shape[-2] not in (3, 4):
        raise ValueError(f"{name}: expected [..., 3, 4] or [..., 4, 4], got {shape_text(pose.shape)}")
    _want_spread(name, pose, lead, pose.shape[-2:])
    return pose[..., :3, :].to(compute)


def _want_spread(name: str, tensor: Tensor, lead: tuple[Any, ...], tail: Sequence[Any]) -> None:
    """That the dimensions in front of `tail` spread to `lead`."""
    given = tuple(tensor.shape[: tensor.ndim - len(tail)])
    fits = len(given) <= len(lead)
    for have, want in zip(given, lead[len(lead) - len(given) :], strict=False):
        fits = fits and have in (1, want)
    if not fits:
        wanted = shape_text([*lead, *tail])
        raise ValueError(f"{name}: expected what spreads to {wanted}, got {shape_text(tensor.shape)}")


def _mask(value: Any, shape: tuple[Any, ...], device: torch.device, of: str) -> Tensor | None:
    if value is None:
        return None
    mask = want_tensor("mask", value, ("bool",))
    want_shape("mask", f"the shape of {of}", shape, mask)
    want_device("mask", mask, of, device)
    return mask


def prepare_cloud(points: Any, row_splits: Any, mask: Any, pose: Any) -> Source:
    cloud = want_tensor("points", points, FLOAT_DTYPES)
    packed = row_splits is not None
    if cloud.ndim not in ((2,) if packed else (2, 3)) or cloud.shape[-1] != 3:
        symbols = "[N, 3] beside row_splits" if packed else "[N, 3] or [B, N, 3]"
        raise ValueError(f"points: expected {symbols}, got {shape_text(cloud.shape)}")
    shape, device = tuple(cloud.shape[:-1]), cloud.device
    alone = cloud.ndim == 2 and not packed
    batch: Any = 1 if alone else shape[0]
    if packed:
        row_splits = want_tensor("row_splits", row_splits, INDEX_DTYPES, "an integer dtype")
        if row_splits.ndim != 1 or row_splits.shape[0] < 1:
            raise ValueError(f"row_splits: expected [B + 1], at least one offset, got {shape_text(row_splits.shape)}")
        want_device("row_splits", row_splits, "points", device)
        row_splits = row_splits.to(torch.int64)
        batch = row_splits.shape[0] - 1
    compute = compute_dtype(cloud.dtype)
    mask = _mask(mask, shape, device, "points")
    poses = None
    if pose is not None:
        poses = _poses("pose", pose, () if alone else (batch,), device, "points", compute)
        poses = poses.unsqueeze(0) if poses.ndim == 2 else poses
    if alone:
        cloud, mask = cloud.unsqueeze(0), None if mask is None else mask.unsqueeze(0)
    return Source("points", cloud, None, row_splits, mask, poses, 1.0, batch, alone, shape, compute)


def _per_camera(tensor: Tensor | None, lead: int, tail: int) -> Tensor | None:
    """Numbers of cameras [..., tail], with lead dimensions 0 (one camera), 1 (B) or 2 (B, V), as [B or 1, V or 1,
    tail]."""
    if tensor is None:
        return None
    while tensor.ndim - tail < lead:
        tensor = tensor.unsqueeze(0)
    if lead == 0:
        return tensor.unsqueeze(0).unsqueeze(0)
    return tensor.unsqueeze(1) if lead == 1 else tensor


def _intrinsics(value: Any, lead: tuple[Any, ...], device: torch.device) -> Tensor:
    """fx, fy, cx, cy [..., 4] float32."""
    given = want_tensor("intrinsics", value, FLOAT_DTYPES)
    want_device("intrinsics", given, "depth", device)
    if given.ndim >= 2 and tuple(given.shape[-2:]) == (3, 3):
        _want_spread("intrinsics", given, lead, (3, 3))
        given = torch.stack([given[..., 0, 0], given[..., 1, 1], given[..., 0, 2], given[..., 1, 2]], -1)
    elif given.ndim < 1 or given.shape[-1] != 4:
        raise ValueError(f"intrinsics: expected [..., 3, 3] or [..., 4], got {shape_text(given.shape)}")
    _want_spread("intrinsics", given, lead, (4,))
    return given.to(torch.float32).contiguous()


def prepare_images(depth: Any, intrinsics: Any, camera_to_grid: Any, depth_scale: Any, mask: Any) -> Source:
    images = want_tensor("depth", depth, ("uint16", "float32"))
    if not 2 <= images.ndim <= 4:
        raise ValueError(f"depth: expected [H, W], [B, H, W] or [B, V, H, W], got {shape_text(images.shape)}")
    scale = want_number("depth_scale", depth_scale)
    if not abs(scale) < 2.0**128 - 2.0**103:
        raise ValueError(f"depth_scale: expected a finite number (in float32), got {depth_scale}")
    shape, lead, device = tuple(images.shape), tuple(images.shape[:-2]), images.device
    mask = _mask(mask, shape, device, "depth")
    cameras = _per_camera(_intrinsics(intrinsics, lead, device), len(lead), 1)
    poses = None
    if camera_to_grid is not None:
        poses = _poses("camera_to_grid", camera_to_grid, lead, device, "depth", torch.float32)
        poses = _per_camera(poses, len(lead), 2)
    images = widened(images, len(lead))
    mask = None if mask is None else widened(mask, len(lead))
    batch = images.shape[0]
    assert cameras is not None
    cameras = cameras.expand(batch, images.shape[1], 4)
    return Source("depth", images, cameras, None, mask, poses, scale, batch, len(lead) == 0, shape, torch.float32)


def widened(images: Tensor, lead: int) -> Tensor:
    """Images with 0, 1 or 2 lead dimensions as [B, V, H, W, ...]."""
    if lead == 0:
        return images.unsqueeze(0).unsqueeze(0)
    return images.unsqueeze(1) if lead == 1 else images


def prepare_features(name: str, source: Source, features: Any) -> Tensor | None:
    if features is None:
        return None
    rows = want_tensor(name, features, FEATURE_DTYPES)
    if rows.ndim != len(source.shape) + 1 or tuple(rows.shape[:-1]) != source.shape:
        wanted = shape_text([*source.shape, "C"])
        raise ValueError(
            f"{name}: expected the shape of {source.name} and columns, {wanted}, got {shape_text(rows.shape)}"
        )
    want_device(name, rows, source.name, source.data.device)
    if source.intrinsics is not None:
        return widened(rows, len(source.shape) - 2)
    return rows.unsqueeze(0) if source.alone else rows


# ---- Grids ----------------------------------------------------------------------------------------------------------


def lowest_corners(source: Source, voxels: Tensor) -> Tensor:
    """For each sample the least coordinates of its finite points, down to a whole number of voxels [B or 1, 3]:
    [B, 3]."""
    if source.intrinsics is not None:
        at, kept = unproject(source.data, source.intrinsics, source.depth_scale)
        poses = None if source.poses is None else source.poses.unsqueeze(2).unsqueeze(2)
    else:
        at = source.data.detach().to(source.compute)
        kept = torch.ones_like(at[..., 0], dtype=torch.bool)
        poses = None if source.poses is None else source.poses.unsqueeze(1)
    infinity = float("inf")
    if source.row_splits is not None:
        sample, _, kept = packed_samples(source.row_splits, at.shape[0])
        target = torch.where(kept, sample, source.batch)
        if source.poses is not None:
            filled = torch.cat([source.poses.expand(source.batch, 3, 4), source.poses.new_zeros((1, 3, 4))])
            at = transform(filled[target], at)
    elif poses is not None:
        at = transform(poses, at)
    if source.mask is not None:
        kept = kept & source.mask
    at = torch.where((kept & torch.isfinite(at).all(-1)).unsqueeze(-1), at, infinity)
    if source.row_splits is not None:
        low = at.new_full((source.batch + 1, 3), infinity)
        low = low.scatter_reduce(0, target.unsqueeze(-1).expand(-1, 3), at, "amin")[: source.batch]
    elif at.numel() == 0:
        low = at.new_full((source.batch, 3), infinity)
    else:
        low = at.reshape(source.batch, -1, 3).amin(1)
    low = torch.where(low == infinity, 0, low)
    return torch.floor(low / voxels) * voxels


def voxel_table(source: Source, voxel_size: Sequence[float], voxel_sizes: Tensor | None) -> Tensor:
    """Voxel sizes as a tensor [B or 1, 3]."""
    return numbers(voxel_size, source.data, source.compute) if voxel_sizes is None else voxel_sizes


def prepare_grid(source: Source, voxel_size: Any, grid_min: Any) -> Grid:
    batch, alone, compute = source.batch, source.alone, source.compute
    voxel, voxels = per_axis("voxel_size", voxel_size, batch, alone, compute, True)
    want_device("voxel_size", voxels, source.name, source.data.device)
    if isinstance(grid_min, str):
        if grid_min != "auto":
            raise ValueError(f"grid_min: expected a number, three numbers, 'auto' or a torch.Tensor, got {grid_min!r}")
        return Grid(voxel, (0.0, 0.0, 0.0), voxels, lowest_corners(source, voxel_table(source, voxel, voxels)))
    low, lows = per_axis("grid_min", grid_min, batch, alone, compute, False)
    want_device("grid_min", lows, source.name, source.data.device)
    return Grid(voxel, low, voxels, lows)


# ---- Backends -------------------------------------------------------------------------------------------------------


def _wants_gradient(tensors: Sequence[Tensor | None]) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def call(
    name: str, backend: Any, device: torch.device, leaves: Sequence[Tensor | None], args: Sequence[Any], **kwargs: Any
) -> Any:
    """torch.ops.robocache.<name>(*args), or its reference. `leaves` are the arguments that gradients may reach."""
    if resolve(backend, device) == "torch":
        return _REFERENCES[name](*args, **kwargs)
    ops = torch.ops.robocache
    if is_compiling() or torch._C._are_functorch_transforms_active():
        return getattr(ops, name).default(*args, **kwargs)
    # Where no gradient is wanted, the kernel alone: nothing of autograd is asked.
    own = name if kwargs or _wants_gradient(leaves) else f"_{name}"
    try:
        result = getattr(ops, own).default(*args, **kwargs)
    except RuntimeError as error:
        if native is not None:
            fault, stream, row, position, sentence = native.last_fault()
            if fault and sentence in str(error):
                raise data_error(sentence, fault, stream, row, position) from None
        raise
    if device.type == "cuda" and native is not None and checks_synchronously():
        native.check_device(device.index)
    return result


def want_deterministic(value: Any) -> None:
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"deterministic: expected None, True or False, got {type(value).__name__}")
