"""When a record changed last: the one order by which a newer row is told from an older one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kuaimai.extract.skim import sent
from kuaimai.gateway import catalog
from kuaimai.transform.fields import to_epoch_ms

# A version may lie so far, ms, after its reading began: clocks differ by minutes.
_AHEAD = 86_400_000
# For records of which nobody knows when they were read.
FOR_EVER = 2**62


def version_of(record: Mapping[str, Any], kind: catalog.Record) -> int | None:
    """Return the instant of a record's last change, epoch ms; None where it names none.

    The first of the catalogue's version fields that holds a time counts, in whichever spelling it comes.

    Raises:
        ValueError: such a field holds something that is no time.
    """
    stamps = (to_epoch_ms(sent(record, kind.fields[name])) for name in kind.version)
    return next((stamp for stamp in stamps if stamp is not None), None)


def believed(version: int, read_from: int) -> int:
    """Return a version, or when its reading began where it lies more than a day after that; both in epoch ms.

    A record that says to have changed next year would be newer than all its later changes, and stay for ever
    as it is. It is the begin that counts: a record can be set right while the reading goes on.
    """
    return version if version <= read_from + _AHEAD else read_from


def believed_versions(versions: pa.Array, read_from: int) -> pa.Array:
    """Do what `believed` does for a column."""
    ahead = pc.greater(versions, read_from + _AHEAD)
    return pc.if_else(ahead, pa.scalar(read_from, versions.type), versions)
