"""Runs random work for some minutes: `python -m benchmarks.soak [--minutes 2] [--device cpu|cuda] [--seed 0] ...`.

Several threads, on a GPU each with a stream of its own, draw cases of the suites at random sizes, compute them with the
native kernels and compare every answer with the torch reference, as the suites do. On a GPU a graph cache that holds
fewer graphs than there are shapes is called in between, so that it evicts. Memory must be flat: in a run of a minute or
more, what the process and the device hold in the last quarter may be little more than in the second. It is read while
all threads rest, without what allocators keep for later. `--seed` and `--threads` say what each thread draws; how far
it gets depends on the time. A summary with provenance goes to benchmarks/results/<machine>/; the exit status is 1 when
an answer was wrong, an error was raised or memory grew.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import robocache

from . import cases, provenance, voxel_cases, voxel_checks, voxel_inputs
from .align import check_ours
from .measure import CheckFailed

SETTLED_S = 60.0  # shorter runs are still loading code and filling pools: they do not tell about memory
GROWTH = {"host": 64 << 20, "device": 32 << 20}  # bytes that allocators may take after the first half
Job = Callable[[random.Random], str]
_LIBC = ctypes.CDLL(None)


# ---- Work ------------------------------------------------------------------------------------------------------------


def align_job(device: str) -> Job:
    """A case of the align suite at a random size, against the reference."""

    def work(rng: random.Random) -> str:
        case = rng.choice(cases.CASES)
        small = case.scaled(rng.randint(1, 64), rng.choice((1, 2, 17, 100, 250, rng.randint(3, 600))))
        check_ours(small, cases.build(small, device, seed=rng.randrange(1 << 30)))
        return "align"

    return work


def voxel_job(device: str) -> Job:
    """A case of the voxelize suite at a random size and scatter, against the reference."""

    def work(rng: random.Random) -> str:
        case = rng.choice(voxel_cases.CASES)
        cells, points = rng.randint(2, 40), rng.randint(2, 20_000)
        small = case.scaled(rng.randint(1, 6), points, cells)
        scatter = rng.choice(voxel_cases.SCATTERS) if case.op in ("dense", "sparse") else case.scatter
        voxel_checks.check_ours(
            voxel_inputs.build(replace(small, scatter=scatter), device, seed=rng.randrange(1 << 30))
        )
        return "voxelize"

    return work


def _pipeline(values: torch.Tensor, times: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    aligned = robocache.resample_trajectories(values, times, targets)
    return aligned * 2.0 + 1.0


def graph_job(device: str, shapes: int = 12, held: int = 4) -> Job | None:
    """Calls through a graph cache that holds fewer graphs than there are shapes; None where there is no such cache."""
    maker = getattr(robocache, "CUDAGraphCache", None)
    if maker is None or device != "cuda":
        return None
    cache = maker(max_graphs=held)

    def work(rng: random.Random) -> str:
        shape = rng.randrange(shapes)
        generator = torch.Generator(device).manual_seed(rng.randrange(1 << 30))
        batch, samples, columns = 2 + shape, 16 + 8 * shape, 1 + shape
        for _ in range(rng.randint(1, 4)):
            values = torch.randn(batch, samples, columns, device=device, generator=generator)
            times = torch.rand(batch, samples, device=device, generator=generator).cumsum(1) + 0.01
            targets = torch.rand(batch, 20, device=device, generator=generator) * samples / 2
            got = cache(_pipeline, values, times, targets)
            want = robocache.resample_trajectories(values, times, targets, backend="torch") * 2.0 + 1.0
            if not torch.equal(got, want):
                raise CheckFailed(f"graph cache: {tuple(values.shape)} differs from the reference")
        return "graphs"

    return work


# ---- Memory ----------------------------------------------------------------------------------------------------------


def memory(device: str) -> dict[str, int]:
    """Bytes held now: the process's resident memory and what is taken of the device, without what malloc and torch keep
    free. Nobody may be at work meanwhile: emptying torch's cache would break a capture."""
    if device == "cuda":
        torch.cuda.synchronize()
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    _LIBC.malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    held = {"host": pages * 4096}
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        held["device"] = total - free
    return held


