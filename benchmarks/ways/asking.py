"""What every hand-written way needs: the signed form of one page, and the columns of the target.

Imports nothing heavy, so that a way pays for its own imports only.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

CHINA = timezone(timedelta(hours=8))
METHOD = "erp.trade.outstock.simple.query"
NO_TIME = (946_656_000_000, 978_278_400_000)

# For the benchmark's own gateway, which checks no signatures.
_NOBODY = {"app_key": "bench", "app_secret": "bench-secret", "access_token": "bench-session"}

FACTS: dict[str, Any] = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}


def ready() -> None:
    """Tell the runner that the imports are done: seconds since the start, CPU seconds so far."""
    spent = [time.time() - float(os.environ["BENCH_STARTED"]), time.process_time()]
    Path(os.environ["BENCH_READY"]).write_text(json.dumps(spent))


def page_form(day: tuple[str, str], page: int) -> dict[str, str]:
    """Return the unsigned form that asks for one page of one day."""
    return {
        "method": METHOD,
        "timeType": "upd_time",
        "startTime": day[0],
        "endTime": day[1],
        "pageNo": str(page),
        "pageSize": str(FACTS["page_size"]),
    }


def signed(form: dict[str, str]) -> dict[str, str]:
    """Return the form with the protocol's fields and its HMAC-SHA256 signature."""
    known = FACTS.get("credentials", _NOBODY)
    full = {
        **form,
        "appKey": known["app_key"],
        "session": known["access_token"],
        "timestamp": datetime.now(tz=CHINA).strftime("%Y-%m-%d %H:%M:%S"),
        "version": "1.0",
        "format": "json",
        "sign_method": "hmac-sha256",
    }
    text = "".join(f"{name}{full[name]}" for name in sorted(full))
    secret = known["app_secret"].encode()
    full["sign"] = hmac.new(secret, text.encode(), hashlib.sha256).hexdigest().upper()
    return full


def is_last(rows: int) -> bool:
    """Whether a page with so many rows ends its day."""
    return rows < int(FACTS["page_size"])


def instant(value: Any) -> datetime | None:
    """Return epoch milliseconds as an instant; the gateway's "no time" is none."""
    return None if value is None or value in NO_TIME else datetime.fromtimestamp(value / 1000, timezone.utc)


_CONVERT = {
    "id": lambda value: None if value in (None, "") else str(value),
    "text": lambda value: None if value is None else str(value),
    "integer": lambda value: value,
    "number": lambda value: None if value == "" else value,
    "yuan": lambda value: None if value == "" else value,
    "time": instant,
    "json": lambda value: None if value is None else json.dumps(value, ensure_ascii=False),
}
_SQL = {"id": "text", "text": "text", "integer": "bigint", "number": "numeric", "yuan": "numeric"}


class Table:
    """A target table as a script writes it: its statements, and how a record becomes a row."""

    def __init__(self, name: str) -> None:
        facts = FACTS["tables"][name]
        self.name = name
        self.key: str = facts["key"]
        self.columns: list[str] = [column for _, column, _ in facts["columns"]]
        self._take = [(field, _CONVERT[kind]) for field, _, kind in facts["columns"]]
        types = ", ".join(
            f'"{column}" {_SQL.get(kind, "timestamptz" if kind == "time" else "jsonb")}'
            for _, column, kind in facts["columns"]
        )
        self.create = f'CREATE TABLE IF NOT EXISTS {name} ({types}, PRIMARY KEY ("{self.key}"))'
        named = ", ".join(f'"{column}"' for column in self.columns)
        changes = ", ".join(f'"{one}" = excluded."{one}"' for one in self.columns if one != self.key)
        self.upsert = (
            f'INSERT INTO {name} ({named}) VALUES %s ON CONFLICT ("{self.key}") DO UPDATE SET {changes}'
        )

    @property
    def upsert_one(self) -> str:
        """The upsert of a single row, for executemany."""
        return self.upsert.replace("%s", f"({', '.join(['%s'] * len(self.columns))})", 1)

    def row(self, record: dict[str, Any]) -> list[Any]:
        """Return a record as a row."""
        return [convert(record.get(field)) for field, convert in self._take]


def rows_of(
    trade: Table, line: Table, orders: list[dict[str, Any]]
) -> tuple[list[list[Any]], list[list[Any]]]:
    """Return the rows of both tables for the orders of a page."""
    return (
        [trade.row(order) for order in orders],
        [line.row({**one, "sid": order["sid"]}) for order in orders for one in order.get("orders") or ()],
    )
