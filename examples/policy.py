"""A transformer policy: a window of aligned observations in, a chunk of actions out."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from gradients import GradientAverager


class Windows(NamedTuple):
    """A batch of aligned windows on the device.

    Attributes:
        observation: [B, T, D], the observation streams side by side at T times up to the anchor.
        valid: bool [B, T]: False where a time lies before the episode.
        action: [B, K, A], the actions from the anchor on.
        action_valid: bool [B, K]: False where an action lies behind the episode's end.
    """

    observation: Tensor
    valid: Tensor
    action: Tensor
    action_valid: Tensor


class Policy(nn.Module):
    """Encodes T observation tokens and reads K actions off the last one.

    Args:
        observation: columns of an observation, D.
        action: columns of an action, A.
        tokens: observations of a window, T.
        chunk: actions that are predicted at once, K.
        width, layers, heads, feedforward: of the transformer.

    Both sides are normalised by mean and standard deviation, which are part of every checkpoint.
    """

    def __init__(
        self,
        observation: int,
        action: int,
        tokens: int,
        chunk: int,
        *,
        width: int = 256,
        layers: int = 4,
        heads: int = 8,
        feedforward: int = 1024,
    ) -> None:
        super().__init__()
        self.chunk = chunk
        self.embed = nn.Linear(observation, width)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.before = nn.Parameter(0.02 * torch.randn(width))  # the token of a time before the episode
        # No dropout: then a run is a function of its seed and its data, and a resumed one needs no random state.
        layer = nn.TransformerEncoderLayer(
            width, heads, feedforward, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, chunk * action)
        # Parameters that do not learn rather than buffers: DistributedDataParallel would send those at every step.
        self.observation_mean = nn.Parameter(torch.zeros(observation), requires_grad=False)
        self.observation_std = nn.Parameter(torch.ones(observation), requires_grad=False)
        self.action_mean = nn.Parameter(torch.zeros(action), requires_grad=False)
        self.action_std = nn.Parameter(torch.ones(action), requires_grad=False)

    def forward(self, observation: Tensor, valid: Tensor) -> Tensor:
        """Observations [B, T, D] and which of them are [B, T] -> normalised actions [B, K, A]."""
        tokens = self.embed((observation - self.observation_mean) / self.observation_std)
        tokens = torch.where(valid[..., None], tokens, self.before.to(tokens.dtype)) + self.position
        return self.head(self.encoder(tokens)[:, -1]).unflatten(-1, (self.chunk, -1))

    def act(self, observation: Tensor, valid: Tensor) -> Tensor:
        """The same in the actions' own units."""
        return self(observation, valid) * self.action_std + self.action_mean

    def normalised(self, action: Tensor) -> Tensor:
        """Actions in the units of `forward`."""
        return (action - self.action_mean) / self.action_std


def action_loss(predicted: Tensor, wanted: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute error over [B, K, A]; actions behind the episode's end count nothing (as in ACT's training code).

    The mean runs over all of [B, K, A], so ranks with equal batches average to the loss of the whole batch.
    """
    return (F.l1_loss(predicted.float(), wanted.float(), reduction="none") * valid[..., None]).mean()


def make_optimizer(policy: nn.Module, rate: float, *, capturable: bool = False) -> torch.optim.Optimizer:
    """AdamW; one fused kernel on CUDA. `capturable`: its steps may be recorded in a CUDA graph."""
    cuda = next(policy.parameters()).is_cuda
    return torch.optim.AdamW(
        policy.parameters(), lr=rate, weight_decay=1e-4, fused=cuda, capturable=capturable and cuda
    )


def training_step(
    model: nn.Module,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    windows: Windows,
    averager: GradientAverager | None = None,
) -> Tensor:
    """One step; returns the loss as a tensor, without waiting for the device.

    Args:
        model: what is called: the policy itself, or DistributedDataParallel around it.
        policy: the policy inside.
        optimizer: of the policy's parameters.
        windows: the batch. bfloat16 autocast is used on CUDA.
        averager: of the gradients, where several processes train without DistributedDataParallel.
    """
    optimizer.zero_grad(set_to_none=True)
    mixed: Any = torch.autocast("cuda", torch.bfloat16) if windows.observation.is_cuda else nullcontext()
    with mixed:
        predicted = model(windows.observation, windows.valid)
    loss = action_loss(predicted, policy.normalised(windows.action), windows.action_valid)
    if averager is None:
        loss.backward()
    else:
        loss.backward(averager.share)
        averager.finish()
    optimizer.step()
    return loss.detach()
