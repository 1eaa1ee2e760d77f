"""Targets in a pipeline file: what is short for what, and what is refused."""

from __future__ import annotations

import pytest

from kuaimai.errors import ConfigError
from kuaimai.pipeline.spec import load_pipeline

MINIMAL = "name: trades\nsource: {method: erp.trade.outstock.simple.query}\n"


@pytest.fixture
def outlets(tmp_path):
    def read(text):
        path = tmp_path / "trades.yaml"
        path.write_text(MINIMAL + text, encoding="utf-8")
        return load_pipeline(path).outlets

    return read


def test_target_is_short_for_one_database(outlets):
    for text in (
        "",
        "target: kuaimai_target\n",
        "targets: [{kind: sql}]\n",
        "targets: [{kind: sql, conn_id: kuaimai_target}]\n",
    ):
        (one,) = outlets(text)
        assert (one.kind, one.conn_id, one.name) == ("sql", "kuaimai_target", "kuaimai_target")


def test_targets_are_named_by_their_connection_or_their_kind(outlets):
    kinds = outlets(
        "targets:\n"
        "  - {kind: sql, conn_id: warehouse}\n"
        "  - {kind: files, url: /data/mirror}\n"
        "  - {kind: files, url: s3://aws@bucket/mirror, format: jsonl, name: lake}\n"
        "  - {kind: http, conn_id: my_api, rows: 50, rows_key: array, body: {idCheck: false}}\n"
        "  - {kind: noop}\n"
    )
    assert [one.name for one in kinds] == ["warehouse", "files", "lake", "my_api", "noop"]


def test_an_answer_can_speak_for_a_single_record(outlets):
    (one,) = outlets("targets: [{kind: http, conn_id: a, answers: {success: code, accepted: [200]}}]\n")
    assert (one.rows, one.answers.rows, one.answers.accepted) == (1, "", (200,))


def test_a_target_can_have_a_rhythm_of_its_own(tmp_path):
    def read(text):
        path = tmp_path / "trades.yaml"
        path.write_text(MINIMAL + text, encoding="utf-8")
        return load_pipeline(path), path

    api = "{kind: http, conn_id: my_api, schedule: '%s'}"
    pipeline, path = read(f"targets:\n  - kind: sql\n  - {api % '23 2 * * *'}\n")
    assert [outlet.name for outlet in pipeline.apart] == ["my_api"]
    dags = pipeline.dags(path)
    assert dags["kuaimai_trades__my_api"].endswith("trades.yaml, line 5")
    with pytest.raises(ConfigError, match="'25' is no hour"):
        read(f"targets: [{{kind: sql}}, {api % '0 25 * * *'}]\n")
    with pytest.raises(ConfigError, match="every one has a schedule of its own"):
        read(f"targets: [{api % '0 2 * * *'}]\n")
    with pytest.raises(ConfigError, match="'upd_time' is also a time"):
        read("targets: [{kind: sql}, {kind: noop, name: upd_time, schedule: '0 2 * * *'}]\n")


def test_a_strategy_is_found_from_the_pipelines_folder(outlets, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    relative, whole, statement, none = outlets(
        "targets:\n"
        "  - {kind: http, conn_id: a, strategy: strategies/orders.json}\n"
        "  - {kind: http, conn_id: b, strategy: /data/orders.json}\n"
        "  - {kind: statement, conn_id: c, strategy: lines.json}\n"
        "  - {kind: http, conn_id: d}\n"
    )
    assert relative.strategy == f"{tmp_path}/strategies/orders.json"
    assert whole.strategy == "/data/orders.json"
    assert statement.strategy == f"{tmp_path}/lines.json"
    assert none.strategy == ""


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        ("[{kind: sql}, {kind: sql}]", "two are named 'kuaimai_target'"),
        ("[{kind: oracle}]", "'oracle' is none of sql, files, http, noop"),
        ("[{kind: files}]", "'targets.0.url' is missing"),
        ("[{kind: files, url: mirror}]", "whole path"),
        ("[{kind: files, url: 's3://key:hidden@bucket/mirror'}]", "holds no credential"),
        ("[{kind: files, url: /data, formt: jsonl}]", "did you mean 'format'?"),
        ("[{kind: http}]", "'targets.0.conn_id' is missing"),
        ("[{kind: http, conn_id: a, rows: 10}]", "rows_key"),
        ("[{kind: http, conn_id: a, body: {idCheck: true}}]", "body needs rows_key"),
        ("[{kind: http, conn_id: a, rows_key: x, body: {x: 1}}]", "may not hold 'x'"),
        ("[{kind: http, conn_id: a, in_doubt: ask}]", "ask_path"),
        ("[{kind: http, conn_id: a, answers: {rows: data}}]", "need rows_key"),
        ("[{kind: http, conn_id: a, answers: {index: at}}]", "answers.rows"),
        ("[{kind: noop, name: 'a b'}]", "name"),
        ("[{kind: noop}]\ntarget: mine", "only one of the two"),
    ],
)
def test_mistakes_are_named(outlets, targets, told):
    with pytest.raises(ConfigError, match=r"trades\.yaml") as caught:
        outlets(f"targets: {targets}\n")
    assert told in str(caught.value)