def growth(readings: Sequence[dict[str, int]]) -> dict[str, int]:
    """How much more the last quarter of the readings holds than the second, by their medians; negative where less."""
    grown = {}
    for key in readings[0] if len(readings) >= 8 else ():
        values = [reading[key] for reading in readings]
        quarter = len(values) // 4
        early, late = sorted(values[quarter : 2 * quarter]), sorted(values[-quarter:])
        grown[key] = late[len(late) // 2] - early[len(early) // 2]
    return grown


# ---- The run ---------------------------------------------------------------------------------------------------------


class Gate:
    """Lets threads work, or one look while none does."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._working = 0
        self._shut = False

    @contextmanager
    def working(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._shut)
            self._working += 1
        try:
            yield
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    @contextmanager
    def resting(self) -> Iterator[None]:
        with self._changed:
            self._shut = True
            self._changed.wait_for(lambda: self._working == 0)
        try:
            yield
        finally:
            with self._changed:
                self._shut = False
                self._changed.notify_all()


@dataclass
class Tally:
    """What the threads did so far."""

    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def _thread(
    number: int, seed: int, device: str, jobs: Sequence[Job], stop: threading.Event, gate: Gate, tally: Tally
) -> None:
    rng = random.Random(f"{seed}/{number}")
    context = torch.cuda.stream(torch.cuda.Stream()) if device == "cuda" else nullcontext()
    with context, torch.no_grad():
        while not stop.is_set():
            try:
                with gate.working():
                    kind = rng.choice(jobs)(rng)
                    if device == "cuda":
                        torch.cuda.current_stream().synchronize()
            except Exception as error:  # noted with what drew it; the soak goes on, and ends non-zero
                words = f"thread {number}: {type(error).__name__}: {error}".splitlines()[0][:500]
                with tally.lock:
                    tally.failures.append(words)
                if len(tally.failures) >= 20:
                    stop.set()
                continue
            with tally.lock:
                tally.done[kind] += 1


def soak(
    device: str,
    seconds: float,
    threads: int,
    seed: int,
    say: Callable[[str], None],
    jobs: Sequence[Job] | None = None,
    settled_s: float = SETTLED_S,
) -> dict[str, Any]:
    """The summary of a run; `memory_flat` is None where it was shorter than `settled_s`."""
    chosen = [align_job(device), voxel_job(device), graph_job(device)] if jobs is None else list(jobs)
    work = [job for job in chosen if job is not None]
    tally, stop, gate, readings = Tally(), threading.Event(), Gate(), []
    crew = [
        threading.Thread(target=_thread, args=(number, seed, device, work, stop, gate, tally), daemon=True)
        for number in range(threads)
    ]
    begin = time.monotonic()
    for one in crew:
        one.start()
    told = begin
    while not stop.is_set() and time.monotonic() - begin < seconds:
        stop.wait(min(0.5, max(seconds / 40, 0.01)))
        with gate.resting():
            readings.append(memory(device))
        if time.monotonic() - told > max(5.0, seconds / 30):
            told = time.monotonic()
            held = ", ".join(f"{key} {value >> 20} MiB" for key, value in readings[-1].items())
            say(
                f"{told - begin:.0f} of {seconds:.0f} s: {sum(tally.done.values())} rounds, "
                f"{len(tally.failures)} failures, {held}"
            )
    stop.set()
    for one in crew:
        one.join()
    if device == "cuda":
        torch.cuda.synchronize()
    try:
        robocache.check()
    except robocache.DataError as error:
        tally.failures.append(f"a fault was left behind: {error}")
    grown = growth(readings) if seconds >= settled_s else {}
    over = {key: value for key, value in grown.items() if value > GROWTH[key]}
    return {
        "seconds": round(time.monotonic() - begin, 1),
        "seed": seed,
        "threads": threads,
        "rounds": dict(tally.done),
        "failures": tally.failures,
        "memory_grown_bytes": grown,
        "memory_flat": not over if grown else None,
        "passed": not tally.failures and not over and bool(tally.done),
    }


def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="how long (default 2)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=3, help="threads at once (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="what is drawn (default 0)")
    parser.add_argument("--out", type=Path, help="summary (default benchmarks/results/<machine>/soak.json)")
    options = parser.parse_args(arguments)
    if options.minutes <= 0 or options.threads < 1:
        parser.error("--minutes and --threads: expected more than 0")
    facts = provenance.provenance(options.device, provenance.without_paths(arguments))
    result = soak(
        options.device, options.minutes * 60, options.threads, options.seed, lambda text: print(text, flush=True)
    )
    path = options.out or provenance.evidence_path("soak", options.device)
    provenance.write_summary(path, {"kind": "soak", "provenance": facts, **provenance.without_paths(result)})
    print(json.dumps(result, indent=1))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
