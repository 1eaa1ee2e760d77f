"""What the stages hand to one another: paths, counts and windows, never rows."""

from __future__ import annotations

from typing import Any

import msgspec

from kuaimai.errors import DataError
from kuaimai.extract.paging import Read
from kuaimai.extract.windows import Slice
from kuaimai.load.windows import Sealing


class Extracted(msgspec.Struct, frozen=True):
    """A slice whose raw pages are in staging: one or more reads per method that serves its shops."""

    slice: Slice
    reads: tuple[Read, ...]


class Batch(msgspec.Struct, frozen=True):
    """Files of one batch, parent table first, and the position of the read it came from."""

    read: int
    files: tuple[str, ...]
    records: int


class Transformed(msgspec.Struct, frozen=True):
    """A slice as typed batches, and what could not be typed.

    Attributes:
        extracted: the manifest it was made from.
        batches: in the order to load.
        quarantine: staging file of the bad records, JSON lines; empty if there are none.
        bad: how many different bad records are in it.
        seen: staging file of what its reads saw of the records' fields, JSON lines.
        filtered: staging file of the keys that the pipeline's rules left out, JSON lines; empty if none.
        reasons: why they were left out → how many.
    """

    extracted: Extracted
    batches: tuple[Batch, ...]
    quarantine: str
    bad: int
    seen: str = ""
    filtered: str = ""
    reasons: dict[str, int] = {}


class LeftOut(msgspec.Struct, frozen=True):
    """Keys of one read that the pipeline's rules left out."""

    read: int
    keys: tuple[str, ...]


class Loaded(msgspec.Struct, frozen=True):
    """A slice that is in one target, with the verdict on each of its windows.

    `target` is its name. `outside` counts records that came later than the look-back in force reaches,
    `changes` says what has changed at the source since earlier loads.
    """

    pipeline: str
    number: int
    windows: tuple[Sealing, ...]
    read: int
    requests: int
    outside: int = 0
    look_back_minutes: int = 0
    changes: tuple[str, ...] = ()
    target: str = ""


def to_manifest(manifest: msgspec.Struct) -> dict[str, Any]:
    """Return a manifest as the plain JSON that tasks hand to one another."""
    plain: dict[str, Any] = msgspec.to_builtins(manifest)
    return plain


def from_manifest(plain: Any, kind: type[Any]) -> Any:
    """Return the manifest in plain JSON.

    Raises:
        DataError: it is from another version of this package.
    """
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as err:
        raise DataError(
            f"the manifest of the task before does not fit: {err}",
            hint="clear this run from its first task on; it was begun by another version of this package",
        ) from err
