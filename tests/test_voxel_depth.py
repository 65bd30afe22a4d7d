"""Depth images: cell for cell the same as their points, several cameras, colours, and pixels that see nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import robocache

from .backends import assert_same_bits
from .voxel_backends import (
    CPU,
    DEVICE,
    HOST,
    TORCH,
    Call,
    VoxelBackend,
    agrees_with_oracle,
    every_backend,
    native_backend,
    public_backend,
)

NAN, INF = math.nan, math.inf
# The C descriptor takes pixels that walk with one stride; the other doors copy such images.
copying_backend = pytest.mark.parametrize("backend", [HOST[0], HOST[1], HOST[3], DEVICE[0], DEVICE[2]])
# The reference reads nothing back from a device, and notes no fault there.
noting_backend = pytest.mark.parametrize("backend", [*HOST, *DEVICE[:2]])
FRAME: dict[str, Any] = {"voxel_size": 0.25, "grid_min": -0.75, "grid_size": (5, 6, 11)}
CAMERA = torch.tensor([20.0, 22.0, 7.5, 5.25])


def images(*lead: int, seed: int = 0, height: int = 11, width: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth in metres and a colour for each pixel."""
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(*lead, height, width, generator=generator) * 2 + 0.1
    color = torch.randint(0, 256, (*lead, height, width, 3), generator=generator, dtype=torch.uint8)
    return depth, color


