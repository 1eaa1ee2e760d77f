"""Several targets of one pipeline: each gets everything, and none holds up another."""

from __future__ import annotations

import contextlib
import shutil
from datetime import datetime, timedelta

import pytest
import requests
from installation import CHINA, START, TICK, mirror
from write_api import TOKEN, write_api

from kuaimai.errors import KuaimaiError, Transient
from kuaimai.load.api import RowAnswers, WriteApi
from kuaimai.load.files import FilesTarget, current
from kuaimai.load.noop import NoopTarget
from kuaimai.load.posting import HttpTarget
from kuaimai.load.targets import open_target
from kuaimai.pipeline import stages
from kuaimai.pipeline.coverage import settle
from kuaimai.pipeline.spec import load_pipeline
from kuaimai.pipeline.summary import Summary, summarise
from kuaimai.pipeline.together import together
from kuaimai.sandbox import Faults
from kuaimai.transform.mapping import Mapper

TABLES = Mapper("trade").tables
TARGETS = ("database", "parquet", "jsonl", "my_api", "noop")


class Several:
    """A mirror with a target of every kind; its runs do what the DAG does."""

    def __init__(self, shop, folder, api) -> None:
        self.shop = shop
        self.folder = folder
        self.api = api
        self.targets = {
            "database": shop.target,
            "parquet": FilesTarget("parquet", self.book(), root=folder / "parquet"),
            "jsonl": FilesTarget("jsonl", self.book(), root=folder / "jsonl", form="jsonl"),
            "my_api": HttpTarget(
                "my_api",
                self.book(),
                api=WriteApi(
                    api.url, TOKEN, rows=100, rows_key="array", answers=RowAnswers("data.result"), tries=1
                ),
                transport=requests.Session(),
                requests_per_second=1e6,
                sleep=lambda _seconds: None,
            ),
            "noop": NoopTarget("noop", self.book()),
        }

    def book(self):
        return open_target(f"sqlite:///{self.folder}/state.db", now=self.shop.clock)

    def close(self) -> None:
        for one in self.targets.values():
            one.close()

    def tick(self) -> dict[str, Summary]:
        """Let five minutes pass and run; return what each target that did not fail came to."""
        shop = self.shop
        shop.runs += 1
        start = datetime.fromtimestamp(shop.clock(), CHINA)
        shop.clock.advance(TICK.total_seconds())
        plan = shop.plan(start, start + TICK, live=True, target=together(list(self.targets.values())))
        ready = []
        for piece in plan:
            extracted = stages.extract(shop.pipeline, piece, shop.client, shop.staging, now=shop.clock)
            ready.append(stages.transform(shop.pipeline, extracted, shop.staging))
        found = {}
        for name, target in self.targets.items():
            with contextlib.suppress(KuaimaiError, OSError):
                loaded = [stages.load(shop.pipeline, one, shop.staging, target, name=name) for one in ready]
                settle(shop.pipeline.name, [window for one in loaded for window in one.windows], target)
                found[name] = summarise(shop.pipeline, loaded)
        return found

    def held(self) -> dict[str, dict[str, set[str]]]:
        """Return, by target, each order with its lines."""
        rows = self.shop.rows
        lines = "SELECT sid, id FROM kuaimai_trade_line WHERE _deleted_at IS NULL"
        return {
            "database": grouped([sid for (sid,) in rows("SELECT sid FROM kuaimai_trade")], rows(lines)),
            **{form: of_files(current(self.folder / form, TABLES, form)) for form in ("parquet", "jsonl")},
            "my_api": {
                sid: {one["id"] for one in record["trade_line"]} for sid, record in self.api.records.items()
            },
        }

    def open_windows(self, name: str) -> int:
        since = START - timedelta(days=1)
        windows = self.targets[name].coverage("trades", "upd_time", since)
        return sum(one.state in ("open", "contested") for one in windows)


def grouped(orders, lines) -> dict[str, set[str]]:
    found = {sid: set() for sid in orders}
    for sid, key in lines:
        found[sid].add(key)
    return found


def of_files(tables) -> dict[str, set[str]]:
    orders, lines = tables
    pairs = zip(lines.column("sid").to_pylist(), lines.column("id").to_pylist(), strict=True)
    return grouped(orders.column("sid").to_pylist(), pairs)


@pytest.fixture
def several(tmp_path):
    # The API is asked for lines of every order: only those that come with lines are alike everywhere.
    with mirror(tmp_path, orders_per_hour=120) as shop, write_api() as api:
        made = Several(shop, tmp_path, api)
        yield made
        made.close()


def test_every_target_has_the_same_orders_and_lines_and_its_own_proof(several):
    for _ in range(4):
        summaries = several.tick()
        assert {name: one.sealed for name, one in summaries.items()} == dict.fromkeys(TARGETS, True)
    held = several.held()
    assert len(held["database"]) > 20
    assert held["parquet"] == held["jsonl"] == held["my_api"] == held["database"]
    assert several.shop.differences(START) == {}
    assert {name: several.open_windows(name) for name in TARGETS} == dict.fromkeys(TARGETS, 0)
    # The overlap brings most orders three times; the API hears of each state once.
    changed = len({(row["sid"], row["upd_time"]) for _, rows in several.api.posts for row in rows})
    assert sum(len(rows) for _, rows in several.api.posts) == changed


