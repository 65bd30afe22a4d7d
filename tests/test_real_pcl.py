"""Recorded clouds (Point Cloud Library): a laser scan of the Stanford bunny, a tabletop from a depth camera."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import robocache

from . import voxel_oracle
from .backends import assert_same_bits
from .voxel_backends import (
    CPU,
    Call,
    VoxelBackend,
    agrees_with_oracle,
    every_backend,
    native_backend,
    public_backend,
)

pytestmark = pytest.mark.real_data

LEAF = 0.02


def unpack_lzf(packed: bytes, size: int) -> bytes:
    """LZF: runs of up to 32 new bytes, and copies of what came before."""
    out = bytearray()
    at = 0
    while at < len(packed):
        control = packed[at]
        at += 1
        if control < 32:
            out += packed[at : at + control + 1]
            at += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += packed[at]
            at += 1
        start = len(out) - ((control & 31) << 8) - packed[at] - 1
        at += 1
        for k in range(length + 2):  # the copy may reach into itself
            out.append(out[start + k])
    assert len(out) == size
    return bytes(out)


@cache
def load(path: Path) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Points [N, 3] and colours [N, 3] of a PCD file, ascii or binary_compressed."""
    raw = path.read_bytes()
    head, _, body = raw.partition(b"\nDATA ")
    kind, _, body = body.partition(b"\n")
    fields: dict[str, list[str]] = {}
    for line in head.decode().splitlines():
        if not line.startswith("#"):
            name, *rest = line.split()
            fields[name] = rest
    count, names = int(fields["POINTS"][0]), fields["FIELDS"]
    if kind.strip() == b"ascii":
        table = np.array([[float(x) for x in line.split()] for line in body.decode().splitlines()], np.float32)
        assert table.shape == (count, len(names))
        return torch.from_numpy(table[:, :3].copy()), None
    packed, size = struct.unpack_from("<II", body)
    columns = np.frombuffer(unpack_lzf(body[8 : 8 + packed], size), np.float32).reshape(len(names), count)
    rgb = columns[names.index("rgba")].copy().view(np.uint8).reshape(count, 4)[:, 2::-1]
    return torch.from_numpy(columns[:3].T.copy()), torch.from_numpy(rgb.copy())


def bunny(folder: Path) -> torch.Tensor:
    return load(folder / "pcl" / "bun0.pcd")[0]


