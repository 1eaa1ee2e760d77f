"""How one field is read: for a record alone, and for a column of JSON texts, with the same values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kuaimai.gateway import catalog
from kuaimai.gateway.answers import encode_json
from kuaimai.gateway.catalog import FieldType
from kuaimai.transform import columns
from kuaimai.transform.fields import CONVERTERS
from kuaimai.transform.personal import KEPT, Kept
from kuaimai.transform.rules import Rules


@dataclass(frozen=True)
class Plan:
    """How one field is read: its spellings, its type, what stands for nothing, what hides a person's data."""

    name: str
    spellings: tuple[str, ...]
    type: FieldType
    default: Any
    keep: Callable[[str | None], str | None] | None

    @classmethod
    def of(cls, one: catalog.Field, kind: catalog.Record, rules: Rules, *, plain: bool = False) -> Plan:
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

    def column(
        self, by_name: Mapping[str, pa.Array], given: Mapping[str, str], misfits: list[pa.Array]
    ) -> pa.Array:
        """Return the values of many records.

        Args:
            by_name: the columns of JSON texts, by spelling.
            given: ids that the records were asked for by, by field; for records that leave them out.
            misfits: is given the mask of those that do not fit.
        """
        spelt = [by_name[name] for name in self.spellings]
        if self.name in given:
            spelt.append(pa.scalar(encode_json(given[self.name]).decode()))
        values, misfit = self._convert(pc.coalesce(*spelt) if len(spelt) > 1 else spelt[0])
        if misfit is not None:
            misfits.append(misfit)
        return values

    def _convert(self, texts: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        """Return the values of a column of JSON texts, and a mask of those that do not fit."""
        values, misfit = columns.convert(self.type, texts)
        if self.default is not None:
            values = pc.fill_null(values, pa.scalar(self.default, values.type))
        if self.keep:
            values = pa.array([self.keep(one) for one in values.to_pylist()], pa.string())
        return values, misfit
