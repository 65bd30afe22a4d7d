"""The step that every feed is measured with: the example's policy, eager or as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from . import examples_path  # noqa: F401

from policy import Policy, Windows, make_optimizer, training_step  # isort: skip

Step = Callable[[Windows], Tensor]
_WARM_UP = 3  # eager steps on a side stream before a capture: lazy set-up, the optimizer's state
_DDP_WARM_UP = 11  # as DistributedDataParallel asks for before its backward is captured


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


def graph_step(
    policy: Policy, windows: Windows, model: torch.nn.Module | None = None, side: torch.cuda.Stream | None = None
) -> Step:
    """The same step recorded in a CUDA graph. Windows are copied to where the graph reads them; the loss is a tensor
    that the next step writes over.

    Capture it before background threads use the device. `side` is the stream to capture on: that on which a
    DistributedDataParallel `model` was made.
    """
    optimizer = make_optimizer(policy, 3e-4, capturable=True)
    static = Windows(*(tensor.clone() for tensor in windows))
    inside = model or policy
    side = side or torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP if model is None else _DDP_WARM_UP):
            training_step(inside, policy, optimizer, static)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    # "thread_local": NCCL's watchdog may look at its events meanwhile.
    with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
        loss = training_step(inside, policy, optimizer, static)

    def step(fresh: Windows) -> Tensor:
        for here, there in zip(static, fresh, strict=True):
            here.copy_(there, non_blocking=True)
        graph.replay()
        return loss

    return step
