"""What the names in a strategy mean: fields of the record that its source returns, and of the lists in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kuaimai.gateway import catalog
from kuaimai.pipeline.qeasy.compiled import Compiled, Source


def renamed(source: Source | None) -> dict[str, str]:
    """Return the catalogue's name → the strategy's (`detailkey`) of the lines that come by detail calls."""
    detail = catalog.method(source.api).detail if source and source.kind == "kuaimai" else None
    given = source.detail.list_key if source and source.detail else ""
    return {detail.into: given} if detail and given else {}


def lists_of(source: Source) -> dict[str, str]:
    """Return the lists of a source's record, as the strategy calls them, and the kinds of their elements."""
    names = renamed(source)
    children = catalog.record(catalog.method(source.api).record or "").children
    return {names.get(name, name): kind for name, kind in children.items()}


@dataclass(frozen=True)
class Names:
    """The fields that a strategy can name.

    Attributes:
        kinds: list → the kind of its elements; "" → the record's own.
        fields: list → the fields of its elements, by every spelling; "" → the record's own.
        flat: lists whose elements become rows, with their fields as `<list>_<field>`.
    """

    kinds: Mapping[str, str]
    fields: Mapping[str, Mapping[str, catalog.Field]]
    flat: Sequence[str] = ()

    def field(self, name: str) -> catalog.Field | None:
        """Return the field that a name means; None where the catalogue knows none."""
        inside, field = self.parts(name)
        return self.fields[inside].get(field)

    def parts(self, name: str) -> tuple[str, str]:
        """Return a name's list, empty for the record itself, and the field in it."""
        for array in self.flat:
            if name.startswith(f"{array}_") and array in self.fields:
                return array, name.removeprefix(f"{array}_")
        head, _, rest = name.partition(".")
        return (head, rest.partition(".")[0]) if rest and head in self.fields else ("", head)

    def unknown(self, name: str, also: Iterable[str] = ()) -> tuple[str, list[str]] | None:
        """Return what of a name leads to no field, and all that would; None where it leads to one.

        Args:
            name: as a strategy writes it.
            also: names that the strategy has made.
        """
        inside, field = self.parts(name)
        others = [] if inside else [*self.fields, *also]
        if field in self.fields[inside] or field in others:
            return None
        before = name[: len(inside) + 1] if inside else ""
        flat = [] if inside else [f"{one}_{field}" for one in self.flat for field in self.fields.get(one, ())]
        return f"{before}{field}", [*(f"{before}{one}" for one in self.fields[inside]), *others, *flat]


def names_of(source: Source | None, of: str = "") -> Names:
    """Return what a strategy can name.

    Args:
        source: the strategy's; returns records of the catalogue.
        of: the kind of record, where the strategy has no source that says it.
    """
    asked = source if source is not None and source.kind == "kuaimai" else None
    kind = catalog.record((catalog.method(asked.api).record or "") if asked is not None else of)
    lists = lists_of(asked) if asked is not None else kind.children
    kinds = {"": kind.name, **lists}
    fields = {
        name: {spelling: one for one in catalog.record(kind).fields.values() for spelling in one.spellings}
        for name, kind in kinds.items()
    }
    return Names(kinds, fields, source.flat if source is not None else ())


def named(compiled: Compiled) -> Iterator[tuple[str, str]]:
    """Return where a strategy names something of its source's record to make documents of it, and what."""
    source, target = compiled.source, compiled.target
    if source is not None:
        yield from ((f"{one.path}.field", one.field) for group in source.condition for one in group)
        yield from ((f"{path}.old", old) for path, old, _, _ in source.formats)
    if target is not None:
        for one, value in target.document_values():
            yield from ((f"{one.path}.value", name) for name in value.names())
        if target.grouping is not None:
            yield from ((f"{target.path}groupCalculate", name) for name in target.grouping.columns)
