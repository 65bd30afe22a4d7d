"""CuPy's ways to do a row, where it has the operation: `interp` on one axis of samples, scatters into a grid.

CuPy runs on torch's current stream and takes its memory from torch's allocator, so that its calls can be captured into
the timer's graph; numbers that its kernels need are on the device before that. Only the calls import CuPy; what they
do with arrays is written for any module like NumPy, as the tests without a GPU use it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .cases import Inputs
from .voxel_cases import VoxelCase
from .voxel_inputs import VoxelInputs


@lru_cache(maxsize=1)
def _memory() -> Any:
    """CuPy's allocator on top of torch's. During a capture torch gives memory of the graph's own pool."""
    import cupy

    def allocate(size: int, device: int) -> int:
        return int(torch.cuda.caching_allocator_alloc(size, device, cupy.cuda.get_current_stream().ptr))

    def free(pointer: int, device: int) -> None:
        torch.cuda.caching_allocator_delete(pointer)

    return cupy.cuda.PythonFunctionAllocator(allocate, free)


@contextlib.contextmanager
def _on_torchs_stream() -> Iterator[None]:
    import cupy

    with warnings.catch_warnings():  # its successor takes stream objects that only newer torch versions have
        warnings.simplefilter("ignore", DeprecationWarning)
        stream = cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream)
    with stream, cupy.cuda.using_allocator(_memory().malloc):
        yield


def _tensor(array: Any) -> Tensor:
    """A CuPy array as a tensor on the same memory."""
    return torch.as_tensor(array, device="cuda")


# ---- Align ---------------------------------------------------------------------------------------------------------


def interpolate(xp: Any, times: Any, values: Any, targets: Any) -> Any:
    """One axis of samples: times [S], values [S, D], targets [T] -> [T, D], a column a call of `interp`."""
    out = xp.empty((targets.shape[0], values.shape[1]), dtype=values.dtype)
    for column in range(values.shape[1]):
        out[:, column] = xp.interp(targets, times, values[:, column])
    return out


def bind_align(inputs: Inputs) -> Callable[[], Tensor]:
    """The call of a case with one row; see `align_families.no_cupy`."""
    import cupy

    times, values, targets = (
        cupy.asarray(tensor[0]) for tensor in (inputs.streams[0]["times"], inputs.streams[0]["values"], inputs.targets)
    )

    def call() -> Tensor:
        with _on_torchs_stream():
            return _tensor(interpolate(cupy, times, values, targets))[None]

    return call


# ---- Voxelize ------------------------------------------------------------------------------------------------------

_CELL = """
    const long long at = 3 * (long long)i;
    const float x = floorf((points[at] - low[0]) / edge[0]);
    const float y = floorf((points[at + 1] - low[1]) / edge[1]);
    const float z = floorf((points[at + 2] - low[2]) / edge[2]);
    const bool inside = x >= 0 && x < size[0] && y >= 0 && y < size[1] && z >= 0 && z < size[2];
    const long long sample = (long long)i / count;
    const long long place = ((sample * size[0] + (long long)x) * size[1] + (long long)y) * size[2] + (long long)z;
    cell = inside ? place : outside;
"""


@lru_cache(maxsize=1)
def _cell_kernel() -> Any:
    """The cell of each point, or the one past the last, in one elementwise kernel."""
    import cupy

    inputs = "raw float32 points, raw float32 low, raw float32 edge, raw int64 size, int64 count, int64 outside"
    return cupy.ElementwiseKernel(inputs, "int64 cell", _CELL, "voxel_cell")


def scatter(xp: Any, ways: Any, case: VoxelCase, cell: Any, features: Any, one: dict[str, Any]) -> dict[str, Any]:
    """The grids of a dense case from the flat cell of each point, B * cells outside.

    `ways` holds `scatter_add` and `scatter_max`; `one` holds a one of each dtype, so that nothing is copied to the
    device meanwhile.
    """
    total, shape, made = case.batch * case.cells, (case.batch, *case.size), {}
    dtypes = dict(case.out)
    for name in case.reduce:
        if name == "occupancy":
            grid = xp.zeros(total + 1, dtype=dtypes.get(name, "bool"))
            grid[cell] = one[dtypes.get(name, "bool")]
        elif name == "max":
            grid = xp.full((total + 1, case.columns), -xp.inf, dtype="float32")
            ways.scatter_max(grid, cell, features)
            grid = xp.where(grid == -xp.inf, xp.float32(0), grid)
        else:
            counts = xp.zeros(total + 1, dtype="int32")
            ways.scatter_add(counts, cell, one["int32"])
            grid = counts
            if name == "mean":
                grid = xp.zeros((total + 1, case.columns), dtype="float32")
                ways.scatter_add(grid, cell, features)
                grid /= xp.maximum(counts, one["int32"]).astype("float32")[:, None]
        made[name] = grid[:total].reshape(*shape, *grid.shape[1:])
    return made


def bind_voxel(inputs: VoxelInputs) -> Callable[[], Any]:
    """The call of a dense case; see `voxel_families.no_cupy`."""
    import cupy
    import cupyx

    case = inputs.case
    points = cupy.asarray(inputs.points).reshape(-1)
    features = None if inputs.features is None else cupy.asarray(inputs.features).reshape(-1, case.columns)
    low, edge = (cupy.asarray(numbers, dtype="float32") for numbers in (case.grid_min, case.voxel))
    size = cupy.asarray(case.size, dtype="int64")
    one = {dtype: cupy.ones((), dtype=dtype) for dtype in ("bool", "uint8", "int32", "float32")}
    kernel, outside = _cell_kernel(), case.batch * case.cells

    def call() -> Any:
        with _on_torchs_stream():
            cell = cupy.empty(case.all_points, dtype="int64")
            kernel(points, low, edge, size, case.points, outside, cell)
            made = scatter(cupy, cupyx, case, cell, features, one)
            tensors = {name: _tensor(grid) for name, grid in made.items()}
        return tensors if len(tensors) > 1 else tensors[case.reduce[0]]

    return call
