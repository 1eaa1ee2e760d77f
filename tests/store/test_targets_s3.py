"""Files in an object store, over S3's own protocol: a moto server here, and s3fs as Airflow uses it.

The environment without Airflow has both; elsewhere these tests are skipped.
"""

from __future__ import annotations

import itertools

import pytest
from loads import load
from orders import order

from kuaimai.errors import ConfigError, Transient
from kuaimai.load.files import FilesTarget, current
from kuaimai.load.targets import open_target
from kuaimai.transform.mapping import Mapper

moto = pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")
upath = pytest.importorskip("upath")

TABLES = Mapper("trade").tables
_NUMBERS = itertools.count(1)


@pytest.fixture
def server(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "invented")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def url(server) -> str:
    return "http://{}:{}".format(*server.get_host_and_port())


@pytest.fixture
def lake(tmp_path, clock, url):
    """A function that opens a target in a bucket."""
    # Whatever server is started, moto's buckets are those of the process.
    ours = f"lake-{next(_NUMBERS)}"
    s3fs.S3FileSystem(endpoint_url=url, skip_instance_cache=True).mkdir(ours)
    opened = []

    def target(form: str = "parquet", bucket: str = ours) -> FilesTarget:
        root = upath.UPath(f"s3://{bucket}/mirror/{form}", endpoint_url=url)
        book = open_target(f"sqlite:///{tmp_path}/state.db", now=clock)
        opened.append(FilesTarget("lake", book, root=root, form=form))
        return opened[-1]

    yield target
    for one in opened:
        one.close()


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_what_is_put_into_a_bucket_comes_back_and_is_sealed(lake, form):
    target = lake(form)
    assert "files can be written" in target.try_rights()
    sealed = load(target, [order(1), order(2)])
    assert (sealed.landed, sealed.reason) == (2, None)
    orders, lines = current(target.root, TABLES, form)
    assert orders["sid"].to_pylist() == [str(order(at)["sid"]) for at in (1, 2)]
    assert len(lines) == sum(len(order(at)["orders"]) for at in (1, 2))
    again = sorted(str(path) for path in target.root.rglob("*.*"))
    load(target, [order(1), order(2)])
    assert sorted(str(path) for path in target.root.rglob("*.*")) == again


def test_bucket_that_is_not_there_is_told(lake):
    with pytest.raises(ConfigError, match="there is no such bucket"):
        load(lake(bucket="elsewhere"), [order(1)])


def test_store_that_does_not_answer_is_tried_again_later(lake, server):
    target = lake()
    server.stop()
    with pytest.raises(Transient, match="the store failed"):
        load(target, [order(1)])
