"""The linter: what is dangerous in a strategy, where, and how to mend it; and how much of it is supported.

The dangers are those of the platform (reference 13). Most of them are gone when the strategy runs here; the
remark says so, because the data that was synchronised there may be wrong already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kuaimai.errors import ConfigError
from kuaimai.gateway import catalog
from kuaimai.pipeline.qeasy import compiled as made
from kuaimai.pipeline.qeasy.compiling import SIZE_FIELDS, compile_strategy
from kuaimai.pipeline.qeasy.expressions import Expression
from kuaimai.pipeline.qeasy.fields import Compiled as CompiledField
from kuaimai.pipeline.qeasy.fields import literal_number
from kuaimai.pipeline.qeasy.findings import LEVELS, Finding, Findings, Level, near
from kuaimai.pipeline.qeasy.mirror import keeps_session, reads_records, to_pipeline
from kuaimai.pipeline.qeasy.names import named, names_of
from kuaimai.pipeline.qeasy.reading import read_strategy
from kuaimai.pipeline.qeasy.scope import WINDOW_VARIABLES, is_variable
from kuaimai.pipeline.qeasy.strategy import Field, Grouping, Side
from kuaimai.pipeline.qeasy.templates import Literal, Placeholder, Template, Value

_TITLES: dict[Level, str] = {
    "refused": "refused",
    "not_run": "cannot run here",
    "danger": "danger",
    "note": "note",
}
_SECRETS = frozenset(
    {"refreshtoken", "accesstoken", "token", "appsecret", "systemtoken", "secret", "password", "session"}
)
_MOST_SAID = re.compile(
    r"(?:最大|最多|不超过|max(?:imum)?)\D{0,6}(\d{1,5})|\d+\s*[~～-]\s*(\d{1,5})", re.IGNORECASE
)
_LIMIT_SAID = re.compile(r"(?:间隔|跨度|范围)\S{0,6}(?:不能超过|不超过|最大|最长)\s*(\S{1,4}?[天日时])")
_BIG_NUMBER = re.compile(r"[-+]\s*(\d{6,})(?!\d)")
_DIVISION = re.compile(r"/|%|\b(?:DIV|MOD)\b", re.IGNORECASE)
_TO_YUAN = re.compile(r"/\s*100(?!\d)|\*\s*0?\.01(?!\d)")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.|'')*'")


@dataclass(frozen=True)
class Report:
    """What the linter has to say about one strategy.

    Attributes:
        file: its path.
        name: its name.
        settings: number of settings in it.
        supported: how many of them are understood and carried out.
        findings: remarks, worst first.
    """

    file: str
    name: str
    settings: int
    supported: int
    findings: tuple[Finding, ...] = field(default=())

    @property
    def compiles(self) -> bool:
        """Whether its requests can be rendered."""
        return not any(one.level == "refused" for one in self.findings)

    @property
    def runs(self) -> bool:
        """Whether it can be run here."""
        return not any(one.level in ("refused", "not_run") for one in self.findings)

    @property
    def coverage(self) -> int:
        """The supported share of its settings, in per cent, rounded down."""
        return 100 * self.supported // self.settings if self.settings else 0

    def pretty(self) -> str:
        """Return the report as text for a terminal."""
        verdict = (
            "runs here" if self.runs else "compiles, but cannot run here" if self.compiles else "refused"
        )
        counts = f"{self.supported} of {self.settings} settings supported ({self.coverage} %)"
        lines = [f"{self.file}: {verdict}; {counts}"]
        for level in LEVELS:
            for one in self.findings:
                if one.level == level:
                    where = f"line {one.line}, {one.path}" if one.line else one.path or "the file"
                    lines.append(f"  {_TITLES[level]}: {where}: {one.message}")
                    if one.fix:
                        lines.append(f"    → {one.fix}")
        return "\n".join(lines)


def lint_strategy(path: Path) -> Report:
    """Read, compile and examine a strategy; nothing is asked of anybody.

    A file that is no JSON gives a report too: it says so.
    """
    try:
        strategy, findings = read_strategy(path)
    except ConfigError as err:
        return Report(str(path), path.stem, 0, 0, (Finding("refused", "", err.message),))
    compiled = compile_strategy(strategy, findings)
    if compiled.source is not None and strategy.source is not None:
        writes = compiled.target is not None and compiled.target.kind != "none"
        _Source(findings, strategy.source, compiled.source, writes=writes).look()
    if compiled.target is not None and strategy.target is not None:
        _Target(findings, strategy.target, compiled).look()
    if compiled.source is None and compiled.target is not None:
        where = strategy.target.path.rstrip(".") if strategy.target else ""
        findings.note(
            where,
            "a target without a source gets no rows",
            "put both into one file: [source metadata, target metadata]",
        )
    if reads_records(compiled) and not findings.of("refused", "not_run"):
        try:
            to_pipeline(compiled, path)
        except ConfigError as err:
            if not findings.of("not_run"):
                findings.cannot_run("", err.message.removeprefix(f"strategy {path}: "), err.hint or "")
    source = compiled.source
    if (
        source is not None
        and source.kind == "kuaimai"
        and not (reads_records(compiled) or keeps_session(compiled))
    ):
        findings.cannot_run(f"{source.path}api", f"{source.api} returns no records to mirror", "take another")
    told = tuple(dict.fromkeys(findings.found))
    against = {one.path for one in told if one.level in ("refused", "not_run")}
    missing = sum(one.level == "refused" and one.message.startswith("it is missing") for one in told)
    settings = strategy.settings + missing
    return Report(
        str(path),
        strategy.name,
        settings,
        max(settings - len(against), 0),
        tuple(sorted(told, key=lambda one: LEVELS.index(one.level))),
    )


def dangers(path: Path, kind: str, dropped: Callable[[str, str], bool]) -> list[Finding]:
    """Return what is dangerous in a strategy whose target a pipeline of one's own uses.

    Args:
        path: the strategy's file, which compiles.
        kind: of the pipeline's records.
        dropped: whether the pipeline drops a field, by kind and name.
    """
    strategy, findings = read_strategy(path)
    compiled = compile_strategy(strategy, findings)
    if compiled.target is not None and strategy.target is not None:
        _Target(findings, strategy.target, compiled, kind).look()
    known = names_of(compiled.source, kind)
    for where, name in named(compiled):
        field = known.field(name)
        if field is not None and dropped(known.kinds[known.parts(name)[0]], field.name):
            told = f"{name}: the pipeline drops it, so nothing is there"
            findings.warn(where, told, "keep it in the pipeline, or leave it out here")
    return list(dict.fromkeys(findings.of("danger")))


class _Side:
    """What both halves share."""

    def __init__(self, findings: Findings, side: Side) -> None:
        self.findings = findings
        self.side = side
        self.path = side.path

    def values(self, fields: Iterator[tuple[Field, Value]]) -> None:
        for one, value in fields:
            where = f"{one.path}.value"
            if isinstance(value, Expression):
                self._expression(where, value)
            if isinstance(value, Literal):
                self._literal(where, one, value)

    def _expression(self, where: str, value: Expression) -> None:
        divides = _DIVISION.search(_QUOTED.sub("", value.text))
        self.findings.warn(
            where,
            "on the platform an expression that fails is written to the target as its own text"
            + ("; this one divides" if divides else ""),
            "here such a row goes to quarantine; "
            + ("write NULLIF(…, 0) as the divisor to get null" if divides else "nothing has to be changed"),
        )
        for name in WINDOW_VARIABLES:
            big = _BIG_NUMBER.search(_QUOTED.sub("", value.text))
            if name in value.names() and big and f"{{{{{name}}}}}000" not in value.text:
                self.findings.warn(
                    where,
                    f"{name} is in seconds; {big[1]} look like milliseconds ({int(big[1]) // 86_400} days)",
                    f"write {int(big[1]) // 1000} if {int(big[1]) // 60_000} minutes are meant",
                )

    def _literal(self, where: str, one: Field, value: Literal) -> None:
        if value.value == "null":
            self.findings.warn(where, 'the text "null" is sent, not nothing', "delete the value")
        if one.name.replace("_", "").lower() in _SECRETS and value.value not in (None, ""):
            self.findings.warn(
                where,
                f"{one.name} is a credential in a file",
                "keep it in an Airflow Connection; a token pair belongs to one program only",
            )

    def omitted(self, fields: tuple[CompiledField, ...]) -> None:
        """Parameters without a value are left out on the platform too; often nobody knows."""
        for one in fields:
            self.omitted(one.children)
            if one.value is None and not one.children and one.field.default is None:
                told = f"{one.field.name} has no value, so it is not sent"
                if one.field.required:
                    self.findings.warn(
                        f"{one.field.path}.value", f"{told}, though it is required", "give it one"
                    )
                else:
                    self.findings.note(f"{one.field.path}.value", told)


class _Source(_Side):
    def __init__(self, findings: Findings, side: Side, source: made.Source, *, writes: bool) -> None:
        super().__init__(findings, side)
        self.source = source
        self.writes = writes

    def look(self) -> None:
        """Look at everything."""
        self.values(self.source.values())
        self.omitted(self.source.request)
        self._window()
        self._pages()
        self._rows()
        self._envelope()
        if self.source.api == "open.token.refresh":
            self.findings.warn(
                f"{self.path}api",
                "two programs that refresh one token pair make it invalid for each other",
                "stop it on the platform before it runs here, where one owner refreshes the session",
            )
        if self.source.kind == "none":
            self.findings.note(f"{self.path}api", f"{made.NO_QUERY} asks nobody: no rows come")

    def _windowed(self) -> list[tuple[Field, Value, str]]:
        return [
            (one, value, name)
            for one, value in self.source.values()
            for name in value.names()
            if name in WINDOW_VARIABLES
        ]

    def _window(self) -> None:
        used = self._windowed()
        kuaimai = self.source.kind == "kuaimai"
        for one, value, name in used:
            raw = isinstance(value, Template) and any(
                isinstance(part, Placeholder) and part.name == name and not part.formats
                for part in value.parts
            )
            if raw:
                self.findings.warn(
                    f"{one.path}.value",
                    f"{name} without a format is a number of seconds"
                    + (", and the gateway wants yyyy-MM-dd HH:mm:ss" if kuaimai else ""),
                    f"write {{{{{name}|datetime}}}}" + ("" if kuaimai else ", or …000 for milliseconds"),
                )
            said = _LIMIT_SAID.search(one.describe)
            if said:
                self._too_long(one.path, said[1])
        if kuaimai and used and (times := catalog.method(self.source.api).times):
            self._too_long(used[0][0].path, "1 day" if times.max_days == 1 else f"{times.max_days} days")
        if any(name == "LAST_SYNC_TIME" for _, _, name in used):
            first = next(one for one, _, name in used if name == "LAST_SYNC_TIME")
            self.findings.warn(
                f"{first.path}.value",
                "the platform's first run begins when the strategy was made: no history is loaded",
                "load the past with the DAG kuaimai_backfill",
            )

    def _too_long(self, path: str, limit: str) -> None:
        self.findings.warn(
            f"{path}.value",
            f"after an outage longer than the API's limit ({limit}) every request of the platform fails",
            "here the window is cut to what the method takes; nothing has to be changed",
        )

    def _pages(self) -> None:
        for one in (*self.source.request, *self.source.other):
            if one.field.name.replace("_", "").lower() not in SIZE_FIELDS:
                continue
            size = literal_number(one)
            if size is None and any(name == "PAGINATION_PAGE_SIZE" for name in self._names(one)):
                size = self.source.page_size
            most = self._most(one.field)
            if size is not None and most is not None and size > most:
                self.findings.warn(
                    f"{one.field.path}.value",
                    f"{size} rows a page, and the API gives at most {most}: "
                    "reading ends after the first, silently shortened page",
                    f"write {most}",
                )
        if self.source.pages or (self.source.kind == "kuaimai" and catalog.method(self.source.api).page):
            self.findings.warn(
                f"{self.path}request",
                "when a page fails, the platform does not ask for the pages after it, and goes on",
                "here the window stays open and is read again until the gateway's count is reached",
            )

    @staticmethod
    def _names(one: CompiledField) -> list[str]:
        return list(one.value.names()) if one.value is not None else []

    def _most(self, one: Field) -> int | None:
        if self.source.kind == "kuaimai" and (page := catalog.method(self.source.api).page):
            return page.max
        said = _MOST_SAID.search(one.describe)
        return int(said[1] or said[2]) if said else None

    def _rows(self) -> None:
        if self.source.id_check:
            self.findings.warn(
                f"{self.path}idCheck",
                "true"
                + ("" if self.side.has_id_check else " (it is the default)")
                + ": on the platform a row whose id is known is dropped, so its updates are lost",
                "here the tables are upserted by key and version, but each record is written to the target "
                "once, as it was then: write false to write its changes too"
                if self.writes
                else "here rows are upserted by key and version; on the platform write false",
            )
        for kind, array in (("beatFlat", self.source.flat), ("operation.arrayKey", (self.source.split,))):
            for number, name in enumerate(one for one in array if one):
                if kind != "beatFlat" and self.source.key.startswith(f"{name}."):
                    continue
                self.findings.warn(
                    f"{self.path}{kind}" + (f"[{number}]" if kind == "beatFlat" else ""),
                    f"rows of {name} are numbered by position: a line moved or deleted leaves stale rows",
                    f"take the line's own id as key, e.g. id: {name}.id with operation splitArray",
                )
        for path, _old, _new, how in self.source.formats:
            if re.match(r"round|amount|intval", how.text, re.IGNORECASE):
                self.findings.warn(
                    f"{path}.format",
                    f"{how.text} goes through a float on the platform: amounts can differ in the last place",
                    "here it is exact; compare sums once after the move",
                )
        for number, group in enumerate(self.source.condition):
            if group:
                self.findings.warn(
                    f"{self.path}condition[{number}]",
                    "the platform discards what does not pass without a trace",
                    "here it is counted, with its keys in the log",
                )
        if self.source.remedy_crontab:
            self.findings.warn(
                f"{self.path}omissionRemedy",
                "on the platform it reads again and compares nothing"
                + (
                    "; with idCheck true it finds missing rows, never changed ones"
                    if self.source.id_check
                    else ""
                ),
                "here every window is counted; compare sums once after the move",
            )

    def _envelope(self) -> None:
        if self.side.auto_fill:
            self.findings.note(
                f"{self.path}autoFillResponse",
                "nothing is added to response: the catalogue knows the fields, and a new one is told once",
                "kuaimai preview shows the fields of real rows",
            )
        given = self.side.other_response
        if self.source.kind == "kuaimai" and given:
            status = given.get("StatusValue")
            if status is not None:
                self.findings.warn(
                    f"{self.path}otherResponse.StatusValue",
                    f"{status!r}: the gateway answers success true or false, and a code only with errors",
                    "it has no effect here: the answer is judged by the gateway's own rules",
                )
            for key in given.keys() & {"DataKey", "PageKey", "StatusKey"}:
                self.findings.note(
                    f"{self.path}otherResponse.{key}", "it has no effect here: the catalogue knows the answer"
                )


class _Target(_Side):
    def __init__(self, findings: Findings, side: Side, compiled: made.Compiled, kind: str = "") -> None:
        super().__init__(findings, side)
        self.compiled = compiled
        # Of the records that it writes, where it has no source that says it.
        self.kind = kind

    def look(self) -> None:
        """Look at everything."""
        target = self.compiled.target
        if target is None:
            return
        if target.kind == "none":
            return
        self.values(target.values())
        self.omitted(target.request)
        self._source_fields(target)
        self._id_check(target)
        if target.grouping is not None:
            self._grouping(target.grouping)
        if target.statement is not None:
            self._statement(target.statement)
        if target.batch is not None and target.batch.rows > 1:
            self.findings.note(
                f"{self.path}operation.rows",
                f"{target.batch.rows} rows share one request: an API that fails it as a whole fails them all",
            )

    def _id_check(self, target: made.Target) -> None:
        """Whether changes are written is one question, and two settings that may answer it."""
        source = self.compiled.source
        if source is not None and self.side.has_id_check and target.id_check != source.id_check:
            theirs, ours = (str(one).lower() for one in (source.id_check, target.id_check))
            self.findings.warn(
                f"{self.path}idCheck",
                f"{ours}, and the source's is {theirs}, which decides here: "
                + ("each record is written once" if source.id_check else "changes are written again"),
                "write the same in both",
            )

    def _source_fields(self, target: made.Target) -> None:
        """A field that the source does not have is sent as nothing."""
        source = self.compiled.source
        if not (self.kind or reads_records(self.compiled)):
            return
        self._fen(target)
        known, grouping = names_of(source, self.kind), target.grouping
        whose = source.api if source is not None else self.kind
        derived = [new for _, _, new, _ in source.formats] if source is not None else []
        columns = {*grouping.header, *grouping.calculate} if grouping is not None else set()
        if grouping is not None and grouping.body:
            columns.add(grouping.target_body)
        for where, name in named(self.compiled):
            if is_variable(name):
                continue
            if grouping is not None and where.startswith((f"{self.path}request", f"{self.path}otherRequest")):
                # What is sent is made of the document, no longer of the row.
                head = name.split(".")[0]
                unknown = (head, sorted(columns)) if head not in columns else None
                what = "{!r} is no part of a document: it is neither grouped nor calculated"
            else:
                unknown = known.unknown(name, derived)
                what = f"{whose} returns no field {{!r}} that the catalogue knows"
            if unknown is not None:
                self.findings.warn(where, what.format(unknown[0]), near(unknown[0], sorted(unknown[1])))

    def _fen(self, target: made.Target) -> None:
        """The same money has two units in Kuaimai, and the target's tables have one."""
        known = names_of(self.compiled.source, self.kind)
        for one, value in target.document_values():
            if isinstance(value, Expression) and _TO_YUAN.search(value.text):
                continue
            for name in value.names():
                field = known.field(name)
                if field is not None and field.type == "fen":
                    self.findings.note(
                        f"{one.path}.value",
                        f"{name} is sent in fen, as the gateway has it; the mirror's tables have yuan",
                        f"write _function {{{{{name}}}}} / 100 where the other side wants yuan",
                    )

    def _grouping(self, grouping: Grouping) -> None:
        source = self.compiled.source
        where = f"{self.path}groupCalculate"
        self.findings.note(
            where,
            "here a document is made of the new rows of one load: a window of some shops",
            "for a document of a day give the target a crontab of its own that runs once a day",
        )
        if source is None:
            return
        numbered = [name for name in grouping.header if name in (source.key, source.number)]
        if source.flat and numbered:
            self.findings.warn(
                f"{where}.headerGroup",
                f"beatFlat numbers {', '.join(numbered)} by row (-1, -2…): every row is its own document",
                "group by fields that are no id and no number of the source",
            )
        if not source.id_check:
            self.findings.warn(
                where,
                "with idCheck false a row that changes is written once more, in a document with other rows",
                "write idCheck true where the other side adds documents up",
            )

    def _statement(self, statement: made.Statement) -> None:
        where = f"{self.path}otherRequest"
        if not statement.again:
            self.findings.warn(
                where,
                "main_sql executed again would double a row, add to it or fail on its key: a record that was "
                "on its way when a task died is held",
                "write REPLACE INTO, or ON DUPLICATE KEY UPDATE with what the row brings",
            )
        if statement.limit > 1:
            self.findings.warn(
                where,
                f"on the platform one bad row fails its whole batch of {statement.limit}",
                "here a row that cannot be rendered goes to quarantine alone",
            )
