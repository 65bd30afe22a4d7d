"""A DataLoader that was disturbed: batches over many pools, interrupts, errors and retries, other threads, forks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from .recordings import Faulty, recordings
from .test_loader_batches import FRAMES, epoch_of, every_anchor, loader_of

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
