"""Which implementation computes a call."""

from __future__ import annotations

import importlib
import os
import warnings
from typing import Any

import torch

from . import _ops
from ._checks import BACKENDS

native: Any = None
NATIVE_ERROR: str | None = None
try:
    native = importlib.import_module("robocache._native")
except ImportError as error:
    NATIVE_ERROR = str(error)

_warned: set[str] = set()


@torch.compiler.assume_constant_result
def cuda_why_not() -> str | None:
    """Why native CUDA kernels cannot run here; None where they can. Asks the driver."""
    if _ops.LOAD_ERROR is not None:
        return _ops.LOAD_ERROR
    if native is None:
        return NATIVE_ERROR
    return None if native.cuda_available() else str(native.cuda_why_not())


@torch.compiler.assume_constant_result
def native_why_not(device_type: str) -> str | None:
    """Why the native kernels cannot compute on this kind of device; None where they can."""
    if device_type == "cuda":
        return cuda_why_not()
    if device_type in ("cpu", "meta"):
        return _ops.LOAD_ERROR
    return f"there are no native kernels for {device_type} devices"


@torch.compiler.assume_constant_result
def _warn_once(device_type: str, reason: str) -> None:
    if device_type not in _warned:
        _warned.add(device_type)
        warnings.warn(
            f"robocache computes {device_type} tensors with its plain torch reference, because the native kernels "
            f"cannot: {reason}",
            RuntimeWarning,
            stacklevel=4,
        )


def resolve(backend: Any, device: torch.device) -> str:
    """ "native" or "torch" for tensors on `device`; a named backend that cannot run raises and says why."""
    if not isinstance(backend, str) or backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(map(repr, BACKENDS))}, got {backend!r}")
    kind = device.type
    if backend == "torch":
        return "torch"
    if backend == "triton":
        raise RuntimeError("backend='triton': this operation has no Triton kernel")
    if backend == "auto":
        reason = native_why_not(kind)
        if reason is None:
            return "native"
        _warn_once(kind, reason)
        return "torch"
    if kind != backend:
        raise ValueError(f"backend: {backend!r} computes {backend} tensors, got tensors on {kind}")
    reason = native_why_not(kind)
    if reason is not None:
        raise RuntimeError(f"backend={backend!r} cannot run: {reason}")
    return "native"


def checks_synchronously() -> bool:
    """True when ROBOCACHE_CHECK=sync asks for a check after every CUDA call."""
    return os.environ.get("ROBOCACHE_CHECK") == "sync"
