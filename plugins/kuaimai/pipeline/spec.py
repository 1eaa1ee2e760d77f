"""A pipeline: which records to mirror, from where to where. Written as YAML, checked before anything runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from kuaimai.errors import ConfigError
from kuaimai.extract.windows import SCAN
from kuaimai.gateway import catalog
from kuaimai.pipeline import shape
from kuaimai.pipeline.cron import five_fields
from kuaimai.pipeline.outlets import AnyOutlet, Outlet, SqlOutlet, a_name, check_names
from kuaimai.pipeline.reading import Document, nearest, one_line, read_document, refusal, unknown_key
from kuaimai.transform.rules import Policy, Rules

# The dimension of a record's creation: the only one that says how late a record became visible.
CREATED = "created"
# The suffix of a Qeasy strategy in the folder of pipelines.
STRATEGY = ".json"
# DAGs that are no pipelines.
_OUR_DAGS = frozenset({"backfill", "reconcile", "replay", "session", "status"})

# The parameters that lead from page to page.
_PAGE = frozenset({"pageNo", "pageSize", "useHasNext", "useCursor", "cursor"})

_NAME = r"^[a-z][a-z0-9_]*$"
# A year in minutes: what waits longer never alerts.
_LATEST = 525_600

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _as_text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, date):  # a datetime, too, is one
        return str(value)
    try:
        return json.dumps(value)
    except TypeError:
        raise ValueError(f"{name}: nothing that can be sent as text; quote it") from None


class Source(_Strict):
    """Where records come from.

    Attributes:
        method: the method that returns every record; it alone decides what is complete.
        enrich: further methods with fuller records, asked only for the shops they serve.
        page_size: records per page; by default the most that the methods give.
        paging: what leads from page to page where a single second holds more than one: `pages` or `cursor`.
        params: business parameters that are sent with every request, e.g. `{status: FINISHED}`.
    """

    method: str
    enrich: tuple[str, ...] = ()
    page_size: int = Field(default=0, strict=True)
    paging: Literal["pages", "cursor"] = "pages"
    params: Mapping[str, str] = {}

    @field_validator("params", mode="before")
    @classmethod
    def _as_sent(cls, value: Any) -> Any:
        """The gateway takes text only; YAML reads `2`, `true` and `2026-01-01` as something else."""
        if not isinstance(value, dict):
            return value
        return {name: _as_text(name, one) for name, one in value.items()}

    @property
    def methods(self) -> tuple[str, ...]:
        """All methods; the position is the rank."""
        return (self.method, *self.enrich)


class Further(_Strict):
    """A further time by which the same records are asked for, in a DAG of its own.

    Attributes:
        dimension: the time; the DAG is `kuaimai_<pipeline>__<dimension>`. `scan` reads everything, whatever
            its time, and marks what is gone; it needs neither of the two ways back.
        schedule: cron, in Asia/Shanghai.
        look_back_hours: every scheduled run reads so many hours before its end again, and more where rows
            were seen to come later than that; or
        day_before: every scheduled run reads the day before its end, from midnight to midnight in GMT+8.
        slot_hours: length of one window; windows begin at full multiples of it since midnight.
        late_after_minutes: a run that has not sealed its time so long after its end alerts.
    """

    dimension: str
    schedule: str
    look_back_hours: int | None = Field(strict=True, default=None, ge=1, le=168)
    day_before: bool = False
    slot_hours: int = Field(default=6, strict=True)
    late_after_minutes: int = Field(strict=True, default=60, ge=1, le=_LATEST)

    @field_validator("schedule")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        return five_fields(value)

    @field_validator("slot_hours")
    @classmethod
    def _part_of_a_day(cls, value: int) -> int:
        if not 1 <= value <= 24 or 24 % value:  # noqa: PLR2004 - hours of a day
            raise ValueError("slots divide the day: 1, 2, 3, 4, 6, 8, 12 or 24 hours")
        return value

    @model_validator(mode="after")
    def _one_way_back(self) -> Further:
        if self.scans:
            if self.day_before or self.look_back_hours is not None:
                raise ValueError("a scan reads everything: leave out look_back_hours and day_before")
        elif self.day_before == (self.look_back_hours is not None):
            raise ValueError(f"{self.dimension} needs either look_back_hours or day_before: true")
        return self

    @property
    def slot(self) -> timedelta:
        """Length of one window."""
        return timedelta(hours=self.slot_hours)

    @property
    def scans(self) -> bool:
        """Whether everything is read, whatever its time."""
        return self.dimension == SCAN


class Time(_Strict):
    """How time is cut.

    Attributes:
        dimension: the time by which records are asked for; by default the first one that the method knows.
            `scan` where it knows none: every run reads everything and marks what is gone.
        overlap_minutes: how far a scheduled run reaches back before its interval, for late rows.
        heal_days: how far back a scheduled run looks for time that was left unsealed.
        further: other times, for records that the first one never shows or shows too late.
    """

    dimension: str = ""
    overlap_minutes: int = Field(strict=True, default=10, ge=0, le=1440)
    heal_days: int = Field(strict=True, default=7, ge=0, le=90)
    further: tuple[Further, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> Time:
        for name in self.dimensions:
            if self.dimensions.count(name) > 1:
                raise ValueError(f"dimension {name!r} is named twice")
        return self

    @property
    def dimensions(self) -> tuple[str, ...]:
        """All of them, the one of the pipeline's own DAG first."""
        return (self.dimension, *(one.dimension for one in self.further))

    @property
    def look_back_hours(self) -> int | None:
        """How far back rows are looked for by their creation; None where nothing looks for them."""
        return next((one.look_back_hours for one in self.further if one.dimension == CREATED), None)

    def further_by(self, dimension: str) -> Further | None:
        """Return the further time of that name; None for the pipeline's own, and for unknown ones."""
        return next((one for one in self.further if one.dimension == dimension), None)


