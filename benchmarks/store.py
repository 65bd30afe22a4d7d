"""The store suite: windows drawn from an EpisodeStore against per-item indexing of the same recordings.

Times are wall times of a call in a plain Python loop with one synchronisation at its end: what a training loop waits
for. Beside them stands the device's own time, by CUDA-graph replay.
"""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

import robocache
from robocache import EpisodeStore, WindowBatch
from robocache.datasets import Dataset, from_arrays

from .measure import CheckFailed, Plan, Say, optional, ratios, synchronize
from .store_peers import FrameTable, IndexedFrames, LeRobotItems
from .timing import Stats, Timer, summarize

FPS = 30
# name: (rate, columns, kind): arm and camera features on frames, wrist force, IMU, gripper
STREAMS = {
    "state": (30, 14, "linear"),
    "force": (100, 6, "linear"),
    "imu": (200, 6, "linear"),
    "gripper": (10, 2, "previous"),
}
_CALLS = 50  # of ours between two synchronisations
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class StoreCase:
    """One row: what is stored and what is drawn.

    Attributes:
        name: of the row.
        batch, horizon: windows of a draw and steps of a window.
        dtype: of the stored values.
        anchors: "frames" or "times".
        spilled: share of the values and times that does not fit and spills to host memory.
        episodes, seconds: how many recordings, and how long each is.
        tags: "gpu", "cpu": where it is measured; "numbers": also with --quick.
    """

    name: str
    batch: int = 4096
    horizon: int = 16
    dtype: str = "float32"
    anchors: str = "frames"
    spilled: float = 0.0
    episodes: int = 200
    seconds: float = 20.0
    tags: frozenset[str] = frozenset({"gpu"})

    def describe(self) -> dict[str, Any]:
        """The row's facts as they stand in the results."""
        facts = asdict(self)
        del facts["name"], facts["tags"]
        return {**facts, "streams": {name: list(spec) for name, spec in STREAMS.items()}}


_BOTH = frozenset({"gpu", "cpu"})
CASES: tuple[StoreCase, ...] = (
    StoreCase("store-4096x16-4", tags=_BOTH | {"numbers"}),
    StoreCase("store-4096x16-4-bf16", dtype="bfloat16"),
    StoreCase("store-4096x16-4-offgrid", anchors="times", tags=_BOTH),
    StoreCase("store-4096x16-4-spilled", spilled=0.5),
    StoreCase("store-256x16-4", batch=256, tags=_BOTH),
)


def select(device: str, pattern: str | None = None) -> list[StoreCase]:
    """Cases meant for `device` whose name matches one of the comma-separated patterns."""
    tag = "gpu" if device == "cuda" else "cpu"
    patterns = pattern.split(",") if pattern else ["*"]
    return [c for c in CASES if tag in c.tags and any(fnmatch.fnmatch(c.name, p.strip()) for p in patterns)]


def recordings(case: StoreCase) -> Dataset:
    """Episodes with a clock a stream: even stamps, started at a random fraction of a step."""
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(case.episodes):
        episode: dict[str, Any] = {}
        for name, (rate, columns, _) in STREAMS.items():
            samples = int(case.seconds * rate)
            values = rng.standard_normal((samples, columns), np.float32)
            step = 10**9 // rate
            stamps = np.arange(samples, dtype=np.int64) * step + int(rng.integers(0, step))
            episode[name] = values if rate == FPS else (values, stamps)
        episodes.append(episode)
    rates = {name: rate for name, (rate, _, _) in STREAMS.items()}
    return from_arrays(episodes, fps=FPS, rates=rates, kinds={name: kind for name, (_, _, kind) in STREAMS.items()})


def build(case: StoreCase, dataset: Dataset, device: str) -> EpisodeStore:
    """The case's store."""
    options: dict[str, Any] = {"dtype": _DTYPES[case.dtype], "show_progress": False}
    if case.spilled:
        samples = sum(
            int(case.seconds * rate) * (columns * options["dtype"].itemsize + 8)
            for rate, columns, _ in STREAMS.values()
        )
        options["max_bytes"] = int(samples * case.episodes * (1 - case.spilled))
    return EpisodeStore.from_dataset(dataset, device, **options)


