"""Somebody else's write API: JSON by POST, each record once, and never twice because something broke.

A record is an object of its columns, exact (`kuaimai.load.plain`), with its lines as a list under their kind:
`{"sid": "5970…", "payment": "59.80", …, "trade_line": [{…}]}`. Of a slice every record is sent once, in the
fullest form that was read. What has not changed since it was taken is not sent again, and nothing older is.

What went out is written down before (`kuaimai.load.deliveries`), and the verdict after it:

* taken: it counts as landed;
* refused: it is sent again with what else was refused, at most `tries` times, then set aside in quarantine;
* a request that is refused as a whole is cut in halves until the record is found that is the reason;
* HTTP 429, 503, no connection: nothing was taken; wait, send again, and leave the rest to the task's retries;
* no answer, a connection that broke, HTTP 500: nobody knows. The same after a crash between request and
  verdict, once the time is over in which the dead load could have had its answer (`lease_seconds`). Then
  `in_doubt` decides: `hold` sends nothing and sets the record aside, `resend` sends the same request with the
  same `Idempotency-Key`, `ask` asks for the record by its key first. A change of a record that was taken
  before is always sent again: asking could not tell, and who takes changes takes one twice.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Protocol

import msgspec
import pyarrow as pa
import requests

from kuaimai.errors import DataError, KuaimaiError, Rejected, Throttled, Transient
from kuaimai.gateway.answers import decode_json, encode_json
from kuaimai.gateway.budget import Budget
from kuaimai.load.api import Unknown, Verdict, WriteApi, Writer
from kuaimai.load.book import ProofBook
from kuaimai.load.booked import BookedLoad, BookedTarget
from kuaimai.load.deliveries import HELD, REFUSED, SENT, TAKEN, Delivery, DeliveryBook
from kuaimai.load.held import AS_SENT, Quarantined
from kuaimai.load.lateness import Punctuality
from kuaimai.load.parts import Document, Documents, Joins, LeftOut, fold, in_order
from kuaimai.load.plain import plain_rows
from kuaimai.load.reach import Reached, reach
from kuaimai.load.windows import Sealing, WindowFacts, Written
from kuaimai.transform.tables import CHILD_COUNT, RANK, VERSION, Table

log = logging.getLogger(__name__)

_LONGEST_PAUSE = 30.0
# Seconds beyond the time-outs of a request: clocks of several machines differ, and a machine may stall.
_SLACK = 60.0
_IN_DOUBT = "it was sent and not answered for: look whether the API has it"


class Writes(Protocol):
    """What takes records: `kuaimai.load.api.Writer`, or a database's statement."""

    def post(self, bodies: Sequence[bytes], request: str) -> list[Verdict]:
        """Take records; return a verdict for each."""
        ...

    def has(self, key: str) -> bool:
        """Say whether a record is there."""
        ...


class HttpTarget(BookedTarget):
    """A write API.

    Args:
        name: of the target, in its pipeline.
        book: the coordination store's database.
        api: the API.
        transport: sends the requests.
        pipeline_version: stored with quarantined records.
        requests_per_second: at most so many.
        clock: monotonic, seconds.
        sleep: waits, seconds.
        lease_seconds: how long a record that was sent counts as on its way, and no other load touches it; by
            default what a request can take. After that its load is taken for dead.
        document: makes what is sent of a record: itself by default. `LeftOut` sends nothing of it,
            counts it as filtered and logs its key; `DataError` sets it aside.
        joins: makes one document of the parts of several records.
        keep: what is kept of an answer, given as JSON; None keeps nothing.
    """

    def __init__(
        self,
        name: str,
        book: ProofBook,
        *,
        api: WriteApi,
        transport: requests.Session,
        pipeline_version: str = "",
        requests_per_second: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        lease_seconds: float | None = None,
        document: Documents | None = None,
        joins: Joins | None = None,
        keep: Callable[[bytes], str | None] | None = None,
    ) -> None:
        super().__init__(name, book)
        self.api = api
        self.document = document
        self.joins = joins
        self.keep = keep
        self.pipeline_version = pipeline_version
        self.sleep = sleep
        self.transport = transport
        # Until connected, until answered, and until the budget has room.
        self.lease_seconds = lease_seconds or _SLACK + 2 * api.timeout + 1 / requests_per_second
        budget = Budget(requests_per_second, now=clock, sleep=sleep)
        self.writer: Writes = Writer(api, transport=transport, spend=budget.spend)

    def reach(self) -> Reached:
        """Ask the API whether it is there, without a record; `try_rights` tries where the proof is.

        Raises:
            KuaimaiError: it cannot be reached, or refuses the token.
        """
        return reach(self.api, self.transport)

    def close(self) -> None:
        """Close the connections."""
        super().close()
        self.transport.close()

    def _load(
        self,
        tables: Sequence[Table],
        punctuality: Punctuality | None,  # noqa: ARG002 - counted beside data only
    ) -> BookedLoad:
        return _HttpLoad(self, tables)


