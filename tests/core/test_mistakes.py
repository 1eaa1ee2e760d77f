"""Whatever is wrong in a pipeline file: one line says in which file, on which line, at which key."""

from __future__ import annotations

import contextlib
import copy
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kuaimai.errors import ConfigError
from kuaimai.gateway import catalog
from kuaimai.pipeline import keys, schema
from kuaimai.pipeline.lint import lint
from kuaimai.pipeline.spec import load_pipeline

DOCS = Path(__file__).parents[2] / "docs"
INCLUDE = Path(__file__).parents[2] / "include" / "pipelines"
FULL = """\
name: trades
description: all that can be said
source:
  method: erp.trade.outstock.simple.query
  enrich: [erp.trade.list.query]
  page_size: 200
  paging: pages
time:
  dimension: upd_time
  overlap_minutes: 10
  heal_days: 7
  further:
    - dimension: created
      schedule: "*/30 * * * *"
      look_back_hours: 24
      slot_hours: 6
schedule: "*/5 * * * *"
late_after_minutes: 10
fields:
  payment:
    to: amount_due
  weight: {type: text}
  sellerMemo: drop
  buyerNick: {keep: hash}
  orders.title:
    to: item_title
    default: "-"
keep_personal: [receiverState]
filters:
  - where: {sysStatus: [CLOSED, CANCEL]}
    then: skip
  - where:
      payment: {below: 0}
    then: quarantine
    reason: 金额为负
step:
  trade: my_rules:rate
  trade_line:
    run: my_rules:add_margin
    columns: {margin: yuan}
schema: evolve
target: kuaimai_target
batch_size: 1000
"""
WRONG = {"mapping": {"surely": {"wrong": [1]}}, "list": [[1], {"a": 2}], "number": -7.5, "text": "?! ?"}
# What any text may stand in, or any list, or a value of any kind.
FREE = {
    ("description", "text"),
    ("target", "text"),
    ("filters.1.reason", "text"),
    ("fields.orders.title.default", "text"),
}
FREE |= {("fields.orders.title.default", "number"), ("filters.0.where.sysStatus", "text")}
FREE |= {("filters.0.where.sysStatus", "number"), ("filters.1.where.payment", "number")}
FREE |= {("filters.1.where.payment.below", "number"), ("filters.0.where.sysStatus.0", "text")}
FREE |= {("filters.0.where.sysStatus.1", "text"), ("filters.0.where.sysStatus.0", "number")}
FREE |= {("filters.0.where.sysStatus.1", "number")}


