"""Inputs of the voxelize cases, and their calls through the public functions.

Points lie in one of four ways, all inside the grid: `uniform`; `scan`, rays of a turning sensor in ring order that end
on walls, floor and spheres; `depth`, rays of a pinhole camera in pixel order into the same scene; `onecell`, all in one
cell.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .voxel_cases import VoxelCase

_NUMBERS = {"mean": 3, "max": 4}  # rc_reduce
_ARGMAX, _INT64 = 6, 9  # rc_reduce, rc_dtype


@dataclass
class VoxelInputs:
    """What a case's call takes; what it does not take is None."""

    case: VoxelCase
    points: Tensor | None = None  # [B, N, 3]
    features: Tensor | None = None  # [B, N, C]; images: the colours [B, V, H, W, C]
    depth: Tensor | None = None  # [B, V, H, W] uint16
    intrinsics: Tensor | None = None  # [B, V, 4]
    poses: Tensor | None = None  # [B, V, 3, 4]
    grid: Tensor | None = None  # [B, X, Y, Z, C] or channels first
    grad: Tensor | None = None  # of the output
    inverse: Tensor | None = None  # [B, N]
    counts: Tensor | None = None  # [B, X, Y, Z]
    arg: Tensor | None = None  # [B, X, Y, Z, C]

    def tensors(self) -> list[Tensor]:
        return [value for value in vars(self).values() if isinstance(value, Tensor)]


# ---- Where points lie ----------------------------------------------------------------------------------------------


def _random(shape: tuple[int, ...], generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device).mul_(high - low).add_(low)