class Pipeline(_Strict):
    """One mirror: `include/pipelines/<name>.yaml`.

    Attributes:
        name: lower-case words; the DAG is `kuaimai_<name>`.
        description: one line for the Airflow UI.
        source: where records come from.
        time: how time is cut.
        schedule: cron, in Asia/Shanghai.
        late_after_minutes: a run that has not sealed its interval so long after its end alerts.
        fields: API field, or `<list>.<field>` → what becomes of it.
        keep_personal: personal fields to keep as they are, by their API names.
        filters: records to pass over, or to set aside.
        step: kind of record ("" for the pipeline's own) → a function of the user's.
        schema_policy: written `schema`: what to do with fields that the catalogue does not know.
        targets: where the records go; each target is on its own.
        target: Airflow Connection of the database to write: short for one target of kind sql.
        batch_size: records per batch.
        fingerprint: of the file's content; stored with quarantined records.
        folder: where the file is.
    """

    name: str = Field(json_schema_extra={"pattern": _NAME})
    description: str = ""
    source: Source
    time: Time = Time()
    schedule: str = "*/5 * * * *"
    late_after_minutes: int = Field(strict=True, default=10, ge=1, le=_LATEST)
    fields: shape.Fields = Field(default_factory=dict)
    keep_personal: tuple[str, ...] = ()
    filters: tuple[shape.FilterRule, ...] = ()
    step: shape.Steps = Field(default_factory=dict)
    schema_policy: Policy = Field(default="freeze", alias="schema")
    targets: tuple[Outlet, ...] = ()
    target: str = Field(default="kuaimai_target", min_length=1)
    batch_size: int = Field(strict=True, default=1000, ge=1, le=100_000)
    fingerprint: str = Field(default="", exclude=True)
    folder: str = Field(default="", exclude=True)
    _document: Document | None = PrivateAttr(default=None)

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if not re.match(_NAME, value):
            raise ValueError(f"{value!r} is no name: a lower-case letter, then such letters, digits and _")
        if value in _OUR_DAGS:
            raise ValueError(
                f"the DAG kuaimai_{value} is there already, for something else; rename the pipeline"
            )
        return value

    @field_validator("schedule")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        return five_fields(value)

    @field_validator("target")
    @classmethod
    def _a_target(cls, value: str) -> str:
        return a_name(value)

    @model_validator(mode="before")
    @classmethod
    def _what_the_catalogue_says(cls, content: Any) -> Any:
        """Fill in what the file leaves to the catalogue: the time to read by, and the size of a page."""
        source = content.get("source") if isinstance(content, dict) else None
        if not isinstance(source, dict) or source.get("method") not in catalog.method_names():
            return content
        name = source["method"]
        further = source.get("enrich", ())
        methods = [name, *(further if isinstance(further, list | tuple) else ())]
        known = [catalog.method(one) for one in methods if one in catalog.method_names()]
        most = min((one.page.max for one in known if one.page), default=1)
        time = {} if content.get("time") is None else content["time"]
        if isinstance(time, dict):
            times = known[0].times
            content = {
                **content,
                "time": {"dimension": next(iter(times.dimensions)) if times else SCAN, **time},
            }
        return {**content, "source": {"page_size": most, **source}}

    @model_validator(mode="after")
    def _fits_the_catalogue(self) -> Pipeline:
        methods = self._known_methods()
        for name, method in methods.items():
            self._check_dimensions(method)
            if method.page and not method.page.min <= self.source.page_size <= method.page.max:
                raise ValueError(
                    f"source.page_size: {name} gives {method.page.min} to {method.page.max} records a page"
                )
            _told_at("source.params", method.check_names, self.source.params)
            for param in self.source.params:
                if param in _set_by_us(method):
                    raise ValueError(f"source.params: {param} of {name} is set by the pipeline itself")
            self._check_needs(method)
        if "targets" in self.model_fields_set and not self.targets:
            raise ValueError("targets: it must not be empty; `- {kind: noop}` writes nothing")
        if self.targets and "target" in self.model_fields_set:
            raise ValueError("targets: `target` is short for a single one; give only one of the two keys")
        check_names(self.targets)
        self._check_rhythms()
        self.rules  # noqa: B018 - checks fields, filters and steps
        return self

    def _check_rhythms(self) -> None:
        """A target with a schedule of its own has a DAG, beside those of the pipeline."""
        apart = [outlet.name for outlet in self.targets if outlet.schedule]
        if apart and len(apart) == len(self.targets):
            raise ValueError(
                "targets: every one has a schedule of its own, so the pipeline's would write nothing; "
                "leave it out of the first, and give the pipeline that `schedule`"
            )
        for at, outlet in enumerate(self.targets):
            if outlet.schedule == self.schedule:
                # Both would read the same windows in runs of one name, each over the other's pages.
                raise ValueError(
                    f"targets.{at}.schedule: it is the pipeline's own; leave it out to write at once"
                )
        for name in apart:
            if name in self.time.dimensions:
                raise ValueError(
                    f"targets: {name!r} is also a time, whose DAG has that name; rename the target"
                )

    def _known_methods(self) -> dict[str, catalog.Method]:
        """Return the methods by name; all return the same kind of record."""
        found: dict[str, catalog.Method] = {}
        for name in self.source.methods:
            key = "source.enrich" if found else "source.method"
            found[name] = method = _told_at(key, catalog.method, name)
            if method.record is None:
                raise ValueError(f"{key}: {name} returns no records")
        kinds = sorted({method.record for method in found.values() if method.record})
        if len(kinds) > 1:
            raise ValueError(f"source.enrich: the methods return different records: {', '.join(kinds)}")
        return found

    def _check_dimensions(self, method: catalog.Method) -> None:
        times = dict(method.times.dimensions) if method.times else {}
        known = [*times, *([SCAN] if method.times is None or method.times.optional else [])]
        for number, dimension in enumerate(self.time.dimensions):
            if dimension not in known:
                key = f"time.further.{number - 1}.dimension" if number else "time.dimension"
                raise ValueError(
                    f"{key}: {method.name} knows {', '.join(known)}, not {dimension!r}"
                    + nearest(dimension, known)
                )

    def _check_needs(self, method: catalog.Method) -> None:
        """Refuse a method that needs more than a page, a time, a shop or a warehouse, and is not given it."""
        for dimension in self.time.dimensions:
            time = method.times.dimensions.get(dimension) if method.times else None
            sent = {*self.source.params, *method.send, *_PAGE}
            if method.scope:
                sent.add(method.scope.param)
            if time:
                sent |= {time.start, time.end, *time.send}
            for group in method.needs:
                if not sent & set(group):
                    raise ValueError(
                        f"source.params: {method.name} needs {' or '.join(group)}; {_instead(method, group)}"
                    )

    def dag_id(self, further: Further | None = None, outlet: AnyOutlet | None = None) -> str:
        """Return the id of its own DAG, or of that of a further time dimension or of a target."""
        apart = further.dimension if further else outlet.name if outlet else ""
        return f"kuaimai_{self.name}" + (f"__{apart}" if apart else "")

    def dags(self, path: Path) -> dict[str, str]:
        """Return the ids of all its DAGs, and where each is written, for messages.

        Args:
            path: the pipeline's file.
        """
        found = {self.dag_id(): self.place("name")}
        found |= {
            self.dag_id(one): self.place(f"time.further.{at}") for at, one in enumerate(self.time.further)
        }
        found |= {
            self.dag_id(outlet=one): self.place(f"targets.{at}.schedule")
            for at, one in enumerate(self.targets)
            if one.schedule
        }
        return {dag: where or f"strategy {path}" for dag, where in found.items()}

    @property
    def scope(self) -> Literal["shop", "warehouse"] | None:
        """Whose records the method is asked for, one after the other; None where one question is enough."""
        scope = catalog.method(self.source.method).scope
        return scope.of if scope else None

    @property
    def has_times(self) -> bool:
        """Whether the method can be asked for a stretch of time, and so for the past."""
        return catalog.method(self.source.method).times is not None

    @property
    def outlets(self) -> tuple[AnyOutlet, ...]:
        """The targets, by whichever key they are given; a strategy is found from the pipeline's folder."""
        return tuple(map(self._placed, self.targets)) or (SqlOutlet(conn_id=self.target, name=self.target),)

    @property
    def apart(self) -> tuple[AnyOutlet, ...]:
        """The targets with a schedule, and so a DAG, of their own."""
        return tuple(outlet for outlet in self.outlets if outlet.schedule)

    def _placed(self, outlet: AnyOutlet) -> AnyOutlet:
        if outlet.kind not in ("http", "statement") or not outlet.strategy:
            return outlet
        return outlet.model_copy(update={"strategy": str(Path(self.folder, outlet.strategy))})

    @property
    def databases(self) -> tuple[str, ...]:
        """Connections of the targets that are databases: what can be asked, and compared with the gateway."""
        return tuple(outlet.conn_id for outlet in self.outlets if outlet.kind == "sql")

    @property
    def record(self) -> catalog.Record:
        """The kind of record this pipeline mirrors."""
        return catalog.record(catalog.method(self.source.method).record or "")

    @property
    def records(self) -> tuple[catalog.Record, ...]:
        """The record and its children."""
        return (self.record, *(catalog.record(name) for name in self.record.children.values()))

    @property
    def kept_personal(self) -> tuple[str, ...]:
        """The personal fields that are kept, in whatever form, by their API names."""
        rules = self.rules
        return tuple(
            one.name
            for kind in self.records
            for one in kind.fields.values()
            if one.personal and rules.of(kind.name, one.name).keep
        )

    @property
    def rules(self) -> Rules:
        """What becomes of the records on their way.

        Raises:
            ValueError: fields, filters or steps do not fit the catalogue.
        """
        times = catalog.method(self.source.method).times
        known: Mapping[str, catalog.Dimension] = times.dimensions if times else {}
        stamps = [known[one].stamp for one in self.time.dimensions if one in known]
        return shape.rules(
            self.record,
            fields=self.fields,
            keep_personal=self.keep_personal,
            filters=self.filters,
            steps=self.step,
            policy=self.schema_policy,
            stamps=[stamp for stamp in stamps if stamp],
            folder=self.folder,
            place=self.place,
        )

    @classmethod
    def read(cls, document: Document, **more: str) -> Pipeline:
        """Check what a document says, and remember where it says so.

        Args:
            document: a YAML file.
            more: keys that are not written in it.

        Raises:
            ValidationError: something is wrong.
        """
        made = cls.model_validate({**document.content, **more})
        made._document = document  # noqa: SLF001 - its own
        return made

    def place(self, key: str) -> str:
        """Return where a key is written, for messages; empty where the pipeline is from no YAML file."""
        return f"{self._document}, line {self._document.line(key)}" if self._document else ""


