# ruff: noqa: E501 - published vectors are as long as they are
"""Signatures agree with every published vector, and with the sandbox's own reading of the protocol."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kuaimai.gateway.signing import SIGN_METHODS, canonical_text, signature

VECTOR_A = {
    "appKey": "123456",
    "session": "test",
    "method": "open.system.time.get",
    "format": "json",
    "version": "1.0",
    "timestamp": "2020-09-21 16:58:00",
}
VECTOR_B = {
    "appKey": "123456",
    "endTime": "2023-07-21 23:59:59",
    "method": "erp.trade.list.query",
    "pageNo": "1",
    "pageSize": "20",
    "session": "test",
    "startTime": "2023-07-21 09:30:40",
    "timeType": "upd_time",
    "timestamp": "2023-08-07 14:04:08",
    "version": "1.0",
}
VECTOR_C = {
    "appKey": "demoKey",
    "session": "demoSession",
    "method": "erp.shop.list.query",
    "format": "json",
    "version": "1.0",
    "timestamp": "2026-01-02 03:04:05",
    "pageNo": "1",
    "pageSize": "50",
    "name": "旗舰店 A+B&C=1",
}


def test_signed_text_is_the_one_printed_in_the_documentation():
    assert canonical_text({**VECTOR_A, "sign_method": "hmac-sha256"}) == (
        "appKey123456formatjsonmethodopen.system.time.getsessiontestsign_methodhmac-sha256"
        "timestamp2020-09-21 16:58:00version1.0"
    )


@pytest.mark.parametrize(
    ("params", "secret", "method", "sent", "expected"),
    [
        (VECTOR_A, "helloworld", "hmac-sha256", True, "7905D5EF37CA177B9219DBFA603F773A7616F424D545E731AAFBB992408F6CEE"),
        (VECTOR_A, "helloworld", "hmac", True, "33F8A0DBB3DB1E60E210A7307DD15075"),
        (VECTOR_A, "helloworld", "md5", True, "F1D3BB43123A50C78EBCB84CD301A340"),
        (VECTOR_A, "helloworld", "hmac", False, "AF47641CA197A1755E4EB7BA0EEEA981"),
        (VECTOR_B, "testsecret", "hmac", False, "5A6E50C4ECD5BE47CC7E654B295E822D"),
        (VECTOR_B, "testsecret", "hmac-sha256", False, "D8E2E5FB5D889D125E4CDAE1A91A6281C3A601660CC191CFE6AA410E3013EF00"),
        (VECTOR_B, "testsecret", "md5", False, "BF37C8B0AC7E09AC624F02FDF78EC910"),
        (VECTOR_C, "demoSecret", "md5", True, "7A3F2BE0584D5C182711452FFF610FE9"),
        (VECTOR_C, "demoSecret", "hmac", True, "96D2A3634FFC0A0A1DF91E0D1185B81D"),
        (VECTOR_C, "demoSecret", "hmac-sha256", True, "54687F57C22151E57CB48543CA4053993546D8090F89F8E2FBD3F7E1230207D1"),
    ],
)  # fmt: skip
def test_signature_matches_the_published_vectors(params, secret, method, sent, expected):
    if sent:
        params = {**params, "sign_method": method}
    assert signature(params, secret, method) == expected


def test_names_sort_in_ascii_order_as_the_documentation_shows():
    assert (
        canonical_text({"foo_bar": "3", "bar": "1", "foobar": "4", "foo": "2"}) == "bar1foo2foo_bar3foobar4"
    )
    assert canonical_text({"b": "2", "A": "1", "_": "x"}) == "A1_xb2"


def test_sign_itself_is_never_signed():
    assert canonical_text({"a": "1", "sign": "ABC"}) == "a1"


texts = st.text(st.characters(codec="utf-8"), min_size=1)
names = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1, max_size=20)


@given(st.dictionaries(names, texts), texts, st.randoms())
def test_order_of_parameters_does_not_matter_and_any_character_can_be_signed(params, secret, random):
    shuffled = list(params.items())
    random.shuffle(shuffled)
    for method in SIGN_METHODS:
        sign = signature(params, secret, method)
        assert sign == signature(dict(shuffled), secret, method)
        assert len(sign) == (64 if method == "hmac-sha256" else 32)
        assert sign == sign.upper()


@given(st.dictionaries(names.filter(lambda name: name != "sign"), texts), texts)
def test_signature_is_the_digest_of_the_raw_utf8_text(params, secret):
    text = "".join(f"{name}{params[name]}" for name in sorted(params)).encode()
    assert (
        signature(params, secret, "md5")
        == hashlib.md5(secret.encode() + text + secret.encode()).hexdigest().upper()
    )
    assert (
        signature(params, secret, "hmac-sha256")
        == hmac.new(secret.encode(), text, "sha256").hexdigest().upper()
    )
