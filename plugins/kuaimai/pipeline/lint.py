"""`kuaimai lint`: every pipeline and strategy of a folder, checked before anyone runs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from kuaimai.errors import ConfigError
from kuaimai.pipeline.spec import STRATEGY, Pipeline, load_pipeline, strategy_files


class Linted(NamedTuple):
    """What there is to say about one file, and whether it runs."""

    path: Path
    runs: bool
    told: str
    name: str = ""


def lint(places: Iterable[Path]) -> list[Linted]:
    """Check files, and all pipelines and strategies of folders.

    Raises:
        ConfigError: a place is not there, or a folder holds nothing to check.
    """
    seen: dict[tuple[Path, str], Path] = {}
    return [_once(_linted(path), seen) for place in places for path in _files(place)]


def _once(found: Linted, seen: dict[tuple[Path, str], Path]) -> Linted:
    """Refuse a name that another file of the folder has: both would be one DAG."""
    first = seen.setdefault((found.path.parent, found.name), found.path) if found.name else found.path
    if first == found.path:
        return found
    told = (
        f"{found.path}: refused\n  the pipeline {found.name!r} is defined in {first.name} already; rename one"
    )
    return Linted(found.path, runs=False, told=told)


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
        _look_at_what_it_names(pipeline)
    except ConfigError as err:
        return Linted(path, runs=False, told=f"{path}: refused\n  {err}")
    return Linted(path, runs=True, told=f"{path}: runs, as kuaimai_{pipeline.name}", name=pipeline.name)


def _look_at_what_it_names(pipeline: Pipeline) -> None:
    """Look at what a run would need first in its last steps: functions, strategies, columns of targets.

    Raises:
        ConfigError: something is not there.
    """
    from kuaimai.transform import steps  # noqa: PLC0415 - pandas is not small
    from kuaimai.transform.mapping import Mapper  # noqa: PLC0415 - as above

    for step in pipeline.rules.steps.values():
        steps.find(step)
    times = [
        column.name
        for column in Mapper(pipeline.record.name, pipeline.rules).tables[0].columns
        if column.type == "time"
    ]
    for at, outlet in enumerate(pipeline.outlets):
        if outlet.kind == "files" and outlet.partition_by and outlet.partition_by not in times:
            raise ConfigError(
                f"targets.{at}.partition_by: {outlet.partition_by!r} is no time of {pipeline.record.name}",
                hint=f"give one of {', '.join(times)}" if times else "leave it out",
            )
        if outlet.kind in ("http", "statement") and outlet.strategy:
            from kuaimai.pipeline.qeasy.compiling import load_strategy  # noqa: PLC0415 - as above

            load_strategy(Path(outlet.strategy))
