"""Capturing and replaying on a CUDA device: memory, streams, events, random numbers, captures that break.

Memory: each graph has a pool of its own. Graphs that share one may only be replayed in the order of their capture, and
a cache replays in any order, on several streams; and a pool that is one graph's goes back to the device with it.
"""

from __future__ import annotations

import gc
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from .._backend import native
from ._key import MAX_TENSORS, Node, outline, substitute
from ._policy import Sample


class CaptureFailed(Exception):
    """The function cannot be captured; the message says why."""


class Captured(Protocol):
    """One captured graph and what it holds."""

    bytes: int
    in_place: list[bool]  # inputs read where the caller has them
    addresses: list[int]  # where the graph reads its inputs
    armed: bool  # `entry` can be replayed by the C++ hot path

    def replay(self, entry: Any, sighting: Any) -> Any:
        """The call's result; NotImplemented where nothing was launched and the caller must run it eagerly."""
        ...

    def idle(self) -> bool:
        """Whether no replay is in flight."""
        ...

    def free(self) -> None:
        """Waits for the replays in flight, and for nothing else, and gives the memory back. Its entry is retired."""
        ...


class Backend(Protocol):
    """What the cache asks of a device."""

    cuda: bool

    def capture(
        self, fn: Callable[..., Any], args: Any, kwargs: Any, tensors: Sequence[Tensor], in_place: Sequence[bool]
    ) -> Captured: ...

    def warm_up(self, fn: Callable[..., Any], args: Any, kwargs: Any, tensors: Sequence[Tensor]) -> None: ...

    def timed(self, call: Callable[[], Any], device_index: int) -> tuple[Any, Sample]: ...


_capture_lock = threading.Lock()  # torch allows one capture at a time in a process


class _EventSample:
    """Host time by the clock, device time by events; read when the device has passed them."""

    def __init__(self, host_us: float, start: torch.cuda.Event, end: torch.cuda.Event) -> None:
        self._host_us, self._start, self._end = host_us, start, end

    def ready(self) -> bool:
        return self._end.query()

    def microseconds(self) -> tuple[float, float]:
        return self._host_us, self._start.elapsed_time(self._end) * 1e3


