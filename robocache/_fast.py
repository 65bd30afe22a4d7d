"""The shortest way into the native library, for plain eager tensors that need no gradient.

`resample` and `fuse` return NotImplemented, before any work, for every call that is not theirs: a mode, a transform or
a tracer is active, a gradient is wanted, an argument is unusual or wrong. Where torch lacks what they need (its DLPack
exchange table, or one of the questions they ask it), every call is not theirs.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from . import _ops
from ._backend import native
from ._checks import VALUE_DTYPES
from ._kinds import EXTRAPOLATE, INVALID, KINDS, flat_groups
from ._stream import Stream


def _not_mine(*args: Any) -> Any:
    return NotImplemented


def _configure() -> bool:
    """Hands the extension what it needs of torch; False where this torch does not have it."""
    exchange = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if native is None or _ops.LOAD_ERROR is not None or type(exchange).__name__ != "PyCapsule":
        return False
    library = ctypes.CDLL(str(_ops.LIBRARY))
    address = ctypes.cast(library.robocache_torch_parallel_for, ctypes.c_void_p).value
    try:
        needs = {
            "tensor_type": torch.Tensor,
            "stream_type": Stream,
            "empty_strided": torch.empty_strided,
            "increment_version": torch._C._increment_version,
            "grad_enabled": torch.is_grad_enabled,
            "busy": (
                torch._C._len_torch_function_stack,
                torch._C._len_torch_dispatch_stack,
                torch._C._are_functorch_transforms_active,
                torch._C._get_tracing_state,
            ),
            "dtypes": tuple(getattr(torch, name) for name in VALUE_DTYPES),
            "kinds": KINDS,
            "extrapolate": EXTRAPOLATE,
            "invalid": INVALID,
            "flat_groups": flat_groups,
        }
    except AttributeError:
        return False
    return bool(native.configure_fast(exchange, address, needs))


ENABLED = _configure()
resample: Any = native.fast_resample if ENABLED else _not_mine
fuse: Any = native.fast_fuse if ENABLED else _not_mine
