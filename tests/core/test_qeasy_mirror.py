"""A strategy as a pipeline: its window, rhythm, parameters and target, or the reason against it."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
import strategy_cases as cases

from kuaimai.errors import ConfigError, DataError
from kuaimai.load.parts import Document, LeftOut
from kuaimai.pipeline.lint import lint
from kuaimai.pipeline.qeasy.compiling import load_strategy, load_text
from kuaimai.pipeline.qeasy.documents import Documents, as_sent
from kuaimai.pipeline.qeasy.lint import lint_strategy
from kuaimai.pipeline.spec import load_pipeline, load_pipelines, pipeline_files
from kuaimai.transform.mapping import Mapper

OURS = cases.ours()


@pytest.fixture
def mirror(tmp_path):
    """A function: the pipeline of a strategy, or the refusal; the linter agrees with either."""

    def mirror(*sides, name="strategy.json"):
        path = tmp_path / name
        content = list(sides) if len(sides) > 1 else sides[0]
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        runs = lint_strategy(path).runs
        try:
            pipeline = load_pipeline(path)
        except ConfigError as err:
            assert not runs
            return str(err)
        assert runs
        return pipeline

    return mirror


def orders(**changed):
    fields = {
        "timeType": "upd_time",
        "startTime": "{{LAST_SYNC_TIME|datetime}}",
        "endTime": "{{CURRENT_TIME|datetime}}",
        **changed.pop("fields", {}),
    }
    request = [{"field": name, "value": value} for name, value in fields.items()]
    return cases.source(api="erp.trade.list.query", id="sid", request=request, **changed)


def test_window_rhythm_and_page_size_are_the_strategys_own(mirror):
    pipeline = mirror(orders(crontab="*/7 * * * *", pagination={"pageSize": 100}), name="我的 Orders-1.json")
    assert (pipeline.name, pipeline.schedule) == ("orders_1", "*/7 * * * *")
    assert (pipeline.source.method, pipeline.source.page_size) == ("erp.trade.list.query", 100)
    assert (pipeline.time.dimension, pipeline.time.overlap_minutes) == ("upd_time", 10)
    assert pipeline.target == "kuaimai_target"
    assert len(pipeline.fingerprint) == 12


@pytest.mark.parametrize(
    ("start", "minutes"),
    [
        ("{{LAST_SYNC_TIME|datetime}}", 10),
        ("_function FROM_UNIXTIME({{LAST_SYNC_TIME}} - 600, '%Y-%m-%d %H:%i:%s')", 10),
        ("_function FROM_UNIXTIME({{LAST_SYNC_TIME}} - 1801, '%Y-%m-%d %H:%i:%s')", 31),
        ("_function FROM_UNIXTIME({{CURRENT_TIME}} - 3600, '%Y-%m-%d %H:%i:%s')", 55),
        ("{{DAYS_AGO_1|datetime}}", 1435),
        ("_function FROM_UNIXTIME(UNIX_TIMESTAMP() - 3600, '%Y-%m-%d %H:%i:%s')", 55),
    ],
)
def test_a_window_that_begins_earlier_is_an_overlap(mirror, start, minutes):
    assert mirror(orders(fields={"startTime": start})).time.overlap_minutes == minutes


@pytest.mark.parametrize(
    ("start", "crontab", "minutes"),
    [
        ("{{CURRENT_TIME|date}} 00:00:00", "*/5 * * * *", 23 * 60 + 50),  # of 23:50 to 23:55
        ("{{CURRENT_TIME|date}} 00:00:00", "*/30 8-20 * * *", 20 * 60),
        ("{{DAYS_AGO_1|date}} 00:00:00", "0 1 * * *", 60),
        ("_function FROM_UNIXTIME({{CURRENT_TIME}} - 7200, '%Y-%m-%d %H:%i:%s')", "0 * * * *", 60),
    ],
)
def test_the_overlap_is_what_any_run_of_a_day_needs(mirror, start, crontab, minutes):
    assert mirror(orders(fields={"startTime": start}, crontab=crontab)).time.overlap_minutes == minutes


def test_a_window_that_begins_after_the_run_before_is_read_whole(mirror, tmp_path):
    today = {"startTime": "{{CURRENT_TIME|date}} 00:00:00"}
    assert mirror(orders(fields=today, crontab="0 1 * * *")).time.overlap_minutes == 10
    findings = lint_strategy(tmp_path / "strategy.json").findings
    (told,) = [one for one in findings if "it begins 23:00:00 after the run before" in one.message]
    assert told.level == "danger"
    assert "after the run's window" in mirror(orders(fields={"startTime": "{{CURRENT_TIME|date}} 23:59:59"}))


def test_an_end_that_does_not_move_is_told(mirror, tmp_path):
    def told(end):
        mirror(orders(fields={"endTime": end}))
        findings = lint_strategy(tmp_path / "strategy.json").findings
        return [(one.path, one.level) for one in findings if "nothing is read after it" in one.message]

    assert told("2026-06-30 23:59:59") == [("request[2].value", "danger")]
    assert told("{{CURRENT_TIME|date}} 23:59:59") == []


def test_what_asks_for_no_time_reads_everything_where_the_method_can(mirror, tmp_path):
    pages = [{"field": "pageNo", "value": "1"}, {"field": "pageSize", "value": "100"}]
    stock = cases.source(api="stock.api.status.query", id="sysSkuId", request=pages)
    assert mirror(stock).time.dimension == "scan"
    findings = lint_strategy(tmp_path / "strategy.json").findings
    (told,) = [one for one in findings if "everything" in one.message]
    assert told.level == "note"
    changes = [
        {"field": "startStockModified", "value": "{{LAST_SYNC_TIME|datetime}}"},
        {"field": "endStockModified", "value": "{{CURRENT_TIME|datetime}}"},
    ]
    assert mirror({**stock, "request": [*pages, *changes]}).time.dimension == "modified"
    assert "it asks for no time that the method knows" in mirror(orders(fields={"startTime": None}))


def test_what_every_request_carries_may_stand_in_the_strategy(mirror):
    def aftersales(version):
        fields = {
            "asVersion": version,
            "startModified": "{{LAST_SYNC_TIME|datetime}}",
            "endModified": "{{CURRENT_TIME|datetime}}",
        }
        request = [{"field": name, "value": value} for name, value in fields.items()]
        return cases.source(api="erp.aftersale.list.query", id="id", request=request)

    assert dict(mirror(aftersales("2")).source.params) == {}
    assert "[0].value: asVersion 1: erp.aftersale.list.query is asked with 2 → write 2" in mirror(
        aftersales("1")
    )


TARGET_CRONTABS = ["target.metadata.crontab", "target.crontab", "target_crontab"]


@pytest.mark.parametrize("where", TARGET_CRONTABS)
@pytest.mark.parametrize(
    ("rhythms", "apart"),
    [
        (("3 2,3 * * *", "23 2 * * *"), True),
        (("*/5 * * * *", "0 6 * * 1"), True),
        (("*/30 * * * *", "*/30 * * * *"), False),
        (("*/30 * * * *", "10,40 * * * *"), False),
        (
            ("0 2 * * *", "*/5 * * * *"),
            False,
        ),  # on the platform it empties the queue that the night has filled
    ],
)
def test_a_target_that_waits_longer_than_its_source_has_a_dag_of_its_own(
    mirror, tmp_path, where, rhythms, apart
):
    of_source, of_target = rhythms
    metadata = {**cases.target(("a", "1")), **({"crontab": of_target} if "metadata" in where else {})}
    strategy = {
        "source": {"metadata": orders(), "crontab": of_source},
        "target": {"metadata": metadata, **({"crontab": of_target} if where == "target.crontab" else {})},
        **({"target_crontab": of_target} if where == "target_crontab" else {}),
    }
    pipeline = mirror(strategy)
    path = tmp_path / "strategy.json"
    assert [outlet.name for outlet in pipeline.apart] == (["kuaimai_write_api"] if apart else [])
    assert [outlet.schedule for outlet in pipeline.apart] == ([of_target] if apart else [])
    assert pipeline.schedule == of_source
    ours = ["kuaimai_strategy", *(["kuaimai_strategy__kuaimai_write_api"] if apart else [])]
    assert [*pipeline.dags(path)] == ours
    told = {one.message for one in lint_strategy(path).findings if one.path == where}
    if of_target == of_source:
        assert told == set()
    elif apart:
        assert any("it becomes the DAG kuaimai_strategy__kuaimai_write_api" in one for one in told)
    else:
        assert any(f"{of_target} has no effect here: what the source brings" in one for one in told)


def test_a_source_without_a_crontab_has_its_targets(mirror):
    pipeline = mirror({"source": orders(), "target": cases.target(("a", "1")), "target_crontab": "0 6 * * *"})
    assert (pipeline.schedule, pipeline.apart) == ("0 6 * * *", ())


def remedied(**fields):
    instead = [{"field": name, "value": value} for name, value in fields.items()]
    return {"omissionRemedy": {"crontab": "20 3 * * *", "takeOverRequest": instead}}


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        # By the strategy's own time again: records that this shows too late are found by their creation.
        ({"startTime": "{{DAYS_AGO_2|datetime}}"}, ("created", 48, 6)),
        ({"startTime": "{{DAYS_AGO_2|datetime}}", "timeType": "pay_time"}, ("pay_time", 48, 6)),
        ({"startTime": "_function FROM_UNIXTIME(UNIX_TIMESTAMP() - 3000)"}, ("created", 1, 1)),
        ({"startTime": "{{DAYS_AGO_30|datetime}}"}, ("created", 168, 6)),
    ],
)
def test_an_omission_remedy_becomes_a_dag_that_reads_back_as_far(mirror, tmp_path, fields, wanted):
    pipeline = mirror(orders(**remedied(**fields)))
    (further,) = pipeline.time.further
    assert (further.dimension, further.look_back_hours, further.slot_hours) == wanted
    assert further.schedule == "20 3 * * *"
    path = tmp_path / "strategy.json"
    told = [one for one in lint_strategy(path).findings if one.path.endswith("omissionRemedy")]
    assert f"it becomes the DAG kuaimai_strategy__{wanted[0]}: at 20 3 * * *" in told[-1].message
    assert [*lint([path])[0].dags] == ["kuaimai_strategy", f"kuaimai_strategy__{wanted[0]}"]


def test_an_omission_remedy_reads_back_from_where_it_runs(mirror):
    late = remedied(startTime="{{DAYS_AGO_1|date}} 00:00:00")
    late["omissionRemedy"]["crontab"] = "30 23 * * *"
    (further,) = mirror(orders(**late)).time.further
    assert further.look_back_hours == 48


def test_an_omission_remedy_that_cannot_be_kept_is_told(mirror, tmp_path):
    """Created is the strategy's own time already, so there is no other to find what it misses."""
    again = remedied(startTime="{{DAYS_AGO_2|datetime}}")
    pipeline = mirror(orders(fields={"timeType": "created"}, **again))
    assert pipeline.time.further == ()
    findings = lint_strategy(tmp_path / "strategy.json").findings
    assert [one.level for one in findings if "it is not run here" in one.message] == ["danger"]


