"""`DataLoader`: windows of a dataset that is too large for a store, read ahead from disk."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

import torch

from ..datasets import Dataset, DatasetError
from ..datasets._work import Request
from ..store.episodes import plan_names, window_deltas
from ..store.streams import layouts_of, main_clock
from ..store.windows import Span, WindowPlan
from .arguments import check_whole, device_of, rank_and_world
from .batch import LoaderBatch, batch_of
from .feed import Feed
from .images import ImageGatherer, ImagePlan
from .meter import StarvationMeter
from .order import EpochOrder
from .producer import PoolProducer, skipped_counts
from .share import RankShare, pieces_from, share_of
from .state import read_state, state_of
from .survey import survey
from .workers import Workers


class DataLoader:
    """Batches of aligned windows on the device, from a dataset on disk, in an order that can be resumed exactly.

    Every epoch, the episodes are shuffled and cut into pools that fit in memory. Background workers read a pool's
    episodes, each once; a thread packs them into pinned memory and copies them on a stream of its own into one of
    `prefetch` + 1 buffers on the device (more where one batch spans more pools). Batches are windows at the pool's
    frames, in shuffled order, all streams aligned in one launch for each pool that the batch spans, on CUDA with
    those of the next steps. Every frame of the main clock is an anchor exactly once an epoch, but for those that do not
    fill a last step (`drop_last`).

    The loader has one position. `for batch in loader` goes on from it to the end of the epoch; breaking off and
    iterating again goes on where it stopped. Threads may share it: they take turns, and each batch, and the end of each
    epoch, comes to one of them.

    Args:
        dataset: of `robocache.datasets.open` or `from_arrays`.
        batch_size: windows of a step on this rank.
        horizon, delta_times, rate, max_gap, tolerance: the windows' steps, as in `EpisodeStore.sample`.
        streams: names of vector streams; None takes those of `delta_times`, else all.
        dtype: of floating values, as in `EpisodeStore.from_dataset`.
        clock: the stream whose samples are the frames; None takes the first one at the dataset's rate.
        device: "cuda" or "cpu"; None takes CUDA where there is a device.
        workers: how many read and decode; None takes the cores, at most 8.
        worker_kind: "thread", "process" (spawned: the program needs its `if __name__ == "__main__":`), or "auto":
            processes for RLDS with images, whose records are parsed in Python, threads for everything else.
        prefetch: pools on the device beside the one in use, and batches of images decoded ahead. A batch that spans
            more pools than that has them all on the device.
        seed, shuffle: of the order; see `robocache.loader.order`.
        rank, world_size: which share; None asks torch.distributed, where it is initialised, else 0 of 1. Every rank
            reads the episodes in which it has samples; with shuffling that is nearly all of them.
        drop_last: what happens to the windows at an epoch's end that do not fill a step of batch_size on all ranks.
            True leaves them out, in every epoch others. False makes one more, smaller step of them, of the same size on
            all ranks; where they do not divide by world_size, up to world_size - 1 windows come twice.
        transform: called with each `LoaderBatch` on the device, under the caller's stream; the loader gives what it
            returns. Where it raises, the step counts as not given: the next call of next() makes the same batch again.
        images: names of image or video streams, or a dict of seconds from the anchor by name.
        image_kind: which frame stands for a time: "nearest", "previous" or "next".
        pool_bytes: the most that a pool's episodes take, in host memory and on the device. A longer episode has a pool
            of its own.
        on_error: "skip" passes over episodes that cannot be read and counts them in `skipped`; windows of other
            episodes of the pool stand in for theirs, so no step changes its size. An image that cannot be decoded is
            black, its `image_valid` False, and its episode is counted.
        show_progress: a bar on stderr while the workers count the frames of a format that does not tell them
            (RLDS).

    Attributes:
        epoch: the current one, from 0.
        meter: a `StarvationMeter`.
        skipped: how many episodes were passed over, by reason.
        steps_per_epoch: the same as len().

    Raises:
        DatasetError: (while iterating) an episode that cannot be read, with its file and number.
        ValueError, TypeError: an argument does not fit.
        RuntimeError: (while iterating) the loader is closed, or runs in the process of which this one is a fork.

    Example:
        >>> steps = {"observation.state": [-0.1, 0.0], "action": [k / 30 for k in range(16)]}
        >>> with robocache.DataLoader(ds, 256, delta_times=steps) as loader:
        ...     for batch in loader:
        ...         loss = policy(batch["observation.state"], batch["action"], batch.is_pad("action"))
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        horizon: int | None = None,
        delta_times: Any = None,
        *,
        rate: Any = None,
        max_gap: Span = None,
        tolerance: Span = None,
        streams: Sequence[str] | None = None,
        dtype: torch.dtype | None = None,
        clock: str | None = None,
        device: str | torch.device | None = None,
        workers: int | None = None,
        worker_kind: str = "auto",
        prefetch: int = 2,
        seed: int = 0,
        shuffle: bool = True,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = True,
        transform: Callable[[LoaderBatch], Any] | None = None,
        images: Any = None,
        image_kind: str = "nearest",
        pool_bytes: int = 256 << 20,
        on_error: str = "raise",
        show_progress: bool = True,
    ) -> None:
        batch_size = check_whole("batch_size", batch_size, 1)
        prefetch = check_whole("prefetch", prefetch, 1)
        seed = check_whole("seed", seed, 0)
        pool_bytes = check_whole("pool_bytes", pool_bytes, 1)
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error: expected one of 'raise', 'skip', got {on_error!r}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.device = device_of(device)
        self.prefetch = prefetch
        self.drop_last = drop_last
        self.transform = transform
        self.on_error = on_error
        self.rank, self.world_size = rank_and_world(rank, world_size)
        self._cut = (batch_size, self.rank, self.world_size, drop_last)
        self.meter = StarvationMeter()
        self.epoch = 0
        self._start = 0  # position of the epoch at which the share in hand began
        self._step = 0  # steps of that share that were given out
        vectors = [name for name, spec in dataset.specs.items() if spec.modality == "vector"]
        names = plan_names(vectors, streams, delta_times)
        # The clock is read even where no window shows it.
        self._layouts = layouts_of(dataset.specs, [*names, *({clock} - {None, *names})], dtype)  # type: ignore[list-item]
        main = main_clock(self._layouts, dataset.fps, clock)
        clock_rate = self._layouts[main].rate or dataset.fps
        deltas = window_deltas(names, horizon, delta_times, rate, clock_rate, dataset.ticks_per_second)
        self._plan = WindowPlan(self._layouts, names, deltas, self.device, dataset.ticks_per_second, max_gap, tolerance)
        self._images = ImagePlan(images, dataset.specs, image_kind, dataset.ticks_per_second)
        self._request = Request(
            tuple((layout.name, layout.columns) for layout in self._layouts), main, self._images.names
        )
        self._workers = Workers(dataset, workers, worker_kind)
        try:
            facts = survey(self._workers, self._layouts, main, on_error == "skip", show_progress)
        except BaseException:
            self._workers.close()
            raise
        self._order = EpochOrder(facts.frames.tolist(), facts.sizes.tolist(), pool_bytes, seed, shuffle)
        self._turn = threading.RLock()  # of the thread that moves the loader; a transform may move it, too
        self._feed: Feed | None = None
        self._torn = False  # True: `_feed` was left in the middle of something
        self._share: RankShare | None = None
        self._closed = False
        self._skipped = facts.skipped
        if len(self) == 0:
            raise ValueError(
                f"batch_size: expected at most {self._order.total // self.world_size} windows, the dataset's "
                f"{self._order.total} frames over {self.world_size} ranks, got {batch_size}; drop_last=False makes "
                f"one smaller step of them"
            )

    # ---- The order --------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Steps of a whole epoch, the same on all ranks."""
        global_batch = self.batch_size * self.world_size
        return self._order.total // global_batch if self.drop_last else -(-self._order.total // global_batch)

    @property
    def steps_per_epoch(self) -> int:
        return len(self)

    @property
    def frames(self) -> int:
        """Windows of a whole epoch over all ranks."""
        return self._order.total

    def _share_of(self, epoch: int, start: int) -> RankShare:
        return share_of(self._order, epoch, start, self._cut)

    def _position(self) -> tuple[int, int]:
        """The epoch and the position in it of the next sample; the end of an epoch is the beginning of the next."""
        share = self._share or self._share_of(self.epoch, self._start)
        if self._step >= share.steps:
            return self.epoch + 1, 0
        return self.epoch, share.consumed(self._step, self._order.total)

    # ---- State ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is: the next sample to be given, whatever has been read ahead. Plain numbers and strings."""
        self._check_process()  # whoever had the turn when a fork was made keeps it there for ever
        with self._turn:
            return state_of(self._order, *self._position())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on at the exact sample of `state`, also with another batch size, rank or world size, and with its seed.

        Raises:
            TypeError, ValueError: no state, a damaged one, or one of another dataset, `streams`, `clock`, `dtype`,
                `pool_bytes` or `shuffle`: its order is another one. The loader stays as it was.
            RuntimeError: the loader is closed.
        """
        self._check_usable()
        seed, epoch, position = read_state(state, self._order)
        with self._turn:
            self._stop()
            self._order.seed, self.epoch, self._start = seed, epoch, position

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of an epoch; does nothing where the loader is there already.

        In the middle of that epoch, as after `load_state_dict`, it goes back to its beginning: windows that were given
        come again. A resumed loop begins with `loader.epoch` and calls it for later epochs alone, or not at all.
        """
        self._check_usable()
        epoch = check_whole("epoch", epoch, 0)
        with self._turn:
            if self._share is not None and self._step >= self._share.steps:
                self._finish()
            if self._position() != (epoch, 0):
                self._stop()
                self.epoch, self._start = epoch, 0

    # ---- Iteration --------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._check_usable()
        with self._turn:
            self._check_usable()  # it may have been closed while this thread waited for its turn
            if self._torn:
                self._stop()
            try:
                return self._next()
            except (DatasetError, StopIteration):
                raise  # what is in hand is whole
            except BaseException:
                # Ctrl-C comes between any two lines, those of locks among them, which make other errors of it. What is
                # in hand may not fit together any more.
                self._torn = True
                raise

    def _next(self) -> Any:
        if self._share is None:
            self._share = self._begin()
        if self._step >= self._share.steps:
            self._finish()
            raise StopIteration
        assert self._feed is not None
        share, feed, step = self._share, self._feed, self._step
        waits: dict[str, float] = {}
        segments = feed.segments(step, waits)
        gathered = feed.images(step, waits)
        aligning = time.perf_counter()
        windows, events = feed.aligner.read(segments)
        batch = batch_of(self._plan, windows, segments, gathered, self.device)
        now = time.perf_counter()
        if self.device.type == "cpu":
            waits["align"] = now - aligning
        result = batch if self.transform is None else self.transform(batch)
        if self._share is share:  # the transform did not move the loader
            self.meter.add(waits, events, now)
            feed.given(step + 1)
            self._step = step + 1
        return result

    def _finish(self) -> None:
        """From the end of an epoch to the beginning of the next, whose first pools are read already."""
        self._share = None
        self.epoch, self._start, self._step = self.epoch + 1, 0, 0

    def _check_usable(self) -> None:
        if self._closed:
            raise RuntimeError("the DataLoader is closed")
        self._check_process()

    def _check_process(self) -> None:
        if self._feed is not None and self._feed.process != os.getpid():
            raise RuntimeError(
                f"the DataLoader runs in process {self._feed.process}, and this one, {os.getpid()}, is its fork, where "
                f"its threads are not: make a DataLoader here, fork before the first batch, or start processes by spawn"
            )

    def _begin(self) -> RankShare:
        """The share of the loader's position; starts the background if it does not run."""
        share = self._share_of(self.epoch, self._start)
        if self._feed is None:
            self._feed = self._new_feed()
            self._feed.producer.start()
        self._feed.begin(share)
        return share

    def _new_feed(self) -> Feed:
        skip = self.on_error == "skip"
        producer = PoolProducer(
            self._workers,
            self._order,
            pieces_from(self._order, self.epoch, self._start, self._cut),
            self._layouts,
            self._request,
            self.device,
            self.prefetch + 1,
            skip,
        )
        producer.skipped = self._skipped
        gatherer = None
        if self._images.steps:
            gatherer = ImageGatherer(self._images, self._workers, self.device.type == "cuda", skip)
            gatherer.skipped = self._skipped
        return Feed(producer, gatherer, self._plan, self.batch_size, self.prefetch)

    # ---- What it takes, and its end ---------------------------------------------------------------------------------

    @property
    def skipped(self) -> Counter[str]:
        return skipped_counts(self._skipped)

    def skipped_errors(self) -> dict[int, DatasetError]:
        """The error of each episode that was passed over."""
        return dict(self._skipped)

    def memory(self) -> dict[str, int]:
        """Bytes that the loader holds now or at most.

        Returns:
            "pool_bytes": what was asked for. "host_peak": the most that episodes read, a pool being packed and its
            packed form have taken on the host so far. "host_bound": what that cannot exceed as long as episodes have
            the samples that their dataset claims: a pool read, its packed form (on the CPU prefetch + 1 of them,
            or as many as one batch has spanned) and two episodes a worker. "device": pools on the device (the packed
            ones, on the CPU). "images": the largest batch of images so far; prefetch + 1 of them are held.
            "ahead": windows on the device that were read for later steps.
        """
        order = self._order
        largest = int(order.sizes.max())
        pool = max(min(order.pool_bytes, int(order.sizes.sum())), largest) + (2 << 20)
        feed = self._feed
        producer, gatherer = (None, None) if feed is None else (feed.producer, feed.gatherer)
        slots = self.prefetch + 1 if producer is None else len(producer.slots)
        packed = 1 if self.device.type == "cuda" else slots
        return {
            "pool_bytes": order.pool_bytes,
            "host_peak": 0 if producer is None else producer.peak_host_bytes,
            "host_bound": pool * (1 + packed) + 2 * self._workers.count * largest,
            "device": 0 if producer is None else producer.device_bytes,
            "images": 0 if gatherer is None else gatherer.batch_bytes,
            "ahead": 0 if feed is None else feed.aligner.ahead_bytes,
        }

    def _stop(self) -> None:
        """Ends the background; the position stays what it is."""
        self.epoch, self._start = self._position()
        self._share, self._step, self._torn = None, 0, True  # until all has ended: this may be interrupted, too
        if self._feed is not None:
            self._feed.close(self._workers)
        self._workers.close()
        self._feed, self._torn = None, False

    def close(self) -> None:
        """Ends workers and threads. A loader that is closed cannot go on; a next() that waits for a pool in another
        thread ends with RuntimeError."""
        self._closed = True
        feed = self._feed
        if feed is not None:
            if feed.process != os.getpid():
                return  # a fork: nothing of it runs here, and its locks may be held for ever
            feed.producer.cancel()  # before its turn comes: the thread whose turn it is may be waiting
        with self._turn:
            self._stop()

    def __enter__(self) -> DataLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):  # True: it was never complete
            self.close()

    def __repr__(self) -> str:
        return (
            f"DataLoader({self.dataset!r}, {self.batch_size} windows a step, {len(self)} steps an epoch, "
            f"rank {self.rank} of {self.world_size}, {self._workers.count} {self._workers.kind} workers, {self.device})"
        )
