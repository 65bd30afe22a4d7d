"""Peers of a row: which are timed beside ours, and why the others are not.

A family is one way to do a suite's work with one library. It says of each case why it cannot do it, without importing
the library; only binding an input set imports it. What is not timed stands in the row's `absent`, with the reason.
"""

from __future__ import annotations

import copy
import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .measure import Plan, measure, synchronize
from .timing import Timer

Call = Callable[[], Any]
Binder = Callable[[Any], Call]

AUTOTUNE = "max-autotune-no-cudagraphs"  # without CUDA graphs of its own: the timer captures the calls


@dataclass(frozen=True)
class Family:
    """One library's way to do a suite's work."""

    name: str  # of the variant in the results
    device: str  # "cuda" or "cpu"
    why_not: Callable[[Any], str | None]  # of a case: None where it can do it
    bind: Binder  # input set -> call; imports the library
    library: str | None = None  # the module that it needs
    budget_s: float | None = None  # of its measurement, where a call is slow and steady


def why_missing(library: str | None) -> str | None:
    """Why a library cannot be used: it is not installed. It is looked up, not imported."""
    if library is None or importlib.util.find_spec(library) is not None:
        return None
    return f"{library} is not installed"


def choose(families: Sequence[Family], case: Any, device: str) -> tuple[dict[str, Family], dict[str, str]]:
    """The families of a device that can do the case, and the reasons of those that cannot."""
    chosen: dict[str, Family] = {}
    absent: dict[str, str] = {}
    for family in families:
        if family.device != device:
            continue
        reason = family.why_not(case) or why_missing(family.library)
        if reason is None:
            chosen[family.name] = family
        else:
            absent[family.name] = reason
    return chosen, absent


def variant_of(mode: str) -> str:
    """The name in the results of a peer that torch.compile made with `mode`."""
    return "compile" if mode == "default" else f"compile-{mode}"


def compile_modes(plan: Plan, compiled: bool, published: bool) -> tuple[list[str], dict[str, str]]:
    """Modes of torch.compile for a row, and why the others are left out.

    `compiled` rows are compiled by default, of which the `published` ones on a GPU are also autotuned: that costs
    seconds a row, so that the whole run would not stay bounded with it everywhere.
    """
    absent: dict[str, str] = {}
    modes = []
    usual = ("default",) if plan.device == "cpu" else ("default", AUTOTUNE)
    for mode in dict.fromkeys((*plan.compile_modes, *usual)):
        if not plan.compile_modes:
            absent[variant_of(mode)] = "a quick run compiles nothing"
        elif not compiled and not plan.compile_all:
            absent[variant_of(mode)] = "only the published rows and their variants are compiled"
        elif mode == AUTOTUNE and mode not in plan.compile_modes and not published:
            absent[variant_of(mode)] = "only the published rows are autotuned"
        else:
            modes.append(mode)
    return modes, absent


def bounded(timer: Timer, budget_s: float | None) -> Timer:
    """The timer, with at most this budget a measurement."""
    if budget_s is None:
        return timer
    limited = copy.copy(timer)
    told = getattr(timer, "budget_s", None)
    limited.budget_s = budget_s if told is None else min(told, budget_s)  # type: ignore[attr-defined]
    return limited


def time_peer(
    calls: Sequence[Call], check: Callable[[Any], dict[str, float]], timer: Timer, plan: Plan, family: Family | None
) -> dict[str, Any]:
    """A peer's columns. It is checked before it is timed; the first call, which compiles and tunes, is timed apart."""
    begin = time.perf_counter()
    calls[0]()
    synchronize(plan)()
    first = time.perf_counter() - begin
    agreement = check(calls[0]())
    timed = measure(calls, bounded(timer, family.budget_s if family else None), plan)
    return {**timed, **agreement, "first_call_s": round(first, 3)}
