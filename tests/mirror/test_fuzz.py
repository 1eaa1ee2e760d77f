"""Whatever a record holds, it lands or is set aside, no task crashes, and the seal adds up."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from conftest import Clock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kuaimai.extract.skim import record_key
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, encode_json, read_envelope
from kuaimai.load.held import Quarantined
from kuaimai.load.targets import open_target
from kuaimai.load.windows import WindowFacts
from kuaimai.pipeline import stages
from kuaimai.pipeline.spec import load_pipeline
from kuaimai.transform.batches import aligned
from kuaimai.transform.mapping import BadRecord, Mapper
from kuaimai.transform.personal import drop_personal
from kuaimai.transform.rows import Rows
from kuaimai.transform.rules import Rules

START = datetime(2026, 3, 1, 1, tzinfo=timezone.utc)
METHOD = "erp.trade.outstock.simple.query"
PIPELINES = {
    "plain": "",
    "evolve": "schema: evolve\n",
    "quarantine": "schema: quarantine\n",
    "rules": """\
schema: evolve
fields:
  payment: {to: amount_due, default: 0}
  weight: {type: text, to: weight_as_sent}
  buyerNick: {keep: hash}
  receiverName: {keep: mask}
  orders.title: {to: item_title, default: "-"}
filters:
- {where: {payment: {below: 0}}, then: quarantine}
- {where: {sysStatus: [CLOSED, "张"]}, then: skip}
- {where: {created: {below: "2001-09-09"}}, then: skip}
""",
}

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.decimals(allow_nan=False, allow_infinity=False, places=4),
    st.text(max_size=12),
    st.sampled_from(
        [
            "",
            "0",
            "-1",
            "1e400",
            "NaN",
            "0x1F",
            "59.80",
            "-3",
            "2026-02-30",
            "2026-01-01 00:00:00",
            "9999-12-31",
        ]
    ),
    st.sampled_from([946656000000, 978278400000, 1772298000000, 0, -1, 10**30]),
    st.sampled_from(
        ["急单🚚📦", "坏\ufffd", "a\nb\r\tc", "$$" + "mY8+/x=" * 64 + "$$", "\x00", "\ud800", "'\"\\"]
    ),
)
values = st.one_of(
    scalars,
    scalars,
    scalars,
    st.lists(scalars, max_size=2),
    st.dictionaries(st.text(max_size=5), scalars, max_size=2),
)
NAMES = list(catalog.record("trade").fields)
LINE_NAMES = list(catalog.record("trade_line").fields)
strange = st.sampled_from(
    ["newField", "new_field", "buyerPhone2", "客户", "a b", "Payment", "\x00", "_version"]
)


def records_of(names, more):
    keys = {"sid": st.one_of(st.integers(1, 9), st.sampled_from([9007199254740993, "7"]), values)}
    return st.tuples(
        st.fixed_dictionaries(keys, optional={"updTime": st.integers(1772298000000, 1772298900000)}),
        st.dictionaries(st.one_of(st.sampled_from(names), strange), values, max_size=4),
        st.fixed_dictionaries({}, optional=more),
    ).map(lambda parts: {**parts[1], **parts[0], **parts[2]})


lines = st.one_of(
    values,
    st.lists(
        st.one_of(
            values,
            st.tuples(
                st.fixed_dictionaries({"id": st.one_of(st.integers(1, 99), values)}),
                st.dictionaries(st.one_of(st.sampled_from(LINE_NAMES), strange), values, max_size=3),
            ).map(lambda parts: {**parts[1], **parts[0]}),
        ),
        max_size=3,
    ),
)
records = st.lists(records_of(NAMES, {"orders": lines}), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture
def target(tmp_path):
    target = open_target(f"sqlite:///{tmp_path}/target.db", now=Clock())
    yield target
    target.close()


@pytest.fixture
def postgres_target(new_database):
    target = open_target(new_database(), now=Clock())
    yield target
    target.close()


@pytest.fixture
def maria_target(new_maria_database):
    target = open_target(new_maria_database(), now=Clock())
    yield target
    target.close()


def pipeline(folder: Path, name: str):
    path = folder / f"{name}.yaml"
    if not path.exists():
        path.write_text(
            f"name: {name}\nsource: {{method: {METHOD}}}\ntime: {{dimension: upd_time}}\n{PIPELINES[name]}",
            encoding="utf-8",
        )
    return load_pipeline(path)


def sent(found) -> Answer | None:
    """The page with these records; None for what no gateway could send."""
    try:
        raw = encode_json({"success": True, "total": len(found), "list": found})
        return Answer(METHOD, read_envelope(METHOD, raw), raw)
    except (UnicodeEncodeError, msgspec.MsgspecError):
        return None


def facts(name: str, total: int) -> WindowFacts:
    end = START + timedelta(minutes=5)
    return WindowFacts(
        window_id=f"w-{name}",
        read=0,
        pipeline=name,
        method=METHOD,
        shops=("900001",),
        dimension="upd_time",
        window_start=START,
        window_end=end,
        total_before=total,
        total_after=total,
        distinct_keys=total,
        pages=1,
        requests=1,
        attempts=1,
        run_id="fuzz",
        first_read_at=end,
        last_read_at=end,
    )


def quarantined(name: str, bad: BadRecord) -> Quarantined:
    identity = hashlib.sha256(f"{name}{bad.key}{bad.reason}".encode("utf-8", "surrogatepass")).hexdigest()[
        :24
    ]
    record = encode_json(drop_personal(bad.record, catalog.record("trade"), Rules())).decode()
    return Quarantined(0, identity, name, "v", METHOD, bad.key, bad.reason, "{}", record, f"w-{name}")


@pytest.mark.parametrize("name", PIPELINES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(found=records)
def test_both_ways_give_the_same_and_nothing_is_lost(folder, name, found):
    spec, answer = pipeline(folder, name), sent(found)
    if answer is None:
        return
    seen = []
    for way in ("columns", "values"):
        mapper = Mapper("trade", spec.rules)
        into = [Rows(table) for table in mapper.tables]
        if way == "columns":
            bad = mapper.map_answers([answer], ["list"], into)
        else:
            bad = mapper.map(answer.rows(["list"]), into)
        batches = mapper.batches(into, rank=0, window_id="w")
        keys = {record_key(one, catalog.record("trade")) for one in answer.rows(["list"])}
        landed = set(batches[0].column("sid").to_pylist())
        assert landed | {one.key for one in bad} | set(mapper.filtered) == keys
        rows = [sorted(map(str, without_nulls(batch))) for batch in batches]
        seen.append((rows, sorted((one.key, one.reason) for one in bad), mapper.filtered))
    assert seen[0] == seen[1]


def without_nulls(batch):
    return [{name: row[name] for name in sorted(row) if row[name] is not None} for row in batch.to_pylist()]


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("where", ["target", "postgres_target", "maria_target"])
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(found=records)
def test_they_land_or_are_set_aside_and_the_seal_adds_up(folder, request, where, name, found):
    database = request.getfixturevalue(where)
    spec, answer = pipeline(folder, name), sent(found)
    if answer is None:
        return
    mapper = Mapper("trade", spec.rules)
    into = [Rows(table) for table in mapper.tables]
    bad = {one.key: one for one in mapper.map_answers([answer], ["list"], into)}
    batches = mapper.batches(into, rank=0, window_id="w1")
    keys = {record_key(one, catalog.record("trade")) for one in answer.rows(["list"])}
    tables = stages.tables_of(spec, [mapper.seen(METHOD)], database)
    with database.loading(tables) as loading:
        loading.merge(0, list(map(aligned, batches, tables)))
        loading.quarantine([quarantined(name, one) for one in bad.values()])
        loading.leave_out(0, [key for key in mapper.filtered if key not in bad])
        sealing = loading.seal(facts(name, len(keys)))
    assert sealing.reason is None
    assert sealing.landed + sealing.quarantined + sealing.filtered == len(keys)
