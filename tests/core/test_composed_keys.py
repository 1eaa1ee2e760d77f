"""Keys that several fields make: the same by columns and by values, and however a list is ordered."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from kuaimai.extract.skim import record_key, skim
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, encode_json, read_envelope
from kuaimai.transform.mapping import Mapper
from kuaimai.transform.rows import Rows
from kuaimai.transform.rules import Rules, Step

T0 = 1_772_326_800_000


def answer(records) -> Answer:
    raw = encode_json({"list": records})
    return Answer("x", read_envelope("x", raw), raw)


def by_columns(kind, *pages, **how):
    mapper = Mapper(kind)
    into = [Rows(table) for table in mapper.tables]
    bad = mapper.map_answers([answer(page) for page in pages], ("list",), into, **how)
    return [rows.to_arrow(rank=0, window_id="w").to_pylist() for rows in into], bad


def by_values(kind, *pages, **how):
    mapper = Mapper(kind)
    into = [Rows(table) for table in mapper.tables]
    bad = mapper.map([row for page in pages for row in answer(page).rows(("list",))], into, **how)
    return [rows.to_arrow(rank=0, window_id="w").to_pylist() for rows in into], bad


def keys(rows) -> list[str]:
    return [row["_key"] for row in rows]


def purchase(key, *lines):
    names = ("sysItemId", "sysSkuId", "count")
    return {"id": key, "modified": T0, "lines": [dict(zip(names, line, strict=True)) for line in lines]}


def stock(**fields):
    return {"sysItemId": 466, "sysSkuId": 11, "wareHouseId": 80001, "stockModifiedTime": T0, **fields}


def test_key_is_made_of_its_parts_as_they_were_sent():
    (rows,), bad = by_columns(
        "stock", [stock(), stock(sysSkuId=0), stock(sysSkuId=-1), stock(sysItemId="2" * 19, sysSkuId=None)]
    )
    assert keys(rows) == ["2222222222222222222//80001", "466/-1/80001", "466/0/80001", "466/11/80001"]
    assert bad == []


def test_record_that_leaves_out_whose_it_is_belongs_to_whom_was_asked_for():
    records = [stock(wareHouseId=None), {"sysItemId": 7, "memo": "\ud83d"}, stock(sysItemId=9)]
    (rows,), bad = by_columns("stock", records, given={"wareHouseId": "80002"})
    assert keys(rows) == ["466/11/80002", "7//80002", "9/11/80001"]
    assert [row["ware_house_id"] for row in rows] == ["80002", "80002", "80001"]
    assert bad == []


def test_record_without_any_part_of_its_key_is_set_aside():
    _, bad = by_columns("stock", [{"title": "?"}])
    assert [one.reason for one in bad] == ["_key: the key is missing"]
    assert bad[0].key.startswith("#")


def test_reading_and_storing_know_a_record_by_the_same_key():
    records = [stock(), stock(sysSkuId="0"), stock(sysSkuId=None)]
    kind = catalog.record("stock")
    skimmed = skim(answer(records), ("list",), kind, "stockModifiedTime")
    (rows,), _ = by_columns("stock", records)
    assert sorted(skimmed.keys) == keys(rows)
    assert skimmed.keys == [record_key(one, kind) for one in records]
    assert skimmed.stamps == [T0] * 3


def test_lines_are_numbered_by_their_content_not_by_their_place():
    lines = [(466, 11, 5), (466, 11, 80), (466, 12, 5), (466, 11, 5)]
    (_, once), _ = by_columns("purchase", [purchase(1, *lines)])
    (_, again), _ = by_columns("purchase", [purchase(1, *lines[::-1])])
    assert once == again
    assert keys(once) == ["1/466/11/0", "1/466/11/1", "1/466/11/2", "1/466/12/0"]
    assert sorted(row["count"] for row in once) == [5, 5, 5, 80]
    assert {row["purchase_order_id"] for row in once} == {"1"}


def test_lines_are_numbered_where_a_step_adds_columns_to_them():
    step = Step("costs:add", {"cost": "yuan"})
    mapper = Mapper("purchase", Rules(steps={"purchase_line": step}))
    into = [Rows(table) for table in mapper.tables]
    assert mapper.map([purchase(1, (466, 11, 5), (466, 11, 80))], into) == []
    assert keys(into[1].newest().to_pylist()) == ["1/466/11/0", "1/466/11/1"]


def test_record_that_comes_twice_has_its_lines_once():
    (_, rows), _ = by_columns("purchase", [purchase(1, (466, 11, 5))], [purchase(1, (466, 11, 6))])
    assert [(row["_key"], row["count"]) for row in rows] == [("1/466/11/0", 6)]


def test_empty_code_is_no_key():
    for read in (by_columns, by_values):
        (rows,), bad = read("customer", [{"code": ""}, {"code": "K1"}])
        assert [row["code"] for row in rows] == ["K1"]
        assert [one.reason for one in bad] == ["code: the key is missing"]


ids = st.sampled_from([None, 0, -1, 466, "466", 9_007_199_254_740_993, "", "12,3x", 1.5, True])
counts = st.sampled_from([None, 0, 5, "5", "x"])
purchases = st.builds(
    purchase, st.sampled_from([1, 2, "3", None]), st.tuples(ids, ids, counts), st.tuples(ids, ids, counts)
)


@settings(deadline=None)  # a busy machine is no error
@given(st.lists(purchases, max_size=4), st.integers())
def test_both_ways_give_the_same_keys(records, seed):
    fast, fast_bad = by_columns("purchase", records)
    slow, slow_bad = by_values("purchase", records)
    assert (fast, [one.reason for one in fast_bad]) == (slow, [one.reason for one in slow_bad])
    for record in records:
        Random(seed).shuffle(record["lines"])
    assert by_columns("purchase", records)[0] == fast


@settings(deadline=None)  # a busy machine is no error
@given(st.lists(st.builds(stock, sysItemId=ids, sysSkuId=ids, wareHouseId=ids), max_size=4))
def test_both_ways_fill_in_whose_a_record_is(records):
    given_ids = {"wareHouseId": "80002"}
    fast, fast_bad = by_columns("stock", records, given=given_ids)
    slow, slow_bad = by_values("stock", records, given=given_ids)
    assert (fast, [one.reason for one in fast_bad]) == (slow, [one.reason for one in slow_bad])
