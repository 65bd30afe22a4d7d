"""Host tensors to the GPU and back, through a bounded set of page-locked buffers.

Inputs are laid out one behind the other in one device buffer and go there in chunks: while one chunk is on its way, the
next is copied into another staging buffer, so that many small tensors cost one copy and a large one keeps both the
memory and the bus at work. Answers come back likewise. What is page-locked already goes straight.

A thread waits for a staging buffer only while it holds none, so threads cannot wait for each other in a circle.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK_BYTES = 4 << 20
CHUNKS = 16  # 64 MiB of page-locked memory, whatever is moved
_ALIGN = 256  # as cudaMalloc aligns; every dtype may begin there


class Buffer:
    """A staging buffer and the event behind the last copy that used it."""

    def __init__(self, size: int, on_gpu: bool) -> None:
        self.bytes = torch.empty(size, dtype=torch.uint8, pin_memory=on_gpu)
        self._event = torch.cuda.Event() if on_gpu else None
        self._pending = False

    def mark(self) -> None:
        """The current stream's copies of this buffer end here."""
        if self._event is not None:
            self._event.record()
            self._pending = True

    def wait(self) -> None:
        if self._event is not None and self._pending:
            self._event.synchronize()
        self._pending = False


class Fragment(NamedTuple):
    """Bytes begin to end of the tensor of that number, at `at` in a chunk."""

    tensor: int
    begin: int
    end: int
    at: int


def as_bytes(tensor: Tensor) -> Tensor:
    """A contiguous tensor's memory, [bytes] uint8."""
    return tensor.reshape(-1).view(torch.uint8)


def chunks_of(sizes: Sequence[int], chunk: int) -> Iterator[tuple[int, list[Fragment]]]:
    """(bytes used, fragments) of each chunk when tensors of these sizes are laid out one behind the other."""
    fragments: list[Fragment] = []
    used = 0
    for index, size in enumerate(sizes):
        begin = 0
        while begin < size:
            if used >= chunk:
                yield used, fragments
                fragments, used = [], 0
            end = min(size, begin + chunk - used)
            fragments.append(Fragment(index, begin, end, used))
            used += end - begin
            begin = end
        used = -(-used // _ALIGN) * _ALIGN
    if fragments:
        yield used, fragments


class Transfers:
    """Copies between host and one device. Safe to use from several threads at once.

    Args:
        device: where to; "cpu" copies within the host and is for tests.
        chunk_bytes: size of a staging buffer, a multiple of 256.
        chunks: how many there are at most; they are made as they are needed and kept.
    """

    def __init__(self, device: torch.device, chunk_bytes: int = CHUNK_BYTES, chunks: int = CHUNKS) -> None:
        if chunk_bytes % _ALIGN or chunk_bytes < _ALIGN or chunks < 1:
            raise ValueError(f"chunk_bytes, chunks: expected a multiple of {_ALIGN} and 1, got {chunk_bytes}, {chunks}")
        self.device = device
        self.chunk_bytes = chunk_bytes
        self._free: queue.SimpleQueue[Buffer] = queue.SimpleQueue()
        self._unmade = chunks
        self._lock = threading.Lock()

    # ---- Staging buffers ------------------------------------------------------------------------------------------

    def _make(self) -> Buffer | None:
        with self._lock:
            if self._unmade == 0:
                return None
            self._unmade -= 1
        try:
            return Buffer(self.chunk_bytes, self.device.type == "cuda")
        except BaseException:
            with self._lock:
                self._unmade += 1
            raise

    def _take(self) -> Buffer:
        """A buffer that no copy uses any more. The caller must hold none."""
        buffer = self._take_if_free()
        if buffer is None:
            buffer = self._free.get()
        buffer.wait()
        return buffer

    def _take_if_free(self) -> Buffer | None:
        try:
            return self._free.get_nowait()
        except queue.Empty:
            return self._make()

    # ---- To the device --------------------------------------------------------------------------------------------

    def upload(self, tensors: Sequence[Tensor], pinned: Sequence[bool]) -> list[Tensor]:
        """The tensors on the device, contiguous. Ordinary memory may be changed as soon as this returns."""
        staged = [k for k, direct in enumerate(pinned) if not direct]
        moved: list[Tensor | None] = [
            tensor.to(self.device, non_blocking=True) if direct else None
            for tensor, direct in zip(tensors, pinned, strict=True)
        ]
        for k, made in zip(staged, self._upload_staged([tensors[k] for k in staged]), strict=True):
            moved[k] = made
        return [tensor for tensor in moved if tensor is not None]

    def _upload_staged(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        plain = [tensor.detach() if tensor.requires_grad else tensor for tensor in tensors]
        sources = [as_bytes(tensor.contiguous()) for tensor in plain]  # one that is expanded is made whole here
        sizes = [source.numel() for source in sources]
        starts, total = [], 0
        for size in sizes:
            starts.append(total)
            total += -(-size // _ALIGN) * _ALIGN
        whole = torch.empty(total, dtype=torch.uint8, device=self.device)
        at = 0
        for used, fragments in chunks_of(sizes, self.chunk_bytes):
            buffer = self._take()
            try:
                for index, begin, end, place in fragments:
                    buffer.bytes[place : place + end - begin].copy_(sources[index][begin:end])
                length = min(used, total - at)
                whole[at : at + length].copy_(buffer.bytes[:length], non_blocking=True)
                at += length
                buffer.mark()
            finally:
                self._free.put(buffer)
        return [
            whole[start : start + size].view(tensor.dtype).view(tensor.shape)
            if size
            else torch.empty(tensor.shape, dtype=tensor.dtype, device=self.device)
            for tensor, start, size in zip(tensors, starts, sizes, strict=True)
        ]

    # ---- To the host ----------------------------------------------------------------------------------------------

    def download(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Ordinary host tensors with the same strides; waits for them."""
        made = [torch.empty_like(tensor, device="cpu") for tensor in tensors]
        plain = []
        for target, tensor in zip(made, tensors, strict=True):
            if tensor.is_contiguous():
                plain.append((as_bytes(target), as_bytes(tensor)))
            else:
                target.copy_(tensor)
        held: list[tuple[Buffer, list[Fragment]]] = []
        try:
            for _, fragments in chunks_of([source.numel() for _, source in plain], self.chunk_bytes):
                buffer = self._take_if_free() if held else self._take()
                while buffer is None:  # others have the rest: make one of ours free
                    self._put_down(held, plain)
                    buffer = self._take_if_free() if held else self._take()
                held.append((buffer, fragments))
                buffer.wait()
                for index, begin, end, place in fragments:
                    buffer.bytes[place : place + end - begin].copy_(plain[index][1][begin:end], non_blocking=True)
                buffer.mark()
            while held:
                self._put_down(held, plain)
        finally:
            for buffer, _ in held:
                self._free.put(buffer)
        return made

    def _put_down(self, held: list[tuple[Buffer, list[Fragment]]], plain: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Waits for the oldest chunk that is held, copies it where it belongs and gives its buffer back."""
        buffer, fragments = held[0]
        buffer.wait()
        for index, begin, end, place in fragments:
            plain[index][0][begin:end].copy_(buffer.bytes[place : place + end - begin])
        held.pop(0)
        self._free.put(buffer)

    def staging_bytes(self) -> int:
        """Page-locked bytes that are kept: those of the buffers that lie free now."""
        return self._free.qsize() * self.chunk_bytes


def is_pinned(tensor: Tensor) -> bool:
    """Whether a tensor lies in page-locked memory. Asks the driver, so only once CUDA has started."""
    told: Any = tensor.is_pinned()
    return bool(told)
