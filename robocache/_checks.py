"""Checks of a call that shapes, dtypes and options alone decide, shared by the torch and the NumPy door.

Arguments are duck typed: anything with .shape, .ndim and .dtype. A door tells how a dtype is called. Every message
names the argument, what was expected and what came.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ._kinds import EXTRAPOLATE, INVALID, KINDS, SLERP_KINDS, STEP_KINDS, Group, choice, groups_of
from ._stream import Stream

VALUE_DTYPES = ("float16", "bfloat16", "float32", "float64", "bool", "uint8", "int8", "int16", "int32", "int64")
FLOAT_DTYPES = VALUE_DTYPES[:4]
TIME_DTYPES = ("float32", "float64", "int64")
INDEX_DTYPES = ("int64", "int32", "int16", "int8", "uint8")
MAX_STREAMS = 16
BACKENDS = ("auto", "cuda", "cpu", "torch", "triton")

DtypeName = Callable[[Any], str]


class Options(NamedTuple):
    """A stream's options as native code takes them."""

    kind: int  # used where `groups` is None
    groups: tuple[Group, ...] | None
    extrapolate: int
    invalid: int
    max_gap: float  # -1: none
    tolerance: float  # -1: none
    time_offset: float


def shape_text(shape: Sequence[Any]) -> str:
    return "[" + ", ".join(str(size) for size in shape) + "]"


def _span(name: str, value: Any) -> float:
    if value is None:
        return -1.0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected None or a number, got {type(value).__name__}")
    if not value >= 0:
        raise ValueError(f"{name}: expected None or a number of 0 or more, got {value}")
    return float(value)


def check_targets(targets: Any, dtype_name: DtypeName) -> None:
    if targets.ndim not in (1, 2):
        raise ValueError(f"target_times: expected [B, T] or [T], got {shape_text(targets.shape)}")
    if dtype_name(targets.dtype) not in TIME_DTYPES:
        raise TypeError(f"target_times: expected float32, float64 or int64, got {dtype_name(targets.dtype)}")


def options_of(stream: Stream, prefix: str, value_dtype: str, time_dtype: str) -> Options:
    """Names and numbers of a stream's options, checked. A time_offset that is no number counts as 0."""
    groups: tuple[Group, ...] | None = None
    if isinstance(stream.kind, str):
        number = choice(f"{prefix}kind", stream.kind, KINDS)
        if number in SLERP_KINDS and stream.values.shape[-1] % 4 != 0:
            raise ValueError(
                f"{prefix}kind: {stream.kind} takes whole quaternions (a multiple of 4 columns), "
                f"got {stream.values.shape[-1]} columns"
            )
        numbers: tuple[int, ...] = (number,)
    else:
        groups = groups_of(stream.kind, int(stream.values.shape[-1]), f"{prefix}kind")
        numbers = tuple(group[2] for group in groups)
        number = numbers[0] if numbers else 0
    if value_dtype not in FLOAT_DTYPES:
        for found in numbers:
            if found not in STEP_KINDS:
                raise ValueError(
                    f"{prefix}kind: {value_dtype} values take nearest, previous or next, got {list(KINDS)[found]}"
                )
    offset = 0.0
    if isinstance(stream.time_offset, (int, float)) and not isinstance(stream.time_offset, bool):
        offset = float(stream.time_offset)
        if not math.isfinite(offset):
            raise ValueError(f"{prefix}time_offset: expected a finite number, got {stream.time_offset}")
        if time_dtype == "int64" and (offset != math.floor(offset) or abs(offset) >= 2.0**63):
            raise ValueError(
                f"{prefix}time_offset: expected a whole number that int64 holds beside int64 times, "
                f"got {stream.time_offset}"
            )
        if time_dtype == "float32" and abs(offset) > 3.4028234663852886e38:
            raise ValueError(f"{prefix}time_offset: expected a number that float32 holds, got {stream.time_offset}")
    return Options(
        number,
        groups,
        choice(f"{prefix}extrapolate", stream.extrapolate, EXTRAPOLATE),
        choice(f"{prefix}invalid", stream.invalid, INVALID),
        _span(f"{prefix}max_gap", stream.max_gap),
        _span(f"{prefix}tolerance", stream.tolerance),
        offset,
    )


def _check_vector(name: str, symbol: str, vector: Any, size: Any, dtypes: Sequence[str], dtype_name: DtypeName) -> None:
    if vector is None:
        return
    if vector.ndim != 1 or (size is not None and vector.shape[0] != size):
        expected = f"[{symbol}]" if size is None else f"[{symbol}] = [{size}]"
        raise ValueError(f"{name}: expected {expected}, got {shape_text(vector.shape)}")
    if dtype_name(vector.dtype) not in dtypes:
        expected = "an integer dtype" if len(dtypes) > 1 else dtypes[0]
        raise TypeError(f"{name}: expected {expected}, got {dtype_name(vector.dtype)}")


