"""Targets by their Connections, on this Airflow line."""

from __future__ import annotations

import logging

import pytest
from loads import load
from orders import T0, order
from write_api import TOKEN, write_api

from kuaimai.airflow import targets
from kuaimai.airflow.compat import ObjectStoragePath
from kuaimai.errors import ConfigError
from kuaimai.load.files import FilesTarget, current
from kuaimai.load.targets import open_target
from kuaimai.pipeline.spec import load_pipeline
from kuaimai.transform.mapping import Mapper

TABLES = Mapper("trade").tables
MINIMAL = "name: trades\nsource: {method: erp.trade.outstock.simple.query}\n"


@pytest.fixture
def pipeline(tmp_path):
    def of(text):
        path = tmp_path / "trades.yaml"
        path.write_text(MINIMAL + text, "utf-8")
        return load_pipeline(path)

    return of


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_KUAIMAI_STATE", f"sqlite:///{tmp_path}/state.db")


def test_files_go_into_folders_of_this_machine(pipeline, tmp_path):
    for url in (f"{tmp_path}/plain", f"file://{tmp_path}/plain"):
        with targets.opened(pipeline(f"targets: [{{kind: files, url: '{url}'}}]\n")) as ((_, target),):
            assert target.root == tmp_path / "plain"


# What the path class of 2.11 warns of about itself.
@pytest.mark.filterwarnings("ignore:in a future version of UPath:PendingDeprecationWarning")
def test_files_go_to_any_object_storage_path(tmp_path):
    root = ObjectStoragePath(f"file://{tmp_path}/lake")
    target = FilesTarget("lake", open_target(f"sqlite:///{tmp_path}/state.db"), root=root)
    assert load(target, [order(1, created=T0)]).state == "sealed"
    assert load(target, [order(1, T0 + 1, created=T0)]).state == "sealed"
    (row,) = current(root, TABLES)[0].to_pylist()
    assert row["_version"] == T0 + 1
    found = sorted((tmp_path / "lake" / "kuaimai_trade" / "day=2026-03-01").iterdir())
    assert [path.suffix for path in found] == [".parquet"] * 2
    target.close()


def test_write_api_takes_address_and_token_of_its_connection(pipeline, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    with write_api() as api:
        host = api.url.removeprefix("http://").removesuffix("/api/orders")
        monkeypatch.setenv(
            "AIRFLOW_CONN_MY_API",
            f'{{"conn_type": "http", "host": "{host.split(":")[0]}", "port": {host.split(":")[1]}, '
            f'"schema": "http", "password": "{TOKEN}"}}',
        )
        spec = pipeline("targets: [{kind: http, conn_id: my_api, path: /api/orders}, {kind: noop}]\n")
        with targets.opened(spec, "my_api") as ((_, target),):
            assert load(target, [order(1)]).landed == 1
            assert TOKEN not in repr(target.api)
        assert api.taken == ["1"]
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("api/orders", "https://api.example.com/api/orders"),
        ("/api/orders", "https://api.example.com/api/orders"),
        ("@other.example.com", "https://api.example.com/@other.example.com"),
        ("?shop=1", "https://api.example.com?shop=1"),
        ("", "https://api.example.com"),
    ],
)
def test_path_never_makes_another_host_of_the_connections(pipeline, monkeypatch, path, url):
    monkeypatch.setenv("AIRFLOW_CONN_MY_API", '{"conn_type": "http", "host": "api.example.com"}')
    asked = "in_doubt: ask, ask_path: 'com/{key}'"
    spec = pipeline(f"targets: [{{kind: http, conn_id: my_api, path: '{path}', {asked}}}]\n")
    with targets.opened(spec) as ((_, target),):
        assert target.api.url == url
        assert target.api.ask_url == "https://api.example.com/com/{key}"


def test_target_that_cannot_be_opened_is_left_out_of_a_plan_and_told(pipeline, caplog):
    spec = pipeline("targets: [{kind: sql, conn_id: absent}, {kind: noop}]\n")
    with targets.planned_for(spec) as coverage:
        assert coverage.began("trades", "upd_time") is None
    assert "target absent cannot be opened" in caplog.text
    spec = pipeline("targets: [{kind: sql, conn_id: absent}]\n")
    with pytest.raises(ConfigError, match="no Connection absent"), targets.planned_for(spec):
        pass
    with pytest.raises(ConfigError, match="has no target 'other'"), targets.opened(spec, "other"):
        pass
