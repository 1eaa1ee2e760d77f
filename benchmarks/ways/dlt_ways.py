"""dlt, three ways: as its documentation shows it, tuned, and as fast as an expert can make it.

documented            a resource that yields pages of JSON; merge by key; everything else left as it is
documented-columns    the same, keeping the columns that the other ways keep
tuned                 a parallel resource a day, columns picked, lines as a table of their own, workers, csv
expert                threads a day and by page, flattened by hand into Arrow tables, exact types, csv
expert-upsert         the same with the merge strategy `upsert` instead of delete and insert
expert-without-zone   the same with columns of times that do not say their zone, which Arrow writes faster
expert-adbc           the same with Parquet files that ADBC copies in binary form
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asking import FACTS, is_last, page_form, ready, signed

WAY = sys.argv[2]
SETTINGS = {"RUNTIME__LOG_LEVEL": "ERROR", "RUNTIME__DLTHUB_TELEMETRY": "false"}
if not WAY.startswith("documented"):
    # Found by trying: more workers than cores and other file sizes were slower or no faster.
    SETTINGS |= {
        "EXTRACT__WORKERS": "10",
        "EXTRACT__MAX_PARALLEL_ITEMS": "20",
        "NORMALIZE__WORKERS": "2",
        "LOAD__WORKERS": "4",
        "DATA_WRITER__FILE_MAX_ITEMS": "10000",
    }
os.environ.update(SETTINGS)

import dlt  # noqa: E402 - its settings come first
import orjson  # noqa: E402
import requests  # noqa: E402
from by_hand import arrow, without_zone  # noqa: E402
from dlt.sources.helpers import requests as patient  # noqa: E402

THREADS_A_DAY = 4
TRADE, LINE = FACTS["tables"]["kuaimai_trade"], FACTS["tables"]["kuaimai_trade_line"]


def pages(day: tuple[str, str]) -> Iterator[list[dict[str, Any]]]:
    """Yield the orders of one day, page after page, by the client of dlt's documentation, which retries."""
    page, rows = 0, []
    while not page or not is_last(len(rows)):
        page += 1
        answer = patient.post(FACTS["url"], data=signed(page_form(day, page)), timeout=60)
        rows = orjson.loads(answer.content).get("list") or []
        yield rows


@dlt.resource(name="trade", primary_key="sid", write_disposition="merge")
def documented() -> Iterator[list[dict[str, Any]]]:
    """All days, one after the other."""
    for day in FACTS["days"]:
        yield from pages(day)


def documented_columns() -> Any:
    """The same with the fields that the other ways keep, picked by a map step as the documentation shows."""
    kept = {field for field, _, _ in TRADE["columns"]} | {"orders"}
    kept_of_lines = {field for field, _, _ in LINE["columns"]} - {"sid"}

    def pick(order: dict[str, Any]) -> dict[str, Any]:
        picked = {name: value for name, value in order.items() if name in kept}
        picked["orders"] = [
            {name: value for name, value in line.items() if name in kept_of_lines}
            for line in order.get("orders") or ()
        ]
        return picked

    return documented().add_map(pick)


def picked(orders: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return orders and lines as flat dicts of the target's columns; nested values as text."""
    lines = [{**line, "sid": order["sid"]} for order in orders for line in order.get("orders") or ()]
    return _flat(orders, TRADE), _flat(lines, LINE)


def _flat(records: list[dict[str, Any]], table: dict[str, Any]) -> list[dict[str, Any]]:
    wanted = [(field, column, kind == "json") for field, column, kind in table["columns"]]
    return [
        {
            column: orjson.dumps(record[field]).decode() if nested else record[field]
            for field, column, nested in wanted
            if record.get(field) is not None
        }
        for record in records
    ]


def tuned() -> list[Any]:
    """A parallel resource for each day; orders and lines go to two tables."""

    def of_day(number: int, day: tuple[str, str]) -> Any:
        @dlt.resource(name=f"day_{number}", parallelized=True)
        def read() -> Iterator[Any]:
            for orders in pages(day):
                headers, lines = picked(orders)
                yield dlt.mark.with_table_name(headers, "trade")
                yield dlt.mark.with_table_name(lines, "trade_line")

        return read

    return [of_day(number, day) for number, day in enumerate(FACTS["days"])]


def expert(strategy: Any) -> list[Any]:
    """Arrow tables with exact types, made by hand; pages of a day fetched by several threads."""

    def of_day(number: int, day: tuple[str, str]) -> Any:
        @dlt.resource(name=f"day_{number}", parallelized=True)
        def read() -> Iterator[Any]:
            yield from _arrow_of_day(day)

        return read

    _ = strategy
    return [of_day(number, day) for number, day in enumerate(FACTS["days"])]


def _arrow_of_day(day: tuple[str, str]) -> Iterator[Any]:
    session = requests.Session()

    def fetch(page: int) -> dict[str, Any]:
        answer = session.post(FACTS["url"], data=signed(page_form(day, page)), timeout=60)
        answer.raise_for_status()
        return orjson.loads(answer.content)

    first = fetch(1)
    count = -(-int(first.get("total") or 0) // int(FACTS["page_size"]))
    with ThreadPoolExecutor(THREADS_A_DAY) as pool:
        for body in (first, *pool.map(fetch, range(2, count + 1))):
            orders = body.get("list") or []
            lines = [{**line, "sid": order["sid"]} for order in orders for line in order.get("orders") or ()]
            for name, records, table in (("trade", orders, TRADE), ("trade_line", lines, LINE)):
                if records:
                    made = arrow(records, table)
                    yield dlt.mark.with_table_name(
                        without_zone(made) if WAY == "expert-without-zone" else made, name
                    )


def main() -> None:
    """Run one pipeline."""
    pipeline = dlt.pipeline(
        "bench",
        destination=dlt.destinations.postgres(FACTS["target"]),
        dataset_name="shop",
        pipelines_dir=os.path.join(os.environ["HOME"], "dlt"),  # noqa: PTH118
    )
    if WAY == "documented":
        pipeline.run(documented())
    elif WAY == "documented-columns":
        pipeline.run(documented_columns())
    else:
        strategy = "upsert" if WAY == "expert-upsert" else "delete-insert"
        resources = tuned() if WAY == "tuned" else expert(strategy)
        _with_keys(resources, strategy)
        loader = "parquet" if WAY == "expert-adbc" else "csv"
        pipeline.run(resources, loader_file_format=loader)


def _with_keys(resources: list[Any], strategy: str) -> None:
    for resource in resources:
        for name, key in (("trade", "sid"), ("trade_line", "id")):
            resource.apply_hints(
                table_name=name,
                primary_key=key,
                write_disposition={"disposition": "merge", "strategy": strategy},
                create_table_variant=True,
            )


if __name__ == "__main__":
    ready()
    main()