def check_stream(
    stream: Stream, row_offsets: Any, targets: Any, prefix: str, batch: Any, dtype_name: DtypeName
) -> tuple[Any, Any]:
    """Checks shapes and dtypes of a stream whose values are batched or packed; returns (B, D).

    `row_offsets` is the stream's time_offset where that is not a number; `batch` is that of the streams before, or
    None."""
    values, times = stream.values, stream.times
    if dtype_name(values.dtype) not in VALUE_DTYPES:
        raise TypeError(f"{prefix}values: expected one of {', '.join(VALUE_DTYPES)}, got {dtype_name(values.dtype)}")
    if dtype_name(times.dtype) != dtype_name(targets.dtype):
        raise TypeError(
            f"{prefix}times: expected the dtype of target_times, {dtype_name(targets.dtype)}, "
            f"got {dtype_name(times.dtype)}"
        )
    if stream.row_splits is not None:
        if values.ndim != 2:
            raise ValueError(f"{prefix}values: expected [N, D] beside row_splits, got {shape_text(values.shape)}")
        if stream.lengths is not None:
            raise ValueError(f"{prefix}lengths: expected None beside row_splits, which say it already")
        _check_vector(f"{prefix}row_splits", "R + 1", stream.row_splits, None, INDEX_DTYPES, dtype_name)
        if stream.row_splits.shape[0] < 1:
            raise ValueError(f"{prefix}row_splits: expected [R + 1], at least one offset, got [0]")
        sequences = stream.row_splits.shape[0] - 1
        samples, columns = values.shape[0], values.shape[1]
        if times.ndim != 1 or times.shape[0] != samples:
            raise ValueError(f"{prefix}times: expected [N] = [{samples}], got {shape_text(times.shape)}")
    else:
        if values.ndim != 3:
            raise ValueError(f"{prefix}values: expected [B, S, D], got {shape_text(values.shape)}")
        sequences, samples, columns = values.shape[0], values.shape[1], values.shape[2]
        shared = times.ndim == 1
        if times.ndim not in (1, 2) or times.shape[-1] != samples or not (shared or times.shape[0] == sequences):
            letter = "B" if stream.rows is None else "R"
            raise ValueError(
                f"{prefix}times: expected [{letter}, S] = [{sequences}, {samples}]"
                f"{f' or [S] = [{samples}]' if shared else ''}, got {shape_text(times.shape)}"
            )
    _check_vector(
        f"{prefix}lengths", "B" if stream.rows is None else "R", stream.lengths, sequences, INDEX_DTYPES, dtype_name
    )
    _check_vector(f"{prefix}rows", "B", stream.rows, None, INDEX_DTYPES, dtype_name)
    rows = sequences if stream.rows is None else stream.rows.shape[0]
    if batch is not None and rows != batch:
        argument = "values" if stream.rows is None else "rows"
        raise ValueError(f"{prefix}{argument}: expected the batch of the first stream, {batch}, got {rows}")
    if targets.ndim == 2 and targets.shape[0] != rows:
        raise ValueError(
            f"target_times: expected [B, T] = [{rows}, {targets.shape[1]}], got {shape_text(targets.shape)}"
        )
    _check_vector(f"{prefix}time_offset", "B", row_offsets, rows, (dtype_name(targets.dtype),), dtype_name)
    return rows, columns


_INTEGER_ORDER = ("int8", "int16", "int32", "int64")


def integer_holds(to: str, value_dtype: str) -> bool:
    """torch.promote_types(value_dtype, to) == to, for dtypes that are not floating."""
    if value_dtype in (to, "bool"):
        return True
    if to not in _INTEGER_ORDER:
        return False
    if value_dtype == "uint8":
        return to != "int8"
    return _INTEGER_ORDER.index(value_dtype) <= _INTEGER_ORDER.index(to)


def check_out_dtype(
    out_dtype: str, value_dtypes: Sequence[str], options: Sequence[Options], prefixes: Sequence[str]
) -> None:
    if out_dtype not in VALUE_DTYPES:
        raise TypeError(f"out_dtype: expected one of {', '.join(VALUE_DTYPES)}, got {out_dtype}")
    if out_dtype in FLOAT_DTYPES:
        return
    for value_dtype, option, prefix in zip(value_dtypes, options, prefixes, strict=True):
        if value_dtype in FLOAT_DTYPES or not integer_holds(out_dtype, value_dtype):
            raise TypeError(
                f"out_dtype: expected a type that holds the {value_dtype} values of {prefix or 'values'}, "
                f"got {out_dtype}"
            )
        for name, number in (("extrapolate", option.extrapolate), ("invalid", option.invalid)):
            if number == 1:
                raise ValueError(f"{prefix}{name}: NaN needs a floating out_dtype, got {out_dtype}")


def check_out(out: Any, sizes: Sequence[Any], out_dtype: str, dtype_name: DtypeName) -> None:
    if tuple(out.shape) != tuple(sizes):
        symbols = "[T, D]" if len(sizes) == 2 else "[B, T, D]"
        raise ValueError(f"out: expected {symbols} = {shape_text(sizes)}, got {shape_text(out.shape)}")
    if dtype_name(out.dtype) != out_dtype:
        raise TypeError(f"out: expected {out_dtype}, got {dtype_name(out.dtype)}")


def named_streams(streams: Any) -> tuple[list[Stream], list[str]]:
    """The streams of a call in order, and what messages call each one: `streams[0].` or `streams['imu'].`."""
    if isinstance(streams, Mapping):
        names = [f"streams[{name!r}]." for name in streams]
        items = list(streams.values())
    elif isinstance(streams, Sequence):
        items = list(streams)
        names = [f"streams[{index}]." for index in range(len(items))]
    else:
        raise TypeError(f"streams: expected a sequence or a dict of Stream, got {type(streams).__name__}")
    if not 1 <= len(items) <= MAX_STREAMS:
        raise ValueError(f"streams: expected 1 to {MAX_STREAMS} streams, got {len(items)}")
    for item, name in zip(items, names, strict=True):
        if not isinstance(item, Stream):
            raise TypeError(f"{name[:-1]}: expected a robocache.Stream, got {type(item).__name__}")
    return items, names