def _told_at(key: str, ask: Callable[[_Asked], _Answer], about: _Asked) -> _Answer:
    """Ask the catalogue; its refusal is told at the key."""
    try:
        return ask(about)
    except ConfigError as err:
        raise ValueError(f"{key}: {err.message}" + (f"; {err.hint}" if err.hint else "")) from None


def _instead(method: catalog.Method, needed: Iterable[str]) -> str:
    """Return what to do about a method that needs what no pipeline can know by itself."""
    for name in catalog.method_names():
        detail = catalog.method(name).detail
        if detail and detail.method == method.name:
            return f"it is asked by itself for each record of {name}, so take that as source.method"
    free = next(one for one in needed if one not in _set_by_us(method))
    return f"give it a value, as params: {{{free}: …}}"


def _set_by_us(method: catalog.Method) -> set[str]:
    """Return the parameters that say which page, which time and whose records."""
    ours = {*_PAGE, *method.send}
    if method.scope:
        ours.add(method.scope.param)
    if method.ids:
        ours.add(method.ids.param)
    if method.times:
        for one in method.times.dimensions.values():
            ours |= {one.start, one.end, *one.send}
    return ours


def load_pipeline(path: Path) -> Pipeline:
    """Read and check one pipeline file: YAML, or a Qeasy strategy (JSON).

    Raises:
        ConfigError: names the file, and of every mistake the line, the key and the nearest right word.
            Nothing else is raised: who reads a folder goes on with the other files.
    """
    try:
        return _read_pipeline(path)
    except ConfigError:
        raise
    except Exception as err:  # whatever it is, it is one file's
        raise ConfigError(
            f"pipeline {path} cannot be read: {type(err).__name__}: {one_line(str(err))}"
        ) from err


