"""RoboCache: multi-rate robot sensor streams aligned in time, point clouds and depth images voxelized, with one
arithmetic on GPU, CPU and robot.

    robocache.resample_trajectories        one stream at new times
    robocache.fuse_multimodal              several streams, side by side, in one kernel launch
    robocache.voxelize_point_cloud         points to a grid: occupancy, counts and what the points carry
    robocache.voxelize_point_cloud_sparse  points to occupied cells alone
    robocache.voxelize_depth               depth images to a grid
    robocache.devoxelize                   a grid read at points
    robocache.auto_grid_min                the corner of a grid that begins where the points do
    robocache.CUDAGraphCache               repeated calls replayed as CUDA graphs; cuda_graph is its decorator
    robocache.DataLoader                   batches of aligned windows read ahead from disk
    robocache.EpisodeStore                 a dataset's vector streams in device memory, windows drawn from them
    robocache.dispatch                     a context that says where calls on host tensors are computed
    robocache.explain                      where a call would be computed, and why
    robocache.numpy                        these functions on NumPy arrays; does not import torch
    robocache.datasets                     robot datasets as they lie on disk; does not import torch
    torch.ops.robocache                    the operators underneath

Names that need torch are loaded when they are first used, so that `import robocache.numpy` stays free of it. The
operators are registered as soon as both robocache and torch are imported, in either order.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import _hook
from ._errors import DataError
from ._stream import Stream, fused_columns
from ._version import __version__

if TYPE_CHECKING:
    from . import datasets
    from ._config import check, launch_counts, reset_launch_counts, show_config
    from ._dispatch.explain import Explanation, explain
    from ._dispatch.settings import dispatch
    from .align import fuse_multimodal, resample_trajectories
    from .depth_images import voxelize_depth
    from .devoxel import devoxelize
    from .graphs import BorrowedOutputError, CUDAGraphCache, GraphStats, cuda_graph, graph_cache
    from .loader import DataLoader, LoaderBatch, StarvationMeter
    from .sparse_voxels import SparseVoxels, voxelize_point_cloud_sparse
    from .store import EpisodeStore, WindowBatch
    from .voxelize import auto_grid_min, voxelize_point_cloud

__all__ = [
    "BorrowedOutputError",
    "CUDAGraphCache",
    "DataError",
    "DataLoader",
    "EpisodeStore",
    "Explanation",
    "GraphStats",
    "LoaderBatch",
    "SparseVoxels",
    "StarvationMeter",
    "Stream",
    "WindowBatch",
    "__version__",
    "auto_grid_min",
    "check",
    "cuda_graph",
    "datasets",
    "devoxelize",
    "dispatch",
    "explain",
    "fuse_multimodal",
    "fused_columns",
    "graph_cache",
    "launch_counts",
    "resample_trajectories",
    "reset_launch_counts",
    "show_config",
    "voxelize_depth",
    "voxelize_point_cloud",
    "voxelize_point_cloud_sparse",
]

_LAZY = {
    "resample_trajectories": ".align",
    "fuse_multimodal": ".align",
    "DataLoader": ".loader",
    "LoaderBatch": ".loader",
    "StarvationMeter": ".loader",
    "EpisodeStore": ".store",
    "SparseVoxels": ".sparse_voxels",
    "WindowBatch": ".store",
    "auto_grid_min": ".voxelize",
    "devoxelize": ".devoxel",
    "voxelize_depth": ".depth_images",
    "voxelize_point_cloud": ".voxelize",
    "voxelize_point_cloud_sparse": ".sparse_voxels",
    "BorrowedOutputError": ".graphs",
    "CUDAGraphCache": ".graphs",
    "GraphStats": ".graphs",
    "cuda_graph": ".graphs",
    "graph_cache": ".graphs",
    "Explanation": "._dispatch.explain",
    "check": "._config",
    "dispatch": "._dispatch.settings",
    "explain": "._dispatch.explain",
    "launch_counts": "._config",
    "reset_launch_counts": "._config",
    "show_config": "._config",
}


_SUBMODULES = ("datasets",)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_hook.install()
