"""Compiles and links by command line: in parallel, only what changed, and safely beside another build.

An object is up to date when its file exists, was made by the same command, and is newer than every file the compiler
read for it (from the dependency file it wrote). That holds across header edits, flag changes and compiler changes.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


class BuildError(RuntimeError):
    """A build that cannot go on, in words meant for the person who started it."""


@dataclass(frozen=True)
class Job:
    """One command that makes one file. `command` holds "{output}" and, for compilers, "{depfile}"."""

    output: Path
    command: tuple[str, ...]
    inputs: tuple[Path, ...]
    label: str
    notes: Path  # folder for what is remembered about the output: its command and its dependencies


def _note(job: Job, suffix: str) -> Path:
    # The whole path is in the name's hash: one folder may remember outputs of one name in several places.
    key = hashlib.sha256(str(job.output).encode()).hexdigest()[:12]
    return job.notes / f"{job.output.name}.{key}.{suffix}"


def _fingerprint(job: Job) -> str:
    return hashlib.sha256("\0".join(job.command).encode()).hexdigest()


def read_depfile(text: str) -> list[str]:
    """The files a make-style rule ("object: source header ...") depends on."""
    joined = text.replace("\\\n", " ")
    _, _, files = joined.partition(": ")
    return [name.replace("\\ ", " ") for name in re.findall(r"(?:\\.|\S)+", files.split("\n\n")[0])]


def is_current(job: Job) -> bool:
    """True when `job.output` need not be made again."""
    try:
        made = job.output.stat().st_mtime_ns
        if _note(job, "command").read_text() != _fingerprint(job):
            return False
        files = [str(path) for path in job.inputs]
        if any("{depfile}" in word for word in job.command):
            files += read_depfile(_note(job, "depends").read_text())
        return all(os.stat(name).st_mtime_ns <= made for name in files)
    except FileNotFoundError:
        return False


def _run(job: Job) -> None:
    job.output.parent.mkdir(parents=True, exist_ok=True)
    job.notes.mkdir(parents=True, exist_ok=True)
    # Made beside the target and moved over it, so that a process that has the old library mapped keeps it whole.
    handle, name = tempfile.mkstemp(dir=job.output.parent, prefix=".making-", suffix=job.output.suffix)
    os.close(handle)
    try:
        depends = str(_note(job, "depends"))
        words = [word.replace("{output}", name).replace("{depfile}", depends) for word in job.command]
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        shown = done.stdout.strip()
        if done.returncode != 0:
            raise BuildError(f"{job.label} failed with status {done.returncode}:\n  {shlex.join(words)}\n{shown}")
        print(f"{job.label}\n{shown}" if shown else job.label, flush=True)
        os.chmod(name, 0o755 if job.output.suffix == ".so" else 0o644)
        os.replace(name, job.output)
        _note(job, "command").write_text(_fingerprint(job))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def run_jobs(jobs: Sequence[Job], workers: int | None = None) -> int:
    """Makes what is out of date among independent jobs; returns how many were made. The first failure is raised."""
    stale = [job for job in jobs if not is_current(job)]
    if not stale:
        return 0
    with concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        futures = [pool.submit(_run, job) for job in stale]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            raise
    return len(stale)


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Holds the build directory: a second build in the same tree waits for the first."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another build in {directory}", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
