"""What becomes of freed host memory while calls on a CPU are timed.

glibc gives large blocks back to the system or keeps them, depending on what the process freed before. A call whose
output has fresh pages pays for each of them, which can be several times its own work, so the same row would have one of
two speeds from run to run. Kept memory measures the work; it is also what a loop comes to that frees what it allocates.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
_NEVER = 2**31 - 1  # bytes free at the heap's end before it shrinks: as many as mallopt takes
_DEFAULTS = ((_TRIM_THRESHOLD, 128 << 10), (_MMAP_MAX, 65536))


def _libc() -> ctypes.CDLL | None:
    """The C library, if it is one with these settings."""
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


@contextlib.contextmanager
def kept() -> Iterator[bool]:
    """Freed memory stays with the process, whatever its size, and goes back at the end. Gives False where the C library
    cannot be told so. What glibc adjusts by itself, from which size on it maps blocks, stays as it is from then on."""
    libc = _libc()
    done = libc is not None and all(libc.mallopt(*pair) == 1 for pair in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER)))
    try:
        yield done
    finally:
        if libc is not None:
            for pair in _DEFAULTS:
                libc.mallopt(*pair)
            libc.malloc_trim(0)
