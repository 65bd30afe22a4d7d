"""Episodes read and frames decoded in the background, by threads or by processes."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from ..datasets import Dataset
from ..datasets._work import in_process, start_process
from .arguments import check_whole

WORKERS = ("auto", "thread", "process")
# Formats whose records are parsed in Python, which threads do one at a time; the others' time goes into pyarrow, which
# lets go of the interpreter, or into nothing at all. A vector stream is one piece of a record and takes next to no
# parsing; images are a piece a frame, read with the record whether they are wanted or not.
PARSED_FORMATS = ("rlds",)


class Workers:
    """A pool of threads or processes around one dataset.

    Args:
        dataset: picklable, for processes.
        count: how many; None takes the cores that there are, at most 8.
        kind: "thread", "process", or "auto": processes for images in formats that are parsed in Python (RLDS), else
            threads.
    """

    def __init__(self, dataset: Dataset, count: int | None = None, kind: str = "auto") -> None:
        if kind not in WORKERS:
            raise ValueError(f"worker_kind: expected one of {', '.join(map(repr, WORKERS))}, got {kind!r}")
        self.dataset = dataset
        self.count = min(8, len(os.sched_getaffinity(0))) if count is None else check_whole("workers", count, 1)
        self.kind = kind if kind != "auto" else "process" if _parses_images(dataset) else "thread"
        self._executor: Executor | None = None
        self._process = 0  # in which the executor was started: its threads do not live on in a fork

    def submit(self, function: Any, *arguments: Any) -> Future[Any]:
        """function(dataset, *arguments) in the background."""
        if self._executor is None or self._process != os.getpid():
            self._executor, self._process = self._start(), os.getpid()
        if self.kind == "process":
            return self._executor.submit(in_process, function, *arguments)
        return self._executor.submit(function, self.dataset, *arguments)

    def _start(self) -> Executor:
        if self.kind == "thread":
            return ThreadPoolExecutor(self.count, "robocache-read")
        # Not fork: a process that has used CUDA or has threads cannot be forked safely.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.count, context, start_process, (self.dataset,))

    def close(self) -> None:
        """Ends the workers; what is queued is given up, what is being read is waited for."""
        if self._executor is not None and self._process == os.getpid():
            self._executor.shutdown(wait=True, cancel_futures=True)
        self._executor = None


def _parses_images(dataset: Dataset) -> bool:
    images = any(spec.modality in ("image", "video") for spec in dataset.specs.values())
    return images and dataset.format in PARSED_FORMATS
