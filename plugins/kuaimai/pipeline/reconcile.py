"""The nightly reconcile: count the last days again, read where counts differ, mend by id, mark what is gone.

It asks by creation first. That time never changes, so a record stays in its slot for life, whatever happens
to it: one that is missing there is missing, and one too many is gone or was never there. Every other
dimension moves rows between windows (`upd_time`), leaves some out (`modified` null) or lets strangers in
(`pay_time`). Then it asks by the time of change, for what changed unseen (`changes`).

A quiet night costs at most one request of either time per group of shops and slot (two hours of orders, a
day of other records), and one for as many neighbouring slots of a day as a page holds together. Where a page
holds all that it counts, its records are compared by key and version, each in its own slot; in larger slots
those on the smallest page are.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import chain
from typing import Any

import msgspec

from kuaimai.errors import ConfigError, DataError, Rejected, TooLarge
from kuaimai.extract.by_id import Found, records_of
from kuaimai.extract.paging import read_parts
from kuaimai.extract.reads import Read
from kuaimai.extract.staging import Staging
from kuaimai.extract.windows import Shop, Slice, Window, window_id
from kuaimai.gateway import catalog
from kuaimai.gateway.client import Client
from kuaimai.gateway.clock import GATEWAY_ZONE
from kuaimai.load.proof import SEALED, UNPROVEN
from kuaimai.load.protocol import Target
from kuaimai.load.reconciling import Total
from kuaimai.load.sql import MOST_MISSING, MOST_MISSING_SHARE, SqlTarget
from kuaimai.load.windows import Sealing, WindowFacts
from kuaimai.pipeline import stages
from kuaimai.pipeline.changes import Changes
from kuaimai.pipeline.comparison import DAYS, comparison
from kuaimai.pipeline.manifests import Extracted
from kuaimai.pipeline.mending import Listed, Mended, Mending, together
from kuaimai.pipeline.rereading import Rereading, clock
from kuaimai.pipeline.spec import Pipeline

_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
# Records marked as gone in one run. More is not believable at once: a person looks, the next night goes on.
MOST_TOMBSTONES = 200


class Verdict(msgspec.Struct, frozen=True):
    """What one slot came to.

    Attributes:
        window: the slot, by creation.
        gateway: the gateway's count.
        aside: its records that are in quarantine.
        missing: keys that the target lacked.
        repaired: how many of them are there now.
        elsewhere: rows of the target that the gateway does not list here but returns by id.
        tombstoned: keys that the gateway has no longer.
        changed: rows that were older than at the gateway.
        problem: what remains, in one sentence; None if nothing does.
        held: rows of the target, by shop, before the repair.
        absent: keys of those that the gateway does not return, by shop, believed or not.
        gone: key → version of those to be marked as gone, until the whole night is judged.
    """

    window: Window
    gateway: int
    aside: int
    missing: tuple[str, ...] = ()
    repaired: int = 0
    elsewhere: int = 0
    tombstoned: tuple[str, ...] = ()
    changed: int = 0
    problem: str | None = None
    held: dict[str, int] = {}
    absent: dict[str, frozenset[str]] = {}
    gone: dict[str, int] = {}


class _Difference(msgspec.Struct, frozen=True):
    """A slot as read, what the target lacks of it, and what the gateway said about what it has too many."""

    piece: Slice
    reads: list[Read]
    theirs: set[str]
    left_out: frozenset[str]
    missing: set[str]
    extra: Found


class Day(msgspec.Struct, frozen=True):
    """One day of one group of shops, after the repair.

    Attributes:
        day: the date in GMT+8.
        shops: ids.
        verdicts: of the slots by creation.
        mended: what was brought up to date besides, with the time it was met in: records of the day that no
            list of changes shows, and records of any day that changed on this one.
        target: living rows that were made on this day.
        totals: of those rows, by shop and status; of orders only.
    """

    day: date
    shops: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    mended: tuple[tuple[Window, Mended], ...]
    target: int
    totals: tuple[Total, ...]

    @property
    def changed(self) -> int:
        """How many rows were brought up to date."""
        return sum(one.changed for one in self.verdicts) + sum(one.changed for _, one in self.mended)

    @property
    def problems(self) -> list[str]:
        """What remains, by slot."""
        slots = [(one.window, one.problem) for one in self.verdicts]
        slots += [(window, one.problem) for window, one in self.mended]
        return [f"{clock(window)}: {problem}" for window, problem in slots if problem]


class Outcome(msgspec.Struct, frozen=True):
    """What a reconcile found, mended and left.

    Attributes:
        pipeline: its name.
        days: newest first.
        retried: windows of all dimensions that were tried again because they were not sealed.
        still_open: those that are not sealed even now, with the reason; and shops that were refused.
        requests: calls spent, retries included.
    """

    pipeline: str
    days: tuple[Day, ...]
    retried: int
    still_open: tuple[str, ...]
    requests: int

    @property
    def problems(self) -> list[str]:
        """Everything that remains."""
        return [*(problem for day in self.days for problem in day.problems), *self.still_open]

    def total(self, name: str) -> int:
        """Add up a number (or count a list) of all slots; `changed` of everything."""
        if name == "changed":
            return sum(day.changed for day in self.days)
        values = [getattr(one, name) for day in self.days for one in day.verdicts]
        return sum(value if isinstance(value, int) else len(value) for value in values)


@dataclass(frozen=True, kw_only=True)
class Night:
    """What a night is asked for, whatever the target.

    Attributes:
        pipeline: the pipeline.
        run: the run's id; part of every staging path.
        until: the day that this lies in is not over; the days before it are compared.
        shops: the shops to compare.
        client: calls the gateway.
        staging: where raw pages go.
        days: how many days, yesterday included.
        now: clock, epoch seconds.
    """

    pipeline: Pipeline
    run: str
    until: datetime
    shops: Sequence[Shop]
    client: Client
    staging: Staging
    days: int = DAYS
    now: Callable[[], float] = time.time

    @property
    def midnight(self) -> datetime:
        """The end of the days, in GMT+8."""
        return self.until.astimezone(GATEWAY_ZONE).replace(hour=0, minute=0, second=0, microsecond=0)

    @property
    def retried_since(self) -> datetime:
        """Since when windows are read again: as long as scheduled runs heal, at least."""
        return self.midnight - max(self.days, self.pipeline.time.heal_days) * _DAY


def reconcile(night: Night, target: SqlTarget) -> Outcome:
    """Compare the last days with the gateway, mend what differs, and write the report beside the data.

    Raises:
        ConfigError: the days reach further back than the gateway's normal queries, which would make every
            record look as if it were gone, or the pipeline cannot be asked by creation.
        KuaimaiError: a call or the database failed for good; what was mended stays, the rest is found again.
    """
    pipeline, midnight, days = night.pipeline, night.midnight, night.days
    by = comparison(pipeline)
    if by is None:
        raise ConfigError(f"pipeline {pipeline.name} cannot be compared by the creation of its records")
    times = catalog.method(pipeline.source.method).times
    reach = times.reach_days if times else None
    if reach is not None and (midnight - days * _DAY).timestamp() < night.now() - reach * 86_400:
        raise ConfigError(
            f"{days} days before {midnight:%Y-%m-%d} begin more than {reach} days ago, in the archive",
            hint="compare fewer days",
        )
    spent = night.client.requests
    mending = Mending(
        pipeline,
        by=by,
        run=night.run,
        client=night.client,
        staging=night.staging,
        target=target,
        now=night.now,
    )
    work = _Reconciling(mending)
    chosen = sorted(night.shops)
    retried = mending.retry(night.retried_since, midnight, chosen)
    if retried.windows:
        mending.read_aside()
    dates = [midnight - back * _DAY for back in range(1, days + 1)]
    compared, refused = work.groups(_groups(pipeline, chosen), dates)
    slots = [(day, group) for day in dates for group in compared]
    # What is gone is marked before changes are looked for, so that it is not asked for there again.
    verdicts = work.marked([compared[group][day] for day, group in slots])
    mended = [work.by_change(day, group) for day, group in slots]
    found = [
        work.day(day, group, one, also)
        for (day, group), one, also in zip(slots, verdicts, mended, strict=True)
    ]
    still_open = (*retried.still_open, *refused)
    return Outcome(pipeline.name, tuple(found), retried.windows, still_open, night.client.requests - spent)


def retry(night: Night, target: Target) -> Outcome:
    """Read once more what no run could seal: all that a night can do where nothing can be compared.

    Raises:
        KuaimaiError: the target does not answer; see `Rereading.retry`.
    """
    spent = night.client.requests
    reading = Rereading(
        night.pipeline,
        run=night.run,
        client=night.client,
        staging=night.staging,
        target=target,
        now=night.now,
    )
    retried = reading.retry(night.retried_since, night.midnight, night.shops)
    return Outcome(
        night.pipeline.name, (), retried.windows, retried.still_open, night.client.requests - spent
    )


def mend(night: Night, target: Target) -> Outcome:
    """Do for one target what the night can do there: `reconcile`, else `retry`."""
    if isinstance(target, SqlTarget) and comparison(night.pipeline):
        return reconcile(night, target)
    return retry(night, target)


def check(outcome: Outcome) -> None:
    """Refuse an outcome that leaves differences.

    Raises:
        DataError: names the first of them and what to do.
    """
    problems = outcome.problems
    if not problems:
        return
    more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""  # noqa: PLR2004 - fit into a message
    raise DataError(
        f"{len(problems)} differences remain in pipeline {outcome.pipeline}: {'; '.join(problems[:5])}{more}",
        hint="the task tries again by itself; if they stay, look at those hours in Kuaimai and in the table "
        "kuaimai_reconcile",
    )


class _Reconciling:
    """What the steps of one run share."""

    def __init__(self, mending: Mending) -> None:
        self.mending = mending
        self.pipeline = mending.pipeline
        self.base = mending.base
        self.by = mending.by
        self.ledger = mending.ledger
        self.changes = Changes.find(mending)
        # So many records of neighbouring slots are asked for at once: fewer once a page has overflowed.
        self.room = mending.room
        self.tombstones = 0
        self.unseen: dict[tuple[datetime, tuple[Shop, ...]], set[str]] = {}

    def groups(
        self, groups: Iterable[tuple[Shop, ...]], nights: Sequence[datetime]
    ) -> tuple[dict[tuple[Shop, ...], dict[datetime, tuple[Verdict, ...]]], list[str]]:
        """Compare days by creation, by group of shops; return besides a sentence for each refused shop.

        A call that is refused for several shops is made for each of them alone: the others need not wait for
        one that is not authorised any more.

        Raises:
            Rejected: all are refused.
        """
        found: dict[tuple[Shop, ...], dict[datetime, tuple[Verdict, ...]]] = {}
        refused: list[str] = []
        refusal: Rejected | None = None
        queue = list(groups)
        while queue:
            group = queue.pop(0)
            try:
                found[group] = {night: self.by_creation(night, group) for night in nights}
            except TooLarge:
                raise
            except Rejected as err:
                refusal = err
                if len(group) > 1:
                    queue[:0] = [(shop,) for shop in group]
                else:
                    refused.append(f"shop {group[0].id} is refused: {err}")
        if refusal and not found:
            raise refusal
        return found, refused

    def by_creation(self, midnight: datetime, shops: tuple[Shop, ...]) -> tuple[Verdict, ...]:
        """Compare one day of one group of shops by creation, slot by slot.

        Neighbouring slots that one page holds together are one request.
        """
        slot, dimension = self.by.slot, self.by.dimension
        slots = [
            Window(midnight + at * slot, midnight + (at + 1) * slot - _SECOND, dimension)
            for at in range(_DAY // slot)
        ]
        unseen = self.unseen.setdefault((midnight, shops), set())
        counts = self.ledger.counts([(window.start, window.end) for window in slots])
        by_shop = [{shop.id: count.get(shop.id, 0) for shop in shops} for count in counts]
        held = [sum(count.values()) for count in by_shop]
        expected = [
            many + len(self._aside_in(window, shops)) for window, many in zip(slots, held, strict=True)
        ]
        verdicts: list[Verdict] = []
        while len(verdicts) < len(slots):
            rest = slice(len(verdicts), None)
            run = together(expected[rest], self.room)[0]  # one by one, as the room may become less
            near = slots[rest][run]
            parts = self._parts(near, shops, sum(expected[rest][run]))
            verdicts += [
                self._slot(window, shops, many, unseen, listed)
                for window, many, listed in zip(near, held[rest][run], parts, strict=True)
            ]
        return tuple(
            msgspec.structs.replace(one, held=count) for one, count in zip(verdicts, by_shop, strict=True)
        )

    def marked(self, verdicts: Sequence[tuple[Verdict, ...]]) -> list[tuple[Verdict, ...]]:
        """Mark what is gone, unless it is too much of the whole night, or of its shop, to be believed.

        A slot or a shop that holds a single record tells nothing of that.
        """
        held: Counter[str] = Counter()
        absent: Counter[str] = Counter()
        for one in chain.from_iterable(verdicts):
            held.update(one.held)
            absent.update({shop: len(keys) for shop, keys in one.absent.items()})
        doubt = _unlikely((), absent.total(), held.total())
        doubts = {shop: doubt or _unlikely((), many, held[shop], shop) for shop, many in absent.items()}
        return [tuple(self._marked(one, doubts) for one in slots) for slots in verdicts]

    def _marked(self, verdict: Verdict, doubts: Mapping[str, str | None]) -> Verdict:
        """Mark what is gone in a slot; `doubts` say of which shops it is not believed, and why."""
        if not verdict.gone:
            return verdict
        said, gone = [verdict.problem], dict(verdict.gone)
        for shop, keys in sorted(verdict.absent.items()):
            if doubts[shop]:
                said.append(doubts[shop])
                gone = {key: version for key, version in gone.items() if key not in keys}
        marked, left = self._entomb(gone)
        problem = "; ".join(dict.fromkeys(filter(None, (*said, left)))) or None
        return msgspec.structs.replace(verdict, tombstoned=marked, problem=problem, absent={}, gone={})

    def by_change(self, midnight: datetime, shops: tuple[Shop, ...]) -> tuple[tuple[Window, Mended], ...]:
        """Bring up to date what changed unseen: orders of the day that no list shows; changes of the day."""
        day = Window(midnight, midnight + _DAY - _SECOND, self.by.dimension)
        mended = []
        if unseen := self.unseen.pop((midnight, shops), None):
            mended.append((day, self.mending.refresh(day, shops, {}, unseen, sure=unseen)))
        if self.changes:
            mended += self.changes.day(midnight, shops)
        return tuple(mended)

    def day(
        self,
        midnight: datetime,
        shops: tuple[Shop, ...],
        verdicts: tuple[Verdict, ...],
        mended: tuple[tuple[Window, Mended], ...],
    ) -> Day:
        """Add up one day of one group of shops, and write down what came of it."""
        ids = tuple(shop.id for shop in shops)
        last = midnight + _DAY - _SECOND
        totals = tuple(self.ledger.totals(midnight, last, ids)) if self.by.totals else ()
        (held,) = self.ledger.counts([(midnight, last)])
        living = sum(held.get(shop, 0) for shop in ids)
        day = Day(midnight.date(), ids, verdicts, mended, living, totals)
        self.ledger.write_report(
            self.pipeline.name,
            day.day.isoformat(),
            shops=ids,
            found=_columns(day),
            totals=totals,
            run_id=self.mending.run,
        )
        return day

    def _parts(
        self, slots: Sequence[Window], shops: tuple[Shop, ...], expected: int
    ) -> Sequence[Listed | None]:
        """Ask for neighbouring slots at once; return what the answer says of each, or None for each.

        It says something of them if it holds all that it counts, and each record has a slot by its own time.
        """
        alone = [None] * len(slots)
        if len(slots) == 1:
            return alone
        stretch = Window(slots[0].start, slots[-1].end, self.by.dimension)
        try:
            listed = self.mending.on_a_page(stretch, shops, expected)
        except TooLarge:
            listed = Listed(None, {}, frozenset())
        parts = [listed.part(slot) for slot in slots]
        if listed.whole and sum(part.total or 0 for part in parts) == listed.total:
            return parts
        # The gateway has more than is known here. Filters, for one, leave out as many of other slots.
        share = expected / listed.total if listed.total else 0
        self.room = min(self.room, int(self.mending.room * share))
        return alone

    def _slot(
        self,
        window: Window,
        shops: tuple[Shop, ...],
        held: int,
        unseen: set[str],
        listed: Listed | None = None,
    ) -> Verdict:
        """Compare one slot; note the orders whose changes neither its page nor a list of changes shows.

        Args:
            window: the slot.
            shops: its shops.
            held: how many of its rows are here.
            unseen: where those orders are noted.
            listed: what an answer has said of it already.
        """
        aside = self._aside_in(window, shops)
        listed = listed or self.mending.count(window, shops, held)
        stored = self.ledger.states(listed.versions)
        if listed.kept != held + len(aside) or not listed.versions.keys() - aside <= stored.keys():
            return self._compare(window, shops, unseen)
        unseen |= self._unseen(window, shops, listed)
        newer = self.mending.newer(listed.versions, stored)
        if not newer:
            return Verdict(window, listed.total or 0, len(aside))
        mended = self.mending.refresh(window, shops, newer, total=listed.total or 0)
        return Verdict(window, listed.total or 0, len(aside), changed=mended.changed, problem=mended.problem)

    def _unseen(self, window: Window, shops: Sequence[Shop], listed: Listed) -> set[str]:
        """Return the records of a slot of which only reading them tells whether they have changed."""
        if not self.by.by_id:
            return set()
        if listed.whole:
            return set(listed.undated) - self.mending.aside_keys()
        times, record = self.base.times, self.pipeline.record
        dimension = times.dimensions.get(self.pipeline.time.dimension) if times else None
        fields = {name for name in (*record.version[:1], dimension.needs if dimension else None) if name}
        columns = sorted(map(self.mending.column, fields))
        return set(
            self.ledger.unlisted(window.start, window.end, [shop.id for shop in shops], columns)
            if columns
            else ()
        )

    def _compare(self, window: Window, shops: tuple[Shop, ...], unseen: set[str]) -> Verdict:
        """Read the whole slot, and mend both sides of the difference."""
        ids = tuple(shop.id for shop in shops)
        mending = self.mending
        piece = mending.slice(window, shops)
        before = self._doubtful(window, ids)
        folder = f"{stages.raw_folder(piece)}/slot"
        reads = read_parts(
            mending.client,
            self.base.name,
            window,
            shops,
            rank=0,
            page_size=self.pipeline.source.page_size,
            params=self.pipeline.source.params,
            staging=mending.staging,
            folder=folder,
            now=mending.now,
        )
        listed = mending.listed(records_of(reads, mending.staging))
        theirs = set(listed.versions)
        ours = self.ledger.keys(window.start, window.end, ids)
        missing = theirs - ours.keys() - mending.aside_keys()
        if self.by.by_id:
            unseen |= listed.undated & ours.keys()
        newer = mending.newer(
            {key: listed.versions[key] for key in theirs & ours.keys()}, self.ledger.states(ours)
        )
        total = len(theirs) + len(listed.left_out)
        changed = mending.refresh(window, shops, newer, total=total) if newer else Mended(0)
        # A row that landed before its record was left out is neither missing nor gone.
        surplus = ours.keys() - theirs - listed.left_out
        if self.by.by_id:
            extra = mending.ask(piece, "extra", surplus)
        else:
            extra = Found((), {}, tuple(sorted(before & surplus)))
        if missing and mending.cheaper_whole(missing, total):
            # Records without an id, or so many that pages are cheaper than ids: read as every other slice is.
            mending.whole(window, shops)
            mending.read_aside()
            sealing = self._mend(_Difference(piece, reads, theirs, listed.left_out, set(), extra))
        else:
            sealing = self._mend(_Difference(piece, reads, theirs, listed.left_out, missing, extra))
        left = _unlikely(reads, len(extra.absent), len(ours if self.by.by_id else before))
        if missing or extra.reads:
            mending.read_aside()
        reason = None if sealing.state == SEALED else sealing.reason
        return Verdict(
            window=window,
            gateway=len(theirs) + len(listed.left_out),
            aside=len(theirs & mending.aside_keys()),
            missing=tuple(sorted(missing)),
            repaired=len(missing & self.ledger.keys(window.start, window.end, ids).keys()),
            elsewhere=len(extra.shops),
            changed=changed.changed,
            problem="; ".join(filter(None, (reason, changed.problem, left))) or None,
            absent=self._by_shop(extra.absent),
            gone={} if left else {key: ours[key] for key in extra.absent},
        )

    def _by_shop(self, keys: Collection[str]) -> dict[str, frozenset[str]]:
        """Return some rows of the target by the shop that they are of."""
        owners = self.ledger.owners(keys) if keys else {}
        return {
            shop: frozenset(key for key in keys if owners.get(key, "") == shop)
            for shop in {owners.get(key, "") for key in keys}
        }

    def _doubtful(self, window: Window, shops: Iterable[str]) -> set[str]:
        """Return the rows that are gone if a reading from now on does not show them; none if ids can tell.

        The last second is left out: whether the gateway counts all of it is not documented. Where a pipeline
        asks for a selection, the other records are there all the same.
        """
        if self.by.by_id or self.pipeline.source.params:
            return set()
        return set(self.ledger.keys(window.start, window.end - _SECOND, shops))

    def _mend(self, what: _Difference) -> Sealing:
        """Read what is missing by id, load it with what was asked for beside, and prove the slot."""
        mending = self.mending
        piece, aside = what.piece, mending.aside_keys()
        found = mending.ask(piece, "missing", what.missing)
        fuller = mending.fuller(piece, found)
        extracted = Extracted(piece, (*found.reads, *fuller, *what.extra.reads))
        transformed = stages.transform(self.pipeline, extracted, mending.staging)
        # The records of the slot count in its proof, under a number of their own.
        proof = len(extracted.reads)
        numbers = [proof if at < len(found.reads) else at for at in range(proof)]
        with mending.loading(transformed) as loading:
            stages.write_records(loading, transformed, mending.staging, numbers)
            loading.account(proof, sorted(what.theirs - aside - what.missing), len(what.theirs & aside))
            loading.leave_out(proof, what.left_out)
            return loading.seal(self._facts(what, proof))

    def _facts(self, what: _Difference, number: int) -> WindowFacts:
        """Return the slot's proof: parts that share edges are one window of as many keys as all have."""
        piece, reads, theirs = what.piece, what.reads, what.theirs | what.left_out
        shops = tuple(shop.id for shop in piece.shops)
        whole = all(read.stable for read in reads)
        before = [read.total_before for read in reads if read.total_before is not None]
        after = [read.total_after for read in reads if read.total_after is not None]
        counted = len(before) == len(after) == len(reads)
        return WindowFacts(
            window_id=window_id(piece.pipeline, self.base.name, piece.window, shops),
            read=number,
            pipeline=piece.pipeline,
            method=self.base.name,
            shops=shops,
            dimension=piece.window.dimension,
            window_start=piece.window.start,
            window_end=piece.window.end,
            total_before=len(theirs) if whole else sum(before) if counted else None,
            total_after=len(theirs) if whole else sum(after) if counted else None,
            distinct_keys=len(theirs),
            pages=sum(read.pages for read in reads),
            requests=sum(read.requests for read in reads),
            attempts=max(read.attempts for read in reads),
            run_id=self.mending.run,
            first_read_at=min(read.first_read_at for read in reads),
            last_read_at=max(read.last_read_at for read in reads),
            # No stronger than its weakest part.
            proof=reads[0].proof if whole else UNPROVEN,
            planned_as=piece.reason,
        )

    def _entomb(self, versions: dict[str, int]) -> tuple[tuple[str, ...], str | None]:
        """Mark what is gone, as far as a run may; return the keys, and what to say if some are left."""
        some = dict(sorted(versions.items())[: MOST_TOMBSTONES - self.tombstones])
        marked = tuple(self.ledger.entomb(some))
        self.tombstones += len(marked)
        left = len(versions) - len(some)
        return marked, (
            f"{left} more records are gone from the gateway, and {MOST_TOMBSTONES} were marked already: look "
            "whether Kuaimai has really lost them"
            if left
            else None
        )

    def _aside_in(self, window: Window, shops: Sequence[Shop]) -> set[str]:
        """Return the quarantined keys that the gateway counts in a slot and the target does not hold."""
        ids = {shop.id for shop in shops}
        first, last = window.start.timestamp() * 1000, (window.end + _SECOND).timestamp() * 1000
        keys = {
            one.key
            for one in self.mending.aside
            if one.shop in ids and (stamp := one.stamp(self.by.field)) is not None and first <= stamp < last
        }
        return keys - self.ledger.states(keys).keys()


