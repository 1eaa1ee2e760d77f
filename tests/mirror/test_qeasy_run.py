"""Strategies at work over HTTP: the two of the article as they stand, a mirror proven by count, writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import requests
import sqlalchemy as sa
import strategy_cases as cases
from write_api import TOKEN, write_api

from kuaimai.errors import ConfigError, KuaimaiError, Transient
from kuaimai.extract.staging import Staging
from kuaimai.gateway.budget import Budget
from kuaimai.gateway.client import Client, FixedSession
from kuaimai.gateway.wire import App, Wire
from kuaimai.load.api import WriteApi
from kuaimai.load.posting import HttpTarget
from kuaimai.load.statements import StatementTarget
from kuaimai.load.targets import open_target
from kuaimai.pipeline import stages
from kuaimai.pipeline.qeasy.compiling import load_strategy, load_text
from kuaimai.pipeline.qeasy.documents import Documents
from kuaimai.pipeline.qeasy.lookups import SqlLookups
from kuaimai.pipeline.qeasy.mirror import load_mirror, mirrors
from kuaimai.pipeline.qeasy.moments import RunWindow
from kuaimai.pipeline.qeasy.running import run_strategy
from kuaimai.pipeline.scopes import fetch_scopes
from kuaimai.pipeline.slices import plan_slices
from kuaimai.pipeline.summary import Summary, summarise
from kuaimai.sandbox import Sandbox, World

START = datetime(2026, 3, 1, 9, tzinfo=cases.CHINA)


@pytest.fixture
def box(clock) -> Iterator[Sandbox]:
    clock.at = (START + timedelta(hours=3)).timestamp()
    with Sandbox(World(start=START, seed=7, orders_per_hour=60), now=clock) as box:
        yield box


@contextmanager
def client(box: Sandbox, clock, dialect="router") -> Iterator[Client]:
    given = box.credentials
    with requests.Session() as transport:
        wire = Wire(
            App(given.app_key, given.app_secret),
            url=box.url if dialect == "router" else box.url.removesuffix("/router"),
            transport=transport,
            dialect=dialect,
            now=clock,
        )
        yield Client(
            wire,
            FixedSession(given.access_token),
            budget=Budget(1000, now=clock, sleep=clock.sleep),
            sleep=clock.sleep,
        )


def window(hours: float, clock) -> RunWindow:
    now = datetime.fromtimestamp(clock(), cases.CHINA)
    return RunWindow(now - timedelta(hours=hours), now, now)


def as_they_stand(refresh_token: str) -> tuple[str, str]:
    """The article's two strategies; the token, which the article shows and the example hides, filled in."""
    if cases.SAMPLES is None:
        pytest.skip("the given strategies are not here")
    query, write = (
        next(cases.SAMPLES.glob(f"{number}-*.json")).read_text(encoding="utf-8") for number in ("00", "01")
    )
    assert "<REDACTED>" in query
    return query.replace("<REDACTED>", refresh_token), write


def test_the_two_strategies_of_the_article_run_over_its_wire_form(box, clock):
    clock.advance(9 * 86_400)  # a session may be refreshed once an hour
    before = box.session.expires_at
    query, write = as_they_stand(box.credentials.refresh_token)
    with client(box, clock, "rest") as gateway:
        ran = run_strategy(load_text(query), window(1, clock), gateway=gateway)
        nothing = run_strategy(load_text(write), window(1, clock), gateway=gateway)
    assert [(one.method, one.code) for one in box.requests] == [("open.token.refresh", None)]
    assert (ran.rows, ran.bad, ran.written) == (1, (), ())
    assert box.session.expires_at > before
    assert (nothing.asked, nothing.rows, nothing.written) == ((), 0, ())


def test_both_in_one_file_are_one_strategy(box, clock):
    clock.advance(9 * 86_400)
    query, write = (json.loads(text)["metadata"] for text in as_they_stand(box.credentials.refresh_token))
    both = load_text(json.dumps([query, write]))
    with client(box, clock, "rest") as gateway:
        ran = run_strategy(both, window(1, clock), gateway=gateway)
        with pytest.raises(KuaimaiError, match="refresh_frequently"):  # once an hour, says the gateway
            run_strategy(both, window(1, clock), gateway=gateway)
    assert (ran.rows, ran.written) == (1, ())