class _HttpLoad(BookedLoad):
    """Collects the records of a slice; sends them when the first window is to be sealed."""

    target: HttpTarget

    def __init__(self, target: HttpTarget, tables: Sequence[Table]) -> None:
        super().__init__(target, tables)
        self._documents: dict[str, Document] = {}
        self._reads: dict[int, dict[str, tuple[int, int]]] = {}
        self._delivered: _Delivering | None = None
        self._omitted: dict[str, str] = {}

    def merge(self, read: int, batches: Sequence[pa.Table]) -> None:
        """Remember each record in the newest and fullest form."""
        keys = self._reads.setdefault(read, {})
        for one in documents(self.tables, batches):
            keys[one.key] = (one.version, one.rank)
            held = self._documents.get(one.key)
            if held is None or (one.version, one.rank) >= (held.version, held.rank):
                self._documents[one.key] = one

    def seal(self, facts: WindowFacts) -> Sealing:
        """Send what was collected, then count."""
        self._deliver(facts.pipeline)
        self.leave_out(facts.read, self._reads.get(facts.read, {}).keys() & self._omitted.keys())
        return super().seal(facts)

    def stored(self, pipeline: str, read: int, keys: Sequence[str]) -> set[str]:
        """Send what was collected; return those of some merged keys that the API has taken."""
        self._deliver(pipeline)
        return super().stored(pipeline, read, keys)

    def _deliver(self, pipeline: str) -> None:
        if self._delivered is None:
            self._delivered = _Delivering(self.target, self.target.booked(pipeline))
            parts: dict[str, list[str]] = {}
            self._delivered.all(self._outgoing(self._delivered, parts))
            fold(parts, self._delivered.outcomes, self._delivered.reasons)
            self._tell_omitted()

    def _tell_omitted(self) -> None:
        by_reason: dict[str, list[str]] = {}
        for key, reason in sorted(self._omitted.items()):
            by_reason.setdefault(reason, []).append(key)
        for reason, keys in by_reason.items():
            log.info(
                "%d records are not for %s, %s: %s", len(keys), self.target.name, reason, ", ".join(keys)
            )

    def _outgoing(self, delivering: _Delivering, parts: dict[str, list[str]]) -> Mapping[str, Document]:
        """What goes out for each record: itself, or what is made of it; `parts` gets the keys of that."""
        make = self.target.document
        if make is None:
            return self._documents
        made = {}
        for key, one in self._documents.items():
            try:
                found = make(self.tables, decode_json(one.body))
            except DataError as err:
                delivering.reasons[key] = err.message
                continue
            except LeftOut as why:
                self._omitted[key] = str(why)
                continue
            parts[key] = [part.key for part in found]
            for part in found:
                made[part.key] = msgspec.structs.replace(
                    one, key=part.key, body=part.body, content=_digest(part.body)
                )
        return made

    def standing(self, read: int) -> set[str]:
        """Return the keys of the read that the API has taken, now or before."""
        outcomes = self._delivered.outcomes if self._delivered else {}
        return {key for key in self._reads.get(read, ()) if outcomes.get(key) in _STANDING}

    def refusals(self, keys: Sequence[str]) -> dict[str, str]:
        """Return why the API, or the document, did not take some of the keys."""
        reasons = self._delivered.reasons if self._delivered else {}
        return {key: reasons[key] for key in keys if key in reasons}

    def omitted(self, keys: Collection[str]) -> set[str]:
        """Return those of some merged keys that are not for the API."""
        return self._omitted.keys() & keys

    def written(self, read: int) -> Written:
        """Return what became of the read's records; what went out in a fuller form counts as superseded."""
        written = Written()
        outcomes = self._delivered.outcomes if self._delivered else {}
        for key, form in self._reads.get(read, {}).items():
            sent = self._documents[key]
            outcome = outcomes.get(key, "")
            if outcome in _STANDING and form != (sent.version, sent.rank):
                outcome = "stale"
            if outcome in _STANDING:
                setattr(written, outcome, getattr(written, outcome) + 1)
        return written

    def refused(self, facts: WindowFacts) -> list[Quarantined]:
        """Return the records of a read that the API did not take, as they came where that is known."""
        reasons = self._delivered.reasons if self._delivered else {}
        keys = sorted(self._reads.get(facts.read, {}).keys() & reasons.keys())
        originals = self.originals(facts.read, keys) if keys else {}
        url = self.target.api.url.split("?")[0]
        return [
            Quarantined(
                read=facts.read,
                quarantine_id=_digest(f"{facts.pipeline}|{facts.method}|{key}|not taken".encode())[:24],
                pipeline=facts.pipeline,
                pipeline_version=self.target.pipeline_version,
                method=facts.method,
                record_key=key,
                reason=reasons[key],
                request=encode_json({"target" if key in originals else AS_SENT: url}).decode(),
                record=originals.get(key) or self._documents[key].body.decode(),
                window_id=facts.window_id,
            )
            for key in keys
        ]


