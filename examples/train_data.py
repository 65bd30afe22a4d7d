"""Where the batches of training come from: a store in device memory, a loader from disk, or one ready batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from policy import Windows

import robocache
from robocache.datasets import Dataset

SOURCES = ("store", "loader", "ready")
_MASK = (1 << 64) - 1
_STEPS_A_DRAW = 8  # of a store: 8 batches of 32 windows of 250 times and 256 features are 80 MB
_STATISTICS_EPISODES = 64  # that means and deviations are taken from


@dataclass(frozen=True)
class WindowShape:
    """What a window is made of.

    Attributes:
        observation: names of the vector streams side by side in an observation.
        action: name of the stream of actions.
        rate: samples per second of the dataset.
        samples: recorded samples that a window spans, the anchor's the last.
        tokens: times that they are aligned to, evenly spread from the first of those samples to the last.
        chunk: actions, at the dataset's rate from the anchor on.
    """

    observation: tuple[str, ...]
    action: str
    rate: Fraction
    samples: int
    tokens: int
    chunk: int

    def delta_times(self) -> dict[str, list[Fraction]]:
        """Seconds from the anchor by stream, exactly. 250 times over 500 samples fall between samples, all but two."""
        span = Fraction(self.samples - 1) / self.rate
        past = [span * Fraction(k - self.tokens + 1, max(1, self.tokens - 1)) for k in range(self.tokens)]
        return {**dict.fromkeys(self.observation, past), self.action: [k / self.rate for k in range(self.chunk)]}

    def windows(self, batch: robocache.WindowBatch) -> Windows:
        """A batch of a store or a loader as what the policy takes. Nothing here waits for the device."""
        seen = [batch[name] for name in self.observation]
        there = batch.is_valid(self.observation[0])
        for name in self.observation[1:]:
            there = there & batch.is_valid(name)
        observation = seen[0] if len(seen) == 1 else torch.cat([values.float() for values in seen], -1)
        return Windows(observation.float(), there, batch[self.action].float(), batch.is_valid(self.action))


def window_shape(
    dataset: Dataset, observation: Sequence[str] | None, action: str | None, samples: int, tokens: int, chunk: int
) -> WindowShape:
    """The shape of windows of a dataset.

    Args:
        dataset: it must tell its rate.
        observation: names of vector streams; None takes those whose names begin with "observation".
        action: name of the actions' stream; None takes "action".
        samples, tokens, chunk: as in `WindowShape`.

    Raises:
        ValueError: a stream is not there, or the rate is not known.
    """
    vectors = [name for name, spec in dataset.specs.items() if spec.modality == "vector"]
    seen = tuple(observation or [name for name in vectors if name.startswith("observation")])
    done = action or "action"
    for name in (*seen, done):
        if name not in vectors:
            raise ValueError(f"stream: expected one of {', '.join(map(repr, vectors))}, got {name!r}")
    if not seen or done in seen:
        raise ValueError(f"observation: expected streams other than {done!r} (--observation), got {list(seen)}")
    if dataset.fps is None:
        raise ValueError("rate: the dataset does not tell its samples per second (--rate)")
    return WindowShape(seen, done, dataset.fps, samples, tokens, chunk)


def blank_windows(batch: int, tokens: int, features: int, chunk: int, actions: int, device: torch.device) -> Windows:
    """A batch of zeros, all of it valid, in the shapes that every batch of a run has."""
    return Windows(
        torch.zeros(batch, tokens, features, device=device),
        torch.ones(batch, tokens, dtype=torch.bool, device=device),
        torch.zeros(batch, chunk, actions, device=device),
        torch.ones(batch, chunk, dtype=torch.bool, device=device),
    )


def statistics(dataset: Dataset, shape: WindowShape) -> dict[str, NDArray[np.float32]]:
    """Mean and standard deviation of observation and action, from up to 64 episodes spread over the dataset.

    A column that does not move has a deviation of 1.
    """
    rows = np.unique(np.linspace(0, len(dataset) - 1, _STATISTICS_EPISODES).round().astype(int))
    sums: dict[str, list[Any]] = {name: [0, 0.0, 0.0] for name in (*shape.observation, shape.action)}
    for row in rows.tolist():
        try:
            streams = dataset[row].streams
        except robocache.datasets.DatasetError:
            if dataset.on_error == "skip":
                continue
            raise
        for name, found in sums.items():
            values = np.asarray(streams[name].values, np.float64)
            found[0] += len(values)
            found[1] += values.sum(0)
            found[2] += (values * values).sum(0)
    moments = {name: _moments(*found) for name, found in sums.items()}
    sides = {"observation": shape.observation, "action": (shape.action,)}
    return {
        f"{side}_{what}": np.concatenate([moments[name][index] for name in names])
        for side, names in sides.items()
        for index, what in enumerate(("mean", "std"))
    }


def _moments(count: int, total: Any, squares: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if count == 0:
        raise ValueError("dataset: expected an episode that can be read, got none")
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean * mean, 0.0))
    return mean.astype(np.float32), np.where(deviation > 1e-6, deviation, 1.0).astype(np.float32)


class Feed(Protocol):
    """Batches without end, with a position that can be saved."""

    def __next__(self) -> Windows: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def shares(self) -> Mapping[str, float]:
        """What the starvation meter says; empty where nothing can starve."""

    def close(self) -> None: ...


def mixed(*numbers: int) -> int:
    """63 bits that change all over when one of the numbers changes: rounds of splitmix64 (Steele et al., 2014).

    A generator on the CPU looks at the lower 32 bits of its seed alone, so numbers side by side would not do.
    """
    bits = 0
    for number in numbers:
        bits = (bits + number + 0x9E3779B97F4A7C15) & _MASK
        bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & _MASK
        bits ^= bits >> 31
    return bits >> 1


class StoreFeed:
    """Windows drawn from a store. Which ones is a function of seed, rank and step, so the step is all the state.

    Draws are independent of each other, so those of the next few steps are made at once: what a draw costs the host is
    then shared by as many steps.
    """

    def __init__(self, store: robocache.EpisodeStore, shape: WindowShape, batch: int, seed: int, rank: int) -> None:
        self.store, self._shape, self._batch = store, shape, batch
        self._seed, self._rank, self._step = seed, rank, 0
        self._windows = store.windows(delta_times=shape.delta_times())
        self._generator = torch.Generator(store.device)
        self._drawn: tuple[int, Windows] | None = None

    def __next__(self) -> Windows:
        draw, turn = divmod(self._step, _STEPS_A_DRAW)
        if self._drawn is None or self._drawn[0] != draw:
            self._generator.manual_seed(mixed(self._seed, self._rank, draw))
            batch = self._windows.sample(_STEPS_A_DRAW * self._batch, self._generator)
            self._drawn = draw, self._shape.windows(batch)
        self._step += 1
        own = slice(turn * self._batch, (turn + 1) * self._batch)
        return Windows(*(tensor[own] for tensor in self._drawn[1]))

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step, "frames": self.store.frames}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.get("frames") != self.store.frames:
            raise ValueError(f"frames: expected a dataset of {state.get('frames')}, got one of {self.store.frames}")
        self._step = state["step"]

    def shares(self) -> Mapping[str, float]:
        return {}

    def close(self) -> None:
        pass


class LoaderFeed:
    """Windows from disk, epoch after epoch."""

    def __init__(self, loader: robocache.DataLoader, shape: WindowShape) -> None:
        self.loader, self._shape = loader, shape

    def __next__(self) -> Windows:
        batch = next(self.loader, None)
        if batch is None:  # the end of an epoch; the loader stands at the beginning of the next
            batch = next(self.loader)
        return self._shape.windows(batch)

    def state_dict(self) -> dict[str, Any]:
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state)

    def shares(self) -> Mapping[str, float]:
        return self.loader.meter.shares

    def close(self) -> None:
        self.loader.close()


class ReadyFeed:
    """The same batch again and again: what a step costs when nothing has to be fetched."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows

    def __next__(self) -> Windows:
        return self._windows

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def shares(self) -> Mapping[str, float]:
        return {}

    def close(self) -> None:
        pass


def open_feed(
    source: str,
    dataset: Dataset,
    shape: WindowShape,
    batch: int,
    device: torch.device,
    seed: int,
    rank: int,
    workers: int | None,
    show_progress: bool,
) -> Feed:
    """The feed of one rank; the loader asks torch.distributed for its share itself."""
    if source == "store":
        streams = (*shape.observation, shape.action)
        store = robocache.EpisodeStore.from_dataset(dataset, device, streams=streams, show_progress=show_progress)
        return StoreFeed(store, shape, batch, seed, rank)
    loader = robocache.DataLoader(
        dataset,
        batch,
        delta_times=shape.delta_times(),
        device=device,
        seed=seed,
        workers=workers,
        on_error=dataset.on_error,
        show_progress=show_progress,
    )
    if source == "loader":
        return LoaderFeed(loader, shape)
    with loader:
        return ReadyFeed(next(LoaderFeed(loader, shape)))
