"""Streams of many episodes, one tensor each: values [N, D], times [N] and the row splits that part them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PackedStreams:
    """One part of a store or a pool. Lists are by stream; all tensors are ones that the kernels of the device read.

    Attributes:
        values: [N, D] each.
        times: [N] each, int64 ticks.
        row_splits: [R + 1] each: row r is samples row_splits[r] to row_splits[r + 1].
    """

    values: Sequence[Tensor]
    times: Sequence[Tensor]
    row_splits: Sequence[Tensor]

    @property
    def rows(self) -> int:
        return self.row_splits[0].shape[0] - 1

    @property
    def device(self) -> torch.device:
        return self.times[0].device


def splits_of(lengths: Sequence[int]) -> Tensor:
    """Row splits [R + 1] of R lengths."""
    splits = torch.zeros(len(lengths) + 1, dtype=torch.int64)
    torch.cumsum(torch.tensor(lengths, dtype=torch.int64), 0, out=splits[1:])
    return splits


class _PinnedBytes:
    """Pinned host memory as the CUDA array interface (version 3) describes device memory; keeps it alive."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.__cuda_array_interface__: dict[str, Any] = {
            "shape": (tensor.numel() * tensor.element_size(),),
            "typestr": "|u1",
            "data": (tensor.data_ptr(), False),
            "strides": None,
            "version": 3,
        }


def device_view(pinned: Tensor, device: torch.device) -> Tensor:
    """A CUDA tensor over pinned host memory: kernels read it in place, over the bus.

    With unified addressing a pinned allocation has one address for the host and every device (CUDA Programming Guide,
    "Mapped Memory").

    Raises:
        ValueError: the memory is not pinned, contiguous host memory.
        RuntimeError: torch copied it, or put it on another device.
    """
    if pinned.numel() == 0:
        return torch.empty(pinned.shape, dtype=pinned.dtype, device=device)
    if not pinned.is_pinned() or not pinned.is_contiguous():
        raise ValueError("pinned: expected a contiguous tensor in pinned host memory")
    seen = torch.as_tensor(_PinnedBytes(pinned), device=device)
    if seen.data_ptr() != pinned.data_ptr() or seen.device != device:
        raise RuntimeError(
            f"pinned host memory cannot be read in place from {device}: torch made it {seen.device} at another address"
        )
    return seen.view(pinned.dtype).view(pinned.shape)
