"""The training suite: one policy step, fed by five ways to bring batches to it, from one dataset on disk.

- ready: the same batch again and again, before and after every other feed: the ceiling.
- store: robocache.EpisodeStore. loader: robocache.DataLoader, from disk.
- torch-numpy: a plain PyTorch DataLoader whose workers read the same files and align with NumPy.
- torch-device: the same with raw windows, aligned by torch.compile'd torch on the device.

Feeds take turns in rounds (training_rounds.py): a host whose speed drifts slows a feed and the ceiling beside it alike.
The dataset is written first and dropped from the page cache before each turn. In each turn a batch is compared with
np.interp over the recording before anything is timed, and ours also with robocache.numpy bit for bit.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import robocache
import robocache.numpy
from robocache import datasets

from . import examples_path  # noqa: F401
from .measure import CheckFailed, Plan, Say
from .timing import Timer
from .training_measure import Length, descendants, host_memory, reset_peak, run_segment
from .training_peers import PeerFeed, Steps, WindowStream
from .training_rounds import READY, Turn, take_turns, variants
from .training_step import eager_step, graph_step, make_policy

import synthetic_robot  # isort: skip
import train_data  # isort: skip
from policy import Windows  # isort: skip
from synthetic_robot import ACTION, OBSERVATION, SyntheticRobot  # isort: skip

OURS = ("store", "loader")
PEERS = ("torch-numpy", "torch-device")
_CLOSE = 1e-5  # of np.interp in float64: the kernels and the peers interpolate in float32


@dataclass(frozen=True)
class TrainingCase:
    """One row: a dataset on disk and a step.

    Attributes:
        name: of the row.
        form: of the dataset.
        step: "eager", or "graph": the step as one CUDA graph, so that no launches of its own hide what a feed costs.
        episodes, seconds: of the recording, at 100 Hz.
        features, actions: columns.
        batch, samples, tokens, chunk: windows a step, recorded samples and aligned times of each, actions.
        width, layers, heads, feedforward: of the transformer.
        pool_bytes: of the loader: small, so that pools follow each other while the loop is measured.
        rounds: in which the feeds take turns.
        threads: of torch on the CPU; None leaves them.
        warm, steps, least_seconds: how long a feed is measured; steps and seconds are of all rounds together.
        tags: "gpu", "cpu": where it is measured; "numbers": also with --quick.
    """

    name: str
    form: str = "rlds"
    step: str = "eager"
    episodes: int = 96
    seconds: float = 20.0
    features: int = 256
    actions: int = 14
    batch: int = 32
    samples: int = 500
    tokens: int = 250
    chunk: int = 50
    width: int = 256
    layers: int = 4
    heads: int = 8
    feedforward: int = 1024
    pool_bytes: int = 16 << 20
    rounds: int = 3
    threads: int | None = None
    warm: int = 60
    steps: int = 600
    least_seconds: float = 2.0
    tags: frozenset[str] = frozenset({"gpu"})

    def describe(self) -> dict[str, Any]:
        """The row's facts as they stand in the results."""
        facts = asdict(self)
        del facts["name"], facts["tags"]
        return {**facts, "dataset_bytes": self.robot().nbytes}

    def robot(self) -> SyntheticRobot:
        return SyntheticRobot(self.episodes, self.seconds, features=self.features, actions=self.actions)

    def sizes(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("width", "layers", "heads", "feedforward")}

    def quick(self) -> TrainingCase:
        """The same loop with small everything."""
        return replace(
            self, episodes=8, seconds=2.0, features=16, actions=4, batch=8, samples=50, tokens=25, chunk=5, width=32,
            layers=2, heads=2, feedforward=64, pool_bytes=1 << 16, rounds=min(2, self.rounds), warm=3, steps=20,
            least_seconds=0.0,
        )  # fmt: skip


_BOTH = frozenset({"gpu", "cpu"})
CASES: tuple[TrainingCase, ...] = (
    TrainingCase("training-rlds", tags=_BOTH | {"numbers"}),
    TrainingCase("training-lerobot", form="lerobot_v3.0", tags=_BOTH | {"numbers"}),
    TrainingCase("training-rlds-graph", step="graph"),
)


