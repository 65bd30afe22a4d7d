"""torch.vmap for the voxelize and devoxelize operators: one more batch dimension becomes more samples of one launch.

Only packed points under vmap, whose samples have no batch dimension to grow, are done one by one."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._batching import call_each, every, prepare
from ._schemas import names_of, with_defaults
from ._voxel_ops import FUNCTIONAL, GRAD_TWINS, TWINS

SAMPLED = ("points", "features", "depth", "intrinsics", "color", "mask", "grid")  # [B, ...]
SHARED = ("voxel_sizes", "grid_mins", "poses")  # [B or 1, ...]


def _split(result: Any, size: int, batch: Any) -> tuple[Any, Any]:
    """[V * B, ...] as [V, B, ...], of a tensor or of each in a list."""
    if isinstance(result, Tensor):
        return result.reshape(size, batch, *result.shape[1:]), 0
    return [tensor.reshape(size, batch, *tensor.shape[1:]) for tensor in result], [0] * len(result)


def _fold(name: str, tensor: Tensor | None, dim: int | None, size: int, batch: Any) -> Tensor | None:
    """A tensor of each sample of one entry as one of each sample of all."""
    if tensor is None:
        return None
    if name in SHARED:
        if dim is None and tensor.shape[0] == 1:
            return tensor
        tensor = every(tensor, dim, size)
        tensor = tensor.expand(size, batch, *tensor.shape[2:])
    else:
        tensor = every(tensor, dim, size)
    return tensor.reshape(size * batch, *tensor.shape[2:])


def rule(name: str, size: int, dims: Sequence[Any], args: Sequence[Any]) -> tuple[Any, Any]:
    """vmap of an operator on points; `args` and `dims` are complete."""
    op, names = getattr(torch.ops.robocache, name), names_of(name)
    dims, args = prepare(dims, args)
    first = names.index("depth" if "depth" in names else "points")
    if "row_splits" in names and args[names.index("row_splits")] is not None:
        out, out_dims = call_each(op, size, dims, args)
        return (out, out_dims) if isinstance(out, Tensor) else (list(out), list(out_dims))
    points = args[first]
    batch = points.shape[1] if dims[first] is not None else points.shape[0]
    folded = [
        _fold(name, arg, dim, size, batch) if name in SAMPLED or name in SHARED else arg
        for name, arg, dim in zip(names, args, dims, strict=True)
    ]
    return _split(op(*folded), size, batch)


def voxelize_backward_rule(size: int, dims: Sequence[Any], args: Sequence[Any]) -> tuple[Any, Any]:
    """vmap of voxelize_backward: every entry has gradients of its own."""
    op = torch.ops.robocache.voxelize_backward
    grads, reduce, arguments, inverse, counts, row_splits, *rest = args
    list_dims = [dim if isinstance(dim, (list, tuple)) else [None] * len(grads) for dim in (dims[0], dims[2])]

    def in_front(tensor: Tensor | None, dim: int | None) -> Tensor | None:
        return tensor if tensor is None or dim is None else tensor.movedim(dim, 0)

    grads = [in_front(tensor, dim) for tensor, dim in zip(grads, list_dims[0], strict=True)]
    arguments = [in_front(tensor, dim) for tensor, dim in zip(arguments, list_dims[1], strict=True)]
    inverse, counts, row_splits = (in_front(args[k], dims[k]) for k in (3, 4, 5))

    def entry(tensor: Tensor | None, dim: int | None, v: int) -> Tensor | None:
        return tensor if tensor is None or dim is None else tensor[v]

    if row_splits is not None:
        results = [
            op(
                [entry(tensor, dim, v) for tensor, dim in zip(grads, list_dims[0], strict=True)],
                reduce,
                [entry(tensor, dim, v) for tensor, dim in zip(arguments, list_dims[1], strict=True)],
                *(entry(tensor, dims[k], v) for k, tensor in ((3, inverse), (4, counts), (5, row_splits))),
                *rest,
            )
            for v in range(size)
        ]
        return torch.stack(results), 0

    def fold(tensor: Tensor | None, dim: int | None) -> Tensor | None:
        if tensor is None or (tensor.numel() == 0 and tensor.ndim < 2):  # stands for none
            return tensor
        tensor = every(tensor, dim, size)
        return tensor.reshape(tensor.shape[0] * tensor.shape[1], *tensor.shape[2:])

    assert inverse is not None
    batch = inverse.shape[0] if dims[3] is None else inverse.shape[1]
    result = op(
        [fold(tensor, dim) for tensor, dim in zip(grads, list_dims[0], strict=True)],
        reduce,
        [fold(tensor, dim) for tensor, dim in zip(arguments, list_dims[1], strict=True)],
        fold(inverse, dims[3]),
        fold(counts, dims[4]),
        None,
        *rest,
    )
    return _split(result, size, batch)


def devoxelize_backward_rule(size: int, dims: Sequence[Any], args: Sequence[Any]) -> tuple[Any, Any]:
    """vmap of devoxelize_backward: every entry has gradients of its own."""
    op, names = torch.ops.robocache.devoxelize_backward, names_of("devoxelize_backward")
    dims, args = prepare(dims, args)
    bound = dict(zip(names, args, strict=True))
    needs = (bound["need_grid"], bound["need_points"])
    if bound["row_splits"] is not None:
        return call_each(op, size, dims, args)
    at = names.index("points")
    batch = bound["points"].shape[1] if dims[at] is not None else bound["points"].shape[0]
    folded = [
        _fold(name, arg, dim, size, batch) if name in (*SAMPLED, *SHARED, "grad") else arg
        for name, arg, dim in zip(names, args, dims, strict=True)
    ]
    results = op(*folded)
    return (
        tuple(_split(result, size, batch)[0] if need else result for result, need in zip(results, needs, strict=True)),
        tuple(0 if need else None for need in needs),
    )


def register() -> None:
    """Registers the rules; robocache._ops calls this once."""
    rules = {
        **{name: functools.partial(rule, name) for name in (*FUNCTIONAL, *TWINS, *GRAD_TWINS)},
        "voxelize_backward": voxelize_backward_rule,
        "devoxelize_backward": devoxelize_backward_rule,
    }
    for name, batched in rules.items():

        def registered(
            info: Any, in_dims: Any, *args: Any, _name: str = name, _rule: Any = batched, **kwargs: Any
        ) -> tuple[Any, Any]:
            full = with_defaults(_name, args, kwargs)
            return _rule(info.batch_size, (*in_dims, *[None] * (len(full) - len(in_dims))), full)

        torch.library.register_vmap(f"robocache::{name}", registered)
