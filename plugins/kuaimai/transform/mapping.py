"""From raw records to columns, with everything bad set aside whole.

Records are taken a few thousand at a time and converted column by column (`kuaimai.transform.columns`). A
record that does not fit, or that only tolerant reading can decode, goes the slow way alone: value by value,
with the reason. Both ways give the same rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import astuple

from kuaimai.extract.skim import record_key
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, encode_json
from kuaimai.transform import columns
from kuaimai.transform.fields import ARROW_TYPES, CONVERTERS, to_epoch_ms
from kuaimai.transform.tables import CHILD_COUNT, VERSION, Table, table_of

# Where a row came from among the records of its batch: decides between equal versions of one key.
_POSITION = "_position"
# Positions of neighbouring answers are so far apart; no answer holds as many records.
_FAR = 1_000_000
_NULL = msgspec.Raw(b"null")
_NOT_DECODED = (msgspec.DecodeError, UnicodeError, RecursionError)
# Such names cannot be told to the decoder; nobody has seen one.
_STRANGE_NAME = re.compile(r'[\x00-\x1f"\\\ud800-\udfff]')


def row_schema(table: Table) -> pa.Schema:
    """A row's own columns, then its version, its children and its position."""
    own = [pa.field(column.name, ARROW_TYPES[column.type]) for column in table.columns]
    added = [(VERSION, pa.int64()), (CHILD_COUNT, pa.int32()), (_POSITION, pa.int64())]
    return pa.schema([*own, *(pa.field(*one) for one in added)])


@dataclass(frozen=True)
class BadRecord:
    """A record that cannot be stored: its key, what is wrong with which field, and the record itself."""

    key: str
    reason: str
    record: dict[str, Any]


@dataclass
class Rows:
    """Rows of one table on their way to a batch; the newest version of a key stays.

    Attributes:
        table: where they belong.
    """

    table: Table
    _parts: list[pa.Table] = field(default_factory=list)
    _single: list[tuple[Any, ...]] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of rows, older versions included."""
        whole: int = sum(part.num_rows for part in self._parts)
        return whole + len(self._single)

    def add(self, values: tuple[Any, ...], version: int, children: int | None, position: int) -> None:
        """Add one row: its own values, and what goes with them in the batch."""
        self._single.append((*values, version, children, position))

    def extend(self, part: pa.Table) -> None:
        """Add rows with the columns of `row_schema`."""
        self._parts.append(part)

    def to_arrow(self, *, rank: int, window_id: str) -> pa.Table:
        """Return the rows as a batch, sorted by key so that concurrent loads never wait in a circle."""
        schema = row_schema(self.table)
        parts = list(self._parts)
        if self._single:
            arrays = [
                pa.array(values, part.type)
                for values, part in zip(zip(*self._single, strict=True), schema, strict=True)
            ]
            parts.append(pa.Table.from_arrays(arrays, schema=schema))
        rows = pa.concat_tables([schema.empty_table(), *parts]).combine_chunks()
        rows = _newest(rows, self.table.key)
        count = rows.num_rows
        own = [_array(rows, column.name) for column in self.table.columns]
        arrays = [
            *own,
            _array(rows, VERSION),
            pa.repeat(pa.scalar(rank, pa.int16()), count),
            columns.fingerprints(own),
            pa.repeat(pa.scalar(window_id, pa.string()), count),
            *([] if self.table.parent else [_array(rows, CHILD_COUNT)]),
        ]
        return pa.Table.from_arrays(arrays, schema=self.table.batch_schema)


def _array(rows: pa.Table, name: str) -> pa.Array:
    chunked = rows.column(name)
    return chunked.chunk(0) if chunked.num_chunks == 1 else chunked.combine_chunks()


def _newest(rows: pa.Table, key: str) -> pa.Table:
    """Sort by key; of each key keep the newest version, of equal versions the one that came last."""
    order = [(key, "ascending"), (VERSION, "ascending"), (_POSITION, "ascending")]
    if pc.count_distinct(rows.column(key)).as_py() == rows.num_rows:
        return rows.take(pc.sort_indices(rows.column(key)))
    rows = rows.take(pc.sort_indices(rows, order))
    keys = _array(rows, key)
    last = pa.concat_arrays([pc.not_equal(keys[1:], keys[:-1]), pa.array([True])])
    return rows.filter(last)


@dataclass
class _Lines:
    """The children in one list field: how many each record sent (None: no list), and their JSON texts."""

    counts: list[int | None] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)


@dataclass
class _Taken:
    """What is kept of a batch's pages until its columns are made: positions and JSON texts of the records."""

    children: list[_Lines]
    positions: list[int] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)