_STANDING = frozenset({"inserted", "updated", "unchanged", "stale"})
# What is in one document: one record or part, or those that were joined. It is taken or refused as a whole.
Unit = Sequence[Document]


def _members(units: Iterable[Unit]) -> list[Document]:
    return [one for unit in units for one in unit]


class _Delivering:
    """One delivery of many records.

    Attributes:
        outcomes: by key, what became of the record: a name of `Written`, or nothing where it is not there.
        reasons: by key, why a record was refused or is held.
    """

    def __init__(self, target: HttpTarget, booked: str) -> None:
        self.outcomes: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self._kept: dict[str, str | None] = {}
        self._target = target
        self._api = target.api
        self._joins = target.joins
        self._book = DeliveryBook(target.book, booked)
        self._known: dict[str, Delivery] = {}

    def all(self, wanted: Mapping[str, Document]) -> None:
        """Send what has to be sent.

        Raises:
            Transient: another load is sending some of it; the rest is sent.
            KuaimaiError: the API does not answer, or not to us; what was taken until then is written down.
        """
        self._book.prepare()
        self._known = self._book.known(wanted)
        now = self._target.now()
        doubtful: dict[str, list[Document]] = {}
        fresh: list[Document] = []
        on_their_way = 0
        for one in sorted(wanted.values(), key=lambda one: in_order(one.key)):
            known = self._known.get(one.key)
            if self._is_settled(one, known):
                continue
            if known is None or known.state in (TAKEN, REFUSED):
                fresh.append(one)
            elif known.is_on_its_way(now):
                on_their_way += 1
            # What is older than what is in doubt waits: the window that brought that is open, and settles it.
            elif (one.version, one.rank) >= (known.version, known.rank):
                doubtful.setdefault(known.request, []).append(one)
        for group in doubtful.values():
            # Together as they went out: where nothing changed since, the request has the same key as before.
            self._send_by_size(self._cleared(group, _IN_DOUBT))
        self._send_by_size(fresh)
        if on_their_way:
            raise Transient(
                f"target {self._target.name}: another load is sending {on_their_way} of the records",
                hint="the task tries again and sees what was taken; if that load is dead, its records are "
                f"settled after {self._target.lease_seconds:.0f} seconds",
            )

    def _is_settled(self, one: Document, known: Delivery | None) -> bool:
        """Return whether a record need not be sent, since the API has taken it, or a newer form, before."""
        if known is None or known.taken_version is None or known.taken_rank is None:
            return False
        if known.taken_content == one.content or self._api.id_check:
            self.outcomes[one.key] = "unchanged"
        elif (one.version, one.rank) < (known.taken_version, known.taken_rank):
            self.outcomes[one.key] = "stale"
        return one.key in self.outcomes

    def _send_by_size(self, group: Sequence[Document]) -> None:
        units: Sequence[Unit] = [(one,) for one in group]
        if self._joins is not None:
            units, reasons = self._joins.groups(group)
            self.reasons |= reasons
        for at in range(0, len(units), self._api.rows):
            self._send(units[at : at + self._api.rows])

    def _send(self, units: Sequence[Unit]) -> None:
        """Send units in one request, and what was refused again, until each has its verdict."""
        pending = list(units)
        for attempt in range(1, self._api.tries + 1):
            refused, doubtful = self._once(pending)
            pending = refused + doubtful
            if not pending:
                return
            if attempt < self._api.tries:
                self._target.sleep(_pause(attempt))
        if doubtful:
            raise Transient(
                f"target {self._target.name}: no answer for {len(_members(doubtful))} records",
                hint="they are in doubt; the task tries again, and settles them first",
            )

    def _once(self, units: Sequence[Unit]) -> tuple[list[Unit], list[Unit]]:
        """Send one request; return the units that were refused, and those to send again for no answer."""
        group = _members(units)
        before = {one.key: self._known.get(one.key) for one in group}
        request = _digest("".join(one.content for one in group).encode())
        self._claim(self._rows(group, SENT, request=request), before)
        try:
            verdicts = self._post(units, request)
        except Unknown as doubt:
            self._settle([msgspec.structs.replace(self._known[key], sent_until=None) for key in before])
            again = {one.key for one in self._cleared(group, f"{_IN_DOUBT} ({doubt.message})")}
            left = [tuple(one for one in unit if one.key in again) for unit in units]
            return [], [unit for unit in left if unit]
        except Rejected as refusal:
            self._find_refused(units, before, refusal)
            return [], []
        except KuaimaiError:
            # Surely not taken: no more in doubt than it was before.
            self._restore(before)
            raise
        said = list(zip(units, verdicts, strict=True))
        if self._target.keep is not None:
            for unit, verdict in said:
                if verdict.taken:
                    self._kept |= dict.fromkeys((one.key for one in unit), self._target.keep(verdict.answer))
        self._take(_members(unit for unit, verdict in said if verdict.taken))
        refused = []
        for unit, verdict in said:
            if not verdict.taken:
                for one in unit:
                    self._refuse(one, verdict.reason)
                refused.append(unit)
        return refused, []

    def _post(self, units: Sequence[Unit], request: str) -> list[Verdict]:
        """Post, and wait where the API asks for it."""
        bodies = [self._joins.document(unit) if self._joins else unit[0].body for unit in units]
        for attempt in range(1, self._api.tries):
            try:
                return self._target.writer.post(bodies, request)
            except Throttled as err:
                pause = _pause(attempt, err.retry_after)
            except Transient:
                pause = _pause(attempt)
            mine = {one.key: self._known[one.key] for one in _members(units)}
            self._claim(list(mine.values()), mine, pause)
            self._target.sleep(pause)
        return self._target.writer.post(bodies, request)

    def _find_refused(
        self, units: Sequence[Unit], before: Mapping[str, Delivery | None], refusal: Rejected
    ) -> None:
        """Cut a request that was refused as a whole in halves, down to the unit that is the reason."""
        if len(units) > 1:
            self._restore(before)
            middle = len(units) // 2
            self._send(units[:middle])
            self._send(units[middle:])
            return
        for one in _members(units):
            known = before[one.key]
            if refusal.code == "409" and known is not None and known.state == SENT:
                # "There already": it was taken when it was sent before.
                self._take([one])
            else:
                self._refuse(one, refusal.message)

    def _cleared(self, group: Sequence[Document], reason: str) -> list[Document]:
        """Settle records in doubt; return those that are to be sent again."""
        if self._api.in_doubt == "resend":
            return list(group)
        again = []
        for one in group:
            sent = self._known[one.key]
            if sent.taken_version is not None:
                again.append(one)
            elif self._api.in_doubt == "hold":
                self._hold(one, sent, reason)
            elif not self._target.writer.has(one.key):
                again.append(one)
            elif sent.content == one.content:
                self._take([one])
            elif self._api.id_check:
                self.outcomes[one.key] = "unchanged"
            else:
                again.append(one)
        return again

    def _take(self, group: Sequence[Document]) -> None:
        for one in group:
            before = self._known.get(one.key)
            known = before is not None and before.taken_version is not None
            self.outcomes[one.key] = "updated" if known else "inserted"
            self.reasons.pop(one.key, None)
        rows = self._rows(group, TAKEN)
        self._book.take(rows, self._now())
        self._know(rows)

    def _refuse(self, one: Document, reason: str) -> None:
        self.reasons[one.key] = reason
        self._settle(self._rows([one], REFUSED))

    def _hold(self, one: Document, sent: Delivery, reason: str) -> None:
        """Set a record aside; what is in doubt stays what was sent, though the record has changed since."""
        self.reasons[one.key] = reason
        self._settle([msgspec.structs.replace(sent, state=HELD, reason=reason, sent_until=None)])

    def _claim(
        self, rows: Sequence[Delivery], before: Mapping[str, Delivery | None], pause: float = 0
    ) -> None:
        """Write records down as on their way until an answer must be there, after a pause of some seconds."""
        until = round((self._target.now() + pause + self._target.lease_seconds) * 1000)
        claimed = [msgspec.structs.replace(row, sent_until=until) for row in rows]
        self._book.claim(claimed, before, self._now())
        self._know(claimed)

    def _settle(self, rows: Sequence[Delivery]) -> None:
        self._book.settle(rows, self._known, self._now())
        self._know(rows)

    def _restore(self, before: Mapping[str, Delivery | None]) -> None:
        self._book.restore(before, self._known, self._now())
        for key, known in before.items():
            self._known.pop(key)
            if known is not None:
                self._known[key] = known

    def _know(self, rows: Sequence[Delivery]) -> None:
        self._known.update((row.record_key, row) for row in rows)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._target.now(), tz=timezone.utc)

    def _rows(self, group: Sequence[Document], state: str, *, request: str = "") -> list[Delivery]:
        rows = []
        for one in group:
            before = self._known.get(one.key)
            taken = (one.version, one.rank, one.content) if state == TAKEN else _taken(before)
            rows.append(
                Delivery(
                    record_key=one.key,
                    state=state,
                    reason=self.reasons.get(one.key) if state == REFUSED else None,
                    version=one.version,
                    rank=one.rank,
                    content=one.content,
                    request=request or (before.request if before else ""),
                    taken_version=taken[0],
                    taken_rank=taken[1],
                    taken_content=taken[2],
                    writeback=self._kept.get(one.key) or (before.writeback if before else None),
                )
            )
        return rows


