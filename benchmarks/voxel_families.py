"""The voxelize suite's peers beside eager and compiled torch: Triton and CuPy on a GPU, NumPy and SciPy on the CPU.

Each says which cases it cannot do; see peer_set.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import voxel_peers
from .peer_set import Family
from .voxel_cases import VoxelCase
from .voxel_inputs import VoxelInputs

_REDUCTIONS = frozenset({"occupancy", "count", "mean", "max"})


def _not_dense(case: VoxelCase, library: str) -> str | None:
    if case.op == "dense":
        return None if case.layout == "channels_last" else f"the {library} peer writes channels last"
    asked = {
        "sparse": "sparse voxels need a sort and a compaction",
        "images": "the case starts from depth images",
        "devoxelize": "the case reads a grid",
        "devoxelize_backward": "the case is a gradient",
        "backward": "the case is a gradient",
        "step": "the case takes a gradient, which has no autograd there",
    }[case.op]
    return f"the {library} peer fills dense grids from points; {asked}"


def no_triton(case: VoxelCase) -> str | None:
    reason = _not_dense(case, "Triton")
    if reason or set(case.reduce) <= _REDUCTIONS:
        return reason
    return f"the Triton peer has no {', '.join(sorted(set(case.reduce) - _REDUCTIONS))}"


def no_cupy(case: VoxelCase) -> str | None:
    reason = _not_dense(case, "CuPy")
    if reason is None and ("occupancy", "bits") in case.out:
        return "CuPy has no scatter of single bits"
    if reason or set(case.reduce) <= _REDUCTIONS:
        return reason
    return f"the CuPy peer has no {', '.join(sorted(set(case.reduce) - _REDUCTIONS))}"


def no_numpy(case: VoxelCase) -> str | None:
    if voxel_peers.has_numpy(case):
        return None
    return _not_dense(case, "NumPy") or "the NumPy peer does one reduction of one sample, without bits"


def no_scipy(case: VoxelCase) -> str | None:
    reason = _not_dense(case, "SciPy")
    if reason or (len(case.reduce) == 1 and case.batch == 1 and case.reduce[0] != "occupancy"):
        return reason
    return "scipy.stats.binned_statistic_dd does one statistic of one sample, and has no occupancy"


def _triton(inputs: VoxelInputs) -> Callable[[], Any]:
    from . import triton_voxel

    return triton_voxel.bind(inputs)


def _cupy(inputs: VoxelInputs) -> Callable[[], Any]:
    from . import cupy_peers

    return cupy_peers.bind_voxel(inputs)


FAMILIES = (
    Family("triton", "cuda", no_triton, _triton, "triton"),
    Family("cupy", "cuda", no_cupy, _cupy, "cupy"),
    Family("numpy", "cpu", no_numpy, voxel_peers.bind_numpy, budget_s=1.0),
    Family("scipy", "cpu", no_scipy, voxel_peers.bind_scipy, "scipy", budget_s=1.0),
)
