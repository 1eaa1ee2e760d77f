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

from kuaimai.errors import ConfigError, KuaimaiError, Rejected, Transient
from kuaimai.extract.staging import Staging
from kuaimai.gateway.budget import Budget
from kuaimai.gateway.client import Client, FixedSession
from kuaimai.gateway.wire import App, Wire
from kuaimai.load.api import RowAnswers, WriteApi
from kuaimai.load.posting import HttpTarget
from kuaimai.load.statements import Following, StatementTarget, StatementWriter
from kuaimai.load.targets import open_target
from kuaimai.pipeline import stages
from kuaimai.pipeline.qeasy.compiling import load_strategy, load_text
from kuaimai.pipeline.qeasy.documents import Documents
from kuaimai.pipeline.qeasy.lookups import SqlLookups
from kuaimai.pipeline.qeasy.mirror import load_mirror, mirrors
from kuaimai.pipeline.qeasy.moments import RunWindow
from kuaimai.pipeline.qeasy.running import run_strategy
from kuaimai.pipeline.qeasy.statements import MAIN_PARAMS
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
    # What the condition leaves out has not landed here.
    assert (first.landed, first.filtered) == (len(wanted), len(truth) - len(wanted))
    assert (again.landed, again.filtered) == (first.landed, first.filtered)
    assert sorted(taken) == sorted(wanted)
    assert 0 < refused.quarantined == len(wanted) - still


class Delivering:
    """Runs the orders of the last hours of three shops through a strategy's write API, again and again."""

    def __init__(self, box, clock, tmp_path, *sides, rows_key="array"):
        self.box, self.clock, self.tmp_path = box, clock, tmp_path
        self.file = tmp_path / "rows.json"
        self.file.write_text(json.dumps(sides, ensure_ascii=False), encoding="utf-8")
        self.rows_key = rows_key
        self.pipeline = load_mirror(self.file)
        self.outlet = self.pipeline.outlets[1]
        self.staging = Staging(tmp_path / "staging")
        self.start = START + timedelta(hours=2, minutes=20)
        self.shops: list = []

    def run(self, api, gateway, **settings) -> Summary:
        documents = Documents(load_strategy(self.file), now=self.clock)
        target = HttpTarget(
            self.outlet.name,
            open_target(f"sqlite:///{self.tmp_path}/book.db", now=self.clock),
            api=WriteApi(
                api.url,
                TOKEN,
                rows=20 if self.rows_key else 1,
                rows_key=self.rows_key,
                id_check=self.outlet.id_check,
                **settings,
            ),
            transport=requests.Session(),
            requests_per_second=1e6,
            sleep=self.clock.sleep,
            document=documents,
            joins=documents.joins,
            keep=documents.keep,
        )
        try:
            return self.into(target, gateway)
        finally:
            target.close()

    def into(self, target, gateway) -> Summary:
        if not self.shops:
            found = fetch_scopes(self.pipeline, gateway)
            self.shops = [one for one in found if one.source in ("fxg", "jd", "sys")]
        plan = plan_slices(
            self.pipeline,
            run=f"r{self.clock()}",
            start=self.start,
            end=datetime.fromtimestamp(self.clock(), cases.CHINA),
            shops=self.shops,
            live=False,
            target=target,
            now=self.clock,
        )
        loaded = []
        for piece in plan:
            read = stages.extract(self.pipeline, piece, gateway, self.staging, now=self.clock)
            made = stages.transform(self.pipeline, read, self.staging)
            loaded.append(stages.load(self.pipeline, made, self.staging, target, name=self.outlet.name))
        return summarise(self.pipeline, loaded)

    def truth(self) -> dict[str, dict]:
        first, last = self.start.timestamp() * 1000, self.clock() * 1000
        ids = {int(shop.id) for shop in self.shops}
        return {
            sid: record
            for sid, record in self.box.truth("erp.trade.list.query").items()
            if first <= record["updTime"] <= last and record["userId"] in ids
        }


def reading(**metadata):
    return cases.source(
        api="erp.trade.list.query",
        id="sid",
        number="tid",
        idCheck=False,
        request=[
            {"field": "timeType", "value": "upd_time"},
            {"field": "startTime", "value": "{{LAST_SYNC_TIME|datetime}}"},
            {"field": "endTime", "value": "{{CURRENT_TIME|datetime}}"},
        ],
        beatFlat=["orders"],
        **metadata,
    )


