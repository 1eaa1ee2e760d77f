"""Side by side: this package and what a user would pick instead, on one gateway and one PostgreSQL.

    make bench                                           all that bench.py selects
    python benchmarks/bench_ways.py --orders 20000 --latency 0.05 kuaimai-2 session
    python benchmarks/bench_ways.py --orders 50000 --latency 0 download-1 download-8 parse write
    python benchmarks/bench_ways.py --list

Each way runs in a process tree of its own, into a fresh database, one after the other; what it wrote is
compared with the truth. What was measured is added to benchmarks/results/ways.json; report.py makes the
tables and the plot of it. Repeated ways take turns, so that a noisy minute meets all of them; the median
is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg2
from corpus import END, PAGE_SIZE, ROOT, START, Corpus, corpus
from measure import HERE, Postgres, gateway, run

sys.path.insert(0, str(ROOT / "plugins"))

RESULTS = HERE / "results" / "ways.json"
OURS = ("kuaimai_trade", "kuaimai_trade_line")
AIRFLOW = str(ROOT / ".venv-airflow3" / "bin" / "python")


@dataclass(frozen=True)
class Way:
    """One way to bring the orders into the database.

    Attributes:
        name: as on the command line and in the results.
        title: as in the table.
        script: below ways/.
        how: its argument.
        tables: where it puts orders and lines; empty if it writes nothing.
        python: its interpreter.
    """

    name: str
    title: str
    script: str
    how: str
    tables: tuple[str, ...] = OURS
    python: str = sys.executable


WAYS = {
    way.name: way
    for way in (
        Way("kuaimai-2", "this package, 2 processes", "kuaimai_stages.py", "2"),
        Way("kuaimai-3", "this package, 3 processes", "kuaimai_stages.py", "3"),
        Way("kuaimai-4", "this package, 4 processes", "kuaimai_stages.py", "4"),
        Way("article", "plain loop of the seed article (requests.post, executemany)", "loops.py", "article"),
        Way("session", "plain loop with a Session and multi-row insert", "loops.py", "session"),
        Way(
            "http-operator",
            "Airflow HttpOperator with pagination_function, executemany",
            *("http_operator.py", "executemany", OURS, AIRFLOW),
        ),
        Way(
            "http-operator-multirow",
            "Airflow HttpOperator with pagination_function, multi-row insert",
            *("http_operator.py", "multirow", OURS, AIRFLOW),
        ),
        Way("dlt-documented", "dlt as its documentation shows it, every field", "dlt_ways.py", "documented",
            ("shop.trade", "shop.trade__orders")),
        Way("dlt-documented-columns", "dlt as its documentation shows it, the same columns", "dlt_ways.py",
            "documented-columns", ("shop.trade", "shop.trade__orders")),
        Way("dlt-tuned", "dlt tuned (resources per day, workers, file sizes)", "dlt_ways.py", "tuned",
            ("shop.trade", "shop.trade_line")),
        Way("dlt-expert", "dlt by an expert (threads, hand-flattened Arrow, csv loader)", "dlt_ways.py",
            "expert", ("shop.trade", "shop.trade_line")),
        Way("dlt-expert-upsert", "dlt by an expert, merge strategy upsert", "dlt_ways.py",
            "expert-upsert", ("shop.trade", "shop.trade_line")),
        Way("dlt-expert-without-zone", "dlt by an expert, times without a zone", "dlt_ways.py",
            "expert-without-zone", ("shop.trade", "shop.trade_line")),
        Way("dlt-expert-adbc", "dlt by an expert, Parquet through ADBC", "dlt_ways.py", "expert-adbc",
            ("shop.trade", "shop.trade_line")),
    )
}  # fmt: skip
LIMITS = {
    way.name: way
    for way in (
        *(Way(f"download-{n}", f"download and discard, {n} connections", "limits.py", str(n), ())
          for n in (1, 8, 32)),
        Way("parse", "orjson, and from there to Arrow tables", "limits.py", "parse", ()),
        Way("write", "COPY of prepared rows and merge", "limits.py", "write"),
        Way("bare-work", "parse, explode, COPY and merge by a process a core", "limits.py", "bare-work"),
    )
}  # fmt: skip
USUAL = [
    *("kuaimai-2", "article", "session", "http-operator", "http-operator-multirow"),
    *("dlt-documented", "dlt-documented-columns", "dlt-tuned", "dlt-expert"),
]


def columns() -> dict[str, Any]:
    """Return the target's columns for the hand-written ways, from the package's catalogue."""
    from kuaimai.transform.mapping import Mapper

    return {
        table.name: {
            "key": table.key,
            "columns": [[field.name, field.column, field.type] for field in table.fields],
        }
        for table in Mapper("trade").tables
    }


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def measure(
    way: Way, data: Corpus, postgres: Postgres, *, latency: float, rate_limit: int, most_seconds: float
) -> dict[str, Any]:
    """Run one way once and return its figures."""
    database = "bench"
    target = postgres.fresh(database)
    store = postgres.fresh("bench_state")
    with (
        gateway(data.truth["orders"], latency=latency, rate_limit=rate_limit) as served,
        tempfile.TemporaryDirectory(prefix="kuaimai-bench-home-") as home,
    ):
        facts = {
            "url": served["url"],
            "target": target,
            "store": store,
            "days": data.days(),
            "interval": [START.isoformat(), END.isoformat()],
            "page_size": PAGE_SIZE,
            "rate_limit": rate_limit,
            "tables": columns(),
        }
        before = os.getloadavg()[0]
        measured = run(
            [way.python, "-W", "ignore", str(HERE / "ways" / way.script), json.dumps(facts), way.how],
            postmaster=postgres.postmaster,
            server=served["pid"],
            most_seconds=most_seconds,
            env={"HOME": home, "AIRFLOW_HOME": home, "PYTHONPATH": str(HERE / "ways")},
        )
    wrong = ""
    if measured.ended == "ok" and way.tables:
        wrong = postgres.what_is_wrong(database, data.truth, way.tables)
    postgres.drop(database)
    return {
        "way": way.name,
        "orders": data.truth["orders"],
        "latency": latency,
        "rate_limit": rate_limit,
        **{
            name: round(value, 2) if isinstance(value, float) else value
            for name, value in asdict(measured).items()
        },
        "orders_per_second": round(data.truth["orders"] / measured.wall),
        "wrong": wrong,
        "load_before": round(before, 2),
        "at": datetime.now(tz=timezone.utc).isoformat(timespec="seconds"),
    }


def median(former: list[dict[str, Any]], result: dict[str, Any]) -> dict[str, Any]:
    """Add a run to the former ones and return the one in the middle, with the seconds of all."""
    former.append(result)
    by_wall = sorted(former, key=lambda one: float(one["wall"]))
    return {**by_wall[len(by_wall) // 2], "walls": [one["wall"] for one in by_wall]}


def keep(
    result: dict[str, Any],
    facts: dict[str, Any],
    results: Path = RESULTS,
    *,
    same: Sequence[str] = ("way", "orders", "latency", "rate_limit"),
) -> None:
    """Add a run to the results; the same way under the same conditions replaces its former run."""
    stored = json.loads(results.read_text()) if results.exists() else {"runs": []}
    runs = [one for one in stored["runs"] if any(one.get(name) != result.get(name) for name in same)]
    results.parent.mkdir(exist_ok=True)
    results.write_text(json.dumps({**stored, **facts, "runs": [*runs, result]}, indent=1) + "\n")


def versions(postgres: Postgres) -> dict[str, str]:
    """Return the versions of what was compared."""
    asked = "from importlib.metadata import version as v; print(v('apache-airflow'), v({!r}))"
    airflow = subprocess.run(
        [AIRFLOW, "-c", asked.format("apache-airflow-providers-http")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    ).stdout.split()
    found = {
        name: version(name) for name in ("dlt", "pyarrow", "requests", "psycopg2-binary", "orjson", "msgspec")
    }
    if airflow:
        found["apache-airflow"], found["apache-airflow-providers-http"] = airflow
    return {**found, "postgresql": postgres.version}


def is_wrong(result: dict[str, Any]) -> bool:
    """Whether a run went as it should not; where a limit is set, failing is what others are measured for."""
    if result["rate_limit"] and not result["way"].startswith("kuaimai"):
        return False
    return bool(result["wrong"] or result["ended"] != "ok")


def told(result: dict[str, Any]) -> str:
    """Return a run as one line."""
    return (
        f"{result['way']:24} {result['orders']:>8,} orders {result['latency'] * 1000:>4.0f} ms "
        f"{result['orders_per_second']:>6,}/s  {result['wall']:>6.1f} s  "
        f"CPU {result['cpu']:>6.1f}  PG {result['postgres_cpu']:>5.1f}  "
        f"server {result['server_cpu']:>4.1f}  {result['peak_mib']:>5.0f} MiB  "
        f"load {result['load_before']}  "
        f"{result['wrong'] or result['ended']}  {result['output'] or ''}"
    )


def main() -> int:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ways", nargs="*", metavar="way", help="default: the usual ones; see --list")
    parser.add_argument("--list", action="store_true", help="name all ways and end")
    parser.add_argument("--orders", type=int, default=20_000)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.05], help="seconds, one or more")
    parser.add_argument("--rate-limit", type=int, default=0, help="requests a second that the gateway allows")
    parser.add_argument("--repeat", type=int, default=1, help="how often each way runs")
    parser.add_argument("--most-seconds", type=float, default=170, help="a way that takes longer is ended")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    known = {**WAYS, **LIMITS}
    if options.list:
        print("\n".join(f"{way.name:26}{way.title}" for way in known.values()))
        return 0
    data = corpus(options.orders)
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="kuaimai-bench-") as folder:
        postgres = Postgres(Path(folder) / "pg")
        facts = {"machine": machine(), "versions": versions(postgres)}
        try:
            for latency in options.latency:
                taken: dict[str, list[dict[str, Any]]] = {}
                for name in (options.ways or USUAL) * options.repeat:
                    try:
                        result = measure(
                            known[name],
                            data,
                            postgres,
                            latency=latency,
                            rate_limit=options.rate_limit,
                            most_seconds=options.most_seconds,
                        )
                    except (OSError, ValueError, psycopg2.Error) as error:
                        # The gateway or the database, not the way: the others can still be measured.
                        print(f"{name:24} could not be measured: {error!r}", flush=True)
                        wrong += 1
                        continue
                    keep(median(taken.setdefault(name, []), result), facts, options.results)
                    wrong += is_wrong(result)
                    print(told(result), flush=True)
        finally:
            postgres.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
