"""Rows that a setting of a strategy cannot take: told with the setting's place, so that it can be mended."""

from __future__ import annotations

from dataclasses import dataclass, field

from kuaimai.errors import DataError
from kuaimai.pipeline.qeasy.places import Places


class Misfit(DataError):
    """A row that a setting cannot take; the message begins with the setting's path.

    Attributes:
        path: that path alone, e.g. `[1].request[2]`.
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True)
class Origin:
    """Where a strategy is written.

    Attributes:
        file: its name; empty for a text that is in no file.
        places: the lines of its settings.
    """

    file: str = ""
    places: Places = field(default_factory=Places)

    def tell(self, path: str, reason: str) -> str:
        """Return a reason against a row, with the file and the line of the setting that it is about."""
        line = self.places.line(path) if path else 0
        place = ", ".join(one for one in (self.file, f"line {line}" if line else "") if one)
        return f"{place}: {reason}" if place else reason
