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

# How the gradients are parted, by their number of elements. The last group goes when backward is over, so it is small;
# parted more evenly, the first collective takes from backward what it saves.
SHARES = (0.96, 0.04)
_WORD = 4  # elements of float32 in 16 bytes, which kernels read at once where an address allows it
_ALIGNMENT = 256  # elements of a buffer: the all-reduce gives each process a slice of whole words


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
    """Gradients that go together, end to end in one buffer."""

    def __init__(self, parameters: list[nn.Parameter], symmetric: bool) -> None:
        # Those of whole words first: then each of them begins at one.
        self.parameters = sorted(parameters, key=lambda one: one.numel() % _WORD != 0)
        self.left = len(parameters)
        sizes = [one.numel() for one in self.parameters]
        like = parameters[0]
        room = -(-sum(sizes) // _ALIGNMENT) * _ALIGNMENT
        if symmetric:
            from torch.distributed import _symmetric_memory as symmetric_memory

            self.buffer = symmetric_memory.empty(room, dtype=like.dtype, device=like.device)
            symmetric_memory.rendezvous(self.buffer, group=dist.group.WORLD)  # type: ignore[arg-type]
            self.buffer.zero_()
        else:
            self.buffer = torch.zeros(room, dtype=like.dtype, device=like.device)
        self._filled = self.buffer[: sum(sizes)]
        self.views = [part.view_as(one) for part, one in zip(self._filled.split(sizes), self.parameters, strict=True)]

    def gather(self) -> None:
        """Copies the gradients to the buffer, in one kernel."""
        gradients = [one.grad for one in self.parameters if one.grad is not None]  # all: each hook follows a gradient
        torch.cat([one.reshape(-1) for one in gradients], out=self._filled)


class GradientAverager:
    """Averages the gradients of a module over all processes of the default group, as backward makes them.

    Call backward with the gradient `share`, then `finish`, then the optimizer. Every parameter that learns must get a
    gradient in each backward. Parameters begin as those of rank 0.

    Args:
        parameters: of the module; all floating ones that learn of one dtype and device.
        shares: of the gradients in each group, in the order of backward.

    Example:
        >>> averager = GradientAverager(policy.parameters())
        >>> loss.backward(averager.share)
        >>> averager.finish()
        >>> optimizer.step()
    """

    def __init__(self, parameters: Iterable[nn.Parameter], shares: Sequence[float] = SHARES) -> None:
        every = list(parameters)
        for one in every:
            dist.broadcast(one.detach(), 0)
        learning = [one for one in every if one.requires_grad]
        device = learning[0].device
        self.share = torch.tensor(1.0 / dist.get_world_size(), device=device)  # of a loss in the mean of all ranks
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
        group.gather()
        if self._side is None:
            self._sum(group.buffer)
            return
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            self._sum(group.buffer)

    def _sum(self, buffer: Tensor) -> None:
        if self.symmetric:
            torch.ops.symm_mem.two_shot_all_reduce_(buffer, "sum", dist.group.WORLD.group_name)  # type: ignore[union-attr]
        else:
            dist.all_reduce(buffer)

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