def test_an_omission_remedy_whose_request_has_no_value_does_no_harm(mirror, tmp_path):
    pipeline = mirror(orders(**remedied(startTime="_function DATE_FORMAT('zzz','%Y')")))
    assert pipeline.time.further == ()
    findings = lint_strategy(tmp_path / "strategy.json").findings
    assert [one.path for one in findings if "it is not run here" in one.message] == ["omissionRemedy"]


def test_a_request_that_has_no_value_is_refused_with_its_place(mirror):
    told = mirror(orders(fields={"startTime": "_function DATE_FORMAT('zzz','%Y')"}))
    assert "request[1]" in told


def test_what_reads_a_selection_is_not_said_to_mark_anything(mirror, tmp_path):
    some = [{"field": "brand", "value": "无印"}]
    mirror(cases.source(api="stock.api.status.query", id="sysSkuId", request=some))
    findings = lint_strategy(tmp_path / "strategy.json").findings
    (told,) = [one for one in findings if "asks for no time" in one.message]
    assert "nothing is marked as gone" in told.message


def test_fixed_parameters_are_kept(mirror):
    pipeline = mirror(orders(fields={"status": "WAIT_AUDIT", "pageNo": "1", "pageSize": "50", "types": ""}))
    assert dict(pipeline.source.params) == {"status": "WAIT_AUDIT"}
    assert pipeline.source.page_size == 50


