"""Arguments of the DataLoader, checked."""

from __future__ import annotations

import operator
from typing import Any

import torch


def check_whole(name: str, number: Any, least: int) -> int:
    """The number as an int, NumPy's whole numbers and the like too."""
    try:
        whole = least - 1 if isinstance(number, bool) else operator.index(number)
    except TypeError:
        whole = least - 1
    if whole < least:
        raise ValueError(f"{name}: expected a whole number of {least} or more, got {number!r}")
    return whole


def device_of(device: str | torch.device | None) -> torch.device:
    place = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    if place.type not in ("cuda", "cpu"):
        raise ValueError(f"device: expected a cuda or cpu device, got {place}")
    if place.type == "cuda" and place.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return place


def rank_and_world(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and world size, of torch.distributed where they are not given."""
    if (rank is None) != (world_size is None):
        raise ValueError("rank, world_size: expected both or none")
    if rank is None or world_size is None:
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1
    world_size = check_whole("world_size", world_size, 1)
    rank = check_whole("rank", rank, 0)
    if rank >= world_size:
        raise ValueError(f"rank: expected less than world_size = {world_size}, got {rank}")
    return rank, world_size