class Mapper:
    """Maps the records of one kind, and their children, into rows.

    Args:
        record: name of the record kind.
        keep_personal: personal fields to keep by name.
    """

    def __init__(self, record: str, keep_personal: Iterable[str] = ()) -> None:
        self.kind = catalog.record(record)
        self.keep_personal = frozenset(keep_personal)
        self.header = _Shape(self.kind, self.keep_personal)
        self.children = {
            list_field: _Shape(catalog.record(name), self.keep_personal)
            for list_field, name in self.kind.children.items()
        }
        self.unknown_fields: set[str] = set()
        self._decoder = self._make_decoder()

    @property
    def tables(self) -> list[Table]:
        """The target tables, parent first."""
        return [self.header.table, *(shape.table for shape in self.children.values())]

    def map(self, records: Iterable[dict[str, Any]], into: list[Rows], position: int = 0) -> list[BadRecord]:
        """Add the rows of `records` to `into` (parent first) and return the records that do not fit.

        The slow way, value by value. A record lands whole or not at all: one bad line sends its whole order
        to quarantine.
        """
        bad = []
        for number, record in enumerate(records, start=position):
            try:
                mapped = self._map_one(record)
            except ValueError as err:
                bad.append(BadRecord(record_key(record, self.kind.key), str(err), record))
                continue
            for rows, found in zip(into, mapped, strict=True):
                for values, version, children in found:
                    rows.add(values, version, children, number)
        return bad

    def map_answers(
        self, answers: Sequence[Answer], list_keys: Sequence[str], into: list[Rows], position: int = 0
    ) -> list[BadRecord]:
        """Do what `map` does for the records of whole answers, column by column.

        Args:
            answers: pages, in their order.
            list_keys: names under which the records may be.
            into: as for `map`.
            position: number of the first record.

        Raises:
            DataError: an answer holds something else than a list of records.
        """
        try:
            return self._map_columns(answers, list_keys, into, position)
        except pa.ArrowInvalid:
            # A text that Arrow cannot take apart; find the page that holds it.
            bad = []
            for number, answer in enumerate(answers):
                first = position + number * _FAR
                if len(answers) > 1:
                    bad += self.map_answers([answer], list_keys, into, first)
                else:
                    bad += self.map(answer.rows(list_keys), into, first)
            return bad

    def _map_columns(
        self, answers: Sequence[Answer], list_keys: Sequence[str], into: list[Rows], position: int
    ) -> list[BadRecord]:
        taken = _Taken(children=[_Lines() for _ in self.children])
        slow: dict[int, dict[str, Any]] = {}
        for number, answer in enumerate(answers):
            found = self._decode(answer, list_keys)
            records: list[msgspec.Struct] = []
            for at, one in enumerate(found, start=position + number * _FAR):
                if isinstance(one, dict):
                    slow[at] = one
                else:
                    records.append(one)
                    taken.positions.append(at)
            self._take(records, taken)
        parts, misfits = self._parts(taken)
        for at in misfits:
            answer = answers[(at - position) // _FAR]
            slow[at] = answer.rows(list_keys)[(at - position) % _FAR]
        for rows, part in zip(into, parts, strict=True):
            rows.extend(part)
        return [bad for at in sorted(slow) for bad in self.map([slow[at]], into, at)]

    def _decode(self, answer: Answer, list_keys: Sequence[str]) -> list[Any]:
        """Return a page's records: as structs of JSON texts, or as dicts where one is too odd for that."""
        text = answer.rows_text(list_keys)
        if text is None:
            return answer.rows(list_keys)
        try:
            return _listed(self._decoder.decode(text))
        except _NOT_DECODED:
            rows = answer.rows(list_keys)
        if self._learn(rows):
            self._decoder = self._make_decoder()
        try:
            return _listed(self._decoder.decode(text))
        except _NOT_DECODED:
            pass
        found: list[Any] = list(rows)
        for number, one in enumerate(rows):
            with suppress(*_NOT_DECODED):
                found[number] = self._decoder.decode(encode_json(one))
        return found

    def _learn(self, records: list[dict[str, Any]]) -> bool:
        """Note fields that the catalogue does not know; tell whether there are new ones."""
        before = len(self.unknown_fields)
        for record in records:
            self._note(record)
        return len(self.unknown_fields) > before

    def _note(self, record: dict[str, Any]) -> None:
        self.unknown_fields.update(record.keys() - self.header.known - self.children.keys())
        for list_field, shape in self.children.items():
            found = record.get(list_field)
            for line in found if isinstance(found, list) else ():
                if isinstance(line, dict):
                    self.unknown_fields.update(f"{list_field}.{name}" for name in line.keys() - shape.known)

    def _make_decoder(self) -> msgspec.json.Decoder[Any]:
        lists: dict[str, Any] = {}
        for list_field, shape in self.children.items():
            start = f"{list_field}."
            passed = [name[len(start) :] for name in self.unknown_fields if name.startswith(start)]
            lists[list_field] = list[shape.struct(passed, {})] | None  # type: ignore[misc]
        row = self.header.struct(self.unknown_fields, lists)
        return msgspec.json.Decoder(row | list[row])  # type: ignore[valid-type]

    def _take(self, records: Sequence[msgspec.Struct], taken: _Taken) -> None:
        """Keep of a page's records the texts alone: as objects they would need several times as much."""
        if records:
            taken.texts.append(self.header.texts(records))
        for number, (shape, into) in enumerate(zip(self.children.values(), taken.children, strict=True)):
            lists = [getattr(record, f"list{number}") for record in records]
            into.counts += [None if lines is None else len(lines) for lines in lists]
            flat = [line for lines in lists for line in lines or ()]
            if flat:
                into.texts.append(shape.texts(flat))

    def _parts(self, taken: _Taken) -> tuple[list[pa.Table], list[int]]:
        """Return one table of rows per target table, and the positions of the records that do not fit."""
        size = len(taken.positions)
        own, bad = self.header.columns(taken.texts, size)
        keys = own[self.header.key_position]
        versions = self.header.versions(own)
        at = pa.array(taken.positions, pa.int64())
        counts: list[int | None] = [0 if self.children else None] * size
        children = []
        for shape, lines in zip(self.children.values(), taken.children, strict=True):
            counts = [
                None if held is None or more is None else held + more
                for held, more in zip(counts, lines.counts, strict=True)
            ]
            of_lines = [place for place, more in enumerate(lines.counts) for _ in range(more or 0)]
            parents = pa.array(of_lines, pa.int64())
            columns_, bad_lines = shape.columns(lines.texts, len(parents), parent=keys.take(parents))
            bad = pc.or_(bad, pc.is_in(_numbers(size), pc.filter(parents, bad_lines)))
            children.append((shape, columns_, parents))
        good = pc.invert(bad)
        header = [*own, versions, pa.array(counts, pa.int32()), at]
        tables = [pa.Table.from_arrays(header, schema=self.header.schema).filter(good)]
        for shape, columns_, parents in children:
            nothing = pa.nulls(len(parents), pa.int32())
            part = [*columns_, versions.take(parents), nothing, at.take(parents)]
            tables.append(pa.Table.from_arrays(part, schema=shape.schema).filter(good.take(parents)))
        return tables, pc.filter(at, bad).to_pylist()

    def _map_one(self, record: dict[str, Any]) -> list[list[tuple[tuple[Any, ...], int, int | None]]]:
        self._note(record)
        key, values = self.header.values(record)
        version = self.header.version(record)
        sent = 0 if self.children else None
        lines: list[list[tuple[tuple[Any, ...], int, int | None]]] = []
        for list_field, shape in self.children.items():
            found = record.get(list_field)
            if found is None:
                # Left out is not empty: lines that are stored already stay.
                sent = None
                lines.append([])
                continue
            if not isinstance(found, list):
                raise ValueError(f"{list_field}: a {type(found).__name__} where a list belongs")
            lines.append([(shape.child(line, key, list_field), version, None) for line in found])
            sent = sent + len(found) if sent is not None else None
        return [[(values, version, sent)], *lines]


class _Shape:
    """How one kind of record becomes a row: value by value, or column by column."""

    def __init__(self, kind: catalog.Record, keep_personal: Iterable[str]) -> None:
        self.kind = kind
        self.table = table_of(kind, keep_personal)
        self.schema = row_schema(self.table)
        self.known = {name for one in kind.fields.values() for name in (one.name, *one.aliases)}
        self.converters = [(one.name, one.aliases, CONVERTERS[one.type]) for one in self.table.fields]
        names = [one.name for one in self.table.fields]
        self.key_position = names.index(kind.key)
        self.version_positions = [names.index(name) for name in kind.version if name in names]
        self.spellings = list(
            dict.fromkeys(name for one in self.table.fields for name in (one.name, *one.aliases))
        )

    def struct(self, passed: Iterable[str], lists: Mapping[str, Any]) -> type[msgspec.Struct]:
        """A struct that takes the fields' JSON texts, the lists, and passes over other fields that are known.

        A field that nobody knows makes decoding fail, so that it is noticed.
        """
        # `columns` counts on the texts being first.
        names = {f"text{number}": name for number, name in enumerate(self.spellings)}
        names |= {f"list{number}": name for number, name in enumerate(lists)}
        rest = sorted((self.known | set(passed)) - set(names.values()))
        names |= {f"rest{number}": name for number, name in enumerate(rest) if not _STRANGE_NAME.search(name)}
        fields: list[Any] = [
            (attribute, lists[name], None) if name in lists else (attribute, msgspec.Raw, _NULL)
            for attribute, name in names.items()
        ]
        return msgspec.defstruct(
            "Row", fields, rename=names, forbid_unknown_fields=True, gc=False, kw_only=True
        )

    def texts(self, records: Sequence[msgspec.Struct]) -> bytes:
        """Return the fields' JSON texts, for `columns`."""
        width = len(self.spellings)
        return columns.join_rows([astuple(record)[:width] for record in records])

    def columns(
        self, joined: Sequence[bytes], count: int, parent: pa.Array | None = None
    ) -> tuple[list[pa.Array], pa.Array]:
        """Return the table's columns of so many records, and a mask of those that do not fit it."""
        texts = columns.split_rows(joined, len(self.spellings))
        by_name = dict(zip(self.spellings, texts, strict=True))
        bad = _no(count)
        found = []
        for one in self.table.fields:
            if parent is not None and one.name == self.kind.parent_key:
                found.append(parent)
                continue
            spelt = [by_name[name] for name in (one.name, *one.aliases)]
            values, misfit = columns.convert(one.type, pc.coalesce(*spelt) if one.aliases else spelt[0])
            found.append(values)
            if misfit is not None:
                bad = pc.or_(bad, misfit)
        return found, pc.or_(bad, pc.is_null(found[self.key_position]))

    def versions(self, found: list[pa.Array]) -> pa.Array:
        """The column for `version`."""
        stamps = [found[position].cast(pa.int64()) for position in self.version_positions]
        none = pa.repeat(pa.scalar(0, pa.int64()), len(found[0]))
        return pc.coalesce(*stamps, none)

    def values(self, record: dict[str, Any]) -> tuple[str, tuple[Any, ...]]:
        """Return the key and all values of one record, in column order."""
        values = []
        for name, aliases, convert in self.converters:
            value = record.get(name)
            if value is None and aliases:
                value = next((record[alias] for alias in aliases if record.get(alias) is not None), None)
            try:
                values.append(convert(value))
            except ValueError as err:
                raise ValueError(f"{name}: {err}") from None
        key = values[self.key_position]
        if not key:
            raise ValueError(f"{self.kind.key}: the key is missing")
        return key, tuple(values)

    def version(self, record: dict[str, Any]) -> int:
        """The instant of the record's last change, epoch ms; 0 where the record names none."""
        for name in self.kind.version:
            stamp = to_epoch_ms(record.get(name))
            if stamp is not None:
                return stamp
        return 0

    def child(self, line: Any, parent: str, where: str) -> tuple[Any, ...]:
        """A line carries its parent's key."""
        if not isinstance(line, dict):
            raise ValueError(f"{where}: a {type(line).__name__} where a line belongs")
        try:
            _, values = self.values({**line, self.kind.parent_key or "": parent})
        except ValueError as err:
            raise ValueError(f"{where}.{err}") from None
        return values


def _listed(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]


def _no(count: int) -> pa.Array:
    return pc.is_null(pa.repeat(pa.scalar(0), count))


def _numbers(count: int) -> pa.Array:
    return pa.array(range(count), pa.int64())
