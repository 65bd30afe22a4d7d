"""An audit as a picture: episode lengths with what is wrong, and the streams that change over one episode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .._episode import VECTOR, Dataset, Episode
from .._errors import DatasetError, missing_extra
from .audit import Audit
from .findings import ERROR

_MAX_STREAMS = 10
_MAX_LEGEND = 8  # more columns than this get no legend
_ROW_INCHES = 1.9


def save_plot(dataset: Dataset, audit: Audit, file: Path) -> None:
    """Writes PNG, SVG or PDF, by the file's ending. Needs matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "demo", "--plot") from error
    episode = _first_readable(dataset, audit)
    names = [name for name in dataset.specs if _changes(dataset, audit, name)][:_MAX_STREAMS]
    rows = 1 + (len(names) if episode is not None else 0)
    figure = Figure(figsize=(10, _ROW_INCHES * (rows + 0.5)), layout="constrained")
    axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
    _plot_lengths(axes[0], dataset, audit)
    if episode is not None:
        for axis, name in zip(axes[1:], names, strict=True):
            _plot_stream(axis, episode, name)
        axes[-1].set_xlabel(f"seconds of episode {episode.name}" if dataset.fps is not None else "step")
    figure.savefig(file, dpi=120)


def _changes(dataset: Dataset, audit: Audit, name: str) -> bool:
    """Whether a stream has something to show: numbers that are not all one and the same."""
    summary = audit.streams[name]
    if dataset.specs[name].modality != VECTOR or summary.least is None or summary.greatest is None:
        return False
    return bool((summary.least != summary.greatest).any())


def _first_readable(dataset: Dataset, audit: Audit) -> Episode | None:
    for index, _ in audit.lengths:
        try:
            episode = dataset[index]
            for stream in episode.streams.values():  # not `load`: there are no times where nobody knows the rate
                if stream.spec.modality == VECTOR:
                    stream.values  # noqa: B018 - touching it reads it
        except DatasetError:
            continue
        return episode
    return None


def _plot_lengths(axis: Any, dataset: Dataset, audit: Audit) -> None:
    scale = 1.0 if dataset.fps is None else float(dataset.fps)
    axis.bar([index for index, _ in audit.lengths], [length / scale for _, length in audit.lengths], width=1.0)
    wrong = sorted({f.episode for f in audit.findings if f.severity == ERROR and f.episode is not None})
    if wrong:
        axis.plot(wrong, np.zeros(len(wrong)), "x", color="tab:red", clip_on=False, label=f"{len(wrong)} with errors")
        axis.legend(loc="upper right", fontsize=7)
    axis.set_xlim(audit.episodes.start - 0.5, max(audit.episodes.stop - 0.5, audit.episodes.start + 0.5))
    axis.set_ylabel("steps" if dataset.fps is None else "seconds")
    axis.set_title(f"{dataset.name}: {audit.readable} of {len(audit.episodes)} episodes without errors", fontsize=10)


def _plot_stream(axis: Any, episode: Episode, name: str) -> None:
    stream = episode.streams[name]
    values = np.asarray(stream.values, np.float64)
    known = stream.spec.rate is not None
    clock = stream.times / episode.ticks_per_second if known else np.arange(len(values))
    style = "steps-post" if stream.kind == "previous" else "default"
    lines = axis.plot(
        clock, values, linewidth=0.8, drawstyle=style, marker="." if len(values) < 60 else "", markersize=3
    )
    labels = stream.spec.column_names
    if labels and len(lines) <= _MAX_LEGEND:
        axis.legend(lines, labels, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=6)
    axis.set_title(f"{name} [{values.shape[1]}]{'' if stream.units is None else f', {stream.units}'}", fontsize=8)
    axis.tick_params(labelsize=7)
