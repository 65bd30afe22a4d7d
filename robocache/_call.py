"""One call of the public functions off the fast path: everything is checked, a backend is picked, and it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _functorch
from ._backend import checks_synchronously, native, resolve
from ._checks import (
    Options,
    check_out,
    check_out_dtype,
    check_stream,
    check_targets,
    options_of,
    shape_text,
)
from ._errors import data_error
from ._stream import Stream
from .reference.align import align as _reference_align

_DTYPE_NAMES = {
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bool: "bool",
    torch.uint8: "uint8",
    torch.int8: "int8",
    torch.int16: "int16",
    torch.int32: "int32",
    torch.int64: "int64",
}


def _dtype_name(dtype: torch.dtype) -> str:
    name = _DTYPE_NAMES.get(dtype)
    return str(dtype) if name is None else name


class Prepared(NamedTuple):
    """A stream as the operators take it: batched or packed, int64 indices, time_offset a number or a vector."""

    values: Tensor
    times: Tensor
    lengths: Tensor | None
    row_splits: Tensor | None
    rows: Tensor | None
    row_offsets: Tensor | None
    options: Options
    columns: Any


def _expect_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")


def _index_vector(vector: Tensor | None) -> Tensor | None:
    return vector if vector is None or vector.dtype == torch.int64 else vector.to(torch.int64)


def _prepare(stream: Stream, target_times: Tensor, prefix: str, batch: Any) -> tuple[Prepared, Any]:
    """Checks a stream against the targets; returns it prepared, and the batch size."""
    values, times = stream.values, stream.times
    _expect_tensor(f"{prefix}values", values)
    _expect_tensor(f"{prefix}times", times)
    if values.ndim < 1:
        raise ValueError(f"{prefix}values: expected [B, S, D], got {shape_text(values.shape)}")
    offset = stream.time_offset
    if isinstance(offset, Tensor):
        row_offsets: Tensor | None = offset
    elif offset is None or (isinstance(offset, (int, float)) and not isinstance(offset, bool)):
        row_offsets = None
    else:
        raise TypeError(f"{prefix}time_offset: expected a number or a torch.Tensor [B], got {type(offset).__name__}")
    for name in ("lengths", "row_splits", "rows"):
        vector = getattr(stream, name)
        if vector is not None:
            _expect_tensor(f"{prefix}{name}", vector)
    if row_offsets is not None and row_offsets.ndim == 0:
        sequences = values.shape[0] if stream.row_splits is None else stream.row_splits.shape[0] - 1
        row_offsets = row_offsets.expand(sequences if stream.rows is None else stream.rows.shape[0])
    batch, columns = check_stream(stream, row_offsets, target_times, prefix, batch, _dtype_name)
    options = options_of(stream, prefix, _dtype_name(values.dtype), _dtype_name(target_times.dtype))
    if row_offsets is None and isinstance(offset, int) and abs(offset) > 2**53 and target_times.dtype == torch.int64:
        # A double no longer holds every whole number: such an offset goes as int64.
        row_offsets = torch.full((batch,), offset, dtype=torch.int64, device=values.device)
        options = options._replace(time_offset=0.0)
    for name, tensor in (
        ("values", values),
        ("times", times),
        ("lengths", stream.lengths),
        ("row_splits", stream.row_splits),
        ("rows", stream.rows),
        ("time_offset", row_offsets),
    ):
        if tensor is not None and tensor.device != target_times.device:
            raise ValueError(
                f"{prefix}{name}: expected device {target_times.device} (that of target_times), got {tensor.device}"
            )
    prepared = Prepared(
        values,
        times,
        _index_vector(stream.lengths),
        _index_vector(stream.row_splits),
        _index_vector(stream.rows),
        row_offsets,
        options,
        columns,
    )
    return prepared, batch


def _is_unbatched(stream: Stream, target_times: Tensor) -> bool:
    return (
        isinstance(stream.values, Tensor)
        and stream.values.ndim == 2
        and stream.row_splits is None
        and target_times.ndim == 1
    )


def _batched(stream: Stream, prefix: str) -> Stream:
    """One sequence alone [S, D] as a batch of one."""
    if stream.rows is not None:
        raise ValueError(f"{prefix}rows: expected None beside values [S, D]; rows pick among sequences [R, S, D]")
    _expect_tensor(f"{prefix}times", stream.times)
    if stream.times.ndim != 1 or stream.times.shape[0] != stream.values.shape[0]:
        raise ValueError(
            f"{prefix}times: expected [S] = [{stream.values.shape[0]}], got {shape_text(stream.times.shape)}"
        )
    return Stream(
        stream.values.unsqueeze(0),
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


def _resample_arguments(p: Prepared) -> tuple[Any, ...]:
    """Arguments of torch.ops.robocache.resample_trajectories after the targets, but for out_dtype."""
    o = p.options
    flat = None if o.groups is None else [number for group in o.groups for number in group]
    return (
        *(o.kind, o.extrapolate, o.invalid, o.max_gap, o.tolerance, o.time_offset),
        *(p.lengths, p.row_splits, p.rows, p.row_offsets),
        flat,
    )


def _tensors_or_none(tensors: list[Tensor | None], like: Tensor) -> list[Tensor] | None:
    """One tensor a stream, an empty one where a stream has none; None when no stream has one."""
    if all(tensor is None for tensor in tensors):
        return None
    none = torch.empty(0, dtype=torch.int64, device=like.device)
    return [none if tensor is None else tensor for tensor in tensors]


def _fuse_arguments(prepared: Sequence[Prepared], target_times: Tensor) -> tuple[Any, ...]:
    options = [p.options for p in prepared]
    column_kinds: list[int] | None = None
    if any(o.groups is not None for o in options):
        column_kinds = [
            number for index, o in enumerate(options) for group in (o.groups or ()) for number in (index, *group)
        ]
    return (
        [o.kind for o in options],
        [o.extrapolate for o in options],
        [o.invalid for o in options],
        [o.max_gap for o in options],
        [o.tolerance for o in options],
        [o.time_offset for o in options],
        _tensors_or_none([p.lengths for p in prepared], target_times),
        _tensors_or_none([p.row_splits for p in prepared], target_times),
        _tensors_or_none([p.rows for p in prepared], target_times),
        _tensors_or_none([p.row_offsets for p in prepared], target_times),
        column_kinds,
    )


def _common_dtype(prepared: Sequence[Prepared]) -> torch.dtype:
    """The streams' dtype by promotion: the output's, where none is asked for."""
    dtype = prepared[0].values.dtype
    for one in prepared[1:]:
        dtype = torch.promote_types(dtype, one.values.dtype)
    return dtype


def _call_op(
    fused: bool,
    prepared: Sequence[Prepared],
    target_times: Tensor,
    out_dtype: torch.dtype,
    return_valid: bool,
    out: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    ops = torch.ops.robocache
    arguments: tuple[Any, ...]
    # Told only where it differs from the default: AOTInductor of torch 2.10 misreads a dtype among the arguments.
    told = None if out_dtype == _common_dtype(prepared) else out_dtype
    if fused:
        arguments = ([p.values for p in prepared], [p.times for p in prepared], target_times)
        arguments += (*_fuse_arguments(prepared, target_times), told)
        plain, with_valid = ops.fuse_multimodal, ops.fuse_multimodal_valid
        plain_out, with_valid_out = ops.fuse_multimodal_out, ops.fuse_multimodal_valid_out
    else:
        (p,) = prepared
        arguments = (p.values, p.times, target_times, *_resample_arguments(p), told)
        plain, with_valid = ops.resample_trajectories, ops.resample_trajectories_valid
        plain_out, with_valid_out = ops.resample_trajectories_out, ops.resample_trajectories_valid_out
    if out is None:
        if return_valid:
            made, valid = with_valid(*arguments)
            return made, valid
        return plain(*arguments), None
    if not return_valid:
        plain_out(*arguments, out=out)
        return out, None
    size = (*out.shape[:2], len(prepared)) if fused else tuple(out.shape[:2])
    mask = torch.empty(size, dtype=torch.bool, device=out.device)
    with_valid_out(*arguments, out=out, valid=mask)
    return out, mask


def _call_functorch(
    fused: bool, prepared: Sequence[Prepared], target_times: Tensor, out_dtype: torch.dtype, return_valid: bool
) -> tuple[Tensor, Tensor | None]:
    """Stream by stream, through the autograd.Function that torch.func knows how to transform."""
    parts, masks = [], []
    for p in prepared:
        arguments = (p.values, p.times, target_times, *_resample_arguments(p), out_dtype)
        result = _functorch.resample(return_valid, arguments)
        parts.append(result[0] if return_valid else result)
        if return_valid:
            masks.append(result[1])
    if not fused:
        return parts[0], masks[0] if return_valid else None
    return torch.cat(parts, -1), torch.stack(masks, -1) if return_valid else None


def _call_native(
    fused: bool,
    prepared: Sequence[Prepared],
    target_times: Tensor,
    out_dtype: torch.dtype,
    return_valid: bool,
    out: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    if torch.compiler.is_compiling():
        return _call_op(fused, prepared, target_times, out_dtype, return_valid, out)
    if torch._C._are_functorch_transforms_active() and out is None:
        return _call_functorch(fused, prepared, target_times, out_dtype, return_valid)
    try:
        result = _call_op(fused, prepared, target_times, out_dtype, return_valid, out)
    except RuntimeError as error:
        if native is not None:
            fault, index, row, position, sentence = native.last_fault()
            if fault and sentence in str(error):
                raise data_error(sentence, fault, index, row, position) from None
        raise
    if target_times.is_cuda and native is not None and checks_synchronously():
        native.check_device(target_times.get_device())
    return result


def run(
    fused: bool,
    streams: Sequence[Stream],
    names: Sequence[str],
    target_times: Any,
    return_valid: bool,
    out_dtype: torch.dtype | None,
    out: Any,
    backend: str,
) -> Any:
    """Checks everything, picks the backend and computes."""
    _expect_tensor("target_times", target_times)
    check_targets(target_times, _dtype_name)
    unbatched = all(_is_unbatched(stream, target_times) for stream in streams)
    if unbatched:
        streams = [_batched(stream, name) for stream, name in zip(streams, names, strict=True)]
    prepared = []
    batch = None
    for stream, name in zip(streams, names, strict=True):
        one, batch = _prepare(stream, target_times, name, batch)
        prepared.append(one)
    if out_dtype is None:
        if out is not None and isinstance(out, Tensor):
            out_dtype = out.dtype
        else:
            out_dtype = _common_dtype(prepared)
    elif not isinstance(out_dtype, torch.dtype):
        raise TypeError(f"out_dtype: expected a torch.dtype, got {type(out_dtype).__name__}")
    value_dtypes = [_dtype_name(one.values.dtype) for one in prepared]
    check_out_dtype(_dtype_name(out_dtype), value_dtypes, [one.options for one in prepared], names)
    columns = prepared[0].columns
    for one in prepared[1:]:
        columns = columns + one.columns
    given_out = out
    if out is not None:
        _expect_tensor("out", out)
        length = target_times.shape[-1]
        check_out(
            out, (length, columns) if unbatched else (batch, length, columns), _dtype_name(out_dtype), _dtype_name
        )
        if out.device != target_times.device:
            raise ValueError(f"out: expected device {target_times.device} (that of target_times), got {out.device}")
        if torch.is_grad_enabled() and (
            out.requires_grad or target_times.requires_grad or any(one.values.requires_grad for one in prepared)
        ):
            raise ValueError("out: expected None where a gradient is wanted (call under torch.no_grad() to fill out)")
        if unbatched:
            out = out.unsqueeze(0)
    if resolve(backend, target_times.device) == "torch":
        result, valid = _reference_align(prepared, target_times, out_dtype, return_valid)
        if out is not None:
            out.copy_(result)
    elif fused and batch == 0:
        # An empty `rows` cannot be told from none in a list of tensors.
        result = target_times.new_empty((batch, target_times.shape[-1], columns), dtype=out_dtype)
        valid = target_times.new_empty((batch, target_times.shape[-1], len(prepared)), dtype=torch.bool)
    else:
        result, valid = _call_native(fused, prepared, target_times, out_dtype, return_valid, out)
    if valid is not None and not fused and valid.ndim == 3:
        valid = valid.squeeze(-1)
    if unbatched:
        result = result.squeeze(0)
        valid = None if valid is None else valid.squeeze(0)
    if given_out is not None:
        result = given_out
    return (result, valid) if return_valid else result
