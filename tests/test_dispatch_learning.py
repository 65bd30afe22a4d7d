"""What calls really took corrects the model: the policy with made-up times, and the way from a call to its record."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
import torch

import robocache
from robocache import _dispatch
from robocache._dispatch import points, settings
from robocache._dispatch.calls import Workload
from robocache._dispatch.measured import EVERY, PAUSE, TRIAL, Memory, Record, Weighed
from robocache._dispatch.model import Estimates
from robocache._dispatch.policy import Policy

from .dispatch_fakes import (  # noqa: F401  (fixtures)
    FakeClock,
    FakeDevice,
    device_fixture,
    policy_fixture,
    recorded,
    tuned_fixture,
)

# ---- A record alone -------------------------------------------------------------------------------------------------

Took = Callable[[str, int], float]


def play(record: Record, calls: int, took: Took) -> list[str]:
    """Calls one after the other as dispatch makes them; the side of each."""
    sides = []
    for k in range(calls):
        if record.rests():
            sides.append(record.side)
            continue
        plan = record.plan()
        sides.append(plan.side)
        if plan.timed:
            record.note(plan, took(plan.side, k))
    return sides


def steady(cpu: float, cuda: float) -> Took:
    return lambda side, k: cpu if side == "cpu" else cuda


@pytest.mark.parametrize(
    ("estimates", "real"),
    [
        ((109.0, 308.0), (529.0, 381.0)),  # fuse: a CPU whose threads have to wake
        ((153.0, 325.0), (557.0, 397.0)),
        ((389.0, 348.0), (264.0, 471.0)),  # a round trip that takes more than the sum of its parts
        ((168.0, 196.0), (392.0, 236.0)),
        ((1028.0, 819.0), (612.0, 884.0)),
        ((247.0, 260.0), (734.0, 287.0)),
    ],
)
def test_a_wrong_model_is_corrected_within_a_few_calls(
    estimates: tuple[float, float], real: tuple[float, float]
) -> None:
    first, better = ("cpu", "cuda") if real[0] > real[1] else ("cuda", "cpu")
    record = Record(first, *estimates)
    sides = play(record, 3000, steady(*real))
    assert sides[0] == first and record.side == better and record.trials == 1
    assert sides[10:] == [better] * 2990


@pytest.mark.parametrize("side", ["cpu", "cuda"])
def test_a_right_model_costs_one_trial_and_a_hopeless_side_none(side: str) -> None:
    near = Record(side, 100.0, 100.0)
    times = {"cpu": 100.0, "cuda": 130.0} if side == "cpu" else {"cpu": 130.0, "cuda": 100.0}
    sides = play(near, 5000, steady(**times))
    assert near.trials == 1 and near.side == side and len(sides) - sides.count(side) == TRIAL
    far = Record(side, *((100.0, 300.0) if side == "cpu" else (300.0, 100.0)))
    assert set(play(far, 5000, steady(100.0, 100.0))) == {side} and far.trials == 0


def test_a_trial_ends_early_where_it_is_hopeless() -> None:
    record = Record("cpu", 100.0, 150.0)
    sides = play(record, 100, steady(100.0, 5000.0))
    assert Counter(sides)["cuda"] == TRIAL - 1 and record.side == "cpu"


def test_a_cold_first_call_decides_nothing() -> None:
    """CUDA's first calls load kernels and lock memory; the CPU's first wakes threads."""

    def took(side: str, k: int) -> float:
        seen[side] += 1
        return 1e6 if seen[side] == 1 else {"cpu": 300.0, "cuda": 200.0}[side]

    for first in ("cpu", "cuda"):
        seen: Counter[str] = Counter()
        record = Record(first, 100.0, 110.0)
        play(record, 20, took)
        assert record.side == "cuda"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("cpu", "cuda"), [(100.0, 105.0), (100.0, 100.0), (105.0, 100.0), (100.0, 125.0)])
def test_noise_does_not_flip(seed: int, cpu: float, cuda: float) -> None:
    draw = random.Random(seed)

    def took(side: str, k: int) -> float:
        disturbed = 5.0 if draw.random() < 0.05 else 1.0
        return (cpu if side == "cpu" else cuda) * math.exp(0.08 * draw.gauss(0, 1)) * disturbed

    record = Record("cpu", 100.0, 100.0)
    sides = play(record, 50_000, took)
    flips = sum(a != b for a, b in pairwise(sides[20:]))
    counted = Counter(sides)
    assert record.trials <= 2 + math.log2(1 + 50_000 / PAUSE) and flips <= 3 * record.trials
    if cuda == 125.0:
        assert record.side == "cpu" and counted["cuda"] <= TRIAL * record.trials


@pytest.mark.parametrize("seed", range(3))
def test_trials_are_bounded_whatever_the_times_are(seed: int) -> None:
    """Times that change all the while, to mislead: a trial at each pause, and the pauses double."""
    draw = random.Random(seed)
    for calls in (100, 1000, 30_000):
        record = Record("cpu", 100.0, 100.0)
        tried = 0
        for _ in range(calls):
            if record.rests():
                continue
            plan = record.plan()
            tried += plan.trial
            if plan.timed:
                record.note(plan, 10 ** draw.uniform(0, 4))
        assert tried <= TRIAL * (1 + math.log2(1 + calls / PAUSE))


def test_a_change_of_times_is_noticed() -> None:
    record = Record("cpu", 100.0, 150.0)
    play(record, 200, steady(100.0, 150.0))
    assert record.side == "cpu" and record.trials == 1
    sides = play(record, 8 * EVERY, steady(400.0, 150.0))  # another program takes the cores
    assert record.side == "cuda" and record.trials == 2 and "cuda" in sides
    play(record, 3 * PAUSE, steady(100.0, 150.0))  # it is over, and the GPU still takes what it took
    assert record.side == "cuda" and record.trials == 2
    play(record, 20 * PAUSE, steady(100.0, 900.0))
    assert record.side == "cpu"


def test_most_settled_calls_are_not_timed() -> None:
    record = Record("cpu", 100.0, 1000.0)
    timed: list[int] = []
    play(record, 10 + 50 * EVERY, lambda side, k: timed.append(k) or 100.0)  # type: ignore[func-returns-value]
    assert timed[:4] == [0, 1, 2, 3] and 48 <= len(timed) - 4 <= 50


def test_a_disturbed_moment_does_not_decide() -> None:
    """The machine is slow while calls of one side are timed: beside those of the other, the truth is seen."""
    record = Record("cpu", 100.0, 130.0)
    sides = play(record, 100, lambda side, k: 600.0 if k < 4 else 100.0 if side == "cpu" else 130.0)
    assert record.side == "cpu" and record.trials == 1 and sides.count("cuda") == TRIAL
    assert record.known().cpu_us == 100.0


def test_calls_that_come_to_nothing_are_tried_again() -> None:
    record = Record("cpu", 100.0, 110.0)
    play(record, 4, steady(100.0, 50.0))
    for _ in range(10):
        plan = record.plan()
        assert plan.trial
        record.give_up(plan)
    play(record, TRIAL, steady(100.0, 50.0))
    assert record.side == "cpu" and record.known()[2:] == (TRIAL, 50.0)
    play(record, TRIAL, steady(100.0, 50.0))  # timed again beside the trial
    assert record.side == "cuda" and record.known() == (4 + TRIAL, 100.0, TRIAL, 50.0)


def test_threads_share_a_trial() -> None:
    record = Record("cpu", 100.0, 110.0)
    play(record, 4, steady(100.0, 50.0))
    plans = [record.plan() for _ in range(8)]
    assert [plan.trial for plan in plans] == [True] * TRIAL + [False] * (8 - TRIAL)
    assert not any(plan.timed for plan in plans[TRIAL:])
    for plan in plans[:TRIAL]:
        record.note(plan, 50.0)
    play(record, TRIAL, steady(100.0, 50.0))
    assert record.side == "cuda"
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda k: play(record, 500, steady(100.0, 50.0)), range(8)):
            pass
    assert record.side == "cuda" and record.trials == 1


def weighed() -> Weighed:
    return Weighed(Workload("resample", 0, 0, 0, ()), Estimates(1, 1, 0, 0, 1, 0))


def test_the_memory_is_bounded_and_drops_what_was_not_used() -> None:
    memory = Memory(8)
    for k in range(8):
        memory.put(k, weighed())
    kept = memory.get(3)
    for k in range(8, 14):
        memory.put(k, weighed())
        assert len(memory) == 8
    assert memory.get(3) is kept and memory.get(0) is None
    assert memory.put(3, weighed()) is kept  # the first one stays
    memory.clear()
    assert len(memory) == 0


# ---- From a call to its record --------------------------------------------------------------------------------------


class Machine:
    """What both sides really take; counts calls by side."""

    def __init__(self, clock: FakeClock, device: FakeDevice, cpu_us: float, gpu_us: float) -> None:
        self.clock, self.device = clock, device
        self.us = {"cpu": cpu_us, "gpu": gpu_us}
        self.calls: Counter[str] = Counter()

    def devoxelize(self, **given: Any) -> torch.Tensor:
        side = "gpu" if given["points"].data_ptr() in self.device.there else "cpu"
        self.calls[side] += 1
        self.clock.pass_us(self.us[side])
        return torch.zeros(1)


@pytest.fixture(name="machine")
def machine_fixture(tuned: Policy, device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The recorded model beside a machine on which the CPU takes 1000 us and the GPU 400 for any call."""
    clock = FakeClock()
    made = Machine(clock, device, 1000.0, 400.0)
    monkeypatch.setattr(_dispatch, "_clock", clock)
    monkeypatch.setattr(_dispatch, "_function", lambda op: made.devoxelize)
    return made