def _unlikely(reads: Sequence[Read], gone: int, held: int, shop: str = "") -> str | None:
    """Return why records that the gateway did not return are not believed to be gone; or None.

    What holds for scans holds here: the reading must be proven, and must not miss too much (docs/adr/0008). A
    right that was lost looks just the same, and then an id brings nothing either.
    """
    if gone and not all(read.stable for read in reads):
        return f"{gone} records were not seen, and the readings of the slot did not agree"
    if gone > max(MOST_MISSING, held * MOST_MISSING_SHARE) or 1 < gone == held:
        of = f"of shop {shop}, " if shop else ""
        seen = f"{of}{gone} of {held} records were not seen"
        return f"{seen}, which is too many to be believed; none was marked"
    return None


def _groups(pipeline: Pipeline, shops: Sequence[Shop]) -> list[tuple[Shop, ...]]:
    scope = catalog.method(pipeline.source.method).scope
    size = scope.max if scope else max(len(shops), 1)
    return [tuple(shops[at : at + size]) for at in range(0, len(shops), size)]


def _columns(day: Day) -> dict[str, Any]:
    gone = [key for one in day.verdicts for key in one.tombstoned]
    return {
        "gateway_count": sum(one.gateway for one in day.verdicts),
        "target_count": day.target,
        "quarantined": sum(one.aside for one in day.verdicts),
        "missing": sum(len(one.missing) for one in day.verdicts),
        "repaired": sum(one.repaired for one in day.verdicts),
        "elsewhere": sum(one.elsewhere for one in day.verdicts),
        "tombstoned": len(gone),
        "changed": day.changed,
        "tombstones": msgspec.json.encode(gone).decode() if gone else None,
        "problem": "; ".join(day.problems) or None,
    }