def test_a_page_size_beyond_the_gateways_is_cut(mirror):
    assert mirror(orders(fields={"pageSize": "1000"})).source.page_size == 200


def test_a_parameter_that_would_not_be_sent_is_told(mirror):
    other = [{"field": "status", "value": "FINISHED"}, {"field": "pageSize", "value": "50"}]
    told = mirror(orders(otherRequest=other))
    assert "otherRequest[0].field: status: otherRequest is the connector's, and is not sent" in told
    assert mirror(orders(otherRequest=other[1:])).source.page_size == 50


def test_details_that_the_catalogue_knows(mirror):
    pipeline = mirror(OURS["purchases_with_lines"])
    assert (pipeline.source.method, pipeline.time.dimension) == ("purchase.order.query", "modified")
    other = json.loads(
        json.dumps(OURS["purchases_with_lines"]).replace("purchase.order.get", "item.single.get")
    )
    assert "has no details by item.single.get → its details come by purchase.order.get" in mirror(other)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"startTime": "2026-01-01 00:00:00"}, "a fixed time: every run would read the same"),
        ({"startTime": "{{DAYS_AGO_2|datetime}}"}, "it begins 1 day, 23:55:00 before the run's window"),
        ({"startTime": "_function {{LAST_SYNC_TIME}} - 600000"}, "LAST_SYNC_TIME is in seconds"),
        (
            {"timeType": "modified"},
            "it asks for no time that the method knows → known are upd_time (timeType=",
        ),
        ({"status": "_function CONCAT('a', {{CURRENT_TIME}})"}, "would be another in every request"),
        ({"userIds": "900001"}, "here the method is asked for every shop, one after the other"),
        ({"startTimes": "x"}, "knows no parameter 'startTimes'"),
    ],
)
def test_what_a_pipeline_cannot_be(mirror, changed, told):
    assert told in mirror(orders(fields=changed))


