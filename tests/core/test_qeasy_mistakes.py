"""A strategy with a mistake gives one clear message with the strategy's own path; never a traceback."""

from __future__ import annotations

import copy
import json
from random import Random

import pytest
import strategy_cases as cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kuaimai.errors import ConfigError
from kuaimai.pipeline.qeasy.compiling import load_strategy, load_text
from kuaimai.pipeline.qeasy.lint import lint_strategy
from kuaimai.pipeline.qeasy.places import places_in
from kuaimai.pipeline.qeasy.rendering import render_requests

OURS = cases.ours()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not valid JSON: Expecting value in line 1, column 1"),
        ('{"api": ', "line 1, column 9"),
        ('{\n "api": "x",\n}', "line 3"),
        ("[]", "neither a source nor a target"),
        ("7", "a strategy is a JSON object, not a number"),
        ("null", "a strategy is a JSON object, not null"),
        ('{"a": NaN}', "NaN is no JSON"),
        ('{"api": "a", "api": "b"}', "line 1: api: the same key stands twice in one object"),
        ("[" * 100_000, "nests too deeply"),
        ('{"a":' * 60 + "1" + "}" * 60, "nests deeper"),
        ('{"metadata": []}', "metadata: a list where an object"),
        ('{"source": 5}', "source: a number where an object"),
        ('{"api": "x", "effect": "QUERRY", "id": "id"}', "did you mean 'QUERY'?"),
        ('{"api": "x", "effect": "QUERY"}', "id: it is missing"),
        ('{"api": "x", "type": "QUERY", "id": "id", "reqest": []}', "did you mean 'request'?"),
        ('{"api": "x", "effect": "QUERY", "id": "id", "requestParams": []}', "dialect of the 2026"),
        ('{"source": {"api": "x", "effect": "EXECUTE"}}', "EXECUTE in the source"),
        ('{"source_crontab": "* * * * *", "source": null}', "there is no source"),
        (
            '[{"api":"x","effect":"QUERY","id":"i"},{"api":"y","effect":"QUERY","id":"i"}]',
            "[1]: a second source",
        ),
    ],
)
def test_what_is_no_strategy(text, told):
    with pytest.raises(ConfigError) as refused:
        load_text(text)
    assert told in str(refused.value)


STRATEGY = """[
  {
    "api": "erp.trade.list.query", "effect": "QUERY", "id": "sid",
    "request": [
      {"field": "timeType", "value": "upd_time"},
      {"field": "startTime", "typ": "string",
       "value": "{{LAST_SYNC_TIM|datetime}}"}
    ],
    "beatFlat": [
      "orders",
      7
    ]
  },
  {"effect": "EXECUTE",
   "api": "writeapi"}
]
"""