def test_each_flat_row_is_posted_once_though_one_is_refused_and_an_answer_is_lost(box, clock, tmp_path):
    line = cases.target(("row", "{{sid}}"), ("code", "{{orders_sysOuterId}}"), ("qty", "{{orders_num}}"))
    delivering = Delivering(box, clock, tmp_path, reading(), line)
    with write_api() as api, client(box, clock) as gateway:
        api.key = "row"
        api.faults.append("lost")
        in_doubt = delivering.run(api, gateway, in_doubt="hold")
        posted = list(api.taken)
        truth = delivering.truth()
        rows = {
            f"{sid}-{n}": line["num"]
            for sid, record in truth.items()
            for n, line in enumerate(record["orders"], 1)
        }
        assert sorted(posted) == sorted(rows)
        assert {key: row["qty"] for key, row in api.records.items()} == {k: str(v) for k, v in rows.items()}
        # Whose answer was lost is set aside, by record, and never sent again by itself.
        assert in_doubt.sealed
        doubtful = {key.rpartition("-")[0] for key in posted[:20]}
        assert in_doubt.quarantined == len(doubtful)
        again = delivering.run(api, gateway, in_doubt="hold")
        assert again.sealed
        assert list(api.taken) == posted


def test_a_refused_row_sets_its_record_aside_and_no_other(box, clock, tmp_path):
    delivering = Delivering(box, clock, tmp_path, reading(), cases.target(("row", "{{sid}}")))
    with write_api() as api, client(box, clock) as gateway:
        api.key = "row"
        delivering.run(api, gateway)
        sid = min(delivering.truth())
        api.posts.clear()
        for book in tmp_path.glob("book.db*"):
            book.unlink()
        api.banned = {f"{sid}-1"}
        summary = delivering.run(api, gateway)
        rows = {f"{s}-{n}" for s, one in delivering.truth().items() for n, _ in enumerate(one["orders"], 1)}
        assert summary.sealed
        assert summary.quarantined == 1
        assert sorted(api.taken) == sorted(rows - api.banned)
        # What the API takes now is sent now, and only that.
        api.banned = set()
        api.posts.clear()
        assert delivering.run(api, gateway).quarantined == 0
        assert api.taken == [f"{sid}-1"]


GROUPED = cases.target(
    ("row", "{{userId}}"),
    {
        "field": "lines",
        "type": "array",
        "value": "entries",
        "children": [
            {"field": "code", "value": "{{entries.orders_sysOuterId}}"},
            {"field": "qty", "type": "int", "value": "{{entries.orders_num}}"},
        ],
    },
    groupCalculate={
        "headerGroup": ["userId"],
        "bodyGroup": ["orders_sysOuterId"],
        "bodyName": "orders",
        "targetBodyName": "entries",
        "bodyMaxLine": 5,
        "calculate": {"orders_num": "$sum"},
    },
)


def pieces(posts):
    """How many pieces of each article the API has got for each shop."""
    found: dict = {}
    for _, documents in posts:
        for document in documents:
            assert 0 < len(document["lines"]) <= 5
            for line in document["lines"]:
                key = (document["row"], line["code"])
                found[key] = found.get(key, 0) + line["qty"]
    return found


def pieces_of(truth):
    """How many there are."""
    found: dict = {}
    for record in truth.values():
        for line in record["orders"]:
            key = (str(record["userId"]), line["sysOuterId"])
            found[key] = found.get(key, 0) + line["num"]
    return found


@pytest.mark.parametrize("rows_key", ["", "array"])
def test_rows_of_many_orders_become_documents_and_each_row_is_in_one(box, clock, tmp_path, rows_key):
    delivering = Delivering(box, clock, tmp_path, reading(), GROUPED, rows_key=rows_key)
    with write_api() as api, client(box, clock) as gateway:
        api.key = "row"
        api.faults += ["429", "lost"]
        first = delivering.run(api, gateway, in_doubt="resend")
        assert first.sealed
        assert first.quarantined == 0
        wanted = pieces_of(delivering.truth())
        # The request whose answer was lost came twice, the second time with the same Idempotency-Key.
        keys = [key for key, _ in api.posts]
        once = dict(api.posts)
        assert len(keys) == len(once) + 1
        assert pieces(once.items()) == wanted
        documents = sum(map(len, once.values()))
        assert (len(once) < documents) is bool(rows_key)  # many documents in one request, or each in its own
        assert documents < len(delivering.truth())
        api.posts.clear()
        assert delivering.run(api, gateway).sealed
        assert api.posts == []
        # Only the rows of what is new come again.
        clock.advance(600)
        before = set(delivering.truth())
        assert delivering.run(api, gateway).sealed
        assert (
            0
            < sum(pieces(api.posts).values())
            <= sum(
                line["num"]
                for sid, record in delivering.truth().items()
                for line in record["orders"]
                if sid not in before or record["updTime"] > (clock() - 600) * 1000
            )
        )


