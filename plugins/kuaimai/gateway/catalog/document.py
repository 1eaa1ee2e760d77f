"""The catalogue as a page: `python -m kuaimai.gateway.catalog.document > docs/catalogue.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from kuaimai.gateway import catalog
from kuaimai.gateway.catalog.model import Field, Method, Record, Times

_HEAD = """\
# Catalogue 接口与字段目录

<!-- Generated from plugins/kuaimai/gateway/catalog. Do not edit: change the catalogue, then
     python -m kuaimai.gateway.catalog.document > docs/catalogue.md -->

Generated from the catalogue; a test keeps it up to date. What can be asked of the gateway, and what lands in
which column. Chinese names are the documentation's and become the columns' comments.
本页由目录文件生成，请勿手工修改。内容为：网关可查询的方法及其限制，以及各字段落入的列、类型、单位。

| Mark 标记 | Meaning 含义 |
| --- | --- |
| `?` after a fact | our guess: nobody states it 推测，文档未说明 |
| sure 可信度: *stated* | the reference states it 文档或实测明确 |
| *seen* | only another project's program names it 仅见于其他项目的程序 |
| *guess* | nobody names it 推测 |
| *made* | made by us, never sent 由本程序生成 |
| personal 个人信息 | dropped unless a pipeline keeps it by name 默认丢弃，须在管道中点名保留 |

Amounts in the target are yuan; `fen` says that the API sends a hundredth. Times are instants; 2000-01-01 and
2001-01-01 mean none. Values under *none* mean "none" and are kept as sent.
金额入库后单位均为元，`fen` 表示接口以分发送；时间 2000-01-01 与 2001-01-01 表示无；
“无值”后的取值表示无，按原样保留。
"""

_UNITS = {"kg": "kg 千克", "cm": "cm 厘米", "day": "days 天", "ratio": "ratio 比率"}
_TOTALS = {"first": "on the first page 仅首页", "all": "on every page 每页", "none": "never 无"}
_FORMS = {"ms": "", "digits": "ms in text 毫秒文本", "text": "yyyy-MM-dd HH:mm:ss"}


def catalogue_page() -> str:
    """Return docs/catalogue.md."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    yield "## Methods 方法"
    for area, names in catalog.areas("methods").items():
        yield from ("", f"### Methods of {area}.yaml", "")
        yield from _table(("Method 方法", "Name 名称", "Record 记录"), map(_method_row, names))
    for names in catalog.areas("methods").values():
        for name in names:
            yield from _method(catalog.method(name))
    yield from ("", "## Records 记录")
    for area, names in catalog.areas("records").items():
        yield from ("", f"### Records of {area}.yaml")
        for name in names:
            yield from _record(catalog.record(name))


def _method_row(name: str) -> tuple[str, str, str]:
    method = catalog.method(name)
    record = f"[{method.record}](#record-{method.record})" if method.record else ""
    return f"[`{name}`](#method-{_anchor(name)})", method.label, record


def _method(method: Method) -> Iterator[str]:
    yield from ("", f'<a id="method-{_anchor(method.name)}"></a>', f"#### `{method.name}` {method.label}", "")
    facts = [(name, _marked(method, fact, text)) for fact, name, text in _facts(method) if text]
    yield from _table(("Fact 事实", "Value 取值"), facts)
    if method.times:
        rows = _dimensions(method, method.times)
        yield ""
        yield from _table(
            ("Time 时间维度", "Field 字段", "From 起", "To 止", "Sent 附带参数", "Form 格式"), rows
        )


