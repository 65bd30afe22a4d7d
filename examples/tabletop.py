"""A made-up tabletop in front of two RGB-D cameras: what a robot's depth cameras see of a few things on a table.

Depth is uint16 millimetres as such cameras send it, with noise that grows with the distance, and 0 where the sensor saw
nothing: at edges, and here and there. The table's frame has z up and z = 0 on the table. Everything follows from one
seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

HEIGHT, WIDTH, FOCAL = 480, 640, 525.0
LIGHT = (0.3, -0.4, 0.87)
EYES = ((0.75, -0.55, 0.62), (-0.70, -0.60, 0.55))  # where the cameras stand, metres
LOOK_AT = (0.0, 0.0, 0.06)


@dataclass
class Views:
    """What V cameras saw at one moment."""

    depth: Tensor  # [V, H, W] uint16, millimetres; 0: nothing
    color: Tensor  # [V, H, W, 3] uint8
    intrinsics: Tensor  # [V, 4] float32: fx, fy, cx, cy in pixels
    camera_to_table: Tensor  # [V, 3, 4] float32, metres


@dataclass
class Hit:
    """Where rays meet a thing: at which multiple of their direction, and how its surface faces there."""

    at: Tensor  # [H, W]; infinity: nowhere
    normal: Tensor  # [H, W, 3]


@dataclass
class Box:
    """A box that stands upright, turned by `yaw` radians."""

    center: tuple[float, float, float]
    size: tuple[float, float, float]
    color: tuple[float, float, float]
    yaw: float = 0.0

    def meet(self, eye: Tensor, rays: Tensor) -> Hit:
        c, s = torch.cos(torch.tensor(self.yaw)).item(), torch.sin(torch.tensor(self.yaw)).item()
        turn = torch.tensor([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]], dtype=rays.dtype)  # into the box's frame
        origin, along = turn @ (eye - eye.new_tensor(self.center)), rays @ turn.T
        half = eye.new_tensor(self.size) / 2
        one, other = (-half - origin) / along, (half - origin) / along
        near, axis = torch.minimum(one, other).max(dim=-1)
        far = torch.maximum(one, other).amin(dim=-1)
        side = torch.nn.functional.one_hot(axis, 3).to(rays.dtype) * -torch.sign(along)
        return Hit(near.where((near <= far) & (near > 0), torch.inf), side @ turn)


@dataclass
class Ball:
    center: tuple[float, float, float]
    radius: float
    color: tuple[float, float, float]

    def meet(self, eye: Tensor, rays: Tensor) -> Hit:
        center = eye.new_tensor(self.center)
        a, b = (rays * rays).sum(-1), rays @ (eye - center)
        root = b * b - a * ((eye - center).square().sum() - self.radius**2)
        at = torch.where(root >= 0, (-b - root.clamp(min=0).sqrt()) / a, torch.inf)
        return Hit(at, (eye + at.nan_to_num(posinf=0.0)[..., None] * rays - center) / self.radius)


@dataclass
class Can:
    """A closed cylinder that stands on the table."""

    center: tuple[float, float]
    radius: float
    height: float
    color: tuple[float, float, float]

    def meet(self, eye: Tensor, rays: Tensor) -> Hit:
        center = eye.new_tensor([*self.center, 0.0])
        origin = eye - center
        a, b = rays[..., :2].square().sum(-1), rays[..., :2] @ origin[:2]
        root = b * b - a * (origin[:2].square().sum() - self.radius**2)
        wall = torch.where(root >= 0, (-b - root.clamp(min=0).sqrt()) / a, torch.inf)
        z = origin[2] + wall * rays[..., 2]
        wall = wall.where((z >= 0) & (z <= self.height), torch.inf)
        lid = (self.height - origin[2]) / rays[..., 2]
        on_lid = (origin[:2] + lid[..., None] * rays[..., :2]).square().sum(-1) <= self.radius**2
        lid = lid.where(on_lid & (lid > 0), torch.inf)
        at = torch.minimum(wall, lid)
        out = (origin + at.nan_to_num(posinf=0.0)[..., None] * rays) / self.radius
        out = torch.where((lid < wall)[..., None], out.new_tensor([0.0, 0.0, 1.0]), out * out.new_tensor([1.0, 1.0, 0]))
        return Hit(at, out)


THINGS = (
    Box((0.0, 0.0, -0.75), (6.0, 6.0, 0.02), (0.35, 0.36, 0.38)),  # the floor
    Box((0.0, 0.0, -0.015), (0.90, 0.64, 0.03), (0.72, 0.55, 0.38)),  # the table
    Box((0.14, 0.12, 0.105), (0.06, 0.16, 0.21), (0.78, 0.16, 0.14), 0.5),
    Box((-0.24, -0.04, 0.03), (0.10, 0.10, 0.06), (0.22, 0.58, 0.27), -0.3),
    Ball((0.02, -0.14, 0.045), 0.045, (0.93, 0.74, 0.12)),
    Can((-0.10, 0.13), 0.035, 0.13, (0.16, 0.33, 0.72)),
    Can((0.28, -0.10), 0.05, 0.05, (0.85, 0.84, 0.80)),
)


def look_at(eye: Tensor, target: Tensor) -> Tensor:
    """Camera-to-world [3, 4] of a camera at `eye`: x to the right, y down, z forward."""
    forward = torch.nn.functional.normalize(target - eye, dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, eye.new_tensor([0.0, 0.0, 1.0])), dim=0)
    return torch.stack([right, torch.linalg.cross(forward, right), forward, eye], dim=1)


def _view(pose: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Depth [H, W] uint16 and colour [H, W, 3] uint8 of one camera."""
    rows, columns = torch.meshgrid(
        torch.arange(HEIGHT, dtype=torch.float64), torch.arange(WIDTH, dtype=torch.float64), indexing="ij"
    )
    in_camera = torch.stack(
        [(columns - (WIDTH - 1) / 2) / FOCAL, (rows - (HEIGHT - 1) / 2) / FOCAL, torch.ones_like(rows)], dim=-1
    )
    rays, eye = in_camera @ pose[:, :3].T, pose[:, 3]
    hits = [thing.meet(eye, rays) for thing in THINGS]
    depth, seen = torch.stack([hit.at for hit in hits]).min(dim=0)  # rays advance one metre in z: `at` is the depth
    normal = torch.stack([hit.normal for hit in hits]).gather(0, seen[None, ..., None].expand(1, -1, -1, 3))[0]
    light = torch.nn.functional.normalize(eye.new_tensor(LIGHT), dim=0)
    shade = 0.45 + 0.55 * (normal @ light).clamp(min=0)
    color = eye.new_tensor([thing.color for thing in THINGS])[seen] * shade[..., None]
    color = color + 0.015 * torch.randn(color.shape, generator=generator, dtype=color.dtype)
    missed = ~depth.isfinite()
    depth = depth.nan_to_num(posinf=0.0)

    noise = torch.randn(depth.shape, generator=generator, dtype=depth.dtype)
    noisy = depth + 0.0012 * depth.square() * noise
    step = torch.zeros_like(depth)  # how far depth jumps to the next pixel
    step[:, 1:] = depth.diff(dim=1).abs()
    step[1:] = torch.maximum(step[1:], depth.diff(dim=0).abs())
    nothing = missed | (step > 0.03) | (torch.rand(depth.shape, generator=generator, dtype=depth.dtype) < 0.02)
    millimetres = (noisy * 1000.0).round().clamp(0, 65535).masked_fill(nothing, 0.0)
    return millimetres.to(torch.int32).to(torch.uint16), (color.clamp(0, 1) * 255).round().to(torch.uint8)


