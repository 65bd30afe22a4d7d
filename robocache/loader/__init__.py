"""Batches of aligned windows from datasets that are too large for device memory: `DataLoader`.

arguments.py    arguments, checked
survey.py       frames and bytes of every episode, before anything is read
order.py        the order of an epoch: a function of seed, epoch and position
share.py        what of it a rank gets
workers.py      threads or processes that read and decode; what they do is datasets/_work.py
pools.py        a pool of episodes as one buffer
producer.py     the background thread: reads ahead, packs, copies
images.py       images at the windows' times
aligning.py     a step's batch, read from its pools
batch.py        what a step gives
meter.py        what each step waited for
data_loader.py  the loader itself
"""

from __future__ import annotations

from .batch import LoaderBatch
from .data_loader import DataLoader
from .meter import StarvationMeter

__all__ = ["DataLoader", "LoaderBatch", "StarvationMeter"]
