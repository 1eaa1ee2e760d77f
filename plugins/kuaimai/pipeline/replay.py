"""Records in quarantine, once more through the mapping as it is now, into the target that they waited for.

What lands, or is left out by the pipeline's rules, is resolved; what still does not fit stays. What a write
API refused is sent to it once more, each record once, in its fullest form. Nothing is asked of the gateway.
Of a person's data only what the pipeline kept is in quarantine, in the form in which it kept it; a field that
is to be kept in another form by now comes out empty.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from kuaimai.errors import DataError
from kuaimai.extract.skim import record_key
from kuaimai.gateway.answers import decode_json
from kuaimai.load.held import AS_SENT, Held
from kuaimai.load.protocol import Load, Target
from kuaimai.pipeline.spec import Pipeline
from kuaimai.pipeline.stages import tables_of
from kuaimai.transform.batches import aligned
from kuaimai.transform.mapping import Mapper
from kuaimai.transform.personal import restored
from kuaimai.transform.rows import Rows
from kuaimai.transform.tables import VERSION, Table


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
    by_key: dict[str, list[Held]] = {}
    for one in waiting:
        by_key.setdefault(one.record_key, []).append(one)
    keys = sorted(by_key)
    for start in range(0, len(keys), pipeline.batch_size):
        part = [one for key in keys[start : start + pipeline.batch_size] for one in by_key[key]]
        done = _added(done, _replay(pipeline, target, part))
    return done


class _Mapped(msgspec.Struct):
    """Records of one method and window as they are mapped now.

    Attributes:
        method: the method.
        mapper: knows what was left out, and what was seen of the fields.
        batches: of those that fit; empty if none do.
        fitting: key → those.
        still: reason → how many do not.
        unfit: those of them that the mapping does not take: quarantine_id → why.
    """

    method: str
    mapper: Mapper
    batches: Sequence[pa.Table]
    fitting: dict[str, list[Held]]
    still: dict[str, int]
    unfit: dict[str, str]


def _replay(pipeline: Pipeline, target: Target, records: Sequence[Held]) -> Replayed:
    """Replay records in one load, so that all forms of a key are in it."""
    groups: dict[tuple[str, str], list[Held]] = {}
    for one in records:
        groups.setdefault((one.method, one.window_id), []).append(one)
    done = Replayed(pipeline.name, 0)
    mapped: list[_Mapped] = []
    for (method, window_id), group in sorted(groups.items()):
        if method not in pipeline.source.methods:
            done = _added(done, _all_still(pipeline, group, f"the pipeline does not use {method} any more"))
            continue
        found = _map(pipeline, method, window_id, group)
        done = _added(done, Replayed(pipeline.name, 0, still=found.still))
        if found.batches or found.unfit:
            mapped.append(found)
    if not mapped:
        return done
    tables = tables_of(pipeline, [one.mapper.seen(one.method) for one in mapped], target)
    with target.loading(tables) as loading:
        for read, found in enumerate(mapped):
            if not found.batches:
                continue
            pairs = zip(found.batches, loading.tables, strict=True)
            ready = [aligned(batch, table) for batch, table in pairs]
            marked = loading.marked(list(found.fitting))
            loading.merge(read, _without_older(ready, loading.tables, marked))
        for read, found in enumerate(mapped):
            done = _added(done, _resolve(pipeline, loading, read, found))
    return done


def _resolve(pipeline: Pipeline, loading: Load, read: int, found: _Mapped) -> Replayed:
    """Resolve what is in the target now, and what the pipeline's rules or the target leave out."""
    filtered = set(found.mapper.filtered)
    wanted = [key for key in found.fitting if key not in filtered]
    stored = loading.stored(pipeline.name, read, wanted) if wanted else set()
    filtered |= loading.omitted(wanted)
    landed = [one for key in stored for one in found.fitting[key]]
    left_out = [one for key in filtered if key not in stored for one in found.fitting.get(key, ())]
    missing = [key for key in found.fitting if key not in stored and key not in filtered]
    why = loading.refusals(missing)
    held = [
        (one, why.get(key, "the target did not take it")) for key in missing for one in found.fitting[key]
    ]
    renewed = {one.quarantine_id: why[key] for key in missing if key in why for one in found.fitting[key]}
    loading.resolve(landed, left_out, {**found.unfit, **renewed})
    return Replayed(pipeline.name, 0, len(landed), len(left_out), dict(Counter(one for _, one in held)))


def _map(pipeline: Pipeline, method: str, window_id: str, records: Sequence[Held]) -> _Mapped:
    mapper = Mapper(pipeline.record.name, pipeline.rules)
    into = [Rows(table) for table in mapper.tables]
    still: Counter[str] = Counter()
    unfit: dict[str, str] = {}
    fitting: dict[str, list[Held]] = {}
    for number, one in enumerate(records):
        if _is_kept_as_sent(one):
            still["it is kept as it was sent; it goes out again when its window is read again"] += 1
            continue
        record = decode_json(one.record.encode())
        if not isinstance(record, dict):
            raise DataError(f"quarantined record {one.quarantine_id} is no object")
        record = restored(record, pipeline.record, pipeline.rules)
        bad = mapper.map([record], into, number)
        if bad:
            still[bad[0].reason] += 1
            unfit[one.quarantine_id] = bad[0].reason
        else:
            fitting.setdefault(record_key(record, pipeline.record), []).append(one)
    rank = pipeline.source.methods.index(method)
    batches = mapper.batches(into, rank=rank, window_id=window_id) if fitting else ()
    return _Mapped(method, mapper, batches, fitting, dict(still), unfit)


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


def _is_kept_as_sent(one: Held) -> bool:
    """Whether a write API refused the record, and what is kept is what was sent there."""
    return set(json.loads(one.request or "{}")) == {AS_SENT}


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
