"""When a record changed last: the one order by which a newer row is told from an older one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kuaimai.extract.skim import sent
from kuaimai.gateway import catalog
from kuaimai.transform.fields import to_epoch_ms


def version_of(record: Mapping[str, Any], kind: catalog.Record) -> int | None:
    """Return the instant of a record's last change, epoch ms; None where it names none.

    The first of the catalogue's version fields that holds a time counts, in whichever spelling it comes.

    Raises:
        ValueError: such a field holds something that is no time.
    """
    stamps = (to_epoch_ms(sent(record, kind.fields[name])) for name in kind.version)
    return next((stamp for stamp in stamps if stamp is not None), None)
