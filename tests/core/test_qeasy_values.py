"""Values of a strategy: templates, formats, parsers, expressions; exact, and never taken for code."""

from __future__ import annotations

from contextlib import suppress
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import pytest
import strategy_cases as cases
from hypothesis import given
from hypothesis import strategies as st

from kuaimai.errors import ConfigError, DataError
from kuaimai.pipeline.qeasy.formats import as_text
from kuaimai.pipeline.qeasy.moments import RunWindow, read_time

value, written = cases.value, cases.written

# Amounts as the API sends them, and far beyond.
AMOUNTS = st.decimals(
    min_value=Decimal("-1e15"), max_value=Decimal("1e15"), places=4, allow_nan=False, allow_infinity=False
)
# What people and platforms put into texts: quotes, backslashes, SQL, braces, emoji.
TEXTS = st.text(alphabet=st.sampled_from(list("ab1 '\"\\%_;-{}()|$`,=\n\t甲😀")), max_size=30)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("{{LAST_SYNC_TIME|datetime}}", cases.START),
        ("{{LAST_SYNC_TIME|dateTime}}", cases.START),
        ("{{LAST_SYNC_TIME datetime}}", cases.START),
        ("{{ CURRENT_TIME | datetime }}", cases.END),
        ("{{LAST_SYNC_TIME|date}}", "2026-03-01"),
        ("{{CURRENT_TIME|time}}", "10:05:00"),
        ("{{LAST_SYNC_TIME}}", cases.START_SECOND),
        ("{{LAST_SYNC_TIME}}000", f"{cases.START_SECOND}000"),
        ("{{LAST_SYNC_TIME|timestamp_ms}}", cases.START_SECOND * 1000),
        ("{{DAYS_AGO_1|datetime}}", "2026-02-28 10:05:09"),
        ("FDate>='{{LAST_SYNC_TIME|dateTime}}' and x", f"FDate>='{cases.START}' and x"),
        ("{PAGINATION_PAGE_SIZE}", 50),
        ("{{PAGINATION_START_PAGE}}", 1),
        ("{{PAGINATION_START_ROW}}", 0),
        ('{"a": {"b": 1}}', '{"a": {"b": 1}}'),  # braces of JSON are no placeholders
        ("{note}", "{note}"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_variables_come_from_the_window(text, sent):
    assert value(text) == sent


def test_the_window_and_nothing_else_sets_the_time():
    again = [
        cases.rendered(cases.source(request=[{"field": "t", "value": "{{LAST_SYNC_TIME}}"}])) for _ in "12"
    ]
    assert again[0].source == again[1].source
    with pytest.raises(ValueError, match="no zone"):
        RunWindow(cases.WINDOW.start.replace(tzinfo=None), cases.WINDOW.end, cases.WINDOW.now)


@pytest.mark.parametrize(
    ("text", "row", "sent"),
    [
        ("{{tid}}", {"tid": "A"}, "A"),
        ("{{shop.id}}", {"shop": {"id": 6900000000000000017}}, 6900000000000000017),
        ("{{FMaterialId.FNumber}}", {"FMaterialId.FNumber": "X"}, "X"),
        ("{{a.b.c}}", {"a.b": {"c": 1}}, 1),
        ("{{lines.code}}", {"lines": [{"code": "a"}, {"code": "b"}]}, ["a", "b"]),
        ("{{gone}}", {}, None),
        ("x{{gone}}y", {}, "xy"),
        ("{{amount}}", {"amount": Decimal("0.10")}, Decimal("0.10")),
        ("{{amount}} 元", {"amount": Decimal("0.10")}, "0.10 元"),
        ("{{paid|datetime}}", {"paid": 1772330400000}, cases.START),
        ("{{paid|datetime}}", {"paid": "1772330400"}, cases.START),
        ("{{paid|date}}", {"paid": "2026-03-01T02:00:00Z"}, "2026-03-01"),
        ("{{paid|date}}", {"paid": "20260301100000"}, "2026-03-01"),
        ("{{paid|date}}", {"paid": 946656000000}, None),  # the API's "no time"
        ("{{paid|date}}", {"paid": None}, None),
        ("{{n|number:2}}", {"n": "1.005"}, Decimal("1.01")),
        ("{{n|string}}", {"n": Decimal("1.50")}, "1.50"),
        ("{{n|replace(a,b)}}", {"n": "banana"}, "bbnbnb"),
        ("{{n|json_encode}}", {"n": {"a": Decimal("1.10")}}, '{"a":1.10}'),
        ("{{名称}}", {"名称": "甲"}, "甲"),
    ],
)
def test_fields_of_the_row(text, row, sent):
    assert value(text, **row) == sent


@given(TEXTS)
def test_a_text_of_a_row_is_never_a_template(text):
    assert value("{{x}}", x=text) == text
    assert value("[{{x}}]", x=text) == f"[{text}]"
    assert value("_function CONCAT('<', {{x}}, '>')", x=text) == f"<{text}>"
    assert value("_function '{{x}}'", x=text) == text
    assert value("_function CASE '{{x}}' WHEN {{x}} THEN 'same' END", x=text or "a") == "same"


@given(TEXTS, TEXTS)
def test_a_text_of_a_row_is_never_sql(name, other):
    """Quoting is the row's own business: nothing is pasted into the expression."""
    assert value("_function CHAR_LENGTH('{{x}}')", x=name) == len(name)
    assert value("_function REPLACE({{x}}, {{y}}, {{y}})", x=name, y=other) == name
    assert value("_function LOCATE({{x}}, CONCAT({{y}}, {{x}}))", x=name, y=other) > 0


@given(AMOUNTS, AMOUNTS)
def test_arithmetic_is_exact(a, b):
    assert value("_function {{a}} + {{b}}", a=a, b=b) == a + b
    assert value("_function {{a}} - {{b}}", a=str(a), b=str(b)) == a - b
    product = value("_function {{a}} * {{b}}", a=a, b=str(b))
    assert Fraction(product) == Fraction(a) * Fraction(b)
    assert value("_function SUM({{rows.a}})", rows=[{"a": str(a)}, {"a": b}, {"a": None}]) == a + b
    assert value("_function {{a}} > {{b}}", a=str(a), b=str(b)) == int(a > b)
    assert value("_function ROUND({{a}}, 2)", a=a) == a.quantize(Decimal("0.01"), ROUND_HALF_UP)


@given(st.integers(min_value=-(10**30), max_value=10**30), st.integers(min_value=1, max_value=10**12))
def test_ids_beyond_53_bits_and_quotients_stay_exact(whole, divisor):
    assert value("_function {{a}} + 1", a=whole) == whole + 1
    assert value("_function {{a}} DIV {{b}} * {{b}} + {{a}} % {{b}}", a=whole, b=divisor) == whole
    quotient = Fraction(value("_function {{a}} / {{b}}", a=whole, b=divisor))
    assert abs(quotient * divisor - whole) <= divisor * Fraction(5, 100_000)
    assert value("{{a}}", a=whole) == whole


@given(st.one_of(st.none(), AMOUNTS.map(str)), st.one_of(st.none(), AMOUNTS.map(str)))
def test_null_is_null(a, b):
    expected = None if a is None or b is None else Decimal(a) + Decimal(b)
    assert value("_function {{a}} + {{b}}", a=a, b=b) == expected
    first = a if a is not None else b
    assert value("_function IFNULL({{a}}, {{b}})", a=a, b=b) == (None if first is None else Decimal(first))
    assert value("_function CASE WHEN {{a}} IS NULL THEN 1 ELSE 0 END", a=a) == int(a is None)
    assert value("_function {{a}} <=> {{b}}", a=a, b=b) == int(
        a is None and b is None if a is None or b is None else Decimal(a) == Decimal(b)
    )


EXPRESSIONS = st.recursive(
    st.sampled_from(["{{a}}", "{{b}}", "{{t}}", "{{n}}", "'x''y'", "1.50", "0", "NULL"]),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["+", "-", "*", "/", "%", "=", "<", "AND", "OR"]), inner, inner).map(
            lambda one: f"({one[1]} {one[0]} {one[2]})"
        ),
        st.tuples(
            st.sampled_from(["IFNULL", "CONCAT", "NULLIF", "GREATEST", "LEFT", "LOCATE"]), inner, inner
        ).map(lambda one: f"{one[0]}({one[1]}, {one[2]})"),
        st.tuples(st.sampled_from(["ROUND", "ABS", "TRIM", "SUM", "UPPER", "DATE", "NOT"]), inner).map(
            lambda one: f"{one[0]}({one[1]})"
        ),
        st.tuples(inner, inner, inner).map(lambda one: f"CASE {one[0]} WHEN {one[1]} THEN {one[2]} END"),
        st.tuples(inner, inner, inner).map(lambda one: f"IF({one[0]}, {one[1]}, {one[2]})"),
    ),
    max_leaves=12,
)


