"""RLDS: TFDS folders of TFRecord files, one tf.train.Example an episode. Read without TensorFlow."""

from __future__ import annotations

from .dataset import RldsDataset

__all__ = ["RldsDataset"]
