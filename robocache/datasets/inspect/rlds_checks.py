"""What only an RLDS dataset can have wrong: shards and dataset_info.json, records and features.json, no rate."""

from __future__ import annotations

from collections.abc import Iterator

from .._errors import DatasetError
from ..rlds import RldsDataset
from ..rlds.shards import FEATURES, INFO
from .findings import ERROR, WARNING, Finding, from_error


def check_dataset(dataset: RldsDataset) -> Iterator[Finding]:
    """Shards that are missing, cut off or hold more or fewer records than they should; features that are not read."""
    if len(dataset) == 0:
        yield Finding(ERROR, "empty", "there are no episodes", file=str(dataset.path))
    if dataset.fps is None:
        yield Finding(
            WARNING, "rate unknown", f"the rate of {dataset.name!r} is not known, so there are no times: give --rate"
        )
    for shard, file in zip(dataset.shards, dataset.files, strict=True):
        places, damage = file.places()
        if damage is not None:
            yield Finding(ERROR, damage.category, f"shard: {damage.reason}", file=str(shard.path))
        elif shard.records is not None and len(places) != shard.records:
            message = f"the shard holds {len(places)} records, {INFO} says {shard.records}"
            yield Finding(ERROR, "record count", message, file=str(shard.path))
    for key in dataset.unread:
        yield Finding(WARNING, "unread feature", "ragged or of a form that this reader does not know", stream=key)


def check_episode(dataset: RldsDataset, index: int) -> Iterator[Finding]:
    """Features that the record has and features.json has not, and the other way round."""
    file = str(dataset.where(index)[0])
    try:
        there = set(dataset.record(index))
    except DatasetError as error:
        yield from_error(error, index)
        return
    declared = {*dataset.feature_keys(), *dataset.unread}
    extra = sorted(
        key for key in there - declared if not any(key.startswith(f"{unread}/") for unread in dataset.unread)
    )
    if extra:
        yield Finding(ERROR, "schema", f"{FEATURES} does not name {', '.join(extra[:5])}", index, file=file)
    missing = sorted(dataset.feature_keys() - there)
    if missing:
        yield Finding(ERROR, "schema", f"the record has not {', '.join(missing[:5])}", index, file=file)