def test_what_shapes_rows_has_nothing_to_shape_in_a_mirror(tmp_path):
    path = tmp_path / "orders.json"
    shaping = {
        "condition": [[{"field": "sysStatus", "logic": "neq", "value": "CANCEL"}]],
        "formatResponse": [{"old": "payTime", "new": "day", "format": "date"}],
    }

    def notes(*sides) -> set[str]:
        path.write_text(json.dumps(sides))
        report = lint_strategy(path)
        assert report.runs
        return {one.path for one in report.findings if "holds whole records" in one.message}

    assert notes(orders(**shaping)) == {"[0].condition", "[0].formatResponse"}
    assert notes(orders(**shaping), cases.target(("n", "{{sid}}"))) == set()


def test_a_write_api_becomes_a_second_target(mirror):
    strategy = json.loads(json.dumps(OURS["orders_to_api"]))
    strategy["target"]["connector"] = "my_erp"
    strategy["target"]["metadata"]["operation"] = {"method": "batchArraySave", "rows": 50, "rowsKey": "data"}
    pipeline = mirror(strategy)
    database, api = pipeline.outlets
    assert (database.kind, database.conn_id) == ("sql", "kuaimai_target")
    assert (api.kind, api.conn_id, api.path) == ("http", "my_erp", "/writeapi")
    assert (api.rows, api.rows_key, api.id_check) == (50, "data", False)
    assert api.strategy.endswith("strategy.json")


