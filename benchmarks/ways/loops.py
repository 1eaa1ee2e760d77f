"""The plain loop that articles show, and the same by a careful hand.

article   requests.post for each page, executemany of an upsert
session   one Session (connection kept), multi-row inserts by psycopg2's execute_values
checked   the same, and an answer whose `success` is false ends the run
"""

from __future__ import annotations

import sys

import psycopg2
import psycopg2.extras
import requests
from asking import FACTS, Table, is_last, page_form, ready, rows_of, signed


def main(way: str) -> None:
    """Read ten days, page after page, into two tables."""
    trade, line = Table("kuaimai_trade"), Table("kuaimai_trade_line")
    database = psycopg2.connect(FACTS["target"])
    cursor = database.cursor()
    cursor.execute(trade.create)
    cursor.execute(line.create)
    send = requests.Session().post if way != "article" else requests.post
    for day in FACTS["days"]:
        page = 0
        while True:
            page += 1
            answer = send(FACTS["url"], data=signed(page_form(day, page)), timeout=60)
            answer.raise_for_status()
            body = answer.json()
            if way == "checked" and not body.get("success"):
                raise SystemExit(f"the gateway refused: {body.get('code')} {body.get('msg')}")
            orders = body.get("list") or []
            for table, rows in zip((trade, line), rows_of(trade, line, orders), strict=True):
                if way != "article":
                    psycopg2.extras.execute_values(cursor, table.upsert, rows, page_size=1000)
                else:
                    cursor.executemany(table.upsert_one, rows)
            database.commit()
            if is_last(len(orders)):
                break


if __name__ == "__main__":
    ready()
    main(sys.argv[2])
