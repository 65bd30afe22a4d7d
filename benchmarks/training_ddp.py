"""Two GPUs against one: `torchrun --nproc-per-node 2 -m benchmarks.training_ddp [--out FILE] [--quick]`.

The same step as the training suite's, with the same batch a GPU (weak scaling). First rank 0 trains alone, then all
ranks train as one, from a ready batch and from robocache.DataLoader, whose ranks share the episodes on disk. Each row
says how many times the samples a second of one GPU all of them reach. Rows: the eager step and the captured one with
DistributedDataParallel ("eager", "graph-ddp"), and the captured one with the example's own GradientAverager ("graph").
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from robocache import datasets

from . import provenance, training
from .measure import CheckFailed, Plan
from .training_measure import Length, host_memory, measure
from .training_step import Step, eager_step, graph_ddp_step, graph_step, make_policy

import synthetic_robot  # isort: skip
import train_data  # isort: skip
from gradients import GradientAverager  # isort: skip
from policy import Policy, Windows, action_loss  # isort: skip

LEAST = 1.95  # times one GPU, that two are asked to reach
FEEDS = ("ready", "loader")
KINDS = {"cuda": ("eager", "graph", "graph-ddp"), "cpu": ("eager",)}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_ddp", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--form", choices=synthetic_robot.FORMS, default="rlds", help="of the dataset (default: rlds)")
    parser.add_argument("--steps", type=int, default=300, help="that are measured (default: 300)")
    parser.add_argument("--quick", action="store_true", help="small everything")
    parser.add_argument(
        "--out", type=Path, help="results file (default benchmarks/results/<machine>/training-<n>gpu.json)"
    )
    return parser.parse_args(arguments)


class Ranks:
    """The processes of the run. Waiting is done through Gloo, so that a rank that waits leaves the device alone."""

    def __init__(self, device: str) -> None:
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")  # its watchdog queries events during a capture
        self.rank, self.world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local = int(os.environ["LOCAL_RANK"])
        self.device = torch.device("cuda", local) if device == "cuda" else torch.device("cpu")
        if device == "cuda":
            torch.cuda.set_device(self.device)
            dist.init_process_group("nccl", device_id=self.device)
        else:
            dist.init_process_group("gloo")
        self._waiting = dist.new_group(backend="gloo")

    def wait(self) -> None:
        dist.barrier(group=self._waiting)

    def gather(self, value: Any) -> list[Any]:
        """The value of every rank, on every rank."""
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value, group=self._waiting)
        return found

    def told(self, value: Any) -> Any:
        """Rank 0's value."""
        return self.gather(value)[0]


def step_of(kind: str, case: training.TrainingCase, ready: Windows, figures: Any, ranks: Ranks, whole: bool) -> Step:
    """A step alone, or of all ranks as one."""
    policy = make_policy(ready, figures, case.sizes(), ranks.device)
    cuda = ranks.device.type == "cuda"
    if not whole:
        return eager_step(policy) if kind == "eager" else graph_step(policy, ready)
    if kind == "graph":
        averager = GradientAverager(policy.parameters())
        check_average(policy, averager, ready, ranks)
        return graph_step(policy, ready, averager)

    def parallel() -> DistributedDataParallel:
        return DistributedDataParallel(
            policy, device_ids=[ranks.device.index] if cuda else None,
            gradient_as_bucket_view=True, static_graph=kind == "eager",
        )  # fmt: skip

    return eager_step(policy, parallel()) if kind == "eager" else graph_ddp_step(policy, ready, parallel)


def check_average(policy: Policy, averager: GradientAverager, ready: Windows, ranks: Ranks) -> None:
    """Gradients of batches that differ by rank, averaged, are the mean of all ranks' own.

    Raises:
        CheckFailed: they are not.
    """
    windows = ready._replace(observation=ready.observation * (1 + ranks.rank), action=ready.action - ranks.rank)
    loss = action_loss(policy(windows.observation, windows.valid), windows.action, windows.action_valid)
    learning = [one for one in policy.parameters() if one.requires_grad]
    mean = [one.detach().clone() for one in torch.autograd.grad(loss, learning, averager.share, retain_graph=True)]
    for one in mean:
        dist.all_reduce(one)
    policy.zero_grad(set_to_none=True)
    loss.backward(averager.share)
    averager.finish()
    for one, wanted in zip(learning, mean, strict=True):
        assert one.grad is not None
        if not (one.grad - wanted).norm() <= 1e-4 * wanted.norm():  # sums in another order
            raise CheckFailed("the averaged gradients are not the mean of all ranks' own")
    policy.zero_grad(set_to_none=True)


