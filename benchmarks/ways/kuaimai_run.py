"""This package: one run of its DAG with one time dimension, its slices one after the other, without Airflow.

    python kuaimai_run.py FACTS upd_time live       as scheduled: with overlap, and what is still unsealed
    python kuaimai_run.py FACTS created interval    exactly the interval, as a person or a backfill asks

Five requests a second, which is the Connection's default, by a budget in the coordination store. Prints one
JSON object: whether all is sealed, the open windows, and how many records are in quarantine.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from pathlib import Path

import requests
from asking import FACTS, ready
from kuaimai_stages import base_only, driver

from kuaimai.extract.staging import Staging
from kuaimai.gateway.budget import SharedBudget
from kuaimai.gateway.client import Client, FixedSession
from kuaimai.gateway.wire import App, Wire
from kuaimai.load.targets import open_target
from kuaimai.pipeline import coverage, stages
from kuaimai.pipeline.scopes import fetch_shops
from kuaimai.pipeline.slices import plan_slices
from kuaimai.pipeline.summary import summarise
from kuaimai.state import Store

REQUESTS_PER_SECOND = 5.0


def main(dimension: str, *, live: bool) -> None:
    """Plan, read, write, settle, and say what was sealed."""
    pipeline = base_only()
    start, end = (datetime.fromisoformat(one) for one in FACTS["interval"])
    app = App(FACTS["credentials"]["app_key"], FACTS["credentials"]["app_secret"])
    staging = Staging(Path(os.environ["HOME"]) / "staging")
    store = Store.open(driver(FACTS["store"]))
    target = open_target(driver(FACTS["target"]))
    with requests.Session() as transport:
        client = Client(
            Wire(app, url=FACTS["url"], transport=transport),
            FixedSession(FACTS["credentials"]["access_token"]),
            budget=SharedBudget(lambda: store, app.app_key, rate=REQUESTS_PER_SECOND),
        )
        loaded = []
        for piece in plan_slices(
            pipeline,
            run=f"{dimension}-{end:%d%H%M%S}",
            start=start,
            end=end,
            shops=fetch_shops(client),
            live=live,
            target=target,
            dimension=dimension,
        ):
            extracted = stages.extract(pipeline, piece, client, staging)
            transformed = stages.transform(pipeline, extracted, staging)
            loaded.append(stages.load(pipeline, transformed, staging, target))
    coverage.settle(pipeline.name, [window for one in loaded for window in one.windows], target)
    summary = summarise(pipeline, loaded)
    target.close()
    store.close()
    print(
        json.dumps(
            {
                "sealed": summary.sealed,
                "open": summary.open_windows[:3],
                "quarantined": summary.quarantined,
                "requests": summary.requests,
            }
        )
    )


if __name__ == "__main__":
    ready()
    main(sys.argv[2], live=sys.argv[3] == "live")
