"""The four stages, as plain functions: each takes the small manifest of the one before and returns its own.

Manifests hold paths, counts and windows, never rows; they are what tasks hand to one another.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from kuaimai.errors import ConfigError, DataError, Rejected, TooLarge
from kuaimai.extract.details import composed, read_details
from kuaimai.extract.paging import CONNECTIONS, Read, read_parts
from kuaimai.extract.scans import read_everything
from kuaimai.extract.staging import Staging, safe_name
from kuaimai.extract.windows import (
    BORDER,
    EVERYTHING,
    SCAN,
    WAREHOUSE,
    SealedSpan,
    Shop,
    Slice,
    Window,
    plan,
    window_id,
)
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, encode_json, read_envelope
from kuaimai.gateway.client import Client
from kuaimai.gateway.redaction import redact_params
from kuaimai.load.booked import BookedLoad
from kuaimai.load.lateness import Punctuality
from kuaimai.load.proof import CONTESTED, SEALED
from kuaimai.load.protocol import Coverage, Load, Target
from kuaimai.load.sql import PlannedWindow, Quarantined, ReadWindow, Scan, Sealing, WindowFacts
from kuaimai.pipeline import coverage
from kuaimai.pipeline.originals import originals
from kuaimai.pipeline.spec import Pipeline, Source
from kuaimai.transform import drift
from kuaimai.transform.drift import Seen
from kuaimai.transform.mapping import BadRecord, Mapper, Rows
from kuaimai.transform.personal import drop_personal
from kuaimai.transform.tables import Table, aligned

log = logging.getLogger(__name__)

# Columns are cheap per batch, not per row: so many batches of records are converted and merged at once.
BATCHES_AT_ONCE = 4
SHOP_METHOD = "erp.shop.list.query"
WAREHOUSE_METHOD = "erp.warehouse.list.query"
# Reason of a slice that scans because a person asked for it.
ASKED = "asked"
# Folder beside the raw answers of a slice whose extract task has ended.
_ENDED = "ended"


class Extracted(msgspec.Struct, frozen=True):
    """A slice whose raw pages are in staging: one or more reads per method that serves its shops."""

    slice: Slice
    reads: tuple[Read, ...]


class Batch(msgspec.Struct, frozen=True):
    """Files of one batch, parent table first, and the position of the read it came from."""

    read: int
    files: tuple[str, ...]
    records: int


class Transformed(msgspec.Struct, frozen=True):
    """A slice as typed batches, and what could not be typed.

    Attributes:
        extracted: the manifest it was made from.
        batches: in the order to load.
        quarantine: staging file of the bad records, JSON lines; empty if there are none.
        bad: how many different bad records are in it.
        seen: staging file of what its reads saw of the records' fields, JSON lines.
        filtered: staging file of the keys that the pipeline's rules left out, JSON lines; empty if none.
        reasons: why they were left out → how many.
    """

    extracted: Extracted
    batches: tuple[Batch, ...]
    quarantine: str
    bad: int
    seen: str = ""
    filtered: str = ""
    reasons: dict[str, int] = {}


class LeftOut(msgspec.Struct, frozen=True):
    """Keys of one read that the pipeline's rules left out."""

    read: int
    keys: tuple[str, ...]


class Loaded(msgspec.Struct, frozen=True):
    """A slice that is in one target, with the verdict on each of its windows.

    `target` is its name. `outside` counts records that came later than the look-back in force reaches,
    `changes` says what has changed at the source since earlier loads.
    """

    pipeline: str
    number: int
    windows: tuple[Sealing, ...]
    read: int
    requests: int
    outside: int = 0
    look_back_minutes: int = 0
    changes: tuple[str, ...] = ()
    target: str = ""


