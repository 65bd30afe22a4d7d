"""Outputs that stay the graph's own: stamped when they are lent, refused when they come back too late."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._key import substitute
from ._records import Record


class BorrowedOutputError(RuntimeError):
    """An output that a graph had lent was used after the graph was replayed again."""


def lend(record: Record, result: Any) -> Any:
    """Views of the graph's outputs that know which replay they are of."""
    record.generation += 1
    lent = []
    for tensor in _tensors(result):
        view = tensor.detach()
        view._robocache_lent = (record, record.generation)  # type: ignore[attr-defined]
        lent.append(view)
        if record.generation > 1 and not tensor.is_inference():
            torch._C._increment_version([tensor])  # autograd, too, sees that it was written
    return substitute(result, iter(lent))


def check_lent(tensors: list[Tensor]) -> None:
    for number, tensor in enumerate(tensors):
        base = None if tensor.is_inference() else tensor._base
        stamp = getattr(tensor, "_robocache_lent", None) or getattr(base, "_robocache_lent", None)
        if stamp is not None and stamp[0].generation != stamp[1]:
            raise BorrowedOutputError(
                f"tensor argument {number} is an output of {stamp[0].function.name}, lent at replay {stamp[1]}; "
                f"replay {stamp[0].generation} has written over it. Clone what outlives the next call, or use "
                f"outputs='clone'"
            )


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return [tensor for item in items for tensor in _tensors(item)]
