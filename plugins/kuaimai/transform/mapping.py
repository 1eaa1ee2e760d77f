"""From raw records to columns, record by record, with everything bad set aside whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from kuaimai.extract.skim import record_key
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import encode_json
from kuaimai.transform.fields import CONVERTERS, to_epoch_ms
from kuaimai.transform.tables import Table, table_of


@dataclass(frozen=True)
class BadRecord:
    """A record that cannot be stored: its key, what is wrong with which field, and the record itself."""

    key: str
    reason: str
    record: dict[str, Any]


@dataclass
class Rows:
    """Rows of one table, as value tuples in column order, by key; the newest version of a key stays.

    Attributes:
        table: where they belong.
        by_key: key → (version, values, content hash, number of children).
    """

    table: Table
    by_key: dict[str, tuple[int, tuple[Any, ...], str, int | None]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.by_key)

    def add(self, key: str, version: int, values: tuple[Any, ...], children: int | None = None) -> None:
        """Keep a row unless a newer version of its key is already here."""
        held = self.by_key.get(key)
        if held is None or held[0] <= version:
            self.by_key[key] = (version, values, content_hash(values), children)

    def to_arrow(self, *, rank: int, window_id: str) -> pa.Table:
        """Return the rows as a batch, sorted by key so that concurrent loads never wait in a circle."""
        ordered = [self.by_key[key] for key in sorted(self.by_key)]
        schema = self.table.batch_schema
        count = len(ordered)
        columns: list[Sequence[Any]] = list(zip(*(values for _, values, _, _ in ordered), strict=True))
        if not count:
            columns = [()] * len(self.table.columns)
        columns += [
            [version for version, _, _, _ in ordered],
            [rank] * count,
            [digest for _, _, digest, _ in ordered],
            [window_id] * count,
        ]
        if self.table.parent is None:
            columns.append([children for _, _, _, children in ordered])
        arrays = [pa.array(column, part.type) for column, part in zip(columns, schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=schema)


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

    @property
    def tables(self) -> list[Table]:
        """The target tables, parent first."""
        return [self.header.table, *(shape.table for shape in self.children.values())]

    def map(self, records: Iterable[dict[str, Any]], into: list[Rows]) -> list[BadRecord]:
        """Add the rows of `records` to `into` (parent first) and return the records that do not fit.

        A record lands whole or not at all: one bad line sends its whole order to quarantine.
        """
        bad = []
        for record in records:
            try:
                mapped = self._map_one(record)
            except ValueError as err:
                bad.append(BadRecord(record_key(record, self.kind.key), str(err), record))
                continue
            for rows, found in zip(into, mapped, strict=True):
                for row in found:
                    rows.add(*row)
        return bad

    def _map_one(self, record: dict[str, Any]) -> list[list[tuple[str, int, tuple[Any, ...], int | None]]]:
        self.unknown_fields.update(record.keys() - self.header.known - self.children.keys())
        key, values = self.header.values(record)
        version = self.header.version(record)
        sent = 0 if self.children else None
        lines: list[list[tuple[str, int, tuple[Any, ...], int | None]]] = []
        for list_field, shape in self.children.items():
            found = record.get(list_field)
            if found is None:
                # Left out is not empty: lines that are stored already stay.
                sent = None
                lines.append([])
                continue
            if not isinstance(found, list):
                raise ValueError(f"{list_field}: a {type(found).__name__} where a list belongs")
            lines.append([shape.child(line, key, version, list_field) for line in found])
            sent = len(found) if sent is not None else None
            for line in found:
                self.unknown_fields.update(f"{list_field}.{name}" for name in line.keys() - shape.known)
        return [[(key, version, values, sent)], *lines]


class _Shape:
    """How one kind of record becomes a value tuple."""

    def __init__(self, kind: catalog.Record, keep_personal: Iterable[str]) -> None:
        self.kind = kind
        self.table = table_of(kind, keep_personal)
        self.known = {name for one in kind.fields.values() for name in (one.name, *one.aliases)}
        self.converters = [(one.name, one.aliases, CONVERTERS[one.type]) for one in self.table.fields]
        self.key_position = [one.name for one in self.table.fields].index(kind.key)

    def values(self, record: dict[str, Any]) -> tuple[str, tuple[Any, ...]]:
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

    def child(
        self, line: Any, parent: str, version: int, where: str
    ) -> tuple[str, int, tuple[Any, ...], int | None]:
        """A line carries its parent's key and version: it changes when its order does."""
        if not isinstance(line, dict):
            raise ValueError(f"{where}: a {type(line).__name__} where a line belongs")
        try:
            key, values = self.values({**line, self.kind.parent_key or "": parent})
        except ValueError as err:
            raise ValueError(f"{where}.{err}") from None
        return key, version, values, None


def content_hash(values: tuple[Any, ...]) -> str:
    """Return the fingerprint of a row's own columns: equal fingerprints need no write."""
    return hashlib.blake2b(encode_json(values), digest_size=12).hexdigest()
