"""A worker process that takes a slice through the stages and is killed on its way."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa
from workers import workers

from kuaimai.extract.staging import Staging
from kuaimai.extract.windows import Slice
from kuaimai.gateway.budget import Budget
from kuaimai.gateway.client import Client, FixedSession
from kuaimai.gateway.wire import App, Wire
from kuaimai.load.targets import open_target
from kuaimai.pipeline import stages
from kuaimai.pipeline.manifests import from_manifest
from kuaimai.pipeline.spec import load_pipeline


def work(plan: list[Any], facts: dict[str, Any], steps: int) -> None:
    """Do what the tasks of a run do; die before the request or statement with the number `steps`."""
    left = [steps]

    def step(*_: Any, **__: Any) -> None:
        left[0] -= 1
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def now() -> float:
        return float(facts["now"])

    pipeline, staging = load_pipeline(Path(facts["pipeline"])), Staging(Path(facts["staging"]))
    target = open_target(facts["target"], now=now)
    sa.event.listen(target.engine, "before_cursor_execute", step)
    http = requests.Session()
    http.hooks["response"].append(step)
    wire = Wire(App(facts["app_key"], facts["app_secret"]), url=facts["url"], transport=http, now=now)
    client = Client(
        wire, FixedSession(facts["access_token"]), budget=Budget(1e6), sleep=lambda _seconds: None
    )
    for plain in plan:
        piece = from_manifest(plain, Slice)
        extracted = stages.extract(pipeline, piece, client, staging, now=now)
        stages.load(pipeline, stages.transform(pipeline, extracted, staging), staging, target)


def killed(plan: list[Any], facts: dict[str, Any], steps: int) -> bool:
    """Run `work` in a process of its own; return whether it was killed before it had ended."""
    process = workers().Process(target=work, args=(plan, facts, steps))
    process.start()
    process.join(120)
    return process.exitcode == -signal.SIGKILL