def test_each_mistake_is_told_with_its_file_and_line(tmp_path):
    path = tmp_path / "orders.json"
    path.write_text(STRATEGY, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load_strategy(path)
    told = str(refused.value)
    assert told.startswith(f"strategy {path}, line 6: [0].request[1].typ: unknown key 'typ' → did you")
    assert "; line 7: [0].request[1].value: {{LAST_SYNC_TIM}} is no variable" in told
    assert "; line 11: [0].beatFlat[1]: a number where a name belongs" in told
    assert "; line 14: [1].request: it is missing" in told  # where that side begins
    path.write_text("7", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"strategy {path}: a strategy is a JSON object"):
        load_strategy(path)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters=".[]"), min_size=1, max_size=4)


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine the texts are made slowly
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
        max_leaves=12,
    )
)
def test_the_line_of_everything_in_a_text_is_known(content):
    text = json.dumps(content, indent=1, ensure_ascii=False)
    lines = text.split("\n")
    places = places_in(text)
    assert places.twice == ()

    def look(value, path):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            named = isinstance(value, dict)
            below = (f"{path}.{key}" if path else key) if named else f"{path}[{key}]"
            begin = f"{json.dumps(key, ensure_ascii=False)}: " if named else ""
            begin += {dict: "{", list: "["}.get(type(inner)) or json.dumps(inner, ensure_ascii=False)
            assert lines[places.line(below) - 1].strip().startswith(begin)
            if isinstance(inner, dict | list):
                look(inner, below)

    if isinstance(content, dict | list):
        look(content, "")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"request": {"a": 1}}, "request: an object where a list of {field, type, value} belongs"),
        ({"request": ["a"]}, "request[0]: text where an object"),
        ({"request": [{"value": 1}]}, "request[0].field: it is missing"),
        ({"request": [{"field": 7}]}, "request[0].field: a number where"),
        (
            {"request": [{"field": "a", "typ": "int"}]},
            "request[0].typ: unknown key 'typ' → did you mean 'type'?",
        ),
        ({"request": [{"field": "a", "type": "strin"}]}, "did you mean 'string'?"),
        (
            {"request": [{"field": "a"}, {"field": "a"}]},
            "request[1].field: 'a' stands in metadata.request[0]",
        ),
        ({"request": [{"field": "a", "parent": "b"}]}, "request[0].parent: there is no field 'b'"),
        (
            {"request": [{"field": "a", "parent": "b"}, {"field": "b", "parent": "a"}]},
            "fields are each other's parents",
        ),
        ({"request": [{"field": "a", "children": [{}]}]}, "request[0].children[0].field: it is missing"),
        ({"request": [{"field": "a", "children": [{"field": "b"}]}]}, "a string with children"),
        ({"request": [{"field": "a", "is_required": "maybe"}]}, "is_required: text where true or false"),
        ({"request": [{"field": "a", "parser": {"name": "StringToArry"}}]}, "did you mean 'StringToArray'?"),
        ({"request": [{"field": "a", "parser": {"name": "ConvertObjectParser"}}]}, "needs it"),
        ({"request": [{"field": "a", "parser": {"name": "ConvertJson", "sep": 1}}]}, "unknown key 'sep'"),
        ({"request": [{"field": "a", "value": "{{LAST_SYNC_TIM}}"}]}, "did you mean 'LAST_SYNC_TIME'?"),
        ({"request": [{"field": "a", "value": "{{PAGE_NO}}"}]}, "write PAGINATION_START_PAGE"),
        ({"request": [{"field": "a", "value": ["{{x}}"]}]}, "write it as children"),
        (
            {"request": [{"field": "a", "mapping": {"target": "x"}}]},
            "a static value map lives on the platform",
        ),
        ({"idCheck": "sometimes"}, "idCheck: text where true or false"),
        ({"idCheck": [1]}, "idCheck: a list where true or false"),
        ({"pagination": 50}, "pagination: a number where"),
        ({"pagination": {"pageSize": 0}}, "pageSize: a number where a whole number from 1"),
        ({"pagination": {"pageSize": "many"}}, "pageSize: text where a whole number"),
        ({"pagination": {"pagesize": 5}}, "did you mean 'pageSize'?"),
        ({"condition": [{"field": "a"}]}, "condition: a list where a list of lists"),
        ({"condition": [[{"field": "a", "logic": "equal", "value": 1}]]}, "known are eq, neq"),
        ({"condition": [[{"field": "a", "logic": "eq"}]]}, "condition[0][0].value: eq needs a value"),
        ({"condition": [[{"logic": "isnull"}]]}, "condition[0][0].field: it is missing"),
        ({"condition": [[{"field": "a", "logic": "between", "value": "5"}]]}, '"low,high"'),
        (
            {"condition": [[{"field": "a", "logic": "gt", "value": "{{LAST_SYNC_TIME|datetime}}"}]]},
            "condition[0][0].value: a template",
        ),
        (
            {"condition": [[{"field": "a", "logic": "gt", "value": "timestamp:soon"}]]},
            "condition[0][0].value: 'soon' is no time",
        ),
        ({"condition": [[]]}, "an empty group lets every row pass"),
        (
            {"condition": [[{"field": "a", "logic": "eq", "value": 1, "strict": 1}]]},
            "did you mean 'strictMode'?",
        ),
        (
            {"condition_bk": [[{"field": "a", "logic": "isnull"}]]},
            "condition_bk: whether the platform applies",
        ),
        ({"beatFlat": {"a": 1}}, "beatFlat: an object where a list of names"),
        ({"beatFlat": [7]}, "beatFlat[0]: a number where a name"),
        ({"formatResponse": [{"old": "a", "new": "b", "format": "dates"}]}, "did you mean 'date'?"),
        ({"formatResponse": [{"old": "a", "format": "date"}]}, "formatResponse[0].new: it is missing"),
        ({"formatResponse": [{"old": "a", "new": "b", "format": "round(x)"}]}, "no whole number"),
        ({"operation": {"method": "split"}}, "did you mean 'splitArray'?"),
        ({"operation": {"method": "splitArray"}}, "operation.arrayKey: it is missing"),
        ({"operation": {"method": "merge"}}, "use groupCalculate"),
        ({"operation": {"method": "batchArraySave", "rows": 5}}, "batchArraySave belongs to the target"),
        ({"groupCalculate": {"headerGroup": ["a"]}}, "groupCalculate: it belongs to the target"),
        ({"omissionRemedy": {"takeOverRequest": []}}, "omissionRemedy.crontab: it is missing"),
        ({"omissionRemedy": {"crontab": "0 */5 * * * ?"}}, "no crontab of five fields"),
        (
            {
                "request": [{"field": "start", "value": "1"}],
                "omissionRemedy": {"crontab": "1 * * * *", "takeOverRequest": [{"field": "strt"}]},
            },
            "did you mean 'start'?",
        ),
        ({"crontab": "hourly"}, "crontab: 'hourly' is no crontab of five fields"),
        ({"diffMode": {"enabled": True}}, "diffMode: a snapshot diff"),
        ({"callBackStrategy": {"strategyId": "x"}}, "callBackStrategy: pushing the result"),
        ({"otherResponse": {"Statuskey": "code"}}, "did you mean 'StatusKey'?"),
        ({"otherResponse": {"DataKey": "a/b/c/d"}}, "DataKey: 'a/b/c/d' is no path"),
        ({"otherResponse": {"DownloadAttachment": True}}, "attachments are not downloaded"),
        ({"api": "/x/{app}/y"}, "the path needs 'app'"),
        ({"api": 5}, "api: a number where text"),
        ({"otherRequest": [{"field": "detailkey1", "value": "id"}]}, "without otherapi"),
    ],
)
def test_a_source_with_a_mistake(changed, told):
    with pytest.raises(ConfigError) as refused:
        cases.compiled(cases.source(**changed))
    assert told in str(refused.value)
    assert "metadata." in str(refused.value)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"request": []}, "request: it is missing"),
        (
            {
                "request": [
                    {"field": "a", "type": "array", "value": "{{a}}/{{b}}", "children": [{"field": "c"}]}
                ]
            },
            "array",
        ),
        ({"operation": {"method": "batchArraySave"}}, "operation.rows: it is missing"),
        ({"operation": {"method": "batchArraySave", "rows": -1}}, "operation.rows: a number where"),
        ({"operation": {"method": "splitArray", "arrayKey": "a"}}, "splitArray belongs to the source"),
        ({"beatFlat": ["a"]}, "beatFlat: it belongs to the source"),
        ({"groupCalculate": {"bodyGroup": ["a"]}}, "headerGroup: it is missing"),
        ({"groupCalculate": {"headerGroup": ["a"], "calculate": {"q": "sum"}}}, "did you mean '$sum'?"),
        ({"groupCalculate": {"headerGroup": ["a"], "calculate": 5}}, "calculate: a number where"),
        ({"api": "execute", "method": "SQL"}, "main_sql is missing"),
        ({"api": "exec", "method": "SQL"}, "did you mean 'execute'?"),
        ({"autoCheck": 1}, "autoCheck: auditing in Kingdee"),
    ],
)
def test_a_target_with_a_mistake(changed, told):
    with pytest.raises(ConfigError) as refused:
        cases.compiled(cases.target(("a", "{{a}}"), **changed))
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DELETE FROM t", "no MySQL statement"),
        ("INSERT INTO t (a, b) VALUES", "its columns (a, b) are not the request's fields (b, a)"),
        ("INSERT INTO t (b, a) VALUES; DROP TABLE t", "MySQL statement"),
        ("INSERT INTO t SELECT * FROM u", "no MySQL statement"),
        ("REPLACE INTO", "its columns"),
    ],
)
def test_a_statement_that_would_write_something_else(statement, told):
    other = [{"field": "main_sql", "value": statement}, {"field": "limit", "value": "10"}]
    with pytest.raises(ConfigError) as refused:
        cases.compiled(
            cases.target(("b", "{{b}}"), ("a", "{{a}}"), api="batchexecute", method="SQL", otherRequest=other)
        )
    assert told in str(refused.value)
    assert "otherRequest[0].value" in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("extend_sql_1", "extend_sql_2", "otherRequest[1].field: extend_sql_2 has no extend_params_2"),
        ("extend_params_1", "extend_params_3", "request[1].field: extend_params_3 has no extend_sql_3"),
        ("INSERT INTO bill_line", "DELETE FROM bill_line", "otherRequest[1].value: it is no"),
        (":qty", ":qtty", "otherRequest[1].value: :qtty is no field of the request → did you mean 'qty'?"),
        ("(:sid)", "(:lastInsertId)", "otherRequest[0].value: :lastInsertId is no field"),
        ("extend_sql_1", "more_sql", "otherRequest[1].field: more_sql is not known"),
        ('"execute"', '"batchexecute"', "batchexecute has one statement"),
        (
            "INSERT INTO bill (sid) VALUES (:sid)",
            "UPDATE bill SET sid = :sid",
            "otherRequest[0].value: :lastInsertId: an UPDATE makes no row → write an INSERT",
        ),
        (
            "INSERT INTO bill_line (bill, code, qty) VALUES (:bill, :code, :qty)",
            " ",
            "otherRequest[1].field: extend_sql_1 is empty",
        ),
    ],
)
def test_statements_that_do_not_fit_their_arrays(old, new, told):
    text = json.dumps(OURS["bills_to_sql"])
    assert old in text
    with pytest.raises(ConfigError) as refused:
        load_text(text.replace(old, new))
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("name", "stands_in"), [("extend_params_1", "otherRequest"), ("extend_sql_1", "request")]
)
def test_statement_or_array_in_the_wrong_place_is_told(name, stands_in):
    strategy = copy.deepcopy(OURS["bills_to_sql"])
    for side in ("request", "otherRequest"):
        strategy[1][side] = [one for one in strategy[1][side] if not one["field"].startswith("extend_")]
    strategy[1][stands_in].append({"field": name, "value": "orders"})
    with pytest.raises(ConfigError, match=f"{stands_in}\\[1\\].field: {name} "):
        load_text(json.dumps(strategy))


