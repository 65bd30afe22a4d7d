"""An audit as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..._kinds import KIND_NAMES, groups_of
from .._episode import VECTOR, Dataset, StreamSpec
from .audit import Audit
from .findings import Group, grouped

_SHOWN_EPISODES = 12
_SHOWN_TASKS = 5


def text_report(dataset: Dataset, audit: Audit) -> str:
    """What is inside, then what is wrong, for a reader at a terminal."""
    lines = [*_overview(dataset, audit), "", *_stream_table(dataset, audit), "", *_finding_lines(audit)]
    return "\n".join(printable(line) for line in lines)


def printable(text: str) -> str:
    """One line of text. What a terminal would obey rather than show is escaped, as names may hold anything."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text)


def json_report(dataset: Dataset, audit: Audit) -> dict[str, Any]:
    """The same as data: nothing is cut short."""
    return {
        "path": str(dataset.path),
        "format": dataset.format,
        "name": dataset.name,
        "fps": None if dataset.fps is None else str(dataset.fps),
        "ticks_per_second": dataset.ticks_per_second,
        "episodes": len(dataset),
        "audited": [audit.episodes.start, audit.episodes.stop],
        "readable": audit.readable,
        "frames": audit.frames,
        "seconds": audit.seconds,
        "bytes": audit.bytes_on_disk,
        "tasks": dict(audit.tasks),
        "streams": {name: _stream_json(spec, audit) for name, spec in dataset.specs.items()},
        "errors": audit.errors,
        "warnings": audit.warnings,
        "findings": [vars(finding) for finding in audit.findings],
    }


def _stream_json(spec: StreamSpec, audit: Audit) -> dict[str, Any]:
    summary = audit.streams[spec.name]
    return {
        "modality": spec.modality,
        "shape": list(spec.shape),
        "dtype": str(spec.dtype),
        "kind": [[begin, end, KIND_NAMES[kind]] for begin, end, kind in groups_of(spec.kind, spec.shape[0])]
        if spec.modality == VECTOR
        else None,
        "units": spec.units,
        "column_names": None if spec.column_names is None else list(spec.column_names),
        "rate": None if spec.rate is None else str(spec.rate),
        "samples": summary.samples,
        "least": None if summary.least is None else [_number(value) for value in summary.least.tolist()],
        "greatest": None if summary.greatest is None else [_number(value) for value in summary.greatest.tolist()],
    }


def _number(value: Any) -> Any:
    return None if value != value else value


def _overview(dataset: Dataset, audit: Audit) -> Iterator[str]:
    rate = "unknown" if dataset.fps is None else f"{float(dataset.fps):g} a second"
    yield f"{dataset.name}  ({dataset.format}, {dataset.path})"
    part = "" if len(audit.episodes) == len(dataset) else f", {audit.episodes.start}:{audit.episodes.stop} audited"
    yield f"  episodes  {len(dataset)}{part}, {audit.readable} without errors"
    length = "" if audit.seconds is None else f", {_duration(audit.seconds)}"
    yield f"  frames    {audit.frames}{length}"
    yield f"  rate      {rate}"
    yield f"  on disk   {_bytes(audit.bytes_on_disk)}"
    for task, count in audit.tasks.most_common(_SHOWN_TASKS):
        yield f"  task      {task!r}: {count} episodes"
    if len(audit.tasks) > _SHOWN_TASKS:
        yield f"            and {len(audit.tasks) - _SHOWN_TASKS} more tasks"


def _stream_table(dataset: Dataset, audit: Audit) -> Iterator[str]:
    rows = [("stream", "shape", "dtype", "samples", "range", "rate", "kind", "units")]
    for name, spec in dataset.specs.items():
        summary = audit.streams[name]
        span = ""
        if summary.least is not None and summary.greatest is not None and summary.least.size:
            span = f"{float(summary.least.min()):.3g} .. {float(summary.greatest.max()):.3g}"
        shape = " x ".join("?" if size < 0 else str(size) for size in spec.shape)
        form = "text" if spec.modality == "text" else str(spec.dtype)
        kind = _kind(spec) if spec.modality == VECTOR else spec.modality
        rate = "" if spec.rate is None else f"{float(spec.rate):g} Hz"
        rows.append((name, shape, form, str(summary.samples), span, rate, kind, spec.units or ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _kind(spec: StreamSpec) -> str:
    groups = groups_of(spec.kind, spec.shape[0])
    if len(groups) == 1:
        return KIND_NAMES[groups[0][2]]
    return " ".join(f"{begin}:{end} {KIND_NAMES[kind]}" for begin, end, kind in groups)


def _finding_lines(audit: Audit) -> Iterator[str]:
    for group in grouped(audit.findings):
        yield f"{group.severity}: {_group_line(group)}"
    errors, warnings = audit.errors, audit.warnings
    if not errors and not warnings:
        yield "clean: no errors, no warnings"
    else:
        yield f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"


def _group_line(group: Group) -> str:
    first = group.findings[0]
    stream = "" if group.stream is None else f" {group.stream}:"
    file = "" if first.file is None else f" ({first.file})"
    episodes = group.episodes
    if not episodes:
        more = "" if len(group.findings) == 1 else f"; {len(group.findings) - 1} more like it"
        return f"{group.check}:{stream} {first.message}{file}{more}"
    if len(episodes) == 1:
        return f"{group.check}:{stream} episode {episodes[0]}: {first.message}{file}"
    shown = ", ".join(str(episode) for episode in episodes[:_SHOWN_EPISODES])
    more = f", ... ({len(episodes)} in all)" if len(episodes) > _SHOWN_EPISODES else ""
    return f"{group.check}:{stream} episodes {shown}{more}; the first: {first.message}{file}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours} h {minutes} min {rest:.0f} s" if hours else f"{minutes} min {rest:.1f} s"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
