"""From raw records to columns, with everything bad set aside whole.

Records are taken a few thousand at a time and converted column by column (`kuaimai.transform.columns`). A
record that does not fit, or that only tolerant reading can decode, goes the slow way alone: value by value,
with the reason. Both ways give the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from kuaimai.extract.details import REFUSED
from kuaimai.extract.skim import record_key
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, encode_json
from kuaimai.transform import steps, unknown
from kuaimai.transform.batches import ARROW_TYPES
from kuaimai.transform.drift import Seen
from kuaimai.transform.rows import Rows, array_of, as_batch, as_before, part_of
from kuaimai.transform.rules import Rules
from kuaimai.transform.shapes import Shape
from kuaimai.transform.tables import Table, with_columns
from kuaimai.transform.texts import STRANGE_NAME
from kuaimai.transform.versions import FOR_EVER, believed, believed_versions

# Positions of neighbouring answers are so far apart; no answer holds as many records.
_FAR = 1_000_000
_NOTHING: Mapping[str, str] = MappingProxyType({})
_NOT_DECODED = (msgspec.DecodeError, UnicodeError, RecursionError)


@dataclass(frozen=True)
class BadRecord:
    """A record that cannot be stored: its key, what is wrong with which field, and the record itself."""

    key: str
    reason: str
    record: dict[str, Any]


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
        read_from: when their reading began, epoch ms: a version that lies a day after it is not believed.
    """

    def __init__(self, record: str, rules: Rules | None = None) -> None:
        self.kind = catalog.record(record)
        self.rules = rules or Rules()
        self.header = Shape(self.kind, self.rules, filters=self.rules.filters)
        self.children = {
            list_field: Shape(catalog.record(name), self.rules)
            for list_field, name in self.kind.children.items()
        }
        self.unknown_fields: set[str] = set()
        self.misfits: set[str] = set()
        self.filtered: dict[str, str] = {}
        self.filled: dict[str, int] = {}
        self.read_from = FOR_EVER
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
            lists[list_field] = list[shape.texts.struct(passed, {})] | None  # type: ignore[misc]
        row = self.header.texts.struct(self.unknown_fields, lists)
        return msgspec.json.Decoder(row | list[row])  # type: ignore[valid-type]

    def _take(self, records: Sequence[msgspec.Struct], taken: _Taken) -> None:
        """Keep of a page's records the texts alone: as objects they would need several times as much."""
        if records:
            taken.texts.append(self.header.texts.joined(records))
        for number, (shape, into) in enumerate(zip(self.children.values(), taken.children, strict=True)):
            lists = [getattr(record, f"list{number}") for record in records]
            into.counts += [None if lines is None else len(lines) for lines in lists]
            flat = [line for lines in lists for line in lines or ()]
            if flat:
                into.texts.append(shape.texts.joined(flat))

    def _parts(self, taken: _Taken, given: Mapping[str, str]) -> tuple[list[pa.Table], list[int]]:
        """Return one table of rows per target table, and the positions of the records that do not fit."""
        size = len(taken.positions)
        own, more, met, bad = self.header.columns(taken.texts, size, given=given)
        keys = own[self.header.key_position]
        versions = believed_versions(self.header.versions(own), self.read_from)
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
        tables = [part_of(header, self.header.schema, more)]
        for shape, columns_, new, parents in children:
            nothing = pa.nulls(len(parents), pa.int32())
            part = [*columns_, versions.take(parents), nothing, at.take(parents)]
            tables.append(part_of(part, shape.schema, new))
        if not pc.all(good, skip_nulls=False).as_py():
            masks = [good, *(good.take(parents) for *_, parents in children)]
            tables = [table.filter(mask) for table, mask in zip(tables, masks, strict=True)]
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
                found = as_before(before, after, key)
                if not shape.table.parent:
                    left = pc.is_in(before.column(key), value_set=array_of(found, key))
                    gone = array_of(before.filter(pc.invert(left)), key)
                    self.filtered.update(dict.fromkeys(gone.to_pylist(), f"step {step.run}"))
            elif step:
                for name, kind in step.columns.items():
                    found = found.append_column(name, pa.nulls(0, ARROW_TYPES[kind]))
            made.append(as_batch(found, shape.table, rank=rank, window_id=window_id))
        return made

    def _count_filled(self, prefix: str, shape: Shape, rows: pa.Table) -> None:
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
        version = believed(self.header.version(record), self.read_from)
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


def _shown(name: str) -> str:
    """Return a name that nobody expected as text that can be stored."""
    return ascii(name) if STRANGE_NAME.search(name) else name


def _completed(record: dict[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Return a record with the ids that it was asked for by, where it leaves them out."""
    absent = {name: value for name, value in given.items() if record.get(name) is None}
    return {**record, **absent} if absent else record


def _listed(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]


def _numbers(count: int) -> pa.Array:
    return pa.array(range(count), pa.int64())
