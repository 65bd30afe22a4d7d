"""Recordings packed in device memory, and windows drawn from them at any time: `EpisodeStore`.

streams.py   what is packed: the vector streams of a dataset, and which of them is the main clock
read.py      an episode's vectors as tensors
packed.py    streams of many episodes in one tensor each, in device memory or pinned host memory
fill.py      episodes into packed tensors within a budget of bytes
ticks.py     seconds to ticks, exactly
windows.py   which steps of which streams a window has, and the launch that reads them
batch.py     what a draw returns
anchors.py   where windows are drawn
prepared.py  windows whose arguments were looked at once
episodes.py  the store itself
"""

from __future__ import annotations

from .batch import WindowBatch
from .episodes import EpisodeStore, StoredEpisode
from .prepared import PreparedWindows

__all__ = ["EpisodeStore", "PreparedWindows", "StoredEpisode", "WindowBatch"]
