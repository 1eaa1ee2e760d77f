"""Tables for a terminal, where a Chinese character is two columns wide."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], *, indent: str = "") -> list[str]:
    """Return rows as lines whose columns stand below one another."""
    widths = [max(width(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return [
        (
            indent
            + "  ".join(cell + " " * (wide - width(cell)) for cell, wide in zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def shortened(text: str, most: int) -> str:
    """Return a text in one line of at most `most` columns, with `…` where something was left out."""
    line = " ".join(text.split())
    if width(line) <= most:
        return line
    kept, used = "", 0
    for char in line:
        used += width(char)
        if used > most - 1:
            break
        kept += char
    return f"{kept}…"
