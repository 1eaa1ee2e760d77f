"""Where a pipeline's records go, as its file says it: one target or several, each on its own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kuaimai.pipeline.cron import five_fields

# A DAG of a target's own is late after this: it may read a day at once.
LATE_APART = timedelta(hours=1)

# A name becomes part of a task's id and of the `pipeline` column of the proof.
_NAME = r"^[A-Za-z][A-Za-z0-9_.-]*$"
_MOST_ROWS = 1000


def a_name(value: str) -> str:
    """Return the name of a target.

    Raises:
        ValueError: it cannot be one.
    """
    if not re.match(_NAME, value):
        raise ValueError(f"{value!r} is no name of a target: a letter, then letters, digits, _, - and .")
    return value


class BaseOutlet(BaseModel):
    """What all targets share.

    Attributes:
        kind: what it is.
        name: tells targets of one pipeline apart; by default the Connection, or else the kind.
        schedule: cron, in Asia/Shanghai: the target is written by a DAG of its own,
            `kuaimai_<pipeline>__<name>`, which reads what changed since its last run; by default with the
            pipeline's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(default="", json_schema_extra={"pattern": _NAME})
    schedule: str = ""

    @field_validator("name")
    @classmethod
    def _a_name(cls, value: str) -> str:
        return a_name(value)

    @field_validator("schedule")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        return five_fields(value) if value else value

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        if isinstance(given, dict) and "name" not in given:
            conn_id = given.get("conn_id", cls.model_fields["conn_id"].default if cls._connected() else None)
            return {**given, "name": conn_id or given.get("kind", cls.model_fields["kind"].default)}
        return given

    @classmethod
    def _connected(cls) -> bool:
        return "conn_id" in cls.model_fields and not cls.model_fields["conn_id"].is_required()


class SqlOutlet(BaseOutlet):
    """A database.

    Attributes:
        conn_id: Airflow Connection.
    """

    kind: Literal["sql"] = "sql"
    conn_id: str = "kuaimai_target"


class FilesOutlet(BaseOutlet):
    """A folder of change files; see `kuaimai.load.files`.

    Attributes:
        url: an absolute folder, or the URL of an object store: `s3://aws_default@bucket/mirror`.
        format: `parquet`, or `jsonl`: a JSON object on each line.
        partition_by: the column whose day (GMT+8) is a file's folder; by default `created`, else the record's
            first time.
    """

    kind: Literal["files"] = "files"
    url: str
    format: Literal["parquet", "jsonl"] = "parquet"
    partition_by: str | None = None

    @field_validator("url")
    @classmethod
    def _absolute(cls, url: str) -> str:
        if not (url.startswith("/") or re.match(r"^[a-z][a-z0-9+.-]*://.", url)):
            raise ValueError("give a whole path (/data/mirror) or a URL (s3://bucket/mirror)")
        user, at, _ = url.partition("://")[2].partition("/")[0].rpartition("@")
        if at and ":" in user:
            raise ValueError("a URL holds no credential: name a Connection, s3://conn_id@bucket/mirror")
        return url


class Answers(BaseModel):
    """How an API says what became of a request, or of each record in it.

    Attributes:
        rows: key of the list with one entry per record; dots lead into objects. Without it the answer itself
            is the entry, for all records of the request.
        success: key in an entry of the verdict on its record; dots lead into objects, as in `message`.
        accepted: the verdicts that mean that the record was taken.
        message: key in an entry of the reason.
        index: key in an entry of the record's position, from 0; without it entries come in the order sent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: str = ""
    success: str = "success"
    accepted: tuple[bool | int | str, ...] = (True,)
    message: str = "message"
    index: str | None = None


class HttpOutlet(BaseOutlet):
    """A write API: POST of JSON, with a Bearer token; see `kuaimai.load.posting`.

    Attributes:
        conn_id: Airflow Connection of type HTTP; its password is the token.
        path: joined to the Connection's address.
        rows: at most so many records in a request; 1 sends each record as the body.
        rows_key: key of the list of records in the body (Qeasy's `batchArraySave`); needed for more than 1.
        body: constant keys that stand beside the list, e.g. `{idCheck: false}`.
        id_check: send a record once only, also when it has changed since; for APIs that can only create.
        in_doubt: what to do with a record that was sent and not answered for: `hold` sets it aside, `resend`
            sends it again (for APIs that replace by id, or that honour the header Idempotency-Key), `ask`
            asks `ask_path` first.
        ask_path: GET; `{key}` is replaced by the record's key; 404 says that it is not there.
        answers: where the answer says what was taken; without it the HTTP status speaks for all, and a body
            with `success: false` is a refusal.
        requests_per_second: at most so many requests.
        timeout_seconds: how long to wait for an answer.
        tries: how often a request, or a record that was refused among others, is sent in one load.
        strategy: a Qeasy strategy whose target makes the document of each record, found from the pipeline's
            folder; see docs/qeasy.md.
    """

    kind: Literal["http"] = "http"
    conn_id: str
    path: str = ""
    rows: int = Field(strict=True, default=1, ge=1, le=_MOST_ROWS)
    rows_key: str = ""
    body: dict[str, Any] = Field(default_factory=dict)
    id_check: bool = False
    in_doubt: Literal["hold", "resend", "ask"] = "hold"
    ask_path: str = ""
    answers: Answers | None = None
    requests_per_second: float = Field(default=5, gt=0)
    timeout_seconds: float = Field(default=30, gt=0, le=600)
    tries: int = Field(strict=True, default=3, ge=1, le=10)
    strategy: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> HttpOutlet:
        if self.rows > 1 and not self.rows_key:
            raise ValueError("rows above 1 need rows_key, the key of the list in the body")
        if self.body and not self.rows_key:
            raise ValueError("body needs rows_key: without it the record itself is the body")
        if self.rows_key in self.body:
            raise ValueError(f"body may not hold {self.rows_key!r}, which is the list of records")
        if (self.in_doubt == "ask") != ("{key}" in self.ask_path):
            raise ValueError("in_doubt: ask and ask_path: /…/{key} belong together")
        if self.answers and self.answers.rows and not self.rows_key:
            raise ValueError("answers.rows is for lists of records: they need rows_key")
        if self.answers and self.answers.index and not self.answers.rows:
            raise ValueError("answers.index is the position in a list: name it in answers.rows")
        return self


class StatementOutlet(BaseOutlet):
    """A database that gets a statement of a Qeasy strategy's own for each record; see docs/qeasy.md.

    Attributes:
        conn_id: Airflow Connection.
        strategy: the strategy's file, beside the pipeline's, whose target is `execute` or `batchexecute`.
        id_check: execute it once only for a record, also when the record has changed since.
    """

    kind: Literal["statement"] = "statement"
    conn_id: str
    strategy: str
    id_check: bool = False


class NoopOutlet(BaseOutlet):
    """No target at all (写入空操作): records are read, typed, counted and sealed, and go nowhere."""

    kind: Literal["noop"] = "noop"


AnyOutlet = SqlOutlet | FilesOutlet | HttpOutlet | NoopOutlet | StatementOutlet
Outlet = Annotated[AnyOutlet, Field(discriminator="kind")]


def check_names(outlets: Iterable[AnyOutlet]) -> None:
    """Refuse two targets of one name.

    Raises:
        ValueError: names it.
    """
    seen: set[str] = set()
    for one in outlets:
        if one.name in seen:
            raise ValueError(f"targets: two are named {one.name!r}; give one of them another `name`")
        seen.add(one.name)
