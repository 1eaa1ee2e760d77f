"""Extract, transform and load, as plain functions: each takes the small manifest of the one before.

What there is to extract is planned in `slices`; what came of a whole run is added up in `summary`.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import timezone
from functools import partial
from typing import IO, Any

import msgspec
import pyarrow as pa

from kuaimai.errors import Rejected, TooLarge
from kuaimai.extract.asking import by_gateway, instant
from kuaimai.extract.details import composed, read_details
from kuaimai.extract.paging import CONNECTIONS, Read, read_parts
from kuaimai.extract.reads import refused_read
from kuaimai.extract.scans import read_everything
from kuaimai.extract.staging import Staging, safe_name
from kuaimai.extract.windows import BORDER, SCAN, Shop, Slice, window_id
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, encode_json, read_envelope
from kuaimai.gateway.client import Client
from kuaimai.gateway.redaction import redact_params
from kuaimai.load.booked import BookedLoad
from kuaimai.load.held import Quarantined
from kuaimai.load.lateness import Punctuality
from kuaimai.load.protocol import Load, Target
from kuaimai.load.windows import Scan, WindowFacts
from kuaimai.pipeline.manifests import Batch, Extracted, LeftOut, Loaded, Transformed
from kuaimai.pipeline.originals import originals
from kuaimai.pipeline.scopes import serving
from kuaimai.pipeline.slices import ASKED, check_reach
from kuaimai.pipeline.spec import Pipeline, Source
from kuaimai.transform import drift
from kuaimai.transform.batches import aligned
from kuaimai.transform.drift import Seen
from kuaimai.transform.mapping import BadRecord, Mapper
from kuaimai.transform.personal import drop_personal
from kuaimai.transform.rows import Rows
from kuaimai.transform.tables import Table

log = logging.getLogger(__name__)

# Columns are cheap per batch, not per row: so many batches of records are converted and merged at once. Twice
# as many would save a fiftieth of the time, and let the memory of a task grow with its slice.
BATCHES_AT_ONCE = 2
# Files of batches live for hours and are read once, whole (docs/adr/0009). By one thread: several keep more
# memory than they save time.
_BATCHES_WRITTEN = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
_BATCHES_READ = pa.ipc.IpcReadOptions(use_threads=False)
# Folder beside the raw answers of a slice whose extract task has ended.
_ENDED = "ended"


def extract(
    pipeline: Pipeline,
    piece: Slice,
    client: Client,
    staging: Staging,
    *,
    now: Callable[[], float] = time.time,
) -> Extracted:
    """Read a slice into staging, with every method that serves its shops.

    Where a call for several shops is refused, each is asked for alone: the others need not wait for one that
    is not authorised any more. Its own read says that it was refused, so that its window stays open.

    Answers that an earlier try of the same task has staged are not asked for again, unless it ended well
    (`ended_well`): whoever clears it wants to know what is there now.

    Raises:
        ConfigError: the slice waited until its time was in the archive.
        KuaimaiError: a call failed for good; the slice stays unread, its complete answers stay staged.
    """
    if not piece.archive and piece.reason != BORDER:
        times = catalog.method(pipeline.source.method).times
        check_reach(
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
            if rank == 0 and len(shops) == 1:
                raise
            served, refusals = _read_each(read, shops, folder)
            reads += served
            if rank == 0:
                if len(refusals) == len(shops):
                    raise refusals[0][1] from None
                at = instant(now())
                reads += [
                    refused_read(
                        method, piece.window, shop.id, rank=rank, folder=folder, refusal=refusal, now=at
                    )
                    for shop, refusal in refusals
                ]
    return Extracted(piece, tuple(_ended_by_gateway(one, client.clock_offset) for one in reads))


def _ended_by_gateway(read: Read, offset: float | None) -> Read:
    """Return a read that ended when it did by the gateway's clock; its answers say so of themselves."""
    ended = by_gateway(read.last_read_at.timestamp(), offset)
    return msgspec.structs.replace(read, last_read_at=instant(ended))


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