def tabletop(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    points, colors = load(folder / "pcl" / "milk_cartoon_all_small_clorox.pcd")
    assert colors is not None
    return points, colors


def test_the_recordings_are_what_they_are(real_data: Path) -> None:
    points = bunny(real_data)
    assert points.shape == (397, 3) and bool(points.isfinite().all())
    points, colors = tabletop(real_data)
    assert points.shape == (640 * 480, 3) and colors.shape == points.shape
    assert int(points.isnan().any(1).sum()) == 65_793


@every_backend
def test_bunny_at_two_centimetres_has_103_voxels(backend: VoxelBackend, real_data: Path) -> None:
    """As the Point Cloud Library's VoxelGrid counts them, dense and sparse."""
    points = bunny(real_data)
    low = voxel_oracle.auto_grid_min(points, LEAF)
    size = (((points.max(0).values - low) / LEAF).floor().int() + 1).tolist()
    frame = {"voxel_size": LEAF, "grid_min": low, "grid_size": tuple(size)}
    got = agrees_with_oracle(
        backend, Call("dense", (points, points), {**frame, "reduce": ("count", "mean"), "return_dropped": True})
    )
    assert int((got["count"] > 0).sum()) == 103
    assert got["count"].sum() == 397 and got["dropped"].item() == 0
    rows = agrees_with_oracle(backend, Call("sparse", (points, points), {**frame, "max_voxels": 128}))
    assert rows["num_voxels"].item() == 103
    assert_same_bits(rows["mean"][:103], got["mean"][tuple(rows["coords"][:103].long().T)])


@public_backend
def test_bunny_with_an_automatic_corner(backend: VoxelBackend, real_data: Path) -> None:
    points = bunny(real_data)
    got = backend.run(Call("dense", (points, None), {"voxel_size": LEAF, "grid_min": "auto", "grid_size": 16}))
    assert int(got["occupancy"].sum()) == 103
    corner = robocache.auto_grid_min(backend.put(points), LEAF)
    assert_same_bits(corner, voxel_oracle.auto_grid_min(points, LEAF))


@every_backend
@pytest.mark.parametrize("leaf", [0.02, 0.01, 0.05])
def test_tabletop_against_numpy(backend: VoxelBackend, real_data: Path, leaf: float) -> None:
    """65,793 pixels without depth are dropped; centroids and colours of the others as NumPy has them."""
    points, colors = tabletop(real_data)
    size = (128, 128, 160) if leaf == 0.01 else (64, 64, 64)
    frame: dict[str, Any] = {"voxel_size": leaf, "grid_min": (-0.64, -0.64, 0.4), "grid_size": size}
    with np.errstate(invalid="ignore"):
        q = np.floor((points.numpy() - np.array(frame["grid_min"], np.float32)) / np.float32(leaf))
        inside = ((q >= 0) & (q < np.array(size, np.float32))).all(1)
    unique, inverse, counts = np.unique(q[inside].astype(np.int64), axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    got = backend.run(
        Call(
            "sparse",
            (points, colors),
            {**frame, "max_voxels": len(unique) + 7, "reduce": ("sum", "mean", "max")},
        )
    )
    assert got["num_voxels"].item() == len(unique) > 100
    np.testing.assert_array_equal(got["coords"][: len(unique)].numpy(), unique)
    np.testing.assert_array_equal(got["counts"][: len(unique)].numpy(), counts)
    sums = np.stack([np.bincount(inverse, colors.numpy()[inside, c]) for c in range(3)], axis=1)  # exact
    np.testing.assert_array_equal(got["sum"][: len(unique)].numpy(), sums)
    np.testing.assert_array_equal(
        got["mean"][: len(unique)].numpy(), sums.astype(np.float32) / counts[:, None].astype(np.float32)
    )
    rows = np.full(len(points), -1)
    rows[inside] = inverse
    np.testing.assert_array_equal(got["inverse"].numpy(), rows)
    assert bool((got["inverse"][points.isnan().any(1)] == -1).all())


@native_backend
def test_tabletop_dense_equals_the_reference(backend: VoxelBackend, real_data: Path) -> None:
    points, colors = tabletop(real_data)
    options = {
        "voxel_size": 0.01,
        "grid_min": (-0.64, -0.64, 0.4),
        "grid_size": (128, 128, 160),
        "reduce": ("mean", "max", "count", "occupancy"),
        "return_dropped": True,
        "return_inverse": True,
    }
    pair = Call("dense", (torch.stack([points, points.flip(0)]), torch.stack([colors, colors.flip(0)])), options)
    got, want = backend.run(pair), VoxelBackend("torch", backend.device).run(pair)
    for name in got:
        assert_same_bits(got[name], want[name], name)
    assert_same_bits(got["count"][0], got["count"][1])
    assert int(got["dropped"][0]) >= 65_793


@native_backend
def test_tabletop_as_a_depth_image(backend: VoxelBackend, real_data: Path) -> None:
    """The cloud is organised, 480 rows of 640: its z as depth, with the camera it came from, gives its cells back."""
    points, colors = tabletop(real_data)
    depth = points[:, 2].reshape(480, 640).nan_to_num(0)
    x = points[:, 0].reshape(480, 640)
    column = torch.arange(640.0).expand(480, 640)
    seen = (depth > 0) & (x.abs() > 0.05)
    slope = torch.stack([(x / depth)[seen], torch.ones(int(seen.sum()))], dim=1)
    focal, centre = torch.linalg.lstsq(slope.double(), column[seen].double()[:, None]).solution.flatten().tolist()
    assert 400 < focal < 700 and 300 < centre < 340
    camera = torch.tensor([focal, focal, centre, 239.5])
    options = {"voxel_size": 0.02, "grid_min": (-0.64, -0.64, 0.4), "grid_size": 64, "reduce": ("count", "mean")}
    call = Call("depth", (depth, camera, None, colors.reshape(480, 640, 3)), {**options, "return_dropped": True})
    got = backend.run(call)
    want = CPU.run(call)
    for name in got:
        assert_same_bits(got[name], want[name], name)
    assert int(got["count"].sum()) + int(got["dropped"]) == 640 * 480 - 65_793