def arguments(size: int = 15_000) -> dict[str, Any]:
    return {
        "grid": torch.rand(10, 10, 10, 2),
        "points": torch.rand(size, 3),
        "voxel_size": 0.1,
        "grid_min": 0.0,
    }


def side_of(given: dict[str, Any], **more: Any) -> str:
    return robocache.explain("devoxelize", **given, **more).choice


def trips_of(device: FakeDevice, calls: int, given: dict[str, Any]) -> int:
    before = len(device.uploads)
    for _ in range(calls):
        robocache.devoxelize(**given)
    return len(device.uploads) - before


def test_calls_correct_the_model(machine: Machine, device: FakeDevice) -> None:
    given = arguments()
    said = robocache.explain("devoxelize", **given)
    assert said.choice == "cpu" and said.measured_cpu_us is None and "measured" not in str(said)
    assert said.gpu_us < 2500  # type: ignore[operator]  (so that the CPU's real time leaves it a chance)
    assert trips_of(device, 4, given) == 0
    assert trips_of(device, 6, given) == 3
    said = robocache.explain("devoxelize", **given)
    assert (said.choice, said.authority) == ("cuda", "file")
    assert said.reason == "the GPU took less when both sides were tried in this process"
    assert str(said).splitlines()[-1] == "  measured: CPU 7 calls 1.00 ms, GPU 3 calls 400.0 us"
    assert (said.measured_cpu_calls, said.measured_gpu_calls) == (7, 3)
    assert said.measured_gpu_us == pytest.approx(400)
    assert trips_of(device, 200, given) == 200


