"""Reading what a dataset folder says of itself: JSON without surprises, and paths that stay inside the folder."""

from __future__ import annotations

import json
import os
import re
import string
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ._errors import DatasetError

_MAX_JSON_BYTES = 1 << 30  # far above any real metadata file; a larger one is no metadata
_FORMAT_SPEC = re.compile(r"0?[0-9]{0,2}d?")


def read_json(path: Path) -> Any:
    """The content of a JSON file. DatasetError where it is missing, no UTF-8 or no JSON."""
    return _parsed(read_text(path), path)


def read_json_object(path: Path) -> dict[str, Any]:
    """The content of a JSON file that must be an object."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise DatasetError(f"expected a JSON object, got {type(content).__name__}", file=path)
    return content


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a file with one JSON object a line; empty lines are passed over."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        content = _parsed(line, path, number)
        if not isinstance(content, dict):
            raise DatasetError(f"line {number}: expected a JSON object, got {type(content).__name__}", file=path)
        yield number, content


def read_text(path: Path) -> str:
    """A UTF-8 file as text. DatasetError where it is missing, cannot be read or is no UTF-8."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise DatasetError(f"{path.stat().st_size} bytes are no metadata file", file=path)
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DatasetError(f"not UTF-8: byte {error.start}", file=path) from None
    except FileNotFoundError:
        raise DatasetError("missing file", file=path, category="missing file") from None
    except (OSError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"cannot be read: {error}", file=path) from error


def _parsed(text: str, path: Path, line: int | None = None) -> Any:
    place = "" if line is None else f"line {line}: "
    try:
        return json.loads(text)
    except RecursionError:
        raise DatasetError(f"{place}JSON nested too deep", file=path) from None
    except ValueError as error:
        raise DatasetError(f"{place}not JSON: {error}", file=path) from None


def is_file(path: Path) -> bool:
    """Whether a file is there. DatasetError where nobody can tell: a folder that may not be read, too long a name."""
    try:
        return path.is_file()
    except OSError as error:
        raise DatasetError(f"cannot be read: {error}", file=path) from error


def filled_template(template: Any, fields: Mapping[str, str | int], *, file: Path) -> str:
    """A path template of a dataset's metadata with its fields filled in.

    Only plain fields with an integer width are taken ("{episode_index:06d}"): `str.format` on foreign text would reach
    attributes and build strings of any length. The path must be relative and have no `..` in it. Links are followed,
    since download caches are made of them.

    Raises:
        DatasetError: the template is no such thing, or leads out of the folder. `file` is named as where it stands.
    """
    if not isinstance(template, str):
        raise DatasetError(f"path template: expected a string, got {type(template).__name__}", file=file)
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise DatasetError(f"path template {template!r}: {error}", file=file) from None
    text = ""
    for literal, field, spec, conversion in pieces:
        text += literal
        if field is None:
            continue
        if field not in fields or conversion or not _FORMAT_SPEC.fullmatch(spec or ""):
            known = ", ".join(fields)
            raise DatasetError(
                f"path template {template!r}: expected plain fields of {known}, got {field!r}", file=file
            )
        value = fields[field]
        if isinstance(value, str) and spec:
            raise DatasetError(f"path template {template!r}: {field} is text and takes no width", file=file)
        text += format(value, spec or "")
    return checked_relative(text, file=file)


def checked_relative(path: str, *, file: Path | None = None, episode: int | None = None) -> str:
    """`path`, where it stays inside the dataset's folder; DatasetError where it does not."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
        raise DatasetError(f"path {path!r}: holds no Unicode text", file=file, episode=episode) from None
    pure = PurePosixPath(path)
    if not path or "\\" in path or "\0" in path or pure.is_absolute() or ".." in pure.parts:
        raise DatasetError(f"path {path!r} leads out of the dataset's folder", file=file, episode=episode)
    return path


def whole_number(value: Any, what: str, *, file: Path, least: int = 0, episode: int | None = None) -> int:
    """A JSON value that must be a whole number; digits in a string count, as TFDS writes int64 so."""
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
        number = int(value)
    if number is None or not least <= number < 1 << 62:
        raise DatasetError(f"{what}: expected a whole number from {least}, got {value!r}", file=file, episode=episode)
    return number
