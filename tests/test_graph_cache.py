"""The graph cache's decisions, on a device that the test dictates: keys, order, limits, trials, memory of refusals."""

from __future__ import annotations

import threading
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import robocache
from robocache.graphs import BorrowedOutputError, CUDAGraphCache
from robocache.graphs._key import MAX_TENSORS, substitute

from .graph_fakes import FakeDevice


def make(outputs: str = "clone", **options: Any) -> tuple[CUDAGraphCache, FakeDevice]:
    device = FakeDevice(outputs)
    return CUDAGraphCache(outputs=outputs, _backend=device, **options), device


def double(x: Tensor, scale: Any = 2) -> Tensor:
    return x * scale


def shaped(n: int) -> Tensor:
    return torch.arange(float(n))


def test_the_second_identical_call_is_captured_and_later_ones_replay() -> None:
    cache, device = make(measure_gain=False)
    fast = cache.wrap(double)
    for call in range(5):
        x = torch.rand(8)
        assert torch.equal(fast(x), x * 2)
        assert len(device.alive) == (0 if call == 0 else 1)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.captures, stats.graphs) == (4, 1, 1, 1)


@pytest.mark.parametrize("after", [1, 3])
def test_capture_after_says_which_call_is_captured(after: int) -> None:
    cache, device = make(capture_after=after, measure_gain=False)
    for call in range(1, 5):
        cache(double, shaped(4))
        assert len(device.alive) == int(call >= after)


def test_wrap_call_and_decorator_share_a_functions_graphs() -> None:
    cache, device = make(measure_gain=False)

    @cache.wrap
    def local(x: Tensor) -> Tensor:
        """Words."""
        return x + 1

    local(shaped(4))
    local(shaped(4))
    assert local.__doc__ == "Words." and local.cache is cache  # type: ignore[attr-defined]
    assert torch.equal(cache(local.__wrapped__, shaped(4)), shaped(4) + 1)  # type: ignore[attr-defined]
    assert len(device.alive) == 1 and cache.stats().hits == 2


def test_bound_methods_are_known_by_their_object() -> None:
    class Model:
        def __init__(self, scale: float) -> None:
            self.scale = scale

        def run(self, x: Tensor) -> Tensor:
            return x * self.scale

    cache, device = make(measure_gain=False)
    a, b = Model(2.0), Model(3.0)
    for _ in range(3):
        assert torch.equal(cache(a.run, shaped(4)), shaped(4) * 2)
        assert torch.equal(cache(b.run, shaped(4)), shaped(4) * 3)
    assert len(device.alive) == 2


Pair = namedtuple("Pair", "a b")


@dataclass(frozen=True, eq=False)
class Box:
    tensor: Tensor
    word: str = "one"


def tree(value: Any, extra: Any = None) -> Any:
    def sums(v: Any) -> list[Tensor]:
        if isinstance(v, Tensor):
            return [v.double().sum()]
        if isinstance(v, Box):
            return sums(v.tensor)
        items = v.values() if isinstance(v, dict) else v if isinstance(v, (tuple, list)) else ()
        return [s for item in items for s in sums(item)]

    return torch.stack(sums((value, extra)))


def x() -> Tensor:
    return torch.ones(2, 3)


ALIKE = {
    "tensor": (lambda: ((x(),), {})),
    "tuple": (lambda: (((x(), x()),), {})),
    "list": (lambda: (([x(), 1, None],), {})),
    "dict": (lambda: (({"a": x(), "b": [x()]},), {})),
    "named tuple": (lambda: ((Pair(x(), 2),), {})),
    "dataclass": (lambda: ((Box(x()),), {})),
    "stream": (lambda: ((x(),), {"extra": robocache.Stream(x()[None], torch.arange(2.0), kind="nearest")})),
    "constants": (lambda: ((x(), ("word", 1.5, True, 2**80, None, torch.float16, slice(0, 2).__class__)), {})),
    "keyword": (lambda: ((x(),), {"extra": 3})),
    "parameter": (lambda: ((torch.nn.Parameter(x(), requires_grad=False),), {})),
}