class Summary(msgspec.Struct, frozen=True):
    """What a run did: records the gateway reported, landed, set aside; windows sealed and left open.

    `read` counts the base method only: the enriching methods return the same records again. `contested` are
    those of the open windows that scheduled runs will not read again. `outside` counts new records that were
    made longer ago than the look-back of `look_back_minutes` reaches, `missing` those that a scan did not see
    and marked as gone, `filtered` those that the pipeline's rules left out. `changes` are new at the source.
    """

    read: int
    landed: int
    quarantined: int
    inserted: int
    updated: int
    unchanged: int
    stale: int
    windows: int
    open_windows: tuple[str, ...]
    requests: int
    contested: tuple[Sealing, ...] = ()
    outside: int = 0
    look_back_minutes: int = 0
    missing: int = 0
    filtered: int = 0
    changes: tuple[str, ...] = ()

    @property
    def sealed(self) -> bool:
        """Whether every window of the run is proven complete."""
        return not self.open_windows


def fetch_scopes(pipeline: Pipeline, client: Client) -> list[Shop]:
    """Return whose records a pipeline asks for: shops, warehouses, or everything at once.

    Shops of a platform that the pipeline's own method does not serve are left out, and told: a call that
    names one is refused as a whole.

    Raises:
        ConfigError: the method serves none of the merchant's shops.
        DataError: a shop or warehouse has no id, or there are none, which looks the same as a lost right.
    """
    if pipeline.scope == "shop":
        return _served(pipeline, fetch_shops(client))
    if pipeline.scope == "warehouse":
        return [Shop(key, WAREHOUSE) for key in sorted(_fetch(client, WAREHOUSE_METHOD))]
    return [EVERYTHING]


def _served(pipeline: Pipeline, shops: Sequence[Shop]) -> list[Shop]:
    base = catalog.method(pipeline.source.method)
    served = [shop for shop in shops if shop.source not in base.not_served]
    others = sorted({shop.source for shop in shops} & base.not_served)
    if others:
        log.warning(
            "%s: %d of %d shops are left out, because %s does not serve %s",
            pipeline.name,
            len(shops) - len(served),
            len(shops),
            base.name,
            ", ".join(others),
        )
    if not served:
        raise ConfigError(
            f"{base.name} serves none of the merchant's platforms: {', '.join(others)}",
            method=base.name,
            hint="read orders by erp.trade.outstock.simple.query, which serves all",
        )
    return served


def fetch_shops(client: Client) -> list[Shop]:
    """Return all shops of the merchant, page by page.

    Raises:
        DataError: a shop has no id, or there are no shops, which looks the same as a lost right.
    """
    found = _fetch(client, SHOP_METHOD)
    return sorted(Shop(key, str(row.get("source") or "")) for key, row in found.items())


def _fetch(client: Client, method: str) -> dict[str, dict[str, Any]]:
    """Return all records of a short list, by their key."""
    entry = catalog.method(method)
    kind = catalog.record(entry.record or "")
    found: dict[str, dict[str, Any]] = {}
    page = 0
    while True:
        page += 1
        paged = {"pageNo": str(page), "pageSize": str(entry.page.max)} if entry.page else {}
        answer = client.call(method, {**entry.send, **paged})
        before = len(found)
        for row in answer.rows(entry.list_keys):
            key = str(row.get(kind.key) or "")
            if not key:
                raise DataError(
                    f"a {kind.name} without {kind.key} in the answer", method=method, trace_id=answer.trace_id
                )
            found[key] = row
        # Total first; where there is none, a page that brings nothing new ends it.
        counted = answer.total is not None and len(found) >= answer.total
        if counted or len(found) == before or not paged:
            break
    if not found:
        raise DataError(
            f"the list of {kind.name}s is empty",
            method=method,
            hint="a merchant has some: ask Kuaimai whether the appKey has lost the right to see them",
        )
    return found


def serving(pipeline: Pipeline, shop: Shop) -> list[str]:
    """Return the pipeline's methods that return this shop's records."""
    base = pipeline.source.method
    return [
        name
        for name in pipeline.source.methods
        if name == base or shop.source not in catalog.method(name).not_served
    ]


