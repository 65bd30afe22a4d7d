"""The training step as one CUDA graph: one call launches it, so that a slow host does not starve the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from gradients import GradientAverager
from policy import Policy, Windows, training_step
from torch import Tensor, nn

_WARM_UP = 3  # eager steps before the capture: what is made once, the optimizer's state
_DDP_WARM_UP = 11  # as DistributedDataParallel asks for before its backward is captured


@contextmanager
def _kept(policy: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Parameters and the optimizer's state are behind the block what they were before it, at the addresses that they
    have then. State that was not there before is zero, as the optimizer begins it."""
    parameters: list[Tensor] = list(policy.parameters())
    before = [one.detach().clone() for one in parameters]
    state = [{name: value.clone() for name, value in optimizer.state.get(one, {}).items()} for one in parameters]
    yield
    with torch.no_grad():
        torch._foreach_copy_(parameters, before)
        for one, had in zip(parameters, state, strict=True):
            for name, value in optimizer.state.get(one, {}).items():
                value.copy_(had[name]) if name in had else value.zero_()


class CapturedStep:
    """`policy.training_step` recorded once and replayed. Make it before other threads use the device.

    The learning rate becomes a tensor: change it by `group["lr"].fill_(rate)`.

    Args:
        policy: learns. Neither its weights nor the optimizer's state change here.
        optimizer: of `make_optimizer(..., capturable=True)`.
        windows: a batch of the shapes and dtypes that all batches have.
        averager: of the policy's gradients, where several processes train.
        model: DistributedDataParallel around the policy, instead of an averager.
        stream: to capture on: that on which `model` was made.

    Raises:
        ValueError: the optimizer is not capturable.

    Example:
        >>> step = CapturedStep(policy, make_optimizer(policy, 3e-4, capturable=True), next(feed))
        >>> losses = [step(next(feed)).clone() for _ in range(100)]
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: torch.optim.Optimizer,
        windows: Windows,
        *,
        averager: GradientAverager | None = None,
        model: nn.Module | None = None,
        stream: torch.cuda.Stream | None = None,
    ) -> None:
        device = windows.observation.device
        for group in optimizer.param_groups:
            if not group.get("capturable"):
                raise ValueError("optimizer: expected one whose steps may be captured (capturable=True)")
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device).clone()
        # What the graph reads and writes must live as long as it does, whatever becomes of the caller's references.
        self._holds = (policy, optimizer, averager, model)
        self._windows = Windows(*(tensor.clone() for tensor in windows))
        called = policy if model is None else model
        stream = stream or torch.cuda.Stream(device)
        with _kept(policy, optimizer):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP if model is None else _DDP_WARM_UP):
                    training_step(called, policy, optimizer, self._windows, averager)
            torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        optimizer.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        # "thread_local": NCCL's watchdog may look at its events meanwhile.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._loss = training_step(called, policy, optimizer, self._windows, averager)

    def __call__(self, windows: Windows) -> Tensor:
        """One step on a batch; the loss is a tensor that the next step writes over."""
        for here, there in zip(self._windows, windows, strict=True):
            here.copy_(there, non_blocking=True)
        self._graph.replay()
        return self._loss