def places(value, path=()):
    """Return the paths of everything inside of a JSON value."""
    found = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if not str(key).startswith("_"):
            found += [(*path, key), *places(inner, (*path, key))]
    return found


JUNK = [
    None,
    True,
    0,
    -1,
    10**30,
    1.5,
    "",
    "x",
    "{{",
    "{{x|y}}",
    "_function (",
    "_findCollection x",
    [],
    ["x"],
    {},
]
JUNK += [
    {"a": 1},
    [[]],
    [[{}]],
    "写入空操作",
    "EXECUTE",
    "a.b.c",
    "'; DROP TABLE x; --",
    "\x00",
    "😀",
    [None],
]


def damaged(random: Random):
    """Return a strategy with one thing in it replaced, taken away, added or renamed."""
    strategy = copy.deepcopy(random.choice(list(OURS.values())))
    path = random.choice(places(strategy))
    parent = strategy
    for key in path[:-1]:
        parent = parent[key]
    how = random.choice(["replace", "remove", "rename", "add", "replace"])
    if how == "remove":
        del parent[path[-1]]
    elif how == "rename" and isinstance(parent, dict):
        parent[f"{path[-1]}x"] = parent.pop(path[-1])
    elif how == "add" and isinstance(parent, dict):
        parent["sideways"] = random.choice(JUNK)
    else:
        parent[path[-1]] = random.choice(JUNK)
    return strategy, ".".join(map(str, path)), how


