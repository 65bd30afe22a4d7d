"""One call on another device: its tensors there, the public function there, the answer back (or not)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .._errors import DataError
from .._stream import Stream
from .calls import HOLD_NOTHING, tensors_in
from .device import Device


def replaced(value: Any, by: Mapping[int, Tensor]) -> Any:
    """`value` with other tensors in place of those whose id is in `by`; sequences, mappings, streams and named tuples
    are made anew."""
    if type(value) in HOLD_NOTHING:
        return value
    if isinstance(value, Tensor):
        return by.get(id(value), value)
    if isinstance(value, Mapping):
        return {name: replaced(one, by) for name, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[replaced(one, by) for one in value])
    if isinstance(value, (list, tuple)):
        return type(value)([replaced(one, by) for one in value])
    if isinstance(value, Stream):
        return dataclasses.replace(value, **{name: replaced(one, by) for name, one in vars(value).items()})
    return value


def moved(value: Any, move: Callable[[list[Tensor]], list[Tensor]]) -> Any:
    """`value` with all its tensors moved, in one go."""
    found = tensors_in(value)
    return replaced(value, {id(old): new for old, new in zip(found, move(found), strict=True)})


def run(device: Device, function: Callable[..., Any], arguments: Mapping[str, Any], result: str) -> Any:
    """The call on `device`.

    With the result on the host, faults in the data raise at once, as on the CPU: where the device noted one, the CPU
    computes the call again and says what it finds. With the result left there they are deferred, as for any call on
    that device.

    Args:
        arguments: the public function's, by name; `backend` and `out` among them are not looked at.
        result: "host" or "device".
    """
    given = {name: value for name, value in arguments.items() if name not in ("backend", "out")}
    with torch.no_grad():
        there = moved(given, lambda tensors: device.upload(tensors, result == "device"))
        answer = function(**there, backend=device.backend)
        if result == "device":
            return answer
        back = moved(answer, device.download)
    try:
        device.check()
    except DataError as error:
        function(**given, backend="cpu")  # raises, where the fault is in this call's data
        raise error.__class__(
            f"{error} (noted by an earlier call on the GPU)", error.fault, error.stream, error.row, error.position
        ) from None
    return back
