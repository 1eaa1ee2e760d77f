"""The documents name every column of the proof, in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kuaimai.load.proof import WINDOW_COLUMNS

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("name", ["delivery.md", "delivery.zh-CN.md"])
def test_table_of_the_proof_has_its_columns_and_no_others(name):
    rows = r"^\| [^\n]*`kuaimai_window`[^\n]*\n\| --- [^\n]*\n((?:\|[^\n]*\n)+)"
    (table,) = re.findall(rows, (DOCS / name).read_text("utf-8"), re.MULTILINE)
    told = [word for line in table.splitlines() for word in re.findall(r"`(\w+)`", line.split(" | ")[0])]
    assert sorted(told) == sorted(column.name for column in WINDOW_COLUMNS)
