"""What the templates of a strategy can refer to: the run's window, the page, the row, and landed tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from kuaimai.errors import DataError
from kuaimai.pipeline.qeasy.findings import near
from kuaimai.pipeline.qeasy.lookups import Lookups
from kuaimai.pipeline.qeasy.moments import RunWindow, to_wall

WINDOW_VARIABLES = ("LAST_SYNC_TIME", "CURRENT_TIME")
PAGE_VARIABLES = ("PAGINATION_PAGE_SIZE", "PAGINATION_START_PAGE", "PAGINATION_START_ROW")
_DAYS_AGO = re.compile(r"DAYS_AGO_(\d{1,4})")
# Names of the newer documentation, and what stands for them.
_NEWER = {
    "START_TIME": "LAST_SYNC_TIME",
    "END_TIME": "CURRENT_TIME",
    "PAGE_NO": "PAGINATION_START_PAGE",
    "PAGE_SIZE": "PAGINATION_PAGE_SIZE",
    "lastSyncTime": "LAST_SYNC_TIME",
    "currentTime": "CURRENT_TIME",
}


def is_variable(name: str) -> bool:
    """Whether a name is one of the platform's variables; all others are fields of the row."""
    return name in WINDOW_VARIABLES or name in PAGE_VARIABLES or _DAYS_AGO.fullmatch(name) is not None


def variable_like(name: str) -> str:
    """Return the advice for a name that is no variable where only variables exist."""
    if name in _NEWER:
        return f"write {_NEWER[name]}"
    return near(name, (*WINDOW_VARIABLES, *PAGE_VARIABLES, "DAYS_AGO_1"))


@dataclass(frozen=True)
class Scope:
    """Everything that a value can be rendered from.

    Attributes:
        window: the run's window.
        page: number of the page, from 1.
        page_size: rows per page, if the strategy says.
        row: the source row; empty while the source itself is asked.
        loops: arrays that are being walked: dotted path → the current element.
        lookups: landed tables; None where none can be asked.
    """

    window: RunWindow
    page: int = 1
    page_size: int | None = None
    row: Mapping[str, Any] = field(default_factory=dict)
    loops: Mapping[str, Any] = field(default_factory=dict)
    lookups: Lookups | None = None

    @property
    def now(self) -> datetime:
        """The moment of the run, wall clock."""
        return to_wall(self.window.now)

    def within(self, array: str, element: Any) -> Scope:
        """Return the scope of one element of an array."""
        return replace(self, loops={**self.loops, array: element})

    def value(self, name: str) -> Any:
        """Return a variable's value (times in epoch seconds) or a field of the row; missing is None.

        Raises:
            DataError: a page variable where no page size is set.
        """
        if is_variable(name):
            return self._variable(name)
        for array in sorted(self.loops, key=len, reverse=True):
            if name == array:
                return self.loops[array]
            if name.startswith(f"{array}."):
                return value_at(self.loops[array], name[len(array) + 1 :])
        return value_at(self.row, name)

    def _variable(self, name: str) -> int:
        if name in PAGE_VARIABLES:
            if name == "PAGINATION_START_PAGE":
                return self.page
            if self.page_size is None:
                raise DataError(f"{name} is used, and no page size is set", hint="set pagination.pageSize")
            return self.page_size if name == "PAGINATION_PAGE_SIZE" else (self.page - 1) * self.page_size
        if name == "LAST_SYNC_TIME":
            return int(self.window.start.timestamp())
        if name == "CURRENT_TIME":
            return int(self.window.end.timestamp())
        days = int(name.rpartition("_")[2])
        return int((self.window.now - timedelta(days=days)).timestamp())


def value_at(value: Any, path: str) -> Any:
    """Return what a dotted path leads to; of a list the values of all its elements; missing is None.

    A key that itself holds dots (`FMaterialId.FNumber`) is found first.
    """
    if isinstance(value, Mapping):
        if path in value:
            return value[path]
        head, dot, rest = path.partition(".")
        while dot:
            if head in value:
                return value_at(value[head], rest)
            more, dot, rest = rest.partition(".")
            head = f"{head}.{more}"
        return None
    if isinstance(value, list):
        found = [value_at(one, path) for one in value]
        return [inner for one in found for inner in (one if isinstance(one, list) else [one])]
    return None
