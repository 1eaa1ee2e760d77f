"""`kuaimai lint`: every pipeline and strategy of a folder, checked before anyone runs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from kuaimai.errors import ConfigError
from kuaimai.extract.windows import SCAN
from kuaimai.gateway import catalog
from kuaimai.pipeline.outlets import HttpOutlet, StatementOutlet
from kuaimai.pipeline.spec import STRATEGY, Pipeline, check_dags, load_pipeline, strategy_files


class Linted(NamedTuple):
    """What there is to say about one file.

    Attributes:
        path: the file.
        runs: whether it would run.
        told: what there is to say.
        dags: DAG that is made of it → file and line that name it.
    """

    path: Path
    runs: bool
    told: str
    dags: Mapping[str, str] = {}


def lint(places: Iterable[Path]) -> list[Linted]:
    """Check files, and all pipelines and strategies of folders.

    Raises:
        ConfigError: a place is not there, or a folder holds nothing to check.
    """
    taken: dict[Path, dict[str, Path]] = {}
    paths = {path.resolve(): path for place in places for path in _files(place)}
    return [_alone(_linted(path), taken.setdefault(whole.parent, {})) for whole, path in paths.items()]


def _alone(found: Linted, taken: dict[str, Path]) -> Linted:
    """Refuse a file whose DAGs have an id that another file of the folder has taken."""
    try:
        check_dags(found.dags, taken, found.path)
    except ConfigError as err:
        return Linted(found.path, runs=False, told=f"{found.path}: refused\n  {err}")
    return found


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
        from kuaimai.pipeline.qeasy.mirror import mirrors, pipeline_name  # noqa: PLC0415 - as above

        report = lint_strategy(path)
        made: Mapping[str, str] = {}
        if report.runs and mirrors(path):
            made = load_pipeline(path).dags(path)
        elif report.runs:
            made = {f"kuaimai_{pipeline_name(path)}": f"strategy {path}"}
        return Linted(path, report.runs, report.pretty(), made)
    try:
        pipeline = load_pipeline(path)
        _look_at_what_it_names(pipeline)
    except ConfigError as err:
        return Linted(path, runs=False, told=f"{path}: refused\n  {err}")
    dags = pipeline.dags(path)
    told = [
        f"{path}: runs, as {', '.join(dags)}",
        *_of_the_past(pipeline),
        *_unmarked(pipeline),
        *_idle(pipeline),
    ]
    told += _in_strategies(pipeline)
    return Linted(path, runs=True, told="\n  ".join(told), dags=dags)


def _of_the_past(pipeline: Pipeline) -> Iterator[str]:
    """Tell of a method that holds only what is beyond another one's reach: scheduled runs find nothing."""
    named = pipeline.source.method
    newer = next((one for one in catalog.method_names() if catalog.method(one).history == named), None)
    if newer:
        yield (
            f"source.method: {named} holds only what is older than {newer} reaches: scheduled runs find "
            f"nothing. Read {newer}, whose backfills ask for both"
        )


def _unmarked(pipeline: Pipeline) -> Iterator[str]:
    """Tell of targets in which nothing will say that a record is gone."""
    if SCAN in pipeline.time.dimensions:
        for at, outlet in enumerate(pipeline.outlets):
            if outlet.kind not in ("sql", "noop"):
                yield f"targets.{at} ({outlet.name}): what a scan finds gone is marked in databases only"


def _idle(pipeline: Pipeline) -> Iterator[str]:
    """Tell of keys that have no effect."""
    if pipeline.time.dimension == SCAN and "overlap_minutes" in pipeline.time.model_fields_set:
        yield "time.overlap_minutes: it has no effect: a scan reads everything, whatever its time"
    if catalog.method(pipeline.source.method).page is None and pipeline.source.page_size != 1:
        yield f"source.page_size: it has no effect: {pipeline.source.method} gives everything at once"


def _in_strategies(pipeline: Pipeline) -> Iterator[str]:
    """Tell of what is dangerous in strategies that targets name."""
    rules = pipeline.rules

    def drops(kind: str, field: str) -> bool:
        return rules.of(kind, field).drop

    for at, outlet in enumerate(pipeline.outlets):
        if outlet.kind in ("http", "statement") and outlet.strategy:
            from kuaimai.pipeline.qeasy.lint import dangers  # noqa: PLC0415 - its parser is not small

            for one in dangers(Path(outlet.strategy), pipeline.record.name, drops):
                yield f"targets.{at}.strategy: {outlet.strategy}: danger: {one}"


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
            key = f"targets.{at}.partition_by"
            raise ConfigError(
                f"{pipeline.place(key)}: {key}: {outlet.partition_by!r} is no time of {pipeline.record.name}",
                hint=f"give one of {', '.join(times)}" if times else "leave it out",
            )
        if outlet.kind in ("http", "statement") and outlet.strategy:
            _look_at_strategy(pipeline, f"targets.{at}.strategy", outlet)


def _look_at_strategy(pipeline: Pipeline, key: str, outlet: HttpOutlet | StatementOutlet) -> None:
    from kuaimai.pipeline.qeasy.compiling import load_strategy  # noqa: PLC0415 - as above
    from kuaimai.pipeline.qeasy.documents import check_usable  # noqa: PLC0415 - as above

    path = Path(outlet.strategy)
    try:
        compiled = load_strategy(path)
        check_usable(compiled, pipeline.record.name, pipeline.kept_personal, str(path))
    except ConfigError as err:
        raise ConfigError(f"{pipeline.place(key)}: {key}: {err.message}", hint=err.hint) from err
    executes = compiled.target is not None and compiled.target.statement is not None
    if executes is not (outlet.kind == "statement"):
        told, kind = ("is a statement", "statement") if executes else ("has no statement to execute", "http")
        raise ConfigError(
            f"{pipeline.place(key)}: {key}: {outlet.strategy} {told}", hint=f"write kind: {kind}"
        )
