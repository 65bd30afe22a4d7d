"""The plot of a training run: the loss of every step, and its running mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import plots


def save_losses(losses: Sequence[float], title: str, path: Path) -> None:
    """Draws the losses over the steps and writes an image of the kind that the path's suffix names."""
    values = np.asarray(losses, dtype=np.float64)
    steps = np.arange(1, len(values) + 1)
    reach = max(1, len(values) // 20)
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 3.6))
        axes.plot(steps, values, "o", color=plots.RAW, markersize=2.2, label="a step")
        smooth = np.convolve(values, np.ones(reach) / reach, "valid")
        axes.plot(steps[reach - 1 :], smooth, "-", color=plots.ALIGNED[0], linewidth=1.6, label=f"mean of {reach}")
        if (values > 0).all() and values.max() > 4 * values.min():
            axes.set_yscale("log")
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.set_ylabel("mean absolute error, std")
        axes.legend(loc="best")
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
        plt.close(figure)
