"""The launch that reads windows: its streams and steps stay, the anchors change from draw to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from torch import Tensor
from torch.compiler import is_compiling

from .. import _dispatch, _fast
from .._stream import Stream
from ..align import fuse_multimodal

Anchors: TypeAlias = "Tensor | tuple[Tensor, Tensor]"  # int64: rows [B] and times [B], or a table whose first two rows


class BoundLaunch:
    """Up to 16 streams of a part that share their steps. The library reads them here, once: describing their tensors
    anew at each draw costs the host more than the draw itself.

    Args:
        streams: without rows and time_offset. Their tensors must neither be resized nor ask for gradients later.
        deltas: int64 [U], the steps in ticks from an anchor.
    """

    __slots__ = ("_deltas", "_native", "_streams")

    def __init__(self, streams: Sequence[Stream], deltas: Tensor) -> None:
        self._streams = list(streams)
        self._deltas = deltas
        self._native = _fast.bind(self._streams, deltas)

    def read(self, anchors: Anchors) -> tuple[Tensor, Tensor]:
        """Values [B, U, sum D] and validity [B, U, streams].

        Args:
            anchors: rows of the part, and the windows' anchors in ticks. These go in as offsets of shared targets,
                which saves making [B, U] targets, and is the same sum to the bit.
        """
        routed = _dispatch.ACTIVE and not self._deltas.is_cuda  # host streams may be read on a device
        if not (routed or is_compiling()):
            pair = isinstance(anchors, tuple)
            done = _fast.draw(self._native, anchors[0], anchors[1]) if pair else _fast.draw(self._native, anchors, None)
            if done is not NotImplemented:
                return done
        rows, times = anchors[0], anchors[1]
        streams = [replace(stream, rows=rows, time_offset=times) for stream in self._streams]
        return fuse_multimodal(streams, self._deltas, return_valid=True)
