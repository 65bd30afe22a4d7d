"""The step that every feed is measured with: the example's policy, eager or as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from . import examples_path  # noqa: F401

from captured import CapturedStep  # isort: skip
from gradients import GradientAverager  # isort: skip
from policy import Policy, Windows, make_optimizer, training_step  # isort: skip

Step = Callable[[Windows], Tensor]


def make_policy(
    windows: Windows, figures: dict[str, np.ndarray], sizes: dict[str, int], device: torch.device
) -> Policy:
    """A policy for windows of these shapes; the same weights every time."""
    torch.manual_seed(0)
    policy = Policy(
        windows.observation.shape[2], windows.action.shape[2], windows.observation.shape[1], windows.action.shape[1],
        **sizes,
    )  # fmt: skip
    for name, value in figures.items():
        getattr(policy, name).copy_(torch.from_numpy(value))
    return policy.to(device)


def eager_step(policy: Policy, model: torch.nn.Module | None = None) -> Step:
    """The example's step as it stands."""
    optimizer = make_optimizer(policy, 3e-4)
    return lambda windows: training_step(model or policy, policy, optimizer, windows)


def graph_step(policy: Policy, windows: Windows, averager: GradientAverager | None = None) -> Step:
    """The same step recorded in a CUDA graph."""
    return CapturedStep(policy, make_optimizer(policy, 3e-4, capturable=True), windows, averager=averager)


def graph_ddp_step(policy: Policy, windows: Windows, make: Callable[[], torch.nn.Module]) -> Step:
    """The same with DistributedDataParallel, which `make` puts around the policy. It is made on the stream of the
    capture, as its documentation asks for."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        model = make()
    torch.cuda.current_stream().wait_stream(side)
    optimizer = make_optimizer(policy, 3e-4, capturable=True)
    return CapturedStep(policy, optimizer, windows, model=model, stream=side)
