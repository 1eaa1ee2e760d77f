"""A whole installation without Airflow: sandbox, client, staging, target, and a schedule that tests turn."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import expected
import requests
import sqlalchemy as sa
from conftest import Clock

from kuaimai.errors import KuaimaiError
from kuaimai.extract.staging import Staging
from kuaimai.extract.windows import Slice
from kuaimai.gateway import catalog
from kuaimai.gateway.budget import Budget
from kuaimai.gateway.client import Client, FixedSession
from kuaimai.gateway.wire import App, Wire
from kuaimai.load.sql import SqlTarget
from kuaimai.load.targets import open_target
from kuaimai.pipeline import stages
from kuaimai.pipeline.coverage import settle
from kuaimai.pipeline.manifests import Extracted, Loaded, Transformed, from_manifest, to_manifest
from kuaimai.pipeline.scopes import fetch_scopes
from kuaimai.pipeline.slices import plan_slices
from kuaimai.pipeline.spec import Pipeline, load_pipeline
from kuaimai.pipeline.summary import Summary, summarise
from kuaimai.sandbox import Faults, Sandbox, World
from kuaimai.transform.tables import DELETED_AT

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "include" / "pipelines"
TRADES = SHIPPED / "trades.yaml"
CHINA = timezone(timedelta(hours=8))
START = datetime(2026, 3, 1, 9, tzinfo=CHINA)
TICK = timedelta(minutes=5)


class Mirror:
    """Runs one pipeline against a sandbox, by hand or tick by tick."""

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
        self, start: datetime, end: datetime, *, live: bool = False, dimension: str | None = None, **plan: Any
    ) -> Summary:
        """Do what one DAG run does; further arguments go to its plan."""
        self.runs += 1
        slices = self.plan(start, end, live=live, dimension=dimension, **plan)
        loaded = [self.one(piece) for piece in slices]
        settle(self.pipeline.name, [window for one in loaded for window in one.windows], self.target)
        return summarise(self.pipeline, loaded)

    def plan(self, start: datetime, end: datetime, **more: Any) -> list[Slice]:
        """Plan a run, by hand unless `live`; further arguments go before what a run would give."""
        usual = {
            "run": f"run-{self.runs}",
            "shops": more["shops"] if "shops" in more else fetch_scopes(self.pipeline, self.client),
            "live": False,
            "target": self.target,
            "now": self.clock,
        }
        return plan_slices(self.pipeline, start=start, end=end, **{**usual, **more})

    def one(self, piece) -> Loaded:
        """Take one slice through the stages, manifests passed as the JSON that XCom would hold."""
        extracted = to_manifest(
            stages.extract(self.pipeline, piece, self.client, self.staging, now=self.clock)
        )
        transformed = to_manifest(
            stages.transform(self.pipeline, from_manifest(extracted, Extracted), self.staging)
        )
        return stages.load(self.pipeline, from_manifest(transformed, Transformed), self.staging, self.target)

    def tick(self) -> Summary | None:
        """Let five minutes pass, then run as the scheduler would; None if the run failed."""
        start = datetime.fromtimestamp(self.clock(), CHINA)
        self.clock.advance(TICK.total_seconds())
        with contextlib.suppress(KuaimaiError):
            return self.run(start, start + TICK, live=True)
        return None

    def look_back(self, dimension: str = "created") -> Summary:
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

    def truth(self) -> dict[str, dict[str, Any]]:
        """What the gateway has now of the pipeline's records, by key, with what lists leave out."""
        method = catalog.method(self.pipeline.source.method)
        found = self.box.truth(method.name)
        if method.detail is None:
            return found
        lines = self.box.truth(method.detail.method)
        return {
            key: {**record, method.detail.into: lines[str(record[method.detail.field])]["list"]}
            for key, record in found.items()
        }

    def wrong(self, since: datetime | None = None) -> list[str]:
        """Compare every value of the mirror with the sandbox's truth.

        Args:
            since: only records that the pipeline's own time dates since then; without it all, and no others.

        Returns:
            What differs, at most a few differences for each table; nothing where the mirror is right.
        """
        kind = self.pipeline.record
        records = list(self.truth().values())
        if since is not None:
            times = catalog.method(self.pipeline.source.method).times
            dated = times.dimensions[self.pipeline.time.dimension]
            first = since.timestamp() * 1000
            records = [one for one in records if int(one[dated.stamp]) >= first]
        found = []
        wanted = expected.rows_of(kind, records)
        parents = set(wanted.get(kind.name, ()))
        for each in self.pipeline.records:
            rows = self.living(each)
            right = wanted.get(each.name, {})
            if since is not None and each.parent_key:
                owner = each.fields[each.parent_key].column
                rows = {key: row for key, row in rows.items() if row[owner] in parents}
            elif since is not None:
                rows = {key: row for key, row in rows.items() if key in right}
            odd = sorted(rows.keys() ^ right.keys())
            found += [
                f"{each.name} {key}: {'missing' if key in right else 'not in the truth'}" for key in odd[:5]
            ]
            values = [
                f"{each.name} {key}.{name}: has {rows[key][name]!r}, should have {value!r}"
                for key in sorted(rows.keys() & right.keys())
                for name, value in right[key].items()
                if rows[key][name] != value
            ]
            found += values[:5]
        return found

    def _plain(self, field: catalog.Field, value: Any) -> Any:
        if field.type == "time" and value is not None:
            value = self.target.read_instant(value)
        return expected.plain(field, value)

    def living(self, kind: catalog.Record) -> dict[str, dict[str, Any]]:
        """Return key → column → value of the rows of a table that are not marked as gone."""
        table = sa.Table(f"kuaimai_{kind.name}", sa.MetaData(), autoload_with=self.target.engine)
        fields = {one.column: one for one in kind.fields.values() if not one.personal}
        key = kind.fields[kind.key].column
        with self.target.engine.connect() as connection:
            rows = connection.execute(sa.select(table).where(table.c[DELETED_AT].is_(None))).mappings()
            found = [{name: self._plain(field, row[name]) for name, field in fields.items()} for row in rows]
        assert len({row[key] for row in found}) == len(found)
        return expected.keyed(kind, found)

    def open_windows(self) -> int:
        """Count windows that are not sealed."""
        return self.rows("SELECT count(*) FROM kuaimai_window WHERE state IN ('open', 'contested')")[0][0]


@contextlib.contextmanager
def mirror(
    folder: Path, url: str | None = None, *, faults: Faults | None = None, pipeline: str = "trades", **world
) -> Iterator[Mirror]:
    """Open an installation of a shipped pipeline over a small world; its clock stands at `START`."""
    clock = Clock(START.timestamp())
    with Sandbox(World(**{"seed": 7, "start": START, **world}), faults=faults or Faults(), now=clock) as box:
        spec = load_pipeline(SHIPPED / f"{pipeline}.yaml")
        made = Mirror(box, clock, folder, url or f"sqlite:///{folder}/target.db", spec)
        try:
            yield made
        finally:
            made.http.close()
            made.target.close()
