"""Every dangerous setting is told with the strategy's own path and a fix; harmless ones are left alone."""

from __future__ import annotations

import copy
import json
import logging
import re
from pathlib import Path

import pytest
import strategy_cases as cases

from kuaimai.pipeline.lint import lint as lint_files
from kuaimai.pipeline.qeasy import functions, keys
from kuaimai.pipeline.qeasy.findings import LEVELS
from kuaimai.pipeline.qeasy.lint import lint_strategy

OURS = cases.ours()


@pytest.fixture
def lint(tmp_path):
    """A function: the report on a strategy."""

    def lint(*sides, **around):
        path = tmp_path / "strategy.json"
        content = list(sides) if len(sides) > 1 else {"metadata": sides[0], **around}
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return lint_strategy(path)

    return lint


def told(report, level="danger"):
    return {one.path: one.message for one in report.findings if one.level == level}


WINDOW = {"field": "start", "value": "{{LAST_SYNC_TIME|datetime}}"}


@pytest.mark.parametrize(
    ("changed", "path", "message"),
    [
        # the numbers are those of the list of pitfalls (reference 13)
        pytest.param({"idCheck": True}, "metadata.idCheck", "its updates", id="1"),
        pytest.param({}, "metadata.idCheck", "true (it is the default)", id="1-default"),
        pytest.param(
            {"request": [{"field": "page", "value": "1"}]}, "metadata.request", "a page fails", id="2"
        ),
        pytest.param(
            {"request": [{"field": "start", "value": "_function {{LAST_SYNC_TIME}} - 600000"}]},
            "metadata.request[0].value",
            "in seconds; 600000 look like milliseconds (6 days)",
            id="3",
        ),
        pytest.param(
            {"request": [{"field": "start", "value": "{{LAST_SYNC_TIME}}"}]},
            "metadata.request[0].value",
            "number of seconds",
            id="3-unformatted",
        ),
        pytest.param(
            {"request": [{"field": "page_size", "value": "100", "describe": "默认25，最大25"}]},
            "metadata.request[0].value",
            "100 rows a page, and the API gives at most 25",
            id="4",
        ),
        pytest.param(
            {
                "api": "erp.trade.list.query",
                "request": [{"field": "pageSize", "value": "{{PAGINATION_PAGE_SIZE}}"}],
                "pagination": {"pageSize": 500},
            },
            "metadata.request[0].value",
            "500 rows a page, and the API gives at most 200",
            id="4-catalogue",
        ),
        pytest.param(
            {"request": [{**WINDOW, "describe": "时间间隔不能超过七天"}]},
            "metadata.request[0].value",
            "longer than the API's limit (七天)",
            id="5",
        ),
        pytest.param(
            {"api": "erp.trade.list.query", "request": [{**WINDOW, "field": "startTime"}]},
            "metadata.request[0].value",
            "longer than the API's limit (1 day)",
            id="5-catalogue",
        ),
        pytest.param({"beatFlat": ["lines"]}, "metadata.beatFlat[0]", "numbered by position", id="6"),
        pytest.param({"beatFlat": ["a", "b"]}, "metadata.beatFlat", "paired or crossed", id="several-lists"),
        pytest.param(
            {"operation": {"method": "splitArray", "arrayKey": "lines"}},
            "metadata.operation.arrayKey",
            "numbered by position",
            id="6-split",
        ),
        pytest.param(
            {"request": [{"field": "a", "value": "_function {{CURRENT_TIME}} / 60"}]},
            "metadata.request[0].value",
            "written to the target as its own text; this one divides",
            id="7",
        ),
        pytest.param(
            {"formatResponse": [{"old": "a", "new": "b", "format": "amount"}]},
            "metadata.formatResponse[0].format",
            "goes through a float",
            id="8",
        ),
        pytest.param(
            {"request": [{"field": "a", "value": "null"}]},
            "metadata.request[0].value",
            'the text "null" is sent',
            id="9",
        ),
        pytest.param(
            {"request": [{"field": "a", "is_required": True}]},
            "metadata.request[0].value",
            "not sent, though it is required",
            id="9-required",
        ),
        pytest.param({"api": "open.token.refresh"}, "metadata.api", "refresh one token pair", id="10"),
        pytest.param(
            {"request": [{"field": "refreshToken", "value": "secret-text"}]},
            "metadata.request[0].value",
            "a credential in a file",
            id="10-secret",
        ),
        pytest.param(
            {"api": "erp.trade.list.query", "otherResponse": {"StatusKey": "code", "StatusValue": "200"}},
            "metadata.otherResponse.StatusValue",
            "success true or false",
            id="11",
        ),
        pytest.param({"request": [WINDOW]}, "metadata.request[0].value", "no history is loaded", id="12"),
        pytest.param(
            {"condition": [[{"field": "a", "logic": "notnull"}]]},
            "metadata.condition[0]",
            "without a trace",
            id="silent-discard",
        ),
        pytest.param(
            {"omissionRemedy": {"crontab": "1 * * * *", "takeOverRequest": []}},
            "metadata.omissionRemedy",
            "on the platform it reads again and compares nothing; with idCheck true",
            id="blind-remedy",
        ),
    ],
)
def test_each_danger_is_told_with_its_path_and_a_fix(lint, changed, path, message):
    report = lint(cases.source(**changed))
    assert report.compiles
    found = [one for one in report.findings if one.level == "danger" and one.path == path]
    assert any(message in one.message for one in found), report.pretty()
    assert all(one.fix for one in found)


