"""`EpisodeStore`: the vector streams of a dataset in device memory, and windows drawn from them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._progress import progress
from ..datasets._clock import rational_rate
from .anchors import FrameAnchors, TimeAnchors
from .batch import WindowBatch
from .bound import Anchors, BoundLaunch
from .fill import Filler
from .packed import PackedStreams
from .prepared import PreparedWindows
from .read import vectors_of
from .streams import StreamLayout, layouts_of, main_clock
from .ticks import tick, whole_number
from .windows import Span, WindowPlan, given_deltas, horizon_deltas

_ANCHORS = ("frames", "times")


@dataclass(frozen=True)
class StoredEpisode:
    """One episode of a store.

    Attributes:
        row: its place in the store, as `WindowBatch.episode` counts.
        index: its place in the dataset.
        name: what the dataset calls it.
        text: instruction, task and the like.
        streams: values [S, D] and times [S] (ticks) by stream: views of the store's tensors.
    """

    row: int
    index: int
    name: str
    text: Mapping[str, str]
    streams: Mapping[str, tuple[Tensor, Tensor]]


class EpisodeStore:
    """The vector streams of a whole dataset in device memory, each with its own clock and rate.

    Made by `EpisodeStore.from_dataset`. `sample` draws windows and aligns all of their streams in one kernel launch,
    without waiting for the device.

    Attributes:
        device: where draws are made.
        names: the streams.
        clock: the stream whose samples are the frames.
        ticks_per_second: the unit of all times.
        nbytes: bytes in device memory: values, times, row splits and the table of frames.
        spilled_bytes: bytes of values in (pinned) host memory.
        spilled_episodes: how many episodes those are; they are the last ones.

    Example:
        >>> store = robocache.EpisodeStore.from_dataset(robocache.datasets.open(path), device="cuda")
        >>> batch = store.sample(4096, horizon=16)
        >>> batch["action"].shape, batch.is_pad("action").shape
        (torch.Size([4096, 16, 7]), torch.Size([4096, 16]))
    """

    def __init__(
        self,
        layouts: Sequence[StreamLayout],
        parts: Sequence[PackedStreams],
        kept: int,
        episodes: Sequence[tuple[int, str, Mapping[str, str]]],
        clock: int,
        rate: Fraction | None,
        ticks_per_second: int,
    ) -> None:
        self.device = parts[0].device
        self.names = tuple(layout.name for layout in layouts)
        self.clock = self.names[clock]
        self.ticks_per_second = ticks_per_second
        self._layouts = tuple(layouts)
        self._parts = tuple(parts)
        self._kept = kept
        self._episodes = tuple(episodes)
        self._rate = rate
        self._rows_by_name = {name: row for row, (_, name, _) in enumerate(episodes)}
        self._clock_times, self._clock_splits = self._whole_clock(clock)
        self._anchors: dict[str, FrameAnchors | TimeAnchors] = {
            "frames": FrameAnchors(self._clock_times, self._clock_splits)
        }
        self._plans: dict[Any, PreparedWindows] = {}

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        device: str | torch.device = "cuda",
        streams: Iterable[str] | None = None,
        dtype: torch.dtype | None = None,
        max_bytes: int | None = None,
        show_progress: bool = True,
        *,
        clock: str | None = None,
    ) -> EpisodeStore:
        """Reads every episode of a dataset once.

        Args:
            dataset: of `robocache.datasets.open` or `from_arrays`.
            device: "cuda" or "cpu".
            streams: names of vector streams; None takes all.
            dtype: torch.bfloat16 or torch.float32 for floating values; None keeps the dataset's. Integers and booleans
                keep theirs.
            max_bytes: of values and times of the kept episodes. Whole episodes past it spill: their values go to
                pinned host memory, which the kernels read in place over the bus, so a draw stays free of waiting and
                costs a second launch. Their times stay on the device and are not counted: 8 bytes a sample, and again
                for the main clock; `nbytes` tells all. With device="cpu" both lie in host memory.
            show_progress: a bar on stderr.
            clock: the stream whose samples are the frames; None takes the first one at the dataset's rate.

        Raises:
            DatasetError: an episode that cannot be read (unless the dataset skips those), or a clock that goes
                backwards.
            ValueError: no episode, an unknown stream, a kind that does not fit.
        """
        place = torch.device(device)
        if place.type not in ("cuda", "cpu"):
            raise ValueError(f"device: expected a cuda or cpu device, got {place}")
        if place.type == "cuda" and place.index is None:
            place = torch.device("cuda", torch.cuda.current_device())
        layouts = layouts_of(dataset.specs, streams, dtype)
        main = main_clock(layouts, dataset.fps, clock)
        filler = Filler(layouts, place, max_bytes)
        episodes = []
        for episode in progress(dataset, what="store", unit="episode", show=show_progress):
            filler.add(vectors_of(episode, layouts))
            episodes.append((episode.index, episode.name, dict(episode.text)))
        if not episodes:
            raise ValueError("dataset: expected at least one episode, got none")
        parts = filler.finish()
        rate = layouts[main].rate or dataset.fps
        return cls(layouts, parts, filler.kept_episodes, episodes, main, rate, dataset.ticks_per_second)

    def _whole_clock(self, clock: int) -> tuple[Tensor, Tensor]:
        """Times and row splits of the main clock over kept and spilled episodes."""
        if len(self._parts) == 1:
            return self._parts[0].times[clock], self._parts[0].row_splits[clock]
        kept, spilled = self._parts
        splits = torch.cat([kept.row_splits[clock][:-1], kept.row_splits[clock][-1] + spilled.row_splits[clock][2:]])
        return torch.cat([kept.times[clock], spilled.times[clock]]), splits

    # ---- What is inside ---------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Episodes."""
        return len(self._episodes)

    @property
    def frames(self) -> int:
        """Frames of the main clock over all episodes."""
        return self._anchors["frames"].count

    @property
    def nbytes(self) -> int:
        tensors = [t for part in self._parts for t in (*part.times, *part.row_splits)]
        tensors += [*self._parts[0].values, self._clock_times, self._clock_splits]
        tensors += [t for anchors in self._anchors.values() for t in vars(anchors).values() if isinstance(t, Tensor)]
        return sum({t.data_ptr(): t.nbytes for t in tensors}.values())  # the clock may be one of the streams' own

    @property
    def spilled_bytes(self) -> int:
        return sum(t.nbytes for part in self._parts[1:] for t in part.values)

    @property
    def spilled_episodes(self) -> int:
        return len(self) - self._kept

    def row(self, name: str) -> int:
        """The row of the episode that the dataset calls `name`; KeyError where there is none."""
        if name not in self._rows_by_name:
            raise KeyError(f"episode: expected the name of one of {len(self)} episodes, got {name!r}")
        return self._rows_by_name[name]

    def episode(self, key: int | str) -> StoredEpisode:
        """One episode by row or by name. Reads two row splits a stream from the device, so it waits for it."""
        row = self.row(key) if isinstance(key, str) else operator.index(key)
        if not -len(self) <= row < len(self):
            raise IndexError(f"episode {row} of a store of {len(self)}")
        row %= len(self)
        spilled = row >= self._kept
        part = self._parts[1 if spilled else 0]
        inside = row - self._kept + 1 if spilled else row  # row 0 of the spilled part is its empty one
        streams = {}
        for index, layout in enumerate(self._layouts):
            begin, end = part.row_splits[index][inside : inside + 2].tolist()
            streams[layout.name] = (part.values[index][begin:end], part.times[index][begin:end])
        index, name, text = self._episodes[row]
        return StoredEpisode(row, index, name, text, streams)

    def __repr__(self) -> str:
        spilled = f", {self.spilled_episodes} episodes ({self.spilled_bytes / 1e6:.1f} MB) spilled"
        return (
            f"EpisodeStore({len(self)} episodes, {len(self.names)} streams, {self.frames} frames of {self.clock!r}, "
            f"{self.nbytes / 1e6:.1f} MB on {self.device}{spilled if self.spilled_episodes else ''})"
        )

    # ---- Windows ----------------------------------------------------------------------------------------------------

    def sample(
        self,
        batch: int,
        horizon: int | None = None,
        delta_times: Any = None,
        streams: Sequence[str] | None = None,
        generator: torch.Generator | None = None,
        *,
        rate: Any = None,
        anchors: str = "frames",
        max_gap: Span = None,
        tolerance: Span = None,
    ) -> WindowBatch:
        """Draws windows, with replacement, and reads all streams at their times in one kernel launch.

        Floating streams share a launch, up to 16 of them; streams of whole numbers keep their dtype in a launch of
        their own; spilled episodes add a launch. Nothing waits for the device.

        Args:
            batch: B.
            horizon: steps of a window: the anchor and horizon - 1 times after it, at `rate`.
            delta_times: instead of a horizon: seconds from the anchor (floats, Fractions, whole numbers), a list for
                all streams or a dict with a list a stream, which also names the streams. Rounded to ticks exactly.
            streams: names; None takes all, or those of `delta_times`.
            generator: of the store's device; None takes torch's default one.
            rate: steps per second of the horizon; None takes the main clock's.
            anchors: "frames" (each frame of each episode is equally likely) or "times" (each moment between an
                episode's first and last frame is, on a frame or not).
            max_gap: longest bracket, in seconds, across which a step is valid; a number or by stream.
            tolerance: furthest sample, in seconds, from which a step is valid; a number or by stream.

        Raises:
            ValueError, TypeError: an argument does not fit.

        Steps outside an episode get the first or last sample and are not valid: `batch.is_pad(name)` equals LeRobot's
        `<name>_is_pad` wherever the steps fall on frames.
        """
        windows = self.windows(horizon, delta_times, streams, rate=rate, max_gap=max_gap, tolerance=tolerance)
        return windows.sample(batch, generator, anchors=anchors)

    def at(
        self,
        episodes: Any,
        times: Any,
        horizon: int | None = None,
        delta_times: Any = None,
        streams: Sequence[str] | None = None,
        *,
        rate: Any = None,
        max_gap: Span = None,
        tolerance: Span = None,
    ) -> WindowBatch:
        """Windows at given places.

        Args:
            episodes: [B] rows of the store: integers as a sequence, an array or a tensor; or names.
            times: [B] anchors since each episode's zero. int64 tensors and arrays are ticks; a sequence of numbers, and
                floating arrays or host tensors, are seconds, rounded to ticks exactly.
            horizon, delta_times, streams, rate, max_gap, tolerance: as in `sample`.

        Returns, raises: as `sample`. Rows in a CUDA tensor are checked on the device: `robocache.check()` raises.

        Example:
            >>> store.at([0, 0, 3], [0.25, 1.5, 0.0], horizon=8)["state"].shape
            torch.Size([3, 8, 7])
        """
        windows = self.windows(horizon, delta_times, streams, rate=rate, max_gap=max_gap, tolerance=tolerance)
        return windows.at(episodes, times)

    def windows(
        self,
        horizon: int | None = None,
        delta_times: Any = None,
        streams: Sequence[str] | None = None,
        *,
        rate: Any = None,
        max_gap: Span = None,
        tolerance: Span = None,
    ) -> PreparedWindows:
        """Prepares windows that are drawn again and again. `sample` and `at` look at their steps at every call, which
        takes the host longer the more of them there are; those of what this returns do not.

        Args:
            horizon, delta_times, streams, rate, max_gap, tolerance: as in `sample`.

        Raises:
            ValueError, TypeError: an argument does not fit.

        Example:
            >>> windows = store.windows(delta_times=[k / 100 for k in range(250)])
            >>> windows.sample(32)["state"].shape
            torch.Size([32, 250, 7])
        """
        delta_times, streams = _listed(delta_times), _listed(streams)
        if horizon is not None:
            horizon = whole_number(horizon, "horizon", "steps")
        key = (horizon, _key(delta_times), _key(streams), rate, _key(max_gap), _key(tolerance))
        found = self._plans.get(key)
        if found is None:
            found = self._prepared(horizon, delta_times, streams, rate, max_gap, tolerance)
            if len(self._plans) >= 64:  # callers with ever new steps must not fill the memory
                self._plans.clear()
            self._plans[key] = found
        return found

    def _prepared(
        self, horizon: Any, delta_times: Any, streams: Any, rate: Any, max_gap: Span, tolerance: Span
    ) -> PreparedWindows:
        names = plan_names(self.names, streams, delta_times)
        deltas = window_deltas(names, horizon, delta_times, rate, self._rate, self.ticks_per_second)
        plan = WindowPlan(self._layouts, names, deltas, self.device, self.ticks_per_second, max_gap, tolerance)
        return PreparedWindows(self, plan, [plan.bind(part) for part in self._parts])

    def _drawable(self, anchors: str) -> FrameAnchors | TimeAnchors:
        """Where windows can be drawn."""
        found = self._anchors.get(anchors)
        if found is None:
            if anchors not in _ANCHORS:
                raise ValueError(f"anchors: expected one of {', '.join(map(repr, _ANCHORS))}, got {anchors!r}")
            found = self._anchors.setdefault(anchors, TimeAnchors(self._clock_times, self._clock_splits))
        if found.count == 0:
            raise ValueError(f"anchors: the clock {self.clock!r} has no sample in any episode")
        return found

    def _read(self, bound: list[list[BoundLaunch]], anchors: Anchors) -> list[tuple[Tensor, Tensor]]:
        """What the launches of every part read, put together."""
        if len(bound) == 1:
            return [launch.read(anchors) for launch in bound[0]]
        rows, times = anchors[0], anchors[1]
        kept = (rows.clamp(max=self._kept), times)
        spilled = ((rows - (self._kept - 1)).clamp(min=0), times)
        is_spilled = (rows >= self._kept)[:, None, None]
        parts = []
        for ours, theirs in zip(*bound, strict=True):
            (values, valid), (their_values, their_valid) = ours.read(kept), theirs.read(spilled)
            parts.append((torch.where(is_spilled, their_values, values), valid | their_valid))
        return parts

    def _rows(self, episodes: Any) -> Tensor:
        if isinstance(episodes, Sequence) and not isinstance(episodes, str):
            episodes = [self.row(entry) if isinstance(entry, str) else entry for entry in episodes]
            if not episodes:
                episodes = torch.empty(0, dtype=torch.int64)
        try:
            rows = torch.as_tensor(episodes)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"episodes: expected rows or names [B], got {type(episodes).__name__}: {error}") from None
        if rows.ndim != 1 or rows.dtype.is_floating_point or rows.dtype == torch.bool:
            raise ValueError(f"episodes: expected integers [B], got {rows.dtype} {list(rows.shape)}")
        if not rows.is_cuda and rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
            raise ValueError(f"episodes: expected rows from 0 to {len(self) - 1}, got {rows.tolist()[:8]}")
        return rows.to(self.device, torch.int64).contiguous()

    def _ticks(self, times: Any) -> Tensor:
        if isinstance(times, (Tensor, np.ndarray)):
            given = torch.as_tensor(times)
            if given.ndim != 1:
                raise ValueError(f"times: expected [B], got {list(given.shape)}")
            if given.dtype == torch.int64:
                return given.to(self.device).contiguous()
            if not given.dtype.is_floating_point or given.is_cuda:
                raise TypeError(
                    f"times: expected int64 ticks, or seconds as host floats, got {given.dtype} on {given.device}"
                )
            times = given.tolist()
        if isinstance(times, (str, bytes)) or not isinstance(times, Iterable):
            raise TypeError(f"times: expected a sequence of seconds, or int64 ticks [B], got {type(times).__name__}")
        ticks = [tick(entry, self.ticks_per_second, f"times[{index}]") for index, entry in enumerate(times)]
        return torch.tensor(ticks, dtype=torch.int64, device=self.device)