def _facts(method: Method) -> Iterator[tuple[str, str, str]]:
    """Return each fact's name in the catalogue, its name on the page, and its value."""
    page, scope, ids, times, detail = method.page, method.scope, method.ids, method.times, method.detail
    record = catalog.record(method.record) if method.record else None
    yield "params", "Parameters 参数", _codes(sorted(method.params))
    yield "needs", "Needed 必填", _codes(" | ".join(group) for group in method.needs)
    yield "send", "Always sent 固定发送", _codes(f"{name}={value}" for name, value in method.send.items())
    yield "record", "Records 记录", f"[{record.name}](#record-{record.name}) {record.label}" if record else ""
    yield "list_keys", "Under 列表键", _codes(method.list_keys)
    yield "empty_list", "Without records 无记录时", "an empty list 空列表" if method.empty_list else ""
    yield "", "Key 主键", _codes(record.key_fields) if record else ""
    if page:
        yield "page", "Page size 每页", f"{page.min} – {_marked(method, 'page.max', str(page.max))}"
        yield "page", "Page size unsent 不传时", str(page.default or "")
        yield "page.total_on", "Total 总数", _TOTALS[page.total_on]
    if scope:
        whose = f", its field 对应字段 {scope.field}" if scope.field else ""
        yield "scope", "Asked per 范围", f"{scope.of}: `{scope.param}`, at most 最多 {scope.max}{whose}"
    if ids:
        yield "ids", "By id 按编号", f"`{ids.param}`, at most 最多 {ids.max}"
    if times:
        yield "times.max_days", "Longest window 最长窗口", f"{times.max_days} d 天"
        reach = f"{times.reach_days} d 天" if times.reach_days else "all 全部"
        yield "times.reach_days", "Reaches back 可查", reach
        yield "", "Without a time 不限时间", "everything 全部" if times.optional else ""
        if times.archive:
            sent = f"`{times.archive.param}={times.archive.value}`"
            yield "times.archive", "Archive 归档", f"{sent}: {_codes(times.archive.dimensions)}"
    yield "history", "Older in 更早", _link(method.history)
    if detail:
        yield "detail", "Lines by 明细", f"{_link(detail.method)}, `{detail.param}` = {detail.field}"
    yield "not_served", "Not for 不返回", _codes(sorted(method.not_served))


def _dimensions(method: Method, times: Times) -> Iterator[tuple[str, ...]]:
    for name, one in times.dimensions.items():
        stamp = f"{one.stamp}{' (loose 不严格)' if one.loose else ''}" if one.stamp else "–"
        sent = _codes(f"{param}={value}" for param, value in one.send.items())
        form = "epoch ms 毫秒" if one.form == "epoch_ms" else "yyyy-MM-dd HH:mm:ss"
        shown = _marked(method, f"times.{name}", f"`{name}`")
        yield shown, stamp, f"`{one.start}`", f"`{one.end}`", sent, form


def _record(record: Record) -> Iterator[str]:
    yield from ("", f'<a id="record-{record.name}"></a>', f"#### `{record.name}` {record.label}", "")
    mark = "?" if {"key", "key_of"} & record.unsure else ""
    facts = [f"Key 主键{mark}: {_codes(record.key_fields)}"]
    if record.version:
        facts.append(f"version 版本: {_codes(record.version)}")
    facts += [f"`{name}` → [{kind}](#record-{kind})" for name, kind in record.children.items()]
    if record.parent_key:
        facts.append(f"parent 上级: `{record.parent_key}`")
    yield from (". ".join(facts) + ".", "")
    yield from _table(
        (
            "Field 字段",
            "Column 列",
            "Type 类型",
            "Unit, form 单位、格式",
            "Personal 个人信息",
            "Label 名称",
            "Sure 可信度",
        ),
        map(_field, record.fields.values()),
    )


def _field(one: Field) -> tuple[str, ...]:
    notes = [_UNITS[one.unit]] if one.unit else []
    notes += [_FORMS[one.form]] if one.form and _FORMS[one.form] else []
    notes += [f"none 无值: {_codes(one.sentinels)}"] if one.sentinels else []
    notes += [f"of [{one.of}](#record-{one.of})"] if one.of else []
    notes += [f"also 又作 {_codes(one.aliases)}"] if one.aliases else []
    personal = "yes 是" if one.personal else ""
    kind = "yuan, sent in fen 分" if one.type == "fen" else one.type
    return f"`{one.name}`", f"`{one.column}`", kind, "; ".join(notes), personal, one.label, one.sure


def _marked(method: Method, fact: str, text: str) -> str:
    return f"{text} ?" if fact in method.unsure else text


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _link(method: str | None) -> str:
    return f"[`{method}`](#method-{_anchor(method)})" if method else ""


def _anchor(name: str) -> str:
    return name.replace(".", "-")


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    heads = tuple(heads)
    yield f"| {' | '.join(heads)} |"
    yield f"| {' | '.join('---' for _ in heads)} |"
    yield from (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


if __name__ == "__main__":
    # Bytes, so that the page is the same whatever the terminal's encoding.
    sys.stdout.buffer.write(catalogue_page().encode())
