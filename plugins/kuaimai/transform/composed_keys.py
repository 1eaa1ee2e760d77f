"""Keys that several fields of a record make together, and the numbers of lines that agree in all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from kuaimai.extract.skim import LONGEST_KEY
from kuaimai.gateway.catalog import NUMBER, Field
from kuaimai.transform import columns
from kuaimai.transform.batches import ARROW_TYPES


class ComposedKey:
    """Makes the key of one kind of record.

    Args:
        made_of: names of the fields, and `NUMBER` for a line's number.
        key: the field that the key goes into.
        fields: those of the table, in its order.
    """

    def __init__(self, made_of: Sequence[str], key: str, fields: Sequence[Field]) -> None:
        names = [one.name for one in fields]
        self._fields = fields
        self._position = names.index(key)
        # By position; None stands for a line's number.
        self._parts = [None if name == NUMBER else names.index(name) for name in made_of]

    def column(self, found: Sequence[pa.Array], owners: pa.Array | None) -> pa.Array:
        """Return the keys of many records, given the columns of their other fields."""
        named = [at for at in self._parts if at is not None]
        parts = list(zip(*(_as_text(found[at]).to_pylist() for at in named), strict=True))
        inside = [None] * len(parts) if owners is None else owners.to_pylist()
        others = [column for at, column in enumerate(found) if at != self._position]
        keys = self._composed(parts, inside, lambda: columns.fingerprints(others).to_pylist())
        return pa.array(keys, pa.string())

    def compose(self, rows: Sequence[list[Any]]) -> None:
        """Put their keys into the rows of one parent."""
        named = [at for at in self._parts if at is not None]
        parts = [tuple(None if row[at] is None else str(row[at]) for at in named) for row in rows]

        def contents() -> Sequence[str]:
            by_column = [
                pa.array([row[at] for row in rows], ARROW_TYPES[one.type])
                for at, one in enumerate(self._fields)
                if at != self._position
            ]
            texts: list[str] = columns.fingerprints(by_column).to_pylist()
            return texts

        for row, key in zip(rows, self._composed(parts, [None] * len(rows), contents), strict=True):
            row[self._position] = key

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
        if None in self._parts:
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
            texts = [str(number) if at is None else next(fields) or "" for at in self._parts]
            joined = "/".join(texts)
            keys.append(joined if any(given) and len(joined) <= LONGEST_KEY else None)
        return keys


def _as_text(column: pa.Array) -> pa.Array:
    """Return a part of a key as text; an instant is its epoch ms, as `to_epoch_ms` gives it."""
    return (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).cast(pa.string())
