"""What every reader gives: a Dataset of Episodes of named streams, read when they are touched."""

from __future__ import annotations

import operator
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from .._kinds import KIND_NAMES, Kind, groups_of
from ._errors import DatasetError
from ._locks import ForkLock

VECTOR, IMAGE, VIDEO, TEXT = "vector", "image", "video", "text"


@dataclass(frozen=True, eq=False)
class StreamSpec:
    """What a dataset's own metadata says of a stream; known before an episode is read.

    Attributes:
        name: "observation.state", "action", "observation.images.cam_high", ...
        shape: of one sample: (D,) for vectors, (1,) for scalars; (H, W, C) for images, video; () for text.
            Tensors with more dimensions come flattened to (D,), row-major.
        dtype: of the values; uint8 for images and video; object for text.
        kind: as in `robocache.Stream`: a name, or (columns, name) pairs.
        modality: "vector", "image", "video" or "text".
        units: of all columns, where the metadata tells ("m", "rad", "m, rad, ..."), else None.
        column_names: one a column, where the metadata tells.
        rate: claimed samples per second.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    kind: Kind
    modality: str = VECTOR
    units: str | None = None
    column_names: tuple[str, ...] | None = None
    rate: Fraction | None = None


class EpisodeStream:
    """One stream of one episode. `values` and `times` are read at first touch and kept with the episode.

    Attributes:
        spec: what the metadata says of it.
        times: int64 [S], ticks since the episode's own zero (`Episode.ticks_per_second` of them a second).
        values: [S, D] for vectors. For images and video a lazy sequence of uint8 [H, W, C] with `len`, `[i]`, `[a:b]`
            and `.batch(indices)`. For text a list of S strings.
    """

    def __init__(
        self, spec: StreamSpec, length: int, values: Callable[[], Any], times: Callable[[], NDArray[np.int64]]
    ) -> None:
        self.spec = spec
        self._length = length
        self._load_values = values
        self._load_times = times
        self._values: Any = None
        self._times: NDArray[np.int64] | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def kind(self) -> Kind:
        return self.spec.kind

    @property
    def units(self) -> str | None:
        return self.spec.units

    @property
    def values(self) -> Any:
        if self._values is None:
            self._values = self._load_values()
        return self._values

    @property
    def times(self) -> NDArray[np.int64]:
        if self._times is None:
            self._times = self._load_times()
        return self._times

    def index_at(self, ticks: Any) -> NDArray[np.int64]:
        """Index of the sample that holds at each time [T] in ticks: the last at or before it, else the first.

        Example:
            >>> frames = camera.values.batch(camera.index_at(state.times[10:20]))
        """
        found = np.searchsorted(self.times, np.asarray(ticks, np.int64), side="right") - 1
        return np.maximum(found, 0).astype(np.int64)

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"EpisodeStream({self.name!r}, {self._length} x {self.spec.shape} {self.spec.dtype})"


@dataclass(frozen=True, eq=False)
class Episode:
    """One recording: streams by name, each with its own clock, and what was said of it.

    Attributes:
        index: its place in the dataset.
        name: what the format calls it ("train/12", "episode_000012").
        length: frames of the main clock.
        ticks_per_second: unit of every stream's `times`.
        streams: by name; reading one does not read the others' video.
        text: instruction, task and the like.

    Example:
        >>> episode = robocache.datasets.open(path)[0]
        >>> state = episode.streams["observation.state"]
        >>> state.values.shape, state.times / episode.ticks_per_second  # [S, D], seconds
    """

    index: int
    name: str
    length: int
    ticks_per_second: int
    streams: Mapping[str, EpisodeStream]
    text: Mapping[str, str]

    def __len__(self) -> int:
        return self.length

    def load(self) -> Episode:
        """Reads every vector stream and its times now; returns itself. Raises DatasetError where that fails."""
        for stream in self.streams.values():
            if stream.spec.modality == VECTOR:
                stream.values  # noqa: B018 - touching it reads it
                stream.times  # noqa: B018
        return self


class Dataset(ABC, Sequence[Episode]):
    """Episodes on disk, as `robocache.datasets.open` finds them. A sequence; pickles as paths and metadata, not files.

    `dataset[i]` raises DatasetError where episode i is missing or damaged. With on_error="skip", episodes known to be
    missing when the dataset is opened are left out, and iterating reads each episode's vector streams before it gives
    the episode, and passes over those that fail; both are counted in `skipped`.

    Attributes:
        path: the folder (or single file).
        format: "rlds", "lerobot_v2.1", "lerobot_v3.0" or "arrays".
        name: what the dataset calls itself.
        fps: frames per second of the main clock, None where nobody knows.
        ticks_per_second: unit of all times: lcm(10**9, fps.numerator), so nanoseconds and frames are whole numbers.
        specs: what the metadata says of each stream.
        on_error: "raise" or "skip".
        skipped: how many episodes were left out, by reason; each counts once.
    """

    path: Path
    format: str
    name: str
    fps: Fraction | None
    ticks_per_second: int
    specs: Mapping[str, StreamSpec]
    on_error: str
    skipped: Counter[str]

    def __init__(self) -> None:
        self.skipped = Counter()
        self._skipped_episodes: dict[str, DatasetError] = {}
        self._lock = ForkLock(threading.RLock)

    @abstractmethod
    def __len__(self) -> int:
        """Episodes."""

    @abstractmethod
    def episode(self, index: int) -> Episode:
        """Episode `index`, 0 <= index < len(self)."""

    @abstractmethod
    def length(self, index: int) -> int:
        """Frames of an episode: from metadata where the format has it, else by one cheap scan that is remembered."""

    def close(self) -> None:
        """Closes the files this process opened; they open again when needed."""

    @overload
    def __getitem__(self, index: int) -> Episode: ...

    @overload
    def __getitem__(self, index: slice) -> list[Episode]: ...

    def __getitem__(self, index: int | slice) -> Episode | list[Episode]:
        if isinstance(index, slice):
            return [self.episode(i) for i in range(*index.indices(len(self)))]
        return self.episode(self.checked_index(index))

    def __iter__(self) -> Iterator[Episode]:
        for index in range(len(self)):
            try:
                episode = self.episode(index)
                if self.on_error == "skip":
                    episode.load()
            except DatasetError as error:
                if self.on_error != "skip":
                    raise
                self.count_skipped(str(index), error)
                continue
            yield episode

    def count_skipped(self, episode: str, error: DatasetError) -> None:
        """Notes that an episode was left out, once however often it is met."""
        with self._lock:
            if episode not in self._skipped_episodes:
                self._skipped_episodes[episode] = error
                self.skipped[error.category] += 1

    def skipped_errors(self) -> Mapping[str, DatasetError]:
        """The error of each episode that was left out."""
        return dict(self._skipped_episodes)

    def checked_index(self, index: int) -> int:
        """`index` from the front; IndexError outside the dataset."""
        position = operator.index(index)
        if not -len(self) <= position < len(self):
            raise IndexError(f"episode {position} of a dataset of {len(self)}")
        return position % len(self)

    def __enter__(self) -> Dataset:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()

    def __repr__(self) -> str:
        rate = "unknown rate" if self.fps is None else f"{float(self.fps):g} Hz"
        return f"<{self.format} dataset {self.name!r}: {len(self)} episodes, {len(self.specs)} streams, {rate}>"


def canonical_kind(kind: Kind, num_columns: int, name: str) -> Kind:
    """A kind as one name, or as (slice, name) pairs in column order; ValueError where it does not fit the columns."""
    groups = groups_of(kind, num_columns, name)
    if len(groups) == 1 or not groups:
        return kind if isinstance(kind, str) else KIND_NAMES[groups[0][2]] if groups else "previous"
    return tuple((slice(begin, end), KIND_NAMES[number]) for begin, end, number in groups)


def with_kinds(specs: Mapping[str, StreamSpec], kinds: Mapping[str, Kind] | None) -> dict[str, StreamSpec]:
    """The specs with the kinds that a caller gave by stream name; ValueError for a name that is not there."""
    result = dict(specs)
    for name, kind in (kinds or {}).items():
        spec = specs.get(name)
        if spec is None or spec.modality != VECTOR:
            vectors = ", ".join(repr(other) for other, found in specs.items() if found.modality == VECTOR)
            raise ValueError(f"kinds: expected names of vector streams ({vectors}), got {name!r}")
        result[name] = replace(spec, kind=canonical_kind(kind, spec.shape[0], f"kinds[{name!r}]"))
    return result
