"""Encoded images that are decoded when they are looked at. Pillow decodes; it comes with the `data` extra."""

from __future__ import annotations

import io
import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._errors import DatasetError, missing_extra

Image = NDArray[Any]


class FrameSequence(Sequence[Image]):
    """Frames [H, W, C] by index, decoded one by one or in batches. What image and video streams have as `values`."""

    def __len__(self) -> int:
        raise NotImplementedError

    def batch(self, indices: Any) -> Image:
        """Frames [N, H, W, C] in the order asked for. Negative indices count from the end.

        Raises:
            IndexError: outside the stream.
            DatasetError: a frame cannot be decoded, or frames of one batch differ in size.
        """
        raise NotImplementedError

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.batch(range(*index.indices(len(self))))
        return self.batch([index])[0]

    def _positions(self, indices: Any) -> list[int]:
        length = len(self)
        positions = []
        for index in indices:
            position = operator.index(index)
            if not -length <= position < length:
                raise IndexError(f"frame {position} of {length}")
            positions.append(position % length)
        return positions


class EncodedImages(FrameSequence):
    """Images as encoded bytes (PNG, JPEG), one a frame.

    Args:
        encoded: the bytes of each frame; anything with len and [i].
        shape: [H, W, C] that the metadata claims, -1 where it varies.
        dtype: uint8, uint16, or float32 (which TFDS stores as four-channel PNG).
        blame: makes a DatasetError that names file and episode out of a reason.
    """

    def __init__(
        self,
        encoded: Sequence[Any],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        blame: Callable[[str], DatasetError],
    ) -> None:
        self._encoded = encoded
        self._shape = shape
        self._dtype = dtype
        self._blame = blame

    def __len__(self) -> int:
        return len(self._encoded)

    def __getstate__(self) -> dict[str, Any]:
        encoded = self._encoded
        if isinstance(encoded, list):  # views of a record, which do not pickle
            encoded = [bytes(data) for data in encoded]
        return {**self.__dict__, "_encoded": encoded}

    def encoded(self, index: int) -> bytes:
        """The bytes of a frame as they lie on disk."""
        return bytes(self._encoded[operator.index(index)])

    def batch(self, indices: Any) -> Image:
        positions = self._positions(indices)
        if not positions:
            return np.empty((0, *(max(size, 0) for size in self._shape)), self._dtype)
        frames = [self._decoded(position) for position in positions]
        if len({frame.shape for frame in frames}) > 1:
            raise self._blame(f"images of one batch differ in size: {sorted({frame.shape for frame in frames})}")
        return np.stack(frames)

    def _decoded(self, position: int) -> Image:
        try:
            return decoded_image(self._encoded[position], self._shape, self._dtype)
        except DatasetError as error:
            if error.file is not None:  # the bytes are not there, and it says where
                raise
            raise self._blame(f"frame {position}: {error.reason}") from error


def decoded_image(encoded: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Image:
    """One image. DatasetError (without a place) where it is damaged or not of the shape and dtype it should have."""
    try:
        from PIL import Image as Pillow
    except ImportError as error:
        raise missing_extra("Pillow", "data", "decoding images") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            with Pillow.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as image:
                height, width = (*shape, -1, -1)[:2]
                if (height >= 0 and image.height != height) or (width >= 0 and image.width != width):
                    raise DatasetError(
                        f"image: expected {height} x {width} (height x width), got {image.height} x {image.width}"
                    )
                pixels = np.asarray(image)
    except DatasetError:
        raise
    # Pillow's decoders raise OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error and its bomb errors.
    except Exception as error:
        raise DatasetError(f"image cannot be decoded: {type(error).__name__}: {error}") from error
    return _as_declared(pixels, shape, dtype)


def _as_declared(pixels: Image, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Image:
    if dtype == np.float32 and pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = np.ascontiguousarray(pixels).view(np.float32)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.dtype == np.int32 and dtype == np.uint16:  # Pillow's mode "I" for 16-bit PNG of older versions
        pixels = pixels.astype(np.uint16)
    channels = shape[2] if len(shape) == 3 else -1
    if pixels.dtype != dtype or pixels.ndim != 3 or (channels >= 0 and pixels.shape[2] != channels):
        raise DatasetError(f"image: expected {dtype} {list(shape)}, got {pixels.dtype} {list(pixels.shape)}")
    return pixels
