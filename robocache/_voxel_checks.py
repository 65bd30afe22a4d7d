"""Checks of a voxel call of tensors that shapes, dtypes and numbers alone decide (_voxel_names has those of options).
Every message names the argument, what was expected and what came."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from ._checks import FLOAT_DTYPES, INDEX_DTYPES, VALUE_DTYPES, shape_text
from ._voxel_names import want_cells

_FLOAT32_TOP = 2.0**128 - 2.0**103  # from here on float32 rounds to infinity
_FLOAT32_BOTTOM = 2.0**-150  # up to here float32 rounds to 0

TORCH_DTYPES = {**{name: getattr(torch, name) for name in VALUE_DTYPES}, "bits": torch.uint8}
_NAMES = {getattr(torch, name): name for name in (*VALUE_DTYPES, "uint16")}
_ITEM_SIZES = {name: dtype.itemsize for name, dtype in TORCH_DTYPES.items()}


def dtype_name(dtype: Any) -> str:
    """The name of a dtype, or what it is called otherwise: 'bits'."""
    if isinstance(dtype, torch.dtype):
        return _NAMES.get(dtype) or str(dtype).removeprefix("torch.")
    return "bits" if isinstance(dtype, str) and dtype == "bits" else repr(dtype)


def want_tensor(name: str, value: Any, dtypes: Sequence[str], told: str | None = None) -> Tensor:
    """`value`, which is a tensor of one of `dtypes`."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if dtype_name(value.dtype) not in dtypes:
        raise TypeError(f"{name}: expected {told or ', '.join(dtypes)}, got {dtype_name(value.dtype)}")
    return value


def want_shape(name: str, symbols: str, sizes: Sequence[Any], tensor: Tensor) -> None:
    if tuple(tensor.shape) != tuple(sizes):
        raise ValueError(f"{name}: expected {symbols} = {shape_text(sizes)}, got {shape_text(tensor.shape)}")


def want_device(name: str, tensor: Tensor | None, of: str, device: torch.device) -> None:
    if tensor is not None and tensor.device != device:
        raise ValueError(f"{name}: expected device {device} (that of {of}), got {tensor.device}")


@functools.lru_cache(maxsize=1024, typed=True)
def _remembered(function: Callable[..., Any], types: tuple[type, ...], *args: Any) -> Any:
    return function(*args)


def remembered(function: Callable[..., Any], *args: Any) -> Any:
    """function(*args) of a pure function, from memory where these arguments have been seen: options seldom change from
    call to call. Equal numbers of other types (4 and 4.0) are other arguments, in tuples, too."""
    if is_compiling():
        return function(*args)
    types = tuple([type(one) for arg in args if type(arg) is tuple for one in arg])
    try:
        return _remembered(function, types, *args)
    except TypeError:  # not hashable, or refused
        return function(*args)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def want_number(name: str, value: Any) -> float:
    if not is_number(value):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    return float(value)


def want_flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {type(value).__name__}")
    return value


def want_whole(name: str, value: Any, least: int) -> Any:
    if not isinstance(value, (int, torch.SymInt)) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a whole number, got {type(value).__name__}")
    if not least <= value < 2**31:
        raise ValueError(f"{name}: expected {least} to {2**31 - 1}, got {value}")
    return value


# ---- The grid -------------------------------------------------------------------------------------------------------


def grid_sizes(value: Any, batch: Any) -> tuple[Any, Any, Any]:
    """X, Y, Z of a whole number or three."""
    sizes = (value,) * 3 if isinstance(value, (int, torch.SymInt)) else value
    if (
        not isinstance(sizes, (list, tuple))
        or len(sizes) != 3
        or not all(isinstance(size, (int, torch.SymInt)) and not isinstance(size, bool) for size in sizes)
    ):
        raise TypeError(f"grid_size: expected a whole number or three, got {value!r}")
    x, y, z = sizes
    # A program for any batch must not be bound to those that this machine holds; the operator checks again.
    want_cells((x, y, z), 1 if is_compiling() else batch)
    return x, y, z


def _axis_numbers(name: str, value: Any, compute: torch.dtype, positive: bool) -> tuple[float, float, float]:
    """A number or three as three that the compute dtype holds."""
    numbers = (value,) * 3 if is_number(value) else value
    if not isinstance(numbers, (list, tuple)) or len(numbers) != 3 or not all(is_number(one) for one in numbers):
        got = f"{len(value)} entries" if isinstance(value, (list, tuple)) else repr(value)
        more = "" if positive else ", 'auto'"
        raise TypeError(f"{name}: expected a number, three numbers{more} or a torch.Tensor [3] or [B, 3], got {got}")
    wide = compute == torch.float64
    told = dtype_name(compute)
    for one in numbers:
        size = abs(one)
        if not (size < float("inf")) or (size >= _FLOAT32_TOP and not wide):
            raise ValueError(f"{name}: expected finite numbers (in {told}), got {value!r}")
        if positive and not one > (0.0 if wide else _FLOAT32_BOTTOM):
            raise ValueError(f"{name}: expected numbers above 0 (in {told}), got {value!r}")
    x, y, z = numbers
    return float(x), float(y), float(z)


def per_axis(
    name: str, value: Any, batch: Any, alone: bool, compute: torch.dtype, positive: bool
) -> tuple[tuple[float, float, float], Tensor | None]:
    """Three numbers of all samples, or a tensor [B or 1, 3] in the compute dtype."""
    if isinstance(value, Tensor):
        want_tensor(name, value, (*FLOAT_DTYPES, *INDEX_DTYPES), "a floating or an integer dtype")
        single = value.ndim == 0 or tuple(value.shape) == (3,)
        if not single and (alone or tuple(value.shape) != (batch, 3)):
            symbols = "[] or [3]" if alone else f"[], [3] or [B, 3] = [{batch}, 3]"
            raise ValueError(f"{name}: expected {symbols}, got {shape_text(value.shape)}")
        table = value.to(compute)
        return (1.0, 1.0, 1.0), table.expand(3).unsqueeze(0) if value.ndim == 0 else table.reshape(-1, 3)
    return remembered(_axis_numbers, name, value, compute, positive), None


# ---- Memory ----------------------------------------------------------------------------------------------------------


def _memory(kind: str, index: int | None) -> int | None:
    """Bytes of memory that a device has; None where that cannot be told."""
    if kind == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if kind == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_properties(torch.cuda.current_device() if index is None else index).total_memory
    return None


def want_room(
    argument: str, told: Callable[[], str], forms: Sequence[tuple[Sequence[Any], str]], device: torch.device
) -> None:
    """Refuses outputs (shape, dtype's name) that the device's memory cannot hold, before any is made. Not while
    compiling: a program must not be bound to the sizes that this machine holds."""
    if is_compiling():
        return
    needed = 0
    for shape, dtype in forms:
        elements = _ITEM_SIZES[dtype]
        for length in shape:
            elements = elements * length
        needed = needed + elements
    there = _memory(device.type, device.index)
    if there is not None and needed > there:
        raise ValueError(f"{argument}: {told()} would need {needed} bytes, more than the {there} bytes of {device}")
