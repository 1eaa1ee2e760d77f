"""Processes of their own for what tests kill, or let meet at a database."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

# What every worker imports takes seconds to load. It is loaded once, in a process that has no threads, no
# connections and no files open, and that every worker is a fork of; our own modules each worker loads itself.
_LIBRARIES = (
    *("msgspec", "numpy", "pandas", "pendulum", "pyarrow.dataset", "pyarrow.parquet", "pydantic", "requests"),
    *("sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.mysql", "sqlglot", "tenacity", "yaml"),
    *("psycopg2", "pymysql", "pytest", "hypothesis"),
)


def workers() -> ForkServerContext:
    """Return the `multiprocessing` context that tests start workers in."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_LIBRARIES))
    return context
