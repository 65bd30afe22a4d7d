"""The GPU as dispatch sees it. Tests put another `Device` in its place."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from .. import _backend
from .._version import __version__
from .calls import STAGED
from .transfers import Transfers, is_pinned


class Device(Protocol):
    """Where a round trip goes."""

    backend: str  # what the public functions are called with there

    def why_not(self) -> str | None:
        """Why it cannot be used in this process; None where it can. May ask the driver."""

    def known_missing(self) -> bool:
        """Whether it was asked for already and cannot be used. Never asks the driver."""

    def started(self) -> bool:
        """Whether this process uses it already."""

    def capturing(self) -> bool:
        """Whether the current stream records a graph."""

    def queued(self) -> bool:
        """Whether the current stream has work that a round trip would wait behind."""

    def room(self) -> int:
        """Free bytes."""

    def name(self) -> Any:
        """What tells one GPU of this process from another; hashable."""

    def key(self) -> dict[str, Any]:
        """The set-up that measured points hold for, names as in points.KEY."""

    def is_pinned(self, tensor: Tensor) -> bool:
        """Whether a host tensor lies in page-locked memory."""

    def upload(self, tensors: Sequence[Tensor], wait: bool) -> list[Tensor]:
        """Host tensors there; with `wait`, none of them is read any more when this returns."""

    def download(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Tensors from there as ordinary host tensors; waits for them."""

    def wait(self) -> None:
        """Waits for what the current stream was given."""

    def check(self) -> None:
        """Raises the DataError that a kernel noted."""


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    import platform

    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def driver_version() -> str:
    """The NVIDIA driver's version as its kernel module tells it; else the newest CUDA version that the driver knows."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text().splitlines()[0].split()
        for word in words:
            if word[0].isdigit() and "." in word:
                return word
    except (OSError, IndexError):
        pass
    ask = getattr(torch._C, "_cuda_getDriverVersion", None)
    return f"CUDA {ask()}" if ask is not None else "unknown"


class CudaDevice:
    """torch's current CUDA device, on torch's current stream."""

    backend = "cuda"

    def __init__(self) -> None:
        self._transfers: dict[int, Transfers] = {}
        self._lock = threading.Lock()
        self._keys: dict[int, dict[str, Any]] = {}
        self._refusal: str | None = None
        self._asked = False
        self._process = os.getpid()

    def why_not(self) -> str | None:
        if os.getpid() != self._process:
            return "this process was forked from one that had loaded robocache"
        if not self._asked:
            reason = _backend.cuda_why_not()
            if reason is None and not torch.cuda.is_available():
                reason = "torch sees no CUDA device"
            self._refusal, self._asked = reason, True
        return self._refusal

    def known_missing(self) -> bool:
        return os.getpid() != self._process or (self._asked and self._refusal is not None)

    def started(self) -> bool:
        return torch.cuda.is_initialized()

    def capturing(self) -> bool:
        return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()

    def queued(self) -> bool:
        return torch.cuda.is_initialized() and not torch.cuda.current_stream().query()

    def room(self) -> int:
        free, _ = torch.cuda.mem_get_info()
        # What torch's allocator holds and nobody uses can be had as well.
        return int(free) + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()

    def name(self) -> Any:
        return torch.cuda.current_device()

    def key(self) -> dict[str, Any]:
        index = torch.cuda.current_device()
        if index not in self._keys:
            self._keys[index] = {
                "gpu": torch.cuda.get_device_name(index),
                "driver": driver_version(),
                "cpu": cpu_name(),
                "torch": torch.__version__,
                "robocache": __version__,
            }
        return {**self._keys[index], "threads": torch.get_num_threads()}

    def is_pinned(self, tensor: Tensor) -> bool:
        ready = torch.cuda.is_initialized() and tensor.is_cpu and not self.capturing()
        return ready and is_pinned(tensor)

    def _of_current(self) -> Transfers:
        index = torch.cuda.current_device()
        with self._lock:
            if index not in self._transfers:
                self._transfers[index] = Transfers(torch.device("cuda", index))
            return self._transfers[index]

    def upload(self, tensors: Sequence[Tensor], wait: bool) -> list[Tensor]:
        transfers = self._of_current()
        # A small tensor costs less through a shared staging buffer than in a copy of its own.
        pinned = [t.numel() * t.element_size() >= STAGED and t.is_contiguous() and is_pinned(t) for t in tensors]
        made = transfers.upload(tensors, pinned)
        if wait and any(pinned):
            torch.cuda.current_stream().synchronize()
        return made

    def download(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return self._of_current().download(tensors)

    def wait(self) -> None:
        torch.cuda.current_stream().synchronize()

    def check(self) -> None:
        if _backend.native is not None:
            _backend.native.check_device(torch.cuda.current_device())

    def staging_bytes(self) -> int:
        """Page-locked bytes that lie free for the next round trip, of all GPUs."""
        with self._lock:
            return sum(transfers.staging_bytes() for transfers in self._transfers.values())
