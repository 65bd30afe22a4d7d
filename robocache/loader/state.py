"""A loader's state as plain data: written, and checked before anything is changed by it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from .arguments import check_whole
from .order import EpochOrder

_VERSION = 1
_KEYS = ("version", "seed", "epoch", "position", "order")


def fingerprint(order: EpochOrder) -> str:
    """Of everything that the order depends on, but for the seed."""
    digest = hashlib.sha256(order.frames.tobytes() + order.sizes.tobytes())
    digest.update(f"{order.pool_bytes} {order.shuffle}".encode())
    return digest.hexdigest()


def state_of(order: EpochOrder, epoch: int, position: int) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "seed": order.seed,
        "epoch": epoch,
        "position": position,
        "order": fingerprint(order),
    }


def read_state(state: Any, order: EpochOrder) -> tuple[int, int, int]:
    """Seed, epoch and position of a state of this order, or of one that differs from it in the seed alone.

    Raises:
        TypeError: it is no mapping.
        ValueError: it is no state, or one of another order.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state: expected what a DataLoader's state_dict() gives, a dict, got {type(state).__name__}")
    missing = [key for key in _KEYS if key not in state]
    if missing:
        raise ValueError(f"state: expected what a DataLoader's state_dict() gives, got {state!r}, without {missing}")
    if check_whole("state['version']", state["version"], 0) != _VERSION:
        raise ValueError(f"state['version']: expected {_VERSION}, got {state['version']!r}")
    if state["order"] != fingerprint(order):
        raise ValueError(
            "state: expected one of the same dataset, streams, clock, dtype, pool_bytes and shuffle; its order differs"
        )
    seed, epoch, position = (check_whole(f"state[{key!r}]", state[key], 0) for key in ("seed", "epoch", "position"))
    if position >= order.total:
        raise ValueError(f"state['position']: expected less than the {order.total} windows of an epoch, got {position}")
    return seed, epoch, position
