"""What a strategy's target makes of a mirrored record: the document, or the rows, that are written.

The record comes with the names and the forms that the gateway uses, so that the strategy's templates find
what they found on the platform: times are epoch milliseconds, or text where the gateway sends text, ids and
amounts are text, lines are under the list's own name. Amounts are fen where the gateway sends fen: a strategy
that writes yuan divides by itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from kuaimai.errors import DataError
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import decode_json, encode_json
from kuaimai.gateway.clock import GATEWAY_ZONE
from kuaimai.load.parts import LeftOut, Part
from kuaimai.load.statements import Following
from kuaimai.pipeline.qeasy.compiled import Compiled, Source, Statement, Target
from kuaimai.pipeline.qeasy.findings import Findings, near
from kuaimai.pipeline.qeasy.joining import Grouped, columns_of
from kuaimai.pipeline.qeasy.lookups import Lookups
from kuaimai.pipeline.qeasy.misfits import Origin
from kuaimai.pipeline.qeasy.moments import DATETIME, RunWindow, read_time, to_epoch
from kuaimai.pipeline.qeasy.names import lists_of, named, names_of, renamed
from kuaimai.pipeline.qeasy.rendering import UNFIT, render_writeback, render_writes, shape
from kuaimai.pipeline.qeasy.scope import is_variable
from kuaimai.transform.tables import Table

log = logging.getLogger(__name__)

DEFAULT_API = "kuaimai_write_api"


class Documents:
    """Makes what is written of each record: one document; a document of each flat row; or rows to be grouped.

    Args:
        compiled: a strategy with a source that is mirrored, and a target that is a write API or a statement.
        lookups: landed tables, for `_findCollection`.
        file: name of the strategy's file, for messages.
        now: clock, epoch seconds.
    """

    def __init__(
        self,
        compiled: Compiled,
        lookups: Lookups | None = None,
        *,
        file: str = "",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._origin = Origin(file, compiled.findings.places)
        self._source = compiled.source
        # How many documents share a request is the API's setting.
        self._target = None if compiled.target is None else replace(compiled.target, batch=None)
        self._lookups = lookups
        self._now = now

    def __call__(self, tables: Sequence[Table], record: Mapping[str, Any]) -> list[Part]:
        """Return what is written of a record.

        Args:
            tables: of the mirror, parent first.
            record: its columns as they are sent (`kuaimai.load.plain`), with its lines under their kind.

        Raises:
            LeftOut: the strategy's condition leaves it out, or a list whose elements are its rows is empty.
            DataError: it cannot be made.
        """
        now = datetime.fromtimestamp(self._now(), GATEWAY_ZONE)
        window = RunWindow(now, now, now)
        key = str(record[tables[0].key])
        shaped = shape(self._source, [as_sent(tables, record, renamed(self._source))], window)
        for one in shaped.bad:
            raise DataError(self._origin.tell(one.path, one.reason))
        if shaped.filtered and not shaped.rows:
            raise LeftOut("the strategy's condition leaves it out")
        if not shaped.rows:
            source = self._source
            lists = [*source.flat, *filter(None, [source.split])] if source else []
            raise LeftOut(f"its list {' and '.join(lists)} is empty")
        grouping = self._target.grouping if self._target else None
        if grouping is not None:
            rows = [(row_key, columns_of(row, grouping)) for row_key, row in shaped.rows]
            return self._parts(key, rows)
        writes, bad = render_writes(self._target, shaped.rows, window, self._lookups)
        for one in bad:
            raise DataError(self._origin.tell(one.path, one.reason))
        if self.statement is not None:
            # All rows of a record in one transaction.
            rows_of_all = [row for write in writes for row in write.params]
            return [Part(key, encode_json(rows_of_all))]
        return self._parts(key, [(write.keys[0], write.params) for write in writes])

    def _parts(self, record: str, rows: Sequence[tuple[str, Any]]) -> list[Part]:
        """Name the rows by their own keys; the one row of a record that is not split is the record."""
        source = self._source
        if source is None or not (source.flat or source.split):
            return [Part(record, encode_json(row)) for _, row in rows]
        # The strategy's key may be one that several records share, e.g. the number of the platform's order.
        named = [key if key.startswith(f"{record}-") else f"{record}/{key}" for key, _ in rows]
        twice = sorted({key for key in named if named.count(key) > 1})
        if twice:
            where = f"{source.path}id"
            told = f"{where}: two rows of the record have the key {twice[0]}"
            raise DataError(self._origin.tell(where, told))
        return [Part(key, encode_json(row)) for key, (_, row) in zip(named, rows, strict=True)]

    @property
    def statement(self) -> Statement | None:
        """The target's statement, where it is a database: documents are then lists of rows."""
        return self._target.statement if self._target else None

    @property
    def following(self) -> list[Following]:
        """The statements that follow it, for lines of a row."""
        further = self.statement.further if self.statement else ()
        return [Following(one.params.field.name, one.text, one.last) for one in further]

    @property
    def keep(self) -> Callable[[bytes], str | None] | None:
        """What takes out of an answer what the strategy keeps of it; None where it keeps nothing."""
        return self._kept if self._target is not None and self._target.writeback else None

    def _kept(self, answer: bytes) -> str | None:
        """The record was taken, whatever the answer looks like: one that cannot be read is told, no error."""
        target = self._target
        now = datetime.fromtimestamp(self._now(), GATEWAY_ZONE)
        try:
            said = decode_json(answer)
            found = render_writeback(target, said, RunWindow(now, now, now)) if target is not None else {}
        except UNFIT as err:
            log.warning("nothing is kept as primaryWriteback of an answer: %s", err)
            return None
        return encode_json(found).decode() if found else None

    @property
    def joins(self) -> Grouped | None:
        """What makes documents of the rows of several records, where the strategy groups them."""
        if self._target is None or self._target.grouping is None:
            return None
        return Grouped(self._target, self._target.grouping, self._lookups, origin=self._origin, now=self._now)


