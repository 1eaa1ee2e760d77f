"""`kuaimai lint`: every pipeline and strategy of a folder, checked before anyone runs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from kuaimai.errors import ConfigError
from kuaimai.pipeline.spec import STRATEGY, load_pipeline, strategy_files


class Linted(NamedTuple):
    """What there is to say about one file, and whether it runs."""

    path: Path
    runs: bool
    told: str


def lint(places: Iterable[Path]) -> list[Linted]:
    """Check files, and all pipelines and strategies of folders.

    Raises:
        ConfigError: a place is not there, or a folder holds nothing to check.
    """
    return [_linted(path) for place in places for path in _files(place)]


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
        return
    if not place.is_dir():
        raise ConfigError(f"there is no file or folder {place}")
    found = [*sorted(place.glob("*.yaml")), *strategy_files(place)]
    if not found:
        raise ConfigError(f"there is no pipeline in {place}", hint="pipelines are *.yaml, strategies *.json")
    yield from found


def _linted(path: Path) -> Linted:
    if path.suffix == STRATEGY:
        from kuaimai.pipeline.qeasy.lint import lint_strategy  # noqa: PLC0415 - its parser is not small

        report = lint_strategy(path)
        return Linted(path, report.runs, report.pretty())
    try:
        pipeline = load_pipeline(path)
    except ConfigError as err:
        return Linted(path, runs=False, told=f"{path}: refused\n  {err}")
    return Linted(path, runs=True, told=f"{path}: runs, as kuaimai_{pipeline.name}")
