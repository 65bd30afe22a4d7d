"""Gradients averaged over processes, for a step that is recorded as one CUDA graph.

DistributedDataParallel moves each gradient into its bucket by a kernel of its own. In a step of a few milliseconds
those kernels show, and so does what a collective takes to begin. Here gradients go by the group: one copy and one
collective, which for the first group runs beside the rest of backward. Where the GPUs of a host reach each other's
memory, the collective is the two-shot all-reduce of torch's symmetric memory, else the process group's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

# How the gradients are parted, by their number of elements: the last group alone is sent when backward is over.
SHARES = (0.77, 0.23)
_ALIGNMENT = 256  # elements: the all-reduce gives each process a slice of whole 16-byte words


def groups_of(parameters: Sequence[nn.Parameter], shares: Sequence[float]) -> list[list[nn.Parameter]]:
    """Parameters in the order in which backward reaches them, parted near these shares of their elements."""
    total = sum(one.numel() for one in parameters)
    groups: list[list[nn.Parameter]] = [[]]
    done, goal = 0, shares[0] * total
    for one in reversed(parameters):
        if done >= goal and len(groups) < len(shares):
            goal += shares[len(groups)] * total
            groups.append([])
        groups[-1].append(one)
        done += one.numel()
    return groups


def peers_are_reachable(device: torch.device) -> bool:
    """Whether all processes are on this host, on GPUs that read each other's memory."""
    world = dist.get_world_size()
    if device.type != "cuda" or int(os.environ.get("LOCAL_WORLD_SIZE", 0)) != world:
        return False
    return all(torch.cuda.can_device_access_peer(device.index, peer) for peer in range(world) if peer != device.index)


class _Group:
    """Gradients that go together: a flat buffer, and views of it in their shapes."""

    def __init__(self, parameters: list[nn.Parameter], symmetric: bool) -> None:
        self.parameters = parameters
        self.left = len(parameters)
        sizes = [-(-one.numel() // _ALIGNMENT) * _ALIGNMENT for one in parameters]
        like = parameters[0]
        if symmetric:
            from torch.distributed import _symmetric_memory as symmetric_memory

            self.flat = symmetric_memory.empty(sum(sizes), dtype=like.dtype, device=like.device)
            symmetric_memory.rendezvous(self.flat, group=dist.group.WORLD)  # type: ignore[arg-type]
            self.flat.zero_()
        else:
            self.flat = torch.zeros(sum(sizes), dtype=like.dtype, device=like.device)
        self.views = [
            part[: one.numel()].view_as(one) for part, one in zip(self.flat.split(sizes), parameters, strict=True)
        ]


class GradientAverager:
    """Averages the gradients of a module over all processes of the default group, as backward makes them.

    Call backward on the loss times `share`, then `finish`, then the optimizer. Every parameter that learns must get a
    gradient in each backward. Parameters begin as those of rank 0.

    Args:
        parameters: of the module; all floating ones that learn of one dtype and device.
        shares: of the gradients in each group, in the order of backward.

    Example:
        >>> averager = GradientAverager(policy.parameters())
        >>> (loss * averager.share).backward()
        >>> averager.finish()
        >>> optimizer.step()
    """

    def __init__(self, parameters: Iterable[nn.Parameter], shares: Sequence[float] = SHARES) -> None:
        every = list(parameters)
        for one in every:
            dist.broadcast(one.detach(), 0)
        learning = [one for one in every if one.requires_grad]
        device = learning[0].device
        self.share = 1.0 / dist.get_world_size()
        self.symmetric = peers_are_reachable(device)
        self._groups = [_Group(found, self.symmetric) for found in groups_of(learning, shares)]
        self._side = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None
        for group in self._groups:
            for one in group.parameters:
                one.register_post_accumulate_grad_hook(lambda _, group=group: self._arrived(group))

    def _arrived(self, group: _Group) -> None:
        """One more gradient of a group is there; the last one sends them."""
        group.left -= 1
        if group.left:
            return
        gradients = [one.grad for one in group.parameters if one.grad is not None]  # all: each hook follows a gradient
        torch._foreach_copy_(group.views, gradients)
        if self._side is None:
            self._sum(group.flat)
            return
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            self._sum(group.flat)

    def _sum(self, flat: Tensor) -> None:
        if self.symmetric:
            torch.ops.symm_mem.two_shot_all_reduce_(flat, "sum", dist.group.WORLD.group_name)  # type: ignore[union-attr]
        else:
            dist.all_reduce(flat)

    def finish(self) -> None:
        """Behind this, the parameters' gradients are the averages.

        Raises:
            RuntimeError: a parameter got no gradient.
        """
        if self._side is not None:
            torch.cuda.current_stream().wait_stream(self._side)
        for group in self._groups:
            if group.left:
                raise RuntimeError(f"{group.left} of {len(group.parameters)} parameters of a group got no gradient")
            group.left = len(group.parameters)
            for one, view in zip(group.parameters, group.views, strict=True):
                one.grad = view
