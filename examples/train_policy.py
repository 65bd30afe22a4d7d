"""Trains a transformer policy on recordings: aligned observation windows in, chunks of actions out.

Without a path it writes a synthetic robot to disk first, 256 features at 100 Hz, and trains on that: windows of 500
samples aligned to 250 times, batches of 32. One process, or one a GPU with torchrun.

    python examples/train_policy.py
    python examples/train_policy.py path/to/dataset --samples 20 --tokens 10 --chunk 4 --source store
    torchrun --nproc-per-node 2 examples/train_policy.py path/to/dataset --checkpoint out/policy.pt --resume
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import checkpoint
import report
import synthetic_robot
import torch
import torch.distributed as dist
import train_data
from captured import CapturedStep
from gradients import GradientAverager
from policy import Policy, Windows, make_optimizer, training_step
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import robocache


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("dataset", type=Path, nargs="?", help="an RLDS or LeRobot dataset; without one, a synthetic robot is written")
    add("--source", "--data-source", dest="source", choices=train_data.SOURCES, default="loader",
        help="store: the whole dataset in device memory; loader: from disk; ready: one batch again and again, the "
        "ceiling (default: loader)")  # fmt: skip
    add("--steps", type=int, default=200, help="training steps in all, with those before --resume (default: 200)")
    add("--batch", type=int, default=32, help="windows of a step and a process (default: 32)")
    window = parser.add_argument_group("windows")
    add = window.add_argument
    add("--samples", type=int, default=500, help="recorded samples that a window spans (default: 500)")
    add("--tokens", type=int, default=250, help="times that they are aligned to (default: 250)")
    add("--chunk", type=int, default=50, help="actions that are predicted at once (default: 50)")
    add("--observation", nargs="+", metavar="STREAM", help="streams to see (default: all vectors named observation...)")
    add("--action", metavar="STREAM", help="stream to predict (default: action)")
    add("--rate", type=float, help="samples per second, where the dataset does not tell")
    add("--split", help="of the dataset (default: all)")
    add("--skip-damaged", action="store_true", help="pass over episodes that are missing or damaged, and count them")
    model = parser.add_argument_group("model and optimisation")
    add = model.add_argument
    add("--width", type=int, default=256, help="of the transformer (default: 256)")
    add("--layers", type=int, default=4, help="of the transformer (default: 4)")
    add("--heads", type=int, default=8, help="of the transformer (default: 8)")
    add("--feedforward", type=int, default=1024, help="of the transformer (default: 1024)")
    add("--learning-rate", type=float, default=3e-4, help="of AdamW, after --warmup steps (default: 3e-4)")
    add("--warmup", type=int, default=20, help="steps until the learning rate is reached (default: 20)")
    add("--seed", type=int, default=0, help="of weights, order and draws (default: 0)")
    add("--compile", action="store_true", help="compile the policy with torch.compile")
    add("--graph", action="store_true", help="record the step as one CUDA graph, which takes the host out of it")
    made = parser.add_argument_group("synthetic robot")
    add = made.add_argument
    add("--form", choices=synthetic_robot.FORMS, default="rlds", help="how it is written (default: rlds)")
    add("--episodes", type=int, default=20, help="how many (default: 20)")
    add("--seconds", type=float, default=20.0, help="how long each is (default: 20)")
    add("--features", type=int, default=256, help="columns of an observation, at 100 Hz (default: 256)")
    run = parser.add_argument_group("run")
    add = run.add_argument
    add("--device", choices=("auto", "cuda", "cpu"), default="auto", help="(default: cuda where there is one)")
    add("--workers", type=int, help="that read episodes (default: the cores, at most 8)")
    add("--checkpoint", type=Path, help="file to save to, at the end and every --save-every steps")
    add("--save-every", type=int, default=0, metavar="STEPS", help="0 saves at the end alone (default: 0)")
    add("--resume", action="store_true", help="go on from --checkpoint")
    add("--log-every", type=int, default=10, metavar="STEPS", help="the loss is fetched so often (default: 10)")
    add("--out", type=Path, default=Path("out"), help="folder of the plot and the synthetic robot (default: out)")
    add("--no-progress", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    for name in ("steps", "batch", "samples", "tokens", "chunk", "width", "layers", "heads", "feedforward", "warmup",
                 "episodes", "features", "log_every"):  # fmt: skip
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: expected 1 or more, got {getattr(options, name)}")
    if options.save_every < 0 or options.seed < 0:
        parser.error("--save-every, --seed: expected 0 or more")
    if not 0 < options.learning_rate < float("inf"):
        parser.error(f"--learning-rate: expected a positive number, got {options.learning_rate}")
    for name in ("rate", "seconds"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            parser.error(f"--{name}: expected a positive number, got {value}")
    if options.workers is not None and options.workers < 1:
        parser.error(f"--workers: expected 1 or more, got {options.workers}")
    if options.width % options.heads:
        parser.error(f"--width: expected a multiple of --heads {options.heads}, got {options.width}")
    if options.resume and options.checkpoint is None:
        parser.error("--resume: expected --checkpoint beside it")
    return options


@dataclass(frozen=True)
class Place:
    """Where this process runs, and which of how many it is."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()