def test_a_careful_source_has_no_danger(lint):
    assert told(lint(cases.source(idCheck=False, request=[{"field": "status", "value": "4"}]))) == {}


def test_a_credential_is_never_repeated(lint):
    report = lint(cases.source(request=[{"field": "appSecret", "value": "hunter2hunter2"}]))
    assert "hunter2" not in report.pretty()


def test_dangers_of_a_target(lint):
    sql = cases.target(
        ("a", "{{a}}"),
        api="batchexecute",
        method="SQL",
        otherRequest=[
            {"field": "main_sql", "value": "INSERT INTO t (a) VALUES"},
            {"field": "limit", "value": "1000"},
        ],
    )
    messages = [one.message for one in lint(cases.source(), sql).findings if one.path == "[1].otherRequest"]
    assert any("executed again" in one for one in messages)
    assert any("one bad row fails its whole batch of 1000" in one for one in messages)
    sql["otherRequest"][0]["value"] = "INSERT INTO t (a) VALUES (?) ON DUPLICATE KEY UPDATE a = VALUES(a)"
    assert not lint(cases.source(), sql).compiles  # what follows the values is not a head


def test_a_field_that_the_source_does_not_have(lint):
    source = {**OURS["orders_archive"][0]}
    report = lint(
        source, cases.target(("a", "{{sids}}"), ("b", "{{orders.num}}"), ("c", "{{LAST_SYNC_TIME}}"))
    )
    (found,) = [one for one in report.findings if one.path == "[1].request[0].value"]
    assert "returns no field 'sids'" in found.message
    assert found.fix == "did you mean 'sid'?"


def test_an_unknown_name_is_told_wherever_it_stands(lint):
    source = {
        **OURS["orders_archive"][0],
        "condition": [[{"field": "sysStatu", "logic": "notnull"}, {"field": "day", "logic": "notnull"}]],
        "formatResponse": [
            {"old": "payTimes", "new": "day", "format": "date"},
            {"old": "day", "new": "short", "format": "longText(4)"},
        ],
    }
    fields = [
        ("a", "{{orders.nums}}"),
        ("b", "{{orders.totalFree}}"),
        ("c", "{{short}}"),
        ("d", "{{orders}}"),
    ]
    found = {one.path: (one.message, one.fix) for one in lint(source, cases.target(*fields)).findings}
    assert found["[0].condition[0][0].field"][1] == "did you mean 'sysStatus'?"
    assert found["[0].formatResponse[0].old"][1] == "did you mean 'payTime'?"
    told, fix = found["[1].request[0].value"]
    assert "returns no field 'orders.nums'" in told
    assert fix == "did you mean 'orders.num'?"
    told_at = {path for path, (told, _) in found.items() if "returns no field" in told}
    assert len(told_at) == 3


