"""Change files: exact, only ever added, whole or not there, and the newest version can be told."""

from __future__ import annotations

import os
import signal
from decimal import Decimal
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bucket import Bucket, BucketPath
from loads import bad, facts, load
from orders import T0, line, order
from workers import workers

from kuaimai.errors import ConfigError, Transient
from kuaimai.load import files as module
from kuaimai.load.files import FilesTarget, current
from kuaimai.load.noop import NoopTarget
from kuaimai.load.targets import open_target
from kuaimai.transform.mapping import Mapper

TABLES = Mapper("trade").tables
DAY = 86_400_000
MEMO = '尽快🚀�\n"引号"' + "密" * 450


@pytest.fixture(params=["parquet", "jsonl"])
def form(request):
    return request.param


@pytest.fixture
def target(tmp_path, clock, form):
    made = FilesTarget(
        "lake", open_target(f"sqlite:///{tmp_path}/state.db", now=clock), root=tmp_path / "lake", form=form
    )
    yield made
    made.close()


def written(target) -> list[str]:
    return sorted(str(path.relative_to(target.root)) for path in target.root.rglob("*") if path.is_file())


def newest(target, form, *names) -> list[tuple]:
    rows = current(target.root, TABLES, form)[0].select(list(names)).to_pylist()
    return [tuple(row.values()) for row in rows]


def living(target, form) -> list[tuple[str, str]]:
    rows = current(target.root, TABLES, form)[1].select(["id", "sid"]).to_pylist()
    return [(row["id"], row["sid"]) for row in rows]


def exact() -> dict:
    return order(
        9_007_199_254_740_993,
        created=T0,
        payment="-42.00",
        cost=Decimal("33.989999999999995"),
        sellerMemo=MEMO,
        sysMemo="",
        payTime=T0 + 123,
        tradeTags=[{"id": 9_007_199_254_740_993, "weight": 0.1}],
    )


def test_values_come_back_exact(target, form):
    assert load(target, [exact()]).state == "sealed"
    (row,) = current(target.root, TABLES, form)[0].to_pylist()
    assert row["sid"] == "9007199254740993"
    assert (row["payment"], row["cost"]) == (Decimal("-42.00"), Decimal("33.989999999999995"))
    assert (row["seller_memo"], row["sys_memo"], row["consign_time"]) == (MEMO, "", None)
    assert round(row["pay_time"].timestamp() * 1000) == T0 + 123
    assert row["trade_tags"] == '[{"id":9007199254740993,"weight":0.1}]'
    assert (row["_version"], row["_rank"]) == (T0, 0)


def test_parquet_has_exact_types_and_lines_are_json_that_no_float_touches(tmp_path, clock):
    for form in ("parquet", "jsonl"):
        book = open_target(f"sqlite:///{tmp_path}/state.db", now=clock)
        made = FilesTarget(form, book, root=tmp_path / form, form=form)
        load(made, [exact()])
        made.close()
    (parquet,) = (tmp_path / "parquet" / "kuaimai_trade").rglob("*.parquet")
    schema = pq.read_schema(parquet)
    assert schema.field("payment").type == pa.decimal128(38, 18)
    assert schema.field("pay_time").type == pa.timestamp("ms", tz="UTC")
    assert schema.field("sid").type == pa.string()
    (lines,) = (tmp_path / "jsonl" / "kuaimai_trade").rglob("*.jsonl")
    (text,) = lines.read_text("utf-8").splitlines()
    assert '"payment":"-42.00","' in text
    assert '"cost":"33.989999999999995","' in text
    assert '"pay_time":"2026-03-01T01:00:00.123Z"' in text
    assert '"trade_tags":[{"id":9007199254740993,"weight":0.1}]' in text
    assert msgspec.json.decode(text)["sid"] == "9007199254740993"


def test_files_lie_by_the_day_the_order_was_made_and_its_lines_beside_it(target, form):
    # 17:00 UTC is the next day in China.
    load(target, [order(1, created=T0), order(2, created=T0 + 16 * 3_600_000), order(3)])
    folders = {name.rpartition("/")[0] for name in written(target)}
    days = ("day=2026-03-01", "day=2026-03-02", "day=__HIVE_DEFAULT_PARTITION__")
    assert folders == {f"{table}/{day}" for table in ("kuaimai_trade", "kuaimai_trade_line") for day in days}


