"""When a call is worth a graph: what a trial proves, and how much may be spent on captures. Knows no device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

TRIAL_CALLS = 4  # timed calls of each side; the least of them counts
EAGER_SHARE = 0.02  # of the time that eager calls took, may go into captures once the cache has been filled once
SAVED_SHARE = 0.5  # of the time that replays saved, likewise
FIRST_COST_US = 5000.0  # of a capture, before one was measured


class Sample(Protocol):
    """One timed call."""

    def ready(self) -> bool:
        """Whether `microseconds` can be had without waiting."""
        ...

    def microseconds(self) -> tuple[float, float]:
        """The host's time in the call, and the device's from the call's first work to its last."""
        ...


@dataclass(frozen=True)
class Gain:
    """What a trial found.

    A stream of calls takes, call by call, the longer of the host's and the device's time, so each side is that.
    """

    eager_us: float
    replay_us: float

    @property
    def ratio(self) -> float:
        return self.eager_us / self.replay_us

    @property
    def saved_us(self) -> float:
        return self.eager_us - self.replay_us


@dataclass
class Trial:
    """Eager calls and replays of one key take turns until each was timed often enough."""

    calls: int = TRIAL_CALLS
    eager: list[Sample] = field(default_factory=list)
    replay: list[Sample] = field(default_factory=list)

    def wants(self) -> str | None:
        """ "replay" or "eager": what the next call should be and be timed as; None when enough were timed."""
        if len(self.replay) <= len(self.eager) and len(self.replay) < self.calls:
            return "replay"
        return "eager" if len(self.eager) < self.calls else None

    def add(self, side: str, sample: Sample) -> None:
        (self.eager if side == "eager" else self.replay).append(sample)

    def gain(self) -> Gain | None:
        """The verdict, once every timed call has ended on the device; never waits."""
        if self.wants() is not None or not all(sample.ready() for sample in (*self.eager, *self.replay)):
            return None
        return Gain(_least(self.eager), _least(self.replay))


def _least(samples: list[Sample]) -> float:
    times = [sample.microseconds() for sample in samples]
    # The least of each: whatever else happens on the machine can only add.
    return max(min(host for host, _ in times), min(device for _, device in times), 1e-3)


@dataclass
class Budget:
    """Bounds what captures cost a stream of calls.

    Filling the cache once is free. Every capture after that must be earned: by a share of what replays saved and a
    small share of what eager calls took. So a stream of more shapes than the cache holds loses at most that share.
    """

    free: int
    captures: int = 0
    spent_us: float = 0.0
    eager_us: float = 0.0
    eager_calls: int = 0
    cost_us: float = FIRST_COST_US

    def note_eager(self, microseconds: float) -> None:
        self.eager_us += microseconds
        self.eager_calls += 1

    def note_capture(self, microseconds: float) -> None:
        """A capture, also a failed one, and what it cost."""
        self.cost_us = microseconds if self.captures == 0 else 0.75 * self.cost_us + 0.25 * microseconds
        if self.captures >= self.free:
            self.spent_us += microseconds
        self.captures += 1

    def admits(self, unseen_calls: int, saved_us: float) -> bool:
        """Whether one more capture can be paid.

        Args:
            unseen_calls: eager calls that were not timed; each counts as the mean of those that were.
            saved_us: what replays have saved so far.
        """
        if self.captures < self.free:
            return True
        mean = self.eager_us / self.eager_calls if self.eager_calls else 0.0
        earned = EAGER_SHARE * (self.eager_us + unseen_calls * mean) + SAVED_SHARE * max(saved_us, 0.0)
        # What was earned long ago buys at most another filling: a good past must not pay for hours of thrashing.
        self.spent_us = max(self.spent_us, earned - self.free * self.cost_us)
        return self.spent_us + self.cost_us <= earned
