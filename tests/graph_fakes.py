"""A device for graph caches that needs none: CPU tensors, and times that the test dictates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from robocache._backend import native
from robocache.graphs._device import CaptureFailed
from robocache.graphs._key import outline, substitute


class FakeSample:
    def __init__(self, device: FakeDevice, times: tuple[float, float]) -> None:
        self._device, self._times = device, times

    def ready(self) -> bool:
        return self._device.passed

    def microseconds(self) -> tuple[float, float]:
        return self._times


class FakeGraph:
    """Keeps its inputs as a graph keeps its buffers, and computes them anew at each replay."""

    def __init__(self, device: FakeDevice, fn: Any, args: Any, kwargs: Any, tensors: Any, in_place: Any) -> None:
        self._device, self._fn = device, fn
        self.in_place = list(in_place)
        self._inputs = [t if stay else t.clone() for t, stay in zip(tensors, in_place, strict=True)]
        supply = iter(self._inputs)
        self._args, self._kwargs = substitute(tuple(args), supply), substitute(dict(kwargs), supply)
        try:
            self._outputs, self._nodes = outline(fn(*self._args, **self._kwargs))
        except CaptureFailed:
            raise
        except Exception as error:
            raise CaptureFailed(f"{type(error).__name__}: {error}") from None
        self.addresses = [t.data_ptr() for t in self._inputs]
        self.armed = False
        self.bytes = device.graph_bytes
        self.in_flight = False
        self.replays = 0

    def replay(self, entry: Any, sighting: Any) -> Any:
        assert self in self._device.alive, "replayed after it was freed"
        for mine, given, stay in zip(self._inputs, sighting.tensors, self.in_place, strict=True):
            if stay:
                assert mine.data_ptr() == given.data_ptr(), "an input in place has moved"
            else:
                mine.copy_(given)
        made, _ = outline(self._fn(*self._args, **self._kwargs))
        for own, new in zip(self._outputs, made, strict=True):
            own.copy_(new)
        self.replays += 1
        results = self._outputs if self._device.outputs == "borrow" else [t.clone() for t in self._outputs]
        return native.rebuild_result(self._nodes, results)

    def idle(self) -> bool:
        return not self.in_flight

    def free(self) -> None:
        self.in_flight = False
        self._device.alive.remove(self)
        self._device.freed.append(self)


class FakeDevice:
    """`eager` and `replay` are (host, device) microseconds of every timed call."""

    cuda = False

    def __init__(self, outputs: str = "clone") -> None:
        self.outputs = outputs
        self.eager, self.replayed = (100.0, 90.0), (10.0, 20.0)
        self.passed = True
        self.graph_bytes = 1000
        self.alive: list[FakeGraph] = []
        self.freed: list[FakeGraph] = []
        self.warmed = 0

    def capture(
        self, fn: Callable[..., Any], args: Any, kwargs: Any, tensors: Sequence[torch.Tensor], in_place: Sequence[bool]
    ) -> FakeGraph:
        graph = FakeGraph(self, fn, args, kwargs, tensors, in_place)
        self.alive.append(graph)
        return graph

    def warm_up(self, fn: Callable[..., Any], args: Any, kwargs: Any, tensors: Any) -> None:
        fn(*args, **kwargs)
        self.warmed += 1

    def timed(self, call: Callable[[], Any], device_index: int) -> tuple[Any, FakeSample]:
        before = sum(graph.replays for graph in self.alive)
        result = call()
        replay = sum(graph.replays for graph in self.alive) > before
        return result, FakeSample(self, self.replayed if replay else self.eager)