def test_where_the_answer_is_kept_is_told(tmp_path):
    def note(target):
        path = tmp_path / "strategy.json"
        path.write_text(json.dumps([orders(), target]))
        (found,) = [one for one in lint_strategy(path).findings if one.path == "[1].response"]
        return found.message

    children = [{"field": "id", "value": "{{Id}}"}]
    response = [{"field": "primaryWriteback", "type": "object", "children": children}]
    assert "column writeback of kuaimai_delivery" in note(cases.target(("n", "{{sid}}"), response=response))
    main = {"field": "main_sql", "value": "REPLACE INTO t (n) VALUES (:n)"}
    statement = {"api": "execute", "method": "SQL", "otherRequest": [main], "response": response}
    assert "a statement has no answer" in note(cases.target(("n", "{{sid}}"), **statement))


def test_id_check_of_the_source_means_that_each_record_is_written_once(mirror):
    target = cases.target(("n", "{{sid}}"))
    assert mirror(orders(), target).outlets[1].id_check is True
    assert mirror(orders(idCheck=False), target).outlets[1].id_check is False


def test_a_persons_data_is_kept_only_where_it_is_sent(mirror):
    pipeline = mirror(orders(), cases.target(("n", "{{sid}}"), ("who", "{{receiverName}}")))
    assert pipeline.keep_personal == ("receiverName",)


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        ({"beatFlat": ["order"]}, {}, "beatFlat[0]: erp.trade.list.query returns no list 'order' → did you"),
        (
            {"operation": {"method": "splitArray", "arrayKey": "details"}},
            {},
            "operation.arrayKey: erp.trade.list.query returns no list 'details'",
        ),
        ({}, {"method": "PUT"}, "documents are sent by POST"),
        ({}, {"request": [{"field": "t", "value": "{{CURRENT_TIME}}"}]}, "whenever its record changes"),
    ],
)
def test_a_target_that_a_dag_cannot_serve(mirror, source, target, told):
    assert told in mirror(orders(**source), {**cases.target(("n", "{{sid}}")), **target})


def test_a_statement_becomes_a_second_target(mirror):
    strategy = json.loads(json.dumps(OURS["lines_to_sql"]))
    strategy["target"] = {"metadata": strategy["target"], "connector": "my_warehouse"}
    database, statement = mirror(strategy).outlets
    assert (database.conn_id, database.name) == ("kuaimai_target", "kuaimai_target")
    assert (statement.kind, statement.conn_id, statement.name) == ("statement", "my_warehouse", "statement")


def test_what_reads_no_records_is_no_pipeline(mirror, tmp_path):
    lone = mirror
    with pytest.raises(AssertionError):  # it runs, and is no pipeline: it has a DAG of another kind
        lone(cases.source(api="open.token.refresh"), name="session.json")
    mirror(orders(), name="orders.json")
    (tmp_path / "trades.yaml").write_text("name: trades\nsource: {method: erp.trade.list.query}\n")
    (tmp_path / "pipeline.schema.json").write_text("{}")
    assert [path.name for path in pipeline_files(tmp_path)] == ["orders.json", "trades.yaml"]
    assert [one.name for one in load_pipelines(tmp_path)] == ["orders", "trades"]


def test_a_name_that_is_taken_and_one_that_is_none(mirror, tmp_path):
    mirror(orders(), name="trades.json")
    (tmp_path / "trades.yaml").write_text("name: trades\nsource: {method: erp.trade.list.query}\n")
    with pytest.raises(ConfigError, match=r"trades.yaml, line 1: trades.json makes the DAG"):
        load_pipelines(tmp_path)
    assert "the file's name names the DAG" in mirror(orders(), name="订单.json")


TABLES = Mapper("trade").tables
RECORD = {
    "sid": "5970000000000001",
    "tid": "T1",
    "user_id": "900001",
    "source": "fxg",
    "sys_status": "WAIT_AUDIT",
    "pay_time": "2026-03-01T02:00:00.000Z",
    "payment": "59.80",
    "trade_line": [
        {"id": "1", "num": 2, "sys_outer_id": "DEMO-A"},
        {"id": "2", "num": 1, "sys_outer_id": "B'"},
    ],
}