def test_every_page_is_read_until_the_gateways_count_is_reached(box, clock):
    """The page size is above the gateway's own, so the first page is shorter than asked for."""
    box.faults.page_cap = 20
    strategy = load_text(
        json.dumps(
            cases.source(
                api="erp.trade.outstock.simple.query",
                id="sid",
                request=[
                    {"field": "timeType", "value": "created"},
                    {"field": "startTime", "value": "{{LAST_SYNC_TIME|datetime}}"},
                    {"field": "endTime", "value": "{{CURRENT_TIME|datetime}}"},
                    {"field": "pageNo", "value": "1"},
                    {"field": "pageSize", "value": "100"},
                ],
            )
        )
    )
    with client(box, clock) as gateway:
        ran = run_strategy(strategy, window(2, clock), gateway=gateway)
    first, last = (clock() - 7200) * 1000, clock() * 1000
    truth = [sid for sid, record in box.truth().items() if first <= record["created"] <= last]
    assert ran.rows >= len(truth) > 60
    assert len(ran.asked) > 3
    assert [one.params["pageNo"] for one in box.requests] == [str(n) for n in range(1, len(ran.asked) + 1)]


class Wanting:
    """A sink that remembers, and answers like a bill system."""

    def __init__(self) -> None:
        self.sent = []

    def send(self, write):
        self.sent.append(write)
        return {"Id": len(self.sent), "Number": f"BILL-{len(self.sent)}"}


def test_documents_are_written_and_what_the_answers_say_is_kept(box, clock):
    sink = Wanting()
    strategy = load_strategy(cases.OURS / "orders_to_api.json")
    with client(box, clock) as gateway:
        ran = run_strategy(strategy, window(3, clock), gateway=gateway, sink=sink)
        with pytest.raises(ConfigError, match="nothing was given to write with"):
            run_strategy(strategy, window(3, clock), gateway=gateway)
    assert len(sink.sent) == len(ran.writebacks) == ran.rows - len(ran.filtered) - len(ran.bad) > 60
    assert ran.writebacks[0] == {"id": "1", "number": "BILL-1"}
    truth = box.truth()
    for write in sink.sent:
        record = truth[write.keys[0]]
        assert write.params["billNo"] == f"KM-{record['sid']}"
        assert [line["qty"] for line in write.params["lines"]] == [line["num"] for line in record["orders"]]
    assert all(truth[key]["sysStatus"] == "CANCEL" for key in ran.filtered)


def test_a_foreign_source_is_not_asked(box, clock):
    with client(box, clock) as gateway, pytest.raises(ConfigError, match=r"metadata\.api: '/some/list'"):
        run_strategy(cases.compiled(cases.source()), window(1, clock), gateway=gateway)
    assert list(box.requests) == []


def test_a_dropped_strategy_is_a_mirror_proven_by_count(box, clock, pg_url, tmp_path):
    file = tmp_path / "orders_archive.json"
    file.write_bytes((cases.OURS / "orders_archive.json").read_bytes())
    assert mirrors(file)
    pipeline = load_mirror(file)
    staging = Staging(Path(tmp_path / "staging"))
    target = open_target(pg_url, now=clock)
    end = datetime.fromtimestamp(clock(), cases.CHINA)
    with client(box, clock) as gateway:
        shops = fetch_scopes(pipeline, gateway)
        slices = plan_slices(
            pipeline, run="r", start=START, end=end, shops=shops, live=False, target=target, now=clock
        )
        loaded = []
        for piece in slices:
            read = stages.extract(pipeline, piece, gateway, staging, now=clock)
            loaded.append(stages.load(pipeline, stages.transform(pipeline, read, staging), staging, target))
    summary = summarise(pipeline, loaded)
    assert summary.sealed
    first, last = START.timestamp() * 1000, clock() * 1000
    truth = {sid for sid, record in box.truth().items() if first <= record["updTime"] <= last}
    with target.engine.connect() as connection:
        landed = {row[0] for row in connection.exec_driver_sql("SELECT sid FROM kuaimai_trade")}
        assert connection.exec_driver_sql("SELECT DISTINCT state FROM kuaimai_window").scalar() == "sealed"
    target.close()
    assert landed == truth
    asked = [one.params for one in box.requests if one.method == pipeline.source.method]
    assert {one["timeType"] for one in asked} == {"upd_time"}


