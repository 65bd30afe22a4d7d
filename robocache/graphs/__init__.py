"""Repeated calls replayed as CUDA graphs: `CUDAGraphCache`, `cuda_graph`, `graph_cache`.

_cache.py    which calls are captured, replayed, evicted and left alone
_policy.py   what a trial proves and what captures may cost; knows no device
_device.py   capture, memory, streams and random numbers on a CUDA device
_key.py      arguments and results as trees of tensors, and torch's modes
_report.py   what `stats()` returns
"""

from ._cache import BorrowedOutputError, CUDAGraphCache, cuda_graph, graph_cache
from ._report import GraphStats, KeyStats

__all__ = ["BorrowedOutputError", "CUDAGraphCache", "GraphStats", "KeyStats", "cuda_graph", "graph_cache"]