@pytest.mark.parametrize("name", ALIKE)
def test_equal_structures_are_one_key(name: str) -> None:
    cache, device = make(measure_gain=False)
    for _ in range(3):
        args, kwargs = ALIKE[name]()
        cache(tree, *args, **kwargs)
    assert len(device.alive) == 1, cache.stats()
    assert cache.stats().hits == 2


@pytest.mark.parametrize("name", [n for n in ALIKE if n != "constants"])
def test_substitute_walks_tensors_in_the_order_of_the_signature(name: str) -> None:
    cache, _ = make()
    args, kwargs = ALIKE[name]()
    sighting = cache._look(tree, args, kwargs)
    fresh = [torch.full_like(t, float(i)) for i, t in enumerate(sighting.tensors)]
    supply = iter(fresh)
    again = cache._look(tree, substitute(args, supply), substitute(kwargs, supply))
    assert next(supply, None) is None
    assert [a is b for a, b in zip(again.tensors, fresh, strict=True)] == [True] * len(fresh)


DIFFERENT = {
    "shape": lambda: ((torch.ones(3, 2),), {}),
    "dtype": lambda: ((torch.ones(2, 3, dtype=torch.float64),), {}),
    "strides": lambda: ((torch.ones(3, 2).t(),), {}),
    "structure": lambda: (((x(),),), {}),
    "list for tuple": lambda: (([x()],), {}),
    "one more": lambda: ((x(), 1), {}),
    "one more, a float": lambda: ((x(), 1.0), {}),
    "one more, a bool": lambda: ((x(), True), {}),
    "another string": lambda: ((x(), "a"), {}),
    "by keyword": lambda: ((), {"value": x()}),
    "another class": lambda: ((Box(x()),), {}),
    "another field": lambda: ((Box(x(), "two"),), {}),
    "another key": lambda: (({"b": x()},), {}),
}


def test_whatever_differs_is_another_key() -> None:
    cache, device = make(measure_gain=False)
    calls = {"plain": lambda: ((x(),), {}), **DIFFERENT}
    for _ in range(2):
        for call in calls.values():
            args, kwargs = call()
            cache(tree, *args, **kwargs)
    assert len(device.alive) == len(calls) and cache.stats().hits == len(calls)


def test_changed_constants_give_their_own_results() -> None:
    cache, _ = make(measure_gain=False)
    for _ in range(3):
        for scale in (2, 2.5, True, 3):
            assert torch.equal(cache(double, shaped(4), scale), shaped(4) * scale)
            assert torch.equal(cache(double, shaped(4), scale=scale), shaped(4) * scale)


def test_modes_are_part_of_the_key() -> None:
    cache, device = make(measure_gain=False)

    def call() -> None:
        cache(double, shaped(4))

    for _ in range(2):
        call()
        for mode in (torch.no_grad(), torch.inference_mode()):
            with mode:
                call()
        before = torch.backends.cudnn.benchmark
        try:
            torch.backends.cudnn.benchmark = not before
            call()
        finally:
            torch.backends.cudnn.benchmark = before
        torch.use_deterministic_algorithms(True)
        try:
            call()
        finally:
            torch.use_deterministic_algorithms(False)
    assert len(device.alive) == 5


def test_the_graph_used_longest_ago_goes_first() -> None:
    cache, device = make(max_graphs=2, measure_gain=False)
    a, b, c = shaped(2), shaped(3), shaped(4)
    for t in (a, a, b, b):
        cache(double, t)
    cache(double, a)  # now b is the oldest
    cache._budget.eager_us = 1e9  # a capture beyond the first two is paid for
    cache(double, c)
    cache(double, c)
    assert cache.stats().evictions == 1
    assert sorted(k.arguments for k in cache.stats().keys) == ["float32[2]", "float32[4]"]
    assert len(device.alive) == 2
    assert torch.equal(cache(double, b), b * 2) and len(device.alive) == 2  # new again


def test_an_evicted_graph_in_flight_is_freed_when_it_has_passed() -> None:
    cache, device = make(max_graphs=1, measure_gain=False)
    for _ in range(2):
        cache(double, shaped(2))
    busy = device.alive[0]
    busy.in_flight = True
    cache._budget.eager_us = 1e9
    for _ in range(2):
        cache(double, shaped(3))
    assert busy in device.alive and cache.stats().evictions == 1
    assert cache.stats().bytes == 2000  # it still holds its memory, and the report says so
    busy.in_flight = False
    assert cache.stats().bytes == 1000 and busy in device.freed


