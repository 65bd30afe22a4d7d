"""A DataLoader that was disturbed: batches over many pools, interrupts, errors and retries, other threads, forks."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from robocache import StarvationMeter
from robocache.datasets import DatasetError
from robocache.datasets._work import count_samples
from robocache.loader.feed import Feed
from robocache.loader.producer import PoolProducer
from robocache.loader.workers import Workers
from robocache.store.windows import WindowPlan

from .recordings import Faulty, frames_only, recordings
from .test_loader_batches import FRAMES, anchors_of, epoch_of, every_anchor, loader_of

SOON = 20  # seconds in which what does not hang is long done


def ended(call: Callable[[], Any]) -> Any:
    """What the call gives, from a thread of its own; a failure where it does not come back."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SOON)
    assert not thread.is_alive(), "it hangs"
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


# ---- Batches over many pools ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [None, ["camera"]], ids=["vectors", "images"])
@pytest.mark.parametrize("prefetch", [1, 2])
def test_a_batch_may_span_more_pools_than_there_are_buffers(prefetch: int, images: Any) -> None:
    dataset = Faulty(recordings(FRAMES), camera=True)
    loader = loader_of(dataset, 100, pool_bytes=1, prefetch=prefetch, drop_last=False, images=images)
    assert len(loader._order.pools(0)) == sum(n > 0 for n in FRAMES)
    for _ in range(2):
        batches = ended(lambda: epoch_of(loader))
        assert [len(batch) for batch in batches] == [100, 100, 28]
        assert sorted(a for batch in batches for a in batch) == every_anchor(dataset)
    memory = loader.memory()
    assert memory["device"] > (prefetch + 1) << 20 and memory["host_peak"] <= memory["host_bound"]
    loader.close()


# ---- Interrupts and retries ----------------------------------------------------------------------------------------


def interrupt(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, at: int) -> list[int]:
    """Ctrl-C in this thread's call number `at` of a method, once, behind what the method does where `at` is even."""
    original, main, calls = getattr(owner, name), threading.current_thread(), []

    def call(*arguments: Any, **options: Any) -> Any:
        if threading.current_thread() is main:
            calls.append(len(calls) + 1)
            if calls[-1] == at:
                if at % 2 == 0:
                    original(*arguments, **options)
                raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, call)
    return calls


def content_of(batch: Any) -> Any:
    return anchors_of(batch), batch.images["camera"][:, 0, 0, 0, :2].tolist(), batch.values.nan_to_num().tolist()


def assert_images_fit(batch: Any) -> None:
    shown = batch.images["camera"][:, 0, 0, 0, :2].tolist()
    assert shown == [list(anchor) for anchor in anchors_of(batch)]


