"""The DAG `kuaimai_status`: "Is my data complete?", answered in Airflow's UI, every morning and by hand."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kuaimai.airflow.compat import DAG, BaseOperator, Context, CronDataIntervalTimetable
from kuaimai.airflow.interval import ZONE
from kuaimai.airflow.notifications import KuaimaiNotifier
from kuaimai.airflow.policy import START, TAG, task_defaults
from kuaimai.errors import DataError, KuaimaiError
from kuaimai.pipeline.spec import pipeline_files, readable_pipelines

if TYPE_CHECKING:
    from kuaimai.pipeline.spec import Pipeline
    from kuaimai.pipeline.status import PipelineStatus

log = logging.getLogger(__name__)


def status_dag(folder: Path) -> DAG | None:
    """Return the DAG for the pipelines of a folder; None if there are none."""
    if not pipeline_files(folder):
        return None
    with DAG(
        "kuaimai_status",
        description="Is my data complete? / 我的数据全不全？",
        doc_md=_DOC,
        # In the morning, when the night has counted everything once more; between two runs of five minutes.
        schedule=CronDataIntervalTimetable("33 8 * * *", timezone=ZONE),
        start_date=START,
        catchup=False,
        max_active_runs=1,
        tags=[TAG, "status"],
        default_args=task_defaults(),
        on_failure_callback=KuaimaiNotifier(),
    ) as dag:
        KuaimaiStatusOperator(task_id="complete", folder=str(folder))
    return dag


class KuaimaiStatusOperator(BaseOperator):
    """Write into the log how complete each pipeline is in each target; fail if one is not.

    A window that a run is just reading is open: the retries look again when it has ended.

    Args:
        folder: of the pipeline files. What was never read is told and does not fail: its DAG was not
            switched on.

    Returns:
        One mapping for each pipeline and target, as `kuaimai status --json` prints it.
    """

    ui_color = "#e8f4ec"

    def __init__(self, *, folder: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.folder = folder

    def execute(self, context: Context) -> list[dict[str, Any]]:  # noqa: ARG002 - Airflow's signature
        """Ask all targets.

        Raises:
            DataError: something is open, contested or late, a target does not answer, or a file has a
                mistake.
        """
        from kuaimai.pipeline.status import plain, pretty

        pipelines, refused = readable_pipelines(Path(self.folder))
        found = standings(pipelines.values())
        for line in pretty(found, datetime.now(timezone.utc)).splitlines():
            log.info("%s", line)
        for mistake in refused:
            log.error("%s", mistake)
        lacking = [f"{one.pipeline} in {one.target}" for one in found if _lacks(one)]
        if refused:
            lacking.append("a file with a mistake")
        if lacking:
            raise DataError(
                f"not complete, or late: {', '.join(lacking)}", hint="the lines above say what is missing"
            )
        return [plain(one) for one in found]


def standings(pipelines: Iterable[Pipeline]) -> list[PipelineStatus]:
    """Return how complete pipelines are, one status for each target, also of one that does not answer."""
    from kuaimai.airflow.targets import opened
    from kuaimai.pipeline.status import PipelineStatus, status

    found = []
    for pipeline in pipelines:
        for outlet in pipeline.outlets:
            try:
                with opened(pipeline, outlet.name) as [(name, target)]:
                    found.append(status(pipeline, target, name, datetime.now(timezone.utc)))
            except KuaimaiError as error:
                found.append(PipelineStatus(pipeline.name, outlet.name, unknown=str(error)))
    return found


def _lacks(one: PipelineStatus) -> bool:
    return bool(one.unknown or one.late or (one.dimensions and not one.complete))


_DOC = """
### Is my data complete? / 我的数据全不全？

Every morning at 08:33, and whenever you *Trigger* it. **Green: of everything that was planned, nothing is
missing and nothing is late.** Red: the log of the task says which pipeline, since when and why; you are told
as well.
每天 08:33 以及手动触发时检查。绿色：计划过的数据全部读全，没有延迟。
红色：任务日志写明哪个管道、从何时起、为什么，并且告警。

The log is what `kuaimai status` prints: from when until when each pipeline is complete, how many windows
are *sealed*, *open* (the next run reads it again) and *contested* (it never agreed with the gateway's
count), and what is in quarantine. A pipeline that was never read is named and does not count; one that was
paused since is late.

The same as a query: `SELECT * FROM kuaimai_window WHERE state IN ('open', 'contested')`
"""