def _ends(origin: tuple[float, float, float], directions: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """Where rays [N, 3] from `origin` end in scenes of spheres in the cube of edge 0.98: [B, N, 3]."""
    start = torch.tensor(origin, device=directions.device)
    reach = ((0.49 * directions.sign() - start) / directions.where(directions.abs() > 1e-6, 1e-6)).abs().amin(-1)
    reach = reach.expand(batch, -1).clone()  # [B, N]
    for _ in range(4):
        centre, radius = _random((batch, 3), generator, -0.35, 0.35), _random((batch, 1), generator, 0.05, 0.12)
        away = centre - start
        away *= (0.25 / away.norm(dim=-1, keepdim=True).clamp_min(1e-3)).clamp_min(1.0)  # the sensor is outside
        along = away @ directions.T  # [B, N]
        room = along.square() - (away.square().sum(-1, keepdim=True) - radius.square())
        hit = (room > 0) & (along > 0)
        reach = torch.where(hit, torch.minimum(reach, along - room.clamp_min(0).sqrt()), reach)
    reach *= _random((batch, directions.shape[0]), generator, 0.995, 1.0)  # noise of the range
    return start + reach.unsqueeze(-1) * directions


def _scan_rays(count: int, device: torch.device) -> Tensor:
    rings = max(1, min(64, count // 4))
    steps = math.ceil(count / rings)
    index = torch.arange(count, device=device)
    turn = (index % steps).float() * (2 * math.pi / steps)
    rise = torch.deg2rad(-25.0 + 40.0 * (index // steps).float() / rings)
    return torch.stack([rise.cos() * turn.cos(), rise.cos() * turn.sin(), rise.sin()], dim=-1)


def _pixel_rays(count: int, device: torch.device) -> Tensor:
    height = max(1, math.isqrt(count * 3 // 4))
    width = math.ceil(count / height)
    index = torch.arange(count, device=device)
    across, down = (index % width).float() / width - 0.5, (index // width).float() / height - 0.5
    rays = torch.stack([torch.ones_like(across), 1.6 * across, -1.2 * down], dim=-1)
    return rays / rays.norm(dim=-1, keepdim=True)


def scattered(case: VoxelCase, generator: torch.Generator) -> Tensor:
    """Points [B, N, 3] inside the grid."""
    device = torch.device(generator.device)
    edge = torch.tensor(case.voxel, device=device)
    low = torch.tensor(case.grid_min, device=device)
    extent = edge * torch.tensor(case.size, device=device)
    shape = (case.batch, case.points, 3)
    if case.scatter == "uniform":
        points = _random(shape, generator).mul_(extent).add_(low)
    elif case.scatter == "onecell":
        middle = low + torch.tensor([cells // 2 for cells in case.size], device=device) * edge
        points = _random(shape, generator, 0.1, 0.9).mul_(edge).add_(middle)
    elif case.scatter == "scan":
        points = _ends((0.0, 0.0, 0.0), _scan_rays(case.points, device), case.batch, generator) * extent
    else:
        points = _ends((-0.48, 0.0, 0.0), _pixel_rays(case.points, device), case.batch, generator) * extent
    return points.clamp_(low + 1e-3 * edge, low + extent - 1e-3 * edge)


def _images(case: VoxelCase, inputs: VoxelInputs, generator: torch.Generator) -> None:
    """Cameras on a circle that look at the middle of the grid, over a rolling surface."""
    (cameras, height, width), device = case.image, torch.device(generator.device)
    shape = (case.batch, cameras, height, width)
    far = 0.5 * case.size[2] * case.voxel[2]
    rows = torch.linspace(0, 6.0, height, device=device)[:, None]
    columns = torch.linspace(0, 8.0, width, device=device)
    waves = 0.25 * far * torch.sin(rows + _random((case.batch, cameras, 1, 1), generator, 0, 6.0)) * torch.sin(columns)
    depth = (1.4 * far + waves + 0.01 * far * _random(shape, generator)) * 1000
    inputs.depth = depth.to(torch.int16).view(torch.uint16)
    focal = 1.6 * width
    camera = torch.tensor([focal, focal, (width - 1) / 2, (height - 1) / 2], device=device)
    inputs.intrinsics = camera.expand(case.batch, cameras, 4).contiguous()
    turn = torch.arange(cameras, device=device) * (2 * math.pi / cameras)
    zero, one = torch.zeros_like(turn), torch.ones_like(turn)
    # Columns of the rotation: right, down and the way it looks, from a distance of 1.4 * far.
    right = torch.stack([-turn.sin(), turn.cos(), zero], dim=-1)
    look = torch.stack([-turn.cos(), -turn.sin(), zero], dim=-1)
    down = torch.stack([zero, zero, -one], dim=-1)
    pose = torch.stack([right, down, look, -1.4 * far * look], dim=-1)  # [V, 3, 4]
    inputs.poses = pose.expand(case.batch, cameras, 3, 4).contiguous()
    if case.columns:
        inputs.features = torch.randint(
            0, 256, (*shape, case.columns), generator=generator, device=device, dtype=torch.uint8
        )


def build(case: VoxelCase, device: torch.device | str = "cpu", seed: int = 0) -> VoxelInputs:
    """Makes a case's inputs from a seed. Rows that share a base differ in their points alone."""
    generator = torch.Generator(device=torch.device(device))
    generator.manual_seed((zlib.crc32((case.base or case.name).encode()) * 1_000_003 + seed) % 2**62)
    inputs = VoxelInputs(case)
    if case.op == "images":
        _images(case, inputs, generator)
        return inputs
    inputs.points = scattered(case, generator)
    shape, made = (case.batch, case.points, case.columns), {"generator": generator, "device": torch.device(device)}
    grid_shape = (case.batch, *case.size, case.columns)
    if case.op in ("devoxelize", "devoxelize_backward"):
        if case.layout == "channels_first":
            grid_shape = (case.batch, case.columns, *case.size)
        inputs.grid = torch.randn(grid_shape, **made)
        if case.op == "devoxelize_backward":
            inputs.grad = torch.randn(shape, **made)
        return inputs
    if case.columns and case.op != "backward":
        inputs.features = torch.randn(shape, **made)
    if case.op in ("step", "backward"):
        inputs.grad = torch.randn(grid_shape, **made)
    if case.op == "backward":
        _saved(inputs, torch.randn(shape, **made))
    return inputs


def _saved(inputs: VoxelInputs, features: Tensor) -> None:
    """What the gradient of a mean or a max starts from: where points went, and counts or arguments."""
    case = inputs.case
    want = [_ARGMAX] if case.reduce == ("max",) else [1]
    dtypes = [_INT64] if case.reduce == ("max",) else [8]
    made, inputs.inverse = torch.ops.robocache.voxelize(
        inputs.points, features, want, dtypes, list(case.size), list(case.voxel), list(case.grid_min), need_inverse=True
    )
    if case.reduce == ("max",):
        inputs.arg = made
    else:
        inputs.counts = made
    inputs.points = None


# ---- Calls ---------------------------------------------------------------------------------------------------------


def _options(case: VoxelCase, backend: str) -> dict[str, Any]:
    dtypes = {name: "bits" if dtype == "bits" else getattr(torch, dtype) for name, dtype in case.out}
    options: dict[str, Any] = {"voxel_size": case.voxel, "grid_min": case.grid_min, "grid_size": case.size}
    options |= {"backend": backend, "out_dtype": dtypes or None}
    if case.op == "sparse":
        options |= {"max_voxels": case.max_voxels, "max_points": case.max_points or None}
        options["reduce"] = (case.reduce[0] if case.reduce else None) if not case.max_points else None
    else:
        options |= {"reduce": case.reduce if len(case.reduce) > 1 else case.reduce[0], "layout": case.layout}
    return options


def flat(result: Any) -> list[Tensor]:
    """The tensors of a result, in order."""
    if isinstance(result, Tensor):
        return [result]
    values = result.values() if isinstance(result, dict) else result
    return [tensor for value in values if value is not None for tensor in flat(value)]


def bind(inputs: VoxelInputs, backend: str = "auto") -> Callable[[], Any]:
    """The case through the public functions (gradients alone: the operators), ready to be called."""
    import robocache

    case = inputs.case
    if case.op == "devoxelize":
        where = {"voxel_size": case.voxel, "grid_min": case.grid_min, "layout": case.layout, "backend": backend}
        return lambda: robocache.devoxelize(inputs.grid, inputs.points, **where)
    if case.op == "devoxelize_backward":
        return _bind_devoxelize_backward(inputs, backend)
    if case.op == "backward":
        return _bind_backward(inputs, backend)
    options = _options(case, backend)
    if case.op == "sparse":
        return lambda: robocache.voxelize_point_cloud_sparse(inputs.points, inputs.features, **options)
    if case.op == "images":
        return lambda: robocache.voxelize_depth(
            inputs.depth, inputs.intrinsics, inputs.poses, inputs.features, depth_scale=0.001, **options
        )
    if case.op == "step":

        def step() -> Tensor:
            with torch.enable_grad():
                features = inputs.features.detach().requires_grad_()
                grid = robocache.voxelize_point_cloud(inputs.points, features, **options)
                return torch.autograd.grad(grid, features, inputs.grad)[0]

        return step
    return lambda: robocache.voxelize_point_cloud(inputs.points, inputs.features, **options)


def _bind_devoxelize_backward(inputs: VoxelInputs, backend: str) -> Callable[[], Any]:
    case, (by_grid, by_points) = inputs.case, inputs.case.gradients
    if backend != "torch":
        where = (1, list(case.voxel), list(case.grid_min), None, None, None, None, None, 0, 0.0)
        function = torch.ops.robocache.devoxelize_backward

        def native() -> list[Tensor]:
            return list(function(inputs.grad, inputs.grid, inputs.points, *where, by_grid, by_points))[: 1 + by_points]

        return native

    def reference() -> list[Tensor]:
        import robocache

        with torch.enable_grad():
            grid, points = inputs.grid.detach().requires_grad_(), inputs.points.detach().requires_grad_()
            where = {"voxel_size": case.voxel, "grid_min": case.grid_min, "backend": "torch"}
            out = robocache.devoxelize(grid, points, **where)
            return list(torch.autograd.grad(out, [grid, points][: 1 + by_points], inputs.grad))

    return reference


def _bind_backward(inputs: VoxelInputs, backend: str) -> Callable[[], Any]:
    case = inputs.case
    none = torch.empty(0, dtype=torch.int64, device=inputs.grad.device)
    grads, numbers, args = [inputs.grad], [_NUMBERS[case.reduce[0]]], [none if inputs.arg is None else inputs.arg]
    if backend != "torch":
        function = torch.ops.robocache.voxelize_backward
        rest = (inputs.inverse, inputs.counts, None, case.cells, False, torch.float32)
        return lambda: function(grads, numbers, args, *rest)

    def reference() -> Tensor:
        grad = inputs.grad.reshape(case.batch, case.cells, -1)
        at = inputs.inverse.unsqueeze(-1).expand(-1, -1, grad.shape[-1])
        if inputs.counts is not None:
            return grad.gather(1, at) / inputs.counts.reshape(case.batch, case.cells, 1).gather(1, at[..., :1])
        index = torch.arange(case.points, device=grad.device)[:, None]
        return torch.where(inputs.arg.reshape(grad.shape).gather(1, at) == index, grad.gather(1, at), 0.0)

    return reference