def test_what_was_learned_holds_for_calls_of_its_kind_alone(machine: Machine, device: FakeDevice) -> None:
    given = arguments()
    trips_of(device, 10, given)
    assert side_of(given) == "cuda" and side_of(arguments()) == "cuda"
    assert side_of(arguments(15_001)) == "cpu"
    assert side_of({**given, "grid": given["grid"].double()}) == "cpu"
    with robocache.dispatch(result="device"):
        assert robocache.explain("devoxelize", **given).measured_cpu_calls == 0
    device.locked |= {given["points"].data_ptr()}
    assert robocache.explain("devoxelize", **given).measured_cpu_calls == 0


def test_settled_calls_ask_next_to_nothing(
    machine: Machine, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.us["gpu"] = 3000.0
    given = arguments()
    trips_of(device, 20, given)
    asked: list[int] = []
    decide = Policy.decide
    monkeypatch.setattr(Policy, "decide", lambda *a, **k: asked.append(1) or decide(*a, **k))
    assert trips_of(device, 10 * EVERY, given) == 0
    assert len(asked) <= 11  # the calls that are timed


def test_locked_memory_is_asked_about_where_it_matters(machine: Machine, device: FakeDevice) -> None:
    machine.us["gpu"] = 1100.0
    given = arguments()
    trips_of(device, 20, given)
    assert side_of(given) == "cpu" and trips_of(device, 40, given) == 0
    machine.us["gpu"] = 100.0
    device.locked |= {given["points"].data_ptr()}
    assert trips_of(device, 20, given) > 10  # of another kind now


def test_the_answer_left_there_is_waited_for_in_timed_calls_only(machine: Machine, device: FakeDevice) -> None:
    given = arguments()
    with robocache.dispatch(result="device"):
        for _ in range(8):
            robocache.devoxelize(**given)
        first = device.waits
        assert 5 <= first <= 8
        for _ in range(10 * EVERY):
            robocache.devoxelize(**given)
        assert device.waits - first <= 10
        assert side_of(given) == "cuda"
        device.has_queue = True  # its time would be that of the queue
        before = device.waits
        for _ in range(10 * EVERY):
            robocache.devoxelize(**given)
        assert device.waits == before


def test_learning_is_switched_off_by_context_and_environment(
    machine: Machine, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments()
    with robocache.dispatch(learn=False):
        assert trips_of(device, 30, given) == 0 and side_of(given) == "cpu"
    assert machine.clock.now == 0 and robocache.explain("devoxelize", **given).measured_cpu_calls == 0
    monkeypatch.setattr(settings, "_learn", "0")
    assert trips_of(device, 30, given) == 0 and machine.clock.now == 0
    with robocache.dispatch(learn=True):
        assert trips_of(device, 14, given) == 7 and side_of(given) == "cuda"
        with robocache.dispatch(learn=False, backend="auto"):
            assert side_of(given) == "cpu"  # the model alone
        with robocache.dispatch(backend="auto"):
            assert side_of(given) == "cuda"
    monkeypatch.setattr(settings, "_learn", "perhaps")
    with pytest.raises(ValueError, match="^ROBOCACHE_DISPATCH_LEARN: expected one of '0', '1', got 'perhaps'$"):
        robocache.devoxelize(**arguments(16_000))
    with pytest.raises(TypeError, match="^learn: expected a bool or None, got 1$"):
        robocache.dispatch(learn=1)  # type: ignore[arg-type]


def test_whoever_names_a_side_is_obeyed_and_nothing_is_timed(
    machine: Machine, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments()
    for side, trips in (("cpu", 0), ("cuda", 30)):
        with robocache.dispatch(backend=side):
            assert trips_of(device, 30, given) == trips
        monkeypatch.setattr(settings, "_environment", side)
        _dispatch.refresh()
        assert trips_of(device, 30, given) == trips
        monkeypatch.setattr(settings, "_environment", "")
        _dispatch.refresh()
    for _ in range(30):
        robocache.devoxelize(**given, backend="cpu")
    assert robocache.explain("devoxelize", **given).measured_cpu_calls == 0


def test_nothing_is_tried_on_an_untuned_machine(policy: Policy, device: FakeDevice) -> None:
    given = arguments()
    assert trips_of(device, 30, given) in (0, 30)
    said = robocache.explain("devoxelize", **given)
    assert said.authority == "default" and said.measured_cpu_calls == said.measured_gpu_calls == 0


def test_nothing_is_tried_where_the_gpu_must_not_be_used(
    machine: Machine, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients, tracers, loader workers, captures, a forked child or a busy GPU: on the CPU, without a record."""
    given = arguments()
    leaf = {**given, "points": given["points"].clone().requires_grad_()}
    many = given["points"].reshape(3, 5000, 3)
    rest = {name: value for name, value in given.items() if name != "points"}

    def mapped() -> None:
        torch.vmap(lambda one: robocache.devoxelize(points=one, **rest))(many)

    def calls(change: Callable[[pytest.MonkeyPatch], None], call: Callable[[], Any]) -> None:
        with monkeypatch.context() as patch:
            change(patch)
            for _ in range(3 * EVERY):
                call()
        assert not device.uploads and machine.calls == {}

    calls(lambda patch: None, lambda: robocache.devoxelize(**leaf))
    calls(lambda patch: None, mapped)
    plain = lambda: robocache.devoxelize(**given)  # noqa: E731
    calls(lambda patch: patch.setattr(torch.utils.data, "get_worker_info", lambda: object()), plain)
    calls(lambda patch: patch.setattr(device, "records", True), plain)
    calls(lambda patch: patch.setattr(device, "refusal", "this process was forked"), plain)
    _dispatch.refresh()


def test_a_busy_gpu_is_not_tried(machine: Machine, device: FakeDevice) -> None:
    given = arguments()
    device.has_queue = True
    assert trips_of(device, 30, given) == 0
    device.has_queue = False
    assert trips_of(device, 20, given) >= 15  # the trial was put off


def test_compiled_calls_are_not_timed(machine: Machine, device: FakeDevice) -> None:
    given = arguments()

    @torch.compile(fullgraph=True, backend="eager")
    def compiled(cloud: torch.Tensor) -> torch.Tensor:
        return robocache.devoxelize(**{**given, "points": cloud}) + 1

    for _ in range(3 * EVERY):
        compiled(given["points"])
    assert machine.calls == {} and not device.uploads
    assert robocache.explain("devoxelize", **given).measured_cpu_calls == 0


def test_a_call_that_raises_leaves_no_time(machine: Machine, device: FakeDevice, tuned: Policy) -> None:
    given = arguments()
    trips_of(device, 4, given)
    device.fails = ValueError("the trial fails")
    with pytest.raises(ValueError, match="the trial fails"):
        robocache.devoxelize(**given)
    device.fails = None
    assert robocache.explain("devoxelize", **given).measured_gpu_calls == 0
    trips_of(device, 6, given)
    assert side_of(given) == "cuda"
    points.save(recorded())
    tuned.forget()  # tuning anew begins anew
    assert robocache.explain("devoxelize", **given).measured_cpu_calls == 0


def test_bits_are_the_same_while_sides_change(tuned: Policy, device: FakeDevice, monkeypatch: Any) -> None:
    """The real functions, from several threads, on a clock that makes either side win in turn."""
    monkeypatch.setattr(_dispatch, "_clock", random.Random(1).random)
    given = arguments(6000)
    want = robocache.devoxelize(**given, backend="cpu")

    def work(k: int) -> bool:
        return all(torch.equal(robocache.devoxelize(**given), want) for _ in range(30))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))
