"""Rows of one table on their way to a batch: the newest of each key, sorted, with a fingerprint each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kuaimai.transform import columns
from kuaimai.transform.batches import ARROW_TYPES, batch_schema
from kuaimai.transform.tables import CHILD_COUNT, VERSION, Table

# Where a row came from among the records of its batch: decides between equal versions of one key.
_POSITION = "_position"
# Before the name of a column that the catalogue does not know, so that it meets no other.
_NEW = "+"
_NOTHING: Mapping[str, str] = MappingProxyType({})


def row_schema(table: Table) -> pa.Schema:
    """A row's own columns, then its version, its children and its position."""
    # A step's columns come later.
    own = [pa.field(column.name, ARROW_TYPES[column.type]) for column in table.columns[: len(table.fields)]]
    added = [(VERSION, pa.int64()), (CHILD_COUNT, pa.int32()), (_POSITION, pa.int64())]
    return pa.schema([*own, *(pa.field(*one) for one in added)])


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
        rows = pa.concat_tables(parts or [schema.empty_table()], promote_options="default")
        return _newest(rows.combine_chunks(), self.table.key)

    def to_arrow(self, *, rank: int, window_id: str) -> pa.Table:
        """Return the rows as a batch."""
        return as_batch(self.newest(), self.table, rank=rank, window_id=window_id)


def part_of(arrays: Sequence[pa.Array], schema: pa.Schema, more: Mapping[str, pa.Array]) -> pa.Table:
    """Return rows for `Rows.extend`: the columns of `row_schema`, and behind them those that are new."""
    part = pa.Table.from_arrays(list(arrays), schema=schema)
    for name, values in more.items():
        part = part.append_column(_NEW + name, values)
    return part


def as_batch(rows: pa.Table, table: Table, *, rank: int, window_id: str) -> pa.Table:
    """Return rows as a batch: the table's columns, those that are new, and what goes with them."""
    count = rows.num_rows
    own = [array_of(rows, column.name) for column in table.columns]
    new = sorted(name for name in rows.schema.names if name.startswith(_NEW))
    more = [array_of(rows, name) for name in new]
    arrays = [
        *own,
        *more,
        array_of(rows, VERSION),
        pa.repeat(pa.scalar(rank, pa.int16()), count),
        _with_new(columns.fingerprints(own), new, more),
        pa.repeat(pa.scalar(window_id, pa.string()), count),
        *([] if table.parent else [array_of(rows, CHILD_COUNT)]),
    ]
    schema = batch_schema(table)
    for at, name in enumerate(new, start=len(own)):
        schema = schema.insert(at, pa.field(name.removeprefix(_NEW), pa.string()))
    return pa.Table.from_arrays(arrays, schema=schema)


def as_before(before: pa.Table, after: pa.Table, key: str) -> pa.Table:
    """Return the rows that a step returned, in the order of before, with what went with them."""
    at = pc.index_in(array_of(after, key), value_set=array_of(before, key))
    order = pc.sort_indices(at)
    at, after = at.take(order), after.take(order)
    for name in before.schema.names:
        if name not in after.schema.names:
            after = after.append_column(name, array_of(before, name).take(at))
    return after


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


def array_of(rows: pa.Table, name: str) -> pa.Array:
    """Return a column in one piece."""
    chunked = rows.column(name)
    return chunked.chunk(0) if chunked.num_chunks == 1 else chunked.combine_chunks()


def _newest(rows: pa.Table, key: str) -> pa.Table:
    """Sort by key; of each key keep the newest version, of equal versions the one that came last."""
    order = [(key, "ascending"), (VERSION, "ascending"), (_POSITION, "ascending")]
    if pc.count_distinct(rows.column(key)).as_py() == rows.num_rows:
        return rows.take(pc.sort_indices(rows.column(key)))
    rows = rows.take(pc.sort_indices(rows, order))
    keys = array_of(rows, key)
    last = pa.concat_arrays([pc.not_equal(keys[1:], keys[:-1]), pa.array([True])])
    return rows.filter(last)
