"""The same ways under faults: what is in the database afterwards, and did anybody get to know?

    make bench                                       (or: python benchmarks/bench_faults.py; some ten minutes)
    python benchmarks/bench_faults.py --fault drift --fault busy kuaimai session
    python benchmarks/bench_faults.py --list

The sandbox gateway with some 3,000 orders of five days, and one of its faults at a time. Every way

1. reads the five days; if it fails, it is started again as Airflow would, twice at most;
2. when the fault is over, reads the time since then, as its next scheduled run would.

This package reads the five days by both times that its schedules read: by change and by creation. Then the
keys of orders and lines in the database are compared with those that the merchant had before. The time
between two tries is left out; nothing here is measured in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg2
from bench_ways import AIRFLOW, OURS, columns, keep, machine
from corpus import CHINA, PAGE_SIZE, ROOT
from measure import HERE, Measured, Postgres, run

sys.path.insert(0, str(ROOT / "plugins"))

from kuaimai.sandbox import Failure, Faults, Sandbox, World

RESULTS = HERE / "results" / "faults.json"
ORDERS = 2_750  # planned; splits make more records of them
DAYS = 5
TRIES = 3
STRIKES_AT = 6  # in the midst of the second day for those who page through a day after the other
MOST_SECONDS = 240.0
_TIME = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong at the gateway.

    Attributes:
        name: as on the command line and in the results.
        switches: of the sandbox, as its command line takes them; see its README.
    """

    name: str
    switches: tuple[str, ...]


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("none", ()),
        Fault("429", (f"429=at{STRIKES_AT}",)),
        Fault("503", (f"503=at{STRIKES_AT}",)),
        Fault("disconnect", (f"disconnect=at{STRIKES_AT}",)),
        Fault("truncated", (f"truncated=at{STRIKES_AT}",)),
        Fault("html", (f"html=at{STRIKES_AT}",)),
        Fault("busy", (f"busy=at{STRIKES_AT}",)),
        Fault("session", ()),  # see SessionEnds
        Fault("rate-15", ("rate_limit=15",)),
        Fault("rate-2", ("rate_limit=2",)),
        Fault("page-cap", ("page_cap=50",)),
        Fault("drift", ("drift=1", "drift_touch=2")),
        Fault("null-modified", ("null_modified=0.02",)),
        Fault("bad-amount", ("bad_amount=0.01",)),
    )
}


@dataclass(frozen=True)
class Way:
    """One way to bring the orders into the database.

    Attributes:
        name: as on the command line and in the results.
        script: below ways/.
        first: arguments of its runs over the five days.
        then: arguments of its run over the time since.
        tables: where it puts orders and lines.
        python: its interpreter.
    """

    name: str
    script: str
    first: tuple[tuple[str, ...], ...]
    then: tuple[str, ...]
    tables: tuple[str, str] = OURS
    python: str = sys.executable


_DLT = ("shop.trade", "shop.trade__orders")
_DLT_FLAT = ("shop.trade", "shop.trade_line")
WAYS = {
    way.name: way
    for way in (
        Way("session", "loops.py", (("session",),), ("session",)),
        Way("checked", "loops.py", (("checked",),), ("checked",)),
        Way("http-operator", "http_operator.py", (("executemany",),), ("executemany",), python=AIRFLOW),
        Way("dlt-documented", "dlt_ways.py", (("documented",),), ("documented",), _DLT),
        Way("dlt-expert", "dlt_ways.py", (("expert",),), ("expert",), _DLT_FLAT),
        Way(
            "kuaimai",
            "kuaimai_run.py",
            (("upd_time", "interval"), ("created", "interval")),
            ("upd_time", "live"),
        ),
    )
}
USUAL = [name for name in WAYS if name != "dlt-expert"]


class SessionEnds(Failure):
    """From one request on the gateway refuses the session, as when nobody refreshed it for 30 days."""

    def __init__(self, box: Sandbox) -> None:
        super().__init__("busy", at=STRIKES_AT)
        self._box = box

    def strikes(self, method: str, seed: int, position: int) -> bool:
        """End the session when its request has come; the request itself is answered as the gateway does."""
        if super().strikes(method, seed, position):
            self._box.session.expire()
        return False


class Trial:
    """One way under one fault, from an empty database on."""

    def __init__(self, way: Way, box: Sandbox, postgres: Postgres, end: datetime, home: Path) -> None:
        self._way = way
        self._postgres = postgres
        self._end = end
        self._home = home
        self._facts: dict[str, Any] = {
            "url": box.url,
            "credentials": {
                name: getattr(box.credentials, name) for name in ("app_key", "app_secret", "access_token")
            },
            "target": postgres.fresh("bench"),
            "store": postgres.fresh("bench_state"),
            "page_size": PAGE_SIZE,
            "rate_limit": 0,
            "tables": columns(),
        }

    def run(self, how: Sequence[str], days: Sequence[tuple[datetime, datetime]]) -> Measured:
        """Run the way once over some days."""
        facts = {
            **self._facts,
            # The gateway's windows hold both their ends.
            "days": [
                ((first.strftime(_TIME)), (last - timedelta(seconds=1)).strftime(_TIME))
                for first, last in days
            ],
            "interval": [days[0][0].isoformat(), days[-1][1].isoformat()],
        }
        home, script = str(self._home), str(HERE / "ways" / self._way.script)
        return run(
            [self._way.python, "-W", "ignore", script, json.dumps(facts), *how],
            postmaster=self._postgres.postmaster,
            server=os.getpid(),
            most_seconds=MOST_SECONDS,
            env={"HOME": home, "AIRFLOW_HOME": home, "PYTHONPATH": str(HERE / "ways")},
        )

    def five_days(self) -> list[Measured]:
        """Read the five days, again where that failed; return every try."""
        days = [
            (self._end - timedelta(days=back), self._end - timedelta(days=back - 1))
            for back in range(DAYS, 0, -1)
        ]
        done = []
        for how in self._way.first:
            for _ in range(TRIES):
                done.append(self.run(how, days))
                if done[-1].ended == "ok":
                    break
        return done

    def time_since(self) -> Measured:
        """Read what changed since the five days."""
        return self.run(self._way.then, [(self._end, datetime.now(tz=CHINA) + timedelta(seconds=1))])


