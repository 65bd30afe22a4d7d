"""Reductions of rows for the reference, in the orders that docs/semantics.md fixes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

BLOCK = 128  # RC_SUM_BLOCK: so many neighbours are added from left to right, and so are their sums


def runs(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Where the run of equal keys begins and ends that each entry of a sorted vector stands in."""
    place = torch.arange(keys.shape[0], device=keys.device)
    if keys.shape[0] == 0:
        return place, place
    edge = keys[1:] != keys[:-1]
    always = edge.new_ones(1)
    first = torch.cat([always, edge])
    last = torch.cat([edge, always])
    begin = torch.where(first, place, 0).cummax(0).values
    end = torch.where(last, place, keys.shape[0]).flip(0).cummin(0).values.flip(0)
    return begin, end


def _add_level(sums: Tensor, begin: Tensor, end: Tensor, stride: int) -> None:
    """One level of the tree, in place. An element is the sum that stands at the last entry of each `stride` of a run;
    it becomes the sum of the elements of its block up to it, from left to right."""
    place = torch.arange(sums.shape[0], device=sums.device)
    rank = place - begin
    element = rank // stride
    lane = torch.where(((rank + 1) % stride == 0) | (place == end), element % BLOCK, 0)
    before = (begin + element * stride - 1).clamp(min=0)
    order = torch.argsort(lane, stable=True)
    for chosen in order.split(torch.bincount(lane, minlength=BLOCK).tolist())[1:]:
        sums[chosen] = sums[before[chosen]] + sums[chosen]


@torch.library.custom_op("robocache_reference::tree_sum", mutates_args=())
def _tree_sum(values: Tensor, rows: Tensor, total: int) -> Tensor:
    """An operator, because how many steps it takes depends on the data, which a tracer must not see."""
    keys, order = torch.sort(rows, stable=True)
    begin, end = runs(keys)
    place = torch.arange(keys.shape[0], device=keys.device)
    # What belongs nowhere is not added up: each entry is a run of its own.
    begin, end = torch.where(keys < 0, place, begin), torch.where(keys < 0, place, end)
    sums = values[order]
    longest = int((end - begin + 1).max()) if keys.shape[0] else 0
    stride = 1
    while stride < longest:
        _add_level(sums, begin, end, stride)
        stride *= BLOCK
    target = torch.where((place == end) & (keys >= 0), keys, total)
    made = values.new_zeros((total + 1, values.shape[1])).index_put_((target,), sums)
    return made[:total].clone()


@_tree_sum.register_fake
def _(values: Tensor, rows: Tensor, total: int) -> Tensor:
    return values.new_empty((total, values.shape[1]))


@_tree_sum.register_vmap
def _(info: Any, in_dims: tuple[Any, ...], values: Tensor, rows: Tensor, total: int) -> tuple[Tensor, int]:
    """Samples of the vmap one behind the other, each with rows of its own."""
    values, rows = (
        one.expand(info.batch_size, *one.shape) if dim is None else one.movedim(dim, 0)
        for one, dim in zip((values, rows), in_dims, strict=False)
    )
    first = torch.arange(info.batch_size, device=rows.device).unsqueeze(-1) * total
    apart = torch.where(rows < 0, -1, rows + first)
    made = _tree_sum(values.flatten(0, 1), apart.flatten(), info.batch_size * total)
    return made.unflatten(0, (info.batch_size, total)), 0


class _TreeSum(torch.autograd.Function):
    """The operator with its gradient, which torch.func takes too."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, rows: Tensor, total: int) -> Tensor:
        return _tree_sum(values, rows, total)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        (rows,) = ctx.saved_tensors
        return torch.where((rows < 0).unsqueeze(-1), 0, grad[rows.clamp(min=0)]), None, None


def tree_sum(values: Tensor, rows: Tensor, total: Any) -> Tensor:
    """Rows of `values` [M, C] added up by the tree into row rows[m] of [total, C], in order of m; -1: nowhere. 0 in
    rows that nothing is added to."""
    if total == 0:
        return values.new_zeros((0, values.shape[1]))
    return _TreeSum.apply(values, rows, total)


def count_rows(rows: Tensor, total: Any) -> Tensor:
    """How many entries name each row: [total] int64."""
    target = torch.where(rows < 0, total, rows)
    return torch.zeros(total + 1, dtype=torch.int64, device=rows.device).scatter_add(
        0, target, torch.ones_like(target)
    )[:total]


def extreme(values: Tensor, rows: Tensor, index: Tensor, total: Any, largest: bool) -> tuple[Tensor, Tensor]:
    """The largest (least) of each row's values and the index it came from, -1 where there is none: [total, C] each.
    The first NaN wins, else the first of the extremes."""
    count, columns = values.shape
    if count == 0 or total == 0:
        return values.new_zeros((total, columns)), index.new_full((total, columns), -1)
    plain = values.detach()
    target = torch.where(rows < 0, total, rows).unsqueeze(-1).expand(-1, columns)
    nan = plain != plain
    worst = -math.inf if largest else math.inf
    number = torch.where(nan, worst, plain)
    way = "amax" if largest else "amin"
    best = plain.new_full((total + 1, columns), worst).scatter_reduce(0, target, number, way)
    has_nan = index.new_zeros((total + 1, columns)).scatter_reduce(0, target, nan.to(torch.int64), "amax")
    wins = torch.where(has_nan.gather(0, target) > 0, nan, number == best.gather(0, target))
    place = torch.arange(count, device=values.device).unsqueeze(-1)
    first = index.new_full((total + 1, columns), count)
    first = first.scatter_reduce(0, target, torch.where(wins, place, count), "amin")[:total]
    at = first.clamp(max=count - 1)
    return values.gather(0, at), torch.where(first < count, index[at], -1)
