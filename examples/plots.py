"""Plots of the demo. Raw samples are grey dots, aligned values a blue line, refused targets a red band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

RAW = "#8a8f98"
ALIGNED = ["#1f6fb4", "#d9822b", "#3a9a5b", "#8458a8"]
REFUSED = "#d64545"
MANY = 150  # targets in a window past which single marks would only hide the line
STYLE = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


@dataclass
class Signal:
    """One column before and after."""

    raw_times: np.ndarray  # [S] seconds
    raw: np.ndarray  # [S]
    times: np.ndarray  # [T] seconds
    aligned: np.ndarray  # [T]
    label: str = ""
    truth: np.ndarray | None = None  # [T], where it is known


@dataclass
class Panel:
    """Signals that share axes, over a window of time."""

    title: str
    unit: str
    signals: list[Signal]
    valid: np.ndarray  # [T]
    window: tuple[float, float]
    step: bool = False
    wraps: bool = False  # break the line where it jumps from pi to -pi
    log: bool = False


def _refused_spans(times: np.ndarray, valid: np.ndarray) -> list[tuple[float, float]]:
    """Spans of time covered by targets that are not valid, each target counting for half a step on either side."""
    if len(times) < 2:
        return []
    half = float(np.median(np.diff(times))) / 2
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ~valid, [False]]).astype(int)))
    return [(times[a] - half, times[b - 1] + half) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _draw(axes: Any, panel: Panel) -> None:
    start, stop = panel.window if panel.window[1] > panel.window[0] else (panel.window[0] - 0.5, panel.window[0] + 0.5)
    shown = panel.signals[0].times
    dense = int(((shown >= start) & (shown <= stop)).sum()) > MANY
    sizes = (1.4, 0.0, 0.8) if dense else (5.2, 3.0, 2.2)  # raw, aligned, not valid
    raw_face, width = RAW if dense else "none", 0.6 if panel.log else 1.3
    for a, b in _refused_spans(panel.signals[0].times, panel.valid):
        axes.axvspan(a, b, color=REFUSED, alpha=0.13, linewidth=0)
    for color, signal in zip(ALIGNED, panel.signals, strict=False):
        aligned = np.where(panel.valid, signal.aligned, np.nan)
        if panel.wraps:
            aligned = np.where(np.abs(np.diff(aligned, prepend=aligned[:1])) > np.pi, np.nan, aligned)
        held = np.where(panel.valid, np.nan, signal.aligned)
        if signal.truth is not None:
            axes.plot(signal.times, signal.truth, "--", color="black", linewidth=0.9, zorder=2, label="true signal")
        axes.plot(signal.raw_times, signal.raw, "o", color=RAW, markersize=sizes[0], markerfacecolor=raw_face, zorder=2)
        draw = {"drawstyle": "steps-post"} if panel.step else {}
        axes.plot(signal.times, aligned, "-", color=color, linewidth=width, zorder=3, label=signal.label, **draw)
        axes.plot(signal.times, aligned, "o", color=color, markersize=sizes[1], zorder=3)
        axes.plot(signal.times, held, "o", color=REFUSED, markersize=sizes[2], zorder=3)
    axes.set_xlim(start, stop)
    if panel.log:
        if any(np.isfinite(signal.aligned).any() for signal in panel.signals):
            axes.set_yscale("log")
    else:
        inside = [s.raw[(s.raw_times >= start) & (s.raw_times <= stop)] for s in panel.signals]
        low, high = min(x.min() for x in inside), max(x.max() for x in inside)
        margin = 0.12 * (high - low or 1.0)
        axes.set_ylim(low - margin, high + margin)
    axes.set_title(panel.title)
    axes.set_ylabel(panel.unit)
    if any(signal.label or signal.truth is not None for signal in panel.signals):
        axes.legend(loc="best", ncols=len(panel.signals), handlelength=1.4, handletextpad=0.5, columnspacing=1.2)


def save_panels(panels: Sequence[Panel], title: str, path: Path, columns: int = 2) -> None:
    """Draws the panels in a grid and writes a PNG."""
    with plt.rc_context(STYLE):
        rows = -(-len(panels) // columns)
        height = 2.75 * rows + 0.5
        figure, grid = plt.subplots(rows, columns, figsize=(6.4 * columns, height), squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _draw(axes, panel)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[-1]:
            axes.set_xlabel("time, s")
        handles = [
            plt.Line2D([], [], color=RAW, marker="o", markerfacecolor="none", linestyle="", label="raw samples"),
            plt.Line2D([], [], color=ALIGNED[0], marker="o", markersize=3, label="aligned"),
            plt.Rectangle((0, 0), 1, 1, color=REFUSED, alpha=0.2, linewidth=0, label="not valid (held or bridged)"),
        ]
        figure.suptitle(title, x=0.012, y=1 - 0.1 / height, ha="left", va="top", fontsize=13, fontweight="bold")
        figure.legend(
            handles=handles, loc="upper right", ncols=3, bbox_to_anchor=(0.995, 1 - 0.03 / height), fontsize=9.5
        )
        figure.tight_layout(h_pad=1.4, w_pad=1.6)
        figure.subplots_adjust(top=1 - 0.72 / height)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
        plt.close(figure)
