"""The JSON Schema of pipeline files, for editors: completion and checks while one writes.

`python -m kuaimai.pipeline.schema > include/pipelines/pipeline.schema.json` writes it anew; a pipeline file
names it in its first line: `# yaml-language-server: $schema=pipeline.schema.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from inspect import cleandoc
from types import MappingProxyType
from typing import Any

from kuaimai.gateway import catalog
from kuaimai.pipeline.outlets import BaseOutlet
from kuaimai.pipeline.spec import Pipeline

FILE = "pipeline.schema.json"


def json_schema() -> dict[str, Any]:
    """Return the schema: what the models say, the short forms, and the catalogue's names."""
    schema = Pipeline.model_json_schema(mode="validation")
    schema["$schema"] = "http://json-schema.org/draft-07/schema#"
    schema["title"] = "Kuaimai pipeline"
    properties, parts = schema["properties"], schema["$defs"]
    for name, field in Pipeline.model_fields.items():
        if field.exclude:
            del properties[field.alias or name]
    _describe(schema)
    for name, part in parts.items():
        _describe(part, _attributes(BaseOutlet.__doc__ or "") if name.endswith("Outlet") else {})
    methods = [name for name in catalog.method_names() if catalog.method(name).record]
    parts["Source"]["properties"]["method"]["enum"] = methods
    parts["Source"]["properties"]["enrich"]["items"]["enum"] = methods
    properties["fields"]["additionalProperties"] = {
        "anyOf": [{"const": "drop"}, {"$ref": "#/$defs/Shaped"}],
    }
    step = {"anyOf": [{"type": "string", "pattern": r"^[\w.]+:\w+$"}, {"$ref": "#/$defs/StepRule"}]}
    properties["step"] = {
        "anyOf": [*step["anyOf"], {"type": "object", "additionalProperties": step}],
        "description": properties["step"].get("description", ""),
    }
    wanted = parts["FilterRule"]["properties"]["where"]
    wanted["additionalProperties"] = {
        "anyOf": [
            {"type": ["string", "number", "boolean", "null"]},
            {"type": "array", "items": {"type": ["string", "number", "boolean"]}},
            {"$ref": "#/$defs/Compared"},
        ]
    }
    return schema


def _describe(part: dict[str, Any], inherited: Mapping[str, str] = MappingProxyType({})) -> None:
    """Move what a model's docstring says about its attributes to the attributes."""
    said_in = part.get("description", "")
    part["description"] = " ".join(said_in.partition("Attributes:")[0].split())
    told = {**inherited, **_attributes(said_in)}
    for key, about in part.get("properties", {}).items():
        said = told.get(key) or told.get(f"{key}_") or told.get(f"{key}_policy")
        if said:
            about["description"] = said


def _attributes(docstring: str) -> dict[str, str]:
    """Return what a docstring, its indentation taken off or not, says about each attribute."""
    name, told = "", {}
    for line in cleandoc(docstring).partition("Attributes:")[2].splitlines():
        start, colon, text = line.strip().partition(": ")
        if (
            colon
            and line.startswith("    ")
            and not line.startswith("     ")
            and start.replace("_", "").isalnum()
        ):
            name, told[start] = start, text
        elif name and line.strip():
            told[name] += " " + line.strip()
    return told


def as_text() -> str:
    """Return the schema as the text of its file."""
    return json.dumps(json_schema(), ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_text())
