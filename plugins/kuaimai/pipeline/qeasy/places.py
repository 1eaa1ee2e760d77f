"""Where things stand in a JSON text: the line of each, by the path that remarks name it by."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_LAST = re.compile(r"(?:^|\.)[^.\[\]]*$|\[\d+\]$")


@dataclass(frozen=True)
class Places:
    """The lines of a text.

    Attributes:
        lines: path, e.g. `[0].request[2].value` → line, from 1; the whole text is at "".
        twice: paths of keys that stand twice in one object.
    """

    lines: Mapping[str, int] = field(default_factory=dict)
    twice: tuple[str, ...] = ()

    def line(self, path: str) -> int:
        """Return the line of a path, or of what is around it where it is not written; 0 if nothing is."""
        while path and path not in self.lines:
            path = _LAST.sub("", path)
        return self.lines.get(path, 0)


@dataclass
class _Open:
    """An object or a list that has not ended yet; a list has no names."""

    path: str
    names: set[str] | None
    count: int = 0
    key: str | None = None

    @property
    def here(self) -> str:
        """The path of the value that comes next."""
        if self.names is None:
            return f"{self.path}[{self.count}]"
        return f"{self.path}.{self.key}" if self.path else str(self.key)


def places_in(text: str) -> Places:
    """Return where everything stands in a text that is known to be JSON."""
    lines: dict[str, int] = {}
    twice: list[str] = []
    around: list[_Open] = []
    line, read = 1, 0
    for found in _TOKEN.finditer(text):
        sign = found[0]
        line += text.count("\n", read, found.start())
        read = found.start()
        inner = around[-1] if around else None
        if inner is not None and sign in "}],:":
            if sign == ",":
                inner.count, inner.key = inner.count + 1, None
            elif sign != ":":
                around.pop()
            continue
        if inner is not None and inner.names is not None and inner.key is None:
            inner.key = str(json.loads(sign))
            if inner.key in inner.names:
                twice.append(inner.here)
            inner.names.add(inner.key)
            lines.setdefault(inner.here, line)
            continue
        here = inner.here if inner is not None else ""
        lines.setdefault(here, line)
        if sign in "{[":
            around.append(_Open(here, set() if sign == "{" else None))
    return Places(lines, tuple(twice))
