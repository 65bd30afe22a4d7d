"""Checkpoints of a training run: written whole or not at all, and read without running code from them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

VERSION = 1
KEYS = ("version", "step", "settings", "policy", "optimizer", "feed", "losses")


class CheckpointError(ValueError):
    """A file that is no checkpoint of this run."""


def save(
    path: Path,
    step: int,
    settings: dict[str, Any],
    policy: dict[str, Any],
    optimizer: dict[str, Any],
    feed: dict[str, Any],
    losses: list[float],
) -> None:
    """Writes a checkpoint.

    Args:
        path: where. The file there is replaced in one step, so that a crash leaves the old or the new one.
        step: steps that are done.
        settings: what a run that goes on must agree in: plain numbers and strings.
        policy, optimizer, feed: their state_dict().
        losses: of all steps so far.
    """
    content = dict(zip(KEYS, (VERSION, step, settings, policy, optimizer, feed, losses), strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def probe(path: Path) -> None:
    """Makes the folder and a file in it that goes again, so that a run which cannot save does not start.

    Raises:
        CheckpointError: a checkpoint cannot be written there.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.").close()
    except OSError as error:
        raise CheckpointError(f"{path}: a checkpoint cannot be written there: {error.strerror or error}") from None


def load(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Reads a checkpoint of a run with these settings; tensors on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged, no checkpoint, or of a run with other settings.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no checkpoint") from None
    except Exception as error:  # what torch finds wrong with a foreign file has many names
        words = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: no checkpoint, or a damaged one: {words}") from error
    if not isinstance(content, dict) or set(content) != set(KEYS) or content["version"] != VERSION:
        raise CheckpointError(f"{path}: expected a checkpoint of version {VERSION} with {', '.join(KEYS)}")
    theirs = content["settings"]
    for name in sorted({*settings, *theirs}):
        if settings.get(name) != theirs.get(name):
            raise CheckpointError(
                f"{path}: expected a checkpoint of a run with {name} = {settings.get(name)}, got {theirs.get(name)}"
            )
    return content
