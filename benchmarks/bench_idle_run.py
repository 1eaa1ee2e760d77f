"""Seconds from queued to ended of a scheduled run that finds no new rows, on LocalExecutor.

The demo's own processes (Airflow 3 with SQLite, PostgreSQL as target, the sandbox) with a merchant who sells
nothing, and the pipeline `trades` on a one-minute schedule, so that a few runs fit into a few minutes.

    make bench            (or: python benchmarks/bench_idle_run.py [runs])
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(tempfile.mkdtemp(prefix="kuaimai-bench-"))
os.environ["KUAIMAI_DEMO"] = str(FOLDER)
sys.path.insert(0, str(ROOT / "demo"))

import services  # noqa: E402 - it reads KUAIMAI_DEMO when it is imported

RUNS = """
SELECT queued_at, end_date, state FROM dag_run
WHERE dag_id = ? AND run_type = 'scheduled' AND end_date IS NOT NULL ORDER BY id
"""
PATIENCE_SECONDS = 900.0


def finished(home: Path) -> list[tuple[float, str]]:
    """Return seconds and state of every scheduled run that has ended."""
    with (
        contextlib.suppress(sqlite3.OperationalError),
        contextlib.closing(sqlite3.connect(f"file:{home}/airflow.db?mode=ro", uri=True)) as metadata,
    ):
        return [
            ((datetime.fromisoformat(end) - datetime.fromisoformat(queued)).total_seconds(), state)
            for queued, end, state in metadata.execute(RUNS, (services.DAG_ID,))
        ]
    return []


def main(runs: int) -> int:
    """Let so many runs end, then print how long they took; the first one makes the tables."""
    services.LOGS.mkdir()
    pipelines = FOLDER / "pipelines"
    pipelines.mkdir()
    text = (ROOT / "include" / "pipelines" / "trades.yaml").read_text(encoding="utf-8")
    (pipelines / "trades.yaml").write_text(text.replace('"*/5 * * * *"', '"* * * * *"', 1), encoding="utf-8")
    done: list[tuple[float, str]] = []
    try:
        with services.postgres() as database:
            gateway = services.SandboxGateway("--orders-per-hour", "0", "--history-orders", "0")
            port = services.free_port(0)
            settings = {
                **services.airflow_settings(gateway, database, port),
                "KUAIMAI_PIPELINES": str(pipelines),
                "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
            }
            services.migrate(settings)
            processes = [gateway.process, *services.start_airflow(settings, port, ui=False)]
            services.wait_for(services.execution_api(port), processes)
            home = Path(settings["AIRFLOW_HOME"])
            services.unpause(services.DAG_ID, settings, processes)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while len(done) <= runs and time.monotonic() < deadline:
                for process in processes:
                    process.check()
                time.sleep(1.0)
                done = finished(home)
            services.end_all()
    finally:
        services.end_all()
        shutil.rmtree(FOLDER, ignore_errors=True)
    idle = [seconds for seconds, state in done[1:] if state == "success"]
    print("| runs | median s | shortest | longest |\n|---|---|---|---|")
    print(f"| {len(idle)} | {statistics.median(idle):.1f} | {min(idle):.1f} | {max(idle):.1f} |")
    return 0 if len(idle) >= runs else 1


if __name__ == "__main__":
    services.without_foreign_settings()
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 4))