def test_hundreds_of_damaged_strategies_give_a_message_or_requests(tmp_path):
    refused = 0
    for number in range(250):
        strategy, path, how = damaged(Random(number))
        text = json.dumps(strategy, ensure_ascii=False)
        file = tmp_path / "strategy.json"
        file.write_text(text, encoding="utf-8")
        report = lint_strategy(file)  # never raises
        try:
            compiled = load_strategy(file)
            render_requests(compiled, cases.WINDOW, 2, [{"sid": 1, "orders": [{"num": 1}], "id": 2}, {}])
        except ConfigError as err:
            refused += 1
            told = str(err)
            assert "strategy.json" in told, (number, path, how)
            assert "\n" not in told
            assert len(told) < 4000
            assert not report.compiles
        else:
            assert report.compiles, (number, path, how)
    assert refused >= 100


def test_half_of_a_strategy_is_not_valid_json():
    text = json.dumps(OURS["orders_to_api"], ensure_ascii=False)
    for length in range(1, len(text) - 1, 37):
        with pytest.raises(ConfigError, match=r"not valid JSON: .* in line 1, column \d+"):
            load_text(text[:length])


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load_strategy(tmp_path / "gone.json")
    (tmp_path / "gbk.json").write_bytes('{"api": "写入空操作"}'.encode("gbk"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_strategy(tmp_path / "gbk.json")
    assert not lint_strategy(tmp_path / "gbk.json").compiles


def test_a_byte_order_mark_does_no_harm(tmp_path):
    (tmp_path / "bom.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(OURS["orders_archive"]).encode())
    assert load_strategy(tmp_path / "bom.json").name == "bom"


def test_a_remark_has_no_effect_and_is_not_counted(tmp_path):
    plain = tmp_path / "a.json"
    plain.write_text(json.dumps(cases.source()))
    noted = tmp_path / "b.json"
    noted.write_text(json.dumps({**cases.source(), "_reqest": [], "_note": "x"}))
    assert lint_strategy(noted).settings == lint_strategy(plain).settings
    assert lint_strategy(noted).compiles