@given(EXPRESSIONS, AMOUNTS, TEXTS)
def test_any_nesting_gives_a_value_or_an_error_that_names_it(expression, a, t):
    found: object = None
    try:
        found = value(f"_function {expression}", a=a, b=3, t=t, n=None)
    except DataError as err:
        told = str(err)
    else:
        told = expression
    assert expression in told
    assert found is None or isinstance(found, str | int | Decimal)
    # Only a number that stands alone is its own value.
    assert expression == "1.50" or expression not in as_text(found or "")


@pytest.mark.parametrize(
    "text",
    [
        "_function 1 / {{zero}}",
        "_function {{word}} * 2",
        "_function {{word}} > 5",
        "_function FROM_UNIXTIME({{ms}})",
        "_function DATE_FORMAT({{word}}, '%Y')",
        "_function UNIX_TIMESTAMP('{{missing}}')",
        "_function UNIX_TIMESTAMP({{zero}})",
        "_function {{list}} + 1",
        "_function {{object}}",
        "_function LEFT({{word}}, 1.5)",
        "_function LPAD('x', 999999999, 'y')",
        "_function STR_TO_DATE({{word}}, '%Y-%m-%d')",
        "_function DATE_ADD({{day}}, INTERVAL 99999999 YEAR)",
        "_function ROUND(1, 400)",
        "_function {{huge}} * {{huge}}",
        "{{word|datetime}}",
        "{{word|number:2}}",
    ],
)
def test_an_error_is_an_error_and_never_the_text_of_the_expression(text):
    row = {
        "zero": 0,
        "word": "甲",
        "ms": 1772330400000,
        "list": [1, 2],
        "object": {"a": 1},
        "day": "2026-03-01",
        "huge": "9" * 60,
    }
    with pytest.raises(DataError) as told:
        value(text, **row)
    assert str(told.value).startswith(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("_function DATE_FORMAT(NOW(), '%b')", "the time pattern %b is not supported"),
        ("_function SLEEP(10)", "the function SLEEP is not supported"),
        ("_function LOAD_FILE('/etc/passwd')", "the function LOAD_FILE is not supported"),
        ("_function FORMT(1)", "did you mean"),
        ("_function (SELECT 1)", "no single MySQL expression"),
        ("_function 1; DROP TABLE x", "no MySQL expression"),
        ("_function 1) + (2", "no single MySQL expression"),
        ("_function @@version", "not supported"),
        ("_function price * 2", "write {{price}}"),
        ("_function `price`", "write {{price}}"),
        ("_function LEFT('a'", "no MySQL expression"),
        ("_function LEFT('a')", "LEFT takes 2 arguments, not 1"),
        ("_function ", "has no expression"),
        ("_function " + "(" * 5000 + "1" + ")" * 5000, "nests too deeply"),
        ("_function 1" + "+1" * 5000, "nests too deeply"),
        ("_function {{a", "not closed"),
        ("_function CAST(1 AS JSON)", "CAST"),
        ("_function COUNT(*)", "not supported"),
        ("_function DATE_ADD(NOW(), 1)", "INTERVAL"),
        ("{{a", "not closed"),
        ("{{}}", "names nothing"),
        ("{{a|datetim}}", "did you mean 'datetime'"),
        ("{{a|addDays:-1}}", "newer documentation"),
        ("{{$lastExecuteTime}}", "newer documentation"),
        ("x _function 1", "only at the beginning"),
        ("_funtion 1 + 1", "_funtion is not known → did you mean '_function'?"),
        ("_mongoQuery s findField=content.id where={}", "_mongoQuery is not known"),
        ("_findCollection find x", "write _findCollection find"),
        ("_findCollection find x from s where a = {{b}}", "no condition"),
        ("_findCollection find x from other where a={{b}}", '"collections": {"other"'),
        ("_function _findCollection find x from s where a={{b}} + 1", "_endFind"),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_compiled(text, told):
    with pytest.raises(ValueError) as refused:
        value(text)
    assert told in str(refused.value)


def test_an_argument_that_is_nothing_or_zero_is_an_argument():
    assert value("_function UNIX_TIMESTAMP()") == cases.START_SECOND + 309  # now
    assert value("_function UNIX_TIMESTAMP('{{t}}')", t=cases.START) == cases.START_SECOND
    assert value("_function REPLACE('10', 0, 'x')") == "1x"
    assert value("_function REPLACE('10', '', 'x')") == "10"


def test_a_lookup_inside_of_an_expression():
    class Landed:
        def find(self, table, where, field):
            return {"ok": "1"}.get(where["a"])

    text = (
        "_function CASE _findCollection find f from s where a={{b}} _endFind WHEN 1 THEN '{{c}}' ELSE '' END"
    )
    assert value(text, Landed(), b="ok", c="it's") == "it's"
    assert value(text, Landed(), b="no", c="it's") == ""
    with pytest.raises(DataError, match="no landed tables"):
        value("_findCollection find f from s where a={{b}}", b=1)


@pytest.mark.parametrize(
    ("kind", "given_value", "sent"),
    [
        ("string", "{{x}}", "5"),
        ("int", "{{x}}", 5),
        ("int", "7", 7),
        ("number", "1.50", Decimal("1.50")),
        ("float", "{{x}}", 5),
        ("bool", "true", True),
        ("boolean", "0", False),
        ("datetime", "1772330400", cases.START),
        ("date", "2026-03-01 10:00:00", "2026-03-01"),
        ("timestamp", cases.START, cases.START_SECOND),
        ("array", "{{list}}", [1, 2]),
        ("object", "{{shop}}", {"id": 1}),
    ],
)
def test_a_value_has_the_type_that_its_field_declares(kind, given_value, sent):
    row = {"x": 5, "list": [1, 2], "shop": {"id": 1}}
    assert written([{"field": "f", "type": kind, "value": given_value}], row) == {"f": sent}


@pytest.mark.parametrize(
    ("kind", "given_value"),
    [("int", "1.5"), ("int", "x"), ("number", "甲"), ("bool", "maybe"), ("array", "x"), ("datetime", "soon")],
)
def test_a_value_that_does_not_fit_its_type_is_refused(kind, given_value):
    with pytest.raises(ConfigError, match=r"metadata\.request\[0\]\.value|\[1\]\.request\[0\]\.value"):
        written([{"field": "f", "type": kind, "value": given_value}], {})
    with pytest.raises(ValueError, match=r"request\[0\] \(f\)"):
        written([{"field": "f", "type": kind, "value": "{{v}}"}], {"v": given_value})


@pytest.mark.parametrize(
    ("parser", "row_value", "sent"),
    [
        ({"name": "StringToArray", "params": ","}, "a, b,c", ["a", "b", "c"]),
        ({"name": "StringToArray", "params": ","}, " ", []),
        ({"name": "ArrayToString", "params": "|"}, ["a", 1, None], "a|1|"),
        ({"name": "StringToArray,ArrayUnique", "params": ","}, "a,b,a", ["a", "b"]),
        ({"name": "ConvertObjectParser", "params": "FNumber"}, "VEN1", {"FNumber": "VEN1"}),
        (
            {"name": "ConvertTwoStageObjectParser", "params1": "value", "params2": "phone"},
            "1",
            {"value": {"phone": "1"}},
        ),
        ({"name": "ConvertJson"}, {"1033": "a"}, [{"Key": 1033, "Value": "a"}]),
        (
            {"name": "K3WiseHeiHuCustomParser", "params": "短代码"},
            "6",
            [{"keyName": "短代码", "keyValue": "6"}],
        ),
        (
            {"name": "workflowRequestTableFields", "edit": False, "fieldId": "12258"},
            "V",
            {"fieldName": "f", "fieldValue": "V", "view": True, "edit": False, "fieldId": "12258"},
        ),
    ],
)
def test_parsers(parser, row_value, sent):
    assert written([{"field": "f", "value": "{{v}}", "parser": parser}], {"v": row_value}) == {"f": sent}


def test_what_has_no_value_is_not_sent_and_what_is_required_is_missed():
    fields = [
        ("a", "1"),
        ("b", None),
        ("c", "{{gone}}"),
        {"field": "d", "type": "object", "children": [{"field": "e", "value": "{{gone}}"}]},
        {"field": "g", "value": "{{gone}}", "default": "-"},
    ]
    assert written(fields, {}) == {"a": "1", "g": "-"}
    with pytest.raises(ValueError, match=r"request\[0\] \(a\): it is required, and comes out empty"):
        written([{"field": "a", "value": "{{gone}}", "is_required": True}], {})
    assert written([{"field": "n", "type": "int", "value": ""}, ("a", "1"), ("b", "")], {}) == {
        "a": "1",
        "b": "",
    }
    # Neither is an empty text a value: it is what a record has where a person has filled in nothing.
    with pytest.raises(ValueError, match="it is required, and comes out empty"):
        written([{"field": "a", "value": "{{memo}}", "is_required": True}], {"memo": ""})


def test_arrays_are_walked_element_by_element_and_may_nest():
    fields = [
        ("no", "{{no}}"),
        {
            "field": "FEntity",
            "type": "array",
            "value": "{{lines}}",
            "children": [
                {"field": "code", "value": "{{lines.code}}"},
                {"field": "head", "value": "{{no}}-{{lines.code}}"},
                {
                    "field": "lots",
                    "type": "array",
                    "value": "lines.lots",
                    "children": [{"field": "lot", "value": "{{lines.lots.id}}/{{lines.code}}"}],
                },
            ],
        },
    ]
    row = {"no": "B", "lines": [{"code": "x", "lots": [{"id": 1}, {"id": 2}]}, {"code": "y", "lots": []}]}
    assert written(fields, row) == {
        "no": "B",
        "FEntity": [
            {"code": "x", "head": "B-x", "lots": [{"lot": "1/x"}, {"lot": "2/x"}]},
            {"code": "y", "head": "B-y", "lots": []},
        ],
    }


def test_flat_fields_with_parents_are_the_same_as_nested_ones():
    flat = [
        {"field": "shop", "type": "object"},
        {"field": "id", "value": "{{userId}}", "parent": "shop"},
        {"field": "geo", "type": "object", "parent": "shop"},
        {"field": "city", "value": "甲", "parent": "geo"},
    ]
    nested = [
        {
            "field": "shop",
            "type": "object",
            "children": [
                {"field": "id", "value": "{{userId}}", "parent": "shop"},
                {
                    "field": "geo",
                    "type": "object",
                    "children": [{"field": "city", "value": "甲", "parent": "geo"}],
                },
            ],
        }
    ]
    assert written(flat, {"userId": 9}) == written(nested, {"userId": 9})
    assert written(flat, {"userId": 9}) == {"shop": {"id": "9", "geo": {"city": "甲"}}}


@given(st.text(alphabet="0123456789-/: TZ+.甲", max_size=20))
def test_reading_a_time_never_breaks(text):
    with suppress(ValueError):  # and nothing else
        assert read_time(text) is None or text.strip()


@given(st.one_of(st.integers(), st.decimals(allow_nan=True, allow_infinity=True)))
def test_reading_a_number_as_a_time_never_breaks(number):
    with suppress(ValueError):  # and nothing else
        assert read_time(number) is None or number