def _read_pipeline(path: Path) -> Pipeline:
    if path.suffix == STRATEGY:
        # Only where there is a strategy: its parser of expressions is not small.
        from kuaimai.pipeline.qeasy.mirror import load_mirror  # noqa: PLC0415

        return load_mirror(path)
    document = read_document(path)
    for key in ("fingerprint", "folder"):
        if key in document.content:
            known = [one.alias or name for name, one in Pipeline.model_fields.items() if not one.exclude]
            line = document.line(key)
            raise ConfigError(f"{document}, line {line}: {unknown_key(key, known)}")
    fingerprint = hashlib.sha256(document.text.encode()).hexdigest()[:12]
    try:
        return Pipeline.read(document, fingerprint=fingerprint, folder=str(path.parent))
    except pydantic.ValidationError as err:
        raise refusal(document, Pipeline, err) from err


def load_pipelines(folder: Path) -> list[Pipeline]:
    """Read every pipeline of a folder, sorted by the files' names.

    Raises:
        ConfigError: the folder is not there, a file is wrong, or two files share a name.
    """
    known, refused = readable_pipelines(folder)
    if refused:
        raise refused[0]
    return [*known.values()]


def readable_pipelines(folder: Path) -> tuple[dict[str, Pipeline], list[ConfigError]]:
    """Return what can be read of a folder's pipelines, by name, and what is wrong with the others.

    Raises:
        ConfigError: the folder is not there.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"there is no pipelines folder {folder}",
            hint="copy include/ beside dags/, or set KUAIMAI_PIPELINES to the folder with the YAML files",
        )
    known: dict[str, Pipeline] = {}
    taken: dict[str, Path] = {}
    refused = []
    for path in pipeline_files(folder):
        try:
            pipeline = load_pipeline(path)
            check_dags(pipeline.dags(path), taken, path)
        except ConfigError as err:
            refused.append(err)
        else:
            known[pipeline.name] = pipeline
    return known, refused


def check_dags(dags: Mapping[str, str], taken: dict[str, Path], path: Path) -> None:
    """Note the DAGs of a file.

    Args:
        dags: id → where it is written.
        taken: id → the file that makes it; is given those of this file.
        path: the file.

    Raises:
        ConfigError: another file makes a DAG of that id.
    """
    for dag, where in dags.items():
        if dag in taken:
            raise ConfigError(
                f"{where}: {taken[dag].name} makes the DAG {dag} already", hint="rename the pipeline"
            )
    taken.update(dict.fromkeys(dags, path))


def pipeline_files(folder: Path) -> list[Path]:
    """Return the files of a folder's pipelines, sorted: YAML, and the strategies that mirror records."""
    strategies = strategy_files(folder)
    if strategies:
        from kuaimai.pipeline.qeasy.mirror import mirrors  # noqa: PLC0415 - as above

        strategies = [path for path in strategies if mirrors(path)]
    return sorted([*folder.glob("*.yaml"), *strategies])


def strategy_files(folder: Path) -> list[Path]:
    """Return the Qeasy strategies of a folder, sorted; a JSON Schema beside them is none."""
    return sorted(path for path in folder.glob(f"*{STRATEGY}") if not path.stem.endswith(".schema"))