def test_a_mirrored_record_becomes_the_strategys_document():
    make = Documents(load_strategy(cases.OURS / "orders_to_api.json"), now=lambda: cases.START_SECOND)
    (part,) = make(TABLES, RECORD)
    assert part.key == "5970000000000001"
    assert json.loads(part.body, parse_float=Decimal) == {
        "billNo": "KM-5970000000000001",
        "platformNo": "T1",
        "payDate": "2026-03-01",
        "amount": Decimal("59.80"),
        "shop": {"id": "900001", "platform": "fxg"},
        "lines": [
            {"code": {"FNumber": "DEMO-A"}, "qty": 2, "share": Decimal("0.67")},
            {"code": {"FNumber": "B'"}, "qty": 1, "share": Decimal("0.33")},
        ],
    }
    with pytest.raises(LeftOut, match="condition"):
        make(TABLES, {**RECORD, "sys_status": "CANCEL"})
    with pytest.raises(DataError, match="qty"):
        make(TABLES, {**RECORD, "trade_line": [{"id": "1", "num": "1.5"}]})


STRICT = """[
  {"api": "erp.trade.list.query", "effect": "QUERY", "id": "sid", "beatFlat": ["orders"],
   "formatResponse": [
     {"old": "payTime", "new": "day", "format": "date"},
     {"old": "tid", "new": "short", "format": "round"}]},
  {"api": "writeapi", "effect": "EXECUTE", "method": "POST", "request": [
    {"field": "n", "value": "{{sid}}"},
    {"field": "lines", "type": "object", "children": [
      {"field": "code",
       "type": "int", "value": "{{orders_sysOuterId|date}}"}]}]}]
"""


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, "orders.json, line 5: [0].formatResponse[1] (tid): not a number: 'T1'"),
        (
            {"tid": "5"},
            "orders.json, line 9: [1].request[1].children[0] (code): {{orders_sysOuterId|date}}: not a time",
        ),
    ],
)
def test_why_a_record_is_set_aside_names_the_line_of_the_setting(changed, told):
    make = Documents(load_text(STRICT), file="orders.json", now=lambda: 0)
    with pytest.raises(DataError) as refused:
        make(TABLES, {**RECORD, **changed})
    assert refused.value.message.startswith(told)


def test_lines_of_detail_calls_have_the_name_that_the_strategy_gives_them(mirror):
    source = {**OURS["purchases_with_lines"]["metadata"], "beatFlat": ["list"]}
    target = cases.target(("code", "{{list_itemOuterId}}"), ("order", "{{code}}"))
    pipeline = mirror(source, target)
    assert [outlet.kind for outlet in pipeline.outlets] == ["sql", "http"]
    make = Documents(cases.compiled(source, target), now=lambda: 0)
    tables = Mapper("purchase").tables
    record = {"id": "7", "code": "PO7", "purchase_line": [{"id": "1", "item_outer_id": "DEMO-A"}]}
    (part,) = make(tables, record)
    assert (part.key, json.loads(part.body)) == ("7-1", {"code": "DEMO-A", "order": "PO7-1"})
    assert "returns no list 'rows'" in mirror({**source, "beatFlat": ["rows"]}, target)


def test_a_mirrored_record_becomes_the_rows_of_a_statement():
    class Landed:
        def find(self, table, where, field):
            return {"DEMO-A": "S1"}.get(where["skuOuterId"])

    make = Documents(load_strategy(cases.OURS / "lines_to_sql.json"), Landed())
    assert make.statement.limit == 2
    assert make.statement.again
    (part,) = make(TABLES, RECORD)
    assert part.key == "5970000000000001"
    assert json.loads(part.body) == [
        {"sid": "5970000000000001-1", "code": "DEMO-A", "sku_id": "S1", "qty": 2},
        {"sid": "5970000000000001-2", "code": "B'", "sku_id": None, "qty": 1},
    ]
    with pytest.raises(LeftOut, match="its list orders is empty"):
        make(TABLES, {**RECORD, "trade_line": []})


