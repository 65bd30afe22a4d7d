"""What a call costs the host: a suite's public functions and `torch.ops` beside `tensor.clone()`, on tiny inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .cases import KINDS
from .timing import host_us


def voxel_functions(device: str) -> dict[str, Callable[[], Any]]:
    """The voxelize suite's calls."""
    import robocache

    points, features = torch.rand(2, 8, 3, device=device), torch.rand(2, 8, 4, device=device)
    grid, depth = torch.rand(2, 4, 4, 4, 4, device=device), torch.rand(2, 4, 4, device=device)
    camera = torch.tensor([4.0, 4.0, 1.5, 1.5], device=device)
    where = {"voxel_size": 0.25, "grid_min": 0.0}
    size, edge, low = [4, 4, 4], [0.25, 0.25, 0.25], [0.0, 0.0, 0.0]
    ops = torch.ops.robocache
    return {
        "clone": lambda: features.clone(),
        "voxelize_point_cloud": lambda: robocache.voxelize_point_cloud(points, grid_size=4, **where),
        "voxelize_point_cloud(mean, count)": lambda: robocache.voxelize_point_cloud(
            points, features, grid_size=4, reduce=("mean", "count"), **where
        ),
        "voxelize_point_cloud_sparse": lambda: robocache.voxelize_point_cloud_sparse(
            points, features, grid_size=4, max_voxels=8, **where
        ),
        "voxelize_depth": lambda: robocache.voxelize_depth(depth, camera, None, grid_size=4, **where),
        "devoxelize": lambda: robocache.devoxelize(grid, points, **where),
        "ops.voxelize": lambda: ops.voxelize(points, None, [0], [4], size, edge, low),
        "ops.devoxelize": lambda: ops.devoxelize(grid, points, 1, edge, low),
    }


def align_functions(device: str) -> dict[str, Callable[[], Any]]:
    """The align suite's calls; inputs are so small that the device never holds the host up."""
    import robocache

    values = torch.randn(2, 8, 4, device=device)
    times = torch.arange(8, device=device, dtype=torch.float32).expand(2, 8).contiguous()
    targets = torch.tensor([[0.5, 2.5, 6.25]] * 2, device=device)
    out = torch.empty(2, 3, 4, device=device)
    other = torch.randn(2, 8, 2, device=device)
    streams = [robocache.Stream(values, times), robocache.Stream(other, times, kind="nearest")]
    linear, nearest = KINDS["linear"], KINDS["nearest"]
    ops = torch.ops.robocache
    return {
        "clone": lambda: values.clone(),
        "resample_trajectories": lambda: robocache.resample_trajectories(values, times, targets),
        "resample_trajectories(kind, out)": lambda: robocache.resample_trajectories(
            values, times, targets, kind="nearest", out=out
        ),
        "fuse_multimodal": lambda: robocache.fuse_multimodal(streams, targets),
        "ops.resample_trajectories": lambda: ops.resample_trajectories(values, times, targets, linear),
        "ops.fuse_multimodal": lambda: ops.fuse_multimodal([values, other], [times, times], targets, [linear, nearest]),
    }


def store_functions(device: str) -> dict[str, Callable[[], Any]]:
    """The store suite's calls: four streams, windows so small that the device never holds the host up."""
    from .store import StoreCase, build, recordings

    case = StoreCase("host", episodes=2, seconds=4.0)
    store = build(case, recordings(case), device)
    rows = torch.zeros(8, dtype=torch.int64, device=device)
    times = torch.arange(8, device=device) * (store.ticks_per_second // 30)
    return {
        "clone": lambda: rows.clone(),
        "EpisodeStore.sample": lambda: store.sample(8, 2),
        "EpisodeStore.sample(anchors='times')": lambda: store.sample(8, 2, anchors="times"),
        "EpisodeStore.at": lambda: store.at(rows, times, 2),
    }


FUNCTIONS = {"align": align_functions, "voxelize": voxel_functions, "store": store_functions}


def run_host(device: str, loops: int, rounds: int, say: Callable[[str], None], suite: str = "align") -> dict[str, Any]:
    """Host microseconds a call without and with gradients enabled, and each as a multiple of clone()."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    result: dict[str, Any] = {"loops": loops, "rounds": rounds}
    for name, mode in (("no_grad", torch.no_grad), ("grad", torch.enable_grad)):
        say(name)
        working: dict[str, Callable[[], Any]] = {}
        errors: dict[str, str] = {}
        with mode():
            for label, call in FUNCTIONS[suite](device).items():
                try:
                    call()
                    working[label] = call
                except Exception as error:  # noted; the run ends non-zero
                    errors[label] = f"{type(error).__name__}: {error}".splitlines()[0][:500]
            times = host_us(working, loops, rounds, synchronize)
        clone = times["clone"]["median"]
        result[name] = {label: {**t, "of_clone": t["median"] / clone} for label, t in times.items()}
        if errors:
            result.setdefault("errors", {})[name] = errors
    return result
