"""Draws the plots of results: roofline, speed against size, ratio to each peer, and the attention suite's.

`planned` says which plots results give, without drawing; `draw` makes those files. The SVG of one set of results is the
same whenever it is drawn with one matplotlib: no date, a fixed salt, no system font.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .attention_cases import BACKENDS
from .bars import median, peer_medians
from .findings import LEAST_SHARE, NOT_COMPARED, comparable, machine_of
from .report import suite_of

STYLE = {
    "svg.hashsalt": "robocache",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 8,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.autolayout": True,
}
_OURS = "#c0392b"
# A colour and a marker for each peer, the same in every plot.
_LOOKS = {
    "eager": ("#7f8c8d", "s"),
    "compile": ("#2980b9", "D"),
    "compile-max-autotune-no-cudagraphs": ("#1f4e79", "d"),
    "triton": ("#e67e22", "^"),
    "cupy": ("#27ae60", "v"),
    "numpy": ("#8e44ad", "<"),
    "numpy-interp": ("#b39bc8", ">"),
    "scipy": ("#16a085", "P"),
    "default": ("#2c3e50", "o"),
    "math": ("#7f8c8d", "s"),
    "flash": ("#e67e22", "^"),
    "efficient": ("#27ae60", "v"),
    "cudnn": ("#2980b9", "D"),
}
_OTHER = ("#34495e", "x")


@dataclass(frozen=True)
class Plot:
    """A plot to be drawn: its file, its caption, and what draws it into an axes."""

    file: str
    caption: str
    paint: Callable[[Any, dict[str, Any]], None]
    size: tuple[float, float]


def _rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in results.get("cases", []) if comparable(row)]


def amount(row: dict[str, Any]) -> tuple[float, str] | None:
    """How much a row makes, and of what: values of an align output, points of a voxelize call."""
    if "targets" in row:
        columns = sum(stream["columns"] for stream in row["streams"])
        return float(row["batch"] * row["targets"] * columns), "output values"
    if "points" in row:
        return float(row["batch"] * row["points"]), "points"
    return None


def _look(name: str) -> dict[str, Any]:
    colour, marker = _LOOKS.get(name, _OTHER)
    return {"color": colour, "marker": marker, "linestyle": "none", "markersize": 4, "label": name}


def _paint_roofline(axes: Any, results: dict[str, Any]) -> None:
    rows, ceiling = _rows(results), results["bandwidth"]["bytes_per_second"]
    moved = [row["bytes"]["total"] for row in rows]
    span = [min(moved) / 2, max(moved) * 2]
    for name in sorted({name for row in rows for name in peer_medians(row)}):
        both = [(row["bytes"]["total"], median(row, name)) for row in rows]
        points = [(total, total / us * 1e6) for total, us in both if us is not None]
        axes.plot(*zip(*points, strict=True), **_look(name) | {"markersize": 3, "alpha": 0.6})
    speeds = [total / us * 1e6 for total, us in zip(moved, map(median, rows), strict=True) if us is not None]
    axes.plot(moved, speeds, "o", color=_OURS, markersize=5, label="robocache")
    axes.plot(span, [ceiling, ceiling], color="black", linewidth=1, label="a large copy, same run")
    least = f"{LEAST_SHARE:.0%} of it"
    axes.plot(span, [LEAST_SHARE * ceiling] * 2, color="black", linewidth=1, linestyle=":", label=least)
    axes.set(xscale="log", yscale="log", xlabel="bytes that must move", ylabel="bytes moved a second")
    axes.legend(fontsize=7)


def _paint_speed(axes: Any, results: dict[str, Any]) -> None:
    rows = [(row, made) for row in _rows(results) if (made := amount(row)) is not None]
    unit = rows[0][1][1]
    for name in sorted({name for row, _ in rows for name in peer_medians(row)}):
        points = [(made[0], made[0] / us * 1e6) for row, made in rows if (us := median(row, name)) is not None]
        axes.plot(*zip(*points, strict=True), **_look(name) | {"markersize": 3, "alpha": 0.6})
    ours = [(made[0], made[0] / us * 1e6) for row, made in rows if (us := median(row)) is not None]
    axes.plot(*zip(*ours, strict=True), "o", color=_OURS, markersize=5, label="robocache")
    axes.set(xscale="log", yscale="log", xlabel=f"{unit} a call", ylabel=f"{unit} a second")
    axes.legend(fontsize=7)


def _paint_ratios(axes: Any, results: dict[str, Any]) -> None:
    rows = [row for row in _rows(results) if peer_medians(row)]
    place = {row["name"]: at for at, row in enumerate(reversed(rows))}
    for name in sorted({name for row in rows for name in peer_medians(row)}):
        times = [(row, median(row, name), median(row)) for row in rows]
        points = [(peer / ours, place[row["name"]]) for row, peer, ours in times if peer and ours]
        axes.plot(*zip(*points, strict=True), **_look(name))
    axes.axvline(1.0, color=_OURS, linewidth=1)
    axes.set(xscale="log", xlabel="time of the peer / time of robocache (right of the line robocache is faster)")
    axes.set_yticks(list(place.values()), list(place), fontsize=6)
    axes.set_ylim(-1, len(rows))
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.3, 1.0 + 1.2 / (len(rows) + 4)), ncol=4)


def _along_length(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the attention suite that differ in their length alone, shortest first."""
    plain = [row for row in _rows(results) if not row["causal"]]
    shapes = [(row["batch"], row["heads"], row["dtype"]) for row in plain]
    commonest = max(shapes, key=shapes.count)
    chosen = [row for row, shape in zip(plain, shapes, strict=True) if shape == commonest]
    return sorted(chosen, key=lambda row: row["seq"])


