"""What a training loop without RoboCache does: a plain PyTorch DataLoader whose workers read the same files.

Every worker reads each of its episodes once an epoch, a few at a time, and draws shuffled windows from them, so that
reading costs the peers no more than it costs us. `align="numpy"` aligns in the worker; `align="device"` sends the raw
windows, and compiled torch aligns them on the device. Batches are made in shared memory, pinned, and copied one ahead
on a stream of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from . import examples_path  # noqa: F401

from policy import Windows  # isort: skip

PREFETCH = 4  # batches a worker


@dataclass(frozen=True)
class Recording:
    """An episode in a worker's memory."""

    index: int
    times: NDArray[np.int64]  # [S] ticks
    observation: NDArray[np.float32]  # [S, D]
    action: NDArray[np.float32]  # [S, A]


@dataclass(frozen=True)
class Steps:
    """A window's times in ticks from its anchor, and how many recorded samples it spans."""

    past: NDArray[np.int64]  # [T]
    samples: int
    chunk: int


def brackets(times: NDArray[np.int64], targets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The sample before each target and how far behind it the target lies, 0 to 1; the ends hold."""
    left = np.clip(np.searchsorted(times, targets, "right") - 1, 0, len(times) - 2)
    step = (times[left + 1] - times[left]).astype(np.float32)
    return left, np.clip((targets - times[left]).astype(np.float32) / step, 0.0, 1.0)


def align_numpy(one: Recording, anchor: int, past: NDArray[np.int64], out: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Writes the observations [T, D] of a window whose anchor is a frame; returns which times are inside, bool [T]."""
    targets = one.times[anchor] + past
    left, weight = brackets(one.times, targets)
    before = one.observation[left]
    np.subtract(one.observation[left + 1], before, out=out)
    out *= weight[:, None]
    out += before
    return (targets >= one.times[0]) & (targets <= one.times[-1])


def chunk_of(one: Recording, anchor: int, chunk: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Actions [K, A] from a frame on, and which lie inside the episode, bool [K]."""
    rows = anchor + np.arange(chunk)
    return one.action[np.minimum(rows, len(one.action) - 1)], rows < len(one.action)


def raw_window(one: Recording, anchor: int, samples: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The last recorded samples [S, D] up to a frame, and their times relative to it. What would lie before the episode
    is its first sample, at times that go on backwards."""
    rows = anchor - samples + 1 + np.arange(samples)
    inside = np.maximum(rows, 0)
    step = one.times[1] - one.times[0] if len(one.times) > 1 else 1
    return one.observation[inside], one.times[inside] - one.times[anchor] + np.minimum(rows, 0) * step


def shared(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor in shared memory, as the default collate function makes it in a worker: it is sent without a copy."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    nbytes = int(np.prod(shape)) * dtype.itemsize
    return torch.empty(0, dtype=dtype).set_(torch.UntypedStorage._new_shared(nbytes), 0, shape)  # type: ignore[call-overload]


class WindowStream(IterableDataset[dict[str, Tensor]]):
    """Batches of windows without end.

    Args:
        dataset: of robocache.datasets; each worker gets a copy with files of its own.
        names: of observation and action.
        steps: of a window.
        batch: windows of a batch.
        align: "numpy" or "device".
        episodes: that a worker holds at a time.
        seed: of the order.
        rank, world: which share of the episodes.
    """

    def __init__(
        self, dataset: Any, names: tuple[str, str], steps: Steps, batch: int, align: str, episodes: int, seed: int = 0,
        rank: int = 0, world: int = 1,
    ) -> None:  # fmt: skip
        self.dataset, self.names, self.steps, self.batch = dataset, names, steps, batch
        self.align, self.episodes, self.seed, self.rank, self.world = align, episodes, seed, rank, world

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        share, shares = self.rank * workers + worker, self.world * workers
        rng = np.random.default_rng([self.seed, share])
        mine = np.arange(len(self.dataset))[share % len(self.dataset) :: shares]
        while True:
            order = rng.permutation(mine)
            for begin in range(0, len(order), self.episodes):
                yield from self._windows([self._read(i) for i in order[begin : begin + self.episodes].tolist()], rng)

    def _read(self, index: int) -> Recording:
        streams = self.dataset[index].streams
        observation, action = (np.ascontiguousarray(streams[name].values) for name in self.names)
        return Recording(index, np.asarray(streams[self.names[0]].times), observation, action)

    def _windows(self, held: list[Recording], rng: np.random.Generator) -> Iterator[dict[str, Tensor]]:
        anchors = np.array([(row, frame) for row, one in enumerate(held) for frame in range(len(one.times))])
        if len(anchors) < self.batch:
            raise ValueError(
                f"episodes: expected enough for a batch of {self.batch} windows, got {len(anchors)} frames"
            )
        rng.shuffle(anchors)
        for begin in range(0, len(anchors) - self.batch + 1, self.batch):
            yield self.made([(held[row], frame) for row, frame in anchors[begin : begin + self.batch].tolist()])

    def made(self, anchors: list[tuple[Recording, int]]) -> dict[str, Tensor]:
        """The batch of these anchors."""
        count, steps, first = len(anchors), self.steps, anchors[0][0]
        raw = self.align == "device"
        length = steps.samples if raw else len(steps.past)
        batch = {
            "observation": shared((count, length, first.observation.shape[1]), torch.float32),
            "action": shared((count, steps.chunk, first.action.shape[1]), torch.float32),
            "action_valid": shared((count, steps.chunk), torch.bool),
            "episode": shared((count,), torch.int64),
            "time": shared((count,), torch.int64),
            **(
                {"times": shared((count, length), torch.int64)}
                if raw
                else {"valid": shared((count, length), torch.bool)}
            ),
        }
        arrays = {name: tensor.numpy() for name, tensor in batch.items()}
        for row, (one, frame) in enumerate(anchors):
            arrays["action"][row], arrays["action_valid"][row] = chunk_of(one, frame, steps.chunk)
            arrays["episode"][row], arrays["time"][row] = one.index, one.times[frame]
            if raw:
                arrays["observation"][row], arrays["times"][row] = raw_window(one, frame, steps.samples)
            else:
                arrays["valid"][row] = align_numpy(one, frame, steps.past, arrays["observation"][row])
        return batch


def align_on_device(values: Tensor, times: Tensor, past: Tensor) -> Tensor:
    """Raw windows [B, S, D] at times [B, S] (relative to the anchor) -> [B, T, D]. The obvious torch code."""
    targets = past.expand(values.shape[0], -1).contiguous()
    right = torch.searchsorted(times, targets, right=True).clamp(1, times.shape[1] - 1)
    before, after = times.gather(1, right - 1), times.gather(1, right)
    weight = ((targets - before).float() / (after - before).float()).clamp(0.0, 1.0)
    columns = right[..., None].expand(-1, -1, values.shape[2])
    return torch.lerp(values.gather(1, columns - 1), values.gather(1, columns), weight[..., None])


class PeerFeed:
    """Windows of a plain DataLoader on a device.

    Args:
        stream: what workers make.
        device: where to.
        workers: processes.
        compile_mode: of the alignment on the device; None leaves it eager.
    """

    def __init__(self, stream: WindowStream, device: torch.device, workers: int, compile_mode: str | None) -> None:
        self.device = device
        cuda = device.type == "cuda"
        self.loader = DataLoader(
            stream, batch_size=None, num_workers=workers, pin_memory=cuda, prefetch_factor=PREFETCH,
            persistent_workers=True, timeout=120, multiprocessing_context=_context(),
        )  # fmt: skip
        self._batches = iter(self.loader)
        self._past = torch.from_numpy(stream.steps.past).to(device)
        self._align: Callable[..., Tensor] | None = None
        if stream.align == "device":
            self._align = align_on_device if compile_mode is None else torch.compile(align_on_device, mode=compile_mode)
        self._copies = torch.cuda.Stream(device) if cuda else None
        self.last: dict[str, Tensor] = {}  # episode and time of the newest batch
        self._ahead = self._fetch()

    def _fetch(self) -> tuple[dict[str, Tensor], Any]:
        """The next batch on its way to the device."""
        batch = next(self._batches)
        if self._copies is None:
            return batch, None
        with torch.cuda.stream(self._copies):
            moved = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
            return moved, self._copies.record_event()

    def __next__(self) -> Windows:
        batch, arrived = self._ahead
        if arrived is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(arrived)
            for tensor in batch.values():
                tensor.record_stream(stream)
        self.last = batch
        observation = batch["observation"]
        if self._align is None:
            valid = batch["valid"]
        else:
            observation = self._align(observation, batch["times"], self._past)
            valid = batch["time"][:, None] + self._past >= 0  # no window reaches past an episode's end
        windows = Windows(observation, valid, batch["action"], batch["action_valid"])
        self._ahead = self._fetch()
        return windows

    def shares(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        """Ends the workers."""
        self._batches = iter(())
        del self.loader


def _context() -> str | None:
    """Workers are forked from a clean server that has imported torch: no CUDA context is forked, starting is fast."""
    import multiprocessing

    if sys.platform != "linux":
        return None
    multiprocessing.set_forkserver_preload(["torch", "benchmarks.training_peers"])
    return "forkserver"
