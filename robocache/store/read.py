"""An episode's vector streams as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..datasets._vectors import Vector, read_vectors
from .streams import StreamLayout

Vectors: TypeAlias = "list[tuple[Tensor, Tensor]]"  # values [S, D] and times [S] of each stream, on the host


def vectors_of(episode: Any, layouts: Sequence[StreamLayout]) -> Vectors:
    """Values and times of each stream, in the packed dtype; a stream that the episode lacks has no samples.

    Raises:
        DatasetError: what the episode holds is not what its dataset's specs say, or a clock goes backwards.
    """
    arrays = read_vectors(episode, [(layout.name, layout.columns) for layout in layouts])
    return [
        (values.to(layout.dtype), times)
        for layout, (values, times) in zip(layouts, tensors(arrays, layouts), strict=True)
    ]


def tensors(arrays: Sequence[Vector | None], layouts: Sequence[StreamLayout]) -> Vectors:
    """Arrays as tensors of the dtype that they have (or one that holds it, where torch lacks it)."""
    found = []
    for pair, layout in zip(arrays, layouts, strict=True):
        if pair is None:
            found.append((torch.empty(0, layout.columns, dtype=layout.dtype), torch.empty(0, dtype=torch.int64)))
        else:
            found.append((as_tensor(pair[0]), as_tensor(pair[1])))
    return found


def as_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """The array as a tensor, shared where torch can: native byte order, contiguous, writable."""
    if array.dtype in (np.uint16, np.uint32):
        array = array.astype(np.int64)
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(native if native.flags.writeable else native.copy())