def poses(*lead: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    made = torch.eye(4).repeat(*lead, 1, 1) if lead else torch.eye(4)
    made[..., :3, :] += torch.randn(*lead, 3, 4, generator=generator) * 0.15
    return made


def points_of(depth: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
    """[..., H * W, 3], each operation rounded to float32."""
    height, width = depth.shape[-2:]
    fx, fy, cx, cy = (camera[..., k, None, None] for k in range(4))
    x = ((torch.arange(width).float() - cx) * depth) / fx
    y = ((torch.arange(height).float()[:, None] - cy) * depth) / fy
    return torch.stack([x, y, depth.expand_as(x)], dim=-1).flatten(-3, -2)


def run(
    backend: VoxelBackend, depth: torch.Tensor, camera: Any, pose: Any = None, color: Any = None, **options: Any
) -> dict[str, torch.Tensor]:
    return backend.run(Call("depth", (depth, camera, pose, color), {**FRAME, **options}))


EXTRAS = {"return_counts": True, "return_inverse": True, "return_dropped": True}


@every_backend
def test_equal_to_explicit_points(backend: VoxelBackend) -> None:
    depth, color = images(3)
    names = ("occupancy", "count", "mean", "max", "sum", "min")
    for pose in (None, poses(), poses(3)):
        got = run(backend, depth, CAMERA, pose, color, reduce=names, **EXTRAS)
        points = points_of(depth, CAMERA)
        options = {**FRAME, "reduce": names, "pose": pose, **EXTRAS}
        want = backend.run(Call("dense", (points, color.reshape(3, -1, 3)), options))
        assert 0 < int(want["dropped"].sum()) < points.numel() // 3
        for name in got.keys() - {"inverse"}:
            assert_same_bits(got[name], want[name], name)
        assert_same_bits(got["inverse"], want["inverse"].reshape(depth.shape))


@every_backend
def test_several_cameras_see_one_grid(backend: VoxelBackend) -> None:
    """Cameras of a sample come one after the other in the index of its points."""
    depth, color = images(2, 3, seed=2)
    cameras = CAMERA * (1 + torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(3)) * 0.1)
    pose = poses(2, 3)
    names = ("count", "mean", "max")
    got = run(backend, depth, cameras, pose, color, reduce=names, **EXTRAS)
    assert got["inverse"].shape == depth.shape
    seen = points_of(depth, cameras)  # [B, V, H * W, 3]
    x, y, z = seen.unbind(-1)
    rows = [[pose[:, :, r, c, None] for c in range(4)] for r in range(3)]
    moved = torch.stack([((row[0] * x + row[1] * y) + row[2] * z) + row[3] for row in rows], dim=-1)
    want = backend.run(
        Call("dense", (moved.flatten(1, 2), color.reshape(2, -1, 3)), {**FRAME, "reduce": names, **EXTRAS})
    )
    for name in got.keys() - {"inverse"}:
        assert_same_bits(got[name], want[name], name)
    assert_same_bits(got["inverse"].flatten(1), want["inverse"])


@every_backend
def test_intrinsics_and_poses_are_shared_or_each(backend: VoxelBackend) -> None:
    """[4], [3, 3], [B, V, 4], [B, V, 3, 3] and poses [3, 4], [4, 4], [B, V, 3, 4] say the same."""
    depth, _ = images(2, 3, seed=4)
    matrix = torch.tensor([[20.0, 0.0, 7.5], [0.0, 22.0, 5.25], [0.0, 0.0, 1.0]])
    pose = poses()
    want = run(backend, depth, CAMERA, pose, reduce="count")["count"]
    cameras = [CAMERA, matrix, CAMERA.expand(2, 3, 4), matrix.expand(2, 3, 3, 3), CAMERA.expand(2, 1, 4)]
    for camera in cameras:
        for shape in (pose, pose[:3], pose.expand(2, 3, 4, 4), pose[:3].expand(2, 1, 3, 4)):
            assert_same_bits(run(backend, depth, camera, shape, reduce="count")["count"], want, str(camera.shape))


@every_backend
def test_one_image_alone(backend: VoxelBackend) -> None:
    depth, color = images(seed=5)
    got = run(backend, depth, CAMERA, poses(), color, reduce=("count", "mean"), **EXTRAS)
    batched = run(backend, depth[None, None], CAMERA, poses(), color[None, None], reduce=("count", "mean"), **EXTRAS)
    assert got["count"].shape == FRAME["grid_size"] and got["inverse"].shape == depth.shape
    assert got["dropped"].shape == ()
    for name in ("count", "mean", "dropped"):
        assert_same_bits(got[name], batched[name][0], name)
    assert_same_bits(got["inverse"], batched["inverse"][0, 0])


@every_backend
def test_pixels_that_see_nothing_are_no_points(backend: VoxelBackend) -> None:
    depth, _ = images(seed=6)
    flat = depth.view(-1)
    flat[:9] = torch.tensor([0.0, -0.0, NAN, INF, -INF, -1.0, 3e38, 1e-42, 2.9])
    got = run(backend, depth, CAMERA, reduce="count", bounds="clamp", depth_scale=2.0, **EXTRAS)
    assert got["inverse"].view(-1)[:7].tolist() == [-1] * 7  # 3e38 is infinite when scaled
    assert int(got["count"].sum()) == depth.numel() - 7
    dropped = run(backend, depth, CAMERA, reduce="count", depth_scale=2.0, return_dropped=True)
    assert int(dropped["count"].sum()) + int(dropped["dropped"]) == depth.numel() - 7
    agrees_with_oracle(backend, Call("depth", (depth, CAMERA, poses(), None), {**FRAME, "depth_scale": 2.0, **EXTRAS}))
    blank = torch.zeros(4, 5)
    got = run(backend, blank, CAMERA, bounds="raise", return_dropped=True)
    assert not bool(got["occupancy"].any()) and got["dropped"].item() == 0


@every_backend
def test_millimetres(backend: VoxelBackend) -> None:
    """uint16 depth, 65535 included, is scaled in float32."""
    depth = torch.arange(11 * 16, dtype=torch.int32).reshape(11, 16) * 15
    depth[3, 4], depth[5, 6] = 65535, 40000
    raw = depth.to(torch.uint16)
    got = run(backend, raw, CAMERA, reduce="count", depth_scale=0.001, **EXTRAS)
    metres = depth.float() * torch.tensor(0.001)
    want = run(backend, metres, CAMERA, reduce="count", **EXTRAS)
    for name in want:
        assert_same_bits(got[name], want[name], name)
    far = run(backend, raw, CAMERA, reduce="count", depth_scale=0.001, bounds="clamp", return_inverse=True)
    assert far["inverse"][3, 4].item() >= 0


@every_backend
def test_masks(backend: VoxelBackend) -> None:
    depth, color = images(2, seed=7)
    mask = torch.rand(2, 11, 16, generator=torch.Generator().manual_seed(8)) < 0.5
    got = run(backend, depth, CAMERA, None, color, mask=mask, reduce=("count", "sum"), **EXTRAS)
    hidden = run(backend, torch.where(mask, depth, 0.0), CAMERA, None, color, reduce=("count", "sum"), **EXTRAS)
    for name in got:
        assert_same_bits(got[name], hidden[name], name)


@noting_backend
def test_a_pixel_outside_raises_with_its_place(backend: VoxelBackend) -> None:
    from .capi import CApiError

    depth = torch.full((2, 2, 4, 5), 0.5)
    camera = torch.tensor([50.0, 50.0, 2.0, 2.0])
    assert run(backend, depth, camera, bounds="raise")["occupancy"].any()
    depth[1, 1, 2, 3] = 90.0
    with pytest.raises((robocache.DataError, CApiError)) as caught:
        run(backend, depth, camera, bounds="raise")
    if isinstance(caught.value, robocache.DataError):
        assert (caught.value.fault, caught.value.row) == ("point_outside", 1)
        assert caught.value.position == (1 * 4 + 2) * 5 + 3


@every_backend
def test_each_sample_has_its_own_grid(backend: VoxelBackend) -> None:
    depth, _ = images(2, 2, seed=9)
    frame = {
        "voxel_size": torch.tensor([[0.25, 0.2, 0.1], [0.3, 0.25, 0.5]]),
        "grid_min": torch.tensor([[-1.0, -1.0, 0.0], [-0.5, -0.25, 0.5]]),
        "grid_size": (6, 7, 8),
    }
    agrees_with_oracle(backend, Call("depth", (depth, CAMERA, poses(2, 2), None), {**frame, "reduce": "count"}))


@copying_backend
def test_strided_images(backend: VoxelBackend) -> None:
    """Every second pixel, a crop, a transposed image, colours with channels first."""
    depth, color = images(2, seed=10, height=22, width=32)
    views = [
        (depth[:, ::2, ::2], color[:, ::2, ::2]),
        (depth[:, 3:14, 5:21], color[:, 3:14, 5:21]),
        (depth.transpose(1, 2), color.transpose(1, 2)),
        (depth, color.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)),
    ]
    for seen, tint in views:
        got = run(backend, seen, CAMERA, poses(), tint, reduce=("count", "mean"), **EXTRAS)
        want = run(backend, seen.contiguous(), CAMERA, poses(), tint.contiguous(), reduce=("count", "mean"), **EXTRAS)
        for name in got:
            assert_same_bits(got[name], want[name], name)


