"""The DAGs of Qeasy strategies that mirror nothing: a refresh of the session, or no source at all."""

from __future__ import annotations

from pathlib import Path

from kuaimai.airflow.compat import DAG, BaseOperator, Context, CronDataIntervalTimetable
from kuaimai.airflow.interval import ZONE
from kuaimai.airflow.notifications import KuaimaiNotifier
from kuaimai.airflow.operators import KuaimaiRefreshTokenOperator
from kuaimai.airflow.policy import START, TAG

_TAGS = [TAG, "qeasy"]


def lone_strategy(path: Path) -> DAG | None:
    """Return the DAG of a strategy that mirrors nothing; None for any other.

    Raises:
        ConfigError: the strategy is refused, or cannot be run here.
    """
    from kuaimai.pipeline.qeasy.compiling import load_strategy
    from kuaimai.pipeline.qeasy.mirror import DEFAULT_SCHEDULE, keeps_session, pipeline_name, reads_nothing

    compiled = load_strategy(path)
    if not (keeps_session(compiled) or reads_nothing(compiled)):
        return None
    compiled.findings.check(str(path), "not_run")
    refreshes = keeps_session(compiled)
    with DAG(
        f"kuaimai_{pipeline_name(path)}",
        description=f"轻易云 {compiled.name}",
        doc_md=_SESSION_DOC if refreshes else _EMPTY_DOC,
        schedule=CronDataIntervalTimetable(compiled.crontab or DEFAULT_SCHEDULE, timezone=ZONE),
        start_date=START,
        catchup=False,
        max_active_runs=1,
        tags=_TAGS,
        auto_register=False,
        default_args={"owner": TAG, "retries": 3, "on_failure_callback": KuaimaiNotifier()},
        on_failure_callback=KuaimaiNotifier(),
    ) as dag:
        if refreshes:
            KuaimaiRefreshTokenOperator(task_id="refresh_session")
        else:
            KuaimaiNothingOperator(task_id="nothing_to_do")
    return dag


class KuaimaiNothingOperator(BaseOperator):
    """Stands for a strategy that asks nobody and so has nothing to write; succeeds and says so."""

    def execute(self, context: Context) -> int:  # noqa: ARG002 - Airflow's signature
        """Return how many rows came: none."""
        self.log.info("no source is asked, so no rows come and nothing is written")
        return 0


_SESSION_DOC = """
### The session, refreshed when it is due

The strategy asks `open.token.refresh`. Here one owner refreshes the session of a Connection, at 7 days of its
30, and never twice within 65 minutes; the token in the strategy's file is not used. Every pipeline does the
same before it reads, so this DAG may be deleted.
"""

_EMPTY_DOC = """
### A strategy without a source

Nothing is asked, so nothing is written. Put the source and the target into one file: `[source, target]`.
"""
