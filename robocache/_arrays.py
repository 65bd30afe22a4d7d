"""Arrays as native code takes them: what the parts of the NumPy door share. torch is not imported."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._checks import VALUE_DTYPES

NUMBER = {name: number for number, name in enumerate(VALUE_DTYPES)}
LARGE = 4 << 20  # bytes of work past which a call takes one thread for each core


def dtype_name(dtype: Any) -> str:
    return str(np.dtype(dtype).name)


def as_array(name: str, value: Any) -> NDArray[Any]:
    """An array whose elements the kernels can address: native byte order and strides of whole elements."""
    array = np.asarray(value)
    if array.dtype == object:
        raise TypeError(f"{name}: expected an array of numbers, got {type(value).__name__}")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.aligned or any(stride % max(1, array.itemsize) for stride in array.strides):
        array = np.ascontiguousarray(array)
    return array


def index_vector(vector: NDArray[Any] | None) -> NDArray[Any] | None:
    return None if vector is None else np.ascontiguousarray(vector, dtype=np.int64)


def thread_count(threads: int | None, work: int) -> int:
    """The argument `threads` as a number; None asks for one a core where the work, in bytes, is large."""
    if threads is None:
        return len(os.sched_getaffinity(0)) if work >= LARGE else 1
    if isinstance(threads, bool) or not isinstance(threads, int):
        raise TypeError(f"threads: expected None or an int, got {type(threads).__name__}")
    if threads < 1:
        raise ValueError(f"threads: expected None or at least 1, got {threads}")
    return threads