@native_backend
def test_accumulates(backend: VoxelBackend) -> None:
    """Camera by camera into one grid is all cameras at once."""
    depth, _ = images(2, 3, seed=11)
    pose = poses(2, 3)
    whole = run(backend, depth, CAMERA, pose, reduce="count")["count"]
    out = torch.zeros(2, *FRAME["grid_size"], dtype=torch.int32, device=backend.device)
    for v in range(3):
        robocache.voxelize_depth(
            backend.put(depth[:, v]),
            backend.put(CAMERA),
            backend.put(pose[:, v]),
            reduce="count",
            out=out,
            backend=backend.name,
            **FRAME,
        )
    assert_same_bits(out, whole)


@public_backend
def test_colours_get_gradients(backend: VoxelBackend) -> None:
    depth, color = images(2, 2, seed=12)
    leaf = backend.put(color.float()).requires_grad_()
    grid = robocache.voxelize_depth(
        backend.put(depth), backend.put(CAMERA), None, leaf, reduce="sum", backend=backend.name, **FRAME
    )
    grid.sum().backward()
    inverse = run(backend, depth, CAMERA, reduce="count", return_inverse=True)["inverse"]
    assert leaf.grad is not None
    assert_same_bits(leaf.grad, (inverse >= 0)[..., None].expand(-1, -1, -1, -1, 3).float())


def test_arguments_are_named() -> None:
    depth, color = images(2)
    for backend in (CPU, TORCH):
        for given, name in [
            ((depth.double(), CAMERA, None), "depth"),
            ((depth[0, 0], CAMERA, None), "depth"),
            ((depth, CAMERA[:3], None), "intrinsics"),
            ((depth, CAMERA, torch.eye(3)), "camera_to_grid"),
            ((depth, CAMERA, None, color[:, :5]), "color"),
        ]:
            with pytest.raises((ValueError, TypeError), match=name):
                robocache.voxelize_depth(*given, backend=backend.name, **FRAME)