def _pause(attempt: int, asked: float | None = None) -> float:
    return min(2.0 ** (attempt - 1), _LONGEST_PAUSE) if asked is None else asked


def _taken(before: Delivery | None) -> tuple[int | None, int | None, str | None]:
    return (
        (None, None, None)
        if before is None
        else (
            before.taken_version,
            before.taken_rank,
            before.taken_content,
        )
    )


def documents(tables: Sequence[Table], batches: Sequence[pa.Table]) -> Iterator[Document]:
    """Yield the records of a batch as they are sent."""
    header, *children = tables
    lines = [_lines_of(child, batch) for child, batch in zip(children, batches[1:], strict=True)]
    names = [column.name for column in header.columns]
    versions, ranks, counts = (batches[0].column(name).to_pylist() for name in (VERSION, RANK, CHILD_COUNT))
    for row, version, rank, count in zip(
        plain_rows(header, batches[0], names), versions, ranks, counts, strict=True
    ):
        key = row[header.key]
        if count is not None:
            for child, by_parent in zip(children, lines, strict=True):
                row[child.name.removeprefix("kuaimai_")] = by_parent.get((key, version), [])
        body = msgspec.json.encode(row)
        yield Document(key, version, rank, body, _digest(body))


def _lines_of(child: Table, batch: pa.Table) -> dict[tuple[str, int], list[dict[str, object]]]:
    names = [column.name for column in child.columns]
    found: dict[tuple[str, int], list[dict[str, object]]] = {}
    rows = plain_rows(child, batch, names)
    for row, version in zip(rows, batch.column(VERSION).to_pylist(), strict=True):
        found.setdefault((str(row[child.parent or ""]), version), []).append(row)
    return found


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