def test_same_load_again_replaces_its_files_and_other_content_lies_beside_it(target, form, clock):
    load(target, [order(1, created=T0), order(2, created=T0)])
    first = written(target)
    clock.advance(60)
    load(target, [order(1, created=T0), order(2, created=T0)])
    assert written(target) == first
    # The window is read again, and an order has left it: what was written of it stays.
    load(target, [order(1, created=T0)], total=1)
    assert set(first) < set(written(target))
    assert newest(target, form, "sid") == [("1",), ("2",)]


def test_newest_version_counts_whatever_came_last(target, form, clock):
    load(target, [order(1, T0 + 5, sysMemo="new")])
    clock.advance(60)
    load(target, [order(1, T0, sysMemo="old")], window="w2")
    load(target, [order(2, T0, sysMemo="base")], window="w3")
    load(target, [order(2, T0, sysMemo="full")], window="w4", rank=1)
    assert newest(target, form, "sid", "sys_memo") == [("1", "new"), ("2", "full")]
    # The same version with other content, and back: the last that came counts.
    for memo in ("a", "b", "a"):
        clock.advance(60)
        load(target, [order(3, T0, sysMemo=memo)], window="w5")
        assert newest(target, form, "sid", "sys_memo")[-1] == ("3", memo)


def test_lines_are_those_of_the_newest_version_of_their_order(target, form, clock):
    load(target, [order(1, T0, lines=[line(11), line(12)])])
    assert living(target, form) == [("11", "1"), ("12", "1")]
    clock.advance(60)
    load(target, [order(1, T0 + 1, lines=[line(11)])])
    assert living(target, form) == [("11", "1")]
    clock.advance(60)
    bare = order(1, T0 + 2)
    del bare["orders"]
    load(target, [bare])  # it came without a list: it keeps the lines it had
    assert living(target, form) == [("11", "1")]
    clock.advance(60)
    load(target, [order(2, T0 + 3, lines=[line(11)])])  # split: the line moved
    assert living(target, form) == [("11", "2")]


def test_file_of_before_a_column_was_known_has_nulls_there(target, form, monkeypatch):
    load(target, [order(1, sellerMemo="x")])
    for path in (target.root / "kuaimai_trade").rglob(f"*.{form}"):
        if form == "parquet":
            pq.write_table(pq.read_table(path).drop_columns(["seller_memo"]), path)
        else:
            row = msgspec.json.decode(path.read_bytes())
            path.write_bytes(msgspec.json.encode({k: v for k, v in row.items() if k != "seller_memo"}))
    assert newest(target, form, "sid", "seller_memo") == [("1", None)]


def test_what_the_seal_counts_was_read_back(target, form, monkeypatch):
    write = target.form.write

    def losing_one(table, rows, file):
        write(table, rows if table.parent else rows.slice(1), file)

    monkeypatch.setattr(type(target.form), "write", lambda _self, *given: losing_one(*given))
    verdict = load(target, [order(1), order(2)])
    assert (verdict.landed, verdict.state) == (1, "open")


def _die(root: str, book: str, moment: str) -> None:
    """Load, and be killed when one file is written: before the second begins, or in the middle of it."""
    write, files = module.Parquet.write, []

    def dying(form, table, rows, file) -> None:
        files.append(file)
        if len(files) > 1:
            file.write(b"half of a file" if moment == "within" else b"")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        write(form, table, rows, file)

    module.Parquet.write = dying
    target = FilesTarget("lake", open_target(book), root=Path(root))
    load(target, [order(1, created=T0), order(2, created=T0 + DAY)])


