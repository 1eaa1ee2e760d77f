"""What the command `kuaimai` does on a machine where Airflow is installed, with Airflow's own Connections."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path
from sys import stderr
from typing import TYPE_CHECKING

from kuaimai.errors import ConfigError

if TYPE_CHECKING:
    from kuaimai.airflow.doctor import Finding
    from kuaimai.pipeline.backfill_plan import BackfillPlan
    from kuaimai.pipeline.preview import Preview
    from kuaimai.pipeline.replay import Replayed
    from kuaimai.pipeline.spec import Pipeline
    from kuaimai.pipeline.status import PipelineStatus


def plan_at_the_terminal(
    name: str,
    start: str,
    end: str,
    *,
    shops: Iterable[str],
    dimension: str | None,
    kuaimai_conn_id: str,
    rows_per_slice: int,
    again: bool,
    folder: Path | None = None,
) -> BackfillPlan:
    """Plan a backfill of a pipeline by its name; nothing is written.

    Args:
        name: of the pipeline.
        start: first moment; the merchant's wall clock unless it names a zone.
        end: last moment.
        shops: ids; none for all.
        dimension: the time by which to read; None for `default_dimension`.
        kuaimai_conn_id: Connection of the gateway.
        rows_per_slice: at most so many records in a slice.
        again: plan also what is sealed.
        folder: of the pipeline files; by default as the DAG files beside Airflow's find it.

    Raises:
        ConfigError: there is no such pipeline or Connection, or what is asked for cannot be read.
    """
    with _at_home():
        from kuaimai.airflow.backfill import make_plan
        from kuaimai.airflow.interval import asked_interval

        return make_plan(
            _pipelines([name], folder)[0],
            asked_interval(start, end, shops, names=("--from", "--to")),
            run="plan",
            dimension=dimension,
            kuaimai_conn_id=kuaimai_conn_id,
            rows_per_slice=rows_per_slice,
            again=again,
        )


def status_at_the_terminal(
    names: Iterable[str], *, folder: Path | None = None
) -> tuple[list[PipelineStatus], list[ConfigError]]:
    """Return how complete pipelines are in their targets; all of them where none is named.

    A file with a mistake does not hold the others: the mistakes come beside. Neither does a target that does
    not answer: its status says so.

    Raises:
        ConfigError: there is no folder of pipelines.
    """
    with _at_home():
        from kuaimai.airflow.standing import standings

        pipelines, mistakes = _readable(names, folder)
        return standings(pipelines), mistakes


def replay_at_the_terminal(
    names: Iterable[str], *, target: str | None, ids: Iterable[str], folder: Path | None = None
) -> Iterator[tuple[str, Replayed]]:
    """Take what waits in quarantine through the mapping as it is now; give each target's outcome.

    Args:
        names: of the pipelines; none for all.
        target: name of the target; None for all of each pipeline.
        ids: values of `quarantine_id`; none for all.
        folder: of the pipeline files.

    Raises:
        ConfigError: there is no such target or Connection; at the end: there is no such pipeline, or its file
            has a mistake.
        KuaimaiError: a target failed; what was loaded before stays loaded.
    """
    with _at_home():
        pipelines, mistakes = _readable(names, folder)
    chosen = tuple(ids)
    for pipeline in pipelines:
        with _at_home():
            from kuaimai.airflow.targets import opened
            from kuaimai.pipeline.replay import replay

            with opened(pipeline, target) as targets:
                done = [(f"{pipeline.name} → {name}", replay(pipeline, one, chosen)) for name, one in targets]
        yield from done
    _check(mistakes)


def doctor_at_the_terminal(kuaimai_conn_id: str, *, folder: Path | None = None) -> Iterator[Finding]:
    """Look at everything a sync needs; give each finding as soon as it is known."""
    with _at_home():
        from kuaimai.airflow.doctor import examine

        findings = examine(kuaimai_conn_id, _dag_file(), folder)
    while True:
        # Only while something is looked at: between two findings standard output is the caller's.
        with _at_home():
            found = next(findings, None)
        if found is None:
            return
        yield found


def preview_at_the_terminal(
    name: str, *, live: bool, method: str | None, kuaimai_conn_id: str, folder: Path | None = None
) -> Preview:
    """Map the last page that a run has staged, or one live page where there is none or `live` asks for it.

    Raises:
        ConfigError: there is no such pipeline, or it does not use that method.
        KuaimaiError: the gateway does not answer.
    """
    with _at_home():
        from kuaimai.airflow.hooks import KuaimaiHook
        from kuaimai.airflow.settings import staging
        from kuaimai.pipeline.preview import preview
        from kuaimai.pipeline.samples import check_method, last_staged, live_page

        [pipeline] = _pipelines([name], folder)
        chosen = check_method(pipeline, method)
        found = None if live else last_staged(pipeline, staging(), method)
        if found is None:
            with closing(KuaimaiHook(kuaimai_conn_id)) as hook:
                found = live_page(pipeline, hook.client("backfill"), chosen, now=time.time())
        return preview(pipeline, *found)


def alerts_at_the_terminal(conn_id: str) -> tuple[str, list[str]]:
    """Send a trial message to every channel; return how many took it, and what is wrong with the others.

    Raises:
        ConfigError: the Connection is missing or malformed.
    """
    with _at_home():
        from kuaimai.airflow.channels import try_channels

        return try_channels(conn_id)


@contextmanager
def _at_home() -> Iterator[None]:
    """See Airflow's Connections, and keep its log away from standard output, which is the answer's."""
    with redirect_stdout(stderr):
        from kuaimai.airflow.compat import as_server

        as_server()
        logging.getLogger().setLevel(logging.WARNING)
        yield


def _dag_file() -> str:
    from kuaimai.airflow.compat import conf

    return f"{conf.get('core', 'dags_folder')}/kuaimai_backfill.py"


def _pipelines(names: Iterable[str], folder: Path | None) -> list[Pipeline]:
    """Return the pipelines of these names.

    Raises:
        ConfigError: one of them cannot be had.
    """
    found, mistakes = _readable(names, folder)
    _check(mistakes)
    return found


def _readable(names: Iterable[str], folder: Path | None) -> tuple[list[Pipeline], list[ConfigError]]:
    """Return the pipelines of these names, of none all that can be read, and why others are not there."""
    from kuaimai.airflow.settings import pipelines_folder
    from kuaimai.pipeline.spec import readable_pipelines

    place = folder or pipelines_folder(_dag_file())
    known, refused = readable_pipelines(place)
    wanted = list(names)
    there = f"there are {', '.join(sorted(known))}" if known else "see include/pipelines"
    mistakes = [
        ConfigError(f"there is no pipeline {name!r} in {place}", hint=there)
        for name in wanted
        if name not in known
    ]
    if not known and not refused:
        mistakes = [ConfigError(f"there is no pipeline in {place}", hint=there)]
    # A file with a mistake does not hold what is asked about others.
    if mistakes or not wanted:
        mistakes += refused
    return [known[name] for name in wanted or known if name in known], mistakes


def _check(mistakes: list[ConfigError]) -> None:
    if len(mistakes) > 1:
        raise ConfigError("; ".join(map(str, mistakes)))
    if mistakes:
        raise mistakes[0]
