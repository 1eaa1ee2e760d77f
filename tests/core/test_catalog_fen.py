"""Fen become yuan: exactly, by column as by value, and not a digit more or less is taken."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kuaimai.gateway.answers import Answer, decode_json, encode_json, read_envelope
from kuaimai.transform.columns import convert
from kuaimai.transform.fields import fen_to_yuan, to_decimal
from kuaimai.transform.mapping import Mapper
from kuaimai.transform.rows import Rows


@pytest.mark.parametrize(
    ("fen", "yuan"),
    [
        (107500, "1075"),
        ("107500", "1075"),
        (Decimal("107500.0"), "1075"),
        (Decimal("1075.5"), "10.755"),
        (1, "0.01"),
        (-1, "-0.01"),
        ("0", "0"),
        ("-0.00", "0"),
        ("1234567890123456789012", "12345678901234567890.12"),
        ("0.0000000000000001", "0.000000000000000001"),
    ],
)
def test_fen_become_yuan(fen, yuan):
    assert fen_to_yuan(fen) == Decimal(yuan)


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_amount_is_none(nothing):
    assert fen_to_yuan(nothing) is None


@pytest.mark.parametrize(
    "fen", ["abc", True, [], "NaN", "1e99999999", "1e-99999999", "0.00000000000000001", "1" + "0" * 22]
)
def test_what_is_no_amount_or_does_not_fit_is_refused(fen):
    with pytest.raises(ValueError):
        fen_to_yuan(fen)


amounts = st.decimals(allow_nan=False, allow_infinity=False) | st.decimals(
    min_value=-(10**12), max_value=10**12, places=4
)


@given(amounts)
def test_a_hundred_times_the_yuan_are_the_fen(fen):
    try:
        yuan = fen_to_yuan(fen)
    except ValueError:
        return  # too long for the target: refused, not rounded
    with localcontext() as exact:
        exact.prec = 1000
        assert yuan * 100 == fen


@given(st.lists(amounts.map(str), min_size=1), st.data())
def test_by_column_and_by_value_are_the_same(numbers, data):
    quoted = data.draw(st.lists(st.booleans(), min_size=len(numbers), max_size=len(numbers)))
    numbers = [number.replace("E+", "e") for number in numbers]
    texts = [f'"{text}"' if quote else text for text, quote in zip(numbers, quoted, strict=True)]
    for kind, by_value in (("fen", fen_to_yuan), ("yuan", to_decimal)):
        values, misfits = convert(kind, pa.array(texts))
        refused = misfits.to_pylist() if misfits is not None else [False] * len(texts)
        for text, value, bad in zip(texts, values.to_pylist(), refused, strict=True):
            try:
                assert (value, bad) == (by_value(decode_json(text.encode())), False)
            except ValueError:
                assert bad


def test_part_of_a_column_is_read_at_its_place():
    part = pa.array(["1", "2", None, "4"])[1:]
    assert convert("fen", part)[0].to_pylist() == [Decimal("0.02"), None, Decimal("0.04")]


def test_purchase_lands_in_yuan_either_way():
    sent = {
        "id": 3940000000000001,
        "totalAmount": Decimal("107500.0"),
        "actualTotalAmount": "107500",
        "freight": "0",
    }
    raw = encode_json({"total": "1", "list": [sent]})
    answer = Answer("x", read_envelope("x", raw), raw)
    found = []
    for fast in (True, False):
        mapper = Mapper("purchase")
        into = [Rows(table) for table in mapper.tables]
        if fast:
            assert mapper.map_answers([answer], ("list",), into) == []
        else:
            assert mapper.map(answer.rows(("list",)), into) == []
        found.append(into[0].to_arrow(rank=0, window_id="w").to_pylist()[0])
    assert found[0] == found[1]
    assert (found[0]["total_amount"], found[0]["actual_total_amount"], found[0]["freight"]) == (1075, 1075, 0)
    assert {column.name: column.type for column in mapper.tables[0].columns}["total_amount"] == "yuan"
