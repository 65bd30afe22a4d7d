"""What the suites share: the plan of a run, comparisons of answers, and the columns of a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .timing import GraphTimer, Timer, WallTimer, eager_wall_us

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How a run measures."""

    device: str
    repeats: int = 100
    ours_only: bool = False
    compile_modes: tuple[str, ...] = ("default",)
    compile_all: bool = False  # compile peers for every case, not only for the published rows and their variants
    rotate_bytes: int = 256 << 20  # sets rotate until their bytes exceed this: several times an H200's 60 MB L2
    max_sets: int = 256
    warm: bool = True
    check: str = "reference"  # or "peer": the obvious torch code, to its own rounding
    budget_s: float | None = None  # of one variant of slow calls: fewer repeats where they would take longer


class CheckFailed(AssertionError):
    """A variant's answer is not what it must be; no time is written for it."""


def make_timer(plan: Plan) -> Timer:
    return GraphTimer(budget_s=plan.budget_s) if plan.device == "cuda" else WallTimer(budget_s=plan.budget_s)


def ulps(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest distance in units in the last place of the coarser of the dtype and float32; NaN equals NaN, 0 is -0."""
    if a.shape != b.shape or a.dtype != b.dtype:
        raise CheckFailed(f"shapes or dtypes differ: {tuple(a.shape)} {a.dtype}, {tuple(b.shape)} {b.dtype}")
    if not a.dtype.is_floating_point:
        return 0.0 if torch.equal(a, b) else math.inf
    if a.numel() == 0:
        return 0.0
    nan = torch.isnan(a)
    if not torch.equal(nan, torch.isnan(b)):
        return math.inf
    a64, b64 = a.double().masked_fill(nan, 0.0), b.double().masked_fill(nan, 0.0)
    fine = torch.float32 if a.dtype == torch.float64 else a.dtype
    info = torch.finfo(fine)
    size = torch.maximum(a64.abs(), b64.abs()).clamp_min(info.tiny)
    unit = torch.exp2(torch.floor(torch.log2(size))) * info.eps
    distance = torch.where(a64 == b64, torch.zeros_like(a64), (a64 - b64).abs() / unit)
    return float(distance.nan_to_num(nan=math.inf, posinf=math.inf).max())


def agree(name: str, got: torch.Tensor, ours: torch.Tensor, needed: float) -> dict[str, float]:
    """The share of a peer's outputs that are ours to its own rounding; less than `needed` is an error."""
    if got.shape != ours.shape:
        raise CheckFailed(f"{name}: shapes differ: {tuple(got.shape)}, robocache {tuple(ours.shape)}")
    a, b = got.double(), ours.double()
    near = a == b
    if ours.dtype.is_floating_point and b.numel():
        size = torch.maximum(a.abs(), b.abs())
        near = (a - b).abs() <= 2 * torch.finfo(ours.dtype).eps * size + 1e-4 * b.abs().max()
    share = float(near.double().mean()) if near.numel() else 1.0
    if share < needed:
        raise CheckFailed(f"{name}: {share:.4%} of its outputs agree with robocache")
    return {"agree": share}


def measure(calls: Sequence[Callable[[], Any]], timer: Timer, plan: Plan) -> dict[str, Any]:
    """Device time over rotated sets and over one, and the wall time of eager calls; on the CPU wall time alone."""
    timed: dict[str, Any] = {"cold": timer.measure(calls, plan.repeats).as_dict()}
    if plan.device == "cuda":
        if plan.warm:
            timed["warm"] = timer.measure(calls[:1], plan.repeats).as_dict()
        timed["eager_wall_us"] = eager_wall_us(calls, synchronize(plan), timed["cold"]["median"])
    return timed


def synchronize(plan: Plan) -> Callable[[], None]:
    return torch.cuda.synchronize if plan.device == "cuda" else lambda: None


def optional(row: dict[str, Any], name: str, measure: Callable[[], dict[str, Any]]) -> None:
    try:
        row["variants"][name] = measure()
    except Exception as error:  # one variant's failure must not lose the others; the run still ends non-zero
        row["errors"][name] = error_words(error)


def error_words(error: Exception) -> str:
    """An error as it stands in the results: its kind and its first line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:500]


def ratios(row: dict[str, Any], bandwidth: float | None) -> None:
    ours = row["variants"]["robocache"]["cold"]["median"]
    if bandwidth:
        row["bytes_per_second"] = row["bytes"]["total"] / (ours * 1e-6)
        row["floor_us"] = row["bytes"]["total"] / bandwidth * 1e6
        row["share_of_bandwidth"] = row["bytes_per_second"] / bandwidth
    row["speedup"] = {
        name: variant["cold"]["median"] / ours for name, variant in row["variants"].items() if name != "robocache"
    }
