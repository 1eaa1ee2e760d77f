"""What a refresh answer means, and how old is too old."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kuaimai.gateway.tokens import DAY, Credentials, TokenRecord, expiry

NOW = 1_700_000_000.0
GIVEN = Credentials("demoKey", "demoSecret", "demoAccess", "demoRefresh")


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ((NOW + 10 * DAY) * 1000, NOW + 10 * DAY),
        (NOW + 10 * DAY, NOW + 10 * DAY),
        (10 * DAY, NOW + 10 * DAY),
        ("864000", NOW + 10 * DAY),
        (Decimal(864000), NOW + 10 * DAY),
        (30 * DAY * 1000, NOW + 30 * DAY),  # milliseconds that are left look like an epoch far away
        (1_300_000_000, NOW + 30 * DAY),  # a moment long past cannot be the end of a fresh session
        (400 * DAY, NOW + 30 * DAY),
        *(
            (nothing, NOW + 30 * DAY)
            for nothing in (None, 0, "0", -5, "", "soon", True, [], {}, "nan", "inf")
        ),
        (10**400, NOW + 30 * DAY),
    ],
)
def test_expiry_reads_every_unit(told, meant):
    assert expiry(told, now=NOW) == pytest.approx(meant)


@given(
    told=st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.decimals(),
        st.text(),
        st.lists(st.integers()),
    )
)
def test_expiry_always_lies_between_now_and_30_days(told):
    assert NOW < expiry(told, now=NOW) <= NOW + 30 * DAY


@given(left=st.integers(min_value=1, max_value=int(30 * DAY)))
def test_expiry_agrees_over_all_units(left):
    ends = NOW + left
    for told in (left, ends, ends * 1000, str(left), str(int(ends * 1000))):
        assert expiry(told, now=NOW) == pytest.approx(ends)


@pytest.mark.parametrize(
    "body",
    [
        {"success": True, "session": {"accessToken": "newA", "refreshToken": "newR", "expiresIn": 864000}},
        {"session": {"access_token": "newA", "refresh_token": "newR", "expires_in": "864000"}},
        {"access_token": "newA", "refresh_token": "newR", "expires_in": 864000},
        {
            "open_token_refresh_response": {
                "session": {
                    "accessToken": "newA",
                    "refreshToken": "newR",
                    "expiresIn": (NOW + 10 * DAY) * 1000,
                }
            }
        },
        {"session": {"accessToken": " newA ", "refreshToken": "newR", "expireTime": NOW + 10 * DAY}},
    ],
)
def test_a_rotation_is_read_from_every_shape(body):
    record = TokenRecord.adopted(GIVEN, now=NOW - DAY).refreshed(body, now=NOW)
    assert (record.access_token, record.refresh_token) == ("newA", "newR")
    assert (record.last_refreshed_at, record.expires_at) == (NOW, NOW + 10 * DAY)
    assert record.obtained_at == NOW - DAY


@pytest.mark.parametrize(
    "body",
    [
        {"success": True, "code": 0},
        {"success": True, "session": None},
        {"success": True, "session": {}},
        {"success": True, "session": {"accessToken": "", "refreshToken": None, "expiresIn": 0}},
        {"success": True, "session": "demoAccess"},
    ],
)
def test_what_is_missing_keeps_its_old_text(body):
    record = TokenRecord.adopted(GIVEN, now=NOW).refreshed(body, now=NOW)
    assert record.has_tokens_of(GIVEN)
    assert record.expires_at == NOW + 30 * DAY


def test_a_record_survives_the_vault():
    record = TokenRecord.adopted(GIVEN, now=NOW).refreshed({}, now=NOW)
    assert TokenRecord.parsed(record.as_json()) == record
    assert set(record.as_json()) == {
        "access_token",
        "refresh_token",
        "obtained_at",
        "last_refreshed_at",
        "expires_at",
        "fingerprint",
        "fence",
    }


@pytest.mark.parametrize("missing", ["access_token", "refresh_token", "fingerprint", "obtained_at"])
@pytest.mark.parametrize("value", [None, "", 7j])
def test_a_record_without_what_it_needs_is_none(missing, value):
    stored = TokenRecord.adopted(GIVEN, now=NOW).as_json()
    assert TokenRecord.parsed({**stored, missing: value}) is None
    del stored[missing]
    assert TokenRecord.parsed(stored) is None


@pytest.mark.parametrize(
    ("days", "due", "worrying", "lost_soon"),
    [
        (0, False, False, False),
        (6.99, False, False, False),
        (7, True, False, False),
        (19.99, True, False, False),
        (20, True, True, False),
        (26.99, True, True, False),
        (27, True, True, True),
        (40, True, True, True),
    ],
)
def test_days_7_20_and_27(days, due, worrying, lost_soon):
    record = TokenRecord.adopted(GIVEN, now=NOW).refreshed({}, now=NOW)
    now = NOW + days * DAY
    assert (record.is_due(now=now), record.is_worrying(now=now), record.is_lost_soon(now=now)) == (
        due,
        worrying,
        lost_soon,
    )


def test_unknown_expiry_is_due_at_once():
    assert TokenRecord.adopted(GIVEN, now=NOW).is_due(now=NOW)


def test_never_due_within_65_minutes():
    record = TokenRecord.adopted(GIVEN, now=NOW - 40 * DAY).refreshed({"expires_in": 7200}, now=NOW)
    assert not record.is_due(now=NOW + 65 * 60 - 1)
    assert record.is_due(now=NOW + 65 * 60)


def test_a_session_that_lives_shorter_is_refreshed_in_proportion():
    record = TokenRecord.adopted(GIVEN, now=NOW).refreshed({"expires_in": 3 * DAY}, now=NOW)
    assert not record.is_due(now=NOW + 0.69 * DAY)
    assert record.is_due(now=NOW + 0.71 * DAY)
    assert record.is_worrying(now=NOW + 2.01 * DAY)
    assert record.is_lost_soon(now=NOW + 2.71 * DAY)


def test_a_lifetime_too_short_to_be_refreshed_was_in_another_unit():
    record = TokenRecord.adopted(GIVEN, now=NOW).refreshed({"expires_in": 30}, now=NOW)  # days?
    assert record.expires_at == NOW + 30
    assert not record.is_lost_soon(now=NOW + DAY)


def test_a_fingerprint_changes_with_each_credential_and_shows_none():
    prints = {
        GIVEN.fingerprint(),
        Credentials("demoKey2", "demoSecret", "demoAccess", "demoRefresh").fingerprint(),
        Credentials("demoKey", "demoSecret2", "demoAccess", "demoRefresh").fingerprint(),
        Credentials("demoKey", "demoSecret", "demoAccess2", "demoRefresh").fingerprint(),
        Credentials("demoKey", "demoSecret", "demoAccess", "demoRefresh2").fingerprint(),
    }
    assert len(prints) == 5
    assert all(len(mark) == 16 for mark in prints)


def test_no_secret_in_any_repr():
    shown = repr(GIVEN) + repr(TokenRecord.adopted(GIVEN, now=NOW))
    assert "demoSecret" not in shown
    assert "demoAccess" not in shown
    assert "demoRefresh" not in shown