@pytest.mark.parametrize("moment", ["before", "within"])
def test_worker_killed_while_it_writes_leaves_no_partial_file(tmp_path, moment):
    book = f"sqlite:///{tmp_path}/state.db"
    process = workers().Process(target=_die, args=(str(tmp_path / "lake"), book, moment))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    whole = [path for path in (tmp_path / "lake").rglob("*.parquet") if not path.name.startswith(".")]
    assert [pq.read_table(path).num_rows for path in whole] == [1]

    target = FilesTarget("lake", open_target(book), root=tmp_path / "lake")
    assert target.coverage("trades", "upd_time", facts().window_start) == []  # no proof of half a load
    assert load(target, [order(1, created=T0), order(2, created=T0 + DAY)]).state == "sealed"
    assert newest(target, "parquet", "sid") == [("1",), ("2",)]
    target.close()


def test_lines_are_there_before_their_order(target, form, monkeypatch):
    seen = []
    writing = module._writing
    monkeypatch.setattr(
        module, "_writing", lambda path, name: (seen.append(path.parts[-3]), writing(path, name))[1]
    )
    load(target, [order(1)])
    assert seen == ["kuaimai_trade_line", "kuaimai_trade"]


def test_folder_that_cannot_be_written_is_told(tmp_path, clock):
    (tmp_path / "lake").write_text("in the way")
    book = open_target(f"sqlite:///{tmp_path}/state.db", now=clock)
    target = FilesTarget("lake", book, root=tmp_path / "lake")
    with pytest.raises((Transient, ConfigError), match="target lake"):
        load(target, [order(1)])
    target.close()


@pytest.fixture
def bucket(clock, tmp_path):
    """A target in an object store, and the store."""
    store = Bucket()
    book = open_target(f"sqlite:///{tmp_path}/state.db", now=clock)
    target = FilesTarget("lake", book, root=BucketPath(store))
    yield target, store
    target.close()


def test_load_that_fails_while_it_writes_leaves_no_partial_object(bucket, monkeypatch):
    target, store = bucket

    def failing(_self, _table, _rows, file):
        file.write(b"half")
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(module.Parquet, "write", failing)
        with pytest.raises(RuntimeError):
            load(target, [order(1)])
    assert store.objects == {}
    assert load(target, [order(1)]).state == "sealed"
    assert len(store.objects) == 2


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (FileNotFoundError("The specified bucket does not exist"), ConfigError, "there is no such bucket"),
        (PermissionError("Forbidden"), ConfigError, "right to write there"),
        # A client's own error, of a class that this package does not know.
        (
            LookupError("Could not connect to the endpoint"),
            Transient,
            r"the store failed at s3://.*LookupError",
        ),
    ],
)
def test_object_store_that_fails_is_told(bucket, error, kind, told):
    target, store = bucket
    store.error = error
    with pytest.raises(kind, match=told):
        load(target, [order(1)])


def test_partition_by_something_that_is_no_time_is_told(tmp_path, clock):
    book = open_target(f"sqlite:///{tmp_path}/state.db", now=clock)
    target = FilesTarget("lake", book, root=tmp_path / "lake", partition_by="payment")
    with pytest.raises(ConfigError, match="'payment' is no time of kuaimai_trade"):
        load(target, [order(1)])
    target.close()


def test_records_set_aside_count_and_are_closed_when_they_land(target, clock):
    assert load(target, [order(1)], total=2, quarantined=[bad("7")]).quarantined == 1
    clock.advance(60)
    assert load(target, [order(7)], window="w2").landed == 1
    with target.book.connected() as connection:
        rows = connection.exec_driver_sql(
            "SELECT pipeline, resolved_at IS NULL FROM kuaimai_quarantine"
        ).fetchall()
    assert [tuple(row) for row in rows] == [("trades→lake", 0)]


def test_no_target_at_all_counts_and_seals(tmp_path, clock):
    target = NoopTarget("noop", open_target(f"sqlite:///{tmp_path}/state.db", now=clock))
    verdict = load(target, [order(1), order(2)], total=3, quarantined=[bad("7")])
    assert (verdict.state, verdict.landed, verdict.inserted, verdict.quarantined) == ("sealed", 2, 0, 1)
    assert load(target, [order(1)], total=2, window="w2").state == "open"
    target.close()