def paths(content, at=()):
    """Every place of a document, as keys and positions."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in pairs:
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from paths(value, (*at, key))


def within(content, path):
    for part in path:
        content = content[part]
    return content


CONTENT = yaml.safe_load(FULL)
PLACES = list(paths(CONTENT))
KEYS = [place for place in PLACES if isinstance(place[-1], str) and place[-1] != "margin"]


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pipelines") / "trades.yaml"


def refused(path: Path, text: str) -> str:
    """Return the message, after what holds for every message."""
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_pipeline(path)
    told = str(error.value)
    assert told.startswith(f"pipeline {path}, line ")
    assert "\n" not in told
    assert not re.search(r"pydantic|Traceback|object at 0x|function-|\btype=", told)
    return told


def broken(change) -> str:
    content = copy.deepcopy(CONTENT)
    change(content)
    return json.dumps(content, ensure_ascii=False, indent=1)  # JSON is YAML


def line_of(text: str, key: str) -> int:
    """The first line with a key; only for keys that are there once."""
    return next(number for number, line in enumerate(text.splitlines(), 1) if f'"{key}":' in line)


def test_the_full_example_is_right(tmp_path):
    path = tmp_path / "full.yaml"
    path.write_text(FULL, encoding="utf-8")
    assert load_pipeline(path).rules.policy == "evolve"


@pytest.mark.parametrize("place", KEYS, ids=lambda place: ".".join(map(str, place)))
def test_misspelt_key_is_told_with_its_line(file, place):
    name = place[-1]
    typo = f"{name[:-1]}q{name[-1]}"

    def change(content):
        around = within(content, place[:-1])
        renamed = {typo if key == name else key: value for key, value in around.items()}
        around.clear()
        around.update(renamed)

    text = broken(change)
    told = refused(file, text)
    assert typo in told
    assert f"line {line_of(text, typo)}: " in told
    if place[0] != "step":
        assert f"'{name}'" in told or f"{name!r}" in told or "known" in told


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        (place, kind)
        for place in PLACES
        for kind in WRONG
        if (".".join(map(str, place)), kind) not in FREE
        and not (kind == "list" and place == ("filters", 0, "where", "sysStatus"))
    ],
    ids=str,
)
def test_value_of_a_wrong_kind_is_told_with_its_key(file, place, kind):
    def change(content):
        within(content, place[:-1])[place[-1]] = WRONG[kind]

    told = refused(file, broken(change))
    top = str(place[0])
    assert re.search(rf"line \d+: .*\b{top}", told)


@pytest.mark.parametrize("key", ["name", "source", "source.method", "filters.0.where", "filters.0.then"])
def test_missing_key_is_told(file, key):
    *around, name = [int(part) if part.isdigit() else part for part in key.split(".")]
    told = refused(file, broken(lambda content: within(content, around).pop(name)))
    assert f"key {key!r} is missing" in told


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("schema: evolve", "schema: evolv", "did you mean 'evolve'?"),
        ("then: skip", "then: skp", "did you mean 'skip'?"),
        ("paging: pages", "paging: page", "did you mean 'pages'?"),
        ("sellerMemo: drop", "sellerMemo: dorp", "write `drop`"),
        ("sellerMemo: drop", "sid: drop", "sid is the key of trade"),
        ("sellerMemo: drop", "updTime: drop", "updTime is the version of trade"),
        ("sellerMemo: drop", "updTime: {type: text}", "stays as it is"),
        ("sellerMemo: drop", "userId: drop", "counts by user_id"),
        ("sellerMemo: drop", "created: {to: made}", "counts by created"),
        ("sellerMemo: drop", "orders.sid: drop", "the key of what it belongs to"),
        ("sellerMemo: drop", "orders.payAmount: drop", "counts by pay_amount"),
        ("sellerMemo: drop", "receiverState: drop", "kept in keep_personal"),
        ("sellerMemo: drop", "sellerMemo: {drop: true, to: x}", "nothing else to say"),
        ("to: amount_due", "to: total_fee", "both be the column 'total_fee'"),
        ("to: amount_due", "to: Amount", "no column name"),
        ("{keep: hash}", "{to: nick}", "add keep: plain, hash or mask"),
        ("{keep: hash}", "{keep: hash, type: integer}", "what is kept as hash is text"),
        ("{type: text}", "{type: money}", "none of id, text"),
        ("{type: text}", "{default: abc}", "'abc' is no number"),
        ("payment: {below: 0}", "payment: {below: much}", "'much' is no yuan"),
        ("payment: {below: 0}", "payment: {}", "an empty test"),
        ("payment: {below: 0}", "sysStatus: {below: 3}", "has no order"),
        ("payment: {below: 0}", "orders.num: {below: 3}", "not at its lines"),
        ("columns: {margin: yuan}", "columns: {payment: yuan}", "has this column already"),
        ("columns: {margin: yuan}", "columns: {Margin: yuan}", "no column name"),
        ("run: my_rules:add_margin", "run: my_rules.add_margin", "no `module:function`"),
        ("batch_size: 1000", "batch_size: 1000\nbatch_size: 5", "'batch_size' is there twice"),
        ("batch_size: 1000", "fingerprint: abc", "unknown key 'fingerprint'"),
        ("description: all that can be said", "description: 2026-13-45", "description: month must be"),
        ("description: all that can be said", "description: [", "not valid YAML"),
        ("description: all that can be said", "description: 'a", "not valid YAML"),
    ],
)
def test_mistake_is_told_at_its_line(file, old, new, told):
    text = FULL.replace(old, new, 1)
    assert text != FULL
    message = refused(file, text)
    assert told in message
    number = int(re.search(r"line (\d+)", message)[1])
    line = 1 + FULL[: FULL.index(old)].count("\n") + new.count("\n")
    # A quote that is never closed is noticed where the file ends.
    assert number == line or "YAML" in told


@settings(max_examples=100, deadline=None)
@given(
    at=st.integers(0, len(FULL)),
    length=st.integers(0, 12),
    put=st.text(st.sampled_from(" \t\n:-[]{}'\"#&*!|>%@,?abz01\x00\ufeff\ud800é"), max_size=6),
)
def test_no_damage_to_a_file_gives_anything_but_one_line(file, at, length, put):
    text = FULL[:at] + put + FULL[at + length :]
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    told = f"pipeline {file}, all is well"
    try:
        load_pipeline(file)
    except ConfigError as err:
        told = str(err)
    assert told.startswith(f"pipeline {file}")
    assert "\n" not in told


def test_nesting_without_end_is_refused(tmp_path):
    path = tmp_path / "deep.yaml"
    path.write_text("name: " + "[" * 3000, encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_pipeline(path)
    path.write_text("name: &a [*a]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 1"):
        load_pipeline(path)


def test_schema_for_editors_is_up_to_date():
    """`python -m kuaimai.pipeline.schema > include/pipelines/pipeline.schema.json` writes it anew."""
    assert json.loads((INCLUDE / schema.FILE).read_text(encoding="utf-8")) == schema.json_schema()


def test_page_of_all_keys_is_up_to_date():
    """`python -m kuaimai.pipeline.keys > docs/keys.md` writes it anew."""
    page = INCLUDE.parents[1] / "docs" / "keys.md"
    assert page.read_text(encoding="utf-8") == keys.keys_page()
    for name in schema.json_schema()["$defs"]:
        assert f'<a id="{name.lower()}">' in keys.keys_page()


def test_schema_describes_every_key_and_takes_the_full_example():
    made = schema.json_schema()
    assert set(CONTENT) <= set(made["properties"])
    for part in (made, *made["$defs"].values()):
        assert all(about.get("description") for about in part["properties"].values()), part["title"]
    with contextlib.suppress(ImportError):
        import jsonschema

        check = jsonschema.Draft7Validator(made)
        assert list(check.iter_errors(CONTENT)) == []
        assert list(check.iter_errors({**CONTENT, "shema": "evolve"}))


@pytest.mark.parametrize("path", sorted(INCLUDE.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_files_name_the_schema(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# yaml-language-server: $schema={schema.FILE}"


SMALL = "name: small\nsource: {method: erp.trade.list.query}\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('schedule: "a b c d e"', "schedule: 'a' is no minute: 0 to 59"),
        ('schedule: "0 24 * * *"', "schedule: '24' is no hour"),
        ('schedule: "0 1 0 * *"', "schedule: '0' is no day of the month"),
        ('schedule: "0 1 * foo *"', "schedule: 'foo' is no month"),
        ('schedule: "*/0 * * * *"', r"schedule: '\*/0' is no minute"),
        (
            'targets: [{kind: sql, conn_id: a}, {kind: sql, conn_id: b, schedule: "*/5 * * * *"}]',
            "targets.1.schedule: it is the pipeline's own",
        ),
        ("targets: []", "targets: it must not be empty"),
        ('target: ""', "target: it must not be empty"),
        ("targets: [{kind: fils, url: /data}]", "targets.0.kind: 'fils' is none of .*; did you mean 'files'"),
        ("targets: [{conn_id: a}]", "key 'targets.0.kind' is missing"),
        ("target: ${TARGET}", r"target: '\$\{TARGET\}' is no name of a target"),
        ("targets: [{kind: sql, conn_id: a b}]", "targets.0.name: 'a b' is no name of a target"),
        ("batch_size: true", "batch_size: a whole number belongs here, not true or false"),
        ("batch_size: 1.5", "batch_size: a whole number belongs here, not a number"),
        ("description: 5", "description: text belongs here, not a number; quote it"),
        ("description: 2026-01-01", "description: text belongs here, not a date; quote it"),
        ("fields:", "fields: it is empty; write something, or leave the key out"),
        ("5: 5", "the key 5 is no text; quote it"),
        ("on: {a: 1}", "the key on is no text; quote it"),
        ("? [a]\n: 5", "a key is text"),
        ("keep_personal: [receiverName\ttabs]", "keep_personal: 'receiverName"),
    ],
)
def test_what_airflow_or_a_load_would_refuse_later_is_refused_at_once(file, line, message):
    assert re.search(f"line 3: {message}", refused(file, SMALL + line + "\n"))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            "{method: erp.item.outerid.list.get}",
            "needs outerIds or numIidList; give it a value, as params: {outerIds: …}",
        ),
        (
            "{method: item.list.get}",
            "needs sysItemIds or outerIds; give it a value, as params: {outerIds: …}",
        ),
        ("{method: erp.trade.query.tag.list}", "needs tagType; give it a value, as params: {tagType: …}"),
        (
            "{method: erp.item.history.cost.price.query, params: {sysItemId: 5}}",
            "erp.item.history.cost.price.query needs sysSkuId",
        ),
        (
            "{method: purchase.order.get}",
            "it is asked by itself for each record of purchase.order.query, so take that as source.method",
        ),
    ],
)
def test_method_that_is_not_given_what_it_needs_is_refused_before_it_runs(file, source, told):
    message = refused(file, f"name: small\nsource: {source}\n")
    assert "line 2: source.params: " in message
    assert told in message


@pytest.mark.parametrize("name", catalog.method_names())
def test_every_method_that_has_records_is_taken_once_it_is_given_what_it_needs(file, name):
    method = catalog.method(name)
    if method.record is None:
        return
    ours = _ours(method)
    needed = {
        next(one for one in group if not method.ids or one != method.ids.param): "1"
        for group in method.needs
        if not ours & set(group)
    }
    text = json.dumps({"name": "small", "source": {"method": name, "params": needed}})
    file.write_text(text, encoding="utf-8")
    assert load_pipeline(file).record.name == method.record


def _ours(method: catalog.Method) -> set[str]:
    """What a pipeline says by itself: the page, the time, the warehouse."""
    found = {"pageNo", "pageSize", method.scope.param if method.scope else ""}
    for one in method.times.dimensions.values() if method.times else ():
        found |= {one.start, one.end, *one.send}
    return found


@pytest.mark.parametrize(
    "schedule",
    ["*/5 * * * *", "0,30 1-5 L jan-mar mon-FRI", "20 3 * * sun#2", "5/10 0 1 1 7", "0-30/5 * * * 1,3"],
)
def test_cron_as_airflow_takes_it(file, schedule):
    file.write_text(f'{SMALL}schedule: "{schedule}"\n', encoding="utf-8")
    assert load_pipeline(file).schedule == schedule


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "line 1: it must be a mapping"),
        (b"# nothing\n", "line 1: it must be a mapping"),
        (b"- name: a\n", "line 1: it must be a mapping"),
        (SMALL.encode() + b"time:\n\tdimension: created\n", "line 4 is not valid YAML"),
        (SMALL.encode() + b'description: "a\x00b"\n', "line 3 is not valid YAML: control characters"),
        (SMALL.encode() + "description: 订\n".encode("gbk"), "line 3 is not valid YAML: it is no UTF-8 text"),
        (SMALL.encode("utf-16"), "line 1 is not valid YAML: it is no UTF-8 text"),
        (SMALL.encode() + b"---\n" + SMALL.encode(), "line 3 is not valid YAML: but found another document"),
        ("name: 订单\n".encode() + SMALL.encode()[12:], "line 1: name: '订单' is no name"),
        (
            SMALL.encode().replace(b"}", b", enrich: [erp.shop.list.query]}"),
            "line 2: source.enrich: the methods return different records: shop, trade",
        ),
    ],
)
def test_a_file_that_is_no_pipeline_at_all_is_told_with_its_line(tmp_path, content, told):
    path = tmp_path / "small.yaml"
    path.write_bytes(content)
    [found] = lint([path])
    assert not found.runs
    assert f"pipeline {path}, {told}" in found.told


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf" + SMALL.encode(), SMALL.replace("\n", "\r\n").encode()])
def test_a_file_as_windows_writes_it_is_read(tmp_path, content):
    path = tmp_path / "small.yaml"
    path.write_bytes(content)
    assert lint([path])[0].runs


def test_a_pipeline_does_not_take_the_name_of_a_dag_that_is_none(file):
    told = refused(file, SMALL.replace("small", "session"))
    assert "line 1: name: the DAG kuaimai_session is there already" in told


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('step: "not_there:f"', "put not_there.py beside the pipeline's file"),
        ('step: "lint_step_is_here:g"', "the module has no function 'g'"),
        ("targets: [{kind: http, conn_id: a, strategy: gone.json}]", "line 3: targets.0.strategy: strategy"),
        (
            "targets: [{kind: files, url: /data, partition_by: payment}]",
            "line 3: targets.0.partition_by: 'payment' is no time of trade",
        ),
    ],
)
def test_lint_looks_at_what_the_last_steps_of_a_run_need(tmp_path, line, message):
    (tmp_path / "lint_step_is_here.py").write_text("def f(rows):\n    return rows\n", encoding="utf-8")
    (tmp_path / "small.yaml").write_text(SMALL + line + "\n", encoding="utf-8")
    [found] = lint([tmp_path])
    assert not found.runs
    assert message in found.told


def test_lint_tells_what_is_dangerous_in_the_strategy_of_a_target(tmp_path, monkeypatch):
    fields = {"memo": "{{sellerMemo}}", "none": "{{nosuch}}", "line": "{{orders.nums}}", "good": "{{tid}}"}
    request = ",\n".join(f'{{"field": "{name}", "value": "{value}"}}' for name, value in fields.items())
    (tmp_path / "erp").mkdir()
    (tmp_path / "erp" / "orders.json").write_text(
        f'{{"api": "writeapi", "effect": "EXECUTE", "request": [\n{request}]}}', encoding="utf-8"
    )
    (tmp_path / "small.yaml").write_text(
        f"{SMALL}fields: {{sellerMemo: drop}}\n"
        "targets: [{kind: http, conn_id: a, strategy: erp/orders.json}]\n",
        encoding="utf-8",
    )
    [found] = lint([tmp_path])
    assert found.runs
    _, unknown, inside, dropped = (line.partition("danger: ")[2] for line in found.told.splitlines())
    assert unknown.startswith("line 3: request[1].value: trade returns no field 'nosuch'")
    assert inside.startswith("line 4: request[2].value: trade returns no field 'orders.nums'")
    assert inside.endswith("did you mean 'orders.num'?")
    assert dropped.startswith("line 2: request[0].value: sellerMemo: the pipeline drops it")
    monkeypatch.chdir(tmp_path.parent)
    assert [one.runs for one in lint([Path(tmp_path.name)])] == [True]


def test_lint_tells_of_keys_without_effect(tmp_path):
    (tmp_path / "tags.yaml").write_text(
        "name: tags\nsource: {method: erp.item.tag.list, page_size: 50}\ntime: {overlap_minutes: 30}\n",
        encoding="utf-8",
    )
    [found] = lint([tmp_path])
    assert found.runs
    assert [line.split(": ")[0] for line in found.told.splitlines()[1:]] == [
        "  time.overlap_minutes",
        "  source.page_size",
    ]
    assert not any("no effect" in one.told for one in lint([INCLUDE]))


def test_lint_tells_where_nothing_will_say_that_a_record_is_gone(tmp_path):
    (tmp_path / "shops.yaml").write_text(
        "name: shops\nsource: {method: erp.shop.list.query}\n"
        "targets: [{kind: sql}, {kind: noop}, {kind: files, url: /data, name: lake}]\n",
        encoding="utf-8",
    )
    [found] = lint([tmp_path])
    assert found.runs
    _, *told = found.told.splitlines()
    assert told == ["  targets.2 (lake): what a scan finds gone is marked in databases only"]


def test_lint_tells_that_a_method_of_the_past_brings_nothing_new(tmp_path):
    for name in ("purchase.order.history.query", "purchase.order.query"):
        (tmp_path / "orders.yaml").write_text(f"name: orders\nsource: {{method: {name}}}\n", encoding="utf-8")
        [found] = lint([tmp_path])
        assert found.runs
        told = "Read purchase.order.query, whose backfills ask for both" in found.told
        assert told is ("history" in name)


def test_lint_tells_of_two_files_of_one_name(tmp_path):
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(SMALL, encoding="utf-8")
    first, second = lint([tmp_path])
    assert first.runs
    assert not second.runs
    assert "b.yaml, line 1: a.yaml makes the DAG kuaimai_small already" in second.told


LOOKS_BACK = 'time: {further: [{dimension: created, schedule: "5 * * * *", look_back_hours: 9}]}\n'


def test_lint_tells_of_a_name_that_is_a_further_dag_of_another(tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL + LOOKS_BACK, encoding="utf-8")
    (tmp_path / "late.yaml").write_text(SMALL.replace("small", "small__created"), encoding="utf-8")
    late, small = lint([tmp_path])
    assert late.runs
    assert not small.runs
    assert "small.yaml, line 3: late.yaml makes the DAG kuaimai_small__created already" in small.told
    places = [tmp_path / "small.yaml", tmp_path, tmp_path / "small.yaml"]
    assert [(one.path.name, one.runs) for one in lint(places)] == [("small.yaml", True), ("late.yaml", False)]


def test_lint_tells_of_a_strategy_that_has_the_name_of_a_pipeline(tmp_path):
    strategy = Path(__file__).parents[1] / "strategies" / "orders_archive.json"
    (tmp_path / "small.json").write_text(strategy.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    _, second = lint([tmp_path])
    assert not second.runs
    assert f"strategy {tmp_path / 'small.json'}: small.yaml makes the DAG kuaimai_small" in second.told


def test_a_late_mistake_is_told_at_its_line_too(tmp_path):
    (tmp_path / "late_step.py").write_text(
        "NUMBER = 5\n\n\ndef add_margin(rows):\n    return rows\n", encoding="utf-8"
    )
    for steps, line, told in (
        ("step: late_step:add_marg", 3, "has no function 'add_marg' → did you mean 'add_margin'?"),
        ("step:\n  trade_line: {run: late_step:NUMBER}", 4, "'NUMBER' is no function, but a int"),
    ):
        (tmp_path / "small.yaml").write_text(SMALL + steps + "\n", encoding="utf-8")
        [found] = lint([tmp_path])
        assert f"pipeline {tmp_path / 'small.yaml'}, line {line}: step late_step:" in found.told
        assert told in found.told


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("import nothing_of_the_kind", "ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def f(:", "SyntaxError"),
        ("raise ValueError('one\\ntwo')", "ValueError: one two"),
    ],
)
def test_a_module_that_breaks_is_told_with_its_own_error(tmp_path, module, told):
    (tmp_path / "breaks_here.py").write_text(module + "\n", encoding="utf-8")
    (tmp_path / "small.yaml").write_text(SMALL + "step: breaks_here:f\n", encoding="utf-8")
    [found] = lint([tmp_path])
    assert told in found.told
    assert "put breaks_here.py" not in found.told


def test_the_tutorials_pipeline_is_right(tmp_path):
    page = (DOCS / "pipelines.md").read_text(encoding="utf-8")
    blocks = {
        name: re.findall(rf"^```{name}\n(.*?)```", page, re.DOTALL | re.MULTILINE)
        for name in ("yaml", "python")
    }
    _, pipeline, step, targets = blocks["yaml"]
    pipeline = pipeline.replace("target: my_database\n", targets)
    (tmp_path / "margins_rules.py").write_text(blocks["python"][0], encoding="utf-8")
    (tmp_path / "margins.yaml").write_text(pipeline + step, encoding="utf-8")
    [found] = lint([tmp_path])
    assert found.told == f"{tmp_path / 'margins.yaml'}: runs, as kuaimai_margins"


@pytest.mark.parametrize("name", ["pipelines", "targets"])
def test_both_languages_show_the_same(name):
    english, chinese = ((DOCS / f"{name}{twin}.md").read_text(encoding="utf-8") for twin in ("", ".zh-CN"))
    for shape in (r"^(#+) ", r"^\|", r"^\* "):
        assert len(re.findall(shape, english, re.MULTILINE)) == len(re.findall(shape, chinese, re.MULTILINE))
    assert _code(english) == _code(chinese)


def _code(page: str) -> list[str]:
    """What stands in a page's blocks, without what is said in its language."""
    blocks = re.findall(r"^```\w*\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    return [re.sub(r" *# .*", "", one) for one in blocks]
