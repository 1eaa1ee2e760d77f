"""Reads back everything that a deployment writes down anywhere, to look for what should not be there."""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from deployment import Deployment

from kuaimai.gateway import catalog
from kuaimai.sandbox import Sandbox

_METHODS = ("erp.trade.outstock.simple.query", "erp.trade.list.query")
_SHORTEST = 4  # a shorter text can be part of any other


def everything_stored(there: Deployment) -> dict[str, str]:
    """Return place → text: logs, staging, state, both databases with every column, alerts."""
    home = there.home.folder
    found: dict[str, str] = {}
    files = [*home.glob("*.log"), *(home / "logs").rglob("*"), *home.glob("kuaimai_state.db*")]
    files += (home / "kuaimai_staging").rglob("*")
    for file in files:
        if file.is_file():
            found[str(file.relative_to(home))] = _content(file)
    assert any("task_id=seal" in place or "/seal/" in place for place in found), sorted(found)
    # Compressed files of another kind would be searched in vain; the marks of ended tasks have no kind.
    kinds = {Path(place).suffix for place in found if place.startswith("kuaimai_staging/")}
    assert kinds == {"", ".arrow", ".zst"}, kinds
    for name, engine in (("metadata", there.metadata), ("target", there.target)):
        for table in sa.inspect(engine).get_table_names():
            with engine.connect() as connection:
                rows = connection.execute(sa.text(f'SELECT * FROM "{table}"')).fetchall()
            found[f"{name}.{table}"] = "\n".join(_cell(cell) for row in rows for cell in row)
    for needed in ("xcom", "rendered_task_instance_fields", "serialized_dag", "log"):
        assert found[f"metadata.{needed}"], f"nothing in {needed}"
    found["alerts"] = "\n".join(repr(letter.json) for letter in there.inbox.letters)
    return found


def personal_values(box: Sandbox) -> set[str]:
    """Return what the gateway told about people: names, telephones, addresses, nicknames."""
    personal = {field.name for field in catalog.record("trade").fields.values() if field.personal}
    wanted = [name for name in personal if name.startswith(("receiverN", "receiverM", "receiverP", "buyerN"))]
    values = {
        record.get(name) for method in _METHODS for record in box.truth(method).values() for name in wanted
    }
    return {value for value in values if isinstance(value, str) and len(value) >= _SHORTEST}


def _content(file: Path) -> str:
    if file.suffix == ".arrow":
        with pa.OSFile(str(file)) as opened:
            columns = pa.ipc.open_file(opened).read_all().columns
            return "\n".join(_cell(cell) for column in columns for cell in column.to_pylist())
    if file.suffix == ".zst":
        with pa.CompressedInputStream(pa.OSFile(str(file)), "zstd") as stream:
            return stream.read().decode()
    return file.read_bytes().decode("utf-8", "replace")


def _cell(cell: Any) -> str:
    if not isinstance(cell, (bytes, memoryview)):
        return str(cell)
    content = bytes(cell)
    with contextlib.suppress(zlib.error):
        content = zlib.decompress(content)
    return content.decode("utf-8", "replace")