def plan_slices(
    pipeline: Pipeline,
    *,
    run: str,
    start: datetime,
    end: datetime,
    shops: Iterable[Shop],
    live: bool,
    target: Coverage,
    dimension: str | None = None,
    now: Callable[[], float] = time.time,
) -> list[Slice]:
    """Return what a run reads, and write it down in the target as windows that are still open.

    Args:
        pipeline: the pipeline.
        run: the run's id.
        start: begin of the run's interval.
        end: its end.
        shops: the shops to read.
        live: a scheduled run reaches back as its dimension says and heals what is unsealed; any other run
            covers exactly its interval.
        target: where the coverage is.
        dimension: the time by which to read; None for the pipeline's own.
        now: clock, epoch seconds.

    Raises:
        ConfigError: the interval begins earlier than the method reaches back, or a scheduled run asks for a
            dimension that the pipeline does not name.
    """
    shops = sorted(shops)
    base = pipeline.source.method
    method = catalog.method(base)
    times = method.times
    dimension = dimension or pipeline.time.dimension
    further = pipeline.time.further_by(dimension)
    interval = Window(start, end, dimension)
    look_back = 0
    scans = dimension == SCAN
    if live and not scans:
        look_back = coverage.look_back_minutes(pipeline, target)
        interval = coverage.reach(pipeline, interval, look_back)
    if not scans:
        _check_reach(base, interval.start, times.reach_days if times else None, now())
    windows: list[ReadWindow] = []
    # A scan reads everything: what an earlier one did not get is in it.
    began = target.began(pipeline.name, dimension) if live and not scans else None
    heal_since = None
    if began is not None:
        heal_since = max(interval.start - timedelta(days=pipeline.time.heal_days), began)
        windows = coverage.settled_windows(pipeline.name, dimension, target, since=heal_since)
    slices = plan(
        pipeline=pipeline.name,
        run=run,
        interval=interval,
        shops=shops,
        shops_per_call=method.scope.max if method.scope else max(len(shops), 1),
        longest=interval.end - interval.start if scans else timedelta(days=times.max_days if times else 1),
        coverage=[
            SealedSpan(shop, one.method, one.start, one.end, one.state in {SEALED, CONTESTED})
            for one in windows
            for shop in one.shops
        ],
        methods_of={shop.id: serving(pipeline, shop) for shop in shops},
        base_method=base,
        heal_since=heal_since,
        cell=further.slot if further and live and not scans else None,
        again=None if further or scans else coverage.missed_overlap(pipeline, windows, base, interval, start),
        unread={one.window_id: one.unread for one in windows},
    )
    if scans and not live:
        slices = [msgspec.structs.replace(piece, reason=ASKED) for piece in slices]
    if heal_since is not None:
        # A dimension that reads whole days does so hours after they ended.
        until = interval.start if further and further.day_before else start
        known = coverage.known_since(windows, base, since=heal_since, until=until)
        slices = [_measured(piece, known, look_back) for piece in slices]
    target.announce([_planned(base, piece) for piece in slices])
    return slices


def _measured(piece: Slice, known: Mapping[str, datetime], look_back: int) -> Slice:
    """Let a slice of the present count the records that came late."""
    since = [known[shop.id] for shop in piece.shops if shop.id in known]
    if piece.reason != "interval" or len(since) < len(piece.shops):
        return piece
    return msgspec.structs.replace(piece, known_since=max(since), look_back_minutes=look_back)


def _planned(method: str, piece: Slice) -> PlannedWindow:
    shops = tuple(sorted(shop.id for shop in piece.shops))
    return PlannedWindow(
        window_id=window_id(piece.pipeline, method, piece.window, shops),
        pipeline=piece.pipeline,
        method=method,
        shops=shops,
        dimension=piece.window.dimension,
        window_start=piece.window.start,
        window_end=piece.window.end,
        run_id=piece.run,
        planned_as=piece.reason,
    )


def _check_reach(
    method: str, start: datetime, reach_days: int | None, now: float, *, hint: str | None = None
) -> None:
    if reach_days is not None and start.timestamp() < now - reach_days * 86_400:
        raise ConfigError(
            f"{start:%Y-%m-%d} is more than {reach_days} days ago; the gateway has archived that time and "
            "would answer with nothing",
            method=method,
            hint=hint or f"begin within the last {reach_days} days",
        )