def _paint_attention(axes: Any, results: dict[str, Any]) -> None:
    rows = _along_length(results)
    for name in ("default", *BACKENDS):
        points = [(row["seq"], row["variants"][name]["tflops"]) for row in rows if name in row["variants"]]
        if points:
            axes.plot(*zip(*points, strict=True), **_look(name) | {"linestyle": "-", "linewidth": 1})
    axes.set_xscale("log", base=2)
    axes.set(xlabel="sequence length", ylabel="TFLOP/s")
    axes.legend(fontsize=7)


def _paint_share(axes: Any, results: dict[str, Any]) -> None:
    rows = [row for row in _along_length(results) if "align_share" in row]
    axes.plot([row["seq"] for row in rows], [100 * row["align_share"] for row in rows], "o-", color=_OURS, linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set(yscale="log", xlabel="sequence length", ylabel="time of alignment / time of attention, %")


def planned(results: dict[str, Any]) -> list[Plot]:
    """The plots that a results file gives."""
    machine, suite, rows = machine_of(results), suite_of(results), _rows(results)
    begin, made = f"{machine}-{suite}", []
    where = results["provenance"].get("gpu") or results["provenance"]["cpu"]

    def add(kind: str, caption: str, paint: Callable[[Any, dict[str, Any]], None], height: float = 3.6) -> None:
        made.append(Plot(f"{begin}-{kind}.svg", f"{suite} on {where}: {caption}", paint, (7.0, height)))

    if suite == "attention":
        if rows:
            add("speed", "speed of attention against sequence length, by backend", _paint_attention)
        if any("align_share" in row for row in rows):
            add("share", "alignment's time beside that of the attention its batch feeds", _paint_share)
        return made
    if results["device"] == "cuda" and rows and all("bytes" in row for row in rows) and "bandwidth" in results:
        add("roofline", "bytes a second against bytes", _paint_roofline)
    if rows and all(amount(row) is not None for row in rows):
        add("speed", "speed against size", _paint_speed)
    compared = [row for row in rows if peer_medians(row)]
    if compared and suite not in NOT_COMPARED:
        add("ratio", "time of each peer over robocache's", _paint_ratios, 1.6 + 0.15 * len(compared))
    return made


def digest(results: dict[str, Any]) -> str:
    """What a plot holds of the results that it was drawn from: their SHA-256, however the file is laid out."""
    told = json.dumps(results, sort_keys=True, separators=(",", ":"))
    return "results sha256 " + hashlib.sha256(told.encode()).hexdigest()


def draw(results: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Draws the plots of all results into `folder`."""
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SystemExit("plots need matplotlib: pip install robocache[demo]") from error
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for one in results:
        for plot in planned(one):
            with mpl.rc_context(STYLE):
                figure = Figure(figsize=plot.size)
                FigureCanvasSVG(figure)
                plot.paint(figure.add_subplot(), one)
                # No metadata that changes with the day or the version.
                told = {"Date": None, "Creator": None, "Description": digest(one)}
                figure.savefig(folder / plot.file, format="svg", metadata=told)
            written.append(folder / plot.file)
    return written
