"""What a user would write in NumPy and SciPy on the CPU: a Python loop over the rows, each with its own stamps.

`numpy` finds the brackets of a row with searchsorted and interpolates all columns at once; `numpy-interp` calls
`np.interp` a column; `scipy` is `interp1d`, `PchipInterpolator` and `Slerp`. All take stamps as seconds or nanoseconds
since the row's first in double, and bfloat16 values, which NumPy has not, as float32 made outside the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .cases import Inputs

Array = NDArray[Any]
STEPS = ("previous", "next", "nearest")
NUMPY_KINDS = frozenset({"linear", "angle", *STEPS})
INTERP_KINDS = frozenset({"linear"})
SCIPY_KINDS = frozenset({"linear", "pchip", "slerp_xyzw", *STEPS})


def _numpy(tensor: Tensor) -> Array:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _wrap(angle: Array) -> Array:
    return np.remainder(angle + np.pi, 2 * np.pi) - np.pi


def _by_search(times: Array, values: Array, targets: Array, kind: str) -> Array:
    """times [S], values [S, D], targets [T] -> [T, D]."""
    later = np.clip(np.searchsorted(times, targets, side="right"), 1, len(times) - 1)
    earlier = later - 1
    weight = np.clip((targets - times[earlier]) / (times[later] - times[earlier]), 0, 1)
    if kind in STEPS:
        after = {"previous": weight >= 1, "next": weight > 0, "nearest": weight > 0.5}[kind]
        return values[np.where(after, later, earlier)]
    wide = values if values.dtype == np.float64 else values.astype(np.float32, copy=False)
    first, weight = wide[earlier], weight[:, None].astype(wide.dtype)
    step = wide[later] - first
    if kind == "angle":
        return _wrap(first + weight * _wrap(step))
    return first + weight * step


def _by_interp(times: Array, values: Array, targets: Array, kind: str) -> Array:
    out = np.empty((len(targets), values.shape[1]), np.float64)
    for column in range(values.shape[1]):
        out[:, column] = np.interp(targets, times, values[:, column])
    return out


def _by_scipy(times: Array, values: Array, targets: Array, kind: str) -> Array:
    from scipy import interpolate
    from scipy.spatial.transform import Rotation, Slerp

    if kind == "pchip":
        return interpolate.PchipInterpolator(times, values, axis=0)(targets)
    if kind == "slerp_xyzw":
        mixed = [
            Slerp(times, Rotation.from_quat(values[:, at : at + 4]))(targets).as_quat()
            for at in range(0, values.shape[1], 4)
        ]
        # A rotation's quaternion has either sign; ours goes on from the earlier sample's.
        earlier = np.clip(np.searchsorted(times, targets, side="right") - 1, 0, len(times) - 1)
        for place, part in enumerate(mixed):
            start = values[earlier, 4 * place : 4 * place + 4]
            part *= np.where((part * start).sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
        return np.concatenate(mixed, axis=1)
    ends = (values[0], values[-1])
    line = interpolate.interp1d(
        times, values, kind=kind, axis=0, copy=False, bounds_error=False, fill_value=ends, assume_sorted=True
    )
    return line(targets)


def _rows(stream: dict[str, Any], batch: int) -> Iterator[tuple[slice, int | None]]:
    """Where each row's samples lie: a slice of the samples and, where they are not packed, the row."""
    splits = stream.get("row_splits")
    lengths = stream.get("lengths")
    for row in range(batch):
        if splits is not None:
            sequence = int(stream["rows"][row])
            yield slice(int(splits[sequence]), int(splits[sequence + 1])), None
        else:
            yield slice(0, None if lengths is None else int(lengths[row])), row


def _bind(inputs: Inputs, way: Callable[[Array, Array, Array, str], Array]) -> Callable[[], Tensor]:
    case, targets = inputs.case, inputs.targets.numpy()
    streams = []
    for spec, stream in zip(case.streams, inputs.streams, strict=True):
        times, values = _numpy(stream["times"]), _numpy(stream["values"])
        places = list(_rows(stream, case.batch))
        parts = [
            (times[span] if row is None else times[row, span], values[span] if row is None else values[row, span])
            for span, row in places
        ]
        streams.append((spec.groups(), parts, values.dtype))
    dtype = streams[0][2]

    def call() -> Tensor:
        out = np.empty((case.batch, case.targets, case.columns), dtype)
        at = 0
        for groups, parts, _ in streams:
            for row, (times, values) in enumerate(parts):
                since = (times - times[0]).astype(np.float64)
                wanted = (targets[row] - times[0]).astype(np.float64)
                for begin, end, kind in groups:
                    out[row, :, at + begin : at + end] = way(since, values[:, begin:end], wanted, kind)
            at += groups[-1][1]
        return torch.from_numpy(out)

    return call


def bind_numpy(inputs: Inputs) -> Callable[[], Tensor]:
    return _bind(inputs, _by_search)


def bind_interp(inputs: Inputs) -> Callable[[], Tensor]:
    return _bind(inputs, _by_interp)


def bind_scipy(inputs: Inputs) -> Callable[[], Tensor]:
    return _bind(inputs, _by_scipy)