def as_sent(
    tables: Sequence[Table], record: Mapping[str, Any], names: Mapping[str, str] = {}
) -> dict[str, Any]:
    """Return a mirrored record with the gateway's names and forms; `names` are other names of its lists."""
    header, *children = tables
    made = _row(header, record)
    kind = catalog.record(header.name.removeprefix("kuaimai_"))
    for name, child_kind in kind.children.items():
        child = next((one for one in children if one.name == f"kuaimai_{child_kind}"), None)
        lines = record.get(child_kind)
        if child is not None and isinstance(lines, list):
            made[names.get(name, name)] = [_row(child, line) for line in lines]
    return made


def _row(table: Table, record: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for field, column in zip(table.fields, table.columns, strict=False):
        value = record.get(column.name)
        if column.type == "time" and value is not None:
            wall = read_time(value)
            value = None if wall is None else _instant(wall, field.form)
        elif field.type == "fen" and value is not None:
            value = _fen(value)
        # Which of its spellings the gateway uses differs by method, and so does the strategy's.
        made |= dict.fromkeys(field.spellings, value)
    return made


def _instant(wall: datetime, form: catalog.TimeForm | None) -> int | str:
    """Return a time in the form in which the gateway sends it."""
    if form == "text":
        return wall.strftime(DATETIME)
    milliseconds = to_epoch(wall) * 1000
    return str(milliseconds) if form == "digits" else milliseconds


def _fen(yuan: Any) -> str:
    """Return an amount in fen, as text; its digits are those of the yuan."""
    sign, digits, exponent = Decimal(yuan).as_tuple()
    fen = f"{Decimal((sign, digits, int(exponent) + 2)):f}"
    return fen.rstrip("0").rstrip(".") if "." in fen else fen


def outlet_of(compiled: Compiled, path: str, findings: Findings) -> dict[str, Any]:
    """Return the `targets` entry of a strategy's write API; what cannot be done goes to the findings."""
    source, target = compiled.source, compiled.target
    assert target is not None  # noqa: S101 - only asked for strategies that write
    _refuse_unsupported(compiled, target, findings)
    # A row whose id is known is dropped on the platform: each record is written once, and so it is here.
    id_check = source.id_check if source else True
    if target.kind == "sql":
        conn_id = target.connection or "kuaimai_target"
        return {
            "kind": "statement",
            "name": "statement",
            "conn_id": conn_id,
            "strategy": path,
            "id_check": id_check,
        }
    found: dict[str, Any] = {
        "kind": "http",
        "conn_id": target.connection or DEFAULT_API,
        "path": f"/{target.api.lstrip('/')}",
        "id_check": id_check,
        "strategy": path,
    }
    if target.batch is not None:
        found |= {"rows": min(target.batch.rows, 1000), "rows_key": target.batch.rows_key}
        if target.writeback and target.batch.rows > 1:
            findings.warn(
                f"{target.path}response",
                "primaryWriteback: rows of one request keep the whole answer, unless it is a list with an "
                "entry for each of them",
                "write rows 1, or a YAML pipeline with this strategy whose target says answers.rows",
            )
    given = compiled.strategy.target.other_response if compiled.strategy.target else {}
    if given.keys() & {"StatusKey", "StatusValue"} and compiled.answers is None:
        findings.warn(
            f"{target.path}otherResponse",
            "StatusKey and StatusValue belong together: so, only success: false in an answer is a refusal",
            'write both, e.g. "StatusKey": "code", "StatusValue": "200"',
        )
    return found


def _refuse_unsupported(compiled: Compiled, target: Target, findings: Findings) -> None:
    source = compiled.source
    if target.kind == "http" and target.verb != "POST":
        findings.cannot_run(
            f"{target.path}method", f"{target.verb}: documents are sent by POST", "write POST"
        )
    if "{" in target.api:
        findings.cannot_run(f"{target.path}api", "a path that differs by document", "write a fixed path")
    if source is not None:
        _check_arrays(source, findings)
    for field, value in target.document_values():
        for name in value.names():
            if is_variable(name):
                findings.cannot_run(
                    f"{field.path}.value",
                    f"{name}: a document is made again whenever its record changes, whatever the window",
                    "take a time of the record, or NOW() in a _function",
                )
    if target.writeback and target.kind == "http":
        findings.note(
            f"{target.path}response",
            "primaryWriteback is kept in the column writeback of kuaimai_delivery, in the coordination store",
            "join it by record_key",
        )
    elif target.writeback:
        findings.note(f"{target.path}response", "a statement has no answer, so nothing is kept of one")


def _check_arrays(source: Source, findings: Findings) -> None:
    """Rows are made of lists that the mirror has; of any other none would ever come."""
    kind = catalog.record(catalog.method(source.api).record or "")
    lists = [*lists_of(source), *(name for name, field in kind.fields.items() if field.type == "json")]
    places = [(f"beatFlat[{number}]", name) for number, name in enumerate(source.flat)]
    places += [("operation.arrayKey", source.split)] if source.split else []
    for where, name in places:
        if name not in lists:
            findings.cannot_run(
                f"{source.path}{where}", f"{source.api} returns no list {name!r}", near(name, lists)
            )


def check_usable(compiled: Compiled, kind: str, kept: Iterable[str], file: str) -> None:
    """Let a pipeline of one's own use a strategy's target, or say what speaks against it.

    Args:
        compiled: the strategy; of its source only what shapes rows is used.
        kind: of the pipeline's records.
        kept: personal fields that the pipeline keeps.
        file: the strategy's.

    Raises:
        ConfigError: every reason, with file, line and path.
    """
    source, target = compiled.source, compiled.target
    findings = Findings(compiled.findings.places)
    record = catalog.method(source.api).record if source and source.kind == "kuaimai" else kind
    if target is None or target.kind == "none":
        findings.cannot_run("", "it writes nothing", "name a strategy with a target that is written")
    elif source is not None and source.kind == "foreign":
        told = f"its source is {source.api}, whose fields are not those of {kind}"
        findings.cannot_run(f"{source.path}api", told, "delete the source, and name the fields of Kuaimai")
    elif source is not None and record != kind:
        told = f"it shapes records of {source.api} ({record}), and the pipeline reads {kind}"
        findings.cannot_run(f"{source.path}api", told, "delete the source, or name another strategy")
    else:
        against = compiled.findings.of("not_run")
        findings.found += [one for one in against if one.path.startswith(target.path)]
        _refuse_unsupported(compiled, target, findings)
        missing = sorted(set(personal_fields(compiled, kind)) - set(kept))
        if missing:
            findings.cannot_run(
                f"{target.path}request",
                f"{', '.join(missing)}: a person's data, which the pipeline drops, so it would be sent empty",
                f"add keep_personal: [{', '.join(missing)}] to the pipeline, or leave the fields out",
            )
    findings.check(file, "not_run")


def personal_fields(compiled: Compiled, of: str = "") -> list[str]:
    """Return the personal fields that a strategy's documents are made of: they have to be kept for that.

    Those that it sends, and those that decide what is sent: a condition on a dropped field would see nothing.

    Args:
        compiled: the strategy.
        of: the kind of record, where the strategy has no source that says it.
    """
    source, target = compiled.source, compiled.target
    if target is None or target.kind == "none" or (source is None and not of):
        return []
    known = names_of(source, of)
    fields = [known.field(name) for _, name in named(compiled)]
    return sorted({one.name for one in fields if one is not None and one.personal})
