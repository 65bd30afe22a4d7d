"""Images and video at the windows' times: which frames, decoded in the background, gathered in pinned memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..datasets import DatasetError
from ..datasets._work import decode_frames
from ..store.ticks import ticks_of
from .pools import EPISODE, ROW, TIME, ReadyPool
from .workers import Workers

IMAGE_KINDS = ("nearest", "previous", "next")


def frames_at(
    times: NDArray[np.int64], targets: NDArray[np.int64], kind: str
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The frame that stands for each target, and whether the target lies within [first, last].

    "nearest" (a tie takes the earlier), "previous" (the last at or before) or "next" (the first at or after), the ends'
    frames outside: as `robocache.resample_trajectories` picks samples.
    """
    last = len(times) - 1
    previous = np.clip(np.searchsorted(times, targets, side="right") - 1, 0, last)
    following = np.clip(np.searchsorted(times, targets, side="left"), 0, last)
    valid = (targets >= times[0]) & (targets <= times[-1])
    if kind == "previous":
        return previous, valid
    if kind == "next":
        return following, valid
    nearer = times[following] - targets < targets - times[previous]
    exact = times[previous] == targets
    return np.where(nearer & ~exact, following, previous), valid


class ImagePlan:
    """Which image streams a loader gives, at which steps.

    Args:
        images: None, names (at the anchor alone), or a dict of seconds from the anchor by name.
        specs: `Dataset.specs`.
        kind: "nearest", "previous" or "next".
        ticks_per_second: the unit.
    """

    def __init__(self, images: Any, specs: Mapping[str, Any], kind: str, ticks_per_second: int) -> None:
        if kind not in IMAGE_KINDS:
            raise ValueError(f"image_kind: expected one of {', '.join(map(repr, IMAGE_KINDS))}, got {kind!r}")
        if isinstance(images, str):
            raise TypeError(f"images: expected a sequence of names or a dict of steps, got the name {images!r} alone")
        wanted = images if isinstance(images, Mapping) else dict.fromkeys(images or (), (0,))
        known = [name for name, spec in specs.items() if spec.modality in ("image", "video")]
        self.kind = kind
        self.steps: dict[str, NDArray[np.int64]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for name, steps in wanted.items():
            if name not in known:
                raise ValueError(f"images: expected names of image or video streams ({known}), got {name!r}")
            ticks = ticks_of(steps, ticks_per_second, f"images[{name!r}]")
            if not ticks:
                raise ValueError(f"images[{name!r}]: expected at least one step, got none")
            self.steps[name] = np.array(ticks, dtype=np.int64)
            self.shapes[name] = tuple(specs[name].shape)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.steps)


@dataclass(frozen=True)
class _Fill:
    """Frames of an episode on their way into a batch: future[source] goes to places (sample, step)."""

    episode: int
    frames: list[int]
    future: Future[NDArray[np.uint8]]
    samples: NDArray[np.int64]
    steps: NDArray[np.int64]
    source: NDArray[np.int64]


@dataclass(frozen=True)
class Gathered:
    """One batch's frames [B, T, H, W, C] and validity [B, T] on the host, by stream."""

    frames: dict[str, Tensor]
    valid: dict[str, Tensor]