@pytest.mark.parametrize("rows_key", ["", "array"])
def test_a_document_whose_load_died_goes_out_again_as_it_was(box, clock, tmp_path, rows_key):
    delivering = Delivering(box, clock, tmp_path, {**reading(), "idCheck": True}, GROUPED, rows_key=rows_key)
    with write_api() as api, client(box, clock) as gateway:
        api.key = "row"
        api.faults.append("lost")
        with pytest.raises(Transient, match="no answer"):
            delivering.run(api, gateway, in_doubt="resend", tries=1)
        ((lost, _),) = api.posts
        clock.advance(600)
        assert delivering.run(api, gateway, in_doubt="resend").sealed
        assert [key for key, _ in api.posts].count(lost) == 2
        # New orders of the same shop came meanwhile: they are in documents of their own.
        assert pieces(dict(api.posts).items()) == pieces_of(delivering.truth())


@pytest.mark.parametrize(
    ("rows_key", "answers"), [("", None), ("array", None), ("array", RowAnswers("data.result"))]
)
def test_a_document_that_is_refused_holds_the_orders_in_it_and_no_others(
    box, clock, tmp_path, rows_key, answers
):
    """Refused by itself, because of it the whole request, or among others that are taken."""
    delivering = Delivering(box, clock, tmp_path, reading(), GROUPED, rows_key=rows_key)
    with write_api() as api, client(box, clock) as gateway:
        api.key = "row"
        delivering.shops = [
            one for one in fetch_scopes(delivering.pipeline, gateway) if one.source in ("fxg", "jd")
        ]
        refused = str(delivering.shops[0].id)
        if answers is None:
            api.banned = {refused}
        else:
            api.refused = {refused: 999}
        summary = delivering.run(api, gateway, answers=answers)
        assert summary.sealed
        orders = [record for record in delivering.truth().values() if str(record["userId"]) == refused]
        assert summary.quarantined == len(orders) > 0
        assert refused not in api.taken
        api.banned, api.refused = set(), {}
        api.posts.clear()
        assert delivering.run(api, gateway, answers=answers).quarantined == 0
        assert set(api.taken) == {refused}


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


@pytest.mark.parametrize(
    "database",
    [
        ("sqlite", "INTEGER PRIMARY KEY"),
        ("maria_url", "INT AUTO_INCREMENT PRIMARY KEY"),
        ("pg_url", "SERIAL PRIMARY KEY"),
    ],
)
def test_lines_follow_the_row_that_the_database_has_given_an_id(box, clock, tmp_path, request, database):
    kind, own_key = database
    url = f"sqlite:///{tmp_path}/own.db" if kind == "sqlite" else request.getfixturevalue(kind)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE TABLE bill (id {own_key}, sid VARCHAR(40))"))
        connection.execute(
            sa.text("CREATE TABLE bill_line (bill INT, code VARCHAR(40), qty INT CHECK (qty < 3))")
        )
    delivering = Delivering(box, clock, tmp_path, *cases.ours()["bills_to_sql"])
    documents = Documents(load_strategy(delivering.file), now=clock)
    target = StatementTarget(
        "statement",
        open_target(f"sqlite:///{tmp_path}/book.db", now=clock),
        engine=open_target(url, now=clock).engine,
        statement=documents.statement.text,
        rows=documents.statement.limit,
        again=documents.statement.again,
        id_check=True,
        document=documents,
        following=documents.following,
        main=MAIN_PARAMS,
    )
    with client(box, clock) as gateway:
        first = delivering.into(target, gateway)
        assert delivering.into(target, gateway).sealed  # each once
    with engine.connect() as connection:
        bills = connection.execute(sa.text("SELECT sid FROM bill")).scalars().all()
        lines = connection.execute(
            sa.text("SELECT sid, code, qty FROM bill_line JOIN bill ON bill.id = bill_line.bill")
        ).fetchall()
    engine.dispose()
    target.close()
    # The table refuses more than two pieces: then neither the line nor its bill is there.
    truth = delivering.truth()
    good = {sid: one for sid, one in truth.items() if all(line["num"] < 3 for line in one["orders"])}
    assert sorted(bills) == sorted(good)
    assert sorted(map(tuple, lines)) == sorted(
        (sid, line["sysOuterId"], line["num"]) for sid, one in good.items() for line in one["orders"]
    )
    assert first.sealed
    assert first.quarantined == len(truth) - len(good) > 0


