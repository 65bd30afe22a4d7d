"""Times launch parameter values on the GPU: forced one after the other, checked, captured, replayed in turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from .measure import CheckFailed
from .timing import GraphTimer
from .tune_cases import Bound, Group, bind, flat
from .tune_decide import CONTROL, CURRENT


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's bytes."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def same(got: Sequence[torch.Tensor], want: Sequence[torch.Tensor], exact: bool) -> bool:
    """Bit for bit; where atomics add in any order, to float32's rounding of the largest sum."""
    if [(t.shape, t.dtype) for t in got] != [(t.shape, t.dtype) for t in want]:
        return False
    if exact:
        return all(torch.equal(bits(a), bits(b)) for a, b in zip(got, want, strict=True))
    for a, b in zip(got, want, strict=True):
        scale = float(b.abs().max()) if b.numel() else 0.0
        if not torch.allclose(a, b, rtol=1e-5, atol=1e-5 * scale):
            return False
    return True


class GpuBench:
    """Cases of one group and shape class at a time. `load` takes them up, `times` measures."""

    def __init__(
        self, rotate_bytes: int = 256 << 20, max_sets: int = 64, timer: GraphTimer | None = None, device: str = "cuda"
    ) -> None:
        from robocache._backend import native

        if native is None:
            raise RuntimeError("the native library did not load")
        self.native: Any = native
        self.rotate_bytes = rotate_bytes  # sets rotate until their bytes exceed this, as in the suites
        self.max_sets = max_sets
        self.device = device
        self.timer = timer or GraphTimer(max_calls=512)
        self.sets: dict[str, list[Bound]] = {}
        self.expected: dict[str, list[torch.Tensor]] = {}
        self.exact = True

    def load(self, group: Group, cases: Sequence[Any]) -> None:
        """Makes the input sets of the cases, and the answers that every value must give."""
        self.unload()
        self.exact = group.exact
        for case in cases:
            first = bind(case, self.device, 0)
            expected = [tensor.clone() for tensor in flat(first.call())]
            one = first.bytes + sum(t.numel() * t.element_size() for t in expected)
            count = max(2, min(self.max_sets, math.ceil(self.rotate_bytes / max(one, 1))))
            self.sets[case.name] = [first, *(bind(case, self.device, seed) for seed in range(1, count))]
            self.expected[case.name] = expected

    def unload(self) -> None:
        self.sets.clear()
        self.expected.clear()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def force(self, parameter: str, shape_class: str, value: int) -> None:
        self.native.set_launch_parameter(parameter, shape_class, value)

    def _check(self, case: str, parameter: str, value: int) -> None:
        first = self.sets[case][0]
        first.clear()
        if not same(flat(first.call()), self.expected[case], self.exact):
            raise CheckFailed(f"{case}: {parameter} = {value} changes the result")

    def times(
        self, parameter: str, shape_class: str, current: int, values: Sequence[int], rounds: int, seed: int
    ) -> dict[str, dict[str, list[float]]]:
        """Microseconds a call by case and label, one timing a round; `current` is forced again at the end."""
        labels = {CURRENT: current, CONTROL: current} | {str(value): value for value in values}
        measured: dict[str, dict[str, list[float]]] = {}
        try:
            for case, sets in self.sets.items():
                recordings = {}
                laps = None
                for label, value in labels.items():
                    self.force(parameter, shape_class, value)
                    self._check(case, parameter, value)
                    recordings[label] = self.timer.record([one.call for one in sets], laps)
                    laps = recordings[label].laps
                measured[case] = self.timer.interleave(recordings, rounds, seed)
                recordings.clear()
        finally:
            self.force(parameter, shape_class, current)
        return measured