@pytest.mark.parametrize(
    ("owner", "name", "at"),
    [
        *((Future, "result", at) for at in (7, 8)),
        *((PoolProducer, "take", at) for at in (3, 4)),
        *((PoolProducer, "release", at) for at in (1, 2)),
        (WindowPlan, "bind", 2),
        (Feed, "given", 4),
        (StarvationMeter, "add", 4),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_an_interrupt_anywhere_costs_no_sample_and_mixes_none(
    owner: type, name: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Faulty(recordings(FRAMES), camera=True)
    with loader_of(dataset, images=["camera"]) as one:
        want = [content_of(batch) for batch in one]
    with loader_of(dataset, images=["camera"]) as two:
        got = [content_of(next(two))]
        calls = interrupt(monkeypatch, owner, name, at)
        with pytest.raises(KeyboardInterrupt):
            for batch in two:
                got.append(content_of(batch))  # noqa: PERF401 - what came before the interrupt counts
        assert len(got) < len(want) and len(calls) == at
        assert two.state_dict()["position"] == 8 * len(got)
        got += [content_of(batch) for batch in two]
        assert got == want and two.epoch == 1


def test_an_interrupt_of_what_follows_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Faulty(recordings(FRAMES), camera=True)
    with loader_of(dataset, images=["camera"]) as one:
        want = [content_of(batch) for batch in one]
    running = threading.active_count()
    with loader_of(dataset, images=["camera"]) as two:
        got = [content_of(next(two)) for _ in range(5)]
        interrupt(monkeypatch, Feed, "given", 1)
        for owner, name in ((ThreadPoolExecutor, "shutdown"), (PoolProducer, "start"), (PoolProducer, "close")):
            interrupt(monkeypatch, owner, name, 1)
        interrupted = 0
        while len(got) < len(want):
            try:
                got.append(content_of(next(two)))
            except KeyboardInterrupt:
                interrupted += 1
        assert got == want and interrupted == 4
    assert threading.active_count() == running


def test_an_error_while_decoding_stays_with_its_step() -> None:
    dataset = Faulty(recordings(FRAMES), camera=True)
    dataset.bad_pictures = {1}  # one frame: one step alone shows it
    with loader_of(dataset, images=["camera"]) as loader:
        for _ in range(3):
            with pytest.raises(DatasetError, match="episode 1.*moov atom"):
                for batch in loader:
                    assert_images_fit(batch)
                    given = loader.state_dict()
        assert loader.state_dict() == given


@pytest.mark.parametrize("images", [None, ["camera"]], ids=["vectors", "images"])
def test_a_batch_whose_transform_raises_comes_again(images: Any) -> None:
    dataset = Faulty(recordings(FRAMES), camera=True)
    calls = []

    def transform(batch: Any) -> Any:
        calls.append(anchors_of(batch))
        if len(calls) % 2:
            raise ZeroDivisionError
        if images:
            assert_images_fit(batch)
        return calls[-1]

    with loader_of(dataset, images=images) as whole:
        want = epoch_of(whole)
    with loader_of(dataset, images=images, transform=transform) as loader:
        for number, expected in enumerate(want):
            with pytest.raises(ZeroDivisionError):
                next(loader)
            assert loader.state_dict()["position"] == 8 * number
            assert next(loader) == expected == calls[-2]
            assert loader.meter.steps == number + 1


def test_a_transform_may_move_the_loader() -> None:
    with loader_of(recordings(FRAMES)) as loader:
        loader.transform = lambda batch: (loader.set_epoch(2), anchors_of(batch))[1]
        first = next(loader)
        assert (loader.epoch, loader.state_dict()["position"]) == (2, 0)
        loader.transform = None
        assert epoch_of(loader)[0] != first and loader.epoch == 3


# ---- Other threads and forks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [0, 1], ids=["in its first next()", "later"])
def test_closing_ends_a_wait_in_another_thread(asked: int) -> None:
    dataset = Faulty(recordings(FRAMES))
    loader = loader_of(dataset, pool_bytes=1, workers=1, prefetch=1)
    for _ in range(asked):
        next(loader)
    dataset.seconds = 0.3  # an episode
    failures: list[BaseException] = []

    def consume() -> None:
        try:
            while True:
                next(loader)
        except BaseException as error:
            failures.append(error)

    consumer = threading.Thread(target=consume, daemon=True)
    consumer.start()
    time.sleep(0.1)
    ended(loader.close)
    consumer.join(SOON)
    assert not consumer.is_alive()
    assert [(type(error), str(error)) for error in failures] == [(RuntimeError, "the DataLoader is closed")]


@pytest.mark.parametrize("images", [None, ["camera"]], ids=["vectors", "images"])
def test_threads_share_an_epoch(images: Any) -> None:
    dataset = Faulty(recordings(FRAMES), camera=True)
    options = {"images": images, "drop_last": False, "pool_bytes": 20_000}
    with loader_of(dataset, 3, **options) as whole:
        want = epoch_of(whole)
    taken: list[list[Any]] = [[], [], []]
    left = threading.Semaphore(len(want))

    def consume(mine: list[Any]) -> None:
        while left.acquire(blocking=False):
            batch = next(loader)
            if images:
                assert_images_fit(batch)
            mine.append(anchors_of(batch))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with loader_of(dataset, 3, **options) as loader:
            threads = [threading.Thread(target=consume, args=(mine,), daemon=True) for mine in taken]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(SOON)
    finally:
        sys.setswitchinterval(before)
    assert sorted(batch for mine in taken for batch in mine) == sorted(want)


def forked(call: Callable[[], Any]) -> str:
    """What the call gives or raises in a fork of this process."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of forks of a process with threads, which are meant here
        child = os.fork()
    if child == 0:
        signal.alarm(SOON)
        try:
            words = repr(call())
        except BaseException as error:
            words = f"{type(error).__name__}: {error}"
        os.write(write, words.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        words = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0, "it hangs"
    return words


def test_a_fork_is_told_that_the_loader_runs_elsewhere() -> None:
    with loader_of(recordings(FRAMES)) as loader:
        want = epoch_of(loader)
        loader.set_epoch(0)
        got = [anchors_of(next(loader))]
        words = f"RuntimeError: the DataLoader runs in process {os.getpid()}, and this one, "
        for call in (lambda: next(loader), lambda: loader.set_epoch(3), loader.state_dict):
            assert forked(call).startswith(words)
        assert forked(loader.close) == "None"
        assert got + epoch_of(loader) == want


def test_workers_start_anew_in_a_fork() -> None:
    workers = Workers(frames_only((3, 4)), 1, "thread")
    assert workers.submit(count_samples, None, [0]).result() == [[3]]
    assert forked(lambda: (workers.submit(count_samples, None, [1]).result(), workers.close())) == "([[4]], None)"
    assert forked(workers.close) == "None"
    workers.close()
