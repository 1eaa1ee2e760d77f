"""What a pipeline does to records on their way, once it is checked: plain values for the mapper to follow.

`kuaimai.pipeline.shape` makes them from a pipeline file; nothing here can be wrong any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from kuaimai.gateway.catalog import FieldType

Keep = Literal["plain", "hash", "mask"]
Policy = Literal["evolve", "freeze", "quarantine"]
Test = Literal["one_of", "none_of", "below", "at_most", "above", "at_least", "empty", "filled"]


@dataclass(frozen=True)
class FieldRule:
    """What becomes of one field.

    Attributes:
        column: its column; None for the catalogue's.
        type: what it is converted to; None for the catalogue's type.
        default: stands where the source sends nothing, as `kuaimai.transform.fields` gives values of its type
            (instants are epoch ms); None for no default.
        drop: it gets no column.
        keep: a person's data becomes a column all the same: as it is, as a SHA-256, or masked.
    """

    column: str | None = None
    type: FieldType | None = None
    default: Any = None
    drop: bool = False
    keep: Keep | None = None


@dataclass(frozen=True)
class Condition:
    """A test of one field of the record, after its type and default and before hash and mask.

    A field without a value passes `none_of` and `empty` only.

    Attributes:
        field: as the API spells it.
        test: which one.
        values: what is compared with, as `kuaimai.transform.fields` gives values of the field's type.
    """

    field: str
    test: Test
    values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Filter:
    """Records that all conditions hold for are left out: passed over, or set aside as bad ones.

    Attributes:
        conditions: all of them must hold.
        set_aside: to quarantine, rather than passed over.
        reason: shown in the log and in quarantine.
    """

    conditions: tuple[Condition, ...]
    set_aside: bool
    reason: str


@dataclass(frozen=True)
class Step:
    """A function of the user's over the rows of one table.

    Attributes:
        run: `module:function`.
        columns: the columns that it adds, and their types.
        folder: where its module is looked for before PYTHONPATH.
        place: file and line that name it, for messages; empty where no file does.
    """

    run: str
    columns: Mapping[str, FieldType] = field(default_factory=dict)
    folder: str = ""
    place: str = ""

    @property
    def told(self) -> str:
        """How messages call it."""
        return f"{self.place}: step {self.run}" if self.place else f"step {self.run}"


@dataclass(frozen=True)
class Rules:
    """All of them.

    Attributes:
        fields: kind of record → API field → what becomes of it.
        filters: the first one that holds decides.
        steps: kind of record → the user's function.
        policy: what to do with what the catalogue does not know.
    """

    fields: Mapping[str, Mapping[str, FieldRule]] = field(default_factory=lambda: MappingProxyType({}))
    filters: tuple[Filter, ...] = ()
    steps: Mapping[str, Step] = field(default_factory=lambda: MappingProxyType({}))
    policy: Policy = "freeze"

    def of(self, record: str, name: str) -> FieldRule:
        """Return what becomes of a field of a kind of record."""
        return self.fields.get(record, {}).get(name, _AS_IT_IS)


_AS_IT_IS = FieldRule()
