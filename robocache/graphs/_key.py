"""Arguments and results as trees of tensors, and the modes that a captured kernel depends on.

What makes two calls alike is read in C++ (csrc/python/graph_key.cpp). `substitute` walks arguments in the same order.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import _fast
from .._backend import native

MAX_TENSORS = 64  # RC_MAX_COPIES: tensors of one fused copy


def _flags() -> tuple[Callable[[], Any], ...]:
    """Questions about modes that change which kernels run; those this torch knows."""
    c = torch._C
    found: list[Callable[[], Any]] = [
        torch.is_grad_enabled,
        torch.is_inference_mode_enabled,
        torch.get_default_dtype,
        torch.is_autocast_enabled,  # without an argument: of CUDA
        partial(torch.get_autocast_dtype, "cuda"),
        c._get_deterministic_algorithms,
        c._get_deterministic_algorithms_warn_only,
        c._get_cudnn_enabled,
        c._get_cudnn_benchmark,
        c._get_cudnn_deterministic,
        c._get_cublas_allow_fp16_reduced_precision_reduction,
        c._get_cublas_allow_bf16_reduced_precision_reduction,
        c._get_flash_sdp_enabled,
        c._get_mem_efficient_sdp_enabled,
        c._get_math_sdp_enabled,
    ]
    precision = getattr(c, "_get_fp32_precision_getter", None)
    if precision is not None:  # the older questions raise where both ways of setting TF32 were used
        found += [partial(precision, "cuda", "matmul"), partial(precision, "cuda", "conv")]
    else:
        found += [c._get_cublas_allow_tf32, c._get_cudnn_allow_tf32]
    return tuple(found)


def _configure() -> bool:
    if not _fast.ENABLED:
        return False
    needs = {
        "flags": _flags(),
        "functorch": torch._C._are_functorch_transforms_active,
        "modes": (torch._C._len_torch_function_stack, torch._C._len_torch_dispatch_stack),
        "tracing": torch._C._get_tracing_state,
        "parameter": torch.nn.Parameter,
    }
    return bool(native.configure_graphs(needs))


READY = _configure()


def substitute(value: Any, tensors: Iterator[Tensor]) -> Any:
    """`value` with its tensors, in the order of a signature, replaced by the next of `tensors`."""
    if isinstance(value, Tensor):
        return next(tensors)
    kind = type(value)
    if kind is list or kind is tuple:
        return kind([substitute(item, tensors) for item in value])
    if kind is dict:
        return {key: substitute(item, tensors) for key, item in value.items()}
    if isinstance(value, tuple):
        items = [substitute(item, tensors) for item in value]
        changed = any(a is not b for a, b in zip(items, value, strict=True))
        return kind._make(items) if changed and hasattr(kind, "_make") else value
    if dataclasses.is_dataclass(kind):
        changes = {}
        for name in kind.__dataclass_fields__:
            before = getattr(value, name)
            after = substitute(before, tensors)
            if after is not before:
                changes[name] = after
        if not changes:
            return value
        made = copy.copy(value)
        for name, after in changes.items():
            object.__setattr__(made, name, after)  # frozen ones too: the copy is ours
        return made
    return value


_TENSOR, _CONSTANT, _TUPLE, _LIST, _DICT, _NAMED = range(6)  # NodeKind of csrc/python/graph_entry.h
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)

Node = tuple[int, int, Any]


def outline(result: Any) -> tuple[list[Tensor], list[Node]]:
    """The tensors of a function's result and its structure.

    Raises:
        TypeError: it holds something that a replay could not give again.
    """
    tensors: list[Tensor] = []
    nodes: list[Node] = []

    def visit(value: Any) -> None:
        kind = type(value)
        if isinstance(value, Tensor):
            if kind not in (Tensor, torch.nn.Parameter):
                raise TypeError(f"it returns a {kind.__name__}")
            tensors.append(value)
            nodes.append((_TENSOR, 0, None))
        elif kind in _PLAIN:
            nodes.append((_CONSTANT, 0, value))
        elif kind is tuple or kind is list:
            nodes.append((_TUPLE if kind is tuple else _LIST, len(value), None))
            for item in value:
                visit(item)
        elif kind is dict:
            nodes.append((_DICT, len(value), tuple(value)))
            for item in value.values():
                visit(item)
        elif isinstance(value, tuple) and hasattr(kind, "_fields"):
            nodes.append((_NAMED, len(value), kind))
            for item in value:
                visit(item)
        else:
            raise TypeError(f"it returns a {kind.__name__}, which is no tensor, number, tuple, list or dict")

    visit(result)
    return tensors, nodes


def describe(tensors: list[Tensor]) -> str:
    """ "float32[2, 8], int64[100]": what a report calls a key."""
    return ", ".join(f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}" for t in tensors)
