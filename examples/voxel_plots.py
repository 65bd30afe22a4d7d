"""Plots of the voxel demo: what came in, the cells it fell into, and what every point reads back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from plots import STYLE

MANY = 20_000  # marks in one panel; of more points, every n-th is drawn


@dataclass
class Picture:
    """What the plot shows; arrays on the host."""

    title: str
    points: np.ndarray  # [N, 3]
    features: np.ndarray  # [N, C]: colours uint8, or the points
    colored: bool
    image: tuple[int, int] | None  # height and width of the first points, where they form an image
    count: np.ndarray  # [X, Y, Z]
    coords: np.ndarray  # [V, 3]: of the tokens
    tokens: np.ndarray  # [V, C]
    read: np.ndarray  # [N, C]: NaN where a point lies in no cell
    voxel_size: float
    grid_min: tuple[float, float, float]


def _colors(values: np.ndarray, picture: Picture) -> np.ndarray:
    """Red, green, blue in [0, 1] of features [.., C]; where they are places, by height."""
    if picture.colored:
        return np.clip(np.nan_to_num(values.astype(np.float64), nan=255.0) / 255.0, 0.0, 1.0)
    height = values[..., 2].astype(np.float64)
    low, high = np.nanmin(picture.points[:, 2]), np.nanmax(picture.points[:, 2])
    return plt.get_cmap("viridis")((np.nan_to_num(height, nan=low) - low) / ((high - low) or 1.0))[..., :3]


def _show_points(axes: Any, picture: Picture, values: np.ndarray, title: str) -> None:
    """The first image where there is one, else the points from above; `values` [N, C] give the colours."""
    if picture.image is not None:
        height, width = picture.image
        axes.imshow(_colors(values[: height * width], picture).reshape(height, width, 3))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
    else:
        step = max(1, len(picture.points) // MANY)
        at = picture.points[::step]
        axes.scatter(at[:, 0], at[:, 1], s=6, c=_colors(values[::step], picture), linewidths=0)
        axes.set_aspect("equal", adjustable="datalim")
        axes.locator_params(nbins=5)
        axes.set_xlabel("x, m")
        axes.set_ylabel("y, m")
    axes.set_title(title)


def _show_tokens(axes: Any, picture: Picture) -> None:
    """Occupied cells as marks in space."""
    step = max(1, len(picture.coords) // MANY)
    centers = np.asarray(picture.grid_min) + (picture.coords[::step] + 0.5) * picture.voxel_size
    colors = _colors(picture.tokens[::step], picture)
    size = float(np.clip(6e4 / max(1, len(centers)), 6.0, 60.0))
    x, y, z = centers.T
    axes.scatter(x, y, z, s=size, c=colors, marker="s", linewidths=0, depthshade=False)
    axes.set_box_aspect(
        np.maximum(np.ptp(centers, axis=0), picture.voxel_size) if len(centers) else (1, 1, 1), zoom=1.1
    )
    axes.view_init(elev=28, azim=-62)
    axes.locator_params(nbins=4)
    axes.tick_params(labelsize=7)
    axes.set_title(f"tokens: {len(picture.coords):,} occupied cells")


def _show_map(figure: Any, axes: Any, picture: Picture, values: np.ndarray, title: str, **how: Any) -> None:
    """A map [X, Y] seen from above, x to the right."""
    x, y = picture.count.shape[:2]
    (left, low, _), size = picture.grid_min, picture.voxel_size
    extent = (left, left + x * size, low, low + y * size)
    shown = axes.imshow(values.T, origin="lower", extent=extent, interpolation="nearest", **how)
    figure.colorbar(shown, ax=axes, fraction=0.035, pad=0.02)
    axes.grid(visible=False)
    axes.locator_params(nbins=5)
    axes.set_xlabel("x, m")
    axes.set_ylabel("y, m")
    axes.set_title(title)


def save_voxels(picture: Picture, path: Path) -> None:
    """Draws six panels and writes a PNG."""
    count = picture.count
    filled = count > 0
    top = count.shape[2] - 1 - np.argmax(filled[:, :, ::-1], axis=2)
    height = np.where(filled.any(axis=2), picture.grid_min[2] + (top + 1) * picture.voxel_size, np.nan)
    below = count.sum(axis=2).astype(np.float64)
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(15.0, 8.2))
        flat = [figure.add_subplot(2, 3, place) for place in (1, 3, 4, 5, 6)]
        first, tall, crowd, share, last = flat
        _show_points(first, picture, picture.features, "what came in" if picture.colored else "points, by height")
        _show_tokens(figure.add_subplot(2, 3, 2, projection="3d"), picture)
        _show_map(figure, tall, picture, height, "occupancy: top of the highest cell, m", cmap="viridis")
        crowded = np.where(below > 0, below, np.nan)
        _show_map(
            figure, crowd, picture, crowded, "count: points over each spot", cmap="magma", norm=LogNorm(1, below.max())
        )
        share.ecdf(count[filled], color="#1f6fb4", linewidth=1.6)
        share.set_xscale("log")
        share.set_xlabel("points in a cell")
        share.set_ylabel("share of the cells with at most as many")
        share.set_title("how full the occupied cells are")
        _show_points(last, picture, picture.read, "read back: every point's cell mean")
        figure.suptitle(picture.title, x=0.012, y=0.985, ha="left", va="top", fontsize=13, fontweight="bold")
        figure.tight_layout(h_pad=1.4, w_pad=1.4, rect=(0, 0, 1, 0.96))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
        plt.close(figure)
