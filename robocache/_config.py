"""What this build is, which kernels ran, and the deferred errors of CUDA kernels."""

from __future__ import annotations

from typing import Any

import torch

from . import _ops
from ._backend import NATIVE_ERROR, cuda_why_not, native
from ._dispatch.explain import summary
from ._version import __version__


def launch_counts() -> dict[str, int]:
    """How often each native kernel ran in this process, by name.

    A launch captured into a CUDA graph counts once, when it is captured. Empty where the native library did not load.

    Example:
        >>> robocache.reset_launch_counts()
        >>> _ = robocache.resample_trajectories(values, times, targets)
        >>> robocache.launch_counts()["align_cpu"]
        1
    """
    return {} if native is None else dict(native.launch_counts())


def reset_launch_counts() -> None:
    """Sets every launch count to 0."""
    if native is not None:
        native.reset_launch_counts()


def show_config() -> dict[str, Any]:
    """Versions, backends and why one is missing.

    Returns:
        A dict with "version", "torch", "native_error" and "torch_ops_error" (None where the library loaded),
        "cpu_isa" (vector instructions in use), "cuda_archs" (CUDA targets in this build), "cuda_error" (None where
        CUDA kernels can run), "backends" (those that can run here) and "dispatch" (whether host tensors may go to a
        GPU, and by which numbers).

    Example:
        >>> print(robocache.show_config()["backends"])
        ['cpu', 'torch']
    """
    cuda_error = cuda_why_not()
    backends = ["torch"]
    if _ops.LOAD_ERROR is None and native is not None:
        backends = (["cuda"] if cuda_error is None else []) + ["cpu", "torch"]
    return {
        "version": __version__,
        "torch": torch.__version__,
        "native_error": NATIVE_ERROR,
        "torch_ops_error": _ops.LOAD_ERROR,
        "cpu_isa": None if native is None else native.cpu_isa(),
        "cuda_archs": None if native is None else native.cuda_archs(),
        "cuda_error": cuda_error,
        "backends": backends,
        "dispatch": summary(),
    }


def check(device: torch.device | str | int | None = None) -> None:
    """Waits for a CUDA device and raises the first data fault that a kernel noted there, and forgets it.

    CUDA kernels never wait for their data to be looked at: what only the data can tell (times that go backwards, NaN
    times, `raise` policies) is noted on the device. On the CPU the same faults raise at once, so without a CUDA device
    there is nothing to do. With the environment variable ROBOCACHE_CHECK=sync every CUDA call checks by itself.

    Args:
        device: which device; None is torch's current one.

    Raises:
        DataError: with fault, stream, row and position.
    """
    if device is None:
        index = None
    elif isinstance(device, int):
        index = device
    else:
        named = torch.device(device)
        if named.type != "cuda":
            return
        index = named.index
    if native is None or cuda_why_not() is not None or not torch.cuda.is_available():
        return
    native.check_device(torch.cuda.current_device() if index is None else index)
