"""From raw records to columns, with everything bad set aside whole.

Records are taken a few thousand at a time and converted column by column (`kuaimai.transform.columns`). A
record that does not fit, or that only tolerant reading can decode, goes the slow way alone: value by value,
with the reason. Both ways give the same rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import reduce
from types import MappingProxyType
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import astuple

from kuaimai.extract.details import REFUSED
from kuaimai.extract.skim import LONGEST_KEY, record_key
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, encode_json
from kuaimai.gateway.catalog import NUMBER, FieldType
from kuaimai.transform import columns, filtering, steps, unknown
from kuaimai.transform.drift import Seen
from kuaimai.transform.fields import ARROW_TYPES, CONVERTERS, to_epoch_ms
from kuaimai.transform.personal import KEPT, Kept, looks_personal
from kuaimai.transform.rules import Filter, Rules
from kuaimai.transform.tables import CHILD_COUNT, VERSION, Table, table_of, with_columns

# Where a row came from among the records of its batch: decides between equal versions of one key.
_POSITION = "_position"
# Positions of neighbouring answers are so far apart; no answer holds as many records.
_FAR = 1_000_000
_NULL = msgspec.Raw(b"null")
# True and false are no key, though they are text in any other id.
_NO_KEYS = pa.array(["true", "false"])
# Before the name of a column that the catalogue does not know, so that it meets no other.
_NEW = "+"
_NOTHING: Mapping[str, str] = MappingProxyType({})
_NOT_DECODED = (msgspec.DecodeError, UnicodeError, RecursionError)
# Such names cannot be told to the decoder; nobody has seen one.
_STRANGE_NAME = re.compile(r'[\x00-\x1f"\\\ud800-\udfff]')


def row_schema(table: Table) -> pa.Schema:
    """A row's own columns, then its version, its children and its position."""
    # A step's columns come later.
    own = [pa.field(column.name, ARROW_TYPES[column.type]) for column in table.columns[: len(table.fields)]]
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
    _more: list[Mapping[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of rows, older versions included."""
        whole: int = sum(part.num_rows for part in self._parts)
        return whole + len(self._single)

    def add(
        self,
        values: tuple[Any, ...],
        version: int,
        children: int | None,
        position: int,
        more: Mapping[str, str] = _NOTHING,
    ) -> None:
        """Add one row: its own values, what goes with them in the batch, and columns that are new."""
        self._single.append((*values, version, children, position))
        self._more.append(more)

    def extend(self, part: pa.Table) -> None:
        """Add rows with the columns of `row_schema`, and those that are new behind them."""
        self._parts.append(part)

    def newest(self) -> pa.Table:
        """Return the newest row of each key, sorted so that concurrent loads never wait in a circle."""
        schema = row_schema(self.table)
        parts = list(self._parts)
        if self._single:
            arrays = [
                pa.array(values, part.type)
                for values, part in zip(zip(*self._single, strict=True), schema, strict=True)
            ]
            single = pa.Table.from_arrays(arrays, schema=schema)
            for name in sorted({name for more in self._more for name in more}):
                texts = pa.array([more.get(name) for more in self._more], pa.string())
                single = single.append_column(_NEW + name, texts)
            parts.append(single)
        rows = pa.concat_tables([schema.empty_table(), *parts], promote_options="default").combine_chunks()
        return _newest(rows, self.table.key)

    def to_arrow(self, *, rank: int, window_id: str) -> pa.Table:
        """Return the rows as a batch."""
        return as_batch(self.newest(), self.table, rank=rank, window_id=window_id)


def as_batch(rows: pa.Table, table: Table, *, rank: int, window_id: str) -> pa.Table:
    """Return rows as a batch: the table's columns, those that are new, and what goes with them."""
    count = rows.num_rows
    own = [_array(rows, column.name) for column in table.columns]
    new = sorted(name for name in rows.schema.names if name.startswith(_NEW))
    more = [_array(rows, name) for name in new]
    arrays = [
        *own,
        *more,
        _array(rows, VERSION),
        pa.repeat(pa.scalar(rank, pa.int16()), count),
        _with_new(columns.fingerprints(own), new, more),
        pa.repeat(pa.scalar(window_id, pa.string()), count),
        *([] if table.parent else [_array(rows, CHILD_COUNT)]),
    ]
    schema = table.batch_schema
    for at, name in enumerate(new, start=len(own)):
        schema = schema.insert(at, pa.field(name.removeprefix(_NEW), pa.string()))
    return pa.Table.from_arrays(arrays, schema=schema)


def _with_new(fingerprints: pa.Array, names: Sequence[str], more: Sequence[pa.Array]) -> pa.Array:
    """Return the fingerprints with the new columns in them; where a row has none of these, they stay."""
    if not names:
        return fingerprints
    said = [
        pc.fill_null(pc.binary_join_element_wise(name, one, "\x00", "="), "")
        for name, one in zip(names, more, strict=True)
    ]
    texts = pc.binary_join_element_wise(*said, "")
    return pc.if_else(pc.equal(texts, ""), fingerprints, columns.fingerprints([fingerprints, texts]))


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
    texts: list[tuple[bytes, int]] = field(default_factory=list)


@dataclass
class _Taken:
    """What is kept of a batch's pages until its columns are made: positions and JSON texts of the records."""

    children: list[_Lines]
    positions: list[int] = field(default_factory=list)
    texts: list[tuple[bytes, int]] = field(default_factory=list)


class Mapper:
    """Maps the records of one kind, and their children, into rows.

    Args:
        record: name of the record kind.
        rules: what becomes of fields and records; without them every field that is no person's lands.

    Attributes:
        unknown_fields: fields that the catalogue does not know, children's as `<list>.<field>`.
        misfits: fields that had a value which does not fit their type and went into a column of its own.
        filtered: records that a filter passed over, or a step left out: key → reason.
        filled: field that has a column → how many records, or lines, had a value in it.
    """

    def __init__(self, record: str, rules: Rules | None = None) -> None:
        self.kind = catalog.record(record)
        self.rules = rules or Rules()
        self.header = _Shape(self.kind, self.rules, filters=self.rules.filters)
        self.children = {
            list_field: _Shape(catalog.record(name), self.rules)
            for list_field, name in self.kind.children.items()
        }
        self.unknown_fields: set[str] = set()
        self.misfits: set[str] = set()
        self.filtered: dict[str, str] = {}
        self.filled: dict[str, int] = {}
        self._records = 0
        self._functions: dict[str, steps.Function] = {}
        self._decoder = self._make_decoder()

    @property
    def tables(self) -> list[Table]:
        """The target tables, parent first."""
        return [self.header.table, *(shape.table for shape in self.children.values())]

    def map(
        self,
        records: Iterable[dict[str, Any]],
        into: list[Rows],
        position: int = 0,
        given: Mapping[str, str] = _NOTHING,
    ) -> list[BadRecord]:
        """Add the rows of `records` to `into` (parent first) and return the records that do not fit.

        The slow way, value by value. A record lands whole or not at all: one bad line sends its whole order
        to quarantine.
        """
        bad = []
        for number, sent in enumerate(records, start=position):
            record = _completed(sent, given)
            key = record_key(record, self.kind)
            try:
                met = self.header.met(record)
                if met is None:
                    mapped = self._map_one(record)
            except ValueError as err:
                self._note_misfit(str(err))
                bad.append(BadRecord(key, str(err), record))
                continue
            if met is not None:
                if met.set_aside:
                    bad.append(BadRecord(key, met.reason, record))
                else:
                    self.filtered[key] = met.reason
                continue
            for rows, found in zip(into, mapped, strict=True):
                for values, version, children, more in found:
                    rows.add(values, version, children, number, more)
        return bad

    def map_answers(
        self,
        answers: Sequence[Answer],
        list_keys: Sequence[str],
        into: list[Rows],
        position: int = 0,
        given: Mapping[str, str] = _NOTHING,
    ) -> list[BadRecord]:
        """Do what `map` does for the records of whole answers, column by column.

        Args:
            answers: pages, in their order.
            list_keys: names under which the records may be.
            into: as for `map`.
            position: number of the first record.
            given: ids that the records were asked for by, by field; for records that leave them out.

        Raises:
            DataError: an answer holds something else than a list of records.
        """
        try:
            return self._map_columns(answers, list_keys, into, position, given)
        except pa.ArrowInvalid:
            # A text that Arrow cannot take apart; find the page that holds it.
            bad = []
            for number, answer in enumerate(answers):
                first = position + number * _FAR
                if len(answers) > 1:
                    bad += self.map_answers([answer], list_keys, into, first, given)
                else:
                    bad += self.map(answer.rows(list_keys), into, first, given)
            return bad

    def _map_columns(
        self,
        answers: Sequence[Answer],
        list_keys: Sequence[str],
        into: list[Rows],
        position: int,
        given: Mapping[str, str],
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
        parts, misfits = self._parts(taken, given)
        for at in misfits:
            answer = answers[(at - position) // _FAR]
            slow[at] = answer.rows(list_keys)[(at - position) % _FAR]
        for rows, part in zip(into, parts, strict=True):
            rows.extend(part)
        return [bad for at in sorted(slow) for bad in self.map([slow[at]], into, at, given)]

    def _decode(self, answer: Answer, list_keys: Sequence[str]) -> list[Any]:
        """Return a page's records: as structs of JSON texts, or as dicts where one is too odd for that."""
        text = answer.rows_text(list_keys)
        if text is None:
            return answer.rows(list_keys)
        try:
            return _listed(self._decoder.decode(text))
        except _NOT_DECODED:
            rows = answer.rows(list_keys)
        if self._learn(rows) and self.rules.policy != "quarantine":
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

    def _note(self, record: dict[str, Any]) -> set[str]:
        """Note, and return, the fields of a record that the catalogue does not know."""
        own = record.keys() - self.header.known - self.children.keys()
        self.header.take(own)
        strange = set(map(_shown, own))
        for list_field, shape in self.children.items():
            found = record.get(list_field)
            for line in found if isinstance(found, list) else ():
                if isinstance(line, dict):
                    names = line.keys() - shape.known
                    shape.take(names)
                    strange |= {f"{list_field}.{_shown(name)}" for name in names}
        self.unknown_fields |= strange
        return strange

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
            taken.texts.append(self.header.joined(records))
        for number, (shape, into) in enumerate(zip(self.children.values(), taken.children, strict=True)):
            lists = [getattr(record, f"list{number}") for record in records]
            into.counts += [None if lines is None else len(lines) for lines in lists]
            flat = [line for lines in lists for line in lines or ()]
            if flat:
                into.texts.append(shape.joined(flat))

    def _parts(self, taken: _Taken, given: Mapping[str, str]) -> tuple[list[pa.Table], list[int]]:
        """Return one table of rows per target table, and the positions of the records that do not fit."""
        size = len(taken.positions)
        own, more, met, bad = self.header.columns(taken.texts, size, given=given)
        keys = own[self.header.key_position]
        versions = self.header.versions(own)
        at = pa.array(taken.positions, pa.int64())
        counts: list[int | None] = [0 if self.children else None] * size
        children = []
        for shape, lines in zip(self.children.values(), taken.children, strict=True):
            counts = [
                None if held is None or sent is None else held + sent
                for held, sent in zip(counts, lines.counts, strict=True)
            ]
            of_lines = [place for place, sent in enumerate(lines.counts) for _ in range(sent or 0)]
            parents = pa.array(of_lines, pa.int64())
            columns_, new, _, bad_lines = shape.columns(
                lines.texts, len(parents), parent=keys.take(parents), owners=parents
            )
            bad = pc.or_(bad, pc.is_in(_numbers(size), pc.filter(parents, bad_lines)))
            children.append((shape, columns_, new, parents))
        good = pc.invert(bad)
        if met is not None:
            good = self._left_out(good, met, keys)
        header = [*own, versions, pa.array(counts, pa.int32()), at]
        tables = [_part(header, self.header.schema, more).filter(good)]
        for shape, columns_, new, parents in children:
            nothing = pa.nulls(len(parents), pa.int32())
            part = [*columns_, versions.take(parents), nothing, at.take(parents)]
            tables.append(_part(part, shape.schema, new).filter(good.take(parents)))
        return tables, pc.filter(at, bad).to_pylist()

    def _left_out(self, good: pa.Array, met: pa.Array, keys: pa.Array) -> pa.Array:
        """Note the good records that meet a filter, and return the mask of those that meet none."""
        passed_over = pc.and_(good, pc.is_valid(met))
        for key, number in zip(
            pc.filter(keys, passed_over).to_pylist(), pc.filter(met, passed_over).to_pylist(), strict=True
        ):
            self.filtered[key] = self.rules.filters[number].reason
        return pc.and_not(good, passed_over)

    def _note_misfit(self, reason: str) -> None:
        """Note the field that a reason begins with."""
        path = reason.partition(": ")[0]
        list_field, _, name = path.rpartition(".")
        shape = self.children.get(list_field) if list_field else self.header
        if shape and any(plan.name == name for plan in shape.plans):
            self.misfits.add(path)

    def seen(self, method: str) -> Seen:
        """Return what was seen of the fields since the last time, and forget it.

        Args:
            method: API method that the records came from.
        """
        columns_of = {"": self.header.new}
        columns_of |= {f"{name}.": shape.new for name, shape in self.children.items()}
        unknown_fields = {}
        for path in self.unknown_fields:
            list_field, dot, name = path.rpartition(".")
            prefix = list_field + dot
            unknown_fields[path] = columns_of[prefix].get(name, "") if prefix in columns_of else ""
        if self.rules.policy == "evolve":
            shapes = {"": self.header, **{f"{name}.": shape for name, shape in self.children.items()}}
            for prefix, shape in shapes.items():
                for one, column in zip(shape.table.fields, shape.table.columns, strict=False):
                    if prefix + one.name in self.misfits:
                        unknown_fields[prefix + one.name + unknown.AS_SENT] = column.name + unknown.AS_SENT
        found = Seen(
            method=method,
            records=self._records,
            filled=self.filled,
            unknown=unknown_fields,
            misfits=tuple(sorted(self.misfits)),
        )
        # The decoder knows them by now, and would not notice them again.
        self.filled, self.misfits, self._records = {}, set(), 0
        return found

    def tables_with(self, new: Mapping[str, str]) -> list[Table]:
        """Return the target tables, with the columns of fields beyond the catalogue: field → column."""
        made = []
        for prefix, shape in [("", self.header), *((f"{name}.", one) for name, one in self.children.items())]:
            mine = {
                column
                for field, column in new.items()
                if field.startswith(prefix) and "." not in field[len(prefix) :] and column
            }
            made.append(with_columns(shape.table, sorted(mine)))
        return made

    def batches(self, into: Sequence[Rows], *, rank: int, window_id: str) -> list[pa.Table]:
        """Return the rows as batches, parent first: the newest of each key, after the user's steps.

        Raises:
            ConfigError: a step failed, or returned something that cannot be stored.
        """
        made: list[pa.Table] = []
        gone = pa.array([], pa.string())
        shapes = [("", self.header), *((f"{name}.", shape) for name, shape in self.children.items())]
        for (prefix, shape), rows in zip(shapes, into, strict=True):
            found = rows.newest()
            if shape.table.parent and len(gone):
                owners = found.column(shape.table.parent)
                found = found.filter(pc.invert(pc.is_in(owners, value_set=gone)))
            self._count_filled(prefix, shape, found)
            self._records += 0 if shape.table.parent else found.num_rows
            step = self.rules.steps.get(shape.kind.name)
            if step and found.num_rows:
                if step.run not in self._functions:
                    self._functions[step.run] = steps.find(step)
                before = found
                key = shape.table.key
                after = steps.run(step, self._functions[step.run], shape.table, before)
                found = _stepped(before, after, key)
                if not shape.table.parent:
                    left = pc.is_in(before.column(key), value_set=_array(found, key))
                    gone = _array(before.filter(pc.invert(left)), key)
                    self.filtered.update(dict.fromkeys(gone.to_pylist(), f"step {step.run}"))
            elif step:
                for name, kind in step.columns.items():
                    found = found.append_column(name, pa.nulls(0, ARROW_TYPES[kind]))
            made.append(as_batch(found, shape.table, rank=rank, window_id=window_id))
        return made

    def _count_filled(self, prefix: str, shape: _Shape, rows: pa.Table) -> None:
        for one, column in zip(shape.table.fields, shape.table.columns, strict=False):
            count = rows.num_rows - rows.column(column.name).null_count
            path = prefix + one.name
            self.filled[path] = self.filled.get(path, 0) + count

    def _map_one(self, record: dict[str, Any]) -> list[list[_Row]]:
        strange = self._note(record)
        if strange and self.rules.policy == "quarantine":
            raise ValueError(f"fields that the catalogue does not know: {', '.join(sorted(strange))}")
        misfits: list[str] = []
        more: dict[str, str] = {}
        key, values = self.header.values(record, more, misfits)
        version = self.header.version(record)
        sent = 0 if self.children else None
        lines: list[list[_Row]] = []
        for list_field, shape in self.children.items():
            found = record.get(list_field)
            if found is None:
                # Left out is not empty: lines that are stored already stay.
                sent = None
                lines.append([])
                continue
            if isinstance(found, dict) and REFUSED in found:
                raise ValueError(f"{list_field}: {found[REFUSED]}")
            if not isinstance(found, list):
                raise ValueError(f"{list_field}: a {type(found).__name__} where a list belongs")
            lines.append(
                [(values, version, None, new) for values, new in shape.lines(found, key, list_field, misfits)]
            )
            sent = sent + len(found) if sent is not None else None
        self.misfits.update(misfits)
        return [[(values, version, sent, more)], *lines]


# A row on its way: values, version, how many children were sent, columns that are new.
_Row = tuple[tuple[Any, ...], int, int | None, Mapping[str, str]]


@dataclass(frozen=True)
class _Plan:
    """How one field is read: its spellings, its type, what stands for nothing, what hides a person's data."""

    name: str
    spellings: tuple[str, ...]
    type: FieldType
    default: Any
    keep: Callable[[str | None], str | None] | None

    @classmethod
    def of(cls, one: catalog.Field, kind: catalog.Record, rules: Rules, *, plain: bool = False) -> _Plan:
        """The plan for a field of a kind of record; `plain` for what filters look at."""
        rule = rules.of(kind.name, one.name)
        keep = None if plain else KEPT.get(rule.keep or "")
        sent = kind.fields[one.name].type
        wanted: FieldType = rule.type or sent
        if keep:
            wanted = "json" if sent == "json" else "text"
        return cls(one.name, (one.name, *one.aliases), wanted, rule.default, keep)

    def value(self, record: Mapping[str, Any]) -> Any:
        """Return the value of one record.

        Raises:
            ValueError: it does not fit.
        """
        sent = next((record[name] for name in self.spellings if record.get(name) is not None), None)
        if isinstance(sent, Kept):  # what it was, which filters look at, is not known
            return sent.text if self.keep else None
        try:
            value = CONVERTERS[self.type](sent)
        except ValueError as err:
            raise ValueError(f"{self.name}: {err}") from None
        value = self.default if value is None else value
        return self.keep(value) if self.keep else value

    def column(self, texts: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        """Return the values of a column of JSON texts, and a mask of those that do not fit."""
        values, misfit = columns.convert(self.type, texts)
        if self.default is not None:
            values = pc.fill_null(values, pa.scalar(self.default, values.type))
        if self.keep:
            values = pa.array([self.keep(one) for one in values.to_pylist()], pa.string())
        return values, misfit


class _Shape:
    """How one kind of record becomes a row: value by value, or column by column."""

    def __init__(self, kind: catalog.Record, rules: Rules, filters: Sequence[Filter] = ()) -> None:
        self.kind = kind
        self.filters = filters
        self.evolves = rules.policy == "evolve"
        self.table = table_of(kind, rules)
        self.schema = row_schema(self.table)
        self.known = {name for one in kind.fields.values() for name in (one.name, *one.aliases)}
        self.plans = [_Plan.of(one, kind, rules) for one in self.table.fields]
        looked_at = dict.fromkeys(condition.field for one in filters for condition in one.conditions)
        self.looked_at = [_Plan.of(kind.fields[name], kind, rules, plain=True) for name in looked_at]
        # These must fit whatever the policy is.
        self.firm = {kind.key, kind.parent_key, *kind.key_of, *kind.version}
        # Fields that the catalogue does not know and that get columns, in the order in which they were met.
        self.new: dict[str, str] = {}
        names = [one.name for one in self.table.fields]
        # The parts of a key that is made of several fields, by position; None stands for a line's number.
        self.key_parts = [None if name == NUMBER else names.index(name) for name in kind.key_of]
        self.key_position = names.index(kind.key)
        self.version_positions = [names.index(name) for name in kind.version if name in names]
        self.spellings = list(
            dict.fromkeys(
                name
                for one in (*self.plans, *self.looked_at)
                for name in one.spellings
                if not (kind.key_of and one.name == kind.key)
            )
        )

    def take(self, names: Iterable[str]) -> None:
        """Give columns to fields that the catalogue does not know, where the pipeline evolves.

        What may be a person's data gets none, and neither does a name that the decoder cannot be told.
        """
        if not self.evolves:
            return
        for name in sorted(set(names) - self.new.keys()):
            if not (looks_personal(name) or _STRANGE_NAME.search(name)):
                taken = {column.name for column in self.table.columns} | set(self.new.values())
                self.new[name] = unknown.column_of(name, taken)

    def struct(self, passed: Iterable[str], lists: Mapping[str, Any]) -> type[msgspec.Struct]:
        """A struct that takes the fields' JSON texts, the lists, and passes over other fields that are known.

        A field that nobody knows makes decoding fail, so that it is noticed.
        """
        # `columns` counts on the texts being first.
        names = {f"text{number}": name for number, name in enumerate([*self.spellings, *self.new])}
        width = len(names)
        names |= {f"list{number}": name for number, name in enumerate(lists)}
        rest = sorted((self.known | set(passed)) - set(names.values()))
        names |= {f"rest{number}": name for number, name in enumerate(rest) if not _STRANGE_NAME.search(name)}
        fields: list[Any] = [
            (attribute, lists[name], None) if name in lists else (attribute, msgspec.Raw, _NULL)
            for attribute, name in names.items()
        ]
        return msgspec.defstruct(
            "Row",
            fields,
            namespace={"width": width},
            rename=names,
            forbid_unknown_fields=True,
            gc=False,
            kw_only=True,
        )

    def joined(self, records: Sequence[Any]) -> tuple[bytes, int]:
        """Return the JSON texts of a page's records, new fields included, and how many each has."""
        width = len(self.spellings) + len(self.new)
        # Of a page that was decoded before a field was met, the records have fewer texts.
        rows = [
            astuple(record)[:width]
            if record.width == width
            else (*astuple(record)[: record.width], *[_NULL] * (width - record.width))
            for record in records
        ]
        return columns.join_rows(rows), width

    def _texts(self, pages: Sequence[tuple[bytes, int]]) -> dict[str, pa.Array]:
        """Return the columns of JSON texts by spelling, new fields included."""
        names = [*self.spellings, *self.new]
        texts = [columns.widened(text, len(names) - width) for text, width in pages]
        return dict(zip(names, columns.split_rows(texts, len(names)), strict=True))

    def columns(
        self,
        pages: Sequence[tuple[bytes, int]],
        count: int,
        parent: pa.Array | None = None,
        owners: pa.Array | None = None,
        given: Mapping[str, str] = _NOTHING,
    ) -> tuple[list[pa.Array], dict[str, pa.Array], pa.Array | None, pa.Array]:
        """Return the table's columns, those that are new, the filter that each record meets, and the misfits.

        Records that meet a filter which sets them aside are among the misfits, for the slow way to say why.

        Args:
            pages: as `joined` returns them.
            count: how many records they hold.
            parent: of lines, their parents' keys.
            owners: of lines, which record each lies in; one that came twice has its lines twice.
            given: see `map_answers`.
        """
        by_name = self._texts(pages)
        misfits: list[pa.Array] = []
        found = []
        for plan in self.plans:
            if parent is not None and plan.name == self.kind.parent_key:
                found.append(parent)
            elif self.key_parts and plan.name == self.kind.key:
                found.append(None)
            else:
                found.append(_column(plan, by_name, given, misfits))
        if self.key_parts:
            found[self.key_position] = self._keys(found, owners)
        misfits.append(pc.is_null(found[self.key_position]))
        if not self.key_parts:
            misfits.append(pc.is_in(by_name[self.kind.key], value_set=_NO_KEYS))
        more = {}
        for name, column in self.new.items():
            if by_name[name].null_count < count:
                more[column], misfit = unknown.loose(by_name[name])
                misfits.append(misfit)
        met = self._met(by_name, given, misfits)
        return found, more, met, reduce(pc.or_, misfits)

    def _met(
        self, by_name: Mapping[str, pa.Array], given: Mapping[str, str], misfits: list[pa.Array]
    ) -> pa.Array | None:
        """Return the number of the filter that each record meets; None where there are no filters."""
        if not self.filters:
            return None
        looked_at = {plan.name: _column(plan, by_name, given, misfits) for plan in self.looked_at}
        met = filtering.met(self.filters, looked_at, len(misfits[0]))
        aside = [number for number, one in enumerate(self.filters) if one.set_aside]
        misfits.append(pc.is_in(met, value_set=pa.array(aside, met.type)))
        return met

    def met(self, record: Mapping[str, Any]) -> Filter | None:
        """Return the filter that a record meets.

        Raises:
            ValueError: a field that a filter looks at does not fit its type.
        """
        if not self.filters:
            return None
        return filtering.first_met(self.filters, {plan.name: plan.value(record) for plan in self.looked_at})

    def _keys(self, found: Sequence[pa.Array], owners: pa.Array | None) -> pa.Array:
        """Return the column of a key that several fields make together."""
        named = [at for at in self.key_parts if at is not None]
        parts = list(zip(*(_as_text(found[at]).to_pylist() for at in named), strict=True))
        inside = [None] * len(parts) if owners is None else owners.to_pylist()
        others = [column for at, column in enumerate(found) if at != self.key_position]
        keys = self._composed(parts, inside, lambda: columns.fingerprints(others).to_pylist())
        return pa.array(keys, pa.string())

    def _composed(
        self,
        parts: Sequence[tuple[str | None, ...]],
        owners: Sequence[int | None],
        contents: Callable[[], Sequence[str]],
    ) -> list[str | None]:
        """Return the keys that several fields make together; None where all of them are missing.

        The number of a line counts the lines of its parent that agree in all other parts, in the order of
        their content: lists come in another order at every call.

        Args:
            parts: of each row, what its fields give to its key.
            owners: of each row, which record it lies in.
            contents: gives a text for each row that is the same for the same content.
        """
        numbers = [0] * len(parts)
        if None in self.key_parts:
            same: dict[Any, list[int]] = {}
            for row, one in enumerate(zip(owners, parts, strict=True)):
                same.setdefault(one, []).append(row)
            if len(same) < len(parts):
                texts = contents()
                for rows in same.values():
                    for number, row in enumerate(sorted(rows, key=texts.__getitem__)):
                        numbers[row] = number
        keys: list[str | None] = []
        for number, given in zip(numbers, parts, strict=True):
            fields = iter(given)
            texts = [str(number) if at is None else next(fields) or "" for at in self.key_parts]
            joined = "/".join(texts)
            keys.append(joined if any(given) and len(joined) <= LONGEST_KEY else None)
        return keys

    def _compose(self, rows: Sequence[list[Any]]) -> None:
        """Put the keys that several fields make together into rows of one parent."""
        named = [at for at in self.key_parts if at is not None]
        parts = [tuple(None if row[at] is None else str(row[at]) for at in named) for row in rows]

        def contents() -> Sequence[str]:
            by_column = [
                pa.array([row[at] for row in rows], ARROW_TYPES[one.type])
                for at, one in enumerate(self.table.fields)
                if at != self.key_position
            ]
            texts: list[str] = columns.fingerprints(by_column).to_pylist()
            return texts

        for row, key in zip(rows, self._composed(parts, [None] * len(rows), contents), strict=True):
            row[self.key_position] = key
            self._check_key(row)

    def _check_key(self, row: Sequence[Any]) -> str:
        key: str | None = row[self.key_position]
        if not key:
            raise ValueError(f"{self.kind.key}: the key is missing")
        return key

    def versions(self, found: list[pa.Array]) -> pa.Array:
        """The column for `version`."""
        stamps = [found[position].cast(pa.int64()) for position in self.version_positions]
        none = pa.repeat(pa.scalar(0, pa.int64()), len(found[0]))
        return pc.coalesce(*stamps, none)

    def values(
        self, record: dict[str, Any], more: dict[str, str], misfits: list[str]
    ) -> tuple[str, tuple[Any, ...]]:
        """Return the key and all values of one record, in column order.

        Args:
            record: as the gateway sent it.
            more: is given what goes into columns that are new.
            misfits: is given the fields whose value went there because it does not fit.

        Raises:
            ValueError: a value does not fit, or there is no key.
        """
        row = self._converted(record, more, misfits)
        if self.key_parts:
            self._compose([row])
        return self._check_key(row), tuple(row)

    def _converted(self, record: dict[str, Any], more: dict[str, str], misfits: list[str]) -> list[Any]:
        """Return the values of one record; a key that several fields make is left out."""
        values: list[Any] = []
        if isinstance(record.get(self.kind.key), bool):
            raise ValueError(f"{self.kind.key}: true or false where a key belongs")
        for plan, column in zip(self.plans, self.table.columns, strict=False):
            try:
                values.append(plan.value(record))
            except ValueError:
                if not self.evolves or plan.name in self.firm or plan.keep:
                    raise
                sent = next(record[name] for name in plan.spellings if record.get(name) is not None)
                more[column.name + unknown.AS_SENT] = unknown.to_loose(sent) or ""
                misfits.append(plan.name)
                values.append(None)
        for name, column_name in self.new.items():
            text = unknown.to_loose(record.get(name))
            if text is not None:
                more[column_name] = text
        return values

    def version(self, record: dict[str, Any]) -> int:
        """The instant of the record's last change, epoch ms; 0 where the record names none."""
        for name in self.kind.version:
            stamp = to_epoch_ms(record.get(name))
            if stamp is not None:
                return stamp
        return 0

    def lines(
        self, found: Sequence[Any], parent: str, where: str, misfits: list[str]
    ) -> list[tuple[tuple[Any, ...], dict[str, str]]]:
        """Return the values of a parent's lines, each with the parent's key, and what is new in them."""
        strange = next((line for line in found if not isinstance(line, dict)), found)
        if strange is not found:
            raise ValueError(f"{where}: a {type(strange).__name__} where a line belongs")
        own: list[str] = []
        more: list[dict[str, str]] = [{} for _ in found]
        try:
            rows = [
                self._converted({**line, self.kind.parent_key or "": parent}, new, own)
                for line, new in zip(found, more, strict=True)
            ]
            if self.key_parts:
                self._compose(rows)
            for row in rows:
                self._check_key(row)
        except ValueError as err:
            raise ValueError(f"{where}.{err}") from None
        misfits += [f"{where}.{name}" for name in own]
        return [(tuple(row), new) for row, new in zip(rows, more, strict=True)]


def _shown(name: str) -> str:
    """Return a name that nobody expected as text that can be stored."""
    return ascii(name) if _STRANGE_NAME.search(name) else name


def _as_text(column: pa.Array) -> pa.Array:
    """Return a part of a key as text; an instant is its epoch ms, as `to_epoch_ms` gives it."""
    return (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).cast(pa.string())


def _completed(record: dict[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Return a record with the ids that it was asked for by, where it leaves them out."""
    absent = {name: value for name, value in given.items() if record.get(name) is None}
    return {**record, **absent} if absent else record


def _column(
    plan: _Plan, by_name: Mapping[str, pa.Array], given: Mapping[str, str], misfits: list[pa.Array]
) -> pa.Array:
    """Return a field's values; `misfits` is given the mask of those that do not fit."""
    spelt = [by_name[name] for name in plan.spellings]
    if plan.name in given:
        spelt.append(pa.scalar(encode_json(given[plan.name]).decode()))
    values, misfit = plan.column(pc.coalesce(*spelt) if len(spelt) > 1 else spelt[0])
    if misfit is not None:
        misfits.append(misfit)
    return values


def _part(arrays: Sequence[pa.Array], schema: pa.Schema, more: Mapping[str, pa.Array]) -> pa.Table:
    part = pa.Table.from_arrays(list(arrays), schema=schema)
    for name, values in more.items():
        part = part.append_column(_NEW + name, values)
    return part


def _stepped(before: pa.Table, after: pa.Table, key: str) -> pa.Table:
    """Return the rows that a step returned, in the order of before, with what went with them."""
    at = pc.index_in(_array(after, key), value_set=_array(before, key))
    order = pc.sort_indices(at)
    at, after = at.take(order), after.take(order)
    for name in before.schema.names:
        if name not in after.schema.names:
            after = after.append_column(name, _array(before, name).take(at))
    return after


def _listed(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]


def _no(count: int) -> pa.Array:
    return pc.is_null(pa.repeat(pa.scalar(0), count))


def _numbers(count: int) -> pa.Array:
    return pa.array(range(count), pa.int64())