def flat(**changed):
    """Documents of a strategy that writes each line, or what groups them."""
    fields = [("key", "{{sid}}"), ("code", "{{orders_sysOuterId}}")]
    source = {**orders(beatFlat=["orders"]), **changed.pop("source", {})}
    return Documents(cases.compiled(source, cases.target(*fields, **changed)), now=lambda: 0)


def test_each_flat_row_is_a_document_with_a_key_of_its_own():
    assert [(part.key, json.loads(part.body)) for part in flat()(TABLES, RECORD)] == [
        ("5970000000000001-1", {"key": "5970000000000001-1", "code": "DEMO-A"}),
        ("5970000000000001-2", {"key": "5970000000000001-2", "code": "B'"}),
    ]
    with pytest.raises(LeftOut, match="its list orders is empty"):
        flat()(TABLES, {**RECORD, "trade_line": []})
    # Several records can have the platform's number, so that alone would be the key of more than one.
    by_number = flat(source={"id": "tid", "number": "tid"})
    assert [part.key for part in by_number(TABLES, RECORD)] == [
        "5970000000000001/T1-1",
        "5970000000000001/T1-2",
    ]
    split = {"beatFlat": [], "operation": {"method": "splitArray", "arrayKey": "orders"}, "id": "orders.num"}
    with pytest.raises(DataError, match="two rows of the record have the key 5970000000000001/2"):
        flat(source=split)(TABLES, {**RECORD, "trade_line": [{"id": "1", "num": 2}, {"id": "2", "num": 2}]})


GROUPING = {
    "headerGroup": ["userId"],
    "bodyGroup": ["orders_sysOuterId"],
    "bodyName": "orders",
    "targetBodyName": "lines",
    "calculate": {"orders_num": "$sum"},
}


def test_what_grouping_does_not_use_is_no_change():
    make = flat(groupCalculate=GROUPING)
    first = make(TABLES, RECORD)
    assert json.loads(first[0].body) == {"userId": "900001", "orders_sysOuterId": "DEMO-A", "orders_num": 2}
    assert make(TABLES, {**RECORD, "sys_status": "SENT"}) == first


def test_rows_of_several_records_become_one_document():
    lines = {
        "field": "entries",
        "type": "array",
        "value": "lines",
        "children": [
            {"field": "code", "value": "{{lines.orders_sysOuterId}}"},
            {"field": "qty", "type": "number", "value": "{{lines.orders_num}}"},
        ],
    }
    shop = {"field": "shop", "value": "{{userId}}"}
    make = flat(request=[shop, lines], groupCalculate=GROUPING)
    other = {**RECORD, "sid": "2", "trade_line": [{"id": "3", "num": "0.5", "sys_outer_id": "DEMO-A"}]}
    third = {**RECORD, "sid": "3", "user_id": "7"}
    broken = {**other, "sid": "4", "user_id": "8", "trade_line": [{"id": "4", "num": "many"}]}
    parts = [
        Document(part.key, 1, 1, part.body, "")
        for record in (RECORD, other, third, broken)
        for part in make(TABLES, record)
    ]
    groups, reasons = make.joins.groups(parts)
    assert [[one.key for one in group] for group in groups] == [
        ["5970000000000001-1", "5970000000000001-2", "2-1"],
        ["3-1", "3-2"],
    ]
    assert json.loads(make.joins.document(groups[0]), parse_float=Decimal) == {
        "shop": "900001",
        "entries": [{"code": "DEMO-A", "qty": Decimal("2.5")}, {"code": "B'", "qty": 1}],
    }
    assert list(reasons) == ["4-1"]
    assert "groupCalculate.calculate.orders_num ($sum)" in reasons["4-1"]
    assert flat().joins is None