def feed_of(
    name: str, case: training.TrainingCase, dataset: datasets.Dataset, ready: Windows, ranks: Ranks, world: int
) -> Any:
    """A rank's feed, alone or of all."""
    if name == "ready":
        return train_data.ReadyFeed(ready)
    plan = Plan(ranks.device.type)
    return training.open_feed(name, case, dataset, ranks.device, plan, ranks.rank if world > 1 else 0, world)


def run_kind(
    kind: str, case: training.TrainingCase, dataset: datasets.Dataset, path: Path, ranks: Ranks, length: Length
) -> dict[str, Any]:
    """One row: alone, then together, by feed."""
    ready = training.first_windows(case, dataset, ranks.device)
    figures = train_data.statistics(dataset, training.shape_of(case, dataset))
    found: dict[str, Any] = {"alone": {}, "together": {}, "times": {}}
    for when, world in (("alone", 1), ("together", ranks.world)):
        if when == "together" or ranks.rank == 0:
            step = step_of(kind, case, ready, figures, ranks, when == "together")
            for name in FEEDS:
                if ranks.rank == 0:
                    training.drop_cached(path)
                feed = feed_of(name, case, dataset, ready, ranks, world)
                try:
                    if world > 1:
                        ranks.wait()
                    figures_here = measure(step, feed, case.batch, ranks.device, length)
                    figures_here["host_memory"] = host_memory()
                finally:
                    feed.close()
                every = [figures_here] if world == 1 else ranks.gather(figures_here)
                # Ranks go in step, so the slowest one's pace is that of all.
                slowest = min(one["samples_per_second"] for one in every)
                found[when][name] = {"samples_per_second": slowest * world, "ranks": every}
            del step
        ranks.wait()
    found["alone"] = ranks.told(found["alone"])
    for name in FEEDS:
        alone, together = (found[when][name]["samples_per_second"] for when in ("alone", "together"))
        found["times"][name] = together / alone
    return found


def run(options: argparse.Namespace, arguments: list[str], ranks: Ranks, save: Callable[[Any], None]) -> None:
    """All rows; what is measured is saved row by row. An error ends all ranks: none may wait for one that is gone."""
    case = training.TrainingCase("training-ddp", form=options.form, rounds=1)
    length = Length(60, options.steps, 0.0)
    if options.quick:
        case, length = case.quick(), Length(3, 10, 0.0)
    results: dict[str, Any] = {"schema": 1, "kind": "training-ddp", "device": options.device, "world": ranks.world}
    results["provenance"] = provenance.provenance(options.device, provenance.without_paths(arguments))
    results["plan"] = {**case.describe(), "warm": length.warm, "steps": length.steps, "least_times": LEAST}
    results["rows"], results["complete"] = {}, False
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        path = str(stack.enter_context(training.on_disk(case))[1]) if ranks.rank == 0 else None
        path = Path(ranks.told(path))
        dataset = stack.enter_context(datasets.open(path, rate=case.robot().rate))
        for kind in KINDS[options.device]:
            if ranks.rank == 0:
                print(f"[{time.monotonic() - begin:6.1f} s] {kind}", file=sys.stderr, flush=True)
            results["rows"][kind] = run_kind(kind, case, dataset, path, ranks, length)
            results["seconds"] = round(time.monotonic() - begin, 1)
            results["complete"] = len(results["rows"]) == len(KINDS[options.device])
            save(results)
        ranks.wait()  # the dataset goes away


def told(results: dict[str, Any]) -> str:
    """A line a row."""
    lines = [f"{results['world']} x {results['provenance'].get('gpu', results['provenance']['cpu'])}"]
    for kind, row in results["rows"].items():
        for name, times in row["times"].items():
            alone, together = (row[when][name]["samples_per_second"] for when in ("alone", "together"))
            verdict = "met" if times >= LEAST else "missed"
            asked = f" ({LEAST} x: {verdict})" if results["world"] == 2 and results["device"] == "cuda" else ""
            rates = f"alone {alone:.0f}, together {together:.0f} samples/s"
            lines.append(f"{kind:6} {name:7} {rates}: {times:.3f} x{asked}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    options = parse(arguments)
    if "WORLD_SIZE" not in os.environ:
        raise SystemExit("expected torchrun: torchrun --nproc-per-node 2 -m benchmarks.training_ddp")
    ranks = Ranks(options.device)
    part = "-quick" if options.quick else ""
    name = f"training-{ranks.world}{'gpu' if options.device == 'cuda' else 'cpu'}{part}"
    path = options.out or provenance.evidence_path(name, options.device)

    def save(results: dict[str, Any]) -> None:
        if ranks.rank == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(results, indent=1) + "\n")
            print(f"{told(results)}\nwritten: {path.name}", flush=True)

    run(options, arguments, ranks, save)
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