def _read_each(
    read: Callable[..., list[Read]], shops: list[Shop], folder: str
) -> tuple[list[Read], list[tuple[Shop, Rejected]]]:
    """Ask a method for one shop after the other; return what was read, and which shops were refused.

    Which platforms an enriching method serves is documented in contradictory ways; the base method has their
    orders anyway.
    """
    reads: list[Read] = []
    refusals: list[tuple[Shop, Rejected]] = []
    for shop in shops:
        try:
            reads += read(shops=[shop], folder=f"{folder}/{safe_name(shop.id)}")
        except TooLarge:
            raise
        except Rejected as refusal:
            log.warning("shop %s (%s) is refused: %s", shop.id, shop.source, refusal)
            refusals.append((shop, refusal))
    return reads, refusals


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
        bad: dict[str, BadRecord] = {}
        mapper.read_from = int(read.first_read_at.timestamp() * 1000)
        for names in _page_groups(read, staging, BATCHES_AT_ONCE * pipeline.batch_size):
            stem = f"{folder}/{len(batches) + 1:05d}"
            found, batch = _one_batch(mapper, extracted, number, names=names, stem=stem, staging=staging)
            bad.update((one.key, one) for one in found)
            batches += [batch] if batch else []
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
    for number, read in zip(numbers, transformed.extracted.reads, strict=True):
        loading.read_from(number, read.first_read_at)
    for batch in transformed.batches:
        with ExitStack() as files:
            # Named nowhere, so that nothing of one batch is in memory while the next one is read.
            loading.merge(
                numbers[batch.read],
                [
                    aligned(_read_batch(files.enter_context(staging.reading(name))), table)
                    for name, table in zip(batch.files, loading.tables, strict=True)
                ],
            )
    if transformed.quarantine:
        lines = staging.read_compressed(transformed.quarantine).splitlines()
        records = [msgspec.json.decode(line, type=Quarantined) for line in lines]
        loading.quarantine([msgspec.structs.replace(one, read=numbers[one.read]) for one in records])
    if transformed.filtered:
        for line in staging.read_compressed(transformed.filtered).splitlines():
            left_out = msgspec.json.decode(line, type=LeftOut)
            loading.leave_out(numbers[left_out.read], left_out.keys)


def slice_folder(piece: Slice) -> str:
    """The staging folder of a slice: pipeline, run, slice, window."""
    start = piece.window.start.astimezone(timezone.utc)
    end = piece.window.end.astimezone(timezone.utc)
    span = f"{start:%Y%m%dT%H%M%SZ}-{end:%Y%m%dT%H%M%SZ}"
    return f"{piece.pipeline}/{safe_name(piece.run)}/{piece.number:04d}-{span}"


def raw_folder(piece: Slice) -> str:
    """The staging folder of a slice's answers as they came, personal data included."""
    return f"{slice_folder(piece)}/raw"


def _page_groups(read: Read, staging: Staging, size: int) -> Iterator[list[str]]:
    """Give the names of the raw pages back, as many at a time as hold about `size` records."""
    names = read.page_names(staging)
    step = max(1, size * len(names) // max(read.rows, 1))
    for start in range(0, len(names), step):
        yield names[start : start + step]


def _one_batch(
    mapper: Mapper, extracted: Extracted, number: int, *, names: Sequence[str], stem: str, staging: Staging
) -> tuple[list[BadRecord], Batch | None]:
    """Write the records of some raw pages as a batch, if any fits; return those that do not, and the batch.

    A function of its own, so that nothing of one batch is in memory while the next one is made.

    Args:
        mapper: maps them.
        extracted: the slice.
        number: of the read that the pages belong to.
        names: of the pages, in staging.
        stem: what the names of the batch's files begin with.
        staging: where pages and batches are.
    """
    read = extracted.reads[number]
    raws = map(staging.read_compressed, names)
    answers = [Answer(read.method, read_envelope(read.method, raw), raw) for raw in raws]
    into = [Rows(table) for table in mapper.tables]
    bad = mapper.map_answers(
        list(composed(read, answers, staging)),
        catalog.method(read.method).list_keys,
        into,
        given=asked_by(read),
    )
    if not len(into[0]):
        return bad, None
    made = mapper.batches(into, rank=read.rank, window_id=_window_id(extracted, read))
    files = _write_batch(mapper.tables, made, stem, staging)
    return bad, Batch(number, files, len(into[0]))


def _read_batch(file: IO[bytes]) -> pa.Table:
    return pa.ipc.open_file(file, options=_BATCHES_READ).read_all()


def _write_batch(
    tables: Sequence[Table], batches: Sequence[pa.Table], stem: str, staging: Staging
) -> tuple[str, ...]:
    names = []
    for table, batch in zip(tables, batches, strict=True):
        name = f"{stem}-{table.name}.arrow"
        with (
            staging.writing(name) as file,
            pa.ipc.new_file(file, batch.schema, options=_BATCHES_WRITTEN) as to,
        ):
            to.write_table(batch)
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
        refused=read.refused,
    )


def _scan(pipeline: Pipeline, piece: Slice, read: Read) -> Scan | None:
    """Return what a scan says about records that it did not see; None for reads of a stretch of time."""
    if read.window.dimension != SCAN:
        return None
    entry = catalog.method(read.method)
    asked = piece.reason == ASKED
    if read.rank or pipeline.source.params:
        # Only the base method has them all; and of a selection the others are there all the same.
        return Scan(asked=asked, marks=False)
    if entry.scope is None or not any(read.shops):
        return Scan(asked=asked)
    if entry.scope.field is None:
        return Scan(asked=asked, marks=False)  # whose a stored record is cannot be told
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
