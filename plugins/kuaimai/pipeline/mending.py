"""What the nightly reconcile mends with: records by their ids, or a window whole, loaded as always."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from kuaimai.errors import ConfigError, Rejected, TooLarge
from kuaimai.extract.by_id import Found, calls_for, read_ids
from kuaimai.extract.details import read_details
from kuaimai.extract.paging import CONNECTIONS, window_request
from kuaimai.extract.reads import Read
from kuaimai.extract.skim import record_key, sent
from kuaimai.extract.staging import Staging
from kuaimai.extract.windows import Shop, Slice, Window
from kuaimai.gateway import catalog
from kuaimai.gateway.client import Client
from kuaimai.load.proof import SEALED
from kuaimai.load.reconciling import Aside, Ledger
from kuaimai.load.sql import Loading, SqlTarget
from kuaimai.pipeline import stages
from kuaimai.pipeline.comparison import Comparison, column_of
from kuaimai.pipeline.manifests import Extracted, Transformed
from kuaimai.pipeline.rereading import Rereading
from kuaimai.pipeline.scopes import serving
from kuaimai.pipeline.spec import Pipeline
from kuaimai.transform.fields import to_epoch_ms
from kuaimai.transform.mapping import Mapper
from kuaimai.transform.rows import Rows
from kuaimai.transform.versions import believed

log = logging.getLogger(__name__)

# Of a method without pages: so many records that are missing here still fit onto the answer that counts them.
_ROOM = 20


class Listed(msgspec.Struct, frozen=True):
    """What one answer says of a stretch of time.

    Attributes:
        total: how many records the gateway counts; None where it sends no number.
        versions: key → version of the records that came with it.
        undated: keys of those that do not say when they changed: their version may stay as it is.
        left_out: keys of records that came too, and that the pipeline's rules leave out.
        born: key → their time that never changes, epoch ms; None where it cannot be read.
    """

    total: int | None
    versions: dict[str, int]
    undated: frozenset[str]
    left_out: frozenset[str] = frozenset()
    born: dict[str, int | None] = {}

    @property
    def kept(self) -> int | None:
        """How many records the target should hold or have in quarantine, as far as this answer tells."""
        return None if self.total is None else self.total - len(self.left_out)

    @property
    def whole(self) -> bool:
        """Whether the answer holds all that it counts."""
        return self.kept == len(self.versions)

    def part(self, window: Window) -> Listed:
        """Return what an answer that is `whole` says of a part of it, by the records' time of birth."""
        first, last = window.start.timestamp(), window.end.timestamp()
        keys = {key for key, born in self.born.items() if born is not None and first <= born // 1000 <= last}
        return Listed(
            total=len(keys),
            versions={key: version for key, version in self.versions.items() if key in keys},
            undated=self.undated & keys,
            left_out=self.left_out & keys,
        )


class Mended(msgspec.Struct, frozen=True):
    """What bringing some records up to date came to: how many changed, and what remains; None if nothing."""

    changed: int
    problem: str | None = None


class Mending(Rereading):
    """The tools of one reconcile.

    Args:
        pipeline: the pipeline.
        by: what its records are compared by.
        run: the run's id; part of every staging path.
        client: calls the gateway.
        staging: where raw pages go.
        target: the database.
        now: clock, epoch seconds.

    Attributes:
        base: catalogue entry of the method that decides what is complete.
        ledger: the database's rows, by their time that never changes.
        aside: the base method's records in quarantine.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        by: Comparison,
        run: str,
        client: Client,
        staging: Staging,
        target: SqlTarget,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(pipeline, run=run, client=client, staging=staging, target=target, now=now)
        self.database = target
        self.by = by
        self.tables = Mapper(pipeline.record.name, pipeline.rules).tables
        target.prepare(self.tables)
        self.ledger = self.ledger_by(by.field)
        self.aside: list[Aside] = []
        self.read_aside()

    def read_aside(self) -> None:
        """Look again at what is in quarantine."""
        self.aside = self.ledger.set_aside(self.pipeline.name, self.base.name, self.by.shop)

    def aside_keys(self) -> set[str]:
        """Return the keys of the base method's records that are in quarantine."""
        return {one.key for one in self.aside}

    def ledger_by(self, field: str, needs: str | None = None) -> Ledger:
        """Return the target's rows by a time of theirs; only those that have the field `needs`, if named."""
        return Ledger(
            self.database,
            self.tables,
            self.column(field),
            shop=self.column(self.by.shop) if self.by.shop else None,
            needs=self.column(needs) if needs else None,
        )

    def column(self, field: str) -> str:
        """Return the column of a field that rows are found by.

        Raises:
            ConfigError: the pipeline keeps no such column.
        """
        column = column_of(self.pipeline, field)
        if column is None:
            raise ConfigError(
                f"pipeline {self.pipeline.name} keeps no column of {field}, by which the night compares",
                hint="leave that field as it is in the pipeline's file",
            )
        return column

    @property
    def room(self) -> int:
        """How many records one page holds; 0 where the method has no pages."""
        return self.base.page.max if self.base.page else 0

    def count(self, window: Window, shops: Sequence[Shop], held: int) -> Listed:
        """Ask for the count of a stretch of time, on a page that may hold it all, or on the smallest.

        Raises:
            TooLarge: even the smallest page is too large an answer.
        """
        try:
            return self.on_a_page(window, shops, held)
        except TooLarge:
            if held > self.room:  # that was the smallest page already
                raise
            return self.on_a_page(window, shops, self.room + 1)

    def on_a_page(self, window: Window, shops: Sequence[Shop], held: int) -> Listed:
        """Ask for a page with a count: the largest if that may hold all that is expected, else the smallest.

        Raises:
            TooLarge: the answer would be too large.
        """
        page = self.base.page
        size = held + _ROOM
        if page:
            size = page.max if held <= page.max else page.min
        request = window_request(self.base.name, window, shops, params=self.pipeline.source.params)
        answer = self.client.call(self.base.name, {**request, "pageNo": "1", "pageSize": str(size)})
        listed = self.listed(answer.rows(self.base.list_keys))
        nothing = not listed.versions and not listed.left_out
        total = 0 if answer.total is None and nothing else answer.total
        return msgspec.structs.replace(listed, total=total)

    def listed(self, rows: Iterable[Mapping[str, Any]]) -> Listed:
        """Return keys and versions of records as they came; the newest of a key counts."""
        record = self.pipeline.record
        versions: dict[str, int] = {}
        undated = set()
        born: dict[str, int | None] = {}
        found = [dict(row) for row in rows]
        left_out = self._left_out(found)
        for row in found:
            key = record_key(row, record)
            born[key] = _stamp(sent(row, record.fields[self.by.field]))
            if key in left_out:
                continue
            stamps = [_stamp(sent(row, record.fields[name])) for name in record.version]
            if not stamps or stamps[0] is None:
                undated.add(key)
            version = next((stamp for stamp in stamps if stamp is not None), 0)
            version = believed(version, int(self.now() * 1000))
            versions[key] = max(version, versions.get(key, 0))
        return Listed(None, versions, frozenset(undated), left_out, born)

    def _left_out(self, rows: Sequence[dict[str, Any]]) -> frozenset[str]:
        """Return the keys of those records that filters and steps leave out; they are missing nowhere."""
        rules = self.pipeline.rules
        if not rules.filters and not rules.steps:
            return frozenset()
        mapper = Mapper(self.pipeline.record.name, rules)
        into = [Rows(table) for table in mapper.tables]
        bad = {one.key for one in mapper.map(rows, into)}
        mapper.batches(into, rank=0, window_id="")
        return frozenset(mapper.filtered.keys() - bad)

    def newer(
        self, versions: Mapping[str, int], stored: Mapping[str, tuple[int, int, str]]
    ) -> dict[str, int]:
        """Return those records that are stored in an older version, or not at all; none of the quarantine."""
        aside = self.aside_keys()
        return {
            key: version
            for key, version in versions.items()
            if key not in aside and (key not in stored or stored[key][0] < version)
        }

    def refresh(
        self,
        window: Window,
        shops: Sequence[Shop],
        newer: Mapping[str, int],
        further: Iterable[str] = (),
        *,
        sure: Iterable[str] = (),
        total: int = 0,
    ) -> Mended:
        """Bring records up to date, by their ids or, where so many are newer that pages are cheaper, whole.

        Args:
            window: where they were met.
            shops: its shops.
            newer: key → version of records that the gateway has newer.
            further: keys of records that may have changed.
            sure: those of `further` that the gateway is sure to have; see `by_id`.
            total: how many records the window holds.
        """
        further = set(further)
        keys = {*newer, *further}
        before = self.ledger.states(keys)
        left = None
        if newer and self.cheaper_whole(newer, total):
            left = self.reread(window, shops).problem
        else:
            further |= newer.keys()
        if further and self.by.by_id:
            self.by_id(window, shops, further, sure={*newer, *sure})
        self.read_aside()
        after = self.ledger.states(keys)
        old = self.newer(newer, after)
        return Mended(
            changed=sum(after.get(key) != before.get(key) for key in keys),
            problem=left or (f"{len(old)} changed records did not land: {min(old)} …" if old else None),
        )

    def cheaper_whole(self, keys: Collection[str], total: int) -> bool:
        """Whether reading a window whole costs less than asking for some of its records, or is all there is.

        Args:
            keys: of the records.
            total: how many records the window holds.
        """
        if not self.by.by_id or any(key.startswith("#") for key in keys):
            return True
        pages = max(math.ceil(total / self.pipeline.source.page_size), 1)
        calls, each = calls_for(self.base.name, len(keys)), 1 if self.base.detail else 0
        return calls + each * len(keys) > pages + each * total

    def reread(self, window: Window, shops: Sequence[Shop]) -> Mended:
        """Read a window whole; return how many rows that changed."""
        windows = self.whole(window, shops).windows
        self.read_aside()
        return Mended(
            changed=sum(one.inserted + one.updated for one in windows),
            problem="; ".join(one.reason or "" for one in windows if one.state != SEALED) or None,
        )

    def by_id(
        self, window: Window, shops: Sequence[Shop], ids: Iterable[str], *, sure: Iterable[str]
    ) -> None:
        """Read records by their ids with all methods of the pipeline and load them.

        Args:
            window: where they were met.
            shops: its shops.
            ids: the ids.
            sure: those that the gateway has: asked for once more alone if a list does not bring them.
        """
        piece = self.slice(window, shops)
        found = self.ask(piece, "ids", ids, alone=sure)
        if not found.reads:
            return
        extracted = Extracted(piece, (*found.reads, *self.fuller(piece, found)))
        transformed = stages.transform(self.pipeline, extracted, self.staging)
        with self.loading(transformed) as loading:
            stages.write_records(loading, transformed, self.staging, range(len(extracted.reads)))

    def loading(self, transformed: Transformed) -> AbstractContextManager[Loading]:
        """Open a load of a slice, with the columns that were made for fields beyond the catalogue."""
        seen = stages.seen_in(transformed, self.staging)
        return self.database.loading(stages.tables_of(self.pipeline, seen, self.database))

    def ask(
        self,
        piece: Slice,
        name: str,
        ids: Iterable[str],
        *,
        rank: int = 0,
        alone: Iterable[str] | None = None,
    ) -> Found:
        """Ask one method for records by their ids, and for what its list leaves out; see `read_ids`."""
        wanted = set(ids)
        if not wanted:
            return Found((), {}, ())
        found = read_ids(
            self.client,
            self.pipeline.source.methods[rank],
            wanted,
            window=piece.window,
            shops=tuple(shop.id for shop in piece.shops),
            rank=rank,
            staging=self.staging,
            folder=f"{stages.raw_folder(piece)}/{name}/{rank}",
            alone=alone,
            now=self.now,
        )
        reads = tuple(
            read_details(self.client, one, self.staging, connections=CONNECTIONS, now=self.now)
            for one in found.reads
        )
        return msgspec.structs.replace(found, reads=reads)

    def fuller(self, piece: Slice, found: Found) -> list[Read]:
        """Ask the enriching methods for the same ids, as far as they serve their shops."""
        shops = {shop.id: shop for shop in piece.shops}
        reads: list[Read] = []
        for rank, method in enumerate(self.pipeline.source.methods):
            served = [
                key
                for key, shop in found.shops.items()
                if shop in shops and method in serving(self.pipeline, shops[shop])
            ]
            if rank == 0 or not served or catalog.method(method).ids is None:
                continue
            try:
                reads += self.ask(piece, "ids", served, rank=rank).reads
            except Rejected as refusal:
                log.warning("%d records get no fuller form: %s", len(served), refusal)
        return reads


def together(counts: Iterable[int], most: int) -> list[slice]:
    """Return the runs of neighbours that add up to `most` or less; what is larger stands alone."""
    runs: list[slice] = []
    held = 0
    for at, many in enumerate(counts):
        if runs and held + many <= most:
            held += many
            runs[-1] = slice(runs[-1].start, at + 1)
        else:
            held = many
            runs.append(slice(at, at + 1))
    return runs


def _stamp(value: Any) -> int | None:
    try:
        return to_epoch_ms(value)
    except ValueError:
        return None
