"""From a strategy to a pipeline: what it reads of Kuaimai is mirrored, proven by count, like any pipeline.

The platform's store of a strategy becomes the tables of its records. The window, the overlap, the page size
and the fixed parameters are the strategy's own; paging, slicing, healing and the count are ours.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pydantic

from kuaimai.errors import ConfigError, DataError
from kuaimai.extract.windows import SCAN
from kuaimai.gateway import catalog
from kuaimai.gateway.clock import GATEWAY_ZONE
from kuaimai.pipeline.cron import intervals, runs_a_day
from kuaimai.pipeline.qeasy.compiled import Compiled, Source
from kuaimai.pipeline.qeasy.compiling import PAGE_FIELDS, SIZE_FIELDS, load_strategy
from kuaimai.pipeline.qeasy.documents import outlet_of, personal_fields
from kuaimai.pipeline.qeasy.fields import Compiled as CompiledField
from kuaimai.pipeline.qeasy.findings import Findings
from kuaimai.pipeline.qeasy.moments import RunWindow, read_time, to_wall
from kuaimai.pipeline.qeasy.rendering import Request, remedy_request, source_request
from kuaimai.pipeline.qeasy.templates import Literal
from kuaimai.pipeline.spec import CREATED, Pipeline

REFRESH = "open.token.refresh"
DEFAULT_SCHEDULE = "*/5 * * * *"
# Any day will do to see what a strategy asks for, and by how much its own window reaches further.
_MIDNIGHT = datetime(2026, 1, 2, tzinfo=GATEWAY_ZONE)
_START = _MIDNIGHT + timedelta(hours=3)
_PROBE = RunWindow(_START, _START + timedelta(minutes=5), _START + timedelta(minutes=5))
_DAY = timedelta(days=1)
_NEXT_DAY = RunWindow(_PROBE.start + _DAY, _PROBE.end + _DAY, _PROBE.now + _DAY)
_MOST_OVERLAP = timedelta(days=1)
_MOST_LOOK_BACK = 168
_SEALS = "seals take its place: a window is read again until the gateway's count is there"
_PAGING = frozenset({*PAGE_FIELDS, *SIZE_FIELDS, "usehasnext", "usecursor", "cursor"})


def keeps_session(compiled: Compiled) -> bool:
    """Whether the strategy refreshes the session, which has one owner here: the Connection's keeper."""
    return compiled.source is not None and compiled.source.api == REFRESH


def reads_records(compiled: Compiled) -> bool:
    """Whether the strategy's source returns records that can be mirrored."""
    source = compiled.source
    return source is not None and source.kind == "kuaimai" and catalog.method(source.api).record is not None


def reads_nothing(compiled: Compiled) -> bool:
    """Whether no request is ever made: there is no source, or it is 查询空操作."""
    return compiled.source is None or compiled.source.kind == "none"


def mirrors(path: Path) -> bool:
    """Whether a strategy file is a pipeline; one with a mistake is taken for one, so that it is told."""
    try:
        return reads_records(load_strategy(path))
    except Exception:  # noqa: BLE001 - whatever it is: reading it as a pipeline tells it with the file's name
        return True


def load_mirror(path: Path) -> Pipeline:
    """Read a strategy file as a pipeline.

    Raises:
        ConfigError: it is refused, cannot be run here, or reads no records; every reason with its field path.
    """
    return to_pipeline(load_strategy(path), path)


def to_pipeline(compiled: Compiled, path: Path) -> Pipeline:
    """Return the pipeline that a compiled strategy is.

    Args:
        compiled: the strategy.
        path: its file; names the pipeline.

    Raises:
        ConfigError: as for `load_mirror`.
    """
    compiled.findings.check(str(path), "not_run")
    content = pipeline_content(compiled, path)
    compiled.findings.check(str(path), "not_run")
    try:
        return Pipeline.model_validate(content)
    except pydantic.ValidationError as err:
        told = "; ".join(str(one["msg"]).removeprefix("Value error, ") for one in err.errors())
        raise ConfigError(f"strategy {path}: {told}") from err


