"""Training on the device: the example learns and resumes there, batches have the CPU's bits, no step waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import robocache
from benchmarks import measure, timing, training, training_step
from robocache import datasets

from .backends import assert_same_bits
from .training_runs import saved, train

import train_data  # isort: skip
from captured import CapturedStep  # isort: skip
from policy import training_step as one_step  # isort: skip

pytestmark = pytest.mark.gpu

TINY = replace(training.CASES[0].quick(), name="training-tiny", form="lerobot_v2.1", steps=6, warm=2)
PLAN = measure.Plan("cuda", repeats=3, compile_modes=())


@pytest.fixture(scope="module")
def dataset() -> Iterator[datasets.Dataset]:
    with training.on_disk(TINY) as (found, _):
        yield found


@pytest.mark.parametrize("source", train_data.SOURCES)
def test_a_policy_learns_and_resumes_on_the_device(source: str, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.pt", tmp_path / "part.pt"
    before = robocache.launch_counts()
    wide = {"device": "cuda", "source": source, "learning_rate": 5e-3}
    assert train(tmp_path, steps=60, checkpoint=whole, **wide) == 0
    launched = {name for name, count in robocache.launch_counts().items() if count > before.get(name, 0)}
    assert any("cuda" in name for name in launched)
    losses = saved(whole)["losses"]
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])
    train(tmp_path, steps=30, checkpoint=part, **wide)
    train(tmp_path, "--resume", steps=60, checkpoint=part, **wide)
    # The windows are the same to the bit; the backward pass may add up its sums in another order, which grows.
    again = saved(part)["losses"]
    assert len(again) == 60
    np.testing.assert_allclose(again[30:36], losses[30:36], rtol=0.1, atol=0.02)


@pytest.mark.parametrize("source", ["store", "loader"])
def test_batches_of_training_have_the_cpus_bits(source: str, dataset: datasets.Dataset) -> None:
    shape = training.shape_of(TINY, dataset)
    found: list[Any] = []
    for device in ("cpu", "cuda"):
        if source == "store":
            store = robocache.EpisodeStore.from_dataset(dataset, device, show_progress=False)
            batch = store.at([0, 3, 7], [0.0, 1.0, 1.97], delta_times=shape.delta_times())
            found.append([shape.windows(batch)])
            continue
        feed = training.open_feed("loader", TINY, dataset, torch.device(device), PLAN)
        try:
            found.append([type(w)(*(t.clone() for t in w)) for w in (next(feed) for _ in range(20))])
        finally:
            feed.close()
    for want, got in zip(*found, strict=True):
        assert not want.action_valid.all() or source == "loader"
        for one, two in zip(want, got, strict=True):
            assert_same_bits(two.cpu(), one)


@pytest.mark.parametrize("source", ["store", "loader"])
def test_no_step_waits_for_the_device(source: str, dataset: datasets.Dataset) -> None:
    """Steps are queued behind work that takes long, and all are there before it is done. No queue fills."""
    device = torch.device("cuda", torch.cuda.current_device())
    feed = training.open_feed(source, replace(TINY, pool_bytes=1 << 26), dataset, device, PLAN)
    try:
        ready = training.first_windows(TINY, dataset, device)
        figures = train_data.statistics(dataset, training.shape_of(TINY, dataset))
        policy = training_step.make_policy(ready, figures, TINY.sizes(), device)
        step = training_step.eager_step(policy)
        for _ in range(7):  # a store draws for eight steps at once: the last of them is near
            step(next(feed))  # what is made once: the first pool, the optimizer's state, memory
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        torch.cuda._sleep(2_000_000_000)  # cycles: about a second
        slept = torch.cuda.Event()
        slept.record()
        for _ in range(3):
            step(next(feed))
        assert not slept.query()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        feed.close()


def test_a_captured_step_is_the_eager_one(dataset: datasets.Dataset) -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    ready = training.first_windows(TINY, dataset, device)
    figures = train_data.statistics(dataset, training.shape_of(TINY, dataset))
    policies = [training_step.make_policy(ready, figures, TINY.sizes(), device) for _ in range(2)]
    graph = training_step.graph_step(policies[0], ready)
    eager = training_step.eager_step(policies[1])
    for one, two in zip(policies[0].parameters(), policies[1].parameters(), strict=True):
        assert torch.equal(one, two)  # the capture's own steps leave no trace
    for _ in range(10):
        losses = graph(ready).clone(), eager(ready)
        torch.testing.assert_close(losses[0], losses[1], rtol=0.02, atol=1e-3)
    assert not torch.equal(
        policies[0].head.weight, training_step.make_policy(ready, figures, TINY.sizes(), device).head.weight
    )


def test_a_captured_step_follows_its_learning_rate_and_its_state(dataset: datasets.Dataset) -> None:
    """A rate of zero changes nothing; a policy that trained before goes on as the eager one does."""
    device = torch.device("cuda", torch.cuda.current_device())
    ready = training.first_windows(TINY, dataset, device)
    policies = [training_step.make_policy(ready, {}, TINY.sizes(), device) for _ in range(2)]
    optimizers = [training_step.make_optimizer(policy, 1e-3, capturable=True) for policy in policies]
    for policy, optimizer in zip(policies, optimizers, strict=True):
        for _ in range(5):
            one_step(policy, policy, optimizer, ready)
    step = CapturedStep(policies[0], optimizers[0], ready)
    for _ in range(5):
        step(ready)
        one_step(policies[1], policies[1], optimizers[1], ready)
    for one, two in zip(policies[0].parameters(), policies[1].parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0.02, atol=2e-3)
    optimizers[0].param_groups[0]["lr"].fill_(0.0)
    before = [one.detach().clone() for one in policies[0].parameters()]
    step(ready)
    assert all(torch.equal(one, two) for one, two in zip(before, policies[0].parameters(), strict=True))
    with pytest.raises(ValueError, match="capturable"):
        CapturedStep(policies[1], training_step.make_optimizer(policies[1], 1e-3), ready)


@pytest.mark.parametrize("source", ["store", "loader"])
def test_the_example_trains_with_a_captured_step(source: str, tmp_path: Path) -> None:
    """It learns as the eager run does, and either goes on from the other's checkpoint."""
    found = {}
    for name, more in (("eager", ()), ("graph", ("--graph",))):
        path = tmp_path / f"{name}.pt"
        train(tmp_path, *more, device="cuda", source=source, steps=12, checkpoint=path)
        found[name] = saved(path)
    np.testing.assert_allclose(found["graph"]["losses"], found["eager"]["losses"], rtol=0.05)
    assert found["graph"]["losses"][-1] < found["graph"]["losses"][0]
    train(tmp_path, "--resume", device="cuda", source=source, steps=16, checkpoint=tmp_path / "graph.pt")
    train(tmp_path, "--resume", "--graph", device="cuda", source=source, steps=16, checkpoint=tmp_path / "eager.pt")
    ends = [saved(tmp_path / f"{name}.pt")["losses"] for name in ("graph", "eager")]
    assert len(ends[0]) == len(ends[1]) == 16
    np.testing.assert_allclose(ends[0], ends[1], rtol=0.08)