def make_views(seed: int = 7) -> Views:
    """The scene as both cameras see it."""
    generator = torch.Generator().manual_seed(seed)
    poses = torch.stack(
        [look_at(torch.tensor(eye, dtype=torch.float64), torch.tensor(LOOK_AT, dtype=torch.float64)) for eye in EYES]
    )
    depth, color = zip(*(_view(pose, generator) for pose in poses), strict=True)
    intrinsics = torch.tensor([[FOCAL, FOCAL, (WIDTH - 1) / 2, (HEIGHT - 1) / 2]]).repeat(len(EYES), 1)
    return Views(torch.stack(depth), torch.stack(color), intrinsics, poses.float())


def unproject(depth: Tensor, intrinsics: Tensor, camera_to_table: Tensor, depth_scale: float) -> Tensor:
    """Points [V, H, W, 3] of depth images [V, H, W], NaN where there is no depth: by hand what voxelize_depth does on
    its way, operation by operation, so that both find the same cells."""
    fx, fy, cx, cy = (intrinsics[:, k, None, None] for k in range(4))
    z = depth.to(torch.float32) * torch.tensor(depth_scale, dtype=torch.float32)
    rows = torch.arange(depth.shape[1], dtype=torch.float32, device=depth.device)[None, :, None]
    columns = torch.arange(depth.shape[2], dtype=torch.float32, device=depth.device)[None, None, :]
    x, y = ((columns - cx) * z) / fx, ((rows - cy) * z) / fy
    pose = camera_to_table[:, :, :, None, None]
    moved = [((pose[:, r, 0] * x + pose[:, r, 1] * y) + pose[:, r, 2] * z) + pose[:, r, 3] for r in range(3)]
    return torch.stack(moved, dim=-1).masked_fill((z <= 0)[..., None], torch.nan)