@contextmanager
def _without_autocast_cache() -> Iterator[None]:
    """A weight that autocast cached before the capture would be read after it is gone."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Collecting a cycle that holds graphs or pools would free device memory, which breaks a capture."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _words(error: BaseException) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


class CudaBackend:
    """The real one. `outputs` and `ring` as in CUDAGraphCache."""

    cuda = True

    def __init__(self, outputs: str, ring: int) -> None:
        self._outputs, self._ring = outputs, ring
        self._streams: dict[int, torch.cuda.Stream] = {}

    def _stream(self, device: torch.device) -> torch.cuda.Stream:
        index = device.index
        if index not in self._streams:
            self._streams[index] = torch.cuda.Stream(device)
        return self._streams[index]

    def timed(self, call: Callable[[], Any], device_index: int) -> tuple[Any, Sample]:
        stream = torch.cuda.current_stream(device_index)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record(stream)
        begin = time.perf_counter()
        result = call()
        host_us = (time.perf_counter() - begin) * 1e6
        end.record(stream)
        return result, _EventSample(host_us, start, end)

    def warm_up(self, fn: Callable[..., Any], args: Any, kwargs: Any, tensors: Sequence[Tensor]) -> None:
        """Runs it once on the capture's stream, so that what is set up late is set up."""
        device = tensors[0].device
        stream = self._stream(device)
        current = torch.cuda.current_stream(device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            fn(*args, **kwargs)
        current.wait_stream(stream)

    def capture(
        self, fn: Callable[..., Any], args: Any, kwargs: Any, tensors: Sequence[Tensor], in_place: Sequence[bool]
    ) -> CudaCaptured:
        device = tensors[0].device
        stays = [stay and not t.is_inference() for stay, t in zip(in_place, tensors, strict=True)]
        if stays.count(False) > MAX_TENSORS:
            raise CaptureFailed(f"it takes more than {MAX_TENSORS} tensors")
        with torch.cuda.device(device):
            try:
                with torch.inference_mode(False):  # inference tensors have no version to look at
                    inputs = [
                        t if stay else torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=device)
                        for stay, t in zip(stays, tensors, strict=True)
                    ]
            except torch.OutOfMemoryError as error:
                raise CaptureFailed(_words(error)) from None
            versions = [t._version for t in inputs]
            supply = iter(inputs)
            static_args = substitute(tuple(args), supply)
            static_kwargs = substitute(dict(kwargs), supply)
            pool = torch.cuda.MemPool()
            graph = torch.cuda.CUDAGraph()
            # A workspace made before would be shared with eager calls, one made here would outlive the pool.
            torch._C._cuda_clearCublasWorkspaces()
            try:
                result = self._record(graph, pool, device, fn, static_args, static_kwargs)
                outputs, nodes = _checked(result, inputs, versions, device)
                return CudaCaptured(graph, pool, device, inputs, stays, outputs, nodes, self._outputs, self._ring)
            except torch.OutOfMemoryError as error:
                graph.reset()
                raise CaptureFailed(_words(error)) from None
            except BaseException:
                graph.reset()
                raise
            finally:
                torch._C._cuda_clearCublasWorkspaces()

    def _record(
        self, graph: Any, pool: Any, device: torch.device, fn: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        stream = self._stream(device)
        problem: str | None = None
        result = None
        with _capture_lock, torch.cuda.stream(stream), _without_autocast_cache(), _without_collection():
            graph.capture_begin(pool=pool.id, capture_error_mode="thread_local")
            try:
                result = fn(*args, **kwargs)
            except Exception as error:
                problem = _words(error)
            finally:  # also when interrupted: a capture that is not ended takes the stream with it
                broken = _end_capture(graph, stream)
        if problem is not None or broken is not None:
            del result
            raise CaptureFailed(problem or broken or "")
        return result


def _end_capture(graph: Any, stream: torch.cuda.Stream) -> str | None:
    """Ends a capture whatever state it is in; None when it is good.

    torch gives the allocator and the generators back only behind a successful end. A capture that broke is ended by
    hand, and an empty one takes its place for torch to end.
    """
    try:
        graph.capture_end()
        return None
    except Exception as error:
        words = _words(error)
    native.mend_capture(stream.cuda_stream)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "The CUDA Graph is empty"
        graph.capture_end()
    return words


def _checked(
    result: Any, inputs: Sequence[Tensor], versions: Sequence[int], device: torch.device
) -> tuple[list[Tensor], list[Node]]:
    """The result's tensors and structure, if replays can stand in for calls."""
    for number, (tensor, version) in enumerate(zip(inputs, versions, strict=True)):
        if tensor._version != version:
            raise CaptureFailed(f"it writes to its tensor argument {number}")
    try:
        outputs, nodes = outline(result)
    except TypeError as error:
        raise CaptureFailed(str(error)) from None
    if len(outputs) > MAX_TENSORS:
        raise CaptureFailed(f"it returns more than {MAX_TENSORS} tensors")
    for output in outputs:
        if output.requires_grad:
            raise CaptureFailed("its result needs a gradient")
        if output.device != device:
            raise CaptureFailed(f"it returns a tensor on {output.device}")
        if output.layout != torch.strided or output.is_conj() or output.is_neg() or output.is_quantized:
            raise CaptureFailed("it returns a tensor that is not plain strided memory")
    return outputs, nodes


_MODES = {"clone": 0, "borrow": 1, "ring": 2}  # Outputs of csrc/python/graph_entry.h


class CudaCaptured:
    """A graph, its pool, the tensors it reads and writes, and the event behind its last replay."""

    def __init__(
        self,
        graph: Any,
        pool: Any,
        device: torch.device,
        inputs: list[Tensor],
        in_place: list[bool],
        outputs: list[Tensor],
        nodes: list[Node],
        mode: str,
        ring: int,
    ) -> None:
        self._graph, self._pool, self._device = graph, pool, device
        # The caller's own memory is not kept: a replay reads it only while the caller passes it.
        self._inputs = [None if stay else t for stay, t in zip(in_place, inputs, strict=True)]
        self._outputs, self._nodes, self._mode = outputs, nodes, mode
        self.in_place = in_place
        self.addresses = [t.data_ptr() for t in inputs]
        self._layouts = [(tuple(t.shape), t.stride(), t.element_size()) for t in inputs]
        with torch.inference_mode(False):
            self._sets = [[torch.empty_like(t) for t in outputs] for _ in range(ring)] if mode == "ring" else []
        if mode == "borrow":
            self._sets = [outputs]
        own = [*(t for t in self._inputs if t is not None), *(t for s in self._sets for t in s if mode == "ring")]
        self.bytes = sum(t.untyped_storage().nbytes() for t in own) + _pool_bytes(pool)
        self._event = torch.cuda.Event()
        self._last: torch.cuda.Stream | None = None
        self._turn = 0
        self._random: bool | None = None  # known after the first replay
        self.armed = False

    def replay(self, entry: Any, sighting: Any) -> Any:
        if self.armed:
            return entry.replay(sighting)
        result = self._replay_by_torch(sighting)
        self._arm(entry)
        return result

    def _replay_by_torch(self, sighting: Any) -> Any:
        """The first replay, and all of a graph with random numbers, whose offsets torch keeps."""
        generator = torch.cuda.default_generators[self._device.index]
        with torch.cuda.device(self._device):
            stream = torch.cuda.current_stream()
            if self._last is not None and self._last != stream:
                stream.wait_event(self._event)
            pairs = [(to, t) for to, t in zip(self._inputs, sighting.tensors, strict=True) if to is not None]
            if pairs:
                native.copy_many([to for to, _ in pairs], [t.detach() for _, t in pairs])
            before = generator.get_offset()
            self._graph.replay()
            if self._random is None:
                self._random = generator.get_offset() != before
            results = self._outputs
            if self._mode != "borrow":
                results = (
                    self._sets[self._turn % len(self._sets)]
                    if self._mode == "ring"
                    else [torch.empty_like(t) for t in self._outputs]
                )
                native.copy_many(results, self._outputs)
            self._turn += 1
            self._event.record(stream)
            self._last = stream
        return _rebuild(self._nodes, results)

    def _arm(self, entry: Any) -> None:
        """Hands the graph to the hot path, unless torch must see each replay."""
        raw = getattr(self._graph, "raw_cuda_graph_exec", None)
        if self._random or self._last is None or raw is None:
            return
        like = [torch.empty_like(t, device="meta") for t in self._outputs]
        entry.arm(
            int(raw()),
            int(self._event.cuda_event),
            int(self._last.cuda_stream),
            self._device.index,
            [
                (address, *layout, stays)
                for address, layout, stays in zip(self.addresses, self._layouts, self.in_place, strict=True)
            ],
            self._outputs,
            like,
            self._nodes,
            _MODES[self._mode],
            self._sets,
        )
        entry.generation = self._turn
        self.armed = True

    def idle(self) -> bool:
        return self._last is None or self._event.query()

    def free(self) -> None:
        if self._last is not None:
            self._event.synchronize()
        self._graph.reset()
        self._outputs, self._sets, self._inputs = [], [], []
        self._pool = None


def _pool_bytes(pool: Any) -> int:
    return sum(int(segment["total_size"]) for segment in pool.snapshot())


def _rebuild(nodes: Sequence[Node], tensors: Sequence[Tensor]) -> Any:
    return native.rebuild_result(list(nodes), list(tensors))