@pytest.mark.parametrize(
    ("api", "told_fix"),
    [("writeapi", "each record is written to the target once"), ("写入空操作", "on the platform")],
)
def test_what_an_id_check_does_here(lint, api, told_fix):
    report = lint(OURS["orders_archive"][0] | {"idCheck": True}, cases.target(("a", "{{sid}}"), api=api))
    (found,) = [one for one in report.findings if one.path == "[0].idCheck"]
    assert told_fix in found.fix


@pytest.mark.parametrize(
    ("of_source", "of_target", "wanted"),
    [
        (True, False, "false, and the source's is true, which decides here: each record is written once"),
        (False, True, "true, and the source's is false, which decides here: changes are written again"),
        (True, True, None),
        (False, None, None),
    ],
)
def test_an_id_check_of_the_target_that_differs_is_told(lint, of_source, of_target, wanted):
    source = OURS["orders_archive"][0] | {"idCheck": of_source}
    given = {} if of_target is None else {"idCheck": of_target}
    report = lint(source, cases.target(("a", "{{sid}}"), **given))
    assert told(report).get("[1].idCheck") == wanted


def test_sampling_of_fields_is_another_command_here(lint):
    path = "metadata.autoFillResponse"
    assert "a new one is told once" in told(lint(cases.source(autoFillResponse=True)), "note")[path]
    assert path not in told(lint(cases.source(autoFillResponse=False)), "note")


def test_what_grouping_does_to_rows(lint):
    source = cases.source(api="erp.trade.list.query", id="sid", idCheck=False, beatFlat=["orders"])
    target = cases.target(
        ("a", "{{userId}}"),
        ("b", "{{payment}}"),
        groupCalculate={
            "headerGroup": ["userId", "sid"],
            "bodyGroup": ["orders_sysOuterIds"],
            "bodyName": "orders",
        },
    )
    found = {(one.path, one.level): one.message for one in lint(source, target).findings}
    assert "no part of a document" in found["[1].request[1].value", "danger"]
    assert ("[1].request[0].value", "danger") not in found
    assert "numbers sid by row" in found["[1].groupCalculate.headerGroup", "danger"]
    assert "of the new rows of one load" in found["[1].groupCalculate", "note"]
    messages = [one.message for one in lint(source, target).findings if one.path == "[1].groupCalculate"]
    assert any("returns no field 'orders_sysOuterIds'" in one for one in messages)
    assert any("idCheck false" in one for one in messages)


def test_another_platforms_source_compiles_but_does_not_run(lint):
    report = lint(cases.source(api="/open/orders/single/query"))
    assert (report.compiles, report.runs) == (True, False)
    assert "another platform's" in told(report, "not_run")["metadata.api"]


def test_methods_that_the_gateway_does_not_have(lint):
    report = lint(cases.source(api="trade.sold.get"))
    (found,) = [one for one in report.findings if one.level == "not_run"]
    assert found.fix == "ask erp.trade.outstock.simple.query"
    report = lint(cases.source(api="erp.trade.list.querry"))
    assert not report.runs
    assert "erp.trade.list.query" in report.pretty()


def test_a_method_without_records_does_not_run(lint):
    report = lint(cases.source(api="open.system.time.get"))
    assert told(report, "not_run") == {"metadata.api": "open.system.time.get returns no records to mirror"}


def test_a_parameter_that_the_gateway_would_ignore(lint):
    report = lint(cases.source(api="erp.trade.list.query", request=[{"field": "startTimes", "value": "x"}]))
    assert "would ignore it silently" in told(report, "not_run")["metadata.request[0].field"]
    assert "did you mean 'startTime'?" in report.pretty()


def test_the_worst_comes_first_and_each_thing_is_said_once(lint):
    report = lint(cases.source(api="/x/{y}", request=[{"field": "a", "value": "null"}]))
    levels = [LEVELS.index(one.level) for one in report.findings]
    assert levels == sorted(levels)
    assert len(set(report.findings)) == len(report.findings)


def test_coverage_counts_settings(lint):
    good = lint(cases.source())
    assert (good.settings, good.coverage) == (6, 83)  # the API is another platform's
    worse = lint({**cases.source(), "reqest": [], "diffMode": {"enabled": True}})
    assert (worse.settings, worse.supported) == (8, 5)
    assert "5 of 8 settings supported (62 %)" in worse.pretty()


