"""What a graph cache tells about itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class KeyStats:
    """One key: a function with arguments of certain shapes.

    Attributes:
        function: the function's name.
        arguments: its tensors, "float32[2, 8], int64[100]".
        state: "trial" (eager calls and replays take turns and are timed), "on", "off" or "failed".
        reason: why it is off or failed, else "".
        hits: replays.
        eager_us, replay_us: microseconds a call, the longer of host and device; None before the trial ended.
        bytes: device memory of the graph and its buffers.
        pinned: never evicted.
    """

    function: str
    arguments: str
    state: str
    reason: str
    hits: int
    eager_us: float | None
    replay_us: float | None
    bytes: int
    pinned: bool

    @property
    def gain(self) -> float | None:
        """How many times faster a replay is."""
        return None if self.eager_us is None or self.replay_us is None else self.eager_us / self.replay_us


@dataclass(frozen=True)
class GraphStats:
    """`print(cache.stats())` shows it as a report.

    Attributes:
        hits: calls that were replayed.
        misses: calls that ran eagerly because their key was not captured (new, or not worth evicting another for).
        off: calls that ran eagerly because their key is off or failed.
        bypasses: calls that the cache left alone, by reason.
        captures, failures, evictions: how often.
        graphs, max_graphs, bytes, max_bytes: what is held, and may be.
        saved_us: time saved by replays, as far as trials have measured it.
        keys: one `KeyStats` a key, most hits first.
    """

    hits: int
    misses: int
    off: int
    bypasses: dict[str, int]
    captures: int
    failures: int
    evictions: int
    graphs: int
    max_graphs: int
    bytes: int
    max_bytes: int | None
    saved_us: float
    keys: tuple[KeyStats, ...]

    def __str__(self) -> str:
        calls = self.hits + self.misses + self.off + sum(self.bypasses.values())
        limit = "" if self.max_bytes is None else f" of {_bytes(self.max_bytes)}"
        lines = [
            f"CUDA graph cache: {calls} calls, {self.hits} replayed, {self.misses} not captured, {self.off} off, "
            f"{sum(self.bypasses.values())} left alone",
            f"{self.graphs} of {self.max_graphs} graphs, {_bytes(self.bytes)}{limit}; {self.captures} captures, "
            f"{self.failures} failed, {self.evictions} evictions; {self.saved_us / 1e3:.1f} ms saved",
        ]
        lines += [f"left alone: {count} x {reason}" for reason, count in sorted(self.bypasses.items())]
        if self.keys:
            lines += ["", *_table(self.keys)]
        return "\n".join(lines)


def _bytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


def _us(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _table(keys: Sequence[KeyStats]) -> list[str]:
    rows: list[tuple[str, ...]] = [
        ("function", "state", "hits", "eager us", "replay us", "gain", "memory", "arguments")
    ]
    for key in keys:
        gain = "-" if key.gain is None else f"{key.gain:.2f}x"
        state = key.state + (" (pinned)" if key.pinned else "")
        words = key.arguments + (f"  [{key.reason}]" if key.reason else "")
        rows.append(
            (key.function, state, str(key.hits), _us(key.eager_us), _us(key.replay_us), gain, _bytes(key.bytes), words)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), row[1].ljust(widths[1])]
        cells += [row[column].rjust(widths[column]) for column in range(2, 7)]
        lines.append("  ".join([*cells, row[7]]).rstrip())
    return lines
