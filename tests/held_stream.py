"""A CUDA stream that goes on only when the test says so: no clock decides whether a call waited for it."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass
class Hold:
    """`expired`: the stream was let go because the block took too long, as it does if it waits for the stream."""

    expired: bool = False


@contextmanager
def held(stream: torch.cuda.Stream, limit_s: float = 20.0) -> Iterator[Hold]:
    """Work put on `stream` within the block starts only after the block, or after `limit_s` seconds."""
    flag = torch.zeros(1, dtype=torch.int32).pin_memory()
    open_flag = flag.numpy()
    wait = ctypes.CDLL("libcuda.so.1").cuStreamWaitValue32_v2  # until the word at an address is at least a value
    wait.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint]
    status = wait(stream.cuda_stream, flag.data_ptr(), 1, 0)
    assert status == 0, f"cuStreamWaitValue32: CUresult {status}"
    hold = Hold()

    def expire() -> None:
        hold.expired = True
        open_flag[0] = 1

    timer = threading.Timer(limit_s, expire)
    timer.start()
    try:
        yield hold
    finally:
        timer.cancel()
        open_flag[0] = 1
        stream.synchronize()  # before the flag's memory goes