def keys(url: str, table: str, key: str) -> set[str]:
    """Return the keys of a table as text; none if the table was never made."""
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT DISTINCT {key}::text FROM {table}")
            return {row[0] for row in cursor}
    except psycopg2.errors.UndefinedTable:
        return set()
    finally:
        connection.close()


def incomplete(url: str, tables: tuple[str, str], truth: dict[str, set[str]]) -> set[str]:
    """Return the orders that the database lacks, or that lack lines there.

    Args:
        url: the database.
        tables: its tables of orders and of lines.
        truth: ids of the lines by `sid`.
    """
    orders, lines = keys(url, tables[0], "sid"), keys(url, tables[1], "id")
    return {sid for sid, ids in truth.items() if sid not in orders or not ids <= lines}


def outcome(result: dict[str, Any]) -> str:
    """Say in one word what became of a way under a fault.

    ok: all is there. again: all is there after a further try. later: the run failed, the next one mended it.
    told: rows are missing and a run failed or said so. silent: rows are missing and every run was a success.
    """
    failed = "failed" in (result["ended"], result["next_ended"])
    if not result["missing"]:
        return "later" if failed else "again" if result["tries"] > result["runs"] else "ok"
    return "told" if failed or not result["sealed"] else "silent"


def measure(way: Way, fault: Fault, postgres: Postgres, *, end: datetime) -> dict[str, Any]:
    """Let one way live through one fault and return what became of it."""
    world = World(start=end, bulk=ORDERS, bulk_days=DAYS, orders_per_hour=0, archive_orders=0, until=end)
    with (
        Sandbox(world, Faults.parse(list(fault.switches))) as box,
        tempfile.TemporaryDirectory(prefix="kuaimai-bench-home-") as home,
    ):
        truth = {sid: {str(line["id"]) for line in one["orders"]} for sid, one in box.truth().items()}
        bad = set(box.bad())
        if fault.name == "session":
            box.faults.plan.append(SessionEnds(box))
        trial = Trial(way, box, postgres, end, Path(home))
        first = trial.five_days()
        box.faults.reset()
        then = trial.time_since()
        requests = len(box.requests)
    url = postgres.url("bench")
    missing = incomplete(url, way.tables, truth)
    held = missing & bad & keys(url, "kuaimai_quarantine", "record_key") if way.name == "kuaimai" else set()
    postgres.drop("bench")
    postgres.drop("bench_state")
    last = [one for one in first if one.ended == "ok"]
    said = [one.output for one in (*first, then) if one.ended != "ok"]
    result = {
        "way": way.name,
        "fault": fault.name,
        "orders": len(truth),
        "missing": len(missing - held),
        "quarantined": len(held),
        "runs": len(way.first),
        "tries": len(first),
        "ended": "ok" if len(last) == len(way.first) else "failed",
        "next_ended": "ok" if then.ended == "ok" else "failed",
        # Only this package says so; a way that says nothing counts as having said that all is there.
        "sealed": all(
            one.output.get("sealed", True) for one in (*last, then) if isinstance(one.output, dict)
        ),
        "says": str(said[0]) if said else "",
        "requests": requests,
        "at": datetime.now(tz=timezone.utc).isoformat(timespec="seconds"),
    }
    return {**result, "outcome": outcome(result)}


def main() -> int:
    """Try what the command line names; fails if this package lost anything without a word."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ways", nargs="*", metavar="way", help="default: all but dlt-expert; see --list")
    parser.add_argument("--fault", action="append", choices=FAULTS, help="default: all; may be repeated")
    parser.add_argument("--list", action="store_true", help="name all ways and faults and end")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.list:
        print(f"ways: {', '.join(WAYS)}")
        print("\n".join(f"{one.name:16}{' '.join(one.switches)}" for one in FAULTS.values()))
        return 0
    end = datetime.fromtimestamp(time.time() // 3600 * 3600, CHINA)
    lost = 0
    with tempfile.TemporaryDirectory(prefix="kuaimai-bench-") as folder:
        postgres = Postgres(Path(folder) / "pg")
        try:
            for fault in options.fault or FAULTS:
                for name in options.ways or USUAL:
                    started = time.monotonic()
                    result = measure(WAYS[name], FAULTS[fault], postgres, end=end)
                    keep(result, {"machine": machine()}, options.results, same=("way", "fault"))
                    lost += name == "kuaimai" and result["outcome"] == "silent"
                    print(
                        f"{fault:14} {name:16} {result['outcome']:7} {result['missing']:>5} of "
                        f"{result['orders']:,} missing, {result['quarantined']} in quarantine, "
                        f"{result['tries']} tries, {time.monotonic() - started:.0f} s  {result['says']}",
                        flush=True,
                    )
        finally:
            postgres.close()
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
