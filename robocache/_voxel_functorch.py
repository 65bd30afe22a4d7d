"""torch.func transforms (grad, vjp, jacrev and vmaps of them) of the voxelize and devoxelize operators.

Gradients registered with torch.library do not take part in them; a torch.autograd.Function with a setup_context does.
Its batching rule follows from those of the operators it calls.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _voxel_ops
from ._schemas import names_of, with_defaults


class _Voxelize(torch.autograd.Function):
    """An operator that returns a list of tensors, by name."""

    generate_vmap_rule = True

    @staticmethod
    def forward(name: str, *args: Any) -> Any:
        return tuple(getattr(torch.ops.robocache, f"_{name}")(*args))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        name, *args = inputs
        ctx.name = name
        if args[names_of(name).index(_voxel_ops.feature_name(name))] is not None:
            _voxel_ops.save(ctx, name, args, output)
        else:
            ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        names = names_of(ctx.name)
        result: list[Any] = [None] * len(names)
        result[names.index(_voxel_ops.feature_name(ctx.name))] = _voxel_ops.backward_of(ctx, ctx.name, grads)
        return None, *result


class _Devoxelize(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*args: Any) -> Any:
        return torch.ops.robocache._devoxelize(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _voxel_ops.save_devoxelize(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        none = [None] * (ctx.num_args - 2)
        return (*_voxel_ops.devoxelize_backward_of(ctx, grad, ctx.needs_input_grad[:2]), *none)


def register(library: torch.library.Library) -> None:
    """Calls of the public operators go to the functions above wherever a transform is at work. robocache._ops calls
    this once."""
    for name in _voxel_ops.FUNCTIONAL:

        def transformed(*args: Any, _name: str = name, **kwargs: Any) -> Any:
            full = with_defaults(_name, args, kwargs)
            return _Devoxelize.apply(*full) if _name == "devoxelize" else list(_Voxelize.apply(_name, *full))

        library.impl(name, transformed, "FuncTorchDynamicLayerFrontMode")