@contextlib.contextmanager
def joined(name: str) -> Any:
    """This process's place. Under torchrun it joins the others: NCCL on CUDA, Gloo on the CPU."""
    device = report.choose_device(name)
    if "WORLD_SIZE" not in os.environ:
        yield Place(device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    try:
        yield Place(device, dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def told_plainly() -> Iterator[None]:
    """An argument that does not fit the dataset ends the run with what it is, not with a traceback."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from None


def open_dataset(options: argparse.Namespace, place: Place) -> robocache.datasets.Dataset:
    """The dataset that was asked for; the synthetic one is written by the first process."""
    path, rate = options.dataset, options.rate
    if path is None:
        robot = synthetic_robot.SyntheticRobot(options.episodes, options.seconds, features=options.features)
        folder = options.out / f"synthetic-{robot.episodes}x{robot.seconds:g}s-{robot.features}"
        path, rate = synthetic_robot.place(options.form, folder), robot.rate
        if place.first and not path.exists():
            print(f"writing {robot.nbytes / 1e6:.0f} MB to {path}")
            synthetic_robot.write(robot, options.form, folder)
        place.barrier()
    on_error = "skip" if options.skip_damaged else "raise"
    with told_plainly():
        return robocache.datasets.open(path, split=options.split, rate=rate, on_error=on_error)


@dataclass
class Run:
    """A training run of one process."""

    options: argparse.Namespace
    place: Place
    policy: Policy
    model: nn.Module
    optimizer: torch.optim.Optimizer
    feed: train_data.Feed
    settings: dict[str, Any]
    averager: GradientAverager | None = None
    step: int = 0
    losses: list[float] = field(default_factory=list)
    _unread: list[torch.Tensor] = field(default_factory=list)

    def train(self) -> None:
        """Steps from where the run stands to --steps."""
        one_step = self._one_step()
        bar = progress_bar(self.options, self.place, self.step)
        begin, first = time.perf_counter(), self.step
        while self.step < self.options.steps:
            self._learning_rate()
            self._unread.append(one_step(next(self.feed)))
            self.step += 1
            last = self.step == self.options.steps
            if last or self.step % self.options.log_every == 0:
                self._read_losses()
                rate = (self.step - first) * self.options.batch * self.place.world / (time.perf_counter() - begin)
                bar.set_postfix_str(told(self.losses[-1], rate, self.feed.shares()), refresh=False)
            bar.update()
            if self.options.checkpoint and (
                last or (self.options.save_every and self.step % self.options.save_every == 0)
            ):
                self.save()
        bar.close()

    def _one_step(self) -> Callable[[Windows], torch.Tensor]:
        """The step as it stands, or recorded. What is recorded is of blank windows, before the feed is at work."""
        if not self.options.graph:
            return partial(training_step, self.model, self.policy, self.optimizer)
        tokens, features, chunk, actions = (
            self.settings[name] for name in ("tokens", "observation", "chunk", "action")
        )
        blank = train_data.blank_windows(self.options.batch, tokens, features, chunk, actions, self.place.device)
        captured = CapturedStep(self.policy, self.optimizer, blank, averager=self.averager)
        return lambda windows: captured(windows).clone()

    def _learning_rate(self) -> None:
        """A function of the step alone, so that it needs no state."""
        rate = self.options.learning_rate * min(1.0, (self.step + 1) / self.options.warmup)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):  # where a recorded step reads it
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _read_losses(self) -> None:
        """Fetches the losses since the last time: the only wait for the device in the loop."""
        if not self._unread:
            return
        found = torch.stack(self._unread)
        if self.place.world > 1:
            dist.all_reduce(found)
            found /= self.place.world
        self._unread = []
        self.losses += found.tolist()
        if not torch.isfinite(found).all():
            raise SystemExit(f"error: the loss is {self.losses[-1]} near step {self.step}")

    def save(self) -> None:
        """Writes the checkpoint, once for all ranks: every one of them stands at the same place."""
        self._read_losses()
        if self.place.first:
            checkpoint.save(
                self.options.checkpoint,
                self.step,
                self.settings,
                self.policy.state_dict(),
                self.optimizer.state_dict(),
                self.feed.state_dict(),
                self.losses,
            )
        self.place.barrier()

    def resume(self) -> None:
        """Goes on from the checkpoint."""
        found = checkpoint.load(self.options.checkpoint, self.settings)
        self.policy.load_state_dict(found["policy"])
        for group, own in zip(found["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True):
            # As this run's device and --graph ask for, whatever the checkpoint was made with.
            group.update({name: own[name] for name in ("lr", "fused", "capturable")})
        self.optimizer.load_state_dict(found["optimizer"])
        try:
            self.feed.load_state_dict(found["feed"])
        except (TypeError, ValueError) as error:  # the position is one in other data
            raise checkpoint.CheckpointError(f"{self.options.checkpoint}: {error}") from error
        self.step, self.losses = found["step"], found["losses"]


def told(loss: float, rate: float, shares: Any) -> str:
    """What stands behind the bar."""
    waited = f", waited {shares['wait']:.1%}" if shares else ""
    parts = "".join(f" {name} {shares[name]:.1%}" for name in ("disk", "decode", "copy", "align") if shares.get(name))
    return f"loss {loss:.4f}, {rate:.0f} samples/s{waited}{':' if parts else ''}{parts}"


def progress_bar(options: argparse.Namespace, place: Place, step: int) -> Any:
    from tqdm import tqdm

    show = place.first and not options.no_progress
    return tqdm(total=options.steps, initial=step, desc="train", unit="step", dynamic_ncols=True, disable=not show)


def start(options: argparse.Namespace, place: Place, dataset: robocache.datasets.Dataset) -> Run:
    """Everything that training needs, at step 0."""
    with told_plainly():
        shape = train_data.window_shape(
            dataset, options.observation, options.action, options.samples, options.tokens, options.chunk
        )
        figures = train_data.statistics(dataset, shape)
    sizes = {"observation": len(figures["observation_mean"]), "action": len(figures["action_mean"])}
    form = {name: getattr(options, name) for name in ("tokens", "chunk", "width", "layers", "heads", "feedforward")}
    torch.manual_seed(options.seed)  # the same weights on every rank
    policy = Policy(**sizes, **form)
    for name, value in figures.items():
        getattr(policy, name).copy_(torch.from_numpy(value))
    policy.to(place.device)
    if options.graph and place.device.type != "cuda":
        raise SystemExit(f"error: --graph: expected a CUDA device, got {place.device}")
    if options.compile:
        policy.compile()
    model: nn.Module = policy
    averager = None
    if place.world > 1 and options.graph:
        averager = GradientAverager(policy.parameters())
    elif place.world > 1:
        model = DistributedDataParallel(
            policy, device_ids=[place.device.index] if place.device.type == "cuda" else None,
            gradient_as_bucket_view=True, static_graph=True,
        )  # fmt: skip
    with told_plainly():
        feed = train_data.open_feed(
            options.source, dataset, shape, options.batch, place.device, options.seed, place.rank, options.workers,
            show_progress=place.first and not options.no_progress,
        )  # fmt: skip
    settings = {**sizes, **form, "source": options.source, "samples": options.samples, "seed": options.seed,
                "rate": str(shape.rate), "episodes": len(dataset),
                "streams": ", ".join((*shape.observation, shape.action))}  # fmt: skip
    optimizer = make_optimizer(policy, options.learning_rate, capturable=options.graph)
    return Run(options, place, policy, model, optimizer, feed, settings, averager)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    with joined(options.device) as place:
        try:
            if options.checkpoint and place.first:
                checkpoint.probe(options.checkpoint)
            dataset = open_dataset(options, place)
            run = start(options, place, dataset)
            try:
                if options.resume:
                    run.resume()
                if place.first:
                    count = sum(one.numel() for one in run.policy.parameters())
                    print(
                        f"{dataset}\n{count / 1e6:.1f} M parameters, {place.world} x {place.device}, {options.source}"
                    )
                begin, first = time.perf_counter(), run.step
                run.train()
                if place.first:
                    summary(run, run.step - first, time.perf_counter() - begin)
            finally:
                run.feed.close()
        except (checkpoint.CheckpointError, robocache.datasets.DatasetError) as error:
            raise SystemExit(f"error: {error}") from None
    return 0


def summary(run: Run, steps: int, seconds: float) -> None:
    """What is printed and drawn at the end."""
    import train_plots

    options, shares = run.options, run.feed.shares()
    rate = steps * options.batch * run.place.world / max(seconds, 1e-9)
    if run.losses:
        tenth = max(1, len(run.losses) // 10)
        ends = [sum(part) / tenth for part in (run.losses[:tenth], run.losses[-tenth:])]
        print(f"loss: {ends[0]:.4f} over the first {tenth} steps, {ends[1]:.4f} over the last")
        figure = options.out / "train_policy.png"
        train_plots.save_losses(run.losses, f"Transformer policy, {options.source}", figure)
        print(f"plot: {figure}")
    print(told(run.losses[-1] if run.losses else float("nan"), rate, shares))
    if options.checkpoint:
        print(f"checkpoint: {options.checkpoint} at step {run.step}")


if __name__ == "__main__":
    sys.exit(main())
