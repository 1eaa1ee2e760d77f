"""What a strategy writes to is opened with what the Connections say, and makes the strategy's documents."""

from __future__ import annotations

import json

import pytest
import strategy_cases as cases

from kuaimai.airflow.targets import opened
from kuaimai.errors import ConfigError, Rejected
from kuaimai.load.statements import StatementWriter
from kuaimai.pipeline.spec import load_pipeline
from kuaimai.transform.mapping import Mapper

RECORD = {
    "sid": "5970000000000001",
    "sys_status": "WAIT_AUDIT",
    "trade_line": [{"id": "1", "num": 2, "sys_outer_id": "DEMO-A"}],
}


@pytest.fixture
def connected(monkeypatch, tmp_path):
    """Connections to a write API and to a database with a landed table."""
    import sqlalchemy as sa

    engine = sa.create_engine(f"sqlite:///{tmp_path}/own.db")
    with engine.begin() as connection:
        connection.execute(
            sa.text("CREATE TABLE kuaimai_sku (sys_sku_id VARCHAR(40), sku_outer_id VARCHAR(40))")
        )
        connection.execute(sa.text("INSERT INTO kuaimai_sku VALUES ('S1', 'DEMO-A')"))
    engine.dispose()
    api = {"conn_type": "http", "host": "http://127.0.0.1:9", "password": "a-token"}
    database = {"conn_type": "sqlite", "host": f"{tmp_path}/own.db"}
    monkeypatch.setenv("AIRFLOW_CONN_KUAIMAI_WRITE_API", json.dumps(api))
    monkeypatch.setenv("AIRFLOW_CONN_KUAIMAI_TARGET", json.dumps(database))


def target_of(name, of):
    pipeline = load_pipeline(cases.OURS / f"{name}.json")
    return opened(pipeline, of)


def test_a_write_api(connected):
    with target_of("orders_to_api", "kuaimai_write_api") as ((_, target),):
        assert target.api.url == "http://127.0.0.1:9/writeapi"
        (part,) = target.document(Mapper("trade").tables, RECORD)
        made = json.loads(part.body)
        assert made["billNo"] == "KM-5970000000000001"
        assert made["lines"][0]["qty"] == 2


@pytest.mark.parametrize(
    ("form", "accepted"),
    [
        ({"StatusKey": "data/code", "StatusValue": 200}, ("200", 200)),
        (
            [{"field": "StatusKey", "value": "data/code"}, {"field": "StatusValue", "value": "200"}],
            ("200", 200),
        ),
        ({"StatusKey": "data/code", "StatusValue": True}, ("true", True)),
    ],
)
def test_what_a_strategy_says_of_the_answer_decides(connected, tmp_path, form, accepted):
    asks = [{"field": "timeType", "value": "upd_time"}]
    asks += [{"field": "startTime", "value": "{{LAST_SYNC_TIME|datetime}}"}]
    asks += [{"field": "endTime", "value": "{{CURRENT_TIME|datetime}}"}]
    source = cases.source(api="erp.trade.list.query", id="sid", request=asks)
    strategy = [source, cases.target(("billNo", "{{sid}}"), otherResponse=form)]
    (tmp_path / "posts.json").write_text(json.dumps(strategy))
    with opened(load_pipeline(tmp_path / "posts.json"), "kuaimai_write_api") as ((_, target),):
        assert (target.api.answers.success, target.api.answers.accepted) == ("data.code", accepted)
        assert target.api.answers.rows == ""


GROUPED = [
    cases.ours()["lines_to_sql"]["source"],
    cases.target(
        ("shop", "{{userId}}"),
        groupCalculate={"headerGroup": ["userId"], "calculate": {"orders_num": "$sum"}},
    ),
]


def test_what_a_write_api_gets_and_keeps(connected, tmp_path):
    with target_of("orders_to_api", "kuaimai_write_api") as ((_, target),):
        assert target.joins is None
        assert target.keep(b'{"Id": 7, "Number": "B7"}') == '{"id":"7","number":"B7"}'
    (tmp_path / "totals.json").write_text(json.dumps(GROUPED))
    with opened(load_pipeline(tmp_path / "totals.json"), "kuaimai_write_api") as ((_, target),):
        assert target.joins is not None
        assert target.keep is None


