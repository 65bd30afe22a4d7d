"""Which TFRecord files a TFDS folder should hold, split by split, and which records they should hold."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._errors import DatasetError
from .._files import checked_relative, read_json_object, whole_number

FEATURES, INFO = "features.json", "dataset_info.json"
SHARD_NAME = re.compile(
    r"(?P<name>.+)-(?P<split>[^-.]+)\.(?P<form>tfrecord)-(?P<shard>[0-9]{5})-of-(?P<shards>[0-9]{5})"
)
_DEFAULT_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_PLACEHOLDER = re.compile(r"\{([A-Z_]+)\}")


@dataclass(frozen=True)
class Shard:
    """A file of records: `records` is how many dataset_info.json says it holds, None where it does not say."""

    path: Path
    split: str
    records: int | None


@dataclass(frozen=True)
class Layout:
    """What a TFDS folder says of itself."""

    name: str
    version: str | None
    shards: tuple[Shard, ...]


def read_layout(folder: Path, only: Path | None = None) -> Layout:
    """The shards of every split, in order: from dataset_info.json, else from the files' own names.

    Args:
        folder: with features.json in it.
        only: one TFRecord file, if that alone is wanted.

    Raises:
        DatasetError: the metadata is damaged, a shard that the names promise is missing, or there are no records.
    """
    info_path = folder / INFO
    if info_path.exists():
        info = read_json_object(info_path)
        name = info.get("name")
        if not isinstance(name, str) or not name:
            raise DatasetError(f"name: expected a string, got {name!r}", file=info_path)
        version = info.get("version") if isinstance(info.get("version"), str) else None
        shards = _listed(folder, name, info, info_path)
    else:
        name, version = _name_of(folder, only)
        shards = _found(folder) if only is None else []  # one file does not need its neighbours
    if only is not None:
        chosen = [shard for shard in shards if shard.path.name == only.name]
        match = SHARD_NAME.fullmatch(only.name)
        shards = chosen or [Shard(only, match["split"] if match else "all", None)]
    if not shards:
        where = f"listed in {INFO}" if info_path.exists() else "here: none is named *.tfrecord-NNNNN-of-MMMMM"
        raise DatasetError(f"no TFRecord files are {where}", file=folder)
    return Layout(name, version, tuple(shards))


def _listed(folder: Path, name: str, info: dict[str, Any], file: Path) -> list[Shard]:
    """The shards that dataset_info.json lists."""
    form = info.get("fileFormat")
    shards: list[Shard] = []
    for split in _list(info, "splits", file):
        found = _split(folder, name, split, form, file)
        if found and found[0].split in {shard.split for shard in shards}:
            raise DatasetError(f"splits: {found[0].split!r} stands twice", file=file)
        shards += found
    paths = [shard.path for shard in shards]
    if len(set(paths)) != len(paths):
        twice = next(path for path, following in itertools.pairwise(sorted(paths)) if path == following)
        raise DatasetError(f"filepathTemplate: two shards are the one file {twice.name}", file=file)
    return shards


def _list(content: dict[str, Any], key: str, file: Path) -> list[Any]:
    value = content.get(key, [])
    if not isinstance(value, list):
        raise DatasetError(f"{key}: expected a list, got {type(value).__name__}", file=file)
    return value


def _split(folder: Path, dataset: str, split: Any, form: Any, info: Path) -> list[Shard]:
    """The shards of one split; `form` is the file format where the split names none of its own."""
    if not isinstance(split, dict) or not isinstance(split.get("name"), str):
        raise DatasetError(f"splits: expected objects with a name, got {split!r:.80}", file=info)
    form = split.get("fileFormat") or form or "tfrecord"
    if form != "tfrecord":
        raise DatasetError(f"split {split['name']!r}: file format {form!r} is not TFRecord", file=info)
    lengths = [
        whole_number(length, f"split {split['name']!r}: shardLengths", file=info)
        for length in _list(split, "shardLengths", info)
    ]
    template = split.get("filepathTemplate")
    template = _DEFAULT_TEMPLATE if template in (None, "") else template
    if not isinstance(template, str):
        raise DatasetError(f"filepathTemplate: expected a string, got {template!r}", file=info)
    shards = []
    for shard, records in enumerate(lengths):
        fields = {
            "DATASET": dataset,
            "SPLIT": split["name"],
            "FILEFORMAT": "tfrecord",
            "SHARD_INDEX": f"{shard:05d}",
            "NUM_SHARDS": f"{len(lengths):05d}",
            "SHARD_X_OF_Y": f"{shard:05d}-of-{len(lengths):05d}",
        }
        unknown = set(_PLACEHOLDER.findall(template)) - set(fields)
        if unknown:
            raise DatasetError(f"filepathTemplate: unknown placeholders {sorted(unknown)}", file=info)
        path = _PLACEHOLDER.sub(lambda match, fields=fields: fields[match[1]], template)  # type: ignore[misc]
        shards.append(Shard(folder / checked_relative(path, file=info), split["name"], records))
    return shards


def _name_of(folder: Path, only: Path | None) -> tuple[str, str | None]:
    """(name, version) where no dataset_info.json tells: from a file's name, else from <name>/<version>."""
    files = [only] if only is not None else sorted(folder.iterdir())
    for file in files:
        match = SHARD_NAME.fullmatch(file.name)
        if match:
            return match["name"], folder.name if re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", folder.name) else None
    return folder.parent.name, None


def _found(folder: Path) -> list[Shard]:
    """Shards by the names of the files; a number that is missing of those promised is an error."""
    groups: dict[tuple[str, str, int], set[int]] = {}
    for file in sorted(folder.iterdir()):
        match = SHARD_NAME.fullmatch(file.name)
        if match:
            groups.setdefault((match["name"], match["split"], int(match["shards"])), set()).add(int(match["shard"]))
    shards: list[Shard] = []
    for (name, split, count), numbers in sorted(groups.items()):
        if max(numbers) >= count:
            wrong = f"{name}-{split}.tfrecord-{max(numbers):05d}-of-{count:05d}"
            raise DatasetError(f"split {split!r}: expected shards below {count}, got {wrong}", file=folder)
        counts = sorted(shards_of for *of, shards_of in groups if of == [name, split])
        if len(counts) > 1:  # one was left behind when the other was written, and nothing tells which
            raise DatasetError(f"split {split!r}: expected one number of shards, got files of {counts}", file=folder)
        files = [folder / f"{name}-{split}.tfrecord-{number:05d}-of-{count:05d}" for number in range(count)]
        missing = [file.name for number, file in enumerate(files) if number not in numbers]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise DatasetError(
                f"missing shards of split {split!r}: {', '.join(missing[:5])}{more}",
                file=folder,
                category="missing file",
            )
        shards += [Shard(file, split, None) for file in files]
    return shards
