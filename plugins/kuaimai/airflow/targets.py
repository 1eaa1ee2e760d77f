"""Opens a pipeline's targets with what Airflow's Connections say."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kuaimai.airflow.compat import ObjectStoragePath
from kuaimai.errors import KuaimaiError

if TYPE_CHECKING:
    from kuaimai.load.protocol import Coverage, Target
    from kuaimai.pipeline.outlets import AnyOutlet, HttpOutlet, StatementOutlet
    from kuaimai.pipeline.qeasy.compiled import Compiled
    from kuaimai.pipeline.qeasy.documents import Documents
    from kuaimai.pipeline.spec import Pipeline

log = logging.getLogger(__name__)


def open_outlet(outlet: AnyOutlet, spec: Pipeline) -> Target:
    """Return one target of a pipeline; nothing is connected yet.

    Raises:
        ConfigError: a Connection is missing, or cannot be used.
    """
    from kuaimai.airflow.settings import target
    from kuaimai.airflow.stores import state_url
    from kuaimai.load.files import FilesTarget
    from kuaimai.load.noop import NoopTarget
    from kuaimai.load.targets import open_target

    if outlet.kind == "sql":
        return target(outlet.conn_id)
    book = open_target(state_url())
    if outlet.kind == "files":
        return FilesTarget(
            outlet.name, book, root=_root(outlet.url), form=outlet.format, partition_by=outlet.partition_by
        )
    if outlet.kind == "noop":
        return NoopTarget(outlet.name, book)
    if outlet.kind == "statement":
        return _open_statement(outlet, spec, book)
    return _open_api(outlet, spec, book)


def _open_api(outlet: HttpOutlet, spec: Pipeline, book: Any) -> Target:
    import requests

    from kuaimai.airflow.stores import write_access
    from kuaimai.errors import ConfigError
    from kuaimai.load.api import RowAnswers, WriteApi
    from kuaimai.load.posting import HttpTarget

    access = write_access(outlet.conn_id)
    compiled = _compiled(outlet, spec) if outlet.strategy else None
    documents = _documents(outlet, spec, compiled) if compiled else None
    answers = outlet.answers.model_dump() if outlet.answers else compiled.answers if compiled else None
    if documents is not None and documents.joins is not None and outlet.in_doubt == "ask":
        raise ConfigError(
            f"target {outlet.name}: groupCalculate joins records into documents, and none can be asked for",
            hint="write in_doubt: hold, or resend where the API honours the header Idempotency-Key",
        )
    api = WriteApi(
        **{**access, "url": _joined(access["url"], outlet.path)},
        rows=outlet.rows,
        rows_key=outlet.rows_key,
        body=outlet.body,
        id_check=outlet.id_check,
        in_doubt=outlet.in_doubt,
        ask_url=_joined(access["url"], outlet.ask_path),
        answers=RowAnswers(**answers) if answers else None,
        timeout=outlet.timeout_seconds,
        tries=outlet.tries,
    )
    return HttpTarget(
        outlet.name,
        book,
        api=api,
        transport=requests.Session(),
        pipeline_version=spec.fingerprint,
        requests_per_second=outlet.requests_per_second,
        document=documents,
        joins=documents.joins if documents else None,
        keep=documents.keep if documents else None,
    )


def _open_statement(outlet: StatementOutlet, spec: Pipeline, book: Any) -> Target:
    from kuaimai.airflow.settings import target
    from kuaimai.errors import ConfigError
    from kuaimai.load.statements import StatementTarget
    from kuaimai.pipeline.qeasy.statements import MAIN_PARAMS

    documents = _documents(outlet, spec, _compiled(outlet, spec))
    statement = documents.statement
    if statement is None:
        raise ConfigError(
            f"{outlet.strategy} has no statement to execute", hint="its api is execute or batchexecute"
        )
    return StatementTarget(
        outlet.name,
        book,
        engine=target(outlet.conn_id).engine,
        statement=statement.text,
        rows=statement.limit,
        again=statement.again,
        id_check=outlet.id_check,
        document=documents,
        joins=documents.joins,
        following=documents.following,
        main=MAIN_PARAMS,
        pipeline_version=spec.fingerprint,
    )


def _compiled(outlet: HttpOutlet | StatementOutlet, spec: Pipeline) -> Compiled:
    """The target's Qeasy strategy, from the pipeline's folder."""
    from kuaimai.pipeline.qeasy.compiling import load_strategy
    from kuaimai.pipeline.qeasy.documents import check_usable

    file = Path(outlet.strategy)
    compiled = load_strategy(file)
    check_usable(compiled, spec.record.name, spec.kept_personal, str(file))
    return compiled


def _documents(outlet: HttpOutlet | StatementOutlet, spec: Pipeline, compiled: Compiled) -> Documents:
    """What a Qeasy strategy makes of a record; it looks up in the pipeline's first database."""
    from kuaimai.airflow.settings import target
    from kuaimai.pipeline.qeasy.documents import Documents
    from kuaimai.pipeline.qeasy.lookups import SqlLookups

    lookups = SqlLookups(target(spec.databases[0]).engine) if spec.databases else None
    return Documents(compiled, lookups, file=Path(outlet.strategy).name)


def _joined(url: str, path: str) -> str:
    """Without a slash the path would be part of the host's name: another host would get the token."""
    return url + (path if path.startswith(("/", "?")) or not path else f"/{path}")


def _root(url: str) -> Any:
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    return ObjectStoragePath(url) if "://" in url else Path(url)


@contextmanager
def opened(spec: Pipeline, name: str | None = None) -> Iterator[list[tuple[str, Target]]]:
    """Open the target of that name, or all of them, and close them at the end.

    Raises:
        ConfigError: one cannot be opened; or the pipeline has no target of that name.
    """
    with ExitStack() as stack:
        yield [
            (outlet.name, stack.enter_context(closing(open_outlet(outlet, spec))))
            for outlet in chosen(spec, name)
        ]


@contextmanager
def planned_for(spec: Pipeline, names: Collection[str] | None = None) -> Iterator[Coverage]:
    """Open the targets that can be opened, as one, for a plan; what another lacks is found later.

    Args:
        spec: the pipeline.
        names: its targets that the run writes; None for all.

    Raises:
        KuaimaiError: none can be.
    """
    from kuaimai.pipeline.together import together

    there: list[Target] = []
    failure: KuaimaiError | None = None
    with ExitStack() as stack:
        for outlet in spec.outlets:
            if names is not None and outlet.name not in names:
                continue
            try:
                there.append(stack.enter_context(closing(open_outlet(outlet, spec))))
            except KuaimaiError as err:
                log.warning("target %s cannot be opened and is left out of the plan: %s", outlet.name, err)
                failure = err
        if failure is not None and not there:
            raise failure
        yield together(there)


def chosen(spec: Pipeline, name: str | None) -> Sequence[AnyOutlet]:
    """Return the target of that name, or all.

    Raises:
        ConfigError: there is none.
    """
    from kuaimai.errors import ConfigError

    found = [outlet for outlet in spec.outlets if name in (None, outlet.name)]
    if not found:
        known = ", ".join(outlet.name for outlet in spec.outlets)
        raise ConfigError(f"pipeline {spec.name} has no target {name!r}", hint=f"it has {known}")
    return found