def extract(
    pipeline: Pipeline,
    piece: Slice,
    client: Client,
    staging: Staging,
    *,
    now: Callable[[], float] = time.time,
) -> Extracted:
    """Read a slice into staging, with every method that serves its shops.

    Answers that an earlier try of the same task has staged are not asked for again, unless it ended well
    (`ended_well`): whoever clears it wants to know what is there now.

    Raises:
        ConfigError: the slice waited until its time was in the archive.
        KuaimaiError: a call failed for good; the slice stays unread, its complete answers stay staged.
    """
    if not piece.archive and piece.reason != BORDER:
        times = catalog.method(pipeline.source.method).times
        _check_reach(
            pipeline.source.method,
            piece.window.start,
            times.reach_days if times else None,
            now(),
            hint="this slice has waited too long: trigger the backfill again for the same time, which is "
            "then read from the archive",
        )
    if staging.names(f"{raw_folder(piece)}/{_ENDED}"):
        staging.remove(raw_folder(piece))
    reads: list[Read] = []
    for rank, method in enumerate(pipeline.source.methods):
        shops = [shop for shop in piece.shops if method in serving(pipeline, shop)]
        read = partial(
            _read,
            client,
            method,
            piece,
            rank=rank,
            source=pipeline.source,
            staging=staging,
            now=now,
        )
        folder = f"{raw_folder(piece)}/{rank}"
        try:
            reads += read(shops=shops, folder=folder) if shops else []
        except TooLarge:
            raise
        except Rejected:
            if rank == 0:
                raise
            reads += _read_served(read, shops, folder)
    return Extracted(piece, tuple(reads))


def _read(
    client: Client,
    method: str,
    piece: Slice,
    *,
    rank: int,
    source: Source,
    shops: Sequence[Shop],
    staging: Staging,
    folder: str,
    now: Callable[[], float],
) -> list[Read]:
    """Read a slice with one method: the list, and what the list leaves out of each record."""
    asked: dict[str, Any] = {
        "rank": rank,
        "page_size": source.page_size,
        "params": source.params,
        "staging": staging,
        "folder": folder,
        "now": now,
    }
    if piece.window.dimension == SCAN:
        reads = [read_everything(client, method, piece.window, shops, **asked)]
    elif piece.archive and (history := catalog.method(method).history):
        # Counts would do, but what the archive proves is known by its readings; see `planner`.
        reads = [
            msgspec.structs.replace(one, method=method, asked=history)
            for one in read_parts(client, history, piece.window, shops, by_readings=True, **asked)
        ]
    else:
        by_cursor = source.paging == "cursor"
        reads = read_parts(
            client, method, piece.window, shops, archive=piece.archive, by_cursor=by_cursor, **asked
        )
    return [read_details(client, one, staging, connections=CONNECTIONS, now=now) for one in reads]


def ended_well(slices: Iterable[Slice], staging: Staging) -> None:
    """Mark the slices of an extract task that reaches its end: a later try of it reads them anew."""
    for piece in slices:
        staging.write(f"{raw_folder(piece)}/{_ENDED}/well", b"")


def _read_served(read: Callable[..., list[Read]], shops: list[Shop], folder: str) -> list[Read]:
    """Ask an enriching method for one shop after the other and leave out those that it refuses.

    Which platforms it serves is documented in contradictory ways; the base method has their orders anyway.
    """
    reads: list[Read] = []
    for shop in shops:
        try:
            reads += read(shops=[shop], folder=f"{folder}/{safe_name(shop.id)}")
        except TooLarge:
            raise
        except Rejected as refusal:
            log.warning("shop %s (%s) gets no fuller record: %s", shop.id, shop.source, refusal)
    return reads


