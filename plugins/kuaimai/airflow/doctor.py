"""`kuaimai doctor`: everything a sync needs, looked at once, each with what to do about it.

It asks the gateway for one smallest page per method, makes and drops one table in each target, asks each
write API by OPTIONS what it takes, and writes and removes one staging file. It refreshes no session and keeps
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import msgspec

from kuaimai.airflow.hooks import KuaimaiHook
from kuaimai.airflow.settings import pipelines_folder, staging
from kuaimai.airflow.stores import state_store
from kuaimai.airflow.targets import open_outlet
from kuaimai.airflow.vaults import VariableVault
from kuaimai.errors import ConfigError, KuaimaiError, SessionError
from kuaimai.extract.details import ask_details
from kuaimai.extract.sample import sample
from kuaimai.gateway import catalog
from kuaimai.gateway.client import CLOCK_WARNING_SECONDS
from kuaimai.gateway.session_report import breaker_key
from kuaimai.gateway.tokens import DAY, TokenRecord
from kuaimai.load.posting import HttpTarget
from kuaimai.pipeline.scopes import SHOP_METHOD, WAREHOUSE_METHOD
from kuaimai.pipeline.spec import readable_pipelines

if TYPE_CHECKING:
    from kuaimai.gateway.answers import Answer
    from kuaimai.gateway.client import Client
    from kuaimai.pipeline.outlets import AnyOutlet
    from kuaimai.pipeline.spec import Pipeline

State = Literal["ok", "warning", "failed"]

_MARKS: dict[State, str] = {"ok": "✓", "warning": "!", "failed": "✗"}
# Beyond this the gateway refuses every call.
_CLOCK_LIMIT_SECONDS = 600.0
_SHORT_SESSION_DAYS = 10.0
_HOURS = 24
# The gateway does not take these credentials at all: appKey, signature or time (reference 4.3).
_CREDENTIALS = {"20", "22", "23", "24", "25", "40"}


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at: what, how it is, and what to do where it is not well."""

    what: str
    state: State
    text: str
    advice: str | None = None

    def line(self) -> str:
        """One line for a terminal, and a second one where something is to be done."""
        advice = f"\n    → {self.advice}" if self.advice else ""
        return f"{_MARKS[self.state]} {self.what}: {self.text}{advice}"

    def plain(self) -> dict[str, Any]:
        """JSON for programs."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built


def examine(
    kuaimai_conn_id: str, dag_file: str, folder: Path | None = None, *, now: Callable[[], float] = time.time
) -> Iterator[Finding]:
    """Look at everything a sync needs; give each finding as soon as it is known.

    Args:
        kuaimai_conn_id: Connection of the gateway.
        dag_file: a DAG file, by whose place the pipelines folder is found.
        folder: of the pipeline files, if it is not that one.
        now: clock, epoch seconds.
    """
    pipelines: list[Pipeline] = []
    yield from _pipelines(folder or pipelines_folder(dag_file), pipelines)
    yield _judged("staging", _staging)
    yield _judged("coordination store", _store)
    tried: set[str] = set()
    for one in pipelines:
        for outlet in one.outlets:
            # A database that several pipelines share is tried once.
            what = f"target {outlet.name}" if outlet.kind == "sql" else f"target {one.name}→{outlet.name}"
            if what not in tried:
                tried.add(what)
                yield _judged(what, partial(_target, what, outlet, one))
    hook = KuaimaiHook(kuaimai_conn_id, now=now)
    try:
        connection = _judged(f"Connection {kuaimai_conn_id}", lambda: _connection(hook))
        yield connection
        if connection.state == "failed":
            return
        session = _judged("session", lambda: _session(hook, now()))
        yield session
        if session.state == "failed":
            return
        client = hook.client("live")
        clock = _judged("clock", lambda: _clock(hook, client, now()))
        yield clock
        if clock.state == "failed":
            return
        yield from _rights(client, pipelines, now())
        yield _judged("rate", lambda: _rate(hook))
    finally:
        hook.close()


def _judged(what: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except KuaimaiError as error:
        return _failed(what, error)


def _failed(what: str, error: KuaimaiError) -> Finding:
    facts = [f"{name} {value}" for name, value in (("code", error.code), ("trace", error.trace_id)) if value]
    text = error.message + (f" [{', '.join(facts)}]" if facts else "")
    return Finding(what, "failed", text, error.hint)


def _pipelines(folder: Path, into: list[Pipeline]) -> Iterator[Finding]:
    try:
        known, refused = readable_pipelines(folder)
    except ConfigError as error:
        yield _failed("pipelines", error)
        return
    into += known.values()
    for mistake in refused:
        yield _failed("pipelines", mistake)
    if into:
        yield Finding("pipelines", "ok", f"{', '.join(known)} in {folder}")
    else:
        yield Finding("pipelines", "failed", f"no valid pipeline in {folder}", "see include/pipelines")


def _staging() -> Finding:
    files = staging()
    name = f"doctor/{uuid4().hex}"
    files.write(f"{name}/page", b"kuaimai")
    with files.reading(f"{name}/page") as file:
        whole = file.read() == b"kuaimai"
    files.remove(name)
    if not whole:
        return Finding("staging", "failed", f"{files.root} gives back other bytes than were written")
    return Finding("staging", "ok", f"{files.root} can be written and read")


def _store() -> Finding:
    with closing(state_store()) as store:
        # Written and read back: a lease that nobody else asks for.
        with store.lease(f"doctor:{uuid4().hex}", owner="kuaimai doctor", ttl_seconds=30) as lease:
            holds = store.still_holds(lease)
        place = store.place
    if not holds:
        return Finding("coordination store", "failed", f"{place} forgets what it was told")
    return Finding("coordination store", "ok", f"{place} can be written and read")


def _target(what: str, outlet: AnyOutlet, pipeline: Pipeline) -> Finding:
    with closing(open_outlet(outlet, pipeline)) as opened:
        rights = opened.try_rights()
        if outlet.kind == "http" and isinstance(opened, HttpTarget):
            api = opened.reach()
            return Finding(what, "warning" if api.advice else "ok", f"{api.text}; {rights}", api.advice)
        return Finding(what, "ok", rights)


def _connection(hook: KuaimaiHook) -> Finding:
    settings = hook.settings
    text = f"{settings.url}, signed by {settings.sign_method}, dialect {settings.dialect}"
    if settings.verify is False:
        return Finding(
            f"Connection {hook.kuaimai_conn_id}",
            "warning",
            f"{text}; TLS certificates are not checked",
            "remove `verify: false` from its extra",
        )
    return Finding(f"Connection {hook.kuaimai_conn_id}", "ok", text)


def _session(hook: KuaimaiHook, now: float) -> Finding:
    given = hook.settings.credentials
    with closing(state_store()) as store:
        breaker = store.breaker(breaker_key(given))
    if breaker is not None:
        return Finding(
            "session",
            "failed",
            f"all jobs of this appKey are stopped: {breaker.reason}",
            "ask Kuaimai for a new accessToken and refreshToken and put them into the Connection's extra",
        )
    record = TokenRecord.parsed(VariableVault(hook.kuaimai_conn_id).read())
    if record is None or record.fingerprint != given.fingerprint():
        return Finding(
            "session",
            "ok",
            "the Connection's own tokens; how long they live is known after the first refresh",
        )
    age = record.age(now=now) / DAY
    if record.expires_at is None:
        return Finding("session", "ok", f"{age:.1f} days old; how long it lives is unknown")
    left = (record.expires_at - now) / DAY
    text = f"{left:.1f} days left, refreshed {age:.1f} days ago"
    if left <= 0:
        return Finding("session", "failed", f"it ended {-left:.1f} days ago", "ask Kuaimai for new tokens")
    if left < _SHORT_SESSION_DAYS:
        return Finding(
            "session", "warning", text, "is the DAG kuaimai_session unpaused, and does it succeed?"
        )
    return Finding("session", "ok", text)


def _clock(hook: KuaimaiHook, client: Client, now: float) -> Finding:
    try:
        sample(client, SHOP_METHOD, now=now)
    except SessionError as error:
        return _failed("session", error)
    except KuaimaiError as error:
        if error.code in _CREDENTIALS:
            return _failed("credentials", error)
        # What else the gateway has against this method is told with the rights.
    off = client.clock_offset
    if off is None:
        return Finding("clock", "ok", f"{hook.settings.url} does not tell its time")
    if abs(off) > CLOCK_WARNING_SECONDS:
        return Finding(
            "clock",
            "failed" if abs(off) >= _CLOCK_LIMIT_SECONDS else "warning",
            f"this machine is {abs(off):.0f} s {'behind' if off > 0 else 'ahead of'} the gateway",
            "synchronise it (NTP); at 600 s every call fails",
        )
    return Finding("clock", "ok", f"within {abs(off):.0f} s of the gateway's")


def _rights(client: Client, pipelines: list[Pipeline], now: float) -> Iterator[Finding]:
    """Ask each method once: lists as their first pipeline does, details by a record of the list."""
    asked = {SHOP_METHOD}
    yield _judged(
        f"right to {SHOP_METHOD}", lambda: _right(SHOP_METHOD, sample(client, SHOP_METHOD, now=now))
    )
    for pipeline in pipelines:
        others = (WAREHOUSE_METHOD,) if pipeline.scope == "warehouse" else ()
        for name in (*others, *pipeline.source.methods):
            if name not in asked:
                asked.add(name)
                yield from _right_of(client, pipeline, name, now)


def _right_of(client: Client, pipeline: Pipeline, name: str, now: float) -> Iterator[Finding]:
    own = name in pipeline.source.methods
    try:
        answer = sample(
            client,
            name,
            now=now,
            hours=_HOURS,
            dimension=pipeline.time.dimension if own else None,
            params=pipeline.source.params if own else None,
        )
        yield _right(name, answer)
    except KuaimaiError as error:
        yield _failed(f"right to {name}", error)
        return
    detail = catalog.method(name).detail
    if detail:
        what = f"right to {detail.method}"
        yield _judged(what, partial(_right_to_detail, client, detail, answer))


def _right(name: str, answer: Answer) -> Finding:
    entry = catalog.method(name)
    total = "" if answer.total is None or not entry.times else f", {answer.total} records in {_HOURS} hours"
    return Finding(f"right to {name}", "ok", f"{entry.label}{total}")


def _right_to_detail(client: Client, detail: catalog.Detail, answer: Answer) -> Finding:
    what, label = f"right to {detail.method}", catalog.method(detail.method).label
    rows = answer.rows(catalog.method(answer.method).list_keys)
    value = next((row[detail.field] for row in rows if row.get(detail.field) is not None), None)
    if value is None:
        return Finding(what, "ok", f"{label}, not tried: {answer.method} has no record in {_HOURS} hours")
    ask_details(client, detail, str(value))
    return Finding(what, "ok", label)


def _rate(hook: KuaimaiHook) -> Finding:
    rate, pace = hook.settings.requests_per_second, hook.pace()
    text = f"{rate:g} requests per second for all processes together"
    if pace < 1:
        return Finding(
            "rate",
            "warning",
            f"{text}; the gateway refused some lately (HTTP 429), so {pace:.0%} of that is used now",
            "it recovers by itself; if it comes again, lower requests_per_second in the Connection's extra, "
            "and ask who else uses this appKey",
        )
    return Finding("rate", "ok", text)