def pretty(outcome: Outcome) -> str:
    """Return the outcome as two tables for the log: what each day came to, and totals by shop and status."""
    names = (
        "gateway_count",
        "target_count",
        "quarantined",
        "missing",
        "repaired",
        "elsewhere",
        "tombstoned",
        "changed",
    )
    spent = f"{outcome.pipeline}: {outcome.requests} requests, {outcome.retried} windows read again"
    if not outcome.days:
        return spent
    lines = [
        spent,
        "  ".join(("day".ljust(10), "shops", *names)),
    ]
    for day in outcome.days:
        row = _columns(day)
        numbers = [str(row[name]).rjust(len(name)) for name in names]
        lines.append("  ".join((day.day.isoformat(), str(len(day.shops)).rjust(5), *numbers)))
    sums: dict[tuple[str, str], tuple[int, Decimal, Decimal]] = {}
    for one in (total for day in outcome.days for total in day.totals):
        orders, payment, paid = sums.get((one.shop, one.status), (0, Decimal(0), Decimal(0)))
        sums[one.shop, one.status] = (orders + one.orders, payment + one.payment, paid + one.pay_amount)
    lines.append(f"{'shop':12}  {'status':28}  {'orders':>8}  {'payment':>14}  {'pay_amount':>14}")
    lines += [
        f"{shop:12}  {status:28}  {orders:8}  {payment:14.2f}  {paid:14.2f}"
        for (shop, status), (orders, payment, paid) in sorted(sums.items())
    ]
    gone = [key for day in outcome.days for one in day.verdicts for key in one.tombstoned]
    if gone:
        lines.append(f"not at the gateway any more, marked with _deleted_at: {', '.join(gone)}")
    return "\n".join(lines)
