"""Frames of a video file by number, exact. Decoded by FFmpeg through PyAV, the `video` extra.

A file's packets are listed once without decoding: their presentation stamps, in order, are its frames. A wanted frame
is found by its stamp; decoding starts at the key frame before it and goes on until that very stamp comes out. Video has
no checksums: damage that the decoder conceals makes an error of the frame and of those that may lean on it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import DatasetError, missing_extra
from .._images import FrameSequence, Image
from .._locks import ForkLock
from .info import Feature

# A key frame may come out after frames that lean on the one before; a frame that is damaged comes out of none.
_EARLIER_KEYS = 2
_GRAY = re.compile(r"gray(?:(?:9|10|12|14|16)(?P<order>le|be))?")


def pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise missing_extra("PyAV", "video", "decoding video") from error
    return av


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """What FFmpeg raises about a file becomes a DatasetError."""
    av = pyav()
    try:
        yield
    except FileNotFoundError:
        raise DatasetError("missing file", file=path, category="missing file") from None
    except DatasetError:
        raise
    except (av.FFmpegError, OSError, ValueError, EOFError, IndexError, MemoryError) as error:
        raise DatasetError(f"cannot be read as video: {error}", file=path, category="damaged video") from error


@dataclass(frozen=True)
class FrameTable:
    """Stamps of a file's frames in order [N], of its key frames [K], and the length of their unit in seconds."""

    stamps: NDArray[np.int64]
    keys: NDArray[np.int64]
    time_base: Fraction