def test_row_without_a_number_of_its_own_gives_its_lines_to_nobody(pg_url):
    engine = sa.create_engine(pg_url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE bill (sid VARCHAR(40))"))
        connection.execute(sa.text("CREATE TABLE bill_line (bill INT)"))
    lines = Following("lines", "INSERT INTO bill_line (bill) VALUES (:bill)", ("bill",))
    writer = StatementWriter(engine, "INSERT INTO bill (sid) VALUES (:sid)", [lines], MAIN_PARAMS)
    row = {MAIN_PARAMS: {"sid": "1"}, "lines": [{}]}
    with pytest.raises(Rejected, match="lastval is not yet defined"):
        writer.post([json.dumps([row]).encode()], "a-request")
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT sid FROM bill")).fetchall() == []
    engine.dispose()


def kept(tmp_path):
    """What the delivery book keeps of the answers, by record."""
    book = sa.create_engine(f"sqlite:///{tmp_path}/book.db")
    with book.connect() as connection:
        rows = connection.execute(sa.text("SELECT record_key, writeback FROM kuaimai_delivery")).fetchall()
    book.dispose()
    return {key: text and json.loads(text) for key, text in rows}


def writing_back(**values):
    children = [{"field": name, "value": value} for name, value in values.items()]
    return [{"field": "primaryWriteback", "type": "object", "children": children}]


def test_what_the_answers_say_is_kept_beside_each_record(box, clock, tmp_path):
    target = cases.target(("row", "{{sid}}"), response=writing_back(number="{{bill}}"))
    delivering = Delivering(box, clock, tmp_path, {**reading(), "beatFlat": []}, target)
    answers = RowAnswers("data.result")
    with write_api() as api, client(box, clock) as gateway:
        api.key = "row"
        delivering.run(api, gateway, answers=answers)
        sids = set(delivering.truth())
        assert kept(tmp_path) == {sid: {"number": f"BILL-{sid}"} for sid in sids}
        # A record that is refused later keeps what was said when it was taken.
        clock.advance(600)
        api.refused = dict.fromkeys(sids, 9)
        delivering.run(api, gateway, answers=answers)
        assert {sid: kept(tmp_path)[sid] for sid in sids} == {sid: {"number": f"BILL-{sid}"} for sid in sids}


def test_the_rows_of_one_request_share_its_answer_and_a_strange_one_is_told(box, clock, tmp_path, caplog):
    grouped = {**GROUPED, "response": writing_back(id="{{Id}}", lines="{{no.such}}")}
    delivering = Delivering(box, clock, tmp_path, reading(), grouped, rows_key="")
    with write_api() as api, client(box, clock) as gateway:
        api.key = "row"
        delivering.run(api, gateway)
        posts = len(api.posts)
    found = kept(tmp_path)
    assert {tuple(one) for one in found.values()} == {("id",)}
    assert {one["id"] for one in found.values()} == {str(n) for n in range(1, posts + 1)}
    assert set(found) == {
        f"{sid}-{n}" for sid, one in delivering.truth().items() for n, _ in enumerate(one["orders"], 1)
    }
    keep = Documents(load_strategy(delivering.file)).keep
    assert keep(b"<html>") is None
    assert "nothing is kept as primaryWriteback" in caplog.text


def test_grouped_rows_are_written_by_the_strategys_own_statement(box, clock, tmp_path):
    url = f"sqlite:///{tmp_path}/own.db"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE total (shop VARCHAR(40), qty INT)"))
    totals = cases.target(
        ("shop", "{{userId}}"),
        {"field": "qty", "type": "int", "value": "{{orders_num}}"},
        api="execute",
        method="SQL",
        otherRequest=[{"field": "main_sql", "value": "INSERT INTO total (shop, qty) VALUES (:shop, :qty)"}],
        groupCalculate={"headerGroup": ["userId"], "calculate": {"orders_num": "$sum"}},
    )
    delivering = Delivering(box, clock, tmp_path, reading(), totals)
    documents = Documents(load_strategy(delivering.file), now=clock)
    target = StatementTarget(
        "statement",
        open_target(f"sqlite:///{tmp_path}/book.db", now=clock),
        engine=open_target(url, now=clock).engine,
        statement=documents.statement.text,
        rows=documents.statement.limit,
        again=documents.statement.again,
        id_check=False,
        document=documents,
        joins=documents.joins,
    )
    with client(box, clock) as gateway:
        assert delivering.into(target, gateway).sealed
        assert delivering.into(target, gateway).sealed  # nothing is new, so nothing is added
    wanted: dict = {}
    for record in delivering.truth().values():
        pieces = sum(line["num"] for line in record["orders"])
        wanted[str(record["userId"])] = wanted.get(str(record["userId"]), 0) + pieces
    with engine.connect() as connection:
        found = dict(connection.execute(sa.text("SELECT shop, sum(qty) FROM total GROUP BY shop")).fetchall())
    engine.dispose()
    target.close()
    assert found == wanted


def test_a_page_that_never_comes_again_is_an_error_of_the_run(box, clock):
    box.faults.fail("502", times=100)
    strategy = load_strategy(cases.OURS / "orders_archive.json")
    with client(box, clock) as gateway, pytest.raises(Transient, match="502"):
        run_strategy(strategy, window(1, clock), gateway=gateway)
