"""What tests of strategies share: a window, small strategies, and the given examples where they are."""

from __future__ import annotations

import copy
import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from kuaimai.pipeline.qeasy.compiling import load_text
from kuaimai.pipeline.qeasy.moments import RunWindow
from kuaimai.pipeline.qeasy.rendering import render_requests

CHINA = timezone(timedelta(hours=8))
WINDOW = RunWindow(
    start=datetime(2026, 3, 1, 10, 0, tzinfo=CHINA),
    end=datetime(2026, 3, 1, 10, 5, tzinfo=CHINA),
    now=datetime(2026, 3, 1, 10, 5, 9, tzinfo=CHINA),
)
START, END = "2026-03-01 10:00:00", "2026-03-01 10:05:00"
START_SECOND = 1_772_330_400

OURS = Path(__file__).parent / "strategies"
_ROOT = Path(__file__).resolve().parents[1]
_PLACES = [os.environ.get("KUAIMAI_QEASY_SAMPLES"), _ROOT.parent / "shared/reference/qeasy-samples"]
SAMPLES = next((Path(place) for place in _PLACES if place and Path(place).is_dir()), None)


def ours() -> dict[str, Any]:
    """Return our own examples, by name; freely changed."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(OURS.glob("*.json"))}


def sample(name: str) -> dict[str, Any]:
    """Return the metadata of a given example, by the begin of its file's name."""
    (path,) = SAMPLES.glob(f"{name}*.json")
    return json.loads(path.read_text(encoding="utf-8"))["metadata"]


def source(**metadata: Any) -> dict[str, Any]:
    """Return the metadata of a small source."""
    return {"api": "/some/list", "effect": "QUERY", "method": "POST", "id": "id", "number": "id", **metadata}


def target(*fields: Any, **metadata: Any) -> dict[str, Any]:
    """Return the metadata of a small target; a field is (name, value) or an object."""
    made = [one if isinstance(one, dict) else {"field": one[0], "value": one[1]} for one in fields]
    return {"api": "writeapi", "effect": "EXECUTE", "method": "POST", "request": made, **metadata}


def compiled(*sides: Any, **around: Any) -> Any:
    """Compile metadata: one side, or source and target."""
    content: Any = list(sides) if len(sides) > 1 else {"metadata": sides[0], **around}
    if len(sides) > 1 and around:
        content = {"source": sides[0], "target": sides[1], **around}
    return load_text(json.dumps(copy.deepcopy(content), ensure_ascii=False), "strategy")


def rendered(*sides: Any, rows: Any = (), page: int = 1, lookups: Any = None, **around: Any) -> Any:
    """Compile metadata and render its requests for the window above."""
    return render_requests(compiled(*sides, **around), WINDOW, page, rows, lookups)


def written(fields: list[Any], row: dict[str, Any], lookups: Any = None, **around: Any) -> Any:
    """Return the document that a target's fields make of one row; bad rows raise."""
    found = rendered(source(), target(*fields), rows=[{"id": 1, **row}], lookups=lookups, **around)
    if found.shaped.bad:
        raise ValueError(found.shaped.bad[0].reason)
    return found.writes[0].params


def value(text: str, lookups: Any = None, **row: Any) -> Any:
    """Return what one value of a target comes to, of the declared type `number` if it is one."""
    from kuaimai.pipeline.qeasy.scope import Scope
    from kuaimai.pipeline.qeasy.values import parse_value

    return parse_value(text, {"s": "landed"}).render(Scope(WINDOW, page_size=50, row=row, lookups=lookups))
