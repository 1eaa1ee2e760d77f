"""How one kind of record becomes a row of its table: value by value, or column by column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, reduce
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kuaimai.gateway import catalog
from kuaimai.transform import filtering, unknown
from kuaimai.transform.composed_keys import ComposedKey
from kuaimai.transform.personal import looks_personal
from kuaimai.transform.plans import Plan
from kuaimai.transform.rows import row_schema
from kuaimai.transform.rules import Filter, Rules
from kuaimai.transform.tables import table_of
from kuaimai.transform.texts import STRANGE_NAME, Texts
from kuaimai.transform.versions import version_of

_NOTHING: Mapping[str, str] = MappingProxyType({})


@cache
def _no_keys() -> pa.Array:
    """True and false are no key, though they are text in any other id."""
    return pa.array(["true", "false"])


class Shape:
    """How one kind of record becomes a row: value by value, or column by column."""

    def __init__(self, kind: catalog.Record, rules: Rules, filters: Sequence[Filter] = ()) -> None:
        self.kind = kind
        self.filters = filters
        self.evolves = rules.policy == "evolve"
        self.table = table_of(kind, rules)
        self.schema = row_schema(self.table)
        self.known = {name for one in kind.fields.values() for name in (one.name, *one.aliases)}
        self.plans = [Plan.of(one, kind, rules) for one in self.table.fields]
        looked_at = dict.fromkeys(condition.field for one in filters for condition in one.conditions)
        self.looked_at = [Plan.of(kind.fields[name], kind, rules, plain=True) for name in looked_at]
        # These must fit whatever the policy is.
        self.firm = {kind.key, kind.parent_key, *kind.key_of, *kind.version}
        names = [one.name for one in self.table.fields]
        self._composed = ComposedKey(kind.key_of, kind.key, self.table.fields) if kind.key_of else None
        self.key_position = names.index(kind.key)
        self.version_positions = [names.index(name) for name in kind.version if name in names]
        spellings = dict.fromkeys(
            name
            for one in (*self.plans, *self.looked_at)
            for name in one.spellings
            if not (kind.key_of and one.name == kind.key)
        )
        self.texts = Texts(self.known, list(spellings))

    @property
    def new(self) -> dict[str, str]:
        """Fields that the catalogue does not know and that get columns, in the order they were met in."""
        return self.texts.new

    def take(self, names: Iterable[str]) -> None:
        """Give columns to fields that the catalogue does not know, where the pipeline evolves.

        What may be a person's data gets none, and neither does a name that the decoder cannot be told.
        """
        if not self.evolves:
            return
        for name in sorted(set(names) - self.new.keys()):
            if not (looks_personal(name) or STRANGE_NAME.search(name)):
                taken = {column.name for column in self.table.columns} | set(self.new.values())
                self.new[name] = unknown.column_of(name, taken)

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
            pages: as `Texts.joined` returns them.
            count: how many records they hold.
            parent: of lines, their parents' keys.
            owners: of lines, which record each lies in; one that came twice has its lines twice.
            given: see `Mapper.map_answers`.
        """
        by_name = self.texts.split(pages)
        misfits: list[pa.Array] = []
        found = []
        for plan in self.plans:
            if parent is not None and plan.name == self.kind.parent_key:
                found.append(parent)
            elif self._composed and plan.name == self.kind.key:
                found.append(None)
            else:
                found.append(plan.column(by_name, given, misfits))
        if self._composed:
            found[self.key_position] = self._composed.column(found, owners)
        misfits.append(pc.is_null(found[self.key_position]))
        if not self._composed:
            misfits.append(pc.is_in(by_name[self.kind.key], value_set=_no_keys()))
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
        looked_at = {plan.name: plan.column(by_name, given, misfits) for plan in self.looked_at}
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
        if self._composed:
            self._composed.compose([row])
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
        return version_of(record, self.kind) or 0

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
            if self._composed:
                self._composed.compose(rows)
            for row in rows:
                self._check_key(row)
        except ValueError as err:
            raise ValueError(f"{where}.{err}") from None
        misfits += [f"{where}.{name}" for name in own]
        return [(tuple(row), new) for row, new in zip(rows, more, strict=True)]
