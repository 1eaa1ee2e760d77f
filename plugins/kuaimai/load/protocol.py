"""What a target is to the rest of the package: somewhere records go, with a proof of what is there.

Databases keep their proof beside the data (`kuaimai.load.sql`). All others keep it in the coordination
store's database, in the same tables (`kuaimai.load.booked`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

import pyarrow as pa

from kuaimai.load.held import Held, Quarantined
from kuaimai.load.lateness import Punctuality
from kuaimai.load.windows import PlannedWindow, ReadWindow, Sealing, Standing, WindowFacts
from kuaimai.transform.drift import Seen
from kuaimai.transform.rules import Policy
from kuaimai.transform.tables import Table


class Coverage(Protocol):
    """What is known of the time that a target was given: what a plan asks, and writes down."""

    def announce(self, windows: Sequence[PlannedWindow]) -> None:
        """Write down what is going to be read, so that a read that never happens leaves an open window."""
        ...

    def coverage(
        self, pipeline: str, dimension: str, since: datetime, until: datetime | None = None
    ) -> list[ReadWindow]:
        """Return the windows that end after an instant and begin before another."""
        ...

    def began(self, pipeline: str, dimension: str) -> datetime | None:
        """Return the start of the first window that was ever planned, or None."""
        ...

    def supersede(self, window_ids: Sequence[str]) -> None:
        """Close windows that are not sealed, and whose time other windows have sealed since."""
        ...

    def look_back(self, pipeline: str, configured_minutes: int) -> int:
        """Return how far back to look for records by their creation, in minutes."""
        ...


class Load(Protocol):
    """One load: first all batches, then what is set aside, then a seal for each read."""

    @property
    def tables(self) -> Sequence[Table]:
        """The tables that the load was opened with, parent first."""
        ...

    @property
    def outside(self) -> int:
        """How many records came later than the look-back reaches."""
        ...

    def read_from(self, read: int, began: datetime) -> None:
        """Say when a read began, else it is now: what was marked as gone since then stays so."""
        ...

    def merge(self, read: int, batches: Sequence[pa.Table]) -> None:
        """Take one batch of each table, parent first; `read` numbers the slice's reads."""
        ...

    def quarantine(self, records: Sequence[Quarantined]) -> None:
        """Set records aside, after all batches are merged."""
        ...

    def leave_out(self, read: int, keys: Iterable[str]) -> None:
        """Count keys as filtered, unless they land or are set aside in the same read."""
        ...

    def stored(self, pipeline: str, read: int, keys: Sequence[str]) -> set[str]:
        """Return those of some merged keys that are in the target."""
        ...

    def marked(self, keys: Sequence[str]) -> dict[str, int]:
        """Return those of some keys whose rows are marked as gone: key → version of the row."""
        ...

    def refusals(self, keys: Sequence[str]) -> dict[str, str]:
        """Return why the target did not take some of the keys that were merged, as far as it says."""
        ...

    def resolve(self, landed: Sequence[Held], left_out: Sequence[Held], still: Mapping[str, str]) -> int:
        """Mark quarantined records as resolved, and move them in the counts of their windows.

        `still` are those that stay: quarantine_id → why, as of now.
        """
        ...

    def seal(self, facts: WindowFacts) -> Sealing:
        """Count what of a window is in the target, and write the proof."""
        ...


class Target(Coverage, Protocol):
    """Somewhere records go."""

    def loading(
        self, tables: Sequence[Table], punctuality: Punctuality | None = None
    ) -> AbstractContextManager[Load]:
        """Open a load; leaving the block in peace makes it count.

        Args:
            tables: parent table first.
            punctuality: counts late records; None where the load cannot say which ones are.
        """
        ...

    def known_columns(self, pipeline: str) -> dict[str, str]:
        """Return the fields beyond the catalogue that have columns: field → column."""
        ...

    def note_seen(self, pipeline: str, seen: Seen, policy: Policy) -> tuple[str, ...]:
        """Remember what a slice saw of the fields; return what nobody was told of yet, a sentence each."""
        ...

    def held(self, pipeline: str) -> list[Held]:
        """Return the records of a pipeline in quarantine that did not land since, the oldest first."""
        ...

    def oldest_held(self, pipeline: str) -> tuple[int, datetime | None]:
        """Return how many these are, and since when the oldest is there."""
        ...

    def standing(self, pipeline: str) -> Standing:
        """Return what the proof says about a pipeline, all windows together."""
        ...

    def try_rights(self) -> str:
        """Do what loading needs the rights for, leave nothing of it behind, and say in words what was tried.

        Raises:
            KuaimaiError: it does not answer, or a right is missing.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...
