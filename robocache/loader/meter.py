"""What each step waited for: disk, decode, copy or align, in milliseconds."""

from __future__ import annotations

import time
from collections import deque
from threading import Lock
from typing import Any

PARTS = ("disk", "decode", "copy", "align")


class Timeline:
    """What the background is busy with, as moments of change; another thread asks what a stretch of time went into."""

    def __init__(self, keep: int = 4096) -> None:
        self._changes: deque[tuple[float, str]] = deque([(0.0, "disk")], maxlen=keep)
        self._lock = Lock()

    def enter(self, part: str, now: float | None = None) -> None:
        with self._lock:
            self._changes.append((time.perf_counter() if now is None else now, part))

    def split(self, begin: float, end: float) -> dict[str, float]:
        """Seconds of [begin, end] by part; they add up to end - begin."""
        with self._lock:
            changes = list(self._changes)
        found: dict[str, float] = {}
        until = end
        for moment, part in reversed(changes):
            since = max(moment, begin)
            if since < until:
                found[part] = found.get(part, 0.0) + until - since
                until = since
            if moment <= begin:
                break
        else:  # older than what is kept
            if until > begin:
                found[changes[0][1]] = found.get(changes[0][1], 0.0) + until - begin
        return found


class StarvationMeter:
    """Per step, what the training loop waited for.

    disk: episodes were being read. decode: images were. copy: a pool was being packed or copied to the device. align:
    windows were being read (on CUDA the device's time for it, else the host's; a launch that reads several steps'
    windows counts in the first of them). CUDA times come from events that are looked at once they have passed; nothing
    waits for them, so the newest steps may be missing for a moment.

    Attributes:
        steps: how many are counted.
        last: the newest complete step in milliseconds: each part, "wait" (their sum), "step" (since the step before).
        totals: the same, summed.

    Example:
        >>> print(loader.meter.report())
        200 steps, 1.25 s: waited 4.1 %: disk 2.0 %, decode 0.0 %, copy 0.1 %, align 2.0 %
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begins anew."""
        self.steps = 0
        self.last: dict[str, float] = dict.fromkeys((*PARTS, "wait", "step"), 0.0)
        self.totals = dict(self.last)
        self._pending: deque[tuple[dict[str, float], list[tuple[str, Any, Any]]]] = deque()
        self._before: float | None = None

    def add(self, parts: dict[str, float], events: list[tuple[str, Any, Any]], now: float) -> None:
        """Notes a step.

        Args:
            parts: seconds that the host waited, by part.
            events: (part, CUDA event before, CUDA event behind) of what the device waited for.
            now: when the step's batch was handed out.
        """
        step = {name: parts.get(name, 0.0) * 1e3 for name in PARTS}
        step["step"] = 0.0 if self._before is None else (now - self._before) * 1e3
        self._before = now
        self._pending.append((step, events))
        self.poll()

    def poll(self) -> None:
        """Counts the steps whose events have passed."""
        while self._pending:
            step, events = self._pending[0]
            if not all(behind.query() for _, _, behind in events):
                return
            for part, before, behind in events:
                step[part] += before.elapsed_time(behind)
            step["wait"] = sum(step[part] for part in PARTS)
            for name, value in step.items():
                self.totals[name] += value
            self.last = step
            self.steps += 1
            self._pending.popleft()

    @property
    def shares(self) -> dict[str, float]:
        """Each part, and "wait", as a share of the time of all steps."""
        self.poll()
        whole = max(self.totals["step"], self.totals["wait"], 1e-9)
        return {name: self.totals[name] / whole for name in (*PARTS, "wait")}

    def report(self) -> str:
        """One line to print."""
        shares = self.shares
        parts = ", ".join(f"{name} {shares[name]:.1%}" for name in PARTS)
        return f"{self.steps} steps, {self.totals['step'] / 1e3:.2f} s: waited {shares['wait']:.1%}: {parts}"
