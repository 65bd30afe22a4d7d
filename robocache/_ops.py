"""torch.ops.robocache: loads the native libraries and registers what Python adds to them.

Schemas and the CPU, CUDA and Autograd-dispatch kernels live in `_torch.so`; fakes, gradients and batching rules are
registered here (align's are in this file, others in _voxel_ops and _voxel_batching). A library that does not load
leaves its own error in `LOAD_ERROR`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import _batching, _voxel_batching, _voxel_functorch, _voxel_ops
from ._kinds import KINDS
from ._schemas import with_defaults

LIBRARY = Path(__file__).with_name("_torch.so")
FUNCTIONAL = ("resample_trajectories", "resample_trajectories_valid", "fuse_multimodal", "fuse_multimodal_valid")
TWINS = tuple(f"_{name}" for name in FUNCTIONAL)  # nothing above the kernel
GRAD_TWINS = tuple(f"_{name}_grad" for name in FUNCTIONAL)  # with a gradient
OUT = tuple(f"{name}_out" for name in FUNCTIONAL)
BACKWARD = "resample_trajectories_backward"
OPS: tuple[str, ...] = (*FUNCTIONAL, *TWINS, *GRAD_TWINS, *OUT, BACKWARD, *_voxel_ops.OPS)

_DIFFERENTIABLE_IN_TIME = (KINDS["linear"], KINDS["pchip"])


def unregistered() -> list[str]:
    """Operators and kernels that should be registered and are not; registration itself may fail silently."""
    missing = []
    for name in OPS:
        qualified = f"robocache::{name}"
        try:
            found = torch._C._dispatch_find_schema_or_throw(qualified, "") is not None
        except RuntimeError:
            found = False
        if not found:
            missing.append(qualified)
            continue
        keys = ["CompositeImplicitAutograd"] if name in _voxel_ops.COMPOSITE else ["CPU", "CUDA"]
        if name in (*FUNCTIONAL, *_voxel_ops.FUNCTIONAL):
            keys.append("Autograd")
        missing += [
            f"{qualified} for {key}"
            for key in keys
            if not torch._C._dispatch_has_kernel_for_dispatch_key(qualified, key)
        ]
    return missing


def _load() -> str | None:
    if not LIBRARY.exists():
        return f"{LIBRARY} does not exist: the native libraries are not built (pip install .)"
    try:
        torch.ops.load_library(str(LIBRARY))
    except (OSError, RuntimeError) as error:
        # torch wraps the loader's error in one that says only which file.
        return f"{LIBRARY} did not load: {error.__cause__ or error}"
    missing = unregistered()
    return f"{LIBRARY} loaded, but these are not registered: {', '.join(missing)}" if missing else None


# ---- Fakes ----------------------------------------------------------------------------------------------------------


def _batch(values: Tensor, row_splits: Tensor | None, rows: Tensor | None) -> Any:
    if rows is not None:
        return rows.shape[0]
    return values.shape[0] if row_splits is None else row_splits.shape[0] - 1


def _fake_resample(values: Tensor, times: Tensor, target_times: Tensor, *args: Any) -> Tensor:
    row_splits, rows, out_dtype = args[7], args[8], args[11]
    torch._check(
        values.ndim == (3 if row_splits is None else 2),
        lambda: f"values: expected [B, S, D], or [N, D] beside row_splits, got {list(values.shape)}",
    )
    torch._check(times.dtype == target_times.dtype, lambda: "times: expected the dtype of target_times")
    size = (_batch(values, row_splits, rows), target_times.shape[-1], values.shape[-1])
    return values.new_empty(size, dtype=out_dtype or values.dtype)


def _fake_resample_valid(values: Tensor, times: Tensor, target_times: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    out = _fake_resample(values, times, target_times, *args)
    return out, out.new_empty(out.shape[:2], dtype=torch.bool)


def _entry(tensors: Sequence[Tensor] | None, index: int) -> Tensor | None:
    """A stream's entry of an optional list; an empty tensor stands for none."""
    return None if tensors is None or tensors[index].numel() == 0 else tensors[index]