def transform(pipeline: Pipeline, extracted: Extracted, staging: Staging) -> Transformed:
    """Turn the raw pages of a slice into typed batches; nothing is asked of the gateway.

    Raises:
        ConfigError: a custom step failed; its own message is in it.
    """
    mapper = Mapper(pipeline.record.name, pipeline.rules)
    folder = f"{slice_folder(extracted.slice)}/batches"
    staging.remove(folder)
    batches: list[Batch] = []
    set_aside: list[Quarantined] = []
    left_out: list[LeftOut] = []
    reasons: Counter[str] = Counter()
    seen: list[Seen] = []
    for number, read in enumerate(extracted.reads):
        window = _window_id(extracted, read)
        bad: dict[str, BadRecord] = {}
        for answers in _in_batches(read, staging, BATCHES_AT_ONCE * pipeline.batch_size):
            into = [Rows(table) for table in mapper.tables]
            found = mapper.map_answers(
                answers, catalog.method(read.method).list_keys, into, given=asked_by(read)
            )
            bad.update((one.key, one) for one in found)
            if len(into[0]):
                stem = f"{folder}/{len(batches) + 1:05d}"
                made = mapper.batches(into, rank=read.rank, window_id=window)
                files = _write_batch(mapper.tables, made, stem, staging)
                batches.append(Batch(number, files, len(into[0])))
        set_aside += [_quarantined(pipeline, extracted, number, one) for one in bad.values()]
        filtered = {key: reason for key, reason in mapper.filtered.items() if key not in bad}
        mapper.filtered = {}
        if filtered:
            left_out.append(LeftOut(number, tuple(filtered)))
            reasons.update(filtered.values())
        seen.append(mapper.seen(read.method))
    return Transformed(
        extracted,
        tuple(batches),
        quarantine=_write_lines(f"{folder}/quarantine.jsonl.zst", set_aside, staging),
        bad=len(set_aside),
        seen=_write_lines(f"{folder}/seen.jsonl.zst", drift.added_up(seen), staging),
        filtered=_write_lines(f"{folder}/filtered.jsonl.zst", left_out, staging),
        reasons=dict(reasons),
    )


def _write_lines(name: str, lines: Sequence[msgspec.Struct], staging: Staging) -> str:
    """Write structs as lines of JSON; return the file's name, empty where there is nothing to write."""
    if not lines:
        return ""
    staging.write_compressed(name, b"\n".join(map(msgspec.json.encode, lines)))
    return name


def asked_by(read: Read) -> dict[str, str]:
    """Return the id that all records of a read were asked for by, by its field, where there is one alone."""
    scope = catalog.method(read.method).scope
    if scope is None or scope.field is None or len(read.shops) != 1 or not read.shops[0]:
        return {}
    return {scope.field: read.shops[0]}


def load(
    pipeline: Pipeline, transformed: Transformed, staging: Staging, target: Target, *, name: str = ""
) -> Loaded:
    """Write a slice and its proof into a target called `name`; into a database in one transaction."""
    seen = seen_in(transformed, staging)
    tables = tables_of(pipeline, seen, target)
    extracted = transformed.extracted
    with target.loading(tables, _punctuality(extracted)) as loading:
        write_records(loading, transformed, staging, range(len(extracted.reads)))
        if isinstance(loading, BookedLoad):
            loading.originals = partial(_originals, pipeline, extracted, staging)
        windows = tuple(
            loading.seal(_facts(pipeline, extracted, number)) for number in range(len(extracted.reads))
        )
    policy = pipeline.rules.policy
    changes = [
        f"{one.method}: {change}"
        for one in seen
        if one.records or one.misfits or one.unknown
        for change in target.note_seen(pipeline.name, one, policy)
    ]
    return Loaded(
        pipeline=pipeline.name,
        number=extracted.slice.number,
        windows=windows,
        read=sum(read.distinct for read in extracted.reads if read.rank == 0),
        requests=sum(read.requests for read in extracted.reads),
        outside=loading.outside,
        look_back_minutes=extracted.slice.look_back_minutes,
        changes=tuple(changes),
        target=name,
    )


def _originals(
    pipeline: Pipeline, extracted: Extracted, staging: Staging, number: int, keys: Collection[str]
) -> dict[str, str]:
    read = extracted.reads[number]
    return originals(pipeline, read, staging, keys, given=asked_by(read))


def seen_in(transformed: Transformed, staging: Staging) -> list[Seen]:
    """Return what a slice saw of the fields."""
    if not transformed.seen:
        return []
    lines = staging.read_compressed(transformed.seen).splitlines()
    return [msgspec.json.decode(line, type=Seen) for line in lines]


def tables_of(pipeline: Pipeline, seen: Iterable[Seen], target: Target) -> list[Table]:
    """Return the tables of a slice: those of the catalogue, as the pipeline shapes them, and new columns.

    A column that was made for a field earlier belongs to them too: a record that came without the field again
    empties it.
    """
    mapper = Mapper(pipeline.record.name, pipeline.rules)
    if pipeline.rules.policy != "evolve":
        return mapper.tables
    new = dict(target.known_columns(pipeline.name))
    for one in seen:
        new.update(one.unknown)
    return mapper.tables_with(new)


