"""A value is exact or refused; nothing is rounded, nothing crashes."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kuaimai.gateway.answers import decode_json
from kuaimai.transform.fields import (
    CONVERTERS,
    to_decimal,
    to_epoch_ms,
    to_id,
    to_integer,
    to_json,
    to_text,
)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [(6900000000000000017, "6900000000000000017"), ("0123", "0123"), (-1, "-1"), ("", None), (None, None)],
)
def test_ids_are_text_and_keep_every_digit(sent, kept):
    assert to_id(sent) == kept


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("42.00", Decimal("42.00")),
        ("42", Decimal(42)),
        ("0.0", Decimal("0.0")),
        (21.5, None),
        (Decimal("33.989999999999995"), Decimal("33.989999999999995")),
        (-3, Decimal(-3)),
        ("", None),
        ("1.50000000000000000000000000", Decimal("1.5")),
        ("12345678901234567890.123456789012345678", Decimal("12345678901234567890.123456789012345678")),
    ],
)
def test_amounts_are_exact_decimals(sent, kept):
    if isinstance(sent, float):
        with pytest.raises(ValueError, match="float"):
            to_decimal(sent)
    else:
        assert to_decimal(sent) == kept


@pytest.mark.parametrize(
    "sent",
    [
        "abc",
        "1,5",
        "NaN",
        "Infinity",
        "9" * 21,
        "1e-30",
        True,
        [],
        {},
        "12345678901.1234567890123456789",
        "1e99999999",
    ],
)
def test_what_is_no_amount_is_refused(sent):
    with pytest.raises(ValueError):
        to_decimal(sent)


@pytest.mark.parametrize(
    ("sent", "epoch_ms"),
    [
        (1772326905000, 1772326905000),
        ("1772326905000", 1772326905000),
        ("2026-03-01 09:01:45", 1772326905000),
        ("2026-03-01", 1772294400000),
        (946656000000, None),
        ("946656000000", None),
        (978278400000, None),
        ("2000-01-01 00:00:00", None),
        ("0000-00-00 00:00:00", None),
        ("9999-12-31 23:59:59", None),
        (0, None),
        (-1, None),
        ("", None),
        (None, None),
    ],
)
def test_times_in_every_form_are_one_instant_and_no_time_is_none(sent, epoch_ms):
    assert to_epoch_ms(sent) == epoch_ms


@pytest.mark.parametrize("sent", [1772326905, "yesterday", "2026-02-30 00:00:00", True, [1]])
def test_what_is_no_time_is_refused(sent):
    with pytest.raises(ValueError):
        to_epoch_ms(sent)


@pytest.mark.parametrize(
    ("sent", "kept"), [(True, 1), ("12", 12), (Decimal("3.0"), 3), ("-4", -4), ("", None)]
)
def test_whole_numbers_from_every_form(sent, kept):
    assert to_integer(sent) == kept


@pytest.mark.parametrize("sent", ["1.5", 2**63, "x", [], Decimal("0.1"), Decimal("1e99999999")])
def test_what_is_no_whole_number_is_refused(sent):
    with pytest.raises(ValueError):
        to_integer(sent)


def test_emoji_line_breaks_and_replacement_characters_stay_as_they_are():
    assert to_text("尽快发货🚀\n谢谢�") == "尽快发货🚀\n谢谢�"


@pytest.mark.parametrize("sent", ["a\x00b", "\ud800"])
def test_text_that_no_database_stores_is_refused(sent):
    with pytest.raises(ValueError, match="cannot be stored"):
        to_text(sent)


def test_nested_values_do_not_change_with_the_order_in_which_they_are_sent():
    assert to_json([{"id": 2}, {"id": 1}]) == to_json([{"id": 1}, {"id": 2}])


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_any_json_value_is_converted_or_refused_with_a_reason(value):
    for convert in CONVERTERS.values():
        try:
            convert(value)
        except ValueError as err:
            assert str(err)  # noqa: PT017 - both outcomes are right, silence is not


@given(st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**12), max_value=10**12))
def test_an_amount_survives_as_text_and_as_a_number(amount):
    assert to_decimal(f"{amount:f}") == amount
    assert to_decimal(decode_json(f"{amount:f}".encode())) == amount


def test_an_id_longer_than_databases_index_is_refused():
    assert to_id("7" * 255) == "7" * 255
    with pytest.raises(ValueError, match="an id of 256 characters"):
        to_id("7" * 256)
