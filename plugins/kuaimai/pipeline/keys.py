"""The page with every key of a pipeline file; `python -m kuaimai.pipeline.keys > docs/keys.md` makes it.

It says what the schema says (`kuaimai.pipeline.schema`), which says what the models say.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from kuaimai.pipeline.schema import json_schema

# Where a key takes one of these, it takes a name of the catalogue.
_CATALOGUE = ("method", "enrich")
_SECTIONS = {
    "": "A pipeline 管道",
    "Source": "`source` 来源",
    "Time": "`time` 时间",
    "Further": "An entry of `time.further` 其他时间维度",
    "Shaped": "A value of `fields` 字段",
    "FilterRule": "An entry of `filters` 过滤",
    "Compared": "A comparison in `where` 比较",
    "StepRule": "`step` 自定义步骤",
    "SqlOutlet": "A target of `kind: sql` 数据库",
    "FilesOutlet": "A target of `kind: files` 文件",
    "HttpOutlet": "A target of `kind: http` 写入接口",
    "Answers": "`answers` of such a target 应答",
    "StatementOutlet": "A target of `kind: statement` SQL 语句",
    "NoopOutlet": "A target of `kind: noop` 写入空操作",
}


def keys_page() -> str:
    """Return the page, in Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    schema = json_schema()
    parts: Mapping[str, Any] = {"": schema, **schema["$defs"]}
    yield "# Every key of a pipeline file / 管道文件的全部键"
    yield ""
    yield "Made from the code by `python -m kuaimai.pipeline.keys`. Tutorials: [pipelines](pipelines.md) and"
    yield "[targets](targets.md). 由代码生成；教程：[管道](pipelines.zh-CN.md)、[目标](targets.zh-CN.md)。"
    for name, title in _SECTIONS.items():
        part = parts[name]
        yield ""
        if name:
            yield f'<a id="{name.lower()}"></a>'
            yield ""
        yield f"## {title}"
        yield ""
        yield "| Key 键 | Value 值 | Default 默认 | Meaning 含义 |"
        yield "| --- | --- | --- | --- |"
        required = part.get("required", ())
        for key, about in part["properties"].items():
            cells = (
                f"`{key}`",
                _value(key, about),
                _default(key, about, required),
                about.get("description", ""),
            )
            yield "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


def _value(key: str, about: Mapping[str, Any]) -> str:
    """Return in words which values a key takes."""
    if "$ref" in about:
        name = about["$ref"].rpartition("/")[2]
        return f"[these keys](#{name.lower()})"
    several = about.get("anyOf") or about.get("oneOf")
    if several:
        found = dict.fromkeys(_value(key, one) for one in several)
        return " or ".join(one for one in found if one != _NAMES["null"])
    given = about.get("enum", [about["const"]] if "const" in about else ())
    if given:
        listed = ", ".join(f"`{_text(one)}`" for one in given)
        return "a method of the [catalogue](catalogue.md)" if key in _CATALOGUE else listed
    return _of_type(key, about)


def _of_type(key: str, about: Mapping[str, Any]) -> str:
    kind = about.get("type")
    if kind == "array":
        return f"list of {_value(key, about.get('items', {}))}"
    inside = about.get("additionalProperties")
    if kind == "object":
        return f"mapping to {_value(key, inside)}" if isinstance(inside, dict) and inside else "mapping"
    kinds = kind if isinstance(kind, list) else [kind]
    return " or ".join(_NAMES.get(str(one), "any value") for one in kinds)


_NAMES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true`, `false`",
    "null": "nothing",
}


def _default(key: str, about: Mapping[str, Any], required: Any) -> str:
    if key in required:
        return "required 必填"
    default = about.get("default")
    # What has keys of its own has their defaults.
    return "" if default in (None, "", [], {}) or isinstance(default, dict) else f"`{_text(default)}`"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    sys.stdout.write(keys_page())