def _punctuality(extracted: Extracted) -> Punctuality | None:
    """Return what a load needs to count late records; None for a slice that can say nothing about them."""
    piece = extracted.slice
    if piece.known_since is None:
        return None
    return Punctuality(
        pipeline=piece.pipeline,
        dimension=piece.window.dimension,
        read_at=tuple(read.last_read_at for read in extracted.reads),
        known_since=piece.known_since,
        look_back_minutes=piece.look_back_minutes,
    )


def write_records(loading: Load, transformed: Transformed, staging: Staging, numbers: Sequence[int]) -> None:
    """Write batches, quarantine and what was left out of a slice into an open load.

    Args:
        loading: the open transaction.
        transformed: the slice.
        staging: where its files are.
        numbers: by position of each read, the number that its keys are counted under.
    """
    for batch in transformed.batches:
        with ExitStack() as files:
            read = [pq.read_table(files.enter_context(staging.reading(name))) for name in batch.files]
            loading.merge(numbers[batch.read], list(map(aligned, read, loading.tables)))
    if transformed.quarantine:
        lines = staging.read_compressed(transformed.quarantine).splitlines()
        records = [msgspec.json.decode(line, type=Quarantined) for line in lines]
        loading.quarantine([msgspec.structs.replace(one, read=numbers[one.read]) for one in records])
    if transformed.filtered:
        for line in staging.read_compressed(transformed.filtered).splitlines():
            left_out = msgspec.json.decode(line, type=LeftOut)
            loading.leave_out(numbers[left_out.read], left_out.keys)


def summarise(pipeline: Pipeline, loaded: Iterable[Loaded]) -> Summary:
    """Add up what a run's slices did."""
    slices = list(loaded)
    base = [one for piece in slices for one in piece.windows if one.method == pipeline.source.method]
    everything = [one for piece in slices for one in piece.windows]
    return Summary(
        read=sum(piece.read for piece in slices),
        landed=sum(one.landed for one in base),
        quarantined=sum(one.quarantined for one in base),
        inserted=sum(one.inserted for one in everything),
        updated=sum(one.updated for one in everything),
        unchanged=sum(one.unchanged for one in everything),
        stale=sum(one.stale for one in everything),
        windows=len(everything),
        open_windows=tuple(
            f"{one.method} {one.window_id}: {one.reason}" for one in everything if one.state != SEALED
        ),
        requests=sum(piece.requests for piece in slices),
        contested=tuple(one for one in everything if one.state == CONTESTED),
        outside=sum(piece.outside for piece in slices),
        missing=sum(one.missing for one in everything),
        filtered=sum(one.filtered for one in base),
        changes=tuple(dict.fromkeys(change for piece in slices for change in piece.changes)),
        look_back_minutes=max((piece.look_back_minutes for piece in slices), default=0),
    )


def slice_folder(piece: Slice) -> str:
    """The staging folder of a slice: pipeline, run, slice, window."""
    start = piece.window.start.astimezone(timezone.utc)
    end = piece.window.end.astimezone(timezone.utc)
    span = f"{start:%Y%m%dT%H%M%SZ}-{end:%Y%m%dT%H%M%SZ}"
    return f"{piece.pipeline}/{safe_name(piece.run)}/{piece.number:04d}-{span}"


def raw_folder(piece: Slice) -> str:
    """The staging folder of a slice's answers as they came, personal data included."""
    return f"{slice_folder(piece)}/raw"