def test_bytes_are_capped_and_a_graph_that_can_never_fit_is_refused() -> None:
    cache, device = make(max_bytes=2500, measure_gain=False)
    for n in (2, 3, 4):
        for _ in range(2):
            cache(double, shaped(n))
    assert len(device.alive) == 2 and cache.stats().bytes == 2000 and cache.stats().evictions == 1
    device.graph_bytes = 9999
    for _ in range(4):
        assert torch.equal(cache(double, shaped(5)), shaped(5) * 2)
    stats = cache.stats()
    assert stats.bytes == 2000 and stats.evictions == 1 and stats.captures == 4
    assert [k.reason for k in stats.keys if k.state == "off"] == ["9999 bytes do not fit into max_bytes=2500"]


def test_pinned_graphs_stay() -> None:
    cache, device = make(max_graphs=2, measure_gain=False)
    assert cache.pin(double, shaped(2)) and cache.pin(double, shaped(3))
    pinned = list(device.alive)
    cache._budget.eager_us = 1e9
    for _ in range(3):
        assert torch.equal(cache(double, shaped(4)), shaped(4) * 2)
    assert device.alive == pinned and all(k.pinned for k in cache.stats().keys)
    cache.unpin(double, shaped(2))
    for _ in range(40):
        cache(double, shaped(4))
    assert sorted(k.arguments for k in cache.stats().keys) == ["float32[3]", "float32[4]"]


def test_prewarm_captures_before_the_first_call() -> None:
    cache, device = make(measure_gain=False)
    assert cache.prewarm(double, shaped(4)) and device.warmed == 1 and len(device.alive) == 1
    assert cache.prewarm(double, shaped(4)) and len(device.alive) == 1
    assert torch.equal(cache(double, shaped(4)), shaped(4) * 2) and cache.stats().hits == 1
    assert not cache.prewarm(double, 3) and cache.stats().bypasses == {"no tensor argument": 1}


def test_a_failed_capture_is_remembered_with_its_reason() -> None:
    cache, _ = make(measure_gain=False)
    calls = 0

    def odd(x: Tensor) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("not while capturing")
        return x + 1

    for _ in range(6):
        assert torch.equal(cache(odd, shaped(4)), shaped(4) + 1)
    stats = cache.stats()
    assert (stats.captures, stats.failures, stats.graphs, stats.misses, stats.off) == (0, 1, 0, 2, 4)
    (key,) = stats.keys
    assert key.state == "failed" and key.reason == "RuntimeError: not while capturing"
    assert calls == 7  # six calls and one capture


def test_an_exception_of_the_function_itself_reaches_the_caller() -> None:
    cache, _ = make(measure_gain=False)

    def broken(x: Tensor) -> Tensor:
        raise KeyError("mine")

    for _ in range(3):
        with pytest.raises(KeyError, match="mine"):
            cache(broken, shaped(2))


@pytest.mark.parametrize("result", [{1, 2}, object(), Box(torch.ones(1))], ids=["set", "object", "dataclass"])
def test_results_that_a_replay_could_not_give_are_refused(result: Any) -> None:
    cache, _ = make(measure_gain=False)
    for _ in range(3):
        assert cache(lambda x: result, shaped(2)) is result
    for _ in range(3):
        fn = _constant(result)
        assert cache(fn, shaped(2)) is result
    assert any("it returns a" in k.reason for k in cache.stats().keys)


_made: dict[int, Any] = {}


def _constant(result: Any) -> Any:
    return _made.setdefault(id(result), lambda x: result)


def test_results_keep_their_structure() -> None:
    cache, _ = make(measure_gain=False)

    def fn(x: Tensor) -> Any:
        return {"a": x + 1, "b": [x, (x * 2, 3, "word", None)], "c": Pair(x, 1.5)}

    for _ in range(4):
        got, want = cache(fn, shaped(3)), fn(shaped(3))
        torch.testing.assert_close(got["a"], want["a"])
        assert list(got) == ["a", "b", "c"] and type(got["c"]) is Pair and got["c"].b == 1.5
        assert got["b"][1][1:] == (3, "word", None) and torch.equal(got["b"][1][0], want["b"][1][0])


