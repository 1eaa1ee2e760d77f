"""What an API method of the sandbox may look at: the world as of now, the switches, the session."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from kuaimai.sandbox.book import Book
from kuaimai.sandbox.oddities import Marks, odd, reshaped
from kuaimai.sandbox.records import full_trade, outstock_trade
from kuaimai.sandbox.shelf import Shelf, Source
from kuaimai.sandbox.steps import Draw

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kuaimai.sandbox.faults import Faults
    from kuaimai.sandbox.lines import Record
    from kuaimai.sandbox.steps import Snapshot
    from kuaimai.sandbox.tokens import SessionState
    from kuaimai.sandbox.world import World

_WHOLE = 65_536
_YEAR = 365 * 86_400
_TRADE = Marks(
    "trade",
    key=("sid",),
    version="updTime",
    stamps=frozenset({"created", "payTime", "consignTime", "auditTime", "modified"}),
    retyped="shortId",
    dropped="sellerFlag",
)
_CACHED_RECORDS = 20_000
_CACHED_QUERIES = 8


class Refusal(Exception):
    """The gateway answers with an error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Call:
    """One accepted request.

    Attributes:
        method: API method.
        params: business parameters as sent, all text.
        now: epoch seconds of the sandbox's clock.
        number: the request's number since the sandbox was started.
    """

    method: str
    params: Mapping[str, str]
    now: float
    number: int


