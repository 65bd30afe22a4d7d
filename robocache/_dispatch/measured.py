"""What calls really took: the model's first choice of a side, corrected call by call.

Calls of one kind (operation, shapes, dtypes, place of the answer, page-locked or not) share a `Record`. The first few
are timed on the side that the model chose. Where what they took leaves the other side a chance, a trial of at most
TRIAL calls runs there. Does it look better, as many calls of the first side are timed again, so that both are measured
in the same moment, and the better one is kept. From then on one call in EVERY is timed, and the other side is tried
again only where times have changed, after a pause that doubles with each trial. Both sides give the same answer, so a
trial costs time and nothing else: for n settled calls of a kind, no more than TRIAL * (1 + log2(1 + n / PAUSE)) run in
trials.

Nothing here reads a clock or asks a device. Times are microseconds.
"""

from __future__ import annotations

import statistics
import threading
from collections import deque
from collections.abc import Hashable
from typing import NamedTuple

from .calls import Workload
from .model import Estimates

CLOSE = 2.5  # the other side is tried where it may take up to this many times what the chosen one took
BETTER = 0.92  # share of the kept side's time that the other one must stay below to replace it
DRIFT = 2.0  # a change of the kept side's time that asks for another trial
HOPELESS = 2.0  # a trial ends early where a warm call took this many times what the kept side takes
SEEN = 3  # warm calls of a side before it is judged
TRIAL = 3  # calls of a trial; the first is cold (buffers, sleeping threads, caches) and does not count
KEPT = 5  # last times of a side, whose median is what it takes
EVERY = 16  # of calls whose side is settled, one in so many is timed
PAUSE = 64  # calls between the end of one trial and the next, doubled by each

OTHER = {"cpu": "cuda", "cuda": "cpu"}


class Plan(NamedTuple):
    """What one call is to do: its side, whether it is timed, and whether it is part of a trial of the other side."""

    side: str
    timed: bool = False
    trial: bool = False


class Known(NamedTuple):
    """What was measured: timed calls and microseconds a call, by side; None where there is no warm call yet."""

    cpu_calls: int
    cpu_us: float | None
    gpu_calls: int
    gpu_us: float | None


class _Times:
    """The timed calls of one side."""

    def __init__(self) -> None:
        self.calls = 0
        self.cold = True  # the next time is that of a side that was not in use
        self.last: deque[float] = deque(maxlen=KEPT)

    def add(self, took_us: float) -> None:
        self.calls += 1
        if self.cold:
            self.cold = False
        else:
            self.last.append(took_us)

    def begin_anew(self) -> None:
        """What comes is of another time, and cold."""
        self.last.clear()
        self.cold = True

    def typical(self) -> float | None:
        return statistics.median(self.last) if self.last else None


