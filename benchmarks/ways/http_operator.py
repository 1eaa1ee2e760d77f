"""Airflow's HttpOperator with `pagination_function`: the real operator, executed in this process.

One operator a day, as a mapped task would be; its result (all pages as text) goes through JSON once, as it
does through XCom, and is then written by a function, as a following task would. What the scheduler, the API
server and the XCom table cost comes on top in real life and is not in the figure.

    executemany   the writing task upserts row by row, as PostgresHook.insert_rows does
    multirow      the writing task uses psycopg2's execute_values
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from asking import FACTS, Table, is_last, page_form, ready, rows_of, signed

_URL = urlsplit(FACTS["url"])
os.environ["AIRFLOW_CONN_GATEWAY"] = json.dumps(
    {"conn_type": "http", "host": _URL.hostname, "port": _URL.port, "schema": "http"}
)

import psycopg2  # noqa: E402 - Airflow's settings come before its imports
import psycopg2.extras  # noqa: E402
import requests  # noqa: E402
from airflow.providers.http.operators.http import HttpOperator  # noqa: E402


class Signed(requests.auth.AuthBase):
    """Signs the form of a request that HttpOperator has prepared."""

    def __call__(self, request: Any) -> Any:
        """Put the signed form in place of the plain one."""
        request.prepare_body(signed(dict(parse_qsl(request.body))), None)
        return request


def next_page(response: requests.Response) -> dict[str, Any] | None:
    """Ask for the next page until one is not full."""
    if is_last(len(response.json().get("list") or [])):
        return None
    asked = dict(parse_qsl(response.request.body))
    return {"data": {"pageNo": str(int(asked["pageNo"]) + 1)}}


def main(way: str) -> None:
    """Read ten days by one operator each."""
    trade, line = Table("kuaimai_trade"), Table("kuaimai_trade_line")
    database = psycopg2.connect(FACTS["target"])
    cursor = database.cursor()
    cursor.execute(trade.create)
    cursor.execute(line.create)
    for number, day in enumerate(FACTS["days"]):
        operator = HttpOperator(
            task_id=f"day_{number}",
            http_conn_id="gateway",
            endpoint=_URL.path,
            method="POST",
            data=page_form(day, 1),
            auth_type=Signed,
            pagination_function=next_page,
        )
        for text in json.loads(json.dumps(operator.execute({}))):
            orders = json.loads(text).get("list") or []
            for table, rows in zip((trade, line), rows_of(trade, line, orders), strict=True):
                if way == "multirow":
                    psycopg2.extras.execute_values(cursor, table.upsert, rows, page_size=1000)
                else:
                    cursor.executemany(table.upsert_one, rows)
            database.commit()


if __name__ == "__main__":
    ready()
    main(sys.argv[2])