class VideoFile:
    """A video file's frame table, read when it is first needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._table: FrameTable | None = None
        self._lock = ForkLock()

    @property
    def table(self) -> FrameTable:
        with self._lock:
            if self._table is None:
                self._table = self._read()
            return self._table

    def positions(
        self, frames: NDArray[np.int64], fps: Fraction, start: float, end: float | None = None
    ) -> NDArray[np.int64]:
        """Stamps of the frames `start` + frames / fps seconds into the file, each within half a frame.

        Raises:
            DatasetError: the file has no frame there, or the frame lies past `end`, where another episode begins.
        """
        table = self.table
        unit, half = float(table.time_base), 0.5 / float(fps)
        seconds = start + frames.astype(np.float64) / float(fps)
        if end is not None:
            part = f"the episode's part of the file goes from {start:.3f} to {end:.3f} s"
            self._refuse(seconds > end - half, seconds, frames, part)
        offered = table.stamps * unit
        after = np.clip(np.searchsorted(offered, seconds), 1, max(len(offered) - 1, 1))
        nearer = after - (seconds - offered[after - 1] < offered[np.minimum(after, len(offered) - 1)] - seconds)
        nearest = np.minimum(nearer, len(offered) - 1)
        held = f"the file holds {len(offered)} frames from {offered[0]:.3f} to {offered[-1]:.3f} s"
        self._refuse(np.abs(offered[nearest] - seconds) > half, seconds, frames, held)
        return table.stamps[nearest]

    def _refuse(
        self, absent: NDArray[np.bool_], seconds: NDArray[np.float64], frames: NDArray[np.int64], why: str
    ) -> None:
        """DatasetError for the first frame that is absent, if one is."""
        if absent.any():
            row = int(np.argmax(absent))
            words = f"no frame at {seconds[row]:.3f} s (frame {int(frames[row])} of the episode); {why}"
            raise DatasetError(words, file=self.path, category="video length")

    def _read(self) -> FrameTable:
        with _guarded(self.path), pyav().open(str(self.path)) as container:
            if not container.streams.video:
                raise DatasetError("holds no video", file=self.path, category="damaged video")
            stream = container.streams.video[0]
            packets = [
                (p.pts, p.is_keyframe) for p in container.demux(stream) if p.pts is not None and not p.is_discard
            ]
            if not packets or stream.time_base is None:
                raise DatasetError("holds no frames", file=self.path, category="damaged video")
            stamps = np.unique(np.array([pts for pts, _ in packets], np.int64))
            keys = np.unique(np.array([pts for pts, key in packets if key] or [stamps[0]], np.int64))
            return FrameTable(stamps, keys, Fraction(stream.time_base))


class VideoFrames(FrameSequence):
    """Frames of one episode: uint8 RGB [H, W, C]; depth maps uint16 [H, W, 1], as they are coded.

    Asking in order is the quickest: the decoder goes on where it stands. A forked process opens its own.
    """

    def __init__(
        self,
        file: VideoFile,
        stamps: NDArray[np.int64],
        feature: Feature,
        blame: Callable[[str], DatasetError],
    ) -> None:
        self._file = file
        self._stamps = stamps
        self._feature = feature
        self._blame = blame
        self._depth = any(feature.details.get(key) for key in ("video.is_depth_map", "is_depth_map"))
        self._decoder: _Decoder | None = None
        self._lock = ForkLock()

    def __len__(self) -> int:
        return len(self._stamps)

    def batch(self, indices: Any) -> Image:
        positions = self._positions(indices)
        wanted = self._stamps[positions]
        with self._lock:
            try:
                found = {stamp: self._checked(self._frame(stamp)) for stamp in np.unique(wanted).tolist()}
            except DatasetError as error:
                raise error.at(episode=self._blame("").episode) from error
        if not positions:
            return np.empty(
                (0, *(max(size, 0) for size in self._feature.shape)), np.uint16 if self._depth else np.uint8
            )
        return np.stack([found[stamp] for stamp in wanted.tolist()])

    def _frame(self, stamp: int) -> Image:
        if self._decoder is None or self._decoder.process != os.getpid():
            self._decoder = _Decoder(self._file, depth=self._depth)
        return self._decoder.frame(stamp)

    def _checked(self, frame: Image) -> Image:
        frame = frame[:, :, None] if frame.ndim == 2 else frame
        height, width, _ = self._feature.shape
        if (height, width) != (-1, -1) and frame.shape[:2] != (height, width):
            raise self._blame(
                f"video: expected {height} x {width} (height x width), got {frame.shape[0]} x {frame.shape[1]}"
            )
        return frame

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decoder": None}


class _Decoder:
    """An open file that stands after some frame."""

    def __init__(self, file: VideoFile, *, depth: bool) -> None:
        self.process = os.getpid()
        self._file = file
        self._depth = depth
        self._container: Any = None
        with _guarded(file.path):
            self._container = pyav().open(str(file.path))
            self._stream = self._container.streams.video[0]
            self._stream.thread_type = "SLICE"  # frame threads hold frames back, which costs more than it gains here
        self._frames: Iterator[Any] | None = None
        self._stands: int | None = None  # stamp of the frame that came out last
        self._broken = False  # a frame since the last key frame was damaged

    def __del__(self) -> None:
        """Closes the file now: container and streams hold each other, so it would stay open until a collection.

        A forked process leaves it alone, for the codec's threads are its parent's.
        """
        if self._container is not None and self.process == os.getpid():
            self._container.close()

    def frame(self, stamp: int) -> Image:
        """The frame with that stamp."""
        keys = self._file.table.keys
        key = int(np.searchsorted(keys, stamp, side="right")) - 1
        earliest = max(key - _EARLIER_KEYS, 0)
        with _guarded(self._file.path):
            if self._stands is not None and self._stands < stamp and (key < 0 or keys[key] <= self._stands):
                found = self._forward(stamp)
                if found is not None:
                    return found
            while True:
                self._seek(int(keys[key]) if key >= 0 else int(self._file.table.stamps[0]))
                found = self._forward(stamp)
                if found is not None:
                    return found
                if key <= earliest:
                    raise DatasetError(
                        f"frame with stamp {stamp} does not decode", file=self._file.path, category="damaged video"
                    )
                key -= 1

    def _seek(self, stamp: int) -> None:
        self._container.seek(stamp, stream=self._stream, backward=True, any_frame=False)
        self._frames = self._container.decode(self._stream)
        self._stands = None
        self._broken = False

    def _forward(self, stamp: int) -> Image | None:
        """Decodes up to a stamp; None where it went past it, came to the end, or met damage on the way."""
        for frame in self._frames or ():
            if frame.pts is None:
                continue
            self._stands = int(frame.pts)
            self._broken = frame.is_corrupt or (self._broken and not frame.key_frame)
            if self._stands == stamp:
                return None if self._broken else _pixels(frame, self._depth)
            if self._stands > stamp:
                break
        return None


def _pixels(frame: Any, depth: bool) -> Image:
    """RGB; of depth the codes as the file holds them, which a conversion to 16 bits would stretch."""
    gray = _GRAY.fullmatch(frame.format.name) if depth else None
    if gray is None:
        return np.asarray(frame.to_ndarray(format="gray16le" if depth else "rgb24"))
    codes = {None: "u1", "le": "<u2", "be": ">u2"}[gray["order"]]
    rows = np.frombuffer(frame.planes[0], codes).reshape(frame.height, -1)  # a row may be padded
    return rows[:, : frame.width].astype(np.uint16)
