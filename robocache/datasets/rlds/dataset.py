"""RLDS datasets as Episodes: one record, one episode."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._kinds import Kind
from .._clock import frame_ticks, rational_rate, ticks_for
from .._episode import IMAGE, TEXT, VECTOR, Dataset, Episode, EpisodeStream, StreamSpec, with_kinds
from .._errors import DatasetError
from .._files import read_json
from .._images import EncodedImages
from .._kinds import kind_of_columns
from .._values import check_finite
from . import features
from .example import Feature, parse_example
from .features import FeatureSpec
from .known import known_columns
from .rates import known_rate
from .shards import FEATURES, INFO, Shard, read_layout
from .tfrecord import RecordFile, crc32c

_MOST_ABSENT = 1 << 16  # records that a shard may lack; where it lacks more, its metadata is wrong
_KEPT_RECORDS = 4  # records in memory, so that the streams of an episode at hand are not each a read


class RldsDataset(Dataset):
    """An RLDS folder (or one file of it); see `robocache.datasets.open` for the arguments.

    `unread` lists features that no stream is made of (ragged ones, audio); `version` is the folder's own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        only: Path | None = None,
        split: str | None = None,
        on_error: str = "raise",
        kinds: Mapping[str, Kind] | None = None,
        rate: Any = None,
        checksums: bool = True,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__()
        if checksums:
            crc32c(b"")  # the library is missed now rather than at the first record
        self.path = folder if only is None else only
        self.format = "rlds"
        self.on_error = on_error
        self._nonfinite = nonfinite
        layout = read_layout(folder, only)
        self.name, self.version = layout.name, layout.version
        self.fps = known_rate(layout.name) if rate is None else rational_rate(rate)
        self.ticks_per_second = ticks_for([self.fps])
        found, self.unread = features.read_features(read_json(folder / FEATURES), folder / FEATURES)
        self._features = {spec.key: spec for spec in found}
        self._by_name = {spec.name: spec for spec in found if spec.per_step}
        specs = {name: _stream_spec(layout.name, spec, self.fps) for name, spec in self._by_name.items()}
        self.specs = with_kinds(specs, kinds)
        shards = [shard for shard in layout.shards if split is None or shard.split == split]
        if not shards:
            there = ", ".join(sorted({shard.split for shard in layout.shards}))
            raise ValueError(f"split: expected one of {there}, got {split!r}")
        self.shards = shards
        self.files = [RecordFile(shard.path, checksums=checksums) for shard in shards]
        self._ends = np.cumsum(self._counts(), dtype=np.int64)  # by shard: episodes in it and in those before it
        self._first = self._starts()
        self._lengths: dict[int, int] = {}
        self._records: OrderedDict[int, dict[str, Feature]] = OrderedDict()

    def _counts(self) -> list[int]:
        """Episodes of each shard. Files are scanned only where metadata does not tell, or to skip damage."""
        counts = []
        for number, (shard, file) in enumerate(zip(self.shards, self.files, strict=True)):
            if shard.records is not None and self.on_error != "skip":
                if shard.records > _MOST_ABSENT:  # else the file need not be looked at
                    self._check_claim(shard, file.most_records())
                counts.append(shard.records)
                continue
            places, damage = file.places()
            whole = len(places) + (damage is not None) if shard.records is None else shard.records
            if self.on_error != "skip":
                counts.append(whole)
                continue
            self._check_claim(shard, len(places))
            counts.append(min(len(places), whole))
            for record in range(counts[-1], whole):
                self.count_skipped(f"{shard.path.name}/{record}", self._absent(number, record))
        return counts

    def _check_claim(self, shard: Shard, most: int) -> None:
        """DatasetError where metadata claims so many records beyond what the file holds that to count them costs."""
        if shard.records is not None and shard.records > most + _MOST_ABSENT:
            raise DatasetError(
                f"{INFO} says {shard.records} records, the file holds at most {most}",
                file=shard.path,
                category="record count",
            )

    def _absent(self, shard: int, record: int) -> DatasetError:
        places, damage = self.files[shard].places()
        if damage is not None:
            return damage
        claimed = self.shards[shard].records
        says = "" if claimed is None else f", {INFO} says {claimed}"
        return DatasetError(
            f"record {record} is not there: the file holds {len(places)}{says}",
            file=self.shards[shard].path,
            category="missing record",
        )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def where(self, index: int) -> tuple[Path, int]:
        """(file, record) of an episode."""
        shard, record = self._place(index)
        return self.shards[shard].path, record

    def feature_keys(self) -> set[str]:
        """Keys of a record that features.json names and this reader reads."""
        return set(self._features)

    def length(self, index: int) -> int:
        index = self.checked_index(index)
        if index not in self._lengths:
            self._lengths[index] = self._counted(index, self.record(index))
        return self._lengths[index]

    def episode(self, index: int) -> Episode:
        length = self.length(index)
        shard, record = self._place(index)
        times = partial(self._times, index)
        streams = {
            name: EpisodeStream(self.specs[name], length, partial(self._values, index, name), times)
            for name in self.specs
        }
        name = f"{self.shards[shard].split}/{self._first[shard] + record}"
        return Episode(index, name, length, self.ticks_per_second, streams, self._text(index))

    def record(self, index: int) -> dict[str, Feature]:
        """The parsed record of an episode; the last few stay in memory."""
        with self._lock:
            if index in self._records:
                self._records.move_to_end(index)
                return self._records[index]
        shard, number = self._place(index)
        try:
            places, _ = self.files[shard].places()
            if number >= len(places):
                raise self._absent(shard, number)
            parsed = parse_example(self.files[shard].read(number))
        except DatasetError as error:
            raise error.at(file=self.shards[shard].path, episode=index) from error
        with self._lock:
            self._records[index] = parsed
            while len(self._records) > _KEPT_RECORDS:
                self._records.popitem(last=False)
        return parsed

    def close(self) -> None:
        with self._lock:
            self._records.clear()
        for file in self.files:
            file.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_records": OrderedDict()}

    def _place(self, index: int) -> tuple[int, int]:
        """(shard, record in it) of an episode."""
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return shard, int(index) - (int(self._ends[shard - 1]) if shard else 0)

    def _starts(self) -> list[int]:
        """By shard, how many records of its split stand in earlier files."""
        ahead: dict[str, int] = {}
        starts = []
        for shard, file in zip(self.shards, self.files, strict=True):
            starts.append(ahead.get(shard.split, 0))
            count = len(file.places()[0]) if shard.records is None else shard.records
            ahead[shard.split] = starts[-1] + count
        return starts

    def _blame(self, index: int, reason: str) -> DatasetError:
        return DatasetError(reason, file=self.where(index)[0], episode=index)

    def _feature(self, index: int, spec: FeatureSpec) -> Feature:
        found = self.record(index).get(spec.key)
        if found is None:
            raise self._blame(index, f"{spec.key}: {FEATURES} names it, the record has it not")
        return found

    def _counted(self, index: int, record: Mapping[str, Feature]) -> int:
        """Steps of an episode, by the feature that is the quickest to count."""
        numbers = [spec for spec in self._by_name.values() if spec.form == features.TENSOR and spec.elements == 1]
        for spec in [*numbers, *self._by_name.values()]:
            if spec.key in record and spec.elements:
                break
        else:
            raise self._blame(index, f"the record has none of the step features that {FEATURES} names")
        try:
            length = features.count_values(spec, record[spec.key])
        except DatasetError as error:
            raise error.at(file=self.where(index)[0], episode=index) from error
        if length == 0:
            raise DatasetError("has no steps", file=self.where(index)[0], episode=index, category="empty episode")
        return length

    def _values(self, index: int, name: str) -> Any:
        spec, length = self._by_name[name], self.length(index)
        feature = self._feature(index, spec)
        try:
            if spec.form == features.TEXT:
                return features.text_values(spec, feature, length)
            if spec.form == features.IMAGE:
                encoded = features.byte_values(spec, feature, length)
                return EncodedImages(encoded, spec.shape, spec.dtype, partial(self._blame_image, index, name))
            values = features.vector_values(spec, feature, length)
            if self._nonfinite == "raise":
                check_finite(name, values)
        except DatasetError as error:
            raise error.at(file=self.where(index)[0], episode=index) from error
        return values

    def _blame_image(self, index: int, name: str, reason: str) -> DatasetError:
        return self._blame(index, f"{name}: {reason}")

    def _times(self, index: int) -> NDArray[np.int64]:
        if self.fps is None:
            raise self._blame(
                index,
                f"RLDS stores no times, and the rate of {self.name!r} is not known: open it with rate=",
            )
        return frame_ticks(np.arange(self.length(index), dtype=np.int64), self.fps, self.ticks_per_second)

    def _text(self, index: int) -> dict[str, str]:
        """The first of each text of the steps, and what episode_metadata says, as text."""
        words: dict[str, str] = {}
        record = self.record(index)
        for spec in self._features.values():
            if spec.key not in record or spec.form == features.IMAGE:
                continue
            if spec.form != features.TEXT and (spec.per_step or spec.elements != 1 or spec.encoding != "none"):
                continue
            try:
                if spec.form == features.TEXT:
                    words[spec.name] = features.first_text(spec, record[spec.key])
                else:
                    words[spec.name] = str(features.vector_values(spec, record[spec.key], 1)[0, 0])
            except DatasetError as error:
                raise error.at(file=self.where(index)[0], episode=index) from error
        return words


def _stream_spec(dataset: str, spec: FeatureSpec, rate: Fraction | None) -> StreamSpec:
    if spec.form == features.TEXT:
        return StreamSpec(spec.name, (), np.dtype(object), "previous", TEXT, rate=rate)
    if spec.form == features.IMAGE:
        return StreamSpec(spec.name, spec.shape, spec.dtype, "previous", IMAGE, rate=rate)
    names, units = known_columns(dataset, spec.name, spec.elements)
    kind = kind_of_columns(spec.name, spec.dtype, spec.elements, names)
    return StreamSpec(spec.name, (spec.elements,), spec.dtype, kind, VECTOR, units, names, rate)