def select(device: str, pattern: str | None = None) -> list[TrainingCase]:
    """Cases meant for `device` whose name matches one of the comma-separated patterns."""
    tag = "gpu" if device == "cuda" else "cpu"
    patterns = pattern.split(",") if pattern else ["*"]
    chosen = [c for c in CASES if tag in c.tags and any(fnmatch.fnmatch(c.name, p.strip()) for p in patterns)]
    if device == "cuda":
        return chosen
    # A step of the full size takes a CPU seconds: a smaller policy, on a smaller recording. One thread: the others of
    # torch wait in spinning, which takes the cores from what reads ahead and stalls steps of any feed.
    return [
        replace(
            case, episodes=24, features=64, batch=8, samples=100, tokens=50, chunk=10, width=64, layers=2, heads=4,
            feedforward=256, pool_bytes=4 << 20, threads=1, warm=30, steps=300, least_seconds=0.0,
        )
        for case in chosen
    ]  # fmt: skip


# ---- The dataset -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """`count` threads for torch while it lasts; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def on_disk(case: TrainingCase) -> Iterator[tuple[datasets.Dataset, Path]]:
    """The case's dataset, written to a folder that goes away at the end."""
    with tempfile.TemporaryDirectory(prefix="robocache-training-") as name:
        robot = case.robot()
        path = synthetic_robot.write(robot, case.form, Path(name))
        with datasets.open(path, rate=robot.rate) as dataset:
            yield dataset, path


def drop_cached(path: Path) -> None:
    """Writes the files out and asks the system to forget their pages, so that a feed reads them from the disk."""
    for file in path.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            try:
                os.fsync(handle)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)


def shape_of(case: TrainingCase, dataset: datasets.Dataset) -> train_data.WindowShape:
    return train_data.window_shape(dataset, [OBSERVATION], ACTION, case.samples, case.tokens, case.chunk)


def past_ticks(shape: train_data.WindowShape, ticks_per_second: int) -> Any:
    """int64 [T]: the observation's times in ticks from the anchor."""
    return np.array([round(t * ticks_per_second) for t in shape.delta_times()[OBSERVATION]], np.int64)


# ---- The feeds -------------------------------------------------------------------------------------------------------