def test_a_trial_takes_turns_and_keeps_what_is_faster() -> None:
    cache, _ = make()
    for _ in range(2 + 8):
        assert torch.equal(cache(double, shaped(4)), shaped(4) * 2)
    stats = cache.stats()
    assert stats.hits == 1 + 4 and stats.misses == 1 + 4 and stats.keys[0].state == "trial"
    cache(double, shaped(4))
    (key,) = cache.stats().keys
    assert key.state == "on" and key.eager_us == 100.0 and key.replay_us == 20.0 and key.gain == 5.0
    assert cache.stats().saved_us == 80.0 * key.hits


@pytest.mark.parametrize(
    ("eager", "replay", "state"),
    [
        ((100.0, 50.0), (10.0, 50.0), "on"),  # the host was the bottleneck
        ((20.0, 500.0), (8.0, 501.0), "off"),  # the device is, and a replay does not shorten its work
        ((20.0, 500.0), (8.0, 300.0), "on"),  # gaps between kernels go
        ((8.0, 7.0), (8.0, 9.0), "off"),
        ((10.0, 10.0), (9.8, 9.8), "off"),  # within min_gain
    ],
)
def test_a_gain_is_what_a_stream_of_calls_gains(eager: Any, replay: Any, state: str) -> None:
    cache, device = make()
    device.eager, device.replayed = eager, replay
    for _ in range(12):
        assert torch.equal(cache(double, shaped(4)), shaped(4) * 2)
    (key,) = cache.stats().keys
    assert key.state == state
    assert len(device.alive) == (state == "on")
    if state == "off":
        assert key.reason.startswith("eager takes") and key.bytes == 0
        before = cache.stats()
        for _ in range(50):
            cache(double, shaped(4))
        after = cache.stats()
        assert after.off - before.off == 50 and after.captures == before.captures == 1


def test_a_trial_never_waits_for_the_device() -> None:
    cache, device = make()
    device.passed = False
    for _ in range(30):
        cache(double, shaped(4))
    assert cache.stats().keys[0].state == "trial"
    device.passed = True
    cache(double, shaped(4))
    assert cache.stats().keys[0].state == "on"


def test_inputs_that_stay_are_read_in_place_and_others_are_copied() -> None:
    cache, device = make(measure_gain=False)
    weight = shaped(4)

    def fn(x: Tensor, w: Tensor) -> Tensor:
        return x * w

    held = [torch.rand(4) for _ in range(6)]
    for x in held:
        assert torch.equal(cache(fn, x, weight), x * weight)
    assert device.alive[0].in_place == [False, True] and cache.stats().captures == 1
    weight.add_(1)  # new values at the old place
    assert torch.equal(cache(fn, held[0], weight), held[0] * weight)
    other = shaped(4) + 7
    for _ in range(3):
        assert torch.equal(cache(fn, held[0], other), held[0] * other)
    assert device.alive[0].in_place == [False, False] and cache.stats().captures == 2 and len(device.alive) == 1


def test_more_shapes_than_the_cache_holds_do_not_thrash() -> None:
    cache, _ = make(max_graphs=4, measure_gain=False)
    for _ in range(50):
        for n in range(1, 13):
            assert torch.equal(cache(double, shaped(n)), shaped(n) * 2)
    stats = cache.stats()
    assert stats.graphs == 4
    # 12 keys a lap, 4 of them held. Captures beyond the first 4 are paid from earnings only.
    assert cache._budget.spent_us <= 0.03 * cache._budget.eager_us * (stats.misses / max(cache._budget.eager_calls, 1))