def _listed(value: Any) -> Any:
    """Iterators as tuples, because an argument is gone through twice: for its key and for its steps."""
    if isinstance(value, Mapping):
        return {name: _listed(entry) for name, entry in value.items()}
    return tuple(value) if isinstance(value, Iterator) else value


def _key(value: Any) -> Any:
    """An argument as something that can be hashed."""
    if value is None or isinstance(value, (str, int, float, Fraction)):
        return value
    if isinstance(value, Mapping):
        return tuple((name, _key(entry)) for name, entry in value.items())
    return tuple(value)


def plan_names(known: Sequence[str], streams: Any, delta_times: Any) -> tuple[str, ...]:
    """The streams that windows read: those asked for, else those of `delta_times`, else all."""
    if isinstance(streams, str):
        raise TypeError(f"streams: expected a sequence of names, got the name {streams!r} alone")
    source = "streams" if streams is not None else "delta_times"
    names = tuple(streams if streams is not None else delta_times if isinstance(delta_times, Mapping) else known)
    for name in names:
        if name not in known:
            raise ValueError(f"{source}: expected names of {', '.join(map(repr, known))}, got {name!r}")
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{source}: expected each stream once, and at least one, got {list(names)}")
    return names


def window_deltas(
    names: Sequence[str], horizon: Any, delta_times: Any, rate: Any, clock_rate: Fraction | None, ticks_per_second: int
) -> Any:
    """The steps of a window from either way to ask for them."""
    if (horizon is None) == (delta_times is None):
        raise ValueError("horizon, delta_times: expected exactly one of them")
    if delta_times is not None:
        if rate is not None:
            raise ValueError("rate: expected None beside delta_times, which say the times themselves")
        return given_deltas(names, delta_times, ticks_per_second)
    steps_per_second = clock_rate if rate is None else rational_rate(rate)
    if steps_per_second is None:
        raise ValueError("rate: expected steps per second, because the dataset does not tell the main clock's rate")
    return horizon_deltas(names, horizon, steps_per_second, ticks_per_second)
