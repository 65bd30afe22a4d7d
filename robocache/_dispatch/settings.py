"""What the user says about dispatch: the context manager `robocache.dispatch` and the environment variable."""

from __future__ import annotations

import os
import threading
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from typing import Any, NamedTuple

VARIABLE = "ROBOCACHE_BACKEND"
LEARN = "ROBOCACHE_DISPATCH_LEARN"
SIDES = ("auto", "cpu", "cuda")
RESULTS = ("host", "device")


class Settings(NamedTuple):
    """What open contexts say; None where they say nothing."""

    backend: str | None = None
    result: str | None = None
    learn: bool | None = None


NOTHING = Settings()
_current: ContextVar[Settings] = ContextVar("robocache_dispatch", default=NOTHING)
_open = 0  # contexts that are open in any thread
_environment = os.environ.get(VARIABLE, "")  # read once: a call costs less, and never changes its mind halfway
_learn = os.environ.get(LEARN, "")
_lock = threading.Lock()


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def current() -> Settings:
    """What holds in this thread (or task) now."""
    return _current.get()


def environment() -> str | None:
    """What ROBOCACHE_BACKEND says; None where it is unset or empty."""
    return choice(VARIABLE, _environment, SIDES) if _environment else None


def learns(said: Settings) -> bool:
    """Whether what calls take may correct the model: as the context says, else the environment, else yes."""
    if said.learn is not None:
        return said.learn
    return not _learn or choice(LEARN, _learn, ("0", "1")) == "1"


def names_a_side() -> bool:
    """Whether the environment sends calls to the GPU (or says something wrong, which the first call reports)."""
    return _environment not in ("", "auto", "cpu")


def forced() -> bool:
    """True where calls must be asked about that the model would not be asked about: a context is open somewhere, or the
    environment names a side (or something wrong, which the first call reports)."""
    return _open > 0 or names_a_side()


class dispatch(ContextDecorator):  # noqa: N801  (a context manager reads like a function)
    """Says where calls on host tensors with backend="auto" are computed, and where their answers go.

    Holds in the thread (or asyncio task) that enters it, until it leaves. Contexts nest: what an inner one does not
    say, the outer one does. Calls on CUDA tensors, calls inside torch.compile, and calls that name a backend
    themselves are not touched by `backend`; inside torch.compile neither is the answer by `result`.

    Args:
        backend: "cpu" computes on the CPU; "cuda" sends the tensors to the current GPU and computes there, or raises
            where a call cannot (a gradient is wanted, `out=`, no GPU); "auto" lets the cost model pick, whatever
            ROBOCACHE_BACKEND says. None says nothing.
        result: "host" (the default outside any context) brings the answer back as an ordinary CPU tensor; "device"
            leaves it on the current GPU, wherever it was computed: every call on host tensors then returns CUDA
            tensors, and the model weighs the upload of a CPU's answer too. None says nothing.
        learn: False leaves the choice to the tuned points alone: no call is timed, none is tried on the other side,
            and what was measured before is not looked at. True measures, whatever ROBOCACHE_DISPATCH_LEARN says. None
            says nothing.

    Raises:
        ValueError: an argument is not one of these.
        TypeError: `learn` is neither a bool nor None.
        RuntimeError: on entering, where no GPU can be used for what is asked.

    Example:
        >>> with robocache.dispatch(result="device"):
        ...     grid = robocache.voxelize_point_cloud(points, voxel_size=0.02, grid_min=-1.0, grid_size=100)
        >>> grid.device
        device(type='cuda', index=0)
    """

    def __init__(self, *, backend: str | None = None, result: str | None = None, learn: bool | None = None) -> None:
        self.backend = None if backend is None else choice("backend", backend, SIDES)
        self.result = None if result is None else choice("result", result, RESULTS)
        if learn is not None and not isinstance(learn, bool):
            raise TypeError(f"learn: expected a bool or None, got {learn!r}")
        self.learn = learn
        self._tokens: list[Token[Settings]] = []

    def _recreate_cm(self) -> dispatch:
        return dispatch(
            backend=self.backend, result=self.result, learn=self.learn
        )  # a decorated function may call itself

    def __enter__(self) -> dispatch:
        from .policy import policy

        if self.backend == "cuda" or self.result == "device":
            reason = policy().device.why_not()
            if reason is not None:
                asked = "backend='cuda'" if self.backend == "cuda" else "result='device'"
                raise RuntimeError(f"dispatch({asked}): no GPU can be used: {reason}")
        outer = _current.get()
        _count(1)
        self._tokens.append(
            _current.set(
                Settings(
                    outer.backend if self.backend is None else self.backend,
                    outer.result if self.result is None else self.result,
                    outer.learn if self.learn is None else self.learn,
                )
            )
        )
        return self

    def __exit__(self, *exception: Any) -> None:
        _current.reset(self._tokens.pop())
        _count(-1)


class inside:  # noqa: N801
    """While a call that was routed runs: nothing that it calls is routed again."""

    def __enter__(self) -> None:
        self._token = _current.set(INSIDE)

    def __exit__(self, *exception: Any) -> None:
        _current.reset(self._token)


INSIDE = Settings("cpu", "host", False)


def _count(change: int) -> None:
    global _open
    from . import refresh

    with _lock:
        _open += change
        refresh()
