"""What the readers raise about a dataset on disk."""

from __future__ import annotations

from pathlib import Path


class DatasetError(ValueError):
    """A dataset, or one episode of it, cannot be read as what its metadata says it is.

    Attributes:
        reason: what is wrong, without the place.
        file: the file at fault, or None.
        episode: the episode at fault, or None.
        category: a few words that group like errors, as `Dataset.skipped` counts them ("missing file", "checksum").
    """

    def __init__(
        self, reason: str, *, file: str | Path | None = None, episode: int | None = None, category: str = "damaged"
    ) -> None:
        self.reason = reason
        self.file = None if file is None else str(file)
        self.episode = episode
        self.category = category
        place = [] if episode is None else [f"episode {episode}"]
        place += [] if self.file is None else [self.file]
        super().__init__(f"{', '.join(place)}: {reason}" if place else reason)

    def at(self, *, file: str | Path | None = None, episode: int | None = None) -> DatasetError:
        """The same error with a place, where it had none."""
        return DatasetError(
            self.reason,
            file=self.file if self.file is not None else file,
            episode=self.episode if self.episode is not None else episode,
            category=self.category,
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.reason, self.file, self.episode, self.category)


def _rebuild(reason: str, file: str | None, episode: int | None, category: str) -> DatasetError:
    return DatasetError(reason, file=file, episode=episode, category=category)


def missing_extra(library: str, extra: str, what: str) -> ImportError:
    """The error for a library that an extra would have brought."""
    return ImportError(f"{what} needs {library}: pip install robocache[{extra}]")
