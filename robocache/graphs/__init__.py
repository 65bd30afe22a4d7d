"""Repeated calls replayed as CUDA graphs: `CUDAGraphCache`, `cuda_graph`, `graph_cache`.

_cache.py    which calls are captured, replayed and left alone
_records.py  the keys and their memory: limits, eviction
_policy.py   what a trial proves and what captures may cost; knows no device
_device.py   capture, memory, streams and random numbers on a CUDA device
_key.py      arguments and results as trees of tensors, and torch's modes
_lending.py  outputs that stay the graph's own
_report.py   what `stats()` returns
_default.py  the process's own cache and the decorator
"""

from ._cache import CUDAGraphCache
from ._default import cuda_graph, graph_cache
from ._lending import BorrowedOutputError
from ._report import GraphStats, KeyStats

__all__ = ["BorrowedOutputError", "CUDAGraphCache", "GraphStats", "KeyStats", "cuda_graph", "graph_cache"]
