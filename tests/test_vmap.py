"""torch.vmap and torch.func: equal to a loop, and where the samples stay put, one launch."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import robocache

MANY, BATCH, SAMPLES, COLUMNS, TARGETS = 3, 2, 8, 4, 5


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(5)


def random_inputs(batched: dict[str, bool], shared_times: bool, shared_targets: bool) -> dict[str, Tensor]:
    def shape(name: str, *sizes: int) -> tuple[int, ...]:
        return (MANY, *sizes) if batched[name] else sizes

    times = shape("times", *(() if shared_times else (BATCH,)), SAMPLES)
    targets = shape("target_times", *(() if shared_targets else (BATCH,)), TARGETS)
    return {
        "values": torch.randn(shape("values", BATCH, SAMPLES, COLUMNS)),
        "times": torch.rand(times).sort(-1).values * SAMPLES,
        "target_times": torch.rand(targets) * SAMPLES,
        "lengths": torch.randint(2, SAMPLES + 1, shape("lengths", BATCH)),
        "rows": torch.randint(0, BATCH, shape("rows", BATCH)),
    }


NAMES = ("values", "times", "target_times", "lengths", "rows")


@pytest.mark.parametrize("with_rows", [True, False])
@pytest.mark.parametrize("with_lengths", [True, False])
@pytest.mark.parametrize("shared_targets", [True, False])
@pytest.mark.parametrize("shared_times", [True, False])
def test_resample_equals_a_loop(shared_times: bool, shared_targets: bool, with_lengths: bool, with_rows: bool) -> None:
    for chosen in itertools.product([False, True], repeat=len(NAMES)):
        batched = dict(zip(NAMES, chosen, strict=True))
        given = random_inputs(batched, shared_times, shared_targets)
        if not with_lengths:
            del given["lengths"]
        if not with_rows:
            del given["rows"]
        if not any(batched[name] for name in given):
            continue

        def function(given: dict[str, Tensor]) -> Any:
            options = {key: given[key] for key in given if key in ("lengths", "rows")}
            three = (given["values"], given["times"], given["target_times"])
            return robocache.resample_trajectories(*three, return_valid=True, kind="pchip", **options)

        dims = {name: 0 if batched[name] else None for name in given}
        out, valid = torch.vmap(function, in_dims=(dims,))(given)
        for k in range(MANY):
            one = {name: tensor[k] if batched[name] else tensor for name, tensor in given.items()}
            expected, mask = function(one)
            assert torch.equal(out[k], expected), batched
            assert torch.equal(valid[k], mask), batched


def test_the_batch_dimension_may_stand_anywhere() -> None:
    values = torch.randn(BATCH, SAMPLES, MANY, COLUMNS)
    times = torch.arange(float(SAMPLES))
    targets = torch.rand(TARGETS, MANY) * SAMPLES
    out = torch.vmap(lambda v, t: robocache.resample_trajectories(v, times, t), in_dims=(2, 1), out_dims=1)(
        values, targets
    )
    for k in range(MANY):
        assert torch.equal(out[:, k], robocache.resample_trajectories(values[:, :, k], times, targets[:, k]))


def test_operators_of_direct_callers() -> None:
    op = torch.ops.robocache
    values, times = torch.randn(MANY, BATCH, SAMPLES, COLUMNS), torch.arange(float(SAMPLES))
    targets = torch.rand(TARGETS) * SAMPLES
    out, _ = torch.vmap(lambda v: op.resample_trajectories_valid(v, times, targets))(values)
    fused = torch.vmap(lambda v: op.fuse_multimodal([v, v], [times, times], targets, kinds=[0, 1]))(values)
    for k in range(MANY):
        assert torch.equal(out[k], op.resample_trajectories(values[k], times, targets))
        assert torch.equal(fused[k], op.fuse_multimodal([values[k]] * 2, [times] * 2, targets, kinds=[0, 1]))


def test_packed() -> None:
    values, times = torch.randn(10, COLUMNS), torch.arange(10.0)
    splits, targets = torch.tensor([0, 4, 10]), torch.rand(MANY, 2, TARGETS) * 10

    def function(v: Tensor, t: Tensor) -> Any:
        return robocache.resample_trajectories(v, times, t, row_splits=splits)

    before = robocache.launch_counts()["align_cpu"]
    out = torch.vmap(function, in_dims=(None, 0))(values, targets)
    assert robocache.launch_counts()["align_cpu"] == before + 1
    many = torch.randn(MANY, 10, COLUMNS)
    each = torch.vmap(function)(many, targets)
    for k in range(MANY):
        assert torch.equal(out[k], function(values, targets[k]))
        assert torch.equal(each[k], function(many[k], targets[k]))


def test_one_launch_where_the_samples_stay_put() -> None:
    values, times = torch.randn(BATCH, SAMPLES, COLUMNS), torch.arange(float(SAMPLES))
    targets = torch.rand(MANY, BATCH, TARGETS) * SAMPLES
    before = robocache.launch_counts()["align_cpu"]
    out = torch.vmap(lambda t: robocache.resample_trajectories(values, times, t))(targets)
    assert robocache.launch_counts()["align_cpu"] == before + 1
    assert out.shape == (MANY, BATCH, TARGETS, COLUMNS)


@pytest.mark.parametrize("batched_values", [True, False])
def test_fuse_equals_a_loop(batched_values: bool) -> None:
    values = torch.randn(MANY, BATCH, SAMPLES, COLUMNS) if batched_values else torch.randn(BATCH, SAMPLES, COLUMNS)
    other, times = torch.randn(BATCH, SAMPLES, 2), torch.arange(float(SAMPLES))
    targets = torch.rand(MANY, TARGETS) * SAMPLES

    def function(v: Tensor, t: Tensor) -> Any:
        first = robocache.Stream(v, times, lengths=torch.tensor([8, 4]))
        second = robocache.Stream(other, times, kind=[(0, "nearest"), (1, "pchip")], max_gap=0.5)
        return robocache.fuse_multimodal([first, second], t, return_valid=True)

    out, valid = torch.vmap(function, in_dims=(0 if batched_values else None, 0))(values, targets)
    for k in range(MANY):
        expected, mask = function(values[k] if batched_values else values, targets[k])
        assert torch.equal(out[k], expected)
        assert torch.equal(valid[k], mask)


@pytest.mark.parametrize("form", ["plain", "rows", "packed"])
def test_gradients_of_each_entry(form: str) -> None:
    from torch.func import grad, vmap

    options: dict[str, Any] = {}
    values, times = torch.randn(MANY, BATCH, SAMPLES, COLUMNS), torch.arange(float(SAMPLES))
    if form == "rows":
        options["rows"] = torch.tensor([0, 1, 1])
    if form == "packed":
        values, times = values.flatten(1, 2), times.repeat(BATCH)
        options["row_splits"] = torch.tensor([0, SAMPLES, BATCH * SAMPLES])
    targets = torch.rand(MANY, TARGETS) * SAMPLES

    def loss(v: Tensor, t: Tensor) -> Tensor:
        out: Tensor = robocache.resample_trajectories(v, times, t, **options)
        return out.square().sum()

    by_values, by_targets = vmap(grad(loss, argnums=(0, 1)))(values, targets)
    for k in range(MANY):
        v, t = values[k].clone().requires_grad_(), targets[k].clone().requires_grad_()
        expected = torch.autograd.grad(loss(v, t), (v, t))
        torch.testing.assert_close(by_values[k], expected[0])
        torch.testing.assert_close(by_targets[k], expected[1])


def test_backward_through_vmap() -> None:
    times, targets = torch.arange(float(SAMPLES)), torch.rand(MANY, TARGETS) * SAMPLES
    values = torch.randn(MANY, BATCH, SAMPLES, COLUMNS, requires_grad=True)

    def function(v: Tensor, t: Tensor) -> Any:
        return robocache.resample_trajectories(v, times, t)

    torch.vmap(function)(values, targets).square().sum().backward()
    by_vmap = values.grad
    values.grad = None
    sum(function(v, t).square().sum() for v, t in zip(values, targets, strict=True)).backward()
    torch.testing.assert_close(by_vmap, values.grad)


def test_jacobian() -> None:
    values, times = torch.randn(BATCH, SAMPLES, COLUMNS), torch.arange(float(SAMPLES))
    targets = torch.rand(TARGETS) * SAMPLES

    def function(v: Tensor) -> Any:
        return robocache.resample_trajectories(v, times, targets, kind="pchip")

    by_func = torch.func.jacrev(function)(values)
    torch.testing.assert_close(by_func, torch.autograd.functional.jacobian(function, values))