class ImageGatherer:
    """Decodes batches ahead; one thread gathers what the workers decoded, so the training loop only waits and copies.

    Args:
        plan: which frames.
        workers: who decode.
        pinned: True gathers in pinned memory.
        skip: True leaves frames that cannot be decoded black and not valid, and counts their episodes.
    """

    def __init__(self, plan: ImagePlan, workers: Workers, pinned: bool, skip: bool) -> None:
        self.skipped: dict[int, DatasetError] = {}
        self._skip = skip
        self._plan = plan
        self._workers = workers
        self._pinned = pinned
        self._threads = ThreadPoolExecutor(1, "robocache-images")
        self.batch_bytes = 0  # of the largest batch so far

    def submit(self, segments: Sequence[tuple[ReadyPool, int, int]]) -> Future[Gathered]:
        """Starts on a batch made of samples [begin, end) of pools, in order."""
        fills: dict[str, list[_Fill]] = {}
        valid: dict[str, Tensor] = {}
        anchors = [pool.host_anchors[:, begin:end] for pool, begin, end in segments]
        for number, (name, steps) in enumerate(self._plan.steps.items()):
            masks: list[NDArray[np.bool_]] = []
            fills[name] = []
            first = 0
            for (pool, _, _), found in zip(segments, anchors, strict=True):
                targets = found[TIME][:, None] + steps
                mask = np.zeros(targets.shape, dtype=np.bool_)
                for row in np.unique(found[ROW]).tolist():
                    samples = np.flatnonzero(found[ROW] == row)
                    times = pool.image_times[row]
                    assert times is not None
                    index, mask[samples] = frames_at(times[number], targets[samples], self._plan.kind)
                    fills[name].append(self._decode(name, int(found[EPISODE][samples[0]]), samples + first, index))
                masks.append(mask)
                first += targets.shape[0]
            valid[name] = torch.from_numpy(np.concatenate(masks))
        return self._threads.submit(self._gather, fills, valid)

    def _decode(self, name: str, episode: int, samples: NDArray[np.int64], index: NDArray[np.int64]) -> _Fill:
        """Each frame of an episode is decoded once, however many windows show it."""
        frames, source = np.unique(index, return_inverse=True)
        places = np.indices(index.shape).reshape(2, -1)
        future = self._workers.submit(decode_frames, episode, name, frames.tolist())
        return _Fill(episode, frames.tolist(), future, samples[places[0]], places[1], source.reshape(-1))

    def _gather(self, fills: dict[str, list[_Fill]], valid: dict[str, Tensor]) -> Gathered:
        frames: dict[str, Tensor] = {}
        for name, parts in fills.items():
            for part in parts:
                lost = np.ones(len(part.source), dtype=np.bool_)
                for first, images in self._decoded(name, part):
                    if name not in frames:
                        shape = (*valid[name].shape, *images.shape[1:])
                        frames[name] = torch.zeros(shape, dtype=torch.uint8, pin_memory=self._pinned)
                    if images.shape[1:] != frames[name].shape[2:]:
                        raise DatasetError(
                            f"{name}: expected frames {list(frames[name].shape[2:])} in every episode, "
                            f"got {list(images.shape[1:])}"
                        )
                    here = (part.source >= first) & (part.source < first + len(images))
                    frames[name].numpy()[part.samples[here], part.steps[here]] = images[part.source[here] - first]
                    lost &= ~here
                valid[name].numpy()[part.samples[lost], part.steps[lost]] = False
            if name not in frames:  # none could be decoded
                frames[name] = torch.zeros((*valid[name].shape, *self._plan.shapes[name]), dtype=torch.uint8)
        self.batch_bytes = max(self.batch_bytes, sum(found.nbytes for found in frames.values()))
        return Gathered(frames, valid)

    def _decoded(self, name: str, part: _Fill) -> list[tuple[int, NDArray[np.uint8]]]:
        """The frames that can be decoded: runs of them, each with the place of its first."""
        try:
            return [(0, part.future.result())]
        except DatasetError as error:
            if not self._skip:
                raise
            self.skipped[part.episode] = error
            return self._by_halves(name, part.episode, part.frames, 0)

    def _by_halves(
        self, name: str, episode: int, frames: Sequence[int], first: int
    ) -> list[tuple[int, NDArray[np.uint8]]]:
        """Frames that failed together, tried apart: one that is damaged takes no other with it. In this thread, because
        workers that are being closed take no more."""
        found: list[tuple[int, NDArray[np.uint8]]] = []
        middle = len(frames) // 2
        for place, half in ((first, frames[:middle]), (first + middle, frames[middle:])):
            if not 0 < len(half) < len(frames):
                continue  # a single frame: it failed already
            try:
                found.append((place, decode_frames(self._workers.dataset, episode, name, half)))
            except DatasetError:
                found += self._by_halves(name, episode, half, place)
        return found

    def close(self) -> None:
        """Ends the thread. The workers must be closed first, else it may wait for what they decode."""
        self._threads.shutdown(wait=True, cancel_futures=True)
