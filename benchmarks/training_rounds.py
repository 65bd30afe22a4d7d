"""Feeds take turns in rounds, each between two segments of the ceiling, and their shares of it are of those two.

A round is ready, store, ready, loader, ready and so on. A step's time may drift while a row is measured: other work on
the host, clocks. What a feed reaches is therefore compared with the ceiling just before and just after it, not with one
of another minute, and the median over rounds leaves out a round in which the host changed between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .measure import Say, error_words
from .training_measure import Segment, figures, mean_ms

READY = "ready"  # the feed that is the ceiling


@dataclass(frozen=True)
class Turn:
    """A feed opened, measured and closed once.

    Attributes:
        feed: its name.
        segment: what was measured.
        prepared_s: seconds until it was opened and a batch was checked.
        memory: of the host, as `training_measure.host_memory` tells it.
    """

    feed: str
    segment: Segment
    prepared_s: float
    memory: dict[str, Any]


Round = Sequence[Turn]


def take_turns(
    rounds: int,
    feeds: Sequence[str],
    take: Callable[[str], Turn],
    errors: dict[str, str],
    say: Say,
    once: Sequence[str] = (),
) -> list[Round]:
    """All rounds' turns, in the order in which they were taken.

    Args:
        rounds: how many.
        feeds: names, without `READY`.
        take: a feed's turn.
        errors: takes what a feed raised. It is not tried again; an error of `READY` ends all.
        say: is told whose turn it is.
        once: more feeds, that have a turn in the first round alone: those that start too slowly for more of them.
    """
    found: list[Round] = []
    for number in range(1, rounds + 1):
        turns = [take(READY)]
        for name in (*feeds, *(once if number == 1 else ())):
            if name in errors:
                continue
            say(f"round {number} of {rounds}: {name}")
            try:
                turns.append(take(name))
            except Exception as error:  # one feed's failure must not lose the others; the run still ends non-zero
                errors[name] = error_words(error)
            turns.append(take(READY))  # behind a failure too: the next feed's ceiling must be of the same moment
        found.append(turns)
    return found


def variants(rounds: Sequence[Round], batch: int, errors: Container[str] = ()) -> dict[str, Any]:
    """The figures of every feed but those with errors, over all its segments."""
    by_feed: dict[str, list[list[Turn]]] = {}
    for turns in rounds:
        for name in dict.fromkeys(turn.feed for turn in turns):
            by_feed.setdefault(name, []).append([turn for turn in turns if turn.feed == name])
    return {
        name: _variant([turn for turns in own for turn in turns], _shares(name, rounds, own), batch)
        for name, own in by_feed.items()
        if name not in errors
    }


def _variant(turns: Sequence[Turn], shares: Sequence[float], batch: int) -> dict[str, Any]:
    return {
        **figures([turn.segment for turn in turns], batch),
        "prepared_s": [turn.prepared_s for turn in turns],
        "host_memory": max(
            (turn.memory for turn in turns), key=lambda one: (one["main_peak"] or 0) + one["workers_peak"]
        ),
        "of_ceiling": 1.0 if turns[0].feed == READY else float(np.median(shares)),
        "of_ceiling_rounds": list(shares),
    }


def _shares(name: str, rounds: Sequence[Round], own: Sequence[Sequence[Turn]]) -> list[float]:
    """By round: of a feed, its share of the ceiling; of the ceiling itself, its share of its own mean over all rounds,
    which is how far it drifted."""
    if name == READY:
        segments = [[turn.segment for turn in turns] for turns in own]
        whole = mean_ms([one for several in segments for one in several])
        return [whole / mean_ms(several) for several in segments]
    return [share for turns in rounds for share in of_neighbours(name, turns)]


def of_neighbours(name: str, turns: Round) -> Iterator[float]:
    """A feed's share of the ceiling in a round: the mean step time of the two segments beside it over its own."""
    for at, turn in enumerate(turns):
        if turn.feed == name:
            beside = (mean_ms([turns[at + side].segment]) for side in (-1, 1))
            yield sum(beside) / 2 / mean_ms([turn.segment])
