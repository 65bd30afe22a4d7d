"""The keys of a cache and their memory: what is held, what goes, and when it is freed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ._device import Captured
from ._policy import Gain, Trial

WATCHED, ON, OFF = 0, 1, 2  # State of csrc/python/graph_entry.h
MAX_REFUSED = 1024  # keys remembered as off or failed


@dataclass
class Function:
    """One wrapped function."""

    number: int
    fn: Callable[..., Any]
    name: str
    call: Callable[..., Any] | None = None
    keys: int = 0


@dataclass(eq=False)
class Record:
    """One key."""

    function: Function
    entry: Any  # native GraphEntry
    hash: int
    arguments: str
    state: str = "trial"
    reason: str = ""
    captured: Captured | None = None
    trial: Trial | None = None
    gain: Gain | None = None
    pinned: bool = False
    moving: set[int] = field(default_factory=set)  # inputs that did not stay where they were
    captures: int = 1
    generation: int = 0  # replays whose outputs were lent

    @property
    def bytes(self) -> int:
        return 0 if self.captured is None else self.captured.bytes


class Records:
    """All keys of a cache. Its lock is held by whoever calls."""

    def __init__(self, table: Any, max_graphs: int, max_bytes: int | None, capture_after: int) -> None:
        self._table = table
        self.max_graphs, self.max_bytes, self._capture_after = max_graphs, max_bytes, capture_after
        self.live: dict[Any, Record] = {}  # by native entry
        self.refused: OrderedDict[Any, Record] = OrderedDict()
        self.leaving: list[Captured] = []  # evicted, with replays still in flight
        self.evictions = 0
        self._saved_us = 0.0  # by keys that are gone

    def refuse(self, record: Record, state: str, reason: str) -> None:
        """The key runs eagerly from now on, and is remembered among others of its kind."""
        self.let_go(record)
        record.state, record.reason, record.trial = state, reason, None
        record.entry.state = OFF
        self.live.pop(record.entry, None)
        self.refused[record.entry] = record
        if len(self.refused) > MAX_REFUSED:
            _, old = self.refused.popitem(last=False)
            self.drop(old)

    def held_bytes(self) -> int:
        return sum(record.bytes for record in self.live.values()) + sum(captured.bytes for captured in self.leaving)

    def make_room(self) -> bool:
        """Room for one more graph; False when all are pinned."""
        while len(self.live) >= self.max_graphs:
            if not self._evict(None):
                return False
        return True

    def over_bytes(self, record: Record) -> bool:
        """Evicts others until the limit holds; True when `record` itself cannot stay."""
        if self.max_bytes is None:
            return False
        while sum(r.bytes for r in self.live.values()) > self.max_bytes:
            if record.bytes > self.max_bytes or not self._evict(record):
                self.refuse(record, "off", f"{record.bytes} bytes do not fit into max_bytes={self.max_bytes}")
                return True
        return False

    def _evict(self, keep: Record | None) -> bool:
        """Drops the graph that was used longest ago."""
        candidates = [r for r in self.live.values() if not r.pinned and r is not keep]
        if not candidates:
            return False
        victim = min(candidates, key=lambda r: r.entry.last_use)
        del self.live[victim.entry]
        self.evictions += 1
        self.let_go(victim)
        self.drop(victim)
        return True

    def drop(self, record: Record) -> None:
        """Forgets a key; it is new when it comes again."""
        if record.gain is not None:
            self._saved_us += record.entry.hits * max(record.gain.saved_us, 0.0)
        record.function.keys -= 1
        self._table.erase(record.entry)
        self._table.snooze(record.hash, self._capture_after)

    def let_go(self, record: Record) -> None:
        """Frees a record's graph now if it is idle, else when its last replay has passed."""
        captured, record.captured = record.captured, None
        if captured is None:
            return
        record.entry.retire()
        if captured.idle():
            captured.free()
        else:
            self.leaving.append(captured)

    def sweep(self) -> None:
        """Frees what has become idle since it was let go."""
        waiting, self.leaving = self.leaving, []
        for captured in waiting:
            if captured.idle():
                captured.free()
            else:
                self.leaving.append(captured)

    def saved(self) -> float:
        live = (r.entry.hits * max(r.gain.saved_us, 0.0) for r in self.live.values() if r.gain is not None)
        return self._saved_us + sum(live)

    def clear(self) -> None:
        """Forgets every key, waits for replays in flight and frees all."""
        for record in [*self.live.values(), *self.refused.values()]:
            if record.captured is not None:
                record.entry.retire()
                record.captured.free()
                record.captured = None
            self.drop(record)
        for captured in self.leaving:
            captured.free()
        self.live.clear()
        self.refused.clear()
        self.leaving.clear()
