"""A whole installation without Airflow: sandbox, client, staging, target, and a schedule that tests turn."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import requests
import sqlalchemy as sa
from conftest import Clock

from kuaimai.errors import KuaimaiError
from kuaimai.extract.staging import Staging
from kuaimai.gateway.budget import Budget
from kuaimai.gateway.client import Client, FixedSession
from kuaimai.gateway.wire import App, Wire
from kuaimai.load.sql import SqlTarget
from kuaimai.load.targets import open_target
from kuaimai.pipeline import stages
from kuaimai.pipeline.coverage import settle
from kuaimai.pipeline.spec import Pipeline, load_pipeline
from kuaimai.sandbox import Faults, Sandbox, World

ROOT = Path(__file__).resolve().parent.parent
TRADES = ROOT / "include" / "pipelines" / "trades.yaml"
CHINA = timezone(timedelta(hours=8))
START = datetime(2026, 3, 1, 9, tzinfo=CHINA)
TICK = timedelta(minutes=5)


class Mirror:
    """Runs the pipeline `trades` against a sandbox, by hand or tick by tick."""

    def __init__(self, box: Sandbox, clock: Clock, folder: Path, url: str, pipeline: Pipeline) -> None:
        self.box = box
        self.clock = clock
        self.pipeline = pipeline
        self.staging = Staging(folder / "staging")
        self.url = url
        self.target: SqlTarget = open_target(url, now=clock)
        self.http = requests.Session()
        wire = Wire(
            App(box.credentials.app_key, box.credentials.app_secret),
            url=box.url,
            transport=self.http,
            now=clock,
        )
        # Pauses are noted, not taken: what a retry waits is tested where the client is.
        self.client = Client(
            wire,
            FixedSession(box.credentials.access_token),
            budget=Budget(1e6),
            sleep=lambda _seconds: None,
        )
        self.runs = 0

    def run(
        self, start: datetime, end: datetime, *, live: bool = False, dimension: str | None = None
    ) -> stages.Summary:
        """Do what one DAG run does."""
        self.runs += 1
        plan = stages.plan_slices(
            self.pipeline,
            run=f"run-{self.runs}",
            start=start,
            end=end,
            shops=stages.fetch_scopes(self.pipeline, self.client),
            live=live,
            target=self.target,
            dimension=dimension,
            now=self.clock,
        )
        loaded = [self.one(piece) for piece in plan]
        settle(self.pipeline.name, [window for one in loaded for window in one.windows], self.target)
        return stages.summarise(self.pipeline, loaded)

    def one(self, piece) -> stages.Loaded:
        """Take one slice through the stages, manifests passed as the JSON that XCom would hold."""
        extracted = stages.to_manifest(
            stages.extract(self.pipeline, piece, self.client, self.staging, now=self.clock)
        )
        transformed = stages.to_manifest(
            stages.transform(self.pipeline, stages.from_manifest(extracted, stages.Extracted), self.staging)
        )
        return stages.load(
            self.pipeline, stages.from_manifest(transformed, stages.Transformed), self.staging, self.target
        )

    def tick(self) -> stages.Summary | None:
        """Let five minutes pass, then run as the scheduler would; None if the run failed."""
        start = datetime.fromtimestamp(self.clock(), CHINA)
        self.clock.advance(TICK.total_seconds())
        with contextlib.suppress(KuaimaiError):
            return self.run(start, start + TICK, live=True)
        return None

    def look_back(self, dimension: str = "created") -> stages.Summary:
        """Run a further dimension as its own schedule would, now."""
        now = datetime.fromtimestamp(self.clock(), CHINA)
        return self.run(now - timedelta(minutes=30), now, live=True, dimension=dimension)

    def rows(self, statement: str) -> list[tuple]:
        """Ask the target."""
        with self.target.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(statement))]

    def differences(self, since: datetime) -> dict[str, str]:
        """Compare the mirror with the sandbox's truth: orders changed since an instant, with their lines."""
        truth = {
            sid: record
            for sid, record in self.box.truth().items()
            if record["updTime"] >= since.timestamp() * 1000
        }
        stored = {
            sid: (version, status)
            for sid, version, status in self.rows("SELECT sid, _version, sys_status FROM kuaimai_trade")
        }
        lines: dict[str, set[str]] = {}
        for sid, key in self.rows("SELECT sid, id FROM kuaimai_trade_line WHERE _deleted_at IS NULL"):
            lines.setdefault(sid, set()).add(key)
        found = {}
        for sid, record in truth.items():
            if sid not in stored:
                found[sid] = "missing"
            elif stored[sid] != (record["updTime"], record["sysStatus"]):
                found[sid] = f"has {stored[sid]}, should have {record['updTime'], record['sysStatus']}"
            elif lines.get(sid, set()) != {str(line["id"]) for line in record["orders"]}:
                found[sid] = "has other lines"
        return found

    def open_windows(self) -> int:
        """Count windows that are not sealed."""
        return self.rows("SELECT count(*) FROM kuaimai_window WHERE state IN ('open', 'contested')")[0][0]


@contextlib.contextmanager
def mirror(
    folder: Path, url: str | None = None, *, faults: Faults | None = None, **world
) -> Iterator[Mirror]:
    """Open an installation over a small world; its clock stands at 2026-03-01 09:00 in China."""
    clock = Clock(START.timestamp())
    with Sandbox(World(**{"seed": 7, "start": START, **world}), faults=faults or Faults(), now=clock) as box:
        made = Mirror(box, clock, folder, url or f"sqlite:///{folder}/target.db", load_pipeline(TRADES))
        try:
            yield made
        finally:
            made.http.close()
            made.target.close()
