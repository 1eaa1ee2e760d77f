"""A pipeline file is right, or one message says what is wrong where."""

from __future__ import annotations

from pathlib import Path

import pytest

from kuaimai.errors import ConfigError
from kuaimai.pipeline import spec
from kuaimai.pipeline.spec import load_pipeline, load_pipelines, readable_pipelines

SHIPPED = Path(__file__).parents[2] / "include" / "pipelines"
MINIMAL = "name: trades\nsource: {method: erp.trade.outstock.simple.query}\n"
PARAMS = "name: trades\nsource: {method: erp.trade.outstock.simple.query, params: {status: CLOSED}}\n"
FURTHER = MINIMAL + 'time: {further: [{dimension: created, schedule: "*/30 * * * *", look_back_hours: 24}]}\n'


@pytest.fixture
def write(tmp_path):
    def write(text, name="trades.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_shipped_pipelines_are_valid():
    assert [pipeline.name for pipeline in load_pipelines(SHIPPED)] == [
        "aftersales",
        "items",
        "purchase_returns",
        "purchases",
        "receipts",
        "shops",
        "stock",
        "suppliers",
        "trades",
        "warehouses",
    ]


def test_defaults_are_enough(write):
    pipeline = load_pipeline(write(MINIMAL))
    assert (pipeline.target, pipeline.batch_size, pipeline.time.dimension) == (
        "kuaimai_target",
        1000,
        "upd_time",
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: trades\n", "key 'source' is missing"),
        (MINIMAL + "batchsize: 5\n", "unknown key 'batchsize'; did you mean 'batch_size'?"),
        (
            MINIMAL + "time: {dimention: upd_time}\n",
            "unknown key 'time.dimention'; did you mean 'dimension'?",
        ),
        (MINIMAL + "time: {dimension: updated}\n", "knows upd_time, created"),
        (FURTHER.replace("created", "creatd"), "audit_time, not 'creatd'; did you mean 'created'?"),
        (FURTHER.replace("created", "made"), "line 3: time.further.0.dimension: erp.trade"),
        (FURTHER.replace("created", "upd_time"), "'upd_time' is named twice"),
        (FURTHER.replace("look_back_hours: 24", "lookback_hours: 24"), "did you mean 'look_back_hours'?"),
        (FURTHER.replace("look_back_hours: 24", "slot_hours: 2"), "either look_back_hours or day_before"),
        (FURTHER.replace("24", "24, day_before: true"), "either look_back_hours or day_before"),
        (FURTHER.replace("24", "24, slot_hours: 5"), "slots divide the day"),
        (FURTHER.replace('"*/30 * * * *"', "hourly"), "five fields"),
        (FURTHER.replace('schedule: "*/30 * * * *", ', ""), "key 'time.further.0.schedule' is missing"),
        (MINIMAL + "batch_size: 0\n", "batch_size"),
        (MINIMAL + "batch_size: many\n", "batch_size"),
        (MINIMAL + "schedule: every five minutes please now\n", "'every' is no minute"),
        (MINIMAL + "schedule: hourly\n", "five fields"),
        (MINIMAL + "keep_personal: [receiverNam]\n", "no personal field"),
        ("name: Trades!\nsource: {method: erp.trade.list.query}\n", "name"),
        ("name: t\nsource: {method: erp.trade.lst.query}\n", "did you mean 'erp.trade.list.query'?"),
        ("name: t\nsource: {method: open.system.time.get}\n", "returns no records"),
        (MINIMAL + "time: {dimension: scan}\n", "knows upd_time, created"),
        (
            "name: t\nsource: {method: erp.shop.list.query}\ntime: {dimension: created}\n",
            "knows scan, not 'created'",
        ),
        (FURTHER.replace("created", "scan"), "a scan reads everything"),
        (PARAMS.replace("status", "statuss"), "did you mean 'status'?"),
        (
            PARAMS.replace("CLOSED", "!!binary aGk="),
            "source.params: status: nothing that can be sent as text; quote it",
        ),
        (PARAMS.replace("status", "pageNo"), "pageNo of erp.trade.outstock.simple.query is set by"),
        (PARAMS.replace("status", "timeType"), "timeType of erp.trade.outstock.simple.query is set by"),
        ("name: t\nsource: {method: erp.trade.list.query, page_size: 500}\n", "20 to 200"),
        ("- a\n- b\n", "must be a mapping"),
        ("name: [\n", "line 2 is not valid YAML"),
        ("", "must be a mapping"),
    ],
)
def test_mistake_is_told_with_file_and_key(write, text, told):
    path = write(text)
    with pytest.raises(ConfigError) as error:
        load_pipeline(path)
    assert str(path) in str(error.value)
    assert told in str(error.value)


