"""What is to be said about a strategy: where, what, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from kuaimai.errors import ConfigError
from kuaimai.pipeline.qeasy.places import Places

# refused   it is not compiled: a key is unknown, a value cannot mean anything, or a feature is missing
# not_run   it compiles and its requests can be rendered, but nothing here can send them
# danger    on the platform this loses, doubles or falsifies data, or it will surprise here
# note      a setting without effect here, or with another one
Level = Literal["refused", "not_run", "danger", "note"]
LEVELS: tuple[Level, ...] = ("refused", "not_run", "danger", "note")

# More would bury the first, which is the one to mend.
_MOST_TOLD = 12
_LONG_LIST = 160


@dataclass(frozen=True)
class Finding:
    """One remark.

    Attributes:
        level: how bad it is, see `LEVELS`.
        path: the strategy's own field path, e.g. `request[2].value`; empty for the whole file.
        message: what is so.
        fix: what to do about it.
        line: where that is in the file, from 1; 0 for the whole file.
    """

    level: Level
    path: str
    message: str
    fix: str = ""
    line: int = 0

    def __str__(self) -> str:
        """Return it as one line."""
        at = f"line {self.line}: " if self.line else ""
        where = f"{self.path}: " if self.path else ""
        return f"{at}{where}{self.message}" + (f" → {self.fix}" if self.fix else "")


@dataclass
class Findings:
    """Collects remarks while a strategy is read and compiled; all of them are told at once.

    Attributes:
        places: where things stand in the file.
        found: the remarks, in the order they were found.
    """

    places: Places = field(default_factory=Places)
    found: list[Finding] = field(default_factory=list)

    def refuse(self, path: str, message: str, fix: str = "") -> None:
        """Note why the strategy cannot be compiled."""
        self._add("refused", path, message, fix)

    def cannot_run(self, path: str, message: str, fix: str = "") -> None:
        """Note why the strategy cannot be run here, though it can be compiled."""
        self._add("not_run", path, message, fix)

    def warn(self, path: str, message: str, fix: str = "") -> None:
        """Note a dangerous setting."""
        self._add("danger", path, message, fix)

    def note(self, path: str, message: str, fix: str = "") -> None:
        """Note a setting that means something else here, or nothing."""
        self._add("note", path, message, fix)

    def _add(self, level: Level, path: str, message: str, fix: str) -> None:
        self.found.append(Finding(level, path, message, fix, self.places.line(path) if path else 0))

    def placed(self, *paths: str) -> str:
        """Return the one of some paths that is written in the file; the first where none is."""
        return next((one for one in paths if one in self.places.lines), paths[0])

    def of(self, *levels: Level) -> list[Finding]:
        """Return the remarks of some levels, in the order they were found."""
        return [one for one in self.found if one.level in levels]

    def check(self, file: str, *levels: Level) -> None:
        """Let the strategy pass, or tell everything that speaks against it.

        Raises:
            ConfigError: there are remarks of these levels.
        """
        against = self.of(*levels)
        if against:
            more = len(against) - _MOST_TOLD
            told = "; ".join(str(one) for one in against[:_MOST_TOLD])
            joint = ", " if against[0].line else ": "
            raise ConfigError(f"strategy {file}{joint}{told}" + (f"; and {more} more" if more > 0 else ""))


def near(word: str, known: Iterable[str]) -> str:
    """Return the advice for a word that is not known: the nearest one, or all if they are few."""
    words = list(known)
    lower = {one.lower(): one for one in reversed(words)}
    close = get_close_matches(word.lower(), lower, n=1)
    if close:
        return f"did you mean {lower[close[0]]!r}?"
    listed = ", ".join(words)
    return f"known are {listed}" if len(listed) < _LONG_LIST else "see docs/qeasy.md for those that are"
