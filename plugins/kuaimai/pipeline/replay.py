"""Records in quarantine, once more through the mapping as it is now, into the target that they waited for.

What lands, or is left out by the pipeline's rules, is resolved; what still does not fit stays. Nothing is
asked of the gateway. A person's data is not in quarantine unless it is kept as it is, so fields that are kept
hashed or masked come out empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from kuaimai.errors import DataError
from kuaimai.extract.skim import record_key
from kuaimai.gateway.answers import decode_json
from kuaimai.load.held import Held
from kuaimai.load.protocol import Target
from kuaimai.pipeline.spec import Pipeline
from kuaimai.pipeline.stages import tables_of
from kuaimai.transform.mapping import Mapper, Rows
from kuaimai.transform.tables import VERSION, Table, aligned


class Replayed(msgspec.Struct, frozen=True):
    """What a replay did.

    Attributes:
        pipeline: its name.
        waiting: records that were in quarantine.
        landed: those that are in the target now.
        filtered: those that the pipeline's rules leave out now.
        still: reason → how many still do not fit.
    """

    pipeline: str
    waiting: int
    landed: int = 0
    filtered: int = 0
    still: dict[str, int] = {}


def replay(pipeline: Pipeline, target: Target, ids: Iterable[str] = ()) -> Replayed:
    """Map what waits in quarantine of one target again, and load what fits.

    Args:
        pipeline: with the mapping as it is now.
        target: one of its targets.
        ids: values of `quarantine_id`; none for all.

    Raises:
        KuaimaiError: the target failed, or a custom step did; what was loaded before stays loaded.
    """
    chosen = set(ids)
    waiting = [one for one in target.held(pipeline.name) if not chosen or one.quarantine_id in chosen]
    done = Replayed(pipeline.name, len(waiting))
    groups: dict[tuple[str, str], list[Held]] = {}
    for one in waiting:
        groups.setdefault((one.method, one.window_id), []).append(one)
    for (method, window_id), records in sorted(groups.items()):
        for start in range(0, len(records), pipeline.batch_size):
            part = records[start : start + pipeline.batch_size]
            done = _added(done, _replay(pipeline, target, method, window_id, part))
    return done


def _replay(
    pipeline: Pipeline, target: Target, method: str, window_id: str, records: Sequence[Held]
) -> Replayed:
    """Replay records of one window, in one load."""
    if method not in pipeline.source.methods:
        return _all_still(pipeline, records, f"the pipeline does not use {method} any more")
    mapper = Mapper(pipeline.record.name, pipeline.rules)
    into = [Rows(table) for table in mapper.tables]
    still: dict[str, int] = {}
    fitting: dict[str, list[Held]] = {}
    for number, one in enumerate(records):
        if _refused_by_target(one):
            reason = "the target refused it; it is sent again when the record changes"
            still[reason] = still.get(reason, 0) + 1
            continue
        record = decode_json(one.record.encode())
        if not isinstance(record, dict):
            raise DataError(f"quarantined record {one.quarantine_id} is no object")
        bad = mapper.map([record], into, number)
        if bad:
            still[bad[0].reason] = still.get(bad[0].reason, 0) + 1
        else:
            fitting.setdefault(record_key(record, *pipeline.record.key_fields), []).append(one)
    if not fitting:
        return Replayed(pipeline.name, 0, still=still)
    batches = mapper.batches(into, rank=pipeline.source.methods.index(method), window_id=window_id)
    with target.loading(tables_of(pipeline, [mapper.seen(method)], target)) as loading:
        ready = [aligned(batch, table) for batch, table in zip(batches, loading.tables, strict=True)]
        loading.merge(0, _without_older(ready, loading.tables, loading.marked(list(fitting))))
        stored = loading.stored(pipeline.name, 0, [key for key in fitting if key not in mapper.filtered])
        landed = [one for key in stored for one in fitting[key]]
        left_out = [
            one for key in mapper.filtered if key in fitting and key not in stored for one in fitting[key]
        ]
        loading.resolve(landed, left_out)
    missing = sum(map(len, fitting.values())) - len(landed) - len(left_out)
    if missing:
        still["the target did not take it"] = missing
    return Replayed(pipeline.name, 0, len(landed), len(left_out), still)


def _without_older(
    batches: Sequence[pa.Table], tables: Sequence[Table], marked: Mapping[str, int]
) -> list[pa.Table]:
    """Leave out records that are older than a row that is marked as gone.

    A run brings a record because it is there again, in whatever version; what waited says nothing of today.
    """
    parent, key = batches[0], tables[0].key
    rows = zip(parent.column(key).to_pylist(), parent.column(VERSION).to_pylist(), strict=True)
    older = pa.array([one for one, version in rows if version < marked.get(one, version)], pa.string())
    return [
        batch.filter(pc.invert(pc.is_in(batch.column(table.parent or key), value_set=older)))
        for batch, table in zip(batches, tables, strict=True)
    ]


def _refused_by_target(one: Held) -> bool:
    """Whether the record fitted, and a write API refused it: then what is kept is what was sent there."""
    return set(json.loads(one.request or "{}")) == {"url"}


def _all_still(pipeline: Pipeline, records: Sequence[Held], reason: str) -> Replayed:
    return Replayed(pipeline.name, 0, still={reason: len(records)})


def _added(one: Replayed, other: Replayed) -> Replayed:
    still = dict(one.still)
    for reason, count in other.still.items():
        still[reason] = still.get(reason, 0) + count
    return Replayed(
        one.pipeline, one.waiting, one.landed + other.landed, one.filtered + other.filtered, still
    )


def pretty(done: Replayed) -> str:
    """Return one line for the log."""
    reasons = "; ".join(f"{count} {reason}" for reason, count in sorted(done.still.items()))
    return (
        f"{done.waiting} records waited, {done.landed} landed, {done.filtered} filtered, "
        f"{sum(done.still.values())} still do not fit" + (f": {reasons}" if reasons else "")
    )
