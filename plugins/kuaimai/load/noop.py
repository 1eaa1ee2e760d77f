"""写入空操作: no target at all. Records are read, typed, counted and sealed, and go nowhere.

For trying a mapping, for measuring what a pipeline costs, and for Qeasy strategies that write nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from kuaimai.load.booked import BookedLoad, BookedTarget
from kuaimai.load.lateness import Punctuality
from kuaimai.load.windows import Written
from kuaimai.transform.tables import Table


class NoopTarget(BookedTarget):
    """Counts and seals."""

    def _load(
        self,
        tables: Sequence[Table],
        punctuality: Punctuality | None,  # noqa: ARG002 - nothing is ever new to nowhere
    ) -> BookedLoad:
        return _NoopLoad(self, tables)


class _NoopLoad(BookedLoad):
    """Remembers the keys it was given; to the proof they have all landed, and none was new."""

    keeps_rows = False

    def __init__(self, target: BookedTarget, tables: Sequence[Table]) -> None:
        super().__init__(target, tables)
        self._keys: dict[int, set[str]] = {}

    def merge(self, read: int, batches: Sequence[pa.Table]) -> None:
        """Count the records."""
        self._keys.setdefault(read, set()).update(batches[0].column(self.tables[0].key).to_pylist())

    def standing(self, read: int) -> set[str]:
        """Return the keys that were counted."""
        return self._keys.get(read, set())

    def written(self, read: int) -> Written:
        """Return that nothing changed anywhere."""
        return Written(unchanged=len(self.standing(read)))