def test_what_the_file_leaves_out_the_catalogue_says(write):
    shops = load_pipeline(write("name: shops\nsource: {method: erp.shop.list.query}\n"))
    assert (shops.time.dimension, shops.source.page_size, shops.scope) == ("scan", 500, None)
    trades = load_pipeline(write(PARAMS))
    assert (trades.time.dimension, trades.source.page_size, trades.scope) == ("upd_time", 200, "shop")
    assert trades.source.params == {"status": "CLOSED"}


def test_parameters_are_sent_as_text(write):
    text = PARAMS.replace("status: CLOSED", "queryType: 0, tagIds: true")
    assert load_pipeline(write(text)).source.params == {"queryType": "0", "tagIds": "true"}
    assert load_pipeline(write(PARAMS.replace("CLOSED", "2026-01-01"))).source.params == {
        "status": "2026-01-01"
    }


def test_further_times_say_how_far_back_and_in_which_windows(write):
    time = load_pipeline(SHIPPED / "trades.yaml").time
    assert time.dimensions == ("upd_time", "created", "pay_time")
    assert (time.look_back_hours, time.further_by("pay_time").day_before) == (24, True)
    assert (time.further_by("upd_time"), load_pipeline(write(MINIMAL)).time.look_back_hours) == (None, None)


def test_folder_that_is_not_there_names_the_setting(tmp_path):
    with pytest.raises(ConfigError, match="KUAIMAI_PIPELINES"):
        load_pipelines(tmp_path / "absent")


def test_two_files_with_one_name_are_told(write, tmp_path):
    write(MINIMAL, "a.yaml")
    write(MINIMAL, "b.yaml")
    with pytest.raises(ConfigError, match=r"b.yaml, line 1: a.yaml makes the DAG kuaimai_trades already"):
        load_pipelines(tmp_path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"name: !!bool ja\nsource: {method: erp.shop.list.query}\n", "line 1: name: "),
        (b"name: x\nsource: {method: !!timestamp gestern}\n", "line 2: source: "),
        (b"name: !strange x\n", "line 1 is not valid YAML: "),
        (b"name: !!python/object/apply:os.getcwd []\n", "line 1 is not valid YAML: "),
        # So deep that the parser, which is written in C, would take the whole process with it.
        (b"name: " + b"[" * 100_000, "is not valid YAML: it nests too deeply"),
        (b"name: " + b"- " * 100_000, "is not valid YAML: "),
        (b"name: x # \xff\n", "line 1 is not valid YAML: it is no UTF-8 text"),
        (
            b"name: x\nsource: {method: erp.shop.list.query}\nlate_after_minutes: 99999999999999\n",
            "line 3: late_after_minutes: ",
        ),
    ],
)
def test_a_strange_file_is_told_by_name_and_does_not_hold_the_others(write, tmp_path, content, told):
    write(MINIMAL, "good.yaml")
    (tmp_path / "strange.yaml").write_bytes(content)
    known, [mistake] = readable_pipelines(tmp_path)
    assert list(known) == ["trades"]
    assert mistake.message.startswith(f"pipeline {tmp_path / 'strange.yaml'}")
    assert told in mistake.message


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
@pytest.mark.parametrize(
    "make",
    [Path.mkdir, lambda path: path.symlink_to("/nowhere/at/all"), lambda path: path.symlink_to(path)],
    ids=["folder", "link to nothing", "link to itself"],
)
def test_what_is_no_file_is_told_by_name_and_does_not_hold_the_others(write, tmp_path, suffix, make):
    write(MINIMAL, "good.yaml")
    make(tmp_path / f"strange{suffix}")
    known, [mistake] = readable_pipelines(tmp_path)
    assert list(known) == ["trades"]
    assert f"{tmp_path / 'strange'}{suffix} cannot be read: " in mistake.message


def test_whatever_else_goes_wrong_with_a_file_is_that_files(write, tmp_path, monkeypatch):
    write(MINIMAL, "good.yaml")
    write(MINIMAL, "strange.yaml")
    read = spec.read_document

    def reading(path):
        if path.name == "strange.yaml":
            raise LookupError("nobody thought of this")
        return read(path)

    monkeypatch.setattr(spec, "read_document", reading)
    known, [mistake] = readable_pipelines(tmp_path)
    assert list(known) == ["trades"]
    assert "strange.yaml cannot be read: LookupError: nobody thought of this" in mistake.message
