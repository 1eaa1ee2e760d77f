"""Which target a database URL means."""

from __future__ import annotations

import time
from collections.abc import Callable

import sqlalchemy as sa

from kuaimai.load.generic import GenericTarget
from kuaimai.load.mysql import MysqlTarget
from kuaimai.load.postgres import PostgresTarget
from kuaimai.load.sql import SqlTarget
from kuaimai.load.sqlite import SqliteTarget


def open_target(url: str, *, now: Callable[[], float] = time.time) -> SqlTarget:
    """Return the target for a database URL; nothing is connected yet."""
    backend = sa.engine.make_url(url).get_backend_name()
    if backend == "postgresql":
        return PostgresTarget(url, now=now)
    if backend in ("mysql", "mariadb"):
        return MysqlTarget(url, now=now)
    if backend == "sqlite":
        return SqliteTarget(url, now=now)
    return GenericTarget(url, now=now)