def wall(call: Callable[[], Any], repeats: int, calls: int, wait: Callable[[], None], budget_s: float) -> Stats:
    """Microseconds a call, over `repeats` rounds of `calls` calls and one synchronisation; fewer of slow ones."""
    for _ in range(2):
        call()
    wait()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < repeats and (len(times) < 5 or time.perf_counter() - begin < budget_s):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        wait()
        times.append((time.perf_counter() - start) * 1e6 / calls)
    return summarize(times, calls)


def check(case: StoreCase, store: EpisodeStore, batch: WindowBatch, table: FrameTable) -> dict[str, Any]:
    """Ours against LeRobot's rule on the frames' stream, and against the plain torch reference on all."""
    if case.anchors == "frames":
        frame = batch.time.cpu() * FPS // store.ticks_per_second
        want, pad = table.windows("state", batch.episode.cpu(), frame, list(range(case.horizon)))
        if not torch.equal(batch["state"].cpu(), want.to(batch.values.dtype)):
            raise CheckFailed("state: windows on frames are not LeRobot's")
        if not torch.equal(batch.is_pad("state").cpu(), pad):
            raise CheckFailed("state: is_pad is not LeRobot's")
    few = slice(0, 64)
    rows, targets = batch.episode[few].cpu(), batch.times[few].cpu()
    streams = []
    for name in STREAMS:
        stored = [store.episode(int(row)).streams[name] for row in rows]
        splits = torch.tensor([0, *(len(t) for _, t in stored)]).cumsum(0)
        values, times = torch.cat([v.cpu() for v, _ in stored]), torch.cat([t.cpu() for _, t in stored])
        streams.append(robocache.Stream(values, times, STREAMS[name][2], row_splits=splits))
    values, valid = robocache.fuse_multimodal(streams, targets, return_valid=True, backend="torch")
    if not torch.equal(batch.values[few].cpu(), values) or not torch.equal(batch.valid[few].cpu(), valid):
        raise CheckFailed("windows are not the reference's")
    return {"windows": len(batch), "reference": 64}


def _bytes(store: EpisodeStore, batch: WindowBatch) -> dict[str, int]:
    """Bytes of the outputs, and of two samples (one, of a kind that holds) for each of their values."""
    out = batch.values.nbytes + batch.valid.nbytes
    read = sum(
        (2 if kind == "linear" else 1) * batch[name].numel() * batch[name].element_size()
        for name, (_, _, kind) in STREAMS.items()
    )
    return {"out": out, "values": read, "total": out + read}


def _peers(case: StoreCase, plan: Plan, table: FrameTable) -> dict[str, tuple[Callable[[], Any], int]]:
    """Peers by name, and their calls between two synchronisations."""
    if plan.ours_only or case.anchors != "frames" or case.spilled:
        return {}
    deltas = {name: list(range(case.horizon)) for name in STREAMS}
    indexed = IndexedFrames(table, plan.device)
    return {
        "lerobot-style": (LeRobotItems(table, deltas, plan.device).batch(case.batch), 1),
        "torch-index": (lambda: indexed.draw(case.batch, case.horizon), _CALLS),
    }


def run_case(case: StoreCase, plan: Plan, timer: Timer, bandwidth: float | None, say: Say) -> dict[str, Any]:
    """One row of the results."""
    row: dict[str, Any] = {"name": case.name, **case.describe(), "variants": {}, "errors": {}}
    dataset = recordings(case)
    store = build(case, dataset, plan.device)
    row["store"] = {"bytes": store.nbytes, "spilled_bytes": store.spilled_bytes, "frames": store.frames}
    table = FrameTable(dataset, tuple(STREAMS), FPS, _DTYPES[case.dtype])
    wait = synchronize(plan)

    def draw() -> WindowBatch:
        return store.sample(case.batch, case.horizon, anchors=case.anchors)

    batch = draw()
    row["check"] = [check(case, store, batch, table)]
    row["bytes"] = _bytes(store, batch)
    say("robocache")
    calls = _CALLS if plan.device == "cuda" else 2
    ours = {"cold": wall(draw, plan.repeats, calls, wait, 5.0).as_dict()}
    if plan.device == "cuda":
        ours["device"] = timer.measure([draw], plan.repeats).as_dict()
        robocache.check()
    row["variants"]["robocache"] = ours
    for name, (call, together) in _peers(case, plan, table).items():
        say(name)
        calls = together if plan.device == "cuda" else min(together, 2)
        optional(row, name, lambda c=call, n=calls: {"cold": wall(c, plan.repeats, n, wait, 10.0).as_dict()})
    ratios(row, None)
    return row
