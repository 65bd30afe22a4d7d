"""An episode's vector streams as tensors, checked once so that no kernel meets a bad clock later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..datasets import DatasetError
from .streams import StreamLayout

Vectors: TypeAlias = "list[tuple[Tensor, Tensor]]"  # values [S, D] and times [S] of each stream, on the host


def _clock_error(times: np.ndarray[Any, Any], samples: int) -> str | None:
    if times.dtype != np.int64 or times.shape != (samples,):
        return f"times: expected int64 [S] = [{samples}], got {times.dtype} {list(times.shape)}"
    backwards = np.flatnonzero(times[1:] < times[:-1])
    if backwards.size:
        at = int(backwards[0])
        return f"times: go backwards after sample {at}, from {times[at]} to {times[at + 1]}"
    return None


def vectors_of(episode: Any, layouts: Sequence[StreamLayout]) -> Vectors:
    """Values and times of each stream, in the packed dtype; a stream that the episode lacks has no samples.

    Raises:
        DatasetError: what the episode holds is not what its dataset's specs say, or a clock goes backwards.
    """
    found = []
    for layout in layouts:
        stream = episode.streams.get(layout.name)
        if stream is None:
            found.append((torch.empty(0, layout.columns, dtype=layout.dtype), torch.empty(0, dtype=torch.int64)))
            continue
        values, times = np.asarray(stream.values), np.asarray(stream.times)
        problem = None
        if values.ndim != 2 or values.shape[1] != layout.columns:
            problem = f"values: expected [S, {layout.columns}], got {list(values.shape)}"
        problem = problem or _clock_error(times, len(values))
        if problem is not None:
            raise DatasetError(f"{layout.name}: {problem}", episode=episode.index)
        if values.dtype in (np.uint16, np.uint32):
            values = values.astype(np.int64)
        found.append((as_tensor(values).to(layout.dtype), as_tensor(times)))
    return found


def as_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """The array as a tensor, shared where torch can: native byte order, contiguous, writable."""
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(native if native.flags.writeable else native.copy())