def open_feed(
    name: str, case: TrainingCase, dataset: datasets.Dataset, device: torch.device, plan: Plan, rank: int = 0,
    world: int = 1,
) -> Any:  # fmt: skip
    """A feed by its name."""
    shape = shape_of(case, dataset)
    if name == "store":
        store = robocache.EpisodeStore.from_dataset(dataset, device, (OBSERVATION, ACTION), show_progress=False)
        return train_data.StoreFeed(store, shape, case.batch, 0, rank)
    if name == "loader":
        return train_data.LoaderFeed(
            robocache.DataLoader(
                dataset, case.batch, delta_times=shape.delta_times(), device=device, pool_bytes=case.pool_bytes,
                show_progress=False, rank=rank, world_size=world,
            ),
            shape,
        )  # fmt: skip
    steps = Steps(past_ticks(shape, dataset.ticks_per_second), case.samples, case.chunk)
    held = max(2, case.pool_bytes // (case.robot().nbytes // case.episodes))
    stream = WindowStream(
        dataset, (OBSERVATION, ACTION), steps, case.batch, name.removeprefix("torch-"), held, 0, rank, world
    )
    workers = max(1, min(12, len(os.sched_getaffinity(0)) // world - 2))
    return PeerFeed(stream, device, workers, plan.compile_modes[0] if plan.compile_modes else None)


def first_windows(case: TrainingCase, dataset: datasets.Dataset, device: torch.device) -> Windows:
    """A batch of the dataset's first frames on: what the ceiling is measured with."""
    rows = [row % len(dataset) for row in range(case.batch)]
    few = datasets.from_arrays([case.robot()[row] for row in sorted(set(rows))], fps=case.robot().rate)
    store = robocache.EpisodeStore.from_dataset(few, device, show_progress=False)
    shape = shape_of(case, few)
    middle = case.seconds / 2
    return shape.windows(store.at(rows, [middle] * case.batch, delta_times=shape.delta_times()))


# ---- Checks ----------------------------------------------------------------------------------------------------------


def check(case: TrainingCase, windows: Windows, episodes: Any, anchors: Any, past: Any, exact: bool) -> int:
    """Compares windows with the recording as it was made; returns how many.

    Args:
        case: the row.
        windows: a batch.
        episodes, anchors: [B] which episode each is of, and its anchor in nanoseconds.
        past: [T] nanoseconds from the anchor.
        exact: also compare the bits with those of robocache.numpy.
    """
    robot = case.robot()
    step = 10**9 // robot.rate
    rows = np.linspace(0, len(anchors) - 1, min(len(anchors), 8)).astype(int)
    for row in rows:
        made = robot[int(episodes[row])]
        times = np.arange(robot.samples, dtype=np.int64) * step
        targets = int(anchors[row]) + past
        got = windows.observation[row].cpu().numpy()
        seen = made[OBSERVATION].astype(np.float64)
        want = np.stack([np.interp(targets, times, column) for column in seen.T], 1)
        _close(got, want, f"{case.name}: observation of window {row}")
        if exact:
            same = robocache.numpy.resample_trajectories(made[OBSERVATION], times, targets)
            if same.tobytes() != got.tobytes():
                raise CheckFailed(f"{case.name}: observation of window {row} has other bits than robocache.numpy")
        frames = int(anchors[row]) // step + np.arange(case.chunk)
        _close(
            windows.action[row].cpu().numpy(), made[ACTION][np.minimum(frames, robot.samples - 1)],
            f"{case.name}: action of window {row}",
        )  # fmt: skip
        masks = (windows.valid[row].cpu().numpy(), windows.action_valid[row].cpu().numpy())
        for found, wanted in zip(masks, (targets >= 0, frames < robot.samples), strict=True):
            if not np.array_equal(found, wanted):
                raise CheckFailed(f"{case.name}: a mask of window {row} is wrong")
    return len(rows)


def _close(got: Any, want: Any, what: str) -> None:
    if got.shape != want.shape:
        raise CheckFailed(f"{what}: expected {list(want.shape)}, got {list(got.shape)}")
    error = float(np.abs(got - want).max())
    if not error <= _CLOSE * max(1.0, float(np.abs(want).max())):
        raise CheckFailed(f"{what}: off by {error:.3g}")


def checked(name: str, feed: Any, case: TrainingCase, dataset: datasets.Dataset) -> int:
    """Takes a batch of a feed and checks it."""
    shape, past = shape_of(case, dataset), past_ticks(shape_of(case, dataset), dataset.ticks_per_second)
    if name == "store":
        batch = feed.store.sample(case.batch, delta_times=shape.delta_times())
        windows, episodes, anchors = shape.windows(batch), batch.episode, batch.time
    elif name == "loader":
        batch = next(feed.loader)
        windows, episodes, anchors = shape.windows(batch), batch.episode, batch.time
    else:
        windows = next(feed)
        episodes, anchors = feed.last["episode"], feed.last["time"]
    scale = dataset.ticks_per_second // 10**9  # exact: the ticks of every dataset are whole parts of a nanosecond
    nanoseconds = anchors.cpu().numpy() // scale
    return check(case, windows, episodes.cpu().numpy(), nanoseconds, past // scale, name in OURS)


# ---- A row -----------------------------------------------------------------------------------------------------------


def run_case(case: TrainingCase, plan: Plan, timer: Timer, ceiling: float | None, say: Say) -> dict[str, Any]:
    """Measures one row; a feed that fails is noted as an error beside the others, and is not in the row."""
    del timer, ceiling
    device = torch.device(plan.device)
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    row: dict[str, Any] = {"name": case.name, **case.describe(), "variants": {}, "errors": {}, "checked": {}}
    length = Length(case.warm, case.steps, case.least_seconds).part(case.rounds)
    begin = time.monotonic()
    with on_disk(case) as (dataset, path), torch_threads(case.threads):
        row["disk_bytes"] = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        row["written_s"] = round(time.monotonic() - begin, 1)
        say(f"{row['disk_bytes'] / 1e6:.0f} MB written in {row['written_s']} s")
        ready = first_windows(case, dataset, device)
        figures = train_data.statistics(dataset, shape_of(case, dataset))
        policy = make_policy(ready, figures, case.sizes(), device)
        row["parameters"] = sum(one.numel() for one in policy.parameters())
        step = graph_step(policy, ready) if case.step == "graph" else eager_step(policy)

        def take(name: str) -> Turn:
            drop_cached(path)
            fresh, others = reset_peak(), descendants(os.getpid())
            started = time.monotonic()
            feed = train_data.ReadyFeed(ready) if name == READY else open_feed(name, case, dataset, device, plan)
            try:
                if name != READY:
                    row["checked"][name] = row["checked"].get(name, 0) + checked(name, feed, case, dataset)
                prepared = time.monotonic() - started
                segment = run_segment(step, feed, device, length)
                return Turn(name, segment, round(prepared, 2), {**host_memory(others), "peak_is_fresh": fresh})
            finally:
                feed.close()

        # Peers are far from the ceiling, and their processes take longer to start than their steps to be measured.
        peers = () if plan.ours_only else PEERS
        rounds = take_turns(case.rounds, OURS, take, row["errors"], say, once=peers)
        row["variants"] = variants(rounds, case.batch, row["errors"])
    row["compiled"] = plan.compile_modes[0] if plan.compile_modes else None
    row["measured_s"] = round(time.monotonic() - begin, 1)
    return row
