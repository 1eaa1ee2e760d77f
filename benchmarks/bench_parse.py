"""What parsing the DAG files costs beyond what Airflow's own imports cost: at most 0.3 s is the promise.

Each figure is the median of fresh processes: first everything that any DAG file of this Airflow imports
(`DAG`, `BaseOperator`, the notifier base and the HTTP provider's hook are Airflow's own), then our files.

    make bench            (or: python benchmarks/bench_parse.py, in an environment with Airflow)
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = 7

PARSE = """
import json, runpy, sys, time
from airflow.providers.common.compat.sdk import DAG, BaseHook, BaseNotifier, BaseOperator, Asset, Param, conf
try:
    from airflow.sdk import CronDataIntervalTimetable
    from airflow.sdk.definitions.deadline import DeadlineAlert
except ImportError:
    from airflow.timetables.interval import CronDataIntervalTimetable
with DAG("warm", schedule=None):  # the first DAG of a process pays for templates and serialisers
    BaseOperator(task_id="warm")
before = set(sys.modules)
started = time.perf_counter()
for path in sys.argv[1:]:
    runpy.run_path(path)
seconds = time.perf_counter() - started
heavy = {"pyarrow", "pandas", "sqlalchemy", "requests", "psycopg2"} & (set(sys.modules) - before)
print(json.dumps({"seconds": seconds, "heavy": sorted(heavy)}))
"""


def main() -> None:
    """Measure and print one line."""
    files = sorted(str(path) for path in (ROOT / "dags").glob("*.py"))
    with tempfile.TemporaryDirectory() as home:
        settings = {
            **os.environ,
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PYTHONPATH": str(ROOT / "plugins"),
        }
        figures = []
        for _ in range(RUNS + 1):
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", PARSE, *files],
                env=settings,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=True,
            )
            figures.append(json.loads(done.stdout.splitlines()[-1]))
    from importlib.metadata import version

    seconds = [one["seconds"] for one in figures[1:]]  # the first compiles the files
    print(
        f"Airflow {version('apache-airflow')}: {len(files)} DAG files parse in "
        f"{statistics.median(seconds):.3f} s beyond Airflow's own imports "
        f"({min(seconds):.3f} to {max(seconds):.3f}, {RUNS} processes); "
        f"heavy modules they import: {', '.join(figures[-1]['heavy']) or 'none'}"
    )


if __name__ == "__main__":
    main()