def test_each_order_is_written_once_as_the_strategys_document(box, clock, pg_url, tmp_path):
    file = tmp_path / "orders_to_api.json"
    file.write_bytes((cases.OURS / "orders_to_api.json").read_bytes())
    pipeline = load_mirror(file)
    outlet = pipeline.outlets[1]
    staging = Staging(Path(tmp_path / "staging"))
    database = open_target(pg_url, now=clock)
    # What the strategy cannot make a document of is set aside with its reason, and the seal still adds up.
    broken = file.read_text(encoding="utf-8").replace(
        "ROUND({{orders.num}} / 3, 2)", "1 / ({{orders.num}} - 2)"
    )
    with write_api() as api, client(box, clock) as gateway:
        api.key = "billNo"

        def run(strategy: str, book: str) -> Summary:
            target = HttpTarget(
                outlet.name,
                open_target(f"sqlite:///{tmp_path}/{book}.db", now=clock),
                api=WriteApi(api.url, TOKEN, rows=20, rows_key="array"),
                transport=requests.Session(),
                requests_per_second=1e6,
                document=Documents(load_text(strategy), SqlLookups(database.engine), now=clock),
            )
            end = datetime.fromtimestamp(clock(), cases.CHINA)
            shops = fetch_scopes(pipeline, gateway)
            plan = plan_slices(
                pipeline, run=book, start=START, end=end, shops=shops, live=False, target=target, now=clock
            )
            loaded = []
            for piece in plan:
                read = stages.extract(pipeline, piece, gateway, staging, now=clock)
                made = stages.transform(pipeline, read, staging)
                loaded.append(stages.load(pipeline, made, staging, target, name=outlet.name))
            target.close()
            return summarise(pipeline, loaded)

        first = run(file.read_text(encoding="utf-8"), "book")
        again = run(file.read_text(encoding="utf-8"), "book")
        taken = list(api.taken)
        api.posts.clear()
        refused = run(broken, "other")
        still = len(api.taken)
    database.close()
    first_ms, last_ms = START.timestamp() * 1000, clock() * 1000
    truth = {s: r for s, r in box.truth().items() if first_ms <= r["updTime"] <= last_ms}
    wanted = {f"KM-{sid}" for sid, record in truth.items() if record["sysStatus"] != "CANCEL"}
    assert first.sealed
    assert again.sealed
    assert refused.sealed
    assert sorted(taken) == sorted(wanted)
    assert 0 < refused.quarantined == len(wanted) - still


@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])
def test_each_line_is_written_by_the_strategys_own_statement(box, clock, tmp_path, request, kind):
    url = f"sqlite:///{tmp_path}/own.db" if kind == "sqlite" else request.getfixturevalue("maria_url")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "CREATE TABLE order_line (sid VARCHAR(40) PRIMARY KEY, code VARCHAR(40), sku_id VARCHAR(40), "
                "qty INT CHECK (qty < 3))"
            )
        )
        connection.execute(
            sa.text("CREATE TABLE kuaimai_sku (sys_sku_id VARCHAR(40), sku_outer_id VARCHAR(40))")
        )
        connection.execute(sa.text("INSERT INTO kuaimai_sku VALUES ('S1', 'DEMO-1')"))
    file = tmp_path / "lines.json"
    file.write_bytes((cases.OURS / "lines_to_sql.json").read_bytes())
    pipeline = load_mirror(file)
    documents = Documents(load_strategy(file), SqlLookups(engine), now=clock)
    staging = Staging(Path(tmp_path / "staging"))
    target = StatementTarget(
        "statement",
        open_target(f"sqlite:///{tmp_path}/book.db", now=clock),
        engine=open_target(url, now=clock).engine,
        statement=documents.statement.text,
        rows=documents.statement.limit,
        again=documents.statement.again,
        id_check=False,
        document=documents,
    )
    assert "can be reached" in target.try_rights()
    end = datetime.fromtimestamp(clock(), cases.CHINA)
    start = end - timedelta(minutes=40)
    with client(box, clock) as gateway:
        shops = [one for one in fetch_scopes(pipeline, gateway) if one.source in ("fxg", "jd", "sys")]
        plan = plan_slices(
            pipeline, run="r", start=start, end=end, shops=shops, live=False, target=target, now=clock
        )
        loaded = []
        for piece in plan:
            read = stages.extract(pipeline, piece, gateway, staging, now=clock)
            made = stages.transform(pipeline, read, staging)
            loaded += [stages.load(pipeline, made, staging, target, name="statement") for _ in "12"]  # twice
    summary = summarise(pipeline, loaded[::2])
    with engine.connect() as connection:
        found = dict(connection.execute(sa.text("SELECT sid, qty FROM order_line")).fetchall())
    engine.dispose()
    target.close()
    first_ms, last_ms = start.timestamp() * 1000, clock() * 1000
    ids = {int(shop.id) for shop in shops}
    truth = {
        sid: record["orders"]
        for sid, record in box.truth("erp.trade.list.query").items()
        if first_ms <= record["updTime"] <= last_ms and record["userId"] in ids
    }
    # The table refuses more than two pieces: such an order is set aside whole, its neighbours are not.
    good = {sid: lines for sid, lines in truth.items() if all(line["num"] < 3 for line in lines)}
    assert found == {
        f"{sid}-{n}": line["num"] for sid, lines in good.items() for n, line in enumerate(lines, 1)
    }
    assert summary.sealed
    assert summary.quarantined == len(truth) - len(good) > 0


def test_a_page_that_never_comes_again_is_an_error_of_the_run(box, clock):
    box.faults.fail("502", times=100)
    strategy = load_strategy(cases.OURS / "orders_archive.json")
    with client(box, clock) as gateway, pytest.raises(Transient, match="502"):
        run_strategy(strategy, window(1, clock), gateway=gateway)