def _in_batches(read: Read, staging: Staging, size: int) -> Iterator[list[Answer]]:
    """Give the raw pages back as answers, as many at a time as hold about `size` records."""
    names = read.page_names(staging)
    step = max(1, size * len(names) // max(read.rows, 1))
    for start in range(0, len(names), step):
        raws = map(staging.read_compressed, names[start : start + step])
        answers = [Answer(read.method, read_envelope(read.method, raw), raw) for raw in raws]
        yield list(composed(read, answers, staging))


def _write_batch(
    tables: Sequence[Table], batches: Sequence[pa.Table], stem: str, staging: Staging
) -> tuple[str, ...]:
    names = []
    for table, batch in zip(tables, batches, strict=True):
        name = f"{stem}-{table.name}.parquet"
        with staging.writing(name) as file:
            # Nobody searches these files: statistics and dictionaries would only cost.
            pq.write_table(batch, file, compression="zstd", use_dictionary=False, write_statistics=False)
        names.append(name)
    return tuple(names)


def _window_id(extracted: Extracted, read: Read) -> str:
    piece = extracted.slice
    return window_id(piece.pipeline, read.method, read.window, read.shops, archive=piece.archive)


def _facts(pipeline: Pipeline, extracted: Extracted, number: int) -> WindowFacts:
    piece, read = extracted.slice, extracted.reads[number]
    return WindowFacts(
        window_id=_window_id(extracted, read),
        read=number,
        pipeline=piece.pipeline,
        method=read.method,
        shops=tuple(sorted(read.shops)),
        dimension=read.window.dimension,
        window_start=read.window.start,
        window_end=read.window.end,
        total_before=read.total_before,
        total_after=read.total_after,
        distinct_keys=read.distinct,
        pages=read.pages,
        requests=read.requests,
        attempts=read.attempts,
        run_id=piece.run,
        first_read_at=read.first_read_at,
        last_read_at=read.last_read_at,
        proof=read.proof,
        scan=_scan(pipeline, piece, read),
        planned_as=piece.reason,
    )


def _scan(pipeline: Pipeline, piece: Slice, read: Read) -> Scan | None:
    """Return what a scan of the base method says about records that it did not see; None for other reads."""
    if read.window.dimension != SCAN or read.rank:
        return None
    entry = catalog.method(read.method)
    asked = piece.reason == ASKED
    if pipeline.source.params:
        return None  # the gateway was asked for some of the records: the others are there all the same
    if entry.scope is None or not any(read.shops):
        return Scan(asked=asked)
    if entry.scope.field is None:
        return None  # whose a stored record is cannot be told
    field = catalog.record(entry.record or "").fields[entry.scope.field]
    column = pipeline.rules.of(pipeline.record.name, field.name).column or field.column
    return Scan(column, read.shops, asked)


def _quarantined(pipeline: Pipeline, extracted: Extracted, number: int, bad: BadRecord) -> Quarantined:
    read = extracted.reads[number]
    record = drop_personal(bad.record, pipeline.record, pipeline.rules)
    identity = f"{pipeline.name}|{read.method}|{bad.key}|{bad.reason}"
    return Quarantined(
        read=number,
        quarantine_id=hashlib.sha256(identity.encode()).hexdigest()[:24],
        pipeline=pipeline.name,
        pipeline_version=pipeline.fingerprint,
        method=read.method,
        record_key=bad.key,
        reason=bad.reason,
        request=encode_json(redact_params(read.request)).decode(),
        record=encode_json(record).decode(),
        window_id=_window_id(extracted, read),
    )


def to_manifest(manifest: msgspec.Struct) -> dict[str, Any]:
    """Return a manifest as the plain JSON that tasks hand to one another."""
    plain: dict[str, Any] = msgspec.to_builtins(manifest)
    return plain


def from_manifest(plain: Any, kind: type[Any]) -> Any:
    """Return the manifest in plain JSON.

    Raises:
        DataError: it is from another version of this package.
    """
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as err:
        raise DataError(
            f"the manifest of the task before does not fit: {err}",
            hint="clear this run from its first task on; it was begun by another version of this package",
        ) from err


def pretty(summary: Summary) -> str:
    """Return one line for the log."""
    gone = f", {summary.missing} gone" if summary.missing else ""
    left_out = f", {summary.filtered} filtered" if summary.filtered else ""
    state = "sealed" if summary.sealed else f"{len(summary.open_windows)} of {summary.windows} windows open"
    return (
        f"{summary.read} records read, {summary.landed} landed, {summary.quarantined} quarantined{left_out} "
        f"({summary.inserted} new, {summary.updated} updated, {summary.unchanged} unchanged, "
        f"{summary.stale} superseded{gone}), {summary.requests} requests, {state}"
    )
