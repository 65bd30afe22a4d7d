"""The NumPy door: `resample_trajectories`, `fuse_multimodal`, `voxelize_point_cloud`, `voxelize_point_cloud_sparse`,
`voxelize_depth`, `devoxelize` and `auto_grid_min` on arrays, with the CPU kernels of the torch door and the same bits.
torch is not imported, so a robot needs none.

Shapes, names, defaults and errors are those of the functions of the same name in `robocache`; see there. Arrays may be
anything `numpy.asarray` takes, with any strides. bfloat16 arrays are those of the package ml_dtypes.

    >>> import numpy as np
    >>> import robocache.numpy as rc
    >>> rc.resample_trajectories(np.array([[0.0], [10.0]]), np.array([0.0, 1.0]), np.array([0.25, 0.5]))
    array([[2.5],
           [5. ]])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _native
from ._arrays import NUMBER, as_array, dtype_name, index_vector, thread_count
from ._checks import (
    FLOAT_DTYPES,
    VALUE_DTYPES,
    Options,
    check_out,
    check_out_dtype,
    check_stream,
    check_targets,
    named_streams,
    options_of,
    shape_text,
)
from ._errors import DataError
from ._kinds import Kind
from ._numpy_voxel import (
    SparseVoxels,
    auto_grid_min,
    devoxelize,
    voxelize_depth,
    voxelize_point_cloud,
    voxelize_point_cloud_sparse,
)
from ._stream import Stream, fused_columns

__all__ = [
    "DataError",
    "SparseVoxels",
    "Stream",
    "auto_grid_min",
    "devoxelize",
    "fuse_multimodal",
    "fused_columns",
    "resample_trajectories",
    "voxelize_depth",
    "voxelize_point_cloud",
    "voxelize_point_cloud_sparse",
]


def _promote(a: str, b: str) -> str:
    """torch.promote_types by name: floats win over integers, float16 with bfloat16 gives float32."""
    if a == b:
        return a
    if a in FLOAT_DTYPES and b in FLOAT_DTYPES:
        return "float32" if {a, b} == {"float16", "bfloat16"} else max(a, b, key=FLOAT_DTYPES.index)
    if a in FLOAT_DTYPES or b in FLOAT_DTYPES:
        return a if a in FLOAT_DTYPES else b
    if {a, b} == {"uint8", "int8"}:
        return "int16"
    return max(a, b, key=VALUE_DTYPES.index)


def _arrays(stream: Stream, prefix: str) -> Stream:
    """The stream with everything that is an array as one."""

    def given(name: str) -> NDArray[Any] | None:
        value = getattr(stream, name)
        return None if value is None else as_array(f"{prefix}{name}", value)

    offset = stream.time_offset
    if not (offset is None or (isinstance(offset, (int, float)) and not isinstance(offset, bool))):
        offset = as_array(f"{prefix}time_offset", offset)
    values, times = as_array(f"{prefix}values", stream.values), as_array(f"{prefix}times", stream.times)
    if values.ndim < 1:
        raise ValueError(f"{prefix}values: expected [B, S, D], got {shape_text(values.shape)}")
    return Stream(
        values,
        times,
        stream.kind,
        given("lengths"),
        given("row_splits"),
        given("rows"),
        stream.extrapolate,
        stream.max_gap,
        stream.tolerance,
        stream.invalid,
        offset,
    )


def _batched(stream: Stream, prefix: str) -> Stream:
    """One sequence alone [S, D] as a batch of one."""
    if stream.rows is not None:
        raise ValueError(f"{prefix}rows: expected None beside values [S, D]; rows pick among sequences [R, S, D]")
    if stream.times.ndim != 1 or stream.times.shape[0] != stream.values.shape[0]:
        raise ValueError(
            f"{prefix}times: expected [S] = [{stream.values.shape[0]}], got {shape_text(stream.times.shape)}"
        )
    return Stream(
        stream.values[None],
        stream.times,
        stream.kind,
        stream.lengths,
        None,
        None,
        stream.extrapolate,
        stream.max_gap,
        stream.tolerance,
        stream.invalid,
        stream.time_offset,
    )


def _native_stream(
    stream: Stream, targets: NDArray[Any], prefix: str, batch: Any
) -> tuple[tuple[Any, ...], Options, int]:
    """A checked stream as robocache._native takes it, its options and its batch size."""
    offset = stream.time_offset
    row_offsets = offset if isinstance(offset, np.ndarray) else None
    if row_offsets is not None and row_offsets.ndim == 0:
        sequences = stream.values.shape[0] if stream.row_splits is None else stream.row_splits.shape[0] - 1
        row_offsets = np.broadcast_to(row_offsets, (sequences if stream.rows is None else stream.rows.shape[0],))
    batch, _ = check_stream(stream, row_offsets, targets, prefix, batch, dtype_name)
    options = options_of(stream, prefix, dtype_name(stream.values.dtype), dtype_name(targets.dtype))
    if row_offsets is None and isinstance(offset, int) and abs(offset) > 2**53 and targets.dtype == np.int64:
        # A double no longer holds every whole number: such an offset goes as int64.
        row_offsets = np.full(batch, offset, np.int64)
        options = options._replace(time_offset=0.0)
    groups = None if options.groups is None else tuple(number for group in options.groups for number in group)
    native = (
        stream.values,
        stream.times,
        NUMBER[dtype_name(stream.values.dtype)],
        index_vector(stream.lengths),
        index_vector(stream.row_splits),
        index_vector(stream.rows),
        None if row_offsets is None else np.ascontiguousarray(row_offsets),
        options.kind,
        groups,
        options.extrapolate,
        options.invalid,
        options.max_gap,
        options.tolerance,
        options.time_offset,
    )
    return native, options, batch


def _run(
    fused: bool,
    streams: Sequence[Stream],
    names: Sequence[str],
    target_times: ArrayLike,
    return_valid: bool,
    out_dtype: Any,
    out: Any,
    threads: int | None,
) -> Any:
    targets = as_array("target_times", target_times)
    check_targets(targets, dtype_name)
    streams = [_arrays(stream, name) for stream, name in zip(streams, names, strict=True)]
    unbatched = targets.ndim == 1 and all(s.values.ndim == 2 and s.row_splits is None for s in streams)
    if unbatched:
        streams = [_batched(stream, name) for stream, name in zip(streams, names, strict=True)]
    native_streams, options = [], []
    batch: Any = None
    for stream, name in zip(streams, names, strict=True):
        native, option, batch = _native_stream(stream, targets, name, batch)
        native_streams.append(native)
        options.append(option)
    value_dtypes = [dtype_name(stream.values.dtype) for stream in streams]
    if out_dtype is not None:
        wanted = dtype_name(out_dtype)
    elif out is not None:
        wanted = dtype_name(out.dtype)
    else:
        wanted = value_dtypes[0]
        for value_dtype in value_dtypes[1:]:
            wanted = _promote(wanted, value_dtype)
    check_out_dtype(wanted, value_dtypes, options, names)
    length, columns = targets.shape[-1], sum(stream.values.shape[-1] for stream in streams)
    if out is None:
        # NumPy has no bfloat16 of its own: the dtype is that of whoever brought one.
        brought = [out_dtype, *(stream.values.dtype for stream in streams)]
        dtype = (
            next(np.dtype(d) for d in brought if d is not None and dtype_name(d) == wanted)
            if (wanted == "bfloat16")
            else np.dtype(wanted)
        )
        filled = np.empty((batch, length, columns), dtype)
    else:
        if not isinstance(out, np.ndarray):
            raise TypeError(f"out: expected a numpy.ndarray, got {type(out).__name__}")
        check_out(out, (length, columns) if unbatched else (batch, length, columns), wanted, dtype_name)
        if not out.flags.writeable or not out.dtype.isnative or any(step % out.itemsize for step in out.strides):
            raise ValueError("out: expected a writable array of native byte order and strides of whole elements")
        filled = out[None] if unbatched else out
    mask = None
    if return_valid:
        mask = np.empty((batch, length, len(streams)) if fused else (batch, length), np.bool_)
    time_dtype = NUMBER[dtype_name(targets.dtype)]
    workers = thread_count(threads, filled.nbytes)
    _native.align_arrays(native_streams, targets, time_dtype, filled, NUMBER[wanted], mask, workers)
    result = out if out is not None else filled[0] if unbatched else filled
    if mask is not None and unbatched:
        mask = mask[0]
    return (result, mask) if return_valid else result


def resample_trajectories(
    values: ArrayLike,
    times: ArrayLike,
    target_times: ArrayLike,
    *,
    kind: Kind = "linear",
    lengths: ArrayLike | None = None,
    row_splits: ArrayLike | None = None,
    rows: ArrayLike | None = None,
    extrapolate: str = "clamp",
    max_gap: float | None = None,
    tolerance: float | None = None,
    invalid: str = "keep",
    time_offset: Any = None,
    return_valid: bool = False,
    out_dtype: Any = None,
    out: NDArray[Any] | None = None,
    threads: int | None = None,
) -> Any:
    """Reads a stream of samples at new times; see `robocache.resample_trajectories`.

    Args:
        values, times, target_times, kind, lengths, row_splits, rows, extrapolate, max_gap, tolerance, invalid,
            time_offset, return_valid, out: as there, arrays for tensors.
        out_dtype: a NumPy dtype; that of the values where None.
        threads: at most this many. None: one for each core where the output is large, else 1.

    Returns:
        [B, T, D] ([T, D] for values [S, D]), or with `return_valid` that and a bool mask [B, T].

    Raises:
        ValueError, TypeError: an argument does not fit.
        DataError: the data breaks a promise.
    """
    stream = Stream(
        values, times, kind, lengths, row_splits, rows, extrapolate, max_gap, tolerance, invalid, time_offset
    )
    return _run(False, (stream,), ("",), target_times, return_valid, out_dtype, out, threads)


def fuse_multimodal(
    streams: Sequence[Stream] | Mapping[str, Stream],
    target_times: ArrayLike,
    *,
    return_valid: bool = False,
    out_dtype: Any = None,
    out: NDArray[Any] | None = None,
    threads: int | None = None,
) -> Any:
    """Reads several streams at the same targets and puts them side by side; see `robocache.fuse_multimodal`.

    Args:
        streams: a sequence of `Stream`, or a dict of them, holding arrays.
        target_times, return_valid, out: as there, arrays for tensors.
        out_dtype: a NumPy dtype; the streams' common one, as torch promotes, where None.
        threads: as in `resample_trajectories`.

    Returns:
        [B, T, sum of D], with `return_valid` also a bool mask [B, T, streams].
    """
    items, names = named_streams(streams)
    return _run(True, items, names, target_times, return_valid, out_dtype, out, threads)
