"""What is to be said about a strategy: where, what, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from kuaimai.errors import ConfigError

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
    """

    level: Level
    path: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        """Return it as one line."""
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.message}" + (f" → {self.fix}" if self.fix else "")


@dataclass
class Findings:
    """Collects remarks while a strategy is read and compiled; all of them are told at once."""

    found: list[Finding] = field(default_factory=list)

    def refuse(self, path: str, message: str, fix: str = "") -> None:
        """Note why the strategy cannot be compiled."""
        self.found.append(Finding("refused", path, message, fix))

    def cannot_run(self, path: str, message: str, fix: str = "") -> None:
        """Note why the strategy cannot be run here, though it can be compiled."""
        self.found.append(Finding("not_run", path, message, fix))

    def warn(self, path: str, message: str, fix: str = "") -> None:
        """Note a dangerous setting."""
        self.found.append(Finding("danger", path, message, fix))

    def note(self, path: str, message: str, fix: str = "") -> None:
        """Note a setting that means something else here, or nothing."""
        self.found.append(Finding("note", path, message, fix))

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
            raise ConfigError(f"strategy {file}: {told}" + (f"; and {more} more" if more > 0 else ""))


def near(word: str, known: Iterable[str]) -> str:
    """Return the advice for a word that is not known: the nearest one, or all if they are few."""
    words = list(known)
    lower = {one.lower(): one for one in reversed(words)}
    close = get_close_matches(word.lower(), lower, n=1)
    if close:
        return f"did you mean {lower[close[0]]!r}?"
    listed = ", ".join(words)
    return f"known are {listed}" if len(listed) < _LONG_LIST else "see docs/qeasy.md for those that are"
