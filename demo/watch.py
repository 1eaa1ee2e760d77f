"""Prints rows of the target as they land."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable
from typing import Any

from services import Process

POLL_SECONDS = 1.0
SHOWN_ORDERS = 8
HINT_AFTER = 120.0  # seconds without a first row

_TABLES = "SELECT to_regclass('kuaimai_trade') IS NOT NULL AND to_regclass('kuaimai_window') IS NOT NULL"
# The tables of records, not those of the proof.
_RECORDS = """
SELECT table_name FROM information_schema.columns WHERE column_name = '_version' ORDER BY table_name
"""
_FIRST_ORDERS = """
SELECT t.sid, to_char(t.upd_time, 'HH24:MI:SS'), t.sys_status, t.payment::text, t.shop_name,
       (SELECT count(*) FROM kuaimai_trade_line AS l WHERE l.sid = t.sid)
FROM kuaimai_trade AS t ORDER BY t._loaded_at, t.upd_time LIMIT %s
"""
_WINDOWS = """
SELECT recorded_at, method,
       CASE dimension WHEN 'scan' THEN 'everything'
       ELSE to_char(window_start, 'HH24:MI:SS') || ' to ' || to_char(window_end, 'HH24:MI:SS') END,
       state, landed, inserted, updated, requests, reason
FROM kuaimai_window WHERE recorded_at > %s AND requests IS NOT NULL ORDER BY recorded_at
"""


class Watch:
    """Looks at the target every second and tells what is new."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._seen_until: Any = "-infinity"
        self._first_rows_shown = False
        self._told: dict[str, int] = {}
        self._started = time.monotonic()
        self._hinted = False
        self._query("SET timezone = 'Asia/Shanghai'")

    def follow(self, processes: list[Process], *, then: Callable[[], object] = lambda: None) -> None:
        """Tell what lands until interrupted; raise DemoError if a process of the demo ends.

        Args:
            processes: of the demo.
            then: what to do once the first orders have landed.
        """
        say("waiting for the first run: a new DAG starts with the last complete five minutes")
        while True:
            for process in processes:
                process.check()
            if self._query(_TABLES)[0][0]:
                shown = self._first_rows_shown
                self._tell()
                if self._first_rows_shown and not shown:
                    then()
            elif not self._hinted and time.monotonic() - self._started > HINT_AFTER:
                self._hinted = True
                say("no rows yet; the UI shows how far the run is")
            time.sleep(POLL_SECONDS)

    def _tell(self) -> None:
        windows = self._query(_WINDOWS, (self._seen_until,))
        for recorded, method, span, state, landed, inserted, updated, requests, reason in windows:
            self._seen_until = recorded
            say(
                f"{method}  {span}  {state}: {landed} landed "
                f"({inserted} new, {updated} changed), {requests} requests{f'; {reason}' if reason else ''}"
            )
        if not windows:
            return
        counts = {table: self._count(table) for (table,) in self._query(_RECORDS)}
        counts["kuaimai_quarantine"] = self._count("kuaimai_quarantine")
        changed = [f"{table} {count}" for table, count in counts.items() if count != self._told.get(table, 0)]
        self._told = counts
        if changed:
            say(f"rows: {', '.join(changed)}")
        if counts.get("kuaimai_trade") and not self._first_rows_shown:
            self._first_rows_shown = True
            print_table(
                ("sid", "upd_time", "sys_status", "payment", "shop_name", "lines"),
                self._query(_FIRST_ORDERS, (SHOWN_ORDERS,)),
            )
            say("the next run starts when the next five minutes are complete; now the other pipelines")

    def _count(self, table: str) -> int:
        found: int = self._query(f'SELECT count(*) FROM "{table}"')[0][0]  # noqa: S608 - a name of the catalogue
        return found

    def _query(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall()) if cursor.description else []


def say(text: str) -> None:
    """Print one line with the time of day in China, where the merchant is."""
    moment = time.gmtime(time.time() + 8 * 3600)
    print(f"{time.strftime('%H:%M:%S', moment)}  {text}", flush=True)


def print_table(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """Print rows under their names, columns aligned; a Chinese character is two columns wide."""
    cells = [names, *(tuple("" if value is None else str(value) for value in row) for row in rows)]
    widths = [max(width(row[column]) for row in cells) for column in range(len(names))]
    for row in cells:
        line = "  ".join(
            text + " " * (wanted - width(text)) for text, wanted in zip(row, widths, strict=True)
        )
        print(f"            {line.rstrip()}", flush=True)


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
