"""Tables of the coordination store. Times are epoch seconds (UTC), as doubles."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import BigInteger, Column, Float, MetaData, String, Table, Text

metadata = MetaData()

_NAME_LENGTH = 255  # the longest key that MySQL indexes in every row format with four-byte characters
_SECONDS = Float(53)  # a double on every database; SQLAlchemy 1.4 has no `Double`
# The default of a MySQL or MariaDB server may be Latin letters only, and names that differ in case are one.
_OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value
    for dialect in ("mysql", "mariadb")
    for name, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}

lease = Table(
    "kuaimai_lease",
    metadata,
    Column("name", String(_NAME_LENGTH), primary_key=True),
    Column("owner", String(_NAME_LENGTH), nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("expires_at", _SECONDS, nullable=False),
    **_OPTIONS,
)

breaker = Table(
    "kuaimai_breaker",
    metadata,
    Column("name", String(_NAME_LENGTH), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("opened_at", _SECONDS, nullable=False),
    **_OPTIONS,
)

alert = Table(
    "kuaimai_alert",
    metadata,
    Column("name", String(_NAME_LENGTH), primary_key=True),
    Column("claimed_at", _SECONDS, nullable=False),
    **_OPTIONS,
)

budget = Table(
    "kuaimai_budget",
    metadata,
    Column("name", String(_NAME_LENGTH), primary_key=True),
    Column("next_free", _SECONDS, nullable=False, default=0.0),
    Column("factor", _SECONDS, nullable=False, default=1.0),
    Column("slowed_at", _SECONDS, nullable=False, default=0.0),
    Column("blocked_until", _SECONDS, nullable=False, default=0.0),
    Column("live_until", _SECONDS, nullable=False, default=0.0),
    Column("reconcile_until", _SECONDS, nullable=False, default=0.0),
    **_OPTIONS,
)


def short(name: str) -> str:
    """A name that fits its column; a longer one keeps its beginning and gets a hash of the whole."""
    if len(name) <= _NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{name[: _NAME_LENGTH - len(digest) - 1]}~{digest}"