class Record:
    """Calls of one kind. Safe to use from several threads at once.

    Args:
        side: "cpu" or "cuda": the model's choice.
        cpu_us, gpu_us: the model's estimates.
    """

    def __init__(self, side: str, cpu_us: float, gpu_us: float) -> None:
        self.side = side
        self._estimates = {"cpu": cpu_us, "cuda": gpu_us}
        self._times = {"cpu": _Times(), "cuda": _Times()}
        self._lock = threading.Lock()
        self._settled_us: float | None = None  # what the kept side took when it was last judged
        self._calls = 0
        self._next_trial = 0  # in calls
        self._pause = PAUSE
        self._tried: list[float] | None = None  # warm and cold times of the trial that runs
        self._out = 0  # calls of it that were given out
        self._least_there: float | None = None  # what a trial found, while the kept side is timed again beside it
        self.trials = 0

    # ---- Before a call --------------------------------------------------------------------------------------------

    def rests(self) -> bool:
        """Whether the call that comes now simply takes the kept side, untimed; then it is counted. Where this says no,
        `plan` counts it. Takes no lock: it runs before every call, and a count that two threads lose between them is
        no harm."""
        if self._settled_us is None or self._tried is not None or self._calls % EVERY == EVERY - 1:
            return False
        self._calls += 1
        return True

    def plan(self) -> Plan:
        """What the call that comes now is to do. One that is timed must be answered: `note` or `give_up`."""
        with self._lock:
            if self._tried is not None:
                if self._out < TRIAL:
                    self._out += 1
                    return Plan(OTHER[self.side], True, True)
                return Plan(self.side)  # other threads have the rest of the trial
            if self._settled_us is None:
                return Plan(self.side, True)
            self._calls += 1
            return Plan(self.side, self._calls % EVERY == 0)

    # ---- After a call ---------------------------------------------------------------------------------------------

    def give_up(self, plan: Plan) -> None:
        """A timed call came to nothing: it raised, or something kept it from its side."""
        with self._lock:
            if plan.trial and self._tried is not None:
                self._out -= 1

    def note(self, plan: Plan, took_us: float) -> None:
        """A timed call took this long."""
        with self._lock:
            if plan.trial:
                if self._tried is not None:
                    self._note_trial(took_us)
                return
            times = self._times[plan.side]
            times.add(took_us)
            if plan.side != self.side or self._tried is not None:
                return
            if self._least_there is not None:
                if len(times.last) == TRIAL - 1:
                    self._check(self._least_there)
            elif len(times.last) >= SEEN:
                self._judge()

    def _note_trial(self, took_us: float) -> None:
        assert self._tried is not None
        self._tried.append(took_us)
        self._times[OTHER[self.side]].add(took_us)
        own = self._times[self.side].typical()
        assert own is not None  # a trial begins behind calls of the kept side
        warm = self._tried[1:]
        if len(self._tried) < TRIAL and not (warm and min(warm) > HOPELESS * own):
            return
        self._tried = None
        self._next_trial = self._calls + self._pause
        self._pause *= 2
        if min(warm) < BETTER * own:
            self._settled_us, self._least_there = None, min(warm)
            self._times[self.side].begin_anew()
        else:
            self._settled_us = own

    def _check(self, least_there: float) -> None:
        """Whether the other side looks better still, beside calls of the kept one that were timed behind its trial."""
        if least_there < BETTER * min(self._times[self.side].last):
            self.side = OTHER[self.side]
        self._least_there = None
        self._settled_us = self._times[self.side].typical()

    def _judge(self) -> None:
        """Whether the other side is worth a trial now."""
        own = self._times[self.side].typical()
        assert own is not None
        first = self._settled_us is None
        if first:
            self._settled_us = own
        elif self._calls < self._next_trial:
            return
        assert self._settled_us is not None
        other = self._times[OTHER[self.side]].typical()
        drifted = not self._settled_us / DRIFT < own < self._settled_us * DRIFT
        regretted = other is not None and other < BETTER * own
        if not (first or drifted or regretted):
            return
        self._settled_us = own
        if (self._estimates[OTHER[self.side]] if other is None else other) < CLOSE * own:
            self._begin_trial()

    def _begin_trial(self) -> None:
        self.trials += 1
        self._tried, self._out = [], 0
        self._times[OTHER[self.side]].begin_anew()

    # ---- What is known --------------------------------------------------------------------------------------------

    def is_settled(self) -> bool:
        """Whether the side was judged by what calls took, and most need no timing now."""
        return self._settled_us is not None and self._tried is None

    def typical(self, side: str) -> float | None:
        """What a call takes there, by what was measured."""
        with self._lock:
            return self._times[side].typical()

    def known(self) -> Known:
        with self._lock:
            cpu, gpu = self._times["cpu"], self._times["cuda"]
            return Known(cpu.calls, cpu.typical(), gpu.calls, gpu.typical())


class Weighed:
    """What is remembered of calls of one kind: their size, the model's estimates, and a record where they are timed."""

    __slots__ = ("estimates", "kept", "load", "record", "used")

    def __init__(self, load: Workload, estimates: Estimates) -> None:
        self.load = load
        self.estimates = estimates
        self.record: Record | None = None
        self.kept = False  # whether a Memory holds it
        self.used = False


class Memory:
    """A bounded mapping; what was not used for longest goes first, near enough.

    Reading takes no lock, so that a process forked while another thread read can read on. An entry that was read since
    it was last looked at is passed over once (the CLOCK rule of Corbató, A Paging Experiment with the Multics System,
    1968).
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: dict[Hashable, Weighed] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> Weighed | None:
        found = self._entries.get(key)
        if found is not None:
            found.used = True
        return found

    def put(self, key: Hashable, made: Weighed) -> Weighed:
        """What is kept for the key: the entry that another thread put there first, else this one."""
        with self._lock:
            while key not in self._entries and len(self._entries) >= self._most:
                oldest = next(iter(self._entries))
                entry = self._entries.pop(oldest)
                if entry.used:
                    entry.used = False
                    self._entries[oldest] = entry
            made.kept = True
            return self._entries.setdefault(key, made)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
