"""A progress bar on long work: tqdm's where it is installed, else a line now and then. Silent unless asked for."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_SECONDS = 2.0  # between two lines where tqdm is missing


def progress(
    items: Iterable[T], *, total: int | None = None, what: str = "", unit: str = "it", show: bool = True
) -> Any:
    """`items`, with a bar on stderr while they are gone through.

    Args:
        items: what to iterate over.
        total: how many there are; len(items) where None and it has one.
        what: the words before the bar.
        unit: what one item is called.
        show: False leaves the bar out.
    """
    if not show:
        return items
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    try:
        from tqdm import tqdm
    except ImportError:
        return _lines(items, total, what, unit)
    return tqdm(items, total=total, desc=what, unit=unit, dynamic_ncols=True)


def _lines(items: Iterable[T], total: int | None, what: str, unit: str) -> Iterator[T]:
    """The bar without tqdm: a line every few seconds and one at the end."""
    begin = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= _SECONDS or done == total:
            of = "" if total is None else f" of {total}"
            print(f"{what}: {done}{of} {unit}, {now - begin:.0f} s", file=sys.stderr, flush=True)
            last = now