def _fake_fuse(values: list[Tensor], times: list[Tensor], target_times: Tensor, *args: Any) -> Tensor:
    row_splits, rows, out_dtype = args[7], args[8], args[11]
    torch._check(len(values) > 0, lambda: "streams: expected 1 to 16 streams, got 0")
    dtype = values[0].dtype
    for value in values[1:]:
        dtype = torch.promote_types(dtype, value.dtype)
    columns = sum(value.shape[-1] for value in values)
    size = (_batch(values[0], _entry(row_splits, 0), _entry(rows, 0)), target_times.shape[-1], columns)
    return target_times.new_empty(size, dtype=out_dtype or dtype)


def _fake_fuse_valid(values: list[Tensor], times: list[Tensor], target_times: Tensor, *args: Any) -> Any:
    out = _fake_fuse(values, times, target_times, *args)
    return out, out.new_empty((out.shape[0], out.shape[1], len(values)), dtype=torch.bool)


# ---- Gradients ------------------------------------------------------------------------------------------------------


def sorted_rows(rows: Tensor, sequences: Any) -> tuple[Tensor, Tensor]:
    """Output rows in the order of the sequences they read, and where each sequence's begin: [B], [R + 1]."""
    order = torch.argsort(rows, stable=True)
    bounds = torch.arange(sequences + 1, device=rows.device, dtype=rows.dtype)
    return order, torch.searchsorted(rows[order], bounds)