def pipeline_content(compiled: Compiled, path: Path) -> dict[str, Any]:
    """Return what a YAML file of the same pipeline would say; what speaks against it goes to the findings.

    Raises:
        ConfigError: the strategy reads no records, or its file's name is none for a DAG.
    """
    source, findings = compiled.source, compiled.findings
    if source is None or not reads_records(compiled):
        what = source.api if source is not None else "a target alone"
        raise ConfigError(f"strategy {path}: {what} returns no records to mirror")
    content: dict[str, Any] = {
        "name": pipeline_name(path),
        "description": f"轻易云 {compiled.name}",
        "source": {"method": source.api},
        "schedule": compiled.crontab or DEFAULT_SCHEDULE,
        "fingerprint": hashlib.sha256(path.read_bytes()).hexdigest()[:12],
    }
    method = catalog.method(source.api)
    try:
        source_request(source, _PROBE)
    except DataError as err:
        where = str(getattr(err, "path", "")) or f"{source.path}request"
        findings.cannot_run(where, str(err).removeprefix(f"{where}: "), "look at its value")
        return content
    if method.page:
        # More than the gateway gives would be cut silently; less than it allows, it refuses.
        wanted = source.page_size or method.page.max
        content["source"]["page_size"] = min(max(wanted, method.page.min), method.page.max)
    if method.times is not None:
        content["time"] = _time(compiled, source, method)
        if source.remedy_crontab and content["time"]:
            further = _remedied(source, method, content["time"]["dimension"], path, findings)
            content["time"] |= {"further": further} if further else {}
    params = _fixed(source, method, findings)
    if params:
        content["source"]["params"] = params
    if source.detail is not None and (method.detail is None or method.detail.method != source.detail.method):
        findings.cannot_run(
            f"{source.path}otherRequest",
            f"{source.api} has no details by {source.detail.method}",
            f"its details come by {method.detail.method}" if method.detail else "delete the detail settings",
        )
    if compiled.target is None or compiled.target.kind == "none":
        _mirrored_as_it_is(source, findings)
    else:
        content["targets"] = [
            {"kind": "sql", "conn_id": "kuaimai_target"},
            outlet_of(compiled, str(path), findings) | _rhythm(compiled, path, findings),
        ]
        personal = personal_fields(compiled)
        if personal:
            content["keep_personal"] = personal
            findings.warn(
                f"{compiled.target.path}request",
                f"{', '.join(personal)}: a person's data, which the mirror then keeps as well",
                "leave the fields out if the other side does not need them",
            )
    return content


def _rhythm(compiled: Compiled, path: Path, findings: Findings) -> dict[str, Any]:
    """The target's own crontab, where it lets documents wait for longer than the source does."""
    target, schedule = compiled.target, compiled.crontab or DEFAULT_SCHEDULE
    if target is None or target.crontab in ("", schedule):
        return {}
    where = findings.placed(f"{target.path}crontab", "target.crontab", "target_crontab")
    if runs_a_day(target.crontab) >= runs_a_day(schedule):
        findings.note(
            where,
            f"{target.crontab} has no effect here: what the source brings, at {schedule}, is written at once",
        )
        return {}
    name = outlet_of(compiled, str(path), Findings())
    findings.note(
        where,
        f"it becomes the DAG kuaimai_{pipeline_name(path)}__{name.get('name', name['conn_id'])}: at "
        f"{target.crontab} it reads what changed since its last run, and writes that",
        "delete the target's crontab to write at once what the source brings",
    )
    return {"schedule": target.crontab}


def _mirrored_as_it_is(source: Source, findings: Findings) -> None:
    """The tables hold every record as it came; what shapes rows for a target has nothing to shape."""
    shaping = {
        "condition": (source.condition, "filter where you read the table"),
        "beatFlat": (source.flat, "the lines have a table of their own"),
        "operation": (source.split, "the lines have a table of their own"),
        "formatResponse": (source.formats, "format where you read the table"),
    }
    for key, (given, instead) in shaping.items():
        if given:
            told = "without a target that is written it has no effect here: the mirror holds whole records"
            findings.note(f"{source.path}{key}", told, instead)


def pipeline_name(path: Path) -> str:
    """Return the name of a strategy's pipeline: its file's, in lower-case words.

    Raises:
        ConfigError: the file's name has no letters.
    """
    name = re.sub(r"[^a-z0-9]+", "_", path.stem.lower()).strip("_")
    name = name if name[:1].isalpha() else f"s_{name}"
    if not re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", name):
        raise ConfigError(
            f"strategy {path}: the file's name names the DAG",
            hint="rename it to lower-case words, e.g. orders.json",
        )
    return name


