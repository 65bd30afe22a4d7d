"""The shortest way into the native library, for plain eager tensors that need no gradient.

Every function here returns NotImplemented, before any work, for a call that is not its own: a mode, a transform or a
tracer is active, a gradient is wanted, an argument is unusual or wrong. Where torch lacks what it takes (its DLPack
exchange table, or one of the questions that are asked of it), no call is theirs.
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
from ._voxel_names import BOUNDS, LAYOUTS, MODES, ORDERS, REDUCES


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
            "empty": torch.empty,
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
            "bounds": BOUNDS,
            "layouts": LAYOUTS,
            "reduces": REDUCES,
            "orders": ORDERS,
            "modes": MODES,
        }
    except AttributeError:
        return False
    return bool(native.configure_fast(exchange, address, needs))


ENABLED = _configure()
resample: Any = native.fast_resample if ENABLED else _not_mine
fuse: Any = native.fast_fuse if ENABLED else _not_mine
bind: Any = native.fast_bind if ENABLED else _not_mine
draw: Any = native.fast_draw if ENABLED else _not_mine
voxelize: Any = native.fast_voxelize if ENABLED else _not_mine
voxelize_depth: Any = native.fast_voxelize_depth if ENABLED else _not_mine
voxelize_sparse: Any = native.fast_voxelize_sparse if ENABLED else _not_mine
devoxelize: Any = native.fast_devoxelize if ENABLED else _not_mine
