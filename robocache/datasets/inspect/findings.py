"""What an audit finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .._errors import DatasetError

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        severity: "error": the data are not what the format or the metadata promise. "warning": they may be meant so.
        check: which check found it: "missing file", "gap", "quaternion sign", ...
        message: what was found.
        episode: the episode, as the dataset counts; None for the dataset as a whole.
        stream: the stream, or None.
        file: the file, or None.
    """

    severity: str
    check: str
    message: str
    episode: int | None = None
    stream: str | None = None
    file: str | None = None


def from_error(error: DatasetError, episode: int, stream: str | None = None) -> Finding:
    """A DatasetError as a finding."""
    number = error.episode if error.episode is not None else episode
    return Finding(ERROR, error.category, error.reason, number, stream, error.file)


@dataclass(frozen=True)
class Group:
    """Findings of one check on one stream, as a report shows them."""

    severity: str
    check: str
    stream: str | None
    findings: tuple[Finding, ...]

    @property
    def episodes(self) -> list[int]:
        return sorted({finding.episode for finding in self.findings if finding.episode is not None})


def grouped(findings: Iterable[Finding]) -> list[Group]:
    """Findings by severity (errors first), check and stream."""
    groups: dict[tuple[str, str, str | None], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.check, finding.stream), []).append(finding)
    order = sorted(groups, key=lambda key: (key[0] != ERROR, key[1], key[2] or ""))
    return [Group(*key, tuple(groups[key])) for key in order]
