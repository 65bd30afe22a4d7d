"""Which of several launch parameter values is better than the current one: the rule, apart from any clock.

Values are timed in rounds; every round times each value once, in a new order, so a drift of the clock rate meets all of
them. A value's ratio is its time over the current value's time of the same round: the median over rounds, the geometric
mean over cases. The current value is timed twice a round; the second one, the control, shows what noise alone does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

CURRENT, CONTROL = "current", "control"
LEAST_GAIN = 0.02  # a change of the table must be worth it
LARGEST_LOSS = 0.02  # that a single case may have where the mean over cases gains
RESAMPLES = 500

Times = Mapping[str, Mapping[str, Sequence[float]]]  # by case, then by label: microseconds, one a round


@dataclass(frozen=True)
class Ratio:
    """A label's time over the current value's."""

    ratio: float
    ci99: tuple[float, float]  # by bootstrap over rounds; 99 %, since several values are tried at once
    worst: float  # of the cases

    def as_dict(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Verdict:
    """`winner` is None where the current value stays; `why` says which rule decided."""

    winner: int | None
    why: str
    ratios: dict[str, Ratio]


def ratio_of(times: Times, label: str, seed: int = 0) -> Ratio:
    """The ratio of a label over all cases."""
    generator = np.random.default_rng(seed)
    medians, resampled = [], np.zeros(RESAMPLES)
    for by_label in times.values():
        measured, current = np.asarray(by_label[label], float), np.asarray(by_label[CURRENT], float)
        if measured.shape != current.shape or measured.size == 0:
            raise ValueError(f"{label}: expected as many rounds as the current value has, got {measured.size}")
        logs = np.log(measured / current)
        if not np.isfinite(logs).all():
            raise ValueError(f"{label}: timings must be finite and positive")
        medians.append(float(np.median(logs)))
        draws = generator.integers(0, logs.size, size=(RESAMPLES, logs.size))
        resampled += np.median(logs[draws], axis=1)
    low, high = np.exp(np.percentile(resampled / len(medians), [0.5, 99.5]))
    return Ratio(float(np.exp(np.mean(medians))), (float(low), float(high)), float(np.exp(max(medians))))


def decide(times: Times, values: Sequence[int]) -> Verdict:
    """The best of `values` (labels: their decimals) if it is better than the current one by LEAST_GAIN, beyond what the
    control's confidence interval reaches, and no case loses more than LARGEST_LOSS."""
    labels = [CONTROL, *map(str, values)]
    ratios = {label: ratio_of(times, label, seed) for seed, label in enumerate(labels)}
    floor = min(1.0, ratios[CONTROL].ci99[0])
    best: int | None = None
    reasons = {"gain": 0, "noise": 0, "case": 0}
    for value in values:
        found = ratios[str(value)]
        if found.ratio > 1 - LEAST_GAIN:
            reasons["gain"] += 1
        elif found.ci99[1] >= floor:
            reasons["noise"] += 1
        elif found.worst > 1 + LARGEST_LOSS:
            reasons["case"] += 1
        elif best is None or found.ratio < ratios[str(best)].ratio:
            best = value
    if best is not None:
        return Verdict(best, f"{1 - ratios[str(best)].ratio:.1%} less time", ratios)
    if reasons["case"]:
        return Verdict(None, "a gain in the mean, but a case loses", ratios)
    if reasons["noise"]:
        return Verdict(None, "a gain within the noise", ratios)
    return Verdict(None, f"none gains {LEAST_GAIN:.0%}", ratios)
