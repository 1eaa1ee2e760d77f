"""This package: the slices of a run, each through extract, transform and load, by a few processes.

This is what a LocalExecutor with so many processes runs, without its scheduler. Shops are fetched and slices
planned first, as a backfill plans them. The base method only, as the other ways read one method.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import requests
from asking import FACTS, ready

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "plugins"))

from kuaimai.extract.staging import Staging  # noqa: E402 - the path comes first
from kuaimai.extract.windows import Slice  # noqa: E402
from kuaimai.gateway.budget import Budget, SharedBudget  # noqa: E402
from kuaimai.gateway.client import Client, FixedSession  # noqa: E402
from kuaimai.gateway.wire import App, Wire  # noqa: E402
from kuaimai.load.targets import open_target  # noqa: E402
from kuaimai.pipeline import planner, stages  # noqa: E402
from kuaimai.pipeline.manifests import Loaded, from_manifest, to_manifest  # noqa: E402
from kuaimai.pipeline.scopes import fetch_shops  # noqa: E402
from kuaimai.pipeline.slices import plan_slices  # noqa: E402
from kuaimai.pipeline.spec import Pipeline, load_pipeline  # noqa: E402
from kuaimai.pipeline.summary import summarise  # noqa: E402
from kuaimai.state import Store  # noqa: E402

UNLIMITED = 1e6


def driver(url: str) -> str:
    """Name the driver: SQLAlchemy's own choice differs between its versions."""
    return url.replace("postgresql:", "postgresql+psycopg2:", 1)


def base_only() -> Pipeline:
    """Return the pipeline of the package's own example, without its enriching method."""
    pipeline = load_pipeline(ROOT / "include" / "pipelines" / "trades.yaml")
    return pipeline.model_copy(update={"source": pipeline.source.model_copy(update={"enrich": ()})})


@cache
def _store() -> Store:
    return Store.open(driver(FACTS["store"]))


def client(transport: requests.Session) -> Client:
    """Return a client; with a limit, paced by the store that all processes share."""
    rate = FACTS["rate_limit"]
    budget = SharedBudget(_store, "bench", rate=rate) if rate else Budget(UNLIMITED)
    return Client(
        Wire(App("bench", "bench-secret"), url=FACTS["url"], transport=transport),
        FixedSession("bench-session"),
        budget=budget,
    )


def one_slice(plain: Any, folder: str) -> tuple[Any, dict[str, float]]:
    """Take one slice the whole way, as its three tasks would; return its manifest and the seconds of each."""
    pipeline, staging = base_only(), Staging(Path(folder))
    seconds = [time.perf_counter()]
    with requests.Session() as transport:
        extracted = stages.extract(pipeline, from_manifest(plain, Slice), client(transport), staging)
    seconds.append(time.perf_counter())
    transformed = stages.transform(pipeline, extracted, staging)
    seconds.append(time.perf_counter())
    target = open_target(driver(FACTS["target"]))
    loaded = stages.load(pipeline, transformed, staging, target)
    target.close()
    seconds.append(time.perf_counter())
    names = ("extract", "transform", "load")
    spent = dict(zip(names, (b - a for a, b in pairwise(seconds)), strict=True))
    return to_manifest(loaded), spent


def planned(pipeline: Pipeline) -> list[Slice]:
    """Fetch the shops and plan the slices, as the first task of a run does."""
    start, end = (datetime.fromisoformat(one) for one in FACTS["interval"])
    with requests.Session() as transport:
        shops = fetch_shops(client(transport))
    target = open_target(driver(FACTS["target"]))
    pieces = plan_slices(
        pipeline,
        run="bench",
        start=start,
        end=end,
        shops=shops,
        live=False,
        target=target,
        now=(end + timedelta(hours=1)).timestamp,
    )
    target.close()
    return pieces


def backfilled(pipeline: Pipeline) -> Sequence[Slice]:
    """Plan the slices as the DAG for backfills does: by what the gateway counts, not by the clock."""
    start, end = (datetime.fromisoformat(one) for one in FACTS["interval"])
    target = open_target(driver(FACTS["target"]))
    with requests.Session() as transport:
        asking = client(transport)
        plan = planner.plan_backfill(
            pipeline,
            run="bench",
            start=start,
            end=end,
            shops=fetch_shops(asking),
            dimension=pipeline.time.dimension,
            client=asking,
            rate=FACTS["rate_limit"] or UNLIMITED,
            target=target,
            now=(end + timedelta(hours=1)).timestamp,
        )
    planner.announce(plan, pipeline, target)
    target.close()
    return plan.slices


def main(processes: int) -> None:
    """Plan, read, write, and say what was sealed."""
    pipeline = base_only()
    pieces = backfilled(pipeline)
    with (
        tempfile.TemporaryDirectory(prefix="kuaimai-bench-") as folder,
        ProcessPoolExecutor(processes) as pool,
    ):
        done = list(pool.map(one_slice, map(to_manifest, pieces), [folder] * len(pieces)))
    loaded = [from_manifest(plain, Loaded) for plain, _ in done]
    summary = summarise(pipeline, loaded)
    print(
        json.dumps(
            {
                "sealed": summary.sealed,
                "open": summary.open_windows[:3],
                "requests": summary.requests,
                **{
                    name: round(sum(spent[name] for _, spent in done), 2)
                    for name in ("extract", "transform", "load")
                },
            }
        )
    )


if __name__ == "__main__":
    ready()
    main(int(sys.argv[2]))