def _time(compiled: Compiled, source: Source, method: catalog.Method) -> dict[str, Any]:
    """The dimension that the strategy asks by, and how far its window reaches back before the run's."""
    findings = compiled.findings
    params = _params(source, _PROBE)
    times = method.times.dimensions if method.times else {}
    fields = {one.field.name: one for one in source.request}
    ends = {name for one in times.values() for name in (one.start, one.end)}
    if method.times and method.times.optional and not ends & params.keys():
        told = "it asks for no time: every run reads everything, and marks what is gone"
        if _fixed(source, method, Findings()):
            told = "it asks for no time: every run reads all of its selection; nothing is marked as gone"
        findings.note(f"{source.path}request", told, "for an hour's changes only, ask by the time of change")
        return {"dimension": SCAN}
    fits = _asked_by(params, times)
    if not fits:
        known = ", ".join(
            f"{name} ({', '.join([*(f'{k}={v}' for k, v in one.send.items()), one.start, one.end])})"
            for name, one in times.items()
        )
        findings.cannot_run(
            f"{source.path}request", "it asks for no time that the method knows", f"known are {known}"
        )
        return {}
    name, dimension = fits[0]
    start = fields[dimension.start]
    begins = _begins(source, start, compiled.crontab or DEFAULT_SCHEDULE, findings)
    if not begins:
        return {}
    # Its begin may be the same for many runs, e.g. midnight: the overlap has to reach it from the last one.
    overlap = max(to_wall(run.start) - early for run, early in begins)
    behind = all(to_wall(run.end) <= early for run, early in begins)
    if behind or overlap > _MOST_OVERLAP:
        findings.cannot_run(
            f"{start.field.path}.value",
            f"it begins {abs(overlap)} {'after' if behind else 'before'} the run's window",
            "begin at LAST_SYNC_TIME, or up to a day before it; LAST_SYNC_TIME is in seconds",
        )
        return {}
    if overlap < timedelta():
        findings.warn(
            f"{start.field.path}.value",
            f"it begins {-overlap} after the run before: the platform leaves out what lies between",
            "here all of it is read; write {{LAST_SYNC_TIME|datetime}}",
        )
        overlap = timedelta()
    _look_at_end(source, fields.get(dimension.end), findings)
    found: dict[str, Any] = {"dimension": name}
    if overlap:
        # Never less than ours: rows can become visible minutes after their time.
        found["overlap_minutes"] = max(10, -(-int(overlap.total_seconds()) // 60))
    return found


def _asked_by(
    params: Mapping[str, Any], times: Mapping[str, catalog.Dimension]
) -> list[tuple[str, catalog.Dimension]]:
    """The times that parameters can mean; the gateway takes the first where the kind of time is left out."""
    return [
        (name, one)
        for name, one in times.items()
        if one.start in params and all(params.get(key, value) == value for key, value in one.send.items())
    ]


def _remedied(
    source: Source, method: catalog.Method, dimension: str, path: Path, findings: Findings
) -> list[dict[str, Any]]:
    """The second pull of `omissionRemedy`: a further time, read back as far as the remedy reaches.

    What it finds on the platform after failed pages is healed here in any case; what remains are records that
    the strategy's own time shows too late, or never. Those are found by their creation.
    """
    times = method.times.dimensions if method.times else {}
    runs = _runs(source.remedy_crontab)
    try:
        asked = [_as_object(remedy_request(source, run)) for run in runs]
    except DataError as err:
        findings.warn(f"{source.path}omissionRemedy", f"it is not run here: {err}", _SEALS)
        return []
    asked_by, start = next(((name, one.start) for name, one in _asked_by(asked[-1], times)), ("", ""))
    hours = max(_hours_back(params.get(start), run.end) for run, params in zip(runs, asked, strict=True))
    name = CREATED if asked_by == dimension else asked_by
    if not hours or name not in times or dimension in (name, SCAN):
        findings.warn(
            f"{source.path}omissionRemedy",
            "it is not run here, as there is no other time by which records can be asked for",
            _SEALS,
        )
        return []
    findings.note(
        f"{source.path}omissionRemedy",
        f"it becomes the DAG kuaimai_{pipeline_name(path)}__{name}: at {source.remedy_crontab} the last "
        f"{hours} hours are read again by {name}, counted like every window",
        "windows with failed pages need no remedy: they are read again until the gateway's count is there",
    )
    slot = 6 if hours >= 6 else 1  # noqa: PLR2004 - as for all further times, or less
    return [
        {"dimension": name, "schedule": source.remedy_crontab, "look_back_hours": hours, "slot_hours": slot}
    ]


def _hours_back(begin: Any, end: datetime) -> int:
    """How many hours before a run something begins, at most what a look-back can be; 0 for no time."""
    try:
        early = read_time(begin)
    except ValueError:
        return 0
    if early is None or early >= to_wall(end):
        return 0
    return min(-(-(to_wall(end) - early) // timedelta(hours=1)), _MOST_LOOK_BACK)


def _runs(schedule: str) -> list[RunWindow]:
    """The windows of a day's runs, one for each hour and length."""
    return [
        RunWindow(_MIDNIGHT + begin, _MIDNIGHT + end, _MIDNIGHT + end) for begin, end in intervals(schedule)
    ]


def _begins(
    source: Source, field: CompiledField, schedule: str, findings: Findings
) -> list[tuple[RunWindow, datetime]]:
    """Where the strategy begins to read in each run of a day, wall clock; it has to move with the runs."""
    name, where = field.field.name, f"{field.field.path}.value"
    runs = _runs(schedule)
    try:
        early, later, *begins = (
            read_time(_params(source, window).get(name)) for window in (_PROBE, _NEXT_DAY, *runs)
        )
    except (DataError, ValueError) as err:
        findings.cannot_run(where, str(err), "write {{LAST_SYNC_TIME|datetime}}")
        return []
    if early is None or later is None or later - early != _DAY or not any(begins):
        findings.cannot_run(
            where,
            "a fixed time: every run would read the same",
            "write {{LAST_SYNC_TIME|datetime}}; for the past use the DAG kuaimai_backfill",
        )
        return []
    # A run for which it has no time reads nothing that another would have to reach.
    return [(run, begin) for run, begin in zip(runs, begins, strict=True) if begin is not None]


def _look_at_end(source: Source, field: CompiledField | None, findings: Findings) -> None:
    """Tell of an end that does not move with the runs: here every window ends with its run."""
    if field is None:
        return
    end, later = (_params(source, window).get(field.field.name) for window in (_PROBE, _NEXT_DAY))
    if end is not None and end == later:
        findings.warn(
            f"{field.field.path}.value",
            f"{end}, a fixed time: on the platform nothing is read after it",
            "here every window ends with its run; write {{CURRENT_TIME|datetime}}",
        )


def _fixed(source: Source, method: catalog.Method, findings: Findings) -> dict[str, str]:
    """Parameters that every request carries, besides those of paging and time, which are set for each."""
    for field in source.other:
        if field.field.name.replace("_", "").lower() not in _PAGING:
            findings.cannot_run(
                f"{field.field.path}.field",
                f"{field.field.name}: otherRequest is the connector's, and is not sent to the gateway",
                "move it to request, or delete it",
            )
    ours = set()
    for one in method.times.dimensions.values() if method.times else ():
        ours |= {one.start, one.end, *one.send}
    params = _params(source, _PROBE)
    found = {}
    for field in source.request:
        name = field.field.name
        if name in ours or name not in params or name.replace("_", "").lower() in _PAGING:
            continue
        if params[name] == "":
            continue  # the gateway takes no empty parameter
        if name in method.send:
            _as_always(name, str(params[name]), method, field, findings)
        elif method.scope is not None and name == method.scope.param:
            findings.cannot_run(
                f"{field.field.path}.value",
                f"{name}: here the method is asked for every {method.scope.of}, one after the other",
                "delete it, and let the strategy's condition choose what is written",
            )
        elif isinstance(field.value, Literal):
            found[name] = str(params[name])
        else:
            findings.cannot_run(
                f"{field.field.path}.value",
                f"{name} would be another in every request, and it is no end of the window",
                "write a fixed value",
            )
    return found


def _as_always(
    name: str, value: str, method: catalog.Method, field: CompiledField, findings: Findings
) -> None:
    """What every request to a method carries may stand in the strategy too, if it says the same."""
    wanted = method.send[name]
    if value != wanted:
        findings.cannot_run(
            f"{field.field.path}.value",
            f"{name} {value}: {method.name} is asked with {wanted}",
            f"write {wanted}",
        )


def _params(source: Source, window: RunWindow) -> dict[str, Any]:
    return _as_object(source_request(source, window))


def _as_object(request: Request) -> dict[str, Any]:
    return request.params if isinstance(request.params, dict) else {}