class Desk:
    """State that the methods share; used under the gateway's lock only.

    Attributes:
        ahead: (row, flavour) of records that the next page will probably need.
        later_pages: how many pages behind a first page were asked for.
        drifts: how many drifts have happened.
    """

    def __init__(self, world: World, faults: Faults, session: SessionState) -> None:
        self.world = world
        self.faults = faults
        self.session = session
        self.book = Book(world)
        self.ahead: list[tuple[int, str]] = []
        self.later_pages = 0
        self.drifts = 0
        self._shelves: dict[str, Shelf] = {}
        self._encoded: dict[tuple[str, int], msgspec.Raw] = {}
        self._encoded_for: tuple[Any, ...] = ()
        self._found: dict[tuple[Any, ...], list[int]] = {}
        self._found_at = -1

    def shelf(self, source: Source) -> Shelf:
        """The records of a source."""
        if source.name not in self._shelves:
            self._shelves[source.name] = Shelf(source, self.world)
        return self._shelves[source.name]

    def drift_is_due(self) -> bool:
        """Count one more later page; whether rows move before it is read."""
        self.later_pages += 1
        faults = self.faults
        if not faults.drift or self.later_pages % faults.drift:
            return False
        return not faults.drift_times or self.drifts < faults.drift_times

    def drift(self) -> Random:
        """Count one more drift; what chooses its rows."""
        self.drifts += 1
        return Random(f"{self.world.seed}/{self.drifts}")  # noqa: S311 - not a secret

    def follow(self, now: float) -> None:
        """Let everything happen that is due at `now`."""
        self.book.follow(int(now), late_share=self.faults.late_rows, late_seconds=self.faults.late_seconds)
        self._forget_changed()

    def touch(self, row: int) -> None:
        """Change a sid at this moment."""
        self.book.touch(row)
        self._forget_changed()

    def _forget_changed(self) -> None:
        if self.book.rebuilt:
            self._encoded.clear()
        else:
            for row in self.book.changed:
                for key in [("full", row), ("outstock", row)]:
                    self._encoded.pop(key, None)
        self.book.changed.clear()
        self.book.rebuilt = False

    def found(self, query: tuple[Any, ...], search: Callable[[], list[int]]) -> list[int]:
        """The keys that `search` finds, remembered for later pages until a row or a switch changes."""
        if self._found_at != self.book.revision or len(self._found) >= _CACHED_QUERIES:
            self._found.clear()
            self._found_at = self.book.revision
        if query not in self._found:
            self._found[query] = search()
        return self._found[query]

    def has_null_modified(self, n: int) -> bool:
        """Whether order `n` is one of those whose `modified` is null."""
        share = self.faults.null_modified
        return bool(share) and self.world.draws(n)[Draw.NULL_MODIFIED] < share * _WHOLE

    def has_future_times(self, n: int) -> bool:
        """Whether order `n` is one of those that say to have changed a year from now."""
        share = self.faults.future_times
        return bool(share) and self.world.draws(n)[Draw.WIDE] < share * _WHOLE

    def is_unseen_by_change(self, n: int) -> bool:
        """Whether queries by the time of change never return order `n`."""
        return self.has_null_modified(n) or self.has_future_times(n)

    def has_vanished(self, n: int) -> bool:
        """Whether order `n` is one of those that no longer exist."""
        share = self.faults.vanished
        # The buyer's draw decides details of the record only, never which orders there are.
        return bool(share) and self.world.draws(n)[Draw.BUYER] < share * _WHOLE

    def badness(self, n: int) -> str | None:
        """What is wrong with the record of order `n`: a switch's name, or None."""
        drawn = self.world.draws(n)[Draw.BAD] / _WHOLE
        for name in ("no_sid", "bad_time", "bad_amount"):
            drawn -= getattr(self.faults, name)
            if drawn < 0:
                return name
        return None

    def record(self, snap: Snapshot, flavour: str) -> Record:
        """A trade as it is served; `flavour` is `full` or `outstock`."""
        render = outstock_trade if flavour == "outstock" else full_trade
        record = render(self.world, snap, null_modified=self.has_null_modified(snap.n))
        record = odd(record, _TRADE, str(snap.row), self.faults, self.world.seed)
        record = reshaped(record, _TRADE, self.faults, snap.upd)
        if self.has_future_times(snap.n):
            record |= {"modified": (snap.modified + _YEAR) * 1000, "updTime": (snap.upd + _YEAR) * 1000}
        bad = self.badness(snap.n)
        if bad == "no_sid":
            del record["sid"]
        elif bad == "bad_time":
            record["payTime"] = "2026-13-45 99:00"
        elif bad == "bad_amount":
            record["payment"] = "12,3x"
        return record

    def encoded(self, row: int, flavour: str, call: Call) -> msgspec.Raw:
        """A trade as JSON bytes."""
        self._forget_outdated()
        known = self._encoded.get((flavour, row))
        if known is not None and not self.faults.shuffle_lines:
            return known
        return self._encode(row, flavour, call)

    def _forget_outdated(self) -> None:
        """Drop all rendered records when a switch changed what they say, or when they are too many."""
        faults = self.faults
        settings = (
            faults.null_modified, faults.no_sid, faults.bad_time, faults.bad_amount,
            faults.fuzz, faults.schema_change, faults.schema_change_at, faults.future_times,
        )  # fmt: skip
        if settings != self._encoded_for or len(self._encoded) >= _CACHED_RECORDS:
            self._encoded.clear()
            self._encoded_for = settings

    def encode_ahead(self, most: int) -> bool:
        """Render up to `most` records that the next page will probably need; whether there are more."""
        self._forget_outdated()
        for row, flavour in self.ahead[:most]:
            if (flavour, row) not in self._encoded and self.book.snapshot(row) is not None:
                self._encode(row, flavour, None)
        del self.ahead[:most]
        return bool(self.ahead)

    def _encode(self, row: int, flavour: str, call: Call | None) -> msgspec.Raw:
        snap = self.book.snapshot(row)
        if snap is None:  # the index only names rows that exist
            raise LookupError(f"row {row} is in the index and not in the world")
        record = self.record(snap, flavour)
        if self.faults.shuffle_lines and call is not None:
            Random(f"{call.number}/{row}").shuffle(record["orders"])  # noqa: S311 - not a secret
            return msgspec.Raw(msgspec.json.encode(record))
        made = msgspec.Raw(msgspec.json.encode(record))
        self._encoded[flavour, row] = made
        return made
