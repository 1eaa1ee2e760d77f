"""A compiled strategy: what is asked, what becomes of the rows, what is written. Values only, no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from kuaimai.pipeline.qeasy.fields import Compiled as CompiledField
from kuaimai.pipeline.qeasy.findings import Findings
from kuaimai.pipeline.qeasy.formats import Format
from kuaimai.pipeline.qeasy.repeating import changes_nothing_again
from kuaimai.pipeline.qeasy.strategy import Batch, Condition, Field, Grouping, Strategy
from kuaimai.pipeline.qeasy.templates import Value

NO_WRITE = "写入空操作"
NO_QUERY = "查询空操作"
SQL_APIS = ("execute", "batchexecute")

# kuaimai   a method of the catalogue
# none      查询空操作: rows come by other ways, here never
# foreign   another platform's: can be rendered, not asked
SourceKind = Literal["kuaimai", "none", "foreign"]
# none      写入空操作: what has landed is all
# http      a JSON POST per document or batch
# sql       statements with bound values
TargetKind = Literal["none", "http", "sql"]


@dataclass(frozen=True)
class Detail:
    """A second call per row of the list: `method` is asked with `param` = the row's `field`.

    Attributes:
        list_key: the answer's list; empty for the answer as the catalogue knows it.
    """

    method: str
    param: str
    field: str
    list_key: str = ""


@dataclass(frozen=True)
class PageField:
    """A page number that the platform counts up although the strategy writes a fixed number."""

    name: str
    first: int


@dataclass(frozen=True)
class Source:
    """The compiled source.

    Attributes:
        path: prefix of its field paths.
        kind: who answers.
        api: the method or the path.
        verb: HTTP verb.
        key: path of the primary key in a row; `number`, of the business number.
        id_check: as the strategy says.
        request: business parameters; `other`, those of the connector.
        page_size: rows per page, if the strategy says.
        page: the fixed page number to count up; None where a template does it, or nothing pages.
        remedy: fields of the omission remedy, in place of those of the same name.
        remedy_crontab: when; empty without a remedy.
        data_key: where the rows are in the answer, outermost first; empty for the catalogue's own.
    """

    path: str
    kind: SourceKind
    api: str
    verb: str
    key: str
    number: str
    id_check: bool
    request: tuple[CompiledField, ...]
    other: tuple[CompiledField, ...]
    page_size: int | None
    page: PageField | None
    remedy: tuple[CompiledField, ...]
    remedy_crontab: str
    detail: Detail | None
    condition: tuple[tuple[Condition, ...], ...]
    flat: tuple[str, ...]
    split: str
    formats: tuple[tuple[str, str, str, Format], ...]
    data_key: tuple[str, ...]
    crontab: str

    @property
    def pages(self) -> bool:
        """Whether there is a second page to ask for."""
        return self.page is not None or any(
            name in ("PAGINATION_START_PAGE", "PAGINATION_START_ROW")
            for _, value in self.values()
            for name in value.names()
        )

    def values(self) -> Iterator[tuple[Field, Value]]:
        """Return every value of the source, with its field."""
        for one in (*self.request, *self.other, *self.remedy):
            yield from one.values()


@dataclass(frozen=True)
class Extension:
    """A statement that follows the main one for each element of an array (`extend_sql_n`).

    Attributes:
        text: the statement.
        params: the array's field (`extend_params_n`), with a field inside for each value.
        last: parameters that are the id of the row that the main statement has made.
    """

    text: str
    params: CompiledField
    last: tuple[str, ...]


@dataclass(frozen=True)
class Statement:
    """A SQL statement with bound values (`:name`), made from `main_sql`.

    Attributes:
        text: the statement.
        names: its parameters, in the order of the request's fields.
        limit: rows per execution; 1 for `execute`.
        further: statements that follow it.
    """

    text: str
    names: tuple[str, ...]
    limit: int
    further: tuple[Extension, ...] = ()

    @property
    def again(self) -> bool:
        """Whether executing it once more for the same row changes nothing."""
        texts = (self.text, *(further.text for further in self.further))
        return all(changes_nothing_again(text) for text in texts)


@dataclass(frozen=True)
class Target:
    """The compiled target.

    Attributes:
        path: prefix of its field paths.
        kind: how it is written.
        api: the method, the path, or the pseudo-API.
        verb: HTTP verb.
        id_check: sent with a request, as the strategy says.
        request: the document's template; `other`, parameters of the connector.
        batch: rows per request, if they are batched.
        grouping: how flat rows become documents, if they do.
        writeback: what is kept of the answer, as `primaryWriteback`.
        statement: the SQL statement; None for other kinds.
        connection: Airflow Connection, if the strategy names one.
    """

    path: str
    kind: TargetKind
    api: str
    verb: str
    id_check: bool
    request: tuple[CompiledField, ...]
    other: tuple[CompiledField, ...]
    batch: Batch | None
    grouping: Grouping | None
    writeback: tuple[CompiledField, ...]
    statement: Statement | None
    crontab: str
    connection: str = ""

    def values(self) -> Iterator[tuple[Field, Value]]:
        """Return every value of the target, with its field."""
        yield from self.document_values()
        for one in self.writeback:
            yield from one.values()

    def document_values(self) -> Iterator[tuple[Field, Value]]:
        """Return those that are made of the source row."""
        for one in (*self.request, *self.other):
            yield from one.values()


@dataclass(frozen=True)
class Compiled:
    """A strategy that is understood.

    Attributes:
        strategy: what it was compiled from.
        source: None for a file that holds only a target.
        target: None for a file that holds only a source: its rows land, and nothing else is written.
        findings: what the linter says about it.
    """

    strategy: Strategy
    source: Source | None
    target: Target | None
    findings: Findings

    @property
    def name(self) -> str:
        """The strategy's name."""
        return self.strategy.name

    @property
    def answers(self) -> dict[str, Any] | None:
        """Where the target's answer says what was taken (StatusKey, StatusValue), as `Answers` has it.

        The platform compares as text, so a number and its text are both accepted; so are true and `true`.
        """
        given = self.strategy.target.other_response if self.strategy.target else {}
        key, wanted = given.get("StatusKey"), given.get("StatusValue")
        if not isinstance(key, str) or not key or not isinstance(wanted, bool | int | str) or wanted == "":
            return None
        text = str(wanted).lower() if isinstance(wanted, bool) else str(wanted)
        accepted: list[bool | int | str] = [text]
        if text.lower() in ("true", "false"):
            accepted.append(text.lower() == "true")
        elif text.isascii() and text.removeprefix("-").isdigit():
            accepted.append(int(text))
        return {"success": key.replace("/", "."), "accepted": tuple(accepted)}

    @property
    def crontab(self) -> str:
        """The rhythm: the source's, as the target follows at once; empty if none is written."""
        source = self.source.crontab if self.source else ""
        return source or (self.target.crontab if self.target else "")