@pytest.mark.parametrize("name", OURS)
def test_linting_asks_nobody_and_logs_nothing(name, caplog, monkeypatch):
    def refuse(*_):
        raise AssertionError("a linter reaches for nothing outside")

    monkeypatch.setattr("socket.socket.connect", refuse)
    with caplog.at_level(logging.DEBUG):
        assert lint_strategy(cases.OURS / f"{name}.json").compiles
    assert caplog.text == ""


def test_every_key_that_is_refused_says_what_to_do_instead():
    for table in (keys.METADATA, keys.FIELD, keys.FILE):
        for key, fate in table.items():
            assert fate.fate == "used" or fate.why, key
            assert fate.fate != "refused" or fate.instead, key


def test_the_command_checks_a_folder(tmp_path, capsys):
    from kuaimai.cli import main

    (tmp_path / "good.yaml").write_text("name: good\nsource: {method: erp.trade.list.query}\n")
    (tmp_path / "orders.json").write_text(json.dumps(OURS["orders_archive"], ensure_ascii=False))
    (tmp_path / "pipeline.schema.json").write_text("{}")  # for editors; no strategy
    assert main(["lint", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "good.yaml: runs, as kuaimai_good" in told
    assert "orders.json: runs here; 22 of 22 settings supported (100 %)" in told
    assert "schema" not in told
    (tmp_path / "bad.json").write_text('{"api": "x", "effect": "QUERRY", "id": "id"}')
    (tmp_path / "bad.yaml").write_text("name: bad\n")
    assert main(["lint", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "bad.json: refused; 2 of 3 settings supported (66 %)" in told
    assert "did you mean 'QUERY'?" in told
    assert "bad.yaml: refused" in told
    assert main(["lint", str(tmp_path / "gone")]) == 1
    assert "no file or folder" in capsys.readouterr().err


DOCS = Path(__file__).parents[2] / "docs"


def test_both_pages_name_everything_that_is_supported():
    known = {
        *functions.FUNCTIONS,
        *keys.PARSERS,
        *keys.LOGICS,
        *(key for table in (keys.METADATA, keys.FIELD) for key, fate in table.items() if fate.why == ""),
        "callBackStrategy",
        "diffMode",
        "collections",
    }
    # Other spellings of what is named.
    known -= {"CHARACTER_LENGTH", "CEILING", "UCASE", "LCASE", "CURRENT_TIMESTAMP", "CURRENT_DATE", "SYSDATE"}
    known -= {"LOCALTIME", "DAYOFMONTH", "adapter", "pagination"}
    for name in ("qeasy.md", "qeasy.zh-CN.md"):
        words = set(re.findall(r"\w+", (DOCS / name).read_text(encoding="utf-8")))
        assert known - words == set(), name


def test_the_strategy_of_the_page_runs_and_is_linted_as_the_page_says(tmp_path, capsys):
    from kuaimai.cli import main

    page = (DOCS / "qeasy.md").read_text(encoding="utf-8")
    [strategy, *_] = re.findall(r"^ *```json\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    [told] = re.findall(r"^ *```text\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "orders.json").write_text(strategy, encoding="utf-8")
    assert main(["lint", str(tmp_path / "orders.json")]) == 0
    printed = capsys.readouterr().out.replace(str(tmp_path), "include/pipelines")
    for line in told.replace("…\n", "").splitlines():
        assert line.strip() in printed


def test_both_pages_have_the_same_headings_and_commands():
    pages = [(DOCS / name).read_text(encoding="utf-8") for name in ("qeasy.md", "qeasy.zh-CN.md")]
    english, chinese = (
        (
            re.findall(r"^(#+) ", page, re.MULTILINE),
            re.findall(r"^ *```\w*\n(.*?)```", page, re.DOTALL | re.MULTILINE),
        )
        for page in pages
    )
    assert english == chinese
    assert pages[0].count("\n|") == pages[1].count("\n|")


@pytest.fixture
def used(tmp_path):
    """A function: what lint says of a YAML pipeline of orders that names a strategy's target."""

    def used(*sides, kind="http", **more):
        (tmp_path / "to_erp").mkdir(exist_ok=True)
        content = list(sides) if len(sides) > 1 else sides[0]
        text = json.dumps(content, ensure_ascii=False, indent=1)
        (tmp_path / "to_erp" / "orders.json").write_text(text, encoding="utf-8")
        lines = ["name: own", "source: {method: erp.trade.list.query}"]
        lines += [f"{name}: {json.dumps(value)}" for name, value in more.items()]
        lines.append(f"targets: [{{kind: {kind}, conn_id: my_api, strategy: to_erp/orders.json}}]")
        (tmp_path / "own.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (found,) = lint_files([tmp_path / "own.yaml"])
        return found

    return used


STATEMENT = cases.target(
    ("sid", "{{sid}}"),
    api="execute",
    method="SQL",
    otherRequest=[{"field": "main_sql", "value": "INSERT INTO t (sid) VALUES (:sid)"}],
)


@pytest.mark.parametrize(
    ("sides", "told"),
    [
        ((cases.target(("a", "{{sid}}"), method="PUT"),), "method: PUT: documents are sent by POST"),
        (
            (cases.target(("a", "{{CURRENT_TIME}}")),),
            "request[0].value: CURRENT_TIME: a document",
        ),
        ((cases.target(("a", "1"), api="/bills/{a}"),), "api: a path that differs by document"),
        (
            (cases.target(("a", "1"), otherRequest=[{"field": "FormId", "value": "BD"}]),),
            "otherRequest: FormId: parameters of a connector",
        ),
        ((cases.target(("a", "1"), api="写入空操作"),), "it writes nothing"),
        ((cases.source(api="erp.trade.list.query", id="sid"),), "it writes nothing"),
        ((cases.source(), cases.target(("a", "{{id}}"))), "[0].api: its source is /some/list"),
        (
            (cases.source(api="erp.shop.list.query"), cases.target(("a", "{{title}}"))),
            "[0].api: it shapes records of erp.shop.list.query (shop), and the pipeline reads trade",
        ),
        (
            (cases.source(api="erp.trade.list.query", beatFlat=["rows"]), cases.target(("a", "1"))),
            "[0].beatFlat[0]: erp.trade.list.query returns no list 'rows'",
        ),
        (
            (cases.target(("a", "{{receiverMobile}}")),),
            "receiverMobile: a person's data, which the",
        ),
        ((STATEMENT,), "to_erp/orders.json is a statement → write kind: statement"),
    ],
)
def test_a_strategy_that_a_pipeline_names_is_checked_like_one_that_is_dropped_in(used, sides, told):
    found = used(*sides)
    assert not found.runs
    assert "own.yaml, line 3: targets.0.strategy: " in found.told
    assert told in found.told


def test_a_strategy_that_a_pipeline_can_use(used):
    assert used(cases.target(("a", "{{receiverMobile}}")), keep_personal=["receiverMobile"]).runs
    assert used(cases.target(("a", "{{receiverMobile}}")), fields={"receiverMobile": {"keep": "hash"}}).runs
    source = cases.source(api="erp.trade.outstock.simple.query", id="sid", beatFlat=["orders"])
    assert used(source, cases.target(("a", "{{orders_num}}"))).runs
    assert used(STATEMENT, kind="statement").runs
    assert (
        "has no statement to execute → write kind: http"
        in used(cases.target(("a", "1")), kind="statement").told
    )


@pytest.mark.parametrize(
    ("main", "told"),
    [
        ("REPLACE INTO bill (sid) VALUES (:sid)", "REPLACE gives a changed record a new id"),
        (
            "INSERT INTO bill (sid) VALUES (:sid) ON DUPLICATE KEY UPDATE sid = VALUES(sid)",
            "a record that is there already gives no id",
        ),
        (
            "INSERT INTO bill (sid) VALUES (:sid) ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id)",
            None,
        ),
    ],
)
def test_main_statement_whose_id_the_lines_need(tmp_path, main, told):
    strategy = copy.deepcopy(OURS["bills_to_sql"])
    strategy[1]["otherRequest"][0]["value"] = main
    path = tmp_path / "bills.json"
    path.write_text(json.dumps(strategy), encoding="utf-8")
    found = [one for one in lint_strategy(path).findings if ":lastInsertId" in one.message]
    assert [one.level for one in found] == (["danger"] if told else [])
    assert all(told in one.message for one in found)