def test_ten_thousand_shapes_leave_nothing_behind() -> None:
    cache, _ = make(max_graphs=4, measure_gain=False)
    base = torch.zeros(101, 101)
    for n in range(10_000):
        view = base[: n // 100 + 1, : n % 100 + 1]
        assert cache(double, view).shape == view.shape
    stats = cache.stats()
    assert stats.captures == 0 and stats.misses == 10_000 and cache._table.size == 0 and len(cache._functions) == 1


def test_a_function_that_never_repeats_is_looked_at_in_bursts_and_wakes_up() -> None:
    cache, device = make(measure_gain=False)
    for n in range(1, 400):
        cache(double, shaped(n))
    before = cache.stats().misses
    for _ in range(2000):  # a shape that stays, after many that did not
        assert torch.equal(cache(double, shaped(7)), shaped(7) * 2)
    stats = cache.stats()
    assert before == 399 and len(device.alive) == 1
    assert stats.hits + stats.misses == 2399 and stats.hits > 1400


def test_prewarm_wakes_a_function_that_is_looked_at_in_bursts() -> None:
    cache, _ = make(measure_gain=False)
    for n in range(1, 300):
        cache(double, shaped(n))
    assert cache.prewarm(double, shaped(7))
    cache(double, shaped(7))
    assert cache.stats().hits == 1


def test_functions_made_anew_each_time_are_not_kept_forever() -> None:
    cache, _ = make()
    for _ in range(1500):
        cache(lambda x: x, shaped(2))
    assert len(cache._functions) <= 1025 and cache.stats().captures == 0


def test_refused_keys_are_bounded() -> None:
    cache, _ = make(max_graphs=2000, measure_gain=False)

    def bad(x: Tensor, n: int) -> Any:
        return {n}

    for n in range(1100):
        for _ in range(2):
            cache(bad, shaped(2), n)
    assert len(cache._records.refused) <= 1024 and cache._table.size <= 1024


def test_clear_frees_everything_and_starts_over() -> None:
    cache, device = make(max_graphs=8, measure_gain=False)
    for n in range(1, 5):
        for _ in range(2):
            cache(double, shaped(n))
    device.alive[0].in_flight = True
    cache.clear()
    stats = cache.stats()
    assert device.alive == [] and len(device.freed) == 4
    assert (stats.graphs, stats.bytes, stats.keys) == (0, 0, ()) and stats.captures == 4
    assert cache._table.size == 0
    for _ in range(3):
        assert torch.equal(cache(double, shaped(2)), shaped(2) * 2)
    assert len(device.alive) == 1


def test_a_borrowed_output_that_was_overwritten_is_refused_as_input() -> None:
    cache, _ = make("borrow", measure_gain=False)

    def step(x: Tensor) -> Tensor:
        return x + 1

    a = shaped(4)
    cache(step, a)
    first = cache(step, a)
    assert torch.equal(cache(double, first), first * 2)  # still what it was
    kept = first.clone()
    second = cache(step, a * 10)
    assert torch.equal(second, a * 10 + 1) and torch.equal(kept, a + 1)
    for stale in (first, first[:4]):
        with pytest.raises(
            BorrowedOutputError, match=r"tensor argument 0 is an output of .*step, lent at replay 1; re"
        ):
            cache(double, stale)
    assert torch.equal(cache(double, second), (a * 10 + 1) * 2)


def test_bypasses_are_counted_by_reason() -> None:
    cache, device = make(measure_gain=False)
    wanted = {"gradient": 0, "vmap or functorch": 0, "mode": 0, "tracing": 0}
    leaf = shaped(4).requires_grad_()
    for _ in range(3):
        cache(double, leaf).sum().backward()
        wanted["gradient"] += 1
    assert torch.equal(leaf.grad, torch.full((4,), 6.0))  # type: ignore[arg-type]
    with torch.no_grad():
        for _ in range(3):
            cache(double, leaf)
    assert len(device.alive) == 1
    out = torch.func.vmap(cache.wrap(double))(torch.rand(3, 4))
    assert out.shape == (3, 4)
    wanted["vmap or functorch"] += 1

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    with Mode():
        cache(double, shaped(4))
    wanted["mode"] += 1
    torch.jit.trace(cache.wrap(double), shaped(4), check_trace=False)
    got = cache.stats().bypasses
    wanted["tracing"] = got["tracing"]
    assert wanted["tracing"] >= 1 and got == wanted


class Sub(Tensor):
    pass


@pytest.mark.parametrize(
    ("reason", "args"),
    [
        ("subclass", lambda: (torch.ones(2).as_subclass(Sub),)),
        ("unhashable argument", lambda: (torch.ones(2), {1, 2})),
        ("no tensor argument", lambda: (3, 4)),
        ("unsupported tensor", lambda: (torch.ones(2, 2).to_sparse(),)),
        ("unsupported tensor", lambda: (torch.ones(2, dtype=torch.complex64),)),
    ],
)
def test_arguments_that_no_key_can_hold_are_left_alone(reason: str, args: Any) -> None:
    cache, device = make(measure_gain=False)
    for _ in range(3):
        cache(lambda *a: None, *args())
        cache(_nothing, *args())
    assert cache.stats().bypasses == {reason: 6} and device.alive == []


def _nothing(*args: Any) -> None:
    return None


def test_compiled_code_holds_the_function_alone() -> None:
    cache, device = make(measure_gain=False)
    fast = cache.wrap(double)

    def user(x: Tensor) -> Tensor:
        return fast(x) + cache(double, x)

    compiled = torch.compile(user, backend="eager", fullgraph=True)
    for _ in range(3):
        assert torch.equal(compiled(shaped(4)), shaped(4) * 4)
    assert device.alive == [] and cache.stats().bypasses == {"torch.compile": 2}


def test_threads_share_a_cache() -> None:
    cache, device = make(max_graphs=3, measure_gain=False)
    problems: list[str] = []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(150):
            n = int(torch.randint(1, 7, (), generator=generator))
            x = torch.rand(n, generator=generator)
            if not torch.equal(cache(double, x), x * 2):
                problems.append(f"{seed}: {n}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = cache.stats()
    assert problems == [] and stats.hits + stats.misses + stats.off == 600 and len(device.alive) <= 3


def test_the_report_reads() -> None:
    cache, device = make(max_bytes=1 << 20)
    for _ in range(12):
        cache(double, shaped(4))
    device.replayed = (200.0, 200.0)
    for _ in range(12):
        cache(double, shaped(5))
    cache(double, shaped(4).requires_grad_())
    text = str(cache.stats())
    lines = text.splitlines()
    assert lines[0].startswith("CUDA graph cache: 25 calls, ") and "1 left alone" in lines[0]
    assert "1 of 32 graphs" in lines[1] and "2 captures" in lines[1]
    assert lines[2] == "left alone: 1 x gradient"
    assert any("double" in line and "on" in line and "5.00x" in line and "float32[4]" in line for line in lines)
    assert any("off" in line and "eager takes 100.0 us, a replay 200.0 us" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"outputs": "lend"}, r"outputs: expected 'clone', 'borrow' or 'ring', got 'lend'"),
        ({"max_graphs": 0}, r"max_graphs: expected an int of 1 or more, got 0"),
        ({"ring": 0}, r"ring: expected"),
        ({"capture_after": 0}, r"capture_after: expected"),
        ({"max_bytes": -1}, r"max_bytes: expected None or an int of 0 or more, got -1"),
        ({"min_gain": 0}, r"min_gain: expected more than 0, got 0"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CUDAGraphCache(**options)


def test_what_is_no_function_is_named() -> None:
    with pytest.raises(TypeError, match="fn: expected a callable, got int"):
        CUDAGraphCache()(3)  # type: ignore[arg-type]


def test_on_cpu_tensors_everything_runs_eagerly_with_the_reason_cpu() -> None:
    cache = CUDAGraphCache()
    values, times, targets = torch.rand(2, 9, 3), torch.arange(9.0), torch.tensor([0.5, 3.25])

    @robocache.cuda_graph(cache=cache)
    def batch(values: Tensor, times: Tensor, targets: Tensor) -> Tensor:
        return robocache.resample_trajectories(values, times, targets).mean(1)

    want = robocache.resample_trajectories(values, times, targets).mean(1)
    for _ in range(4):
        assert torch.equal(batch(values, times, targets), want)
    stats = cache.stats()
    assert stats.bypasses == {"cpu": 4} and stats.captures == stats.hits == 0
    assert "left alone: 4 x cpu" in str(stats)
    assert not cache.prewarm(batch, values, times, targets)


def test_there_is_one_cache_of_the_process() -> None:
    assert robocache.graph_cache() is robocache.graph_cache()
    decorated = robocache.cuda_graph(_nothing)
    assert decorated.cache is robocache.graph_cache()  # type: ignore[attr-defined]
    assert decorated(torch.ones(2)) is None
    assert MAX_TENSORS == 64
