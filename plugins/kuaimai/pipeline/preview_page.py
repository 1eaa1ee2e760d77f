"""A preview as one HTML file that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from html import escape

from kuaimai.pipeline.preview import FieldView, Preview, TableView, as_json, left_out

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --bad: #c0392b; --good: #1e8449 }
body { font: 14px/1.5 system-ui, "PingFang SC", "Noto Sans CJK SC", "Microsoft YaHei", sans-serif;
       margin: 2rem auto; max-width: 84rem; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
p.from { opacity: .7; margin: .2rem 0 1rem }
table { border-collapse: collapse; width: 100%; font-size: 13px }
th { position: sticky; top: 0; background: Canvas; text-align: left; border-bottom: 2px solid var(--line) }
th, td { padding: .35rem .6rem; vertical-align: top } td { border-bottom: 1px solid var(--line) }
tr.dropped td { opacity: .55 } td.code, pre { font-family: ui-monospace, "Noto Sans Mono", monospace }
td.arrow { opacity: .5 } td.seen { white-space: nowrap } .value { word-break: break-all }
.null { opacity: .5; font-style: italic } .bad { color: var(--bad) } .good { color: var(--good) }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .4rem 0; padding: .4rem .8rem }
pre { overflow: auto; background: var(--soft); padding: .6rem; border-radius: .3rem }
"""


def as_page(found: Preview) -> str:
    """Return a preview as a whole HTML page."""
    verdict = (
        f'<span class="bad">{len(found.bad)} of {found.records} records would be set aside</span>'
        if found.bad
        else f'<span class="good">all {found.records} records fit</span>'
    )
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(found.pipeline)} · Kuaimai</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(found.pipeline)}</h1>",
            f'<p class="from">{escape(found.method)} · {escape(found.origin)} · {verdict}</p>',
            *(_table(one) for one in found.tables),
            *_bad(found),
            *_left_out(found),
            "</body></html>",
        ]
    )


def _table(view: TableView) -> str:
    rows = "\n".join(_row(one, view.records) for one in view.fields)
    return (
        f"<h2>{escape(view.table)} <small>{escape(view.label)}, {view.records} records</small></h2>"
        "<table><thead><tr><th>field 字段</th><th>seen 出现</th><th>as sent 原值</th><th></th>"
        "<th>column 列</th><th>type 类型</th><th>as stored 入库</th><th>note 说明</th></tr></thead>"
        f"<tbody>\n{rows}\n</tbody></table>"
    )


def _row(one: FieldView, records: int) -> str:
    shade = "" if one.column else ' class="dropped"'
    return (
        f"<tr{shade}>"
        f'<td class="code">{escape(one.field) or "–"}</td><td class="seen">{one.seen}/{records}</td>'
        f"<td>{_values(one.given)}</td><td class='arrow'>→</td>"
        f'<td class="code">{escape(one.column) or "–"}</td><td>{escape(one.type)}</td>'
        f"<td>{_values(one.stored)}</td><td>{escape(one.note)}</td></tr>"
    )


def _values(values: tuple[str, ...]) -> str:
    kinds = ["value null" if one == "NULL" else "value" for one in values]
    return "".join(
        f'<div class="{kind}">{escape(one[:200])}</div>' for kind, one in zip(kinds, values, strict=True)
    )


def _left_out(found: Preview) -> list[str]:
    reasons = left_out(found)
    if not reasons:
        return []
    items = "".join(f"<li>{count} × {escape(reason)}</li>" for reason, count in reasons)
    return ["<h2>Left out by filters 过滤</h2>", f"<ul>{items}</ul>"]


def _bad(found: Preview) -> list[str]:
    if not found.bad:
        return []
    return [
        "<h2>Set aside 隔离</h2>",
        *(
            f'<details><summary><b>{escape(one.key)}</b>: <span class="bad">{escape(one.reason)}</span>'
            f"</summary><pre>{escape(as_json(one.record))}</pre></details>"
            for one in found.bad
        ),
    ]