@pytest.mark.parametrize("kind", ["eager", "graph"])
def test_a_row_is_measured_on_the_device(kind: str) -> None:
    case = replace(TINY, step=kind, steps=30)
    row = training.run_case(case, PLAN, timing.WallTimer(), None, lambda text: None)
    assert not row["errors"] and set(row["checked"]) == {*training.OURS, *training.PEERS}
    for name, found in row["variants"].items():
        rounds = 1 if name in training.PEERS else 2
        assert 0 < found["busy"] <= 1 and found["cold"]["repeats"] >= 15 * rounds
        assert len(found["of_ceiling_rounds"]) == rounds
        assert found["smi_percent"] is not None or found["smi_reason"]


def test_the_step_leaves_nothing_behind(dataset: datasets.Dataset) -> None:
    """Memory in use is the same after the tenth step as after the hundredth."""
    device = torch.device("cuda", torch.cuda.current_device())
    ready = training.first_windows(TINY, dataset, device)
    policy = training_step.make_policy(ready, {}, TINY.sizes(), device)
    optimizer = training_step.make_optimizer(policy, 1e-3)
    feed = training.open_feed("store", TINY, dataset, device, PLAN)
    used = []
    for number in range(100):
        one_step(policy, policy, optimizer, next(feed))
        if number in (10, 99):
            torch.cuda.synchronize()
            used.append(torch.cuda.memory_allocated(device))
    assert used[0] == used[1]
