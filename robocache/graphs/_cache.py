"""`CUDAGraphCache`: which calls are captured, replayed, evicted and left alone."""

from __future__ import annotations

import functools
import itertools
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch.compiler import is_compiling

from .._backend import native
from ._device import Backend, CaptureFailed, CudaBackend
from ._key import READY, describe
from ._lending import check_lent, lend
from ._policy import Budget, Trial
from ._records import ON, WATCHED, Function, Record, Records
from ._report import GraphStats, KeyStats

P = ParamSpec("P")
R = TypeVar("R")

MAX_FUNCTIONS = 1024  # remembered without a graph; each new lambda is a function of its own
SNOOZE = 16  # sightings of a key that there was no room for, until it is looked at again


_numbers = itertools.count(1)
_caches: weakref.WeakValueDictionary[str, CUDAGraphCache] = weakref.WeakValueDictionary()


@torch.compiler.assume_constant_result
def _note_compile(number: str) -> int:
    """Counts a call that torch.compile traces; runs while it traces, and leaves nothing in the compiled code."""
    cache = _caches.get(number)
    if cache is not None:
        cache._bypass("torch.compile")
    return 0


class CUDAGraphCache:
    """Replays repeated calls as CUDA graphs: `cache(fn, x, y)` gives what `fn(x, y)` gives, with one launch.

    A call is the same as an earlier one when the function, the device, the structure of its arguments, the shapes,
    strides and dtypes of their tensors, all other arguments (by value) and torch's modes (gradients, inference,
    autocast, determinism, TF32) are. The second of a kind is captured. After that, eager calls and replays take turns
    a few times and are timed, without waiting for the device; a key whose replays are no faster runs eagerly from then
    on, and `stats()` says so.

    Inputs that stand where they stood before are read in place; others are copied in by one kernel launch. A function
    must compute the same things with the same tensors each time: what it reads other than by its arguments (weights of
    a module, a global) is read where it stood at capture, and Python code with side effects runs at capture only.

    Left alone, and counted by reason in `stats()`: calls on CPU tensors, calls that need a gradient, under
    torch.compile, torch.func transforms, modes and tracing, inside another capture, with tensor subclasses or
    unhashable arguments. A function that cannot be captured (it synchronises, writes to its arguments, returns
    something that is no tensor) runs eagerly and is not tried again; `stats()` has the reason.

    Threads and streams: any thread may call, on any stream; replays of one graph follow each other.

    Args:
        max_graphs: graphs held at once; the one used longest ago goes first.
        max_bytes: device memory of graphs and their buffers, None for no limit.
        outputs: "clone": every call returns tensors of its own, copied out by one kernel launch. "borrow": the graph's
            own tensors, overwritten by its next replay; passing one back after that raises BorrowedOutputError, other
            uses go unseen. "ring": tensors out of `ring` sets that take turns.
        ring: sets of output tensors a graph has with outputs="ring".
        capture_after: which identical call is captured; the ones before it run eagerly.
        measure_gain: time a key before it is trusted. False replays whatever was captured.
        min_gain: how many times faster a replay must be.

    Raises:
        ValueError: an argument out of its range.
        BorrowedOutputError: by calls, see `outputs`.

    Example:
        >>> cache = robocache.CUDAGraphCache(max_graphs=8)
        >>> def batch(values, times, targets):
        ...     aligned = robocache.resample_trajectories(values, times, targets)
        ...     return (aligned - aligned.mean(1, keepdim=True)) / aligned.std(1, keepdim=True)
        >>> fast = cache.wrap(batch)
        >>> out = fast(values, times, targets)
        >>> print(cache.stats())
    """

    def __init__(
        self,
        max_graphs: int = 32,
        max_bytes: int | None = None,
        outputs: str = "clone",
        *,
        ring: int = 2,
        capture_after: int = 2,
        measure_gain: bool = True,
        min_gain: float = 1.05,
        _backend: Backend | None = None,
    ) -> None:
        if outputs not in ("clone", "borrow", "ring"):
            raise ValueError(f"outputs: expected 'clone', 'borrow' or 'ring', got {outputs!r}")
        for name, value, least in (
            ("max_graphs", max_graphs, 1),
            ("ring", ring, 1),
            ("capture_after", capture_after, 1),
        ):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}: expected an int of {least} or more, got {value!r}")
        if max_bytes is not None and (not isinstance(max_bytes, int) or max_bytes < 0):
            raise ValueError(f"max_bytes: expected None or an int of 0 or more, got {max_bytes!r}")
        if not min_gain > 0:
            raise ValueError(f"min_gain: expected more than 0, got {min_gain!r}")
        self.max_graphs, self.max_bytes, self.outputs = max_graphs, max_bytes, outputs
        self._measure_gain, self._min_gain = measure_gain, min_gain
        self._backend: Backend = CudaBackend(outputs, ring) if _backend is None else _backend
        self._lock = threading.RLock()
        self._functions: OrderedDict[Any, Function] = OrderedDict()
        self._next_function = 0
        self._budget = Budget(free=max_graphs)
        self._counts = {"captures": 0, "failures": 0, "hits": 0, "misses": 0, "off": 0}
        self._bypasses: dict[str, int] = {}
        self._table: Any = native.GraphTable(self._backend.cuda, capture_after) if READY else None
        self._records = Records(self._table, max_graphs, max_bytes, capture_after)
        if self._table is not None and outputs == "borrow":
            self._table.borrowing = 1
        self._number = f"cache {next(_numbers)}"  # a str: torch.compile never makes it symbolic
        _caches[self._number] = self

    # ---- Calling ------------------------------------------------------------------------------------------------

    def __call__(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
        """fn(*args, **kwargs), replayed where it can be. The function is known by equality: bound methods of one object
        are the same function."""
        if is_compiling():
            _note_compile(self._number)
            return fn(*args, **kwargs)
        call: Callable[..., R] = self._function(fn).call  # type: ignore[assignment]
        return call(*args, **kwargs)

    def wrap(self, fn: Callable[P, R]) -> Callable[P, R]:
        """fn with its calls going through this cache; also a decorator, `@cache.wrap`."""
        call = self._function(fn).call
        assert call is not None
        return call

    def _function(self, fn: Callable[..., Any]) -> Function:
        try:
            known = self._functions.get(fn)
            key: Any = fn
        except TypeError:  # unhashable: known by identity, and kept so that no other takes its place
            key = id(fn)
            known = self._functions.get(key)
        if known is not None:
            return known
        if not callable(fn):
            raise TypeError(f"fn: expected a callable, got {type(fn).__name__}")
        with self._lock:
            self._next_function += 1
            made = Function(self._next_function, fn, getattr(fn, "__qualname__", None) or type(fn).__name__)
            made.call = self._caller(made)
            self._functions[key] = made
            if len(self._functions) > MAX_FUNCTIONS:
                old = next((k for k, f in self._functions.items() if f.keys == 0 and f is not made), None)
                if old is not None:
                    gone = self._functions.pop(old)
                    if self._table is not None:
                        self._table.forget_function(gone.number)
        return made

    def _caller(self, function: Function) -> Callable[..., Any]:
        fn, number, cache_number = function.fn, function.number, self._number
        if self._table is None:

            @functools.wraps(fn)
            def call(*args: Any, **kwargs: Any) -> Any:
                if is_compiling():
                    _note_compile(cache_number)
                else:
                    self._bypass("the native library did not load")
                return fn(*args, **kwargs)
        else:
            graph_call, handle, sighting = native.graph_call, self._table.handle, native.GraphSighting

            @functools.wraps(fn)
            def call(*args: Any, **kwargs: Any) -> Any:
                if is_compiling():
                    _note_compile(cache_number)
                    return fn(*args, **kwargs)
                done = graph_call(handle, number, args, kwargs or None)
                if done is NotImplemented:
                    return fn(*args, **kwargs)
                if type(done) is sighting:
                    return self._decide(function, done, args, kwargs)
                return done

        call.cache = self  # type: ignore[attr-defined]
        return call

    def _bypass(self, reason: str) -> None:
        with self._lock:
            self._bypasses[reason] = self._bypasses.get(reason, 0) + 1

    # ---- One call that the hot path does not answer ---------------------------------------------------------------

    def _decide(self, function: Function, sighting: Any, args: Any, kwargs: Any) -> Any:
        with self._lock:
            self._records.sweep()
            if self.outputs == "borrow":
                check_lent(sighting.tensors)
            record = None if sighting.entry is None else self._records.live.get(sighting.entry)
            if record is None and sighting.entry is None and sighting.ready:
                record = self._consider(function, sighting, args, kwargs)
                if record is not None and record.captured is not None:
                    return self._replay(record, sighting, function, args, kwargs)
            if record is None or record.captured is None:
                self._counts["misses" if sighting.entry is None else "off"] += 1
                side = None
            else:
                self._table.touch(record.entry)
                moved = self._moved(record, sighting)
                if moved and not self._capture_again(record, moved, sighting, args, kwargs):
                    self._counts["off"] += 1
                    side = None
                else:
                    side = "replay" if record.trial is None else self._turn(record)
            if side == "replay":
                assert record is not None
                wanted = record.trial.wants() if record.trial is not None else None
                if wanted is None:
                    return self._replay(record, sighting, function, args, kwargs)
                result, sample = self._backend.timed(
                    lambda: self._replay(record, sighting, function, args, kwargs), sighting.device_index
                )
                record.trial.add("replay", sample)  # type: ignore[union-attr]
                return result
        fn = function.fn
        if side == "eager":
            assert record is not None
            result, sample = self._backend.timed(lambda: fn(*args, **kwargs), sighting.device_index)
            with self._lock:
                self._counts["misses"] += 1
                if record.trial is not None:
                    record.trial.add("eager", sample)
            return result
        begin = time.perf_counter()
        result = fn(*args, **kwargs)
        with self._lock:
            self._budget.note_eager((time.perf_counter() - begin) * 1e6)
        return result

    def _turn(self, record: Record) -> str | None:
        """How a call of a key on trial runs: "replay", "eager", or None when the trial has just ended badly."""
        trial = record.trial
        assert trial is not None
        wanted = trial.wants()
        if wanted is not None:
            return wanted
        gain = trial.gain()
        if gain is None:
            return "replay"  # the device has yet to pass the timed calls
        record.gain = gain
        record.trial = None
        if gain.ratio >= self._min_gain:
            record.state = "on"
            return "replay"
        self._records.refuse(record, "off", f"eager takes {gain.eager_us:.1f} us, a replay {gain.replay_us:.1f} us")
        self._counts["off"] += 1
        return None

    def _replay(self, record: Record, sighting: Any, function: Function, args: Any, kwargs: Any) -> Any:
        captured = record.captured
        assert captured is not None
        result = captured.replay(record.entry, sighting)
        if result is NotImplemented:
            self._counts["misses"] += 1
            return function.fn(*args, **kwargs)
        if record.state == "on":
            self._speed_up(record)
        record.entry.hits += 1
        self._counts["hits"] += 1
        return lend(record, result) if self.outputs == "borrow" else result

    # ---- Captures -----------------------------------------------------------------------------------------------

    def _consider(self, function: Function, sighting: Any, args: Any, kwargs: Any) -> Record | None:
        """Captures a call that was seen often enough, if there is room and it can be paid."""
        table, budget = self._table, self._budget
        unseen = table.misses + table.off
        if not budget.admits(unseen, self._records.saved()) or not self._records.make_room():
            table.snooze(sighting.hash, SNOOZE)
            return None
        return self._add(function, sighting, args, kwargs)

    def _add(self, function: Function, sighting: Any, args: Any, kwargs: Any) -> Record:
        """A new key, captured or failed."""
        record = Record(
            function, self._table.insert(sighting), sighting.hash, describe(sighting.tensors), trial=self._new_trial()
        )
        function.keys += 1
        record.moving = {i for i, stayed in enumerate(sighting.stayed) if not stayed}
        if self._capture(record, sighting, args, kwargs):
            self._records.live[record.entry] = record
            if self._records.over_bytes(record):
                return record
            if record.trial is None:
                record.state = "on"
        return record

    def _new_trial(self) -> Trial | None:
        return Trial() if self._measure_gain else None

    def _capture(self, record: Record, sighting: Any, args: Any, kwargs: Any) -> bool:
        tensors = sighting.tensors
        in_place = [i not in record.moving for i in range(len(tensors))]
        begin = time.perf_counter()
        try:
            record.captured = self._backend.capture(record.function.fn, args, kwargs, tensors, in_place)
        except CaptureFailed as error:
            reason = str(error)
        else:
            reason = ""
            self._counts["captures"] += 1
            record.moving = {i for i, stays in enumerate(record.captured.in_place) if not stays}
        self._budget.note_capture((time.perf_counter() - begin) * 1e6)
        if reason:
            self._counts["failures"] += 1
            self._records.refuse(record, "failed", reason)
        return not reason

    def _moved(self, record: Record, sighting: Any) -> set[int]:
        """Inputs that the graph reads in place and that are elsewhere now."""
        captured = record.captured
        assert captured is not None
        return {
            i
            for i, (now, then) in enumerate(zip(sighting.addresses, captured.addresses, strict=True))
            if captured.in_place[i] and now != then
        }

    def _capture_again(self, record: Record, moved: set[int], sighting: Any, args: Any, kwargs: Any) -> bool:
        """Captures a key whose inputs moved, with a buffer for those; the second time, for all."""
        record.moving |= moved if record.captures == 1 else set(range(len(sighting.tensors)))
        record.captures += 1
        self._records.let_go(record)
        record.trial = self._new_trial()
        record.gain = None
        record.state = "trial" if record.trial is not None else "on"
        record.entry.state = WATCHED
        return self._capture(record, sighting, args, kwargs) and not self._records.over_bytes(record)

    def _speed_up(self, record: Record) -> None:
        """From now on C++ replays it. Not graphs with random numbers, whose offsets torch keeps, nor lent outputs,
        which Python counts."""
        if record.captured is not None and record.captured.armed and self.outputs != "borrow":
            record.entry.state = ON

    def clear(self) -> None:
        """Forgets every key, waits for replays in flight and gives their memory back. Counters of `stats()` stay."""
        with self._lock:
            self._records.clear()
            self._budget = Budget(free=self.max_graphs)
            if self._table is not None:
                self._table.forget()

    # ---- Asked for by name --------------------------------------------------------------------------------------

    def prewarm(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> bool:
        """Captures this call now, before it is first needed. Runs the function once to warm it up.

        Returns:
            True when the key has a graph; False when it has none, for a reason that `stats()` tells.
        """
        return self._ready(fn, args, kwargs) is not None

    def pin(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> bool:
        """`prewarm`, and the graph is never evicted. Returns what `prewarm` returns."""
        record = self._ready(fn, args, kwargs)
        if record is not None:
            record.pinned = True
        return record is not None

    def unpin(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """The opposite of `pin`."""
        with self._lock:
            sighting = self._look(fn, args, kwargs)
            record = None if sighting is None or sighting.entry is None else self._records.live.get(sighting.entry)
            if record is not None:
                record.pinned = False

    def _look(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The call's sighting, or None with the reason counted."""
        function = self._function(fn)
        if self._table is None:
            self._bypass("the native library did not load")
            return None
        seen = self._table.look(function.number, args, kwargs)
        if isinstance(seen, str):
            self._bypass(seen)
            return None
        return seen

    def _ready(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Record | None:
        with self._lock:
            sighting = self._look(fn, args, kwargs)
            if sighting is None:
                return None
            self._table.forget_function(self._function(fn).number)  # awake, should it have been looked at in bursts
            if sighting.entry is not None:
                record = self._records.live.get(sighting.entry)
                return record if record is not None and record.captured is not None else None
            self._backend.warm_up(fn, args, kwargs, sighting.tensors)
            if not self._records.make_room():
                return None
            record = self._add(self._function(fn), sighting, args, kwargs)
            if record.captured is None:
                return None
            record.captured.replay(record.entry, sighting)  # uploads the graph and tells whether it draws numbers
            return record

    # ---- Telling ------------------------------------------------------------------------------------------------

    def stats(self) -> GraphStats:
        """Hits, misses, captures, evictions, bytes and what each key gains; `print` shows a report."""
        with self._lock:
            self._records.sweep()
            counts, table = self._counts, self._table
            bypasses = dict(self._bypasses)
            if table is not None:
                for reason, count in table.left_alone().items():
                    bypasses[reason] = bypasses.get(reason, 0) + count
            records = [*self._records.live.values(), *self._records.refused.values()]
            keys = [
                KeyStats(
                    r.function.name,
                    r.arguments,
                    r.state,
                    r.reason,
                    r.entry.hits,
                    None if r.gain is None else r.gain.eager_us,
                    None if r.gain is None else r.gain.replay_us,
                    r.bytes,
                    r.pinned,
                )
                for r in sorted(records, key=lambda r: -r.entry.hits)
            ]
            return GraphStats(
                hits=counts["hits"] + (0 if table is None else table.hits),
                misses=counts["misses"] + (0 if table is None else table.misses),
                off=counts["off"] + (0 if table is None else table.off),
                bypasses=bypasses,
                captures=counts["captures"],
                failures=counts["failures"],
                evictions=self._records.evictions,
                graphs=len(self._records.live),
                max_graphs=self.max_graphs,
                bytes=self._records.held_bytes(),
                max_bytes=self.max_bytes,
                saved_us=self._records.saved(),
                keys=tuple(keys),
            )

    def __repr__(self) -> str:
        return f"CUDAGraphCache(max_graphs={self.max_graphs}, max_bytes={self.max_bytes}, outputs={self.outputs!r})"
