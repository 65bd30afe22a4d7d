"""Direct calls of the voxel operators: numbers, inputs and options that the tests of them share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

OPS = torch.ops.robocache
GRID: tuple[list[int], list[float], list[float]] = ([3, 4, 5], [1.0, 0.5, 1.0], [0.0, 0.0, -1.0])
OCCUPANCY, COUNT, SUM, MEAN, MAX, MIN, ARGMAX, ARGMIN = range(8)
F16, F32, F64, BOOL, U8, I32, I64, BITS = 0, 2, 3, 4, 5, 8, 9, 11
ALL = [SUM, OCCUPANCY, COUNT, MEAN, MAX, MIN, ARGMAX, ARGMIN]  # opcheck adds results up, a floating one first
ALL_DTYPES = [F32, BITS, I32, F32, F32, F16, I64, I32]
CELLS = 3 * 4 * 5


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One thread: gradcheck makes thousands of tiny calls."""
    torch.manual_seed(11)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cloud(batch: int = 2, count: int = 30, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(batch, count, 3, dtype=dtype) * torch.tensor([3.6, 2.4, 6.0], dtype=dtype) - torch.tensor(
        [0.3, 0.2, 1.5], dtype=dtype
    )


def images(batch: int = 2, cameras: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    depth = torch.rand(batch, cameras, 4, 6) * 3
    depth[0, 0, 0, :2] = torch.tensor([0.0, float("nan")])
    intrinsics = torch.tensor([5.0, 5.0, 2.0, 1.5]).expand(batch, cameras, 4).contiguous()
    return depth, intrinsics, torch.randn(batch, cameras, 4, 6, 3)


def some_options() -> dict[str, Any]:
    return {
        "voxel_sizes": torch.tensor([[1.0, 0.5, 1.0], [0.5, 0.5, 0.7]]),
        "grid_mins": torch.tensor([[0.0, 0.0, -1.0]]),
        "mask": torch.rand(2, 30) < 0.7,
        "poses": torch.eye(4)[:3].expand(2, 3, 4).contiguous(),
        "bounds": 1,
        "channels_first": True,
        "empty_value": -3.0,
        "need_inverse": True,
        "need_dropped": True,
    }


SPLITS = torch.tensor([1, 12, 12, 28])