def test_a_persons_data_in_flat_and_grouped_columns_is_kept_as_well(mirror):
    grouped = cases.target(("who", "{{receiverName}}"), groupCalculate={"headerGroup": ["receiverName"]})
    assert mirror(orders(beatFlat=["orders"]), grouped).keep_personal == ("receiverName",)


@pytest.mark.parametrize(("rows", "told"), [(50, True), (1, False)])
def test_what_rows_of_one_request_keep_of_its_answer_is_told(mirror, tmp_path, rows, told):
    kept = [{"field": "primaryWriteback", "type": "object", "children": [{"field": "id", "value": "{{Id}}"}]}]
    batch = {"method": "batchArraySave", "rows": rows, "rowsKey": "array"}
    mirror(orders(), cases.target(("row", "{{sid}}"), response=kept, operation=batch))
    found = [one for one in lint_strategy(tmp_path / "strategy.json").findings if one.level == "danger"]
    assert any("rows of one request keep the whole answer" in one.message for one in found) is told


@pytest.mark.parametrize(
    "shaping",
    [
        {"condition": [[{"field": "receiverState", "logic": "eq", "value": "浙江省"}]]},
        {"formatResponse": [{"old": "receiverState", "new": "where", "format": "longText(2)"}]},
    ],
)
def test_a_persons_data_that_decides_what_is_sent_is_kept_as_well(mirror, shaping):
    pipeline = mirror(orders(**shaping), cases.target(("n", "{{sid}}")))
    assert pipeline.keep_personal == ("receiverState",)
    assert mirror(orders(**shaping)).keep_personal == ()  # nothing is sent


@pytest.mark.parametrize(
    ("kind", "sent"),
    [("trade", 1772330400000), ("aftersale", "1772330400000"), ("repair", "2026-03-01 10:00:00")],
)
def test_times_have_the_form_in_which_the_gateway_sends_them(kind, sent):
    tables = Mapper(kind).tables
    assert as_sent(tables, {"created": "2026-03-01T02:00:00.000Z"})["created"] == sent
    assert as_sent(tables, {"created": None})["created"] is None


@pytest.mark.parametrize(
    ("yuan", "fen"),
    [("1075.00", "107500"), ("10.755", "1075.5"), ("-0.01", "-1"), ("0.00", "0")],
)
def test_amounts_are_fen_where_the_gateway_sends_fen(yuan, fen):
    source = OURS["purchases_with_lines"]["metadata"]
    condition = [[{"field": "totalAmount", "logic": "notin", "value": "1075"}]]
    target = cases.target(("fen", "{{totalAmount}}"), ("yuan", "_function {{totalAmount}} / 100"))
    make = Documents(cases.compiled({**source, "condition": condition}, target), now=lambda: 0)
    (part,) = make(Mapper("purchase").tables, {"id": "7", "code": "PO7", "total_amount": yuan})
    written = json.loads(part.body, parse_float=Decimal)
    assert (written["fen"], Decimal(written["yuan"])) == (fen, Decimal(yuan))


def test_lint_tells_which_fields_are_fen(mirror, tmp_path):
    source = OURS["purchases_with_lines"]["metadata"]
    fields = [("a", "{{totalAmount}}"), ("b", "_function {{totalAmount}}/100"), ("c", "{{list_price}}")]
    mirror({**source, "beatFlat": ["list"]}, cases.target(*fields))
    told = [one for one in lint_strategy(tmp_path / "strategy.json").findings if " in fen" in one.message]
    assert {one.path for one in told} == {"[1].request[0].value", "[1].request[2].value"}
    assert {one.level for one in told} == {"note"}


def test_a_field_is_found_by_each_of_its_spellings():
    line = {**RECORD["trade_line"][0], "total_fee": "5.00"}
    target = cases.target(("by", "{{orders_totalFree}}"), ("name", "{{orders_totalFee}}"))
    make = Documents(cases.compiled(orders(beatFlat=["orders"]), target), now=lambda: 0)
    (part,) = make(TABLES, {**RECORD, "trade_line": [line]})
    assert json.loads(part.body) == {"by": "5.00", "name": "5.00"}
