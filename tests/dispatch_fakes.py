"""A GPU that is none, and recorded costs: dispatch tested without a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import robocache
from robocache import _dispatch
from robocache._dispatch import points, settings
from robocache._dispatch import policy as policies
from robocache._dispatch.calls import WORK, Workload
from robocache._dispatch.model import Measured
from robocache._dispatch.policy import Policy

KEY = {
    "gpu": "Test GPU 9000",
    "driver": "580.1",
    "cpu": "Test CPU",
    "threads": torch.get_num_threads(),
    "torch": torch.__version__,
    "robocache": robocache.__version__,
}


class FakeClock:
    """Seconds that pass only where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_us(self, microseconds: float) -> None:
        self.now += microseconds * 1e-6


class FakeDevice:
    """Counts what is asked of it; its "device" tensors are copies on the host."""

    backend = "cpu"

    def __init__(self) -> None:
        self.refusal: str | None = None
        self.in_use = True
        self.records = False
        self.has_queue = False
        self.free = 1 << 40
        self.locked: set[int] = set()
        self.uploads: list[int] = []  # bytes of each
        self.downloads: list[int] = []
        self.checks = 0
        self.waits = 0
        self.fault: Exception | None = None
        self.fails: Exception | None = None
        self.there: set[int] = set()  # addresses of what was put there

    def why_not(self) -> str | None:
        return self.refusal

    def known_missing(self) -> bool:
        return self.refusal is not None

    def started(self) -> bool:
        return self.in_use

    def capturing(self) -> bool:
        return self.records

    def queued(self) -> bool:
        return self.has_queue

    def room(self) -> int:
        return self.free

    def name(self) -> Any:
        return 0

    def key(self) -> dict[str, Any]:
        return {**KEY, "threads": torch.get_num_threads()}

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        return tensor.data_ptr() in self.locked

    def upload(self, tensors: Sequence[torch.Tensor], wait: bool) -> list[torch.Tensor]:
        if self.fails is not None:
            raise self.fails
        self.uploads.append(sum(t.numel() * t.element_size() for t in tensors))
        made = [tensor.clone() for tensor in tensors]
        self.there |= {tensor.data_ptr() for tensor in made}
        return made

    def download(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        self.downloads.append(sum(t.numel() * t.element_size() for t in tensors))
        return [tensor.clone() for tensor in tensors]

    def wait(self) -> None:
        self.waits += 1

    def check(self) -> None:
        self.checks += 1
        if self.fault is not None:
            raise self.fault

    @property
    def trips(self) -> int:
        return self.checks


Cost = Callable[[Workload], float]


def spread(op: str, count: int = 40) -> list[Workload]:
    """Workloads over six decades, in amounts that do not go hand in hand."""
    found = []
    for k in range(count):
        size = 10 ** (2 + 6 * k / (count - 1))
        work = tuple([size * (1 + (k * (7 + j)) % 5) / (1 + j % 3) for j in range(len(WORK[op]))])
        found.append(Workload(op, int(12 * size), 0, int(4 * size * (1 + k % 3)), work))
    return found


def copy_us(size: float, rate: float = 6000.0) -> float:
    return 10.0 + size / rate


def cpu_us(load: Workload) -> float:
    """4 ns for each unit of the second amount, 1 ns for each of the last."""
    return 5.0 + 4e-3 * load.work[1] + 1e-3 * load.work[-1]


def gpu_us(load: Workload) -> float:
    """The kernel alone: 40 us, and a hundredth of the CPU's time a unit."""
    return 40.0 + 2e-5 * load.work[1] + 1e-5 * load.work[-1]


def recorded(cpu: Cost = cpu_us, gpu: Cost = gpu_us, noise: float = 0.0) -> points.Tuned:
    """What a tuning run would have stored on a machine with these costs."""
    generator = torch.Generator().manual_seed(5)

    def shaken(value: float) -> float:
        return value * math.exp(noise * float(torch.randn((), generator=generator)))

    found = []
    for op in WORK:
        for load in spread(op):
            into, out = copy_us(load.pageable), copy_us(load.bytes_out)
            kernel = gpu(load)
            found.append(Measured(load, shaken(cpu(load)), shaken(into + kernel + out), shaken(into + kernel)))
    sizes = [4**k for k in range(5, 15)]
    copies = {
        "pageable_in": [(size, copy_us(size)) for size in sizes],
        "pinned_in": [(size, copy_us(size, 50_000.0)) for size in sizes],
        "out": [(size, copy_us(size)) for size in sizes],
    }
    return points.Tuned(dict(KEY), "2026-11-25T00:00:00+00:00", copies, found)


@contextmanager
def routed(monkeypatch: pytest.MonkeyPatch, device: FakeDevice, environment: str = "") -> Iterator[Policy]:
    """The public functions ask a policy with this device, as on a machine with a GPU."""
    policy = Policy(device)
    monkeypatch.setattr(policies, "_policy", policy)
    monkeypatch.setattr(settings, "_environment", environment)
    monkeypatch.setattr(settings, "_learn", "")
    monkeypatch.setattr(_dispatch, "_clock", FakeClock())  # every call takes no time: what the model says holds
    monkeypatch.setattr(_dispatch, "_gpu_is_possible", True)
    monkeypatch.setattr(points, "_noticed", False)
    _dispatch.refresh()
    try:
        yield policy
    finally:
        monkeypatch.undo()
        _dispatch.refresh()


@pytest.fixture(name="device")
def device_fixture() -> FakeDevice:
    return FakeDevice()


@pytest.fixture(name="policy")
def policy_fixture(monkeypatch: pytest.MonkeyPatch, device: FakeDevice, tmp_path: Any) -> Iterator[Policy]:
    """A policy without any tuned file; the cache directory is the test's own."""
    monkeypatch.setenv(points.DIRECTORY, str(tmp_path / "cache"))
    with routed(monkeypatch, device) as made:
        yield made


@pytest.fixture(name="tuned")
def tuned_fixture(policy: Policy) -> Policy:
    """The same with recorded points for its key."""
    points.save(recorded())
    policy.forget()
    return policy