def test_a_joint_document_cannot_be_asked_for(connected, tmp_path):
    (tmp_path / "totals.json").write_text(json.dumps(GROUPED))
    outlet = (
        "{kind: http, conn_id: kuaimai_write_api, strategy: totals.json, in_doubt: ask, ask_path: '/{key}'}"
    )
    own = tmp_path / "own.yaml"
    own.write_text(f"name: own\nsource: {{method: erp.trade.list.query}}\ntargets: [{outlet}]\n")
    with pytest.raises(ConfigError, match="none can be asked for"), opened(load_pipeline(own), None):
        pass


def test_a_statement_with_a_lookup(connected):
    with target_of("lines_to_sql", "statement") as ((_, target),):
        (part,) = target.document(Mapper("trade").tables, RECORD)
        rows = json.loads(part.body)
        assert rows == [{"sid": "5970000000000001-1", "code": "DEMO-A", "sku_id": "S1", "qty": 2}]
        assert (target.api.rows, target.api.in_doubt) == (2, "resend")


def test_amounts_reach_a_database_that_has_no_decimals(connected):
    with target_of("bills_to_sql", "statement") as ((_, target),):
        with target.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE bill (id INTEGER PRIMARY KEY, sid NUMERIC)")
            connection.exec_driver_sql("CREATE TABLE bill_line (bill INT, code VARCHAR(40), qty NUMERIC)")
        row = b'[{"main_params": {"sid": 29.90}, "extend_params_1": [{"code": "A", "qty": 0.5}]}]'
        (verdict,) = target.writer.post([row], "a-request")
        assert verdict.taken
        writer = StatementWriter(target.engine, "INSERT INTO bill (sid) VALUES (:amount)")
        (verdict,) = writer.post([b'[{"amount": 19.90}]'], "another-request")
        with target.engine.connect() as connection:
            found = connection.exec_driver_sql(
                "SELECT sid FROM bill UNION ALL SELECT qty FROM bill_line"
            ).fetchall()
    assert [one for (one,) in found] == [29.9, 19.9, 0.5]


def test_statements_that_follow_for_the_lines(connected):
    with target_of("bills_to_sql", "statement") as ((_, target),):
        with target.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE bill (id INTEGER PRIMARY KEY, sid VARCHAR(40))")
            connection.exec_driver_sql("CREATE TABLE bill_line (bill INT, code VARCHAR(40), qty INT)")
        (part,) = target.document(Mapper("trade").tables, RECORD)
        (verdict,) = target.writer.post([part.body], "a-request")
        assert verdict.taken
        with target.engine.connect() as connection:
            found = connection.exec_driver_sql(
                "SELECT sid, code, qty FROM bill_line JOIN bill ON bill.id = bill_line.bill"
            ).fetchall()
        assert [tuple(one) for one in found] == [("5970000000000001", "DEMO-A", 2)]


def test_record_whose_main_statement_makes_no_row_gives_its_lines_to_nobody(connected):
    with target_of("bills_to_sql", "statement") as ((_, target),):
        with target.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE bill (id INTEGER PRIMARY KEY, sid VARCHAR(40))")
            connection.exec_driver_sql("CREATE TABLE bill_line (bill INT, code VARCHAR(40), qty INT)")
        (part,) = target.document(Mapper("trade").tables, RECORD)
        target.writer.post([part.body], "a-request")
        with target.engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TRIGGER none BEFORE INSERT ON bill BEGIN SELECT RAISE(IGNORE); END"
            )
        # The database still knows the id of the row before.
        with pytest.raises(Rejected, match="made no row"):
            target.writer.post([part.body], "another-request")
        with target.engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM bill_line").scalar() == 1


def test_a_connection_that_is_missing(monkeypatch):
    with (
        pytest.raises(ConfigError, match="There is no Connection kuaimai_write_api"),
        target_of("orders_to_api", "kuaimai_write_api"),
    ):
        pass
