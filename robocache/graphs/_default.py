"""The process's own cache, and the decorator."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

from ._cache import CUDAGraphCache

P = ParamSpec("P")
R = TypeVar("R")

_default: CUDAGraphCache | None = None
_default_lock = threading.Lock()


def graph_cache() -> CUDAGraphCache:
    """The process's own cache, which `cuda_graph` uses: 32 graphs, cloned outputs.

    Example:
        >>> print(robocache.graph_cache().stats())
    """
    global _default
    with _default_lock:
        if _default is None:
            _default = CUDAGraphCache()
        return _default


@overload
def cuda_graph(fn: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def cuda_graph(*, cache: CUDAGraphCache | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def cuda_graph(fn: Any = None, /, *, cache: CUDAGraphCache | None = None) -> Any:
    """Decorator: repeated calls of the function are replayed as CUDA graphs.

    Args:
        fn: the function.
        cache: which cache holds its graphs; None is `graph_cache()`.

    Example:
        >>> @robocache.cuda_graph
        ... def batch(values, times, targets):
        ...     return robocache.resample_trajectories(values, times, targets).softmax(-1)
    """
    held = graph_cache() if cache is None else cache
    return held.wrap if fn is None else held.wrap(fn)