@pytest.mark.parametrize("broken", ["database", "parquet", "my_api"])
def test_target_that_fails_holds_no_other_and_is_healed_by_the_next_run(several, monkeypatch, broken):
    several.tick()
    with monkeypatch.context() as patch:
        if broken == "database":
            patch.setattr(several.shop.target, "loading", failing)
            patch.setattr(several.shop.target, "coverage", failing)
        elif broken == "parquet":
            shutil.rmtree(several.folder / "parquet")
            (several.folder / "parquet").write_text("in the way")
        else:
            several.api.faults = ["503"] * 100
        for _ in range(2):
            summaries = several.tick()
            assert set(summaries) == set(TARGETS) - {broken}
            assert all(one.sealed for one in summaries.values())
    if broken == "parquet":
        (several.folder / "parquet").unlink()
    several.api.faults = []

    summaries = several.tick()
    assert {name for name, one in summaries.items() if one.sealed} == set(TARGETS)
    held = several.held()
    if broken == "parquet":
        # What was thrown away with the folder is not missing to the proof; everything since is there.
        held["parquet"] = {**held["database"], **held["parquet"]}
    assert held["parquet"] == held["jsonl"] == held["my_api"] == held["database"]
    assert {name: several.open_windows(name) for name in TARGETS} == dict.fromkeys(TARGETS, 0)
    calm = len(several.shop.box.requests)
    several.tick()
    assert len(several.shop.box.requests) - calm < 8  # nothing is healed any more


def failing(*_: object, **__: object) -> None:
    raise Transient("the database is away")


def test_nothing_is_planned_where_no_target_answers(several, monkeypatch):
    for target in several.targets.values():
        monkeypatch.setattr(target, "began", failing)
    with pytest.raises(Transient):
        several.tick()


def test_target_that_is_added_later_gets_the_last_days_by_itself(several):
    later = several.targets.pop("parquet")
    for _ in range(2):
        several.tick()
    several.targets["parquet"] = later
    several.tick()
    held = several.held()
    assert held["parquet"] == held["database"]


def test_records_that_cannot_be_typed_count_in_every_proof(tmp_path):
    faults = Faults(bad_amount=0.2)
    with mirror(tmp_path, faults=faults, orders_per_hour=240) as shop, write_api() as api:
        several = Several(shop, tmp_path, api)
        summaries = several.tick()
        assert {name: one.sealed for name, one in summaries.items()} == dict.fromkeys(TARGETS, True)
        assert len({one.quarantined for one in summaries.values()}) == 1
        assert summaries["noop"].quarantined > 0
        several.close()


@pytest.mark.parametrize("policy", ["evolve", "freeze", "quarantine"])
def test_change_of_the_source_comes_to_every_target_alike(tmp_path, policy):
    faults = Faults(schema_change="all", schema_change_at=START.timestamp(), fuzz=0.2)
    with mirror(tmp_path, faults=faults, orders_per_hour=240) as shop, write_api() as api:
        path = tmp_path / "trades.yaml"
        path.write_text(
            f"name: trades\nsource: {{method: erp.trade.outstock.simple.query}}\nschema: {policy}\n",
            encoding="utf-8",
        )
        shop.pipeline = load_pipeline(path)
        several = Several(shop, tmp_path, api)
        told: dict[str, list[str]] = {name: [] for name in TARGETS}
        for _ in range(3):
            summaries = several.tick()
            assert {name: one.sealed for name, one in summaries.items()} == dict.fromkeys(TARGETS, True)
            for name, one in summaries.items():
                told[name] += one.changes
        # Each target has its own proof, and tells of each change once.
        assert told == dict.fromkeys(TARGETS, told["database"])
        assert len(told["noop"]) == len(set(told["noop"])) > 0
        held = several.held()
        assert held["parquet"] == held["jsonl"] == held["my_api"] == held["database"]
        first = START.timestamp() * 1000
        changed = {sid for sid, one in shop.box.truth().items() if one["updTime"] >= first}
        assert bool(changed & held["database"].keys()) == (policy != "quarantine")
        if policy == "evolve":
            new = Mapper("trade", shop.pipeline.rules).tables_with({"platformExtra": "platform_extra"})
            found = {
                "database": dict(shop.rows("SELECT sid, platform_extra FROM kuaimai_trade")),
                "my_api": {sid: one["platform_extra"] for sid, one in api.records.items()},
            }
            for form in ("parquet", "jsonl"):
                orders = current(tmp_path / form, new, form)[0].to_pylist()
                found[form] = {one["sid"]: one["platform_extra"] for one in orders}
            assert found == dict.fromkeys(found, found["database"])
            assert "新字段" in found["my_api"].values()
        several.close()
