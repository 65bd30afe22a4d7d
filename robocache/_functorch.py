"""torch.func transforms (grad, vjp, jacrev and vmaps of them) for the public functions.

Gradients registered with torch.library do not take part in them; a torch.autograd.Function with a setup_context does.
Its batching rule follows from those of the operators it calls.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _ops


class _Resample(torch.autograd.Function):
    """The operator resample_trajectories or resample_trajectories_valid with its 15 arguments."""

    generate_vmap_rule = True

    @staticmethod
    def forward(with_valid: bool, *args: Any) -> Any:
        ops = torch.ops.robocache
        return (ops._resample_trajectories_valid if with_valid else ops._resample_trajectories)(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        with_valid, *args = inputs
        if with_valid:
            ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*args[:3], *args[9:13])
        ctx.options = args[3:9]
        ctx.column_kinds = args[13]

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
        values, times, target_times, *vectors = ctx.saved_tensors
        _, need_values, _, need_targets = ctx.needs_input_grad[:4]
        grad_values, grad_targets = _ops.stream_backward(
            grad, values, times, target_times, ctx.options, vectors, ctx.column_kinds, need_values, need_targets
        )
        return None, grad_values, None, grad_targets, *[None] * 12


def resample(with_valid: bool, args: tuple[Any, ...]) -> Any:
    """torch.ops.robocache.resample_trajectories[_valid](*args) under torch.func."""
    return _Resample.apply(with_valid, *args)
