"""The curves of a tuning run as a picture: both sides of every operation and where they cross."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import points
from .calls import FUNCTIONS, OPERATIONS, Workload
from .model import CostModel, Measured
from .tune import family, interpolated


def crossing(model: CostModel, line: Sequence[Workload], result: str) -> float | None:
    """Bytes moved where the GPU begins to take less along a line of workloads; None where it never does."""
    last: tuple[float, float] | None = None
    for load in line:
        found = model.estimate(load, result)
        moved, ratio = float(load.pageable + load.pinned + load.bytes_out), found.cpu_us / found.gpu_us
        if ratio >= 1:
            if last is None or last[1] >= 1:
                return moved
            # Straight between the two in bytes; the line has steps enough.
            share = (1 - last[1]) / (ratio - last[1])
            return last[0] + share * (moved - last[0])
        last = (moved, ratio)
    return None


def _moved(load: Workload) -> float:
    return float(load.pageable + load.pinned + load.bytes_out)


def _panel(axes: Any, op: str, measured: Sequence[Measured], model: CostModel) -> None:
    sizes = [_moved(point.load) for point in measured]
    axes.scatter(sizes, [point.cpu_us for point in measured], s=14, color="tab:blue", alpha=0.5)
    axes.scatter(sizes, [point.host_us for point in measured], s=14, color="tab:green", alpha=0.5)
    line = list(interpolated(measured))
    at = [_moved(load) for load in line]
    host = [model.estimate(load, "host") for load in line]
    device = [model.estimate(load, "device") for load in line]
    axes.plot(at, [found.cpu_us for found in host], color="tab:blue", label="CPU")
    axes.plot(at, [found.gpu_us for found in host], color="tab:green", label="GPU, answer on the host")
    axes.plot(at, [found.gpu_us for found in device], color="tab:green", linestyle=":", label="GPU, answer left there")
    where = crossing(model, line, "host")
    if where is not None:
        axes.axvline(where, color="0.4", linewidth=0.8, linestyle="--")
        axes.annotate(f"{where / 1e6:.2g} MB", (where, axes.get_ylim()[0]), xytext=(3, 6), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(FUNCTIONS[op], fontsize=10)


def save_plot(tuned: points.Tuned, model: CostModel, path: Path) -> Path:
    """Draws measured points, the model along a line from the least to the largest of them, and the crossing.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3).flatten()
    for axes, op in zip(panels, OPERATIONS, strict=True):
        _panel(axes, op, family(op, tuned), model)
    for axes in panels[3:]:
        axes.set_xlabel("bytes in and out")
    for axes in panels[::3]:
        axes.set_ylabel("microseconds a call")
    panels[0].legend(fontsize=8)
    figure.suptitle(f"{tuned.key['gpu']} and {tuned.key['cpu']}, {tuned.key['threads']} threads")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
