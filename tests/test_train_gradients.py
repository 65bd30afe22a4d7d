"""The example's gradient averager on the CPU: it answers as DistributedDataParallel does, and says what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from .training_runs import EXAMPLES, ROOT

from gradients import groups_of  # isort: skip
from policy import Policy  # isort: skip

SIZES = {"width": 16, "layers": 3, "heads": 2, "feedforward": 32}

# Two ranks with windows of their own: gradients by DistributedDataParallel, then by the averager, in the same process.
RANK = """
    import sys, torch, torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    from gradients import GradientAverager
    from policy import Policy, action_loss

    def tell(*words):  # in one write: both ranks share stdout, and print writes each of its arguments on its own
        sys.stdout.write(" ".join(map(str, words)) + "\\n")

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(100 + rank)
    windows = torch.randn(4, 10, 6), torch.rand(4, 10) < 0.8
    wanted, there = torch.randn(4, 5, 3), torch.rand(4, 5) < 0.8

    def policy(seed):
        torch.manual_seed(seed)
        return Policy(6, 3, 10, 5, width=16, layers=3, heads=2, feedforward=32)

    first = policy(0)
    model = DistributedDataParallel(first)
    action_loss(model(*windows), wanted, there).backward()
    second = policy(rank)  # ranks begin apart; the averager gives all of them those of rank 0
    averager = GradientAverager(second.parameters())
    for one, two in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)
    for _ in range(2):  # a step leaves the averager as it was
        second.zero_grad(set_to_none=True)
        action_loss(second(*windows), wanted, there).backward(averager.share)
        averager.finish()
    for (name, one), two in zip(first.named_parameters(), second.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(two.grad, one.grad, rtol=1e-6, atol=1e-8, msg=name)
            assert two.grad.abs().sum() > 0, name
        else:
            assert two.grad is None
    if rank == 0:
        tell("equal", sum(one.requires_grad for one in second.parameters()))
    second.head(torch.zeros(1, 16)).sum().backward()
    try:
        averager.finish()
    except RuntimeError as error:
        tell(error)
"""


def test_it_averages_as_distributed_data_parallel_does(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(textwrap.dedent(RANK))
    path = os.pathsep.join([str(EXAMPLES), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    learning = [one for one in Policy(6, 3, 10, 5, **SIZES).parameters() if one.requires_grad]
    assert f"equal {len(learning)}" in done.stdout
    assert done.stdout.count("got no gradient") == 2


@pytest.mark.parametrize("shares", [(1.0,), (0.77, 0.23), (0.5, 0.3, 0.2), (0.999999, 0.000001)], ids=str)
def test_groups_hold_every_parameter_once_in_the_order_of_backward(shares: tuple[float, ...]) -> None:
    parameters = list(Policy(6, 3, 10, 5, **SIZES).parameters())
    groups = groups_of(parameters, shares)
    assert [id(one) for group in groups for one in group] == [id(one) for one in reversed(parameters)]
    assert 1 <= len(groups) <= len(shares) and all(groups)
    total, largest = sum(one.numel() for one in parameters), max(one.numel() for one in parameters)
    if len(groups) == len(shares):
        for group, share in zip(groups[:-1], shares, strict=False):
            assert abs(sum(one.numel() for one in group) - share * total) <= 2 * largest


def test_one_parameter_makes_one_group() -> None:
    alone = [torch.nn.Parameter(torch.zeros(3))]
    assert groups_of(alone, (0.5, 0.5)) == [alone]
