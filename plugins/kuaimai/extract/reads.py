"""What a read leaves behind: where the raw answers are, and the numbers that prove them complete."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from kuaimai.errors import Rejected
from kuaimai.extract.staging import Staging
from kuaimai.extract.windows import Window

# What the proof rests on; `kuaimai.load.proof` seals by the same names.
SNAPSHOT = "snapshot"
COUNTS = "counts"
READINGS = "readings"
UNPROVEN = "unproven"

# So many names of answers travel with a read; manifests go through Airflow's database.
_NAMES_IN_A_MANIFEST = 20


class Read(msgspec.Struct, frozen=True):
    """One window of one method, as read: where the raw answers are, and the numbers of the proof.

    Attributes:
        method: API method.
        window: what was read; a part of the slice's window where the rest has another verdict.
        shops: ids of the shops that were asked for.
        rank: position among the pipeline's methods; the fuller record of one version has the higher rank.
        request: business parameters of the read, without page number.
        folder: staging folder of the raw answers.
        files: their names there, without `.json.zst`; none where they are too many for a manifest.
        listing: then the file there that holds the names, and `listed`, how many they are.
        rows: records in them.
        distinct: different keys among them; a record without a key counts by its content.
        total_before: how many the gateway counted; rows of a shared edge second, or of a record that moved
            from one stretch into another, once. None where it sent no total.
        total_after: its count at the end; the same number where the proof is one answer per stretch.
        attempts: how often the stretch that gave most trouble was read.
        requests: calls spent.
        first_read_at: when the oldest of the answers was asked for, UTC: what came later may be missing.
        last_read_at: when the read ended, UTC.
        proof: `snapshot`, `counts`, `readings`, or `unproven`.
        asked: the method that was really asked, where another one holds what is older; else empty.
        details: staging folder with what the list leaves out of each record; empty where that is nothing.
        refused: why the gateway gave nothing for these shops; empty where it did not refuse.
    """

    method: str
    window: Window
    shops: tuple[str, ...]
    rank: int
    request: dict[str, str]
    folder: str
    files: tuple[str, ...]
    rows: int
    distinct: int
    total_before: int | None
    total_after: int | None
    attempts: int
    requests: int
    first_read_at: datetime
    last_read_at: datetime
    proof: str
    listing: str = ""
    listed: int = 0
    asked: str = ""
    details: str = ""
    refused: str = ""

    @property
    def source(self) -> str:
        """The method that gave the answers."""
        return self.asked or self.method

    @property
    def stable(self) -> bool:
        """Whether everything that was in the window while it was read is among the answers."""
        return self.proof != UNPROVEN

    @property
    def pages(self) -> int:
        """Number of raw answers."""
        return self.listed or len(self.files)

    def page_names(self, staging: Staging) -> list[str]:
        """Return the staging names of the raw answers.

        Raises:
            ConfigError: the list is not in staging any more.
        """
        files: Sequence[str] = self.files
        if self.listing:
            files = staging.read_compressed(f"{self.folder}/{self.listing}").decode().split()
        return [f"{self.folder}/{name}.json.zst" for name in files]

    def without_names(self, staging: Staging) -> Read:
        """Return a read whose manifest is small: many names go into a file beside the answers."""
        if len(self.files) <= _NAMES_IN_A_MANIFEST:
            return self
        listing = f"{self.files[0].replace('/', '-')}.names.zst"
        staging.write_compressed(f"{self.folder}/{listing}", "\n".join(self.files).encode())
        return msgspec.structs.replace(self, files=(), listing=listing, listed=len(self.files))

    def describe(self) -> str:
        """One line for the log."""
        if self.refused:
            return f"shop {', '.join(self.shops)} was refused: {self.refused}"
        return (
            f"{self.rows} rows in {self.pages} answers, {self.distinct} distinct; the gateway counted "
            f"{self.total_before} before and {self.total_after} after; proof {self.proof}; "
            f"{self.requests} requests, {self.attempts} attempts"
        )


def refused_read(
    method: str, window: Window, shop: str, *, rank: int, folder: str, refusal: Rejected, now: datetime
) -> Read:
    """Return the read of a shop that the gateway refused: no records, and why its window stays open."""
    return Read(
        method=method,
        window=window,
        shops=(shop,),
        rank=rank,
        request={},
        folder=folder,
        files=(),
        rows=0,
        distinct=0,
        total_before=None,
        total_after=None,
        attempts=1,
        requests=1,
        first_read_at=now,
        last_read_at=now,
        proof=UNPROVEN,
        refused=str(refusal),
    )
