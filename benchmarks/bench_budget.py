"""The shared request budget: do several processes together use it whole, and never more than it?

Four processes with four threads each always have work, at 15 requests a second on one coordination store. The
gateway writes down when each request arrived, which gives two figures: the share of the budget that was used
while all had work, and the most requests in any window of one second (promised: never more than rate and
burst together).

    make bench            (or: python benchmarks/bench_budget.py --seconds 60 postgresql sqlite)
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import threading
import time
import urllib.request
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench_ways import keep, machine
from corpus import PAGE_SIZE, ROOT, corpus
from measure import HERE, Postgres, gateway

sys.path.insert(0, str(ROOT / "plugins"))

RESULTS = HERE / "results" / "budget.json"
PROMISED_SHARE = 0.97
RATE = 15
PROCESSES = 4
THREADS = 4
ORDERS = 20_000
PATIENCE_SECONDS = 180.0  # for the imports of all processes on a busy machine


def spend(url: str, store_url: str, seconds: float, day: tuple[str, str], together: Any) -> None:
    """Ask for pages through the package's client, by a few threads, until the time is over."""
    import requests

    from kuaimai.gateway.budget import SharedBudget
    from kuaimai.gateway.client import Client, FixedSession
    from kuaimai.gateway.wire import App, Wire
    from kuaimai.state import Store

    store = Store.open(store_url)
    budget = SharedBudget(lambda: store, "bench", rate=RATE)
    asked = {"timeType": "upd_time", "startTime": day[0], "endTime": day[1]}
    with requests.Session() as session:
        client = Client(
            Wire(App("bench", "bench-secret"), url=url, transport=session),
            FixedSession("bench-session"),
            budget=budget,
        )

        def work() -> None:
            while time.time() < until:
                client.call(
                    "erp.trade.outstock.simple.query",
                    {**asked, "pageNo": "1", "pageSize": str(PAGE_SIZE)},
                )

        together.wait(PATIENCE_SECONDS)  # imports take their time
        until = time.time() + seconds
        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    store.close()


def most_in_one_second(moments: list[float]) -> int:
    """Return the most moments that any half-open window of one second holds."""
    most = first = 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - 1:
            first += 1
        most = max(most, last - first + 1)
    return most


def measure(store: str, store_url: str, *, seconds: float, latency: float) -> dict[str, Any]:
    """Let the processes work and return what the gateway saw."""
    from kuaimai.gateway.budget import BURST

    context = multiprocessing.get_context("spawn")
    with gateway(ORDERS, latency=latency) as served:
        day = corpus(ORDERS).days()[0]
        together = context.Barrier(PROCESSES + 1)
        processes = [
            context.Process(target=spend, args=(served["url"], store_url, seconds, day, together))
            for _ in range(PROCESSES)
        ]
        for process in processes:
            process.start()
        together.wait(PATIENCE_SECONDS)
        begun = time.time()
        for process in processes:
            process.join(seconds + 60)
        with urllib.request.urlopen(served["url"].replace("/router", "/log")) as answer:  # noqa: S310 - ours
            moments = sorted(moment for moment, _ in json.load(answer))
    # The first second belongs to the burst; in the last, some have no work any more.
    steady = [moment for moment in moments if begun + 1 <= moment < begun + seconds - 1]
    return {
        "way": f"budget-{store}",
        "orders": 0,
        "latency": latency,
        "rate_limit": RATE,
        "processes": PROCESSES,
        "threads": THREADS,
        "seconds": seconds,
        "requests": len(steady),
        "used": round(len(steady) / ((seconds - 2) * RATE), 4),
        "most_in_one_second": most_in_one_second(moments),
        "allowed_in_one_second": RATE + BURST,
        "at": datetime.now(tz=timezone.utc).isoformat(timespec="seconds"),
    }


def main() -> int:
    """Measure on each kind of store."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("stores", nargs="*", default=["postgresql", "sqlite"])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    corpus(ORDERS)
    missed = 0
    with tempfile.TemporaryDirectory(prefix="kuaimai-bench-") as folder:
        postgres = Postgres(Path(folder) / "pg")
        urls = {
            "postgresql": postgres.fresh("bench_state").replace("postgresql:", "postgresql+psycopg2:", 1),
            "sqlite": f"sqlite:///{folder}/state.db",
        }
        try:
            for store in options.stores:
                result = measure(store, urls[store], seconds=options.seconds, latency=options.latency)
                keep(result, {"machine": machine()}, options.results)
                print(
                    f"{store}: {result['requests']} requests in {options.seconds - 2:.0f} s, "
                    f"{result['used']:.1%} of the budget; "
                    f"at most {result['most_in_one_second']} in one second "
                    f"(allowed {result['allowed_in_one_second']})",
                    flush=True,
                )
                missed += (
                    result["most_in_one_second"] > result["allowed_in_one_second"]
                    or result["used"] < PROMISED_SHARE
                )
        finally:
            postgres.close()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
