"""Robot datasets as they lie on disk, behind one face: `open(path)` gives a Dataset of Episodes of named streams.

Needs NumPy; never imports torch or TensorFlow. Nothing in a dataset is ever run or unpickled.
"""

from __future__ import annotations

from ._arrays import from_arrays
from ._episode import Dataset, Episode, EpisodeStream, StreamSpec
from ._errors import DatasetError
from ._open import open  # noqa: A004 - as os.open and gzip.open

__all__ = ["Dataset", "DatasetError", "Episode", "EpisodeStream", "StreamSpec", "from_arrays", "open"]
