"""Checks of values that every reader makes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._errors import DatasetError


def check_finite(name: str, values: NDArray[Any]) -> None:
    """DatasetError (without a place) that counts NaN and Inf, where there are any."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    bad = ~np.isfinite(values)
    step, column = (int(part) for part in np.argwhere(bad)[0])
    raise DatasetError(
        f"{name}: {int(bad.sum())} of {bad.size} values are NaN or Inf, the first at step {step}, column {column} "
        '(nonfinite="keep" lets them through)',
        category="not finite",
    )
