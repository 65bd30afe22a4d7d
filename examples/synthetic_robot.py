"""Episodes of a robot that does not exist: many features at 100 Hz, and actions that can be told from them.

A few slow oscillations with random phases are the state of the robot. Features are a fixed random projection of it with
noise; the action is another one, of the state a little later. So a policy can learn it, down to the noise.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import write_datasets
from numpy.typing import NDArray

OBSERVATION, ACTION = "observation.state", "action"
FORMS = ("rlds", "lerobot_v2.1", "lerobot_v3.0")
_LATENTS = 16
_NOISE = 0.05
_LEAD_SECONDS = 0.1  # the action is that of the state so much later


@dataclass(frozen=True)
class SyntheticRobot(Sequence[dict[str, NDArray[Any]]]):
    """Episodes, each made when it is asked for and the same every time.

    Attributes:
        episodes: how many.
        seconds: how long each is.
        rate: samples a second.
        features: columns of "observation.state" float32 [S, features].
        actions: columns of "action" float32 [S, actions].
        seed: of everything.
    """

    episodes: int
    seconds: float = 30.0
    rate: int = 100
    features: int = 256
    actions: int = 14
    seed: int = 0

    @property
    def samples(self) -> int:
        """Of an episode."""
        return int(self.seconds * self.rate)

    @property
    def nbytes(self) -> int:
        """Of all values."""
        return self.episodes * self.samples * (self.features + self.actions) * 4

    def __len__(self) -> int:
        return self.episodes

    @overload
    def __getitem__(self, index: int) -> dict[str, NDArray[Any]]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[dict[str, NDArray[Any]]]: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < self.episodes:
            raise IndexError(f"episode {index} of {self.episodes}")
        robot = np.random.default_rng(self.seed)  # what all episodes share
        hertz = robot.uniform(0.1, 2.0, _LATENTS)
        seen = robot.standard_normal((_LATENTS, self.features)) / np.sqrt(_LATENTS)
        done = robot.standard_normal((_LATENTS, self.actions)) / np.sqrt(_LATENTS)
        rng = np.random.default_rng([self.seed, index])
        phases = rng.uniform(0.0, 2 * np.pi, _LATENTS)
        seconds = np.arange(self.samples)[:, None] / self.rate

        def latents(lead: float) -> NDArray[np.float32]:
            return np.sin(2 * np.pi * hertz * (seconds + lead) + phases).astype(np.float32)

        features = latents(0.0) @ seen.astype(np.float32)
        features += _NOISE * rng.standard_normal(features.shape, np.float32)
        return {OBSERVATION: features, ACTION: latents(_LEAD_SECONDS) @ done.astype(np.float32)}


def place(form: str, folder: Path) -> Path:
    """Where `write` puts a dataset."""
    return folder / form / "synthetic" / "1.0.0" if form == "rlds" else folder / form


def write(robot: SyntheticRobot, form: str, folder: Path) -> Path:
    """Writes the episodes to disk in one of FORMS; returns the path that `robocache.datasets.open` takes.

    What is there under that name is complete: the files are written beside it and moved there last.
    """
    if form not in FORMS:
        raise ValueError(f"form: expected one of {', '.join(map(repr, FORMS))}, got {form!r}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as name:
        beside = Path(name)
        if form == "rlds":
            write_datasets.write_rlds(beside / form, robot, shards=min(4, len(robot)))
        elif form == "lerobot_v2.1":
            write_datasets.write_lerobot_v21(beside / form, robot, fps=robot.rate)
        else:
            write_datasets.write_lerobot_v30(beside / form, robot, fps=robot.rate, episodes_per_file=20)
        (beside / form).replace(folder / form)
    return place(form, folder)
