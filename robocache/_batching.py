"""torch.vmap for the operators: one more batch dimension becomes more rows of one launch.

Where only targets, rows or offsets are batched, the samples stay where they are and `rows` points into them. Where
dense samples are batched, they become more sequences. Only packed samples that are batched themselves are done one by
one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._schemas import with_defaults

Arguments = Sequence[Any]


def prepare(dims: Sequence[Any], args: Arguments) -> tuple[list[int | None], list[Any]]:
    """Batch dimensions in front; a list of numbers has a list of Nones for its dimension."""
    known = [dim if isinstance(dim, int) else None for dim in dims]
    return (
        [None if dim is None else 0 for dim in known],
        [arg if dim is None else arg.movedim(dim, 0) for arg, dim in zip(args, known, strict=True)],
    )


def every(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """[V, ...] whether or not the tensor is batched."""
    return tensor if dim is not None else tensor.unsqueeze(0).expand(size, *tensor.shape)


def call_each(op: Any, size: int, dims: Sequence[int | None], args: Arguments) -> tuple[Any, Any]:
    """One call for each entry of the batch."""
    results = [
        op(*(arg.select(0, v) if dim is not None else arg for arg, dim in zip(args, dims, strict=True)))
        for v in range(size)
    ]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True)), (0,) * len(results[0])


def _flatten(size: int, dims: Sequence[int | None], args: Arguments, keep_samples: bool) -> tuple[list[Any], int, int]:
    """Arguments (values, times, targets, six options, four vectors, column_kinds) of one call for the whole batch.

    Returns them, B and R of one entry. Batch dimensions stand in front. Packed samples must be unbatched.
    """
    values, times, targets, *options = args[:9]
    lengths, row_splits, rows, row_offsets, column_kinds = args[9:14]
    sequences = (values.shape[1] if dims[0] is not None else values.shape[0]) if row_splits is None else None
    if sequences is None:
        sequences = row_splits.shape[0] - 1
    batch = sequences if rows is None else rows.shape[-1]
    if targets.ndim > 1 or dims[2] is not None:
        targets = every(targets, dims[2], size)
        if targets.ndim == 2:  # [V, T]: shared by the rows of an entry
            targets = targets.unsqueeze(1).expand(size, batch, targets.shape[-1])
        targets = targets.reshape(size * batch, targets.shape[-1])
    if row_offsets is not None:
        row_offsets = every(row_offsets, dims[12], size).reshape(-1)
    if keep_samples:
        if rows is None:
            rows = torch.arange(batch, device=values.device)
        rows = every(rows, dims[11], size).reshape(-1)
    else:
        values = every(values, dims[0], size)
        if times.ndim > 1 or dims[1] is not None:
            times = every(times, dims[1], size)
            if times.ndim == 2:
                times = times.unsqueeze(1).expand(size, sequences, times.shape[-1])
            times = times.reshape(size * sequences, times.shape[-1])
        values = values.reshape(size * sequences, *values.shape[2:])
        if lengths is not None:
            lengths = every(lengths, dims[9], size).reshape(-1)
        if rows is not None:
            first = torch.arange(size, device=rows.device).unsqueeze(-1) * sequences
            rows = (every(rows, dims[11], size) + first).reshape(-1)
    return (
        [values, times, targets, *options, lengths, row_splits, rows, row_offsets, column_kinds],
        batch,
        sequences,
    )


def _samples_are_batched(dims: Sequence[int | None]) -> bool:
    return any(dims[k] is not None for k in (0, 1, 9, 10))


def resample_rule(op: Any, size: int, dims: Sequence[Any], args: Arguments) -> tuple[Any, Any]:
    """vmap of resample_trajectories and its like; `args` and `dims` are complete."""
    dims, args = prepare(dims, args)
    batched_samples = _samples_are_batched(dims)
    if size == 0 or (args[10] is not None and batched_samples):
        return call_each(op, size, dims, args)
    flat, batch, _ = _flatten(size, dims, args, keep_samples=not batched_samples)
    result = op(*flat, *args[14:])
    if isinstance(result, Tensor):
        return result.reshape(size, batch, *result.shape[1:]), 0
    return tuple(part.reshape(size, batch, *part.shape[1:]) for part in result), (0,) * len(result)


def backward_rule(op: Any, size: int, dims: Sequence[Any], args: Arguments) -> tuple[Any, Any]:
    """vmap of resample_trajectories_backward; every entry has gradients of its own, so samples are repeated."""
    from ._ops import sorted_rows

    dims, args = prepare(dims, args)
    if size == 0 or args[11] is not None:
        return call_each(op, size, dims, args)
    need_values, need_targets = args[17], args[18]
    flat, batch, sequences = _flatten(size, dims[1:], args[1:], keep_samples=False)
    grad = every(args[0], dims[0], size)
    grad = grad.reshape(size * batch, *grad.shape[2:])
    row_order = row_starts = None
    if flat[11] is not None and need_values:
        row_order, row_starts = sorted_rows(flat[11], size * sequences)
    by_values, by_targets = op(grad, *flat, row_order, row_starts, need_values, need_targets)
    if need_values:
        by_values = by_values.reshape(size, sequences, *by_values.shape[1:])
    if need_targets:
        by_targets = by_targets.reshape(size, batch, by_targets.shape[-1])
    return (by_values, by_targets), (0 if need_values else None, 0 if need_targets else None)


def fuse_rule(op: Any, size: int, dims: Sequence[Any], args: Arguments, with_valid: bool) -> tuple[Any, Any]:
    """vmap of fuse_multimodal and its like: stream by stream through `op`, the single-stream operator."""
    from ._ops import FUSE_DEFAULTS, stream_column_kinds

    values, out_dtype = args[0], args[14]
    if out_dtype is None:
        out_dtype = values[0].dtype
        for value in values[1:]:
            out_dtype = torch.promote_types(out_dtype, value.dtype)
    column_kinds = stream_column_kinds(args[13], len(values))
    parts, masks = [], []
    for s in range(len(values)):
        options = [d if given is None else given[s] for given, d in zip(args[3:9], FUSE_DEFAULTS, strict=True)]
        vectors, vector_dims = [], []
        for tensors, tensor_dims in zip(args[9:13], dims[9:13], strict=True):
            given = None if tensors is None or tensors[s].numel() == 0 else tensors[s]
            vectors.append(given)
            vector_dims.append(None if given is None or tensor_dims is None else tensor_dims[s])
        one = [values[s], args[1][s], args[2], *options, *vectors, column_kinds[s], out_dtype]
        one_dims = [dims[0][s], dims[1][s], dims[2], *[None] * 6, *vector_dims, None, None]
        if all(dim is None for dim in one_dims):
            one[2], one_dims[2] = every(args[2], None, size), 0
        result, _ = resample_rule(op, size, one_dims, one)
        if with_valid:
            parts.append(result[0])
            masks.append(result[1])
        else:
            parts.append(result)
    fused = torch.cat(parts, -1)
    return ((fused, torch.stack(masks, -1)), (0, 0)) if with_valid else (fused, 0)


def register() -> None:
    """Registers the rules; robocache._ops calls this once."""
    from . import _ops

    for name in (*_ops.FUNCTIONAL, *_ops.TWINS, *_ops.GRAD_TWINS):
        fused = "fuse" in name
        single = getattr(torch.ops.robocache, name.replace("fuse_multimodal", "resample_trajectories"))

        def rule(
            info: Any,
            in_dims: Any,
            *args: Any,
            _name: str = name,
            _single: Any = single,
            _fused: bool = fused,
            **kwargs: Any,
        ) -> tuple[Any, Any]:
            full = with_defaults(_name, args, kwargs)
            dims = (*in_dims, *[None] * (len(full) - len(in_dims)))
            if _fused:
                return fuse_rule(_single, info.batch_size, dims, full, "_valid" in _name)
            return resample_rule(_single, info.batch_size, dims, full)

        torch.library.register_vmap(f"robocache::{name}", rule)

    def backward(info: Any, in_dims: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        full = with_defaults(_ops.BACKWARD, args, kwargs)
        dims = (*in_dims, *[None] * (len(full) - len(in_dims)))
        return backward_rule(torch.ops.robocache.resample_trajectories_backward, info.batch_size, dims, full)

    torch.library.register_vmap(f"robocache::{_ops.BACKWARD}", backward)