def stream_backward(
    grad: Tensor,
    values: Tensor,
    times: Tensor,
    target_times: Tensor,
    options: Sequence[Any],
    vectors: Sequence[Tensor | None],
    column_kinds: Sequence[int] | None,
    need_values: bool,
    need_targets: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of one stream by its values and by the targets, each None where it is not wanted."""
    kinds = column_kinds[2::3] if column_kinds is not None else [options[0]]
    need_values = need_values and values.is_floating_point()
    need_targets = need_targets and any(kind in _DIFFERENTIABLE_IN_TIME for kind in kinds)
    if not (need_values or need_targets):
        return None, None
    _, row_splits, rows, _ = vectors
    row_order = row_starts = None
    if rows is not None and need_values:
        sequences = values.shape[0] if row_splits is None else row_splits.shape[0] - 1
        row_order, row_starts = sorted_rows(rows, sequences)
    grad_values, grad_targets = torch.ops.robocache.resample_trajectories_backward(
        grad,
        values,
        times,
        target_times,
        *options,
        *vectors,
        column_kinds,
        row_order,
        row_starts,
        need_values,
        need_targets,
    )
    if need_targets and target_times.ndim == 1:
        grad_targets = grad_targets.sum(0)
    return grad_values if need_values else None, grad_targets if need_targets else None


def _resample_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:3], *inputs[9:13])
    ctx.options = inputs[3:9]
    ctx.column_kinds = inputs[13]


def _resample_backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
    none = (None,) * 15
    if grad is None:
        return none
    values, times, target_times, *vectors = ctx.saved_tensors
    need_values, _, need_targets = ctx.needs_input_grad[:3]
    grad_values, grad_targets = stream_backward(
        grad, values, times, target_times, ctx.options, vectors, ctx.column_kinds, need_values, need_targets
    )
    return grad_values, None, grad_targets, *none[3:]


FUSE_DEFAULTS = (0, 0, 0, -1.0, -1.0, 0.0)


def _fuse_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.count = len(inputs[0])
    vectors = [tensors if tensors is not None else [None] * ctx.count for tensors in inputs[9:13]]
    ctx.save_for_backward(inputs[2], *inputs[0], *inputs[1], *(tensor for tensors in vectors for tensor in tensors))
    ctx.options = [
        [default if given is None else given[s] for given, default in zip(inputs[3:9], FUSE_DEFAULTS, strict=True)]
        for s in range(ctx.count)
    ]
    ctx.column_kinds = stream_column_kinds(inputs[13], ctx.count)
    ctx.has_targets = inputs[2].is_floating_point()
    # torch.library wants gradients in the structure of the arguments as they came: a list of tensors has a list of
    # gradients, and trailing arguments that hold their default are not there at all.
    given = list(inputs)
    while given[-1] is None:
        given.pop()
    ctx.no_gradients = [[None] * ctx.count if 9 <= k < 13 and arg is not None else None for k, arg in enumerate(given)][
        3:
    ]


def stream_column_kinds(column_kinds: Sequence[int] | None, count: int) -> list[list[int] | None]:
    """(stream, begin, end, kind) quadruples as one list of (begin, end, kind) for each stream."""
    result: list[list[int] | None] = [None] * count
    for at in range(0, len(column_kinds or ()), 4):
        stream, *group = column_kinds[at : at + 4]  # type: ignore[index]
        result[stream] = (result[stream] or []) + group
    return result


def _fuse_backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
    count = ctx.count
    no_list = [None] * count
    if grad is None:
        return no_list, no_list, None, *ctx.no_gradients
    target_times, *saved = ctx.saved_tensors
    values = saved[:count]
    times = saved[count : 2 * count]
    grads: list[Tensor | None] = []
    grad_targets: Tensor | None = None
    begin = 0
    for s in range(count):
        vectors = [saved[k * count + s] for k in range(2, 6)]
        vectors = [None if vector is None or vector.numel() == 0 else vector for vector in vectors]
        by_values, by_targets = stream_backward(
            grad.narrow(-1, begin, values[s].shape[-1]),
            values[s],
            times[s],
            target_times,
            ctx.options[s],
            vectors,
            ctx.column_kinds[s],
            ctx.needs_input_grad[0][s],
            ctx.needs_input_grad[2] and ctx.has_targets,
        )
        begin = begin + values[s].shape[-1]
        grads.append(by_values)
        if by_targets is not None:
            grad_targets = by_targets if grad_targets is None else grad_targets + by_targets
    return grads, no_list, grad_targets, *ctx.no_gradients


# ---- Registration ---------------------------------------------------------------------------------------------------


def _register_fakes() -> None:
    fakes = (_fake_resample, _fake_resample_valid, _fake_fuse, _fake_fuse_valid)
    for names in (FUNCTIONAL, TWINS, GRAD_TWINS):
        for name, fake in zip(names, fakes, strict=True):

            def functional(*args: Any, _name: str = name, _fake: Any = fake, **kwargs: Any) -> Any:
                return _fake(*with_defaults(_name, args, kwargs))

            torch.library.register_fake(f"robocache::{name}", functional)
    for name in OUT:
        torch.library.register_fake(f"robocache::{name}", lambda *args, **kwargs: None)

    def backward(grad: Tensor, values: Tensor, times: Tensor, target_times: Tensor, *args: Any, **kwargs: Any) -> Any:
        full = with_defaults(BACKWARD, (grad, values, times, target_times, *args), kwargs)
        need_values, need_targets = full[17], full[18]
        size = (grad.shape[0], grad.shape[1]) if need_targets else (0,)
        by_values = values.new_empty(values.shape if need_values else (0,))
        return by_values, target_times.new_empty(size)

    torch.library.register_fake(f"robocache::{BACKWARD}", backward)


def _register_gradients() -> None:
    for name in GRAD_TWINS:
        fused = "fuse" in name
        torch.library.register_autograd(
            f"robocache::{name}",
            _fuse_backward if fused else _resample_backward,
            setup_context=_fuse_setup if fused else _resample_setup,
        )


def _register_version_bumps() -> None:
    """`_out` ops change their outputs: tensors saved for a backward must know."""
    for name in (*OUT, *_voxel_ops.OUT):
        op = getattr(torch.ops.robocache, name).default
        after = torch._C._after_ADInplaceOrView_keyset

        def bump(keyset: Any, *args: Any, _op: Any = op, _after: Any = after, **kwargs: Any) -> Any:
            changed = [kwargs[key] for key in ("out", "valid") if key in kwargs]
            torch.autograd.graph.increment_version(changed[0] if isinstance(changed[0], list) else changed)
            with torch._C._AutoDispatchBelowADInplaceOrView():
                return _op.redispatch(keyset & _after, *args, **kwargs)

        _LIBRARY_HANDLE.impl(name, bump, "ADInplaceOrView", with_keyset=True)


LOAD_ERROR: str | None = _load()
if LOAD_ERROR is None:
    _LIBRARY_HANDLE = torch.library.Library("robocache", "FRAGMENT")
    _register_fakes()
    _register_gradients()
    _voxel_ops.register_fakes()
    _voxel_ops.register_gradients()
    _register_version_bumps()
    _batching.register()
    _voxel_batching.register()
    _voxel_functorch.register(_LIBRARY_HANDLE)
