"""From a pipeline to its DAG; `dags/` only calls this."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kuaimai.airflow.compat import (
    BACKFILLS_MAP_TASKS,
    DAG,
    AirflowFailException,
    Asset,
    BaseOperator,
    Context,
    CronDataIntervalTimetable,
    Param,
    task_group,
)
from kuaimai.airflow.deadlines import bounded, last_task, lateness
from kuaimai.airflow.interval import ZONE
from kuaimai.airflow.notifications import KuaimaiNotifier
from kuaimai.airflow.operators import (
    KuaimaiExtractOperator,
    KuaimaiLoadOperator,
    KuaimaiPlanOperator,
    KuaimaiRefreshTokenOperator,
    KuaimaiSealOperator,
    KuaimaiSweepOperator,
    KuaimaiTransformOperator,
)
from kuaimai.airflow.policy import START, TAG, task_defaults
from kuaimai.errors import KuaimaiError
from kuaimai.extract.windows import SCAN
from kuaimai.gateway import catalog
from kuaimai.pipeline.outlets import LATE_APART, AnyOutlet
from kuaimai.pipeline.spec import (
    CREATED,
    STRATEGY,
    Further,
    Pipeline,
    check_dags,
    load_pipeline,
    strategy_files,
)

if TYPE_CHECKING:
    from kuaimai.state.budgets import Lane


def pipeline_dags(folder: Path) -> list[DAG]:
    """Return the DAGs of each pipeline file of a folder.

    A pipeline has one of its own, one for each further time dimension, and one for each target that has a
    schedule.

    A file with a mistake becomes a DAG that shows the mistake, so that it cannot take the others down.
    """
    dags: dict[str, DAG] = {}
    taken: dict[str, Path] = {}
    mistakes: dict[Path, str] = {}
    for path in [*sorted(folder.glob("*.yaml")), *strategy_files(folder)]:
        try:
            made = {dag.dag_id: dag for dag in _dags_of(path)}
            check_dags(dict.fromkeys(made, str(path)), taken, path)
        except KuaimaiError as err:
            mistakes[path] = str(err)
        except Exception as err:  # noqa: BLE001 - whatever it is, it is one file's
            mistakes[path] = f"{path}: {type(err).__name__}: {err}"
        else:
            dags |= made
    for path, mistake in mistakes.items():
        dag_id = "kuaimai_" + re.sub(r"[^\w.-]", "_", path.stem)
        while dag_id in dags:
            dag_id += "_refused"
        dags[dag_id] = _broken(dag_id, path, mistake)
    return list(dags.values())


def pipeline_dag(
    pipeline: Pipeline, path: Path, further: Further | None = None, outlet: AnyOutlet | None = None
) -> DAG:
    """Return the DAG of a pipeline: refresh session, plan, per slice extract → transform → load, seal.

    Each target has its own load and seal: one that fails does not hold the others.

    Args:
        pipeline: the pipeline.
        path: its file, which the tasks read again.
        further: the further time dimension to read by; None for the pipeline's own.
        outlet: the target that has a schedule of its own; None for all others. What a further time finds, too
            late for everybody, is written to all.
    """
    dag_id = pipeline.dag_id(further, outlet)
    dimension = further.dimension if further else pipeline.time.dimension
    # What everybody waits for goes before what is looked up again.
    lane: Lane | None = "reconcile" if further else None
    late_after = timedelta(minutes=(further or pipeline).late_after_minutes) if outlet is None else LATE_APART
    written_here = [outlet] if outlet else [one for one in pipeline.outlets if further or not one.schedule]
    names = [one.name for one in written_here]
    with DAG(
        dag_id,
        description=" · ".join(
            [pipeline.description, *([dimension] if further else names if outlet else [])]
        ),
        doc_md=_APART_DOC.format(pipeline=pipeline, outlet=outlet)
        if outlet
        else _doc(pipeline, further, names),
        # Explicit, because a bare cron string is an interval on 2.x and a moment on 3.x.
        schedule=CronDataIntervalTimetable((further or outlet or pipeline).schedule, timezone=ZONE),
        start_date=START,
        # After an outage the next run heals what is missing; a row of old runs would only repeat it.
        catchup=False,
        max_active_runs=1,
        tags=[TAG, pipeline.name],
        params=_params(pipeline, scans=dimension == SCAN),
        # Only what `pipeline_dags` returns is a DAG: one whose id is taken must not come up beside the other.
        auto_register=False,
        default_args=task_defaults(),
        on_failure_callback=KuaimaiNotifier(),
        render_template_as_native_obj=False,
        **lateness(dag_id, late_after),
    ) as dag:
        file = str(path)
        session = KuaimaiRefreshTokenOperator(
            task_id="refresh_session", doc_md="Keeps the 30-day session alive."
        )
        plan = KuaimaiPlanOperator(
            task_id="plan",
            pipeline=file,
            dimension=dimension,
            targets=names,
            lane=lane,
            doc_md="Cuts the run into slices.",
        )

        @task_group(group_id="slice")
        def read_and_write(piece: Any) -> Any:
            extracted = KuaimaiExtractOperator(task_id="extract", pipeline=file, slice=piece, lane=lane)
            transformed = KuaimaiTransformOperator(
                task_id="transform", pipeline=file, manifest=extracted.output
            )
            # What a target misses, the next run brings: among several, none keeps the run open for long.
            patience: dict[str, Any] = {} if len(names) == 1 else {"retries": 1}
            return {
                name: KuaimaiLoadOperator(
                    task_id=_of("load", name, names),
                    pipeline=file,
                    manifest=transformed.output,
                    target=name,
                    **patience,
                ).output
                for name in names
            }

        written: Any = (
            read_and_write.expand(piece=plan.output) if BACKFILLS_MAP_TASKS else read_and_write(plan.output)
        )
        session >> plan
        for name in names:
            plan >> KuaimaiSealOperator(
                task_id=_of("seal", name, names),
                pipeline=file,
                manifests=written[name],
                target=name,
                outlets=[Asset(f"kuaimai://{name}/kuaimai_{pipeline.record.name}")],
                # A merchant without shops has nothing to read; that is a complete answer too.
                trigger_rule="none_failed",
                doc_md="Says whether every window of the run is proven complete.",
                **last_task(late_after),
            )
    return bounded(dag)


def session_dag() -> DAG:
    """Return the DAG `kuaimai_session`: twice a day, session refreshed when due and old staging cleared."""
    with DAG(
        "kuaimai_session",
        description="Session of the Kuaimai Open Platform: refreshed in time / 快麦会话保活",
        doc_md=_SESSION_DOC,
        schedule=CronDataIntervalTimetable("17 */12 * * *", timezone=ZONE),
        start_date=START,
        catchup=False,
        max_active_runs=1,
        tags=[TAG],
        default_args=task_defaults(),
        on_failure_callback=KuaimaiNotifier(),
    ) as dag:
        KuaimaiRefreshTokenOperator(task_id="refresh_session")
        KuaimaiSweepOperator(task_id="sweep_staging")
    return dag


def _dags_of(path: Path) -> list[DAG]:
    """Return the DAGs of one file.

    Raises:
        ConfigError: it has a mistake.
    """
    if path.suffix == STRATEGY:
        from kuaimai.airflow.strategies import lone_strategy

        alone = lone_strategy(path)
        if alone is not None:
            return [alone]
    pipeline = load_pipeline(path)
    return [
        *(pipeline_dag(pipeline, path, further) for further in (None, *pipeline.time.further)),
        *(pipeline_dag(pipeline, path, outlet=outlet) for outlet in pipeline.apart),
    ]


def _of(task: str, name: str, names: list[str]) -> str:
    """Return the id of a target's task; the first target's has no name in it."""
    return task if name == names[0] else f"{task}__{name}"


def _doc(pipeline: Pipeline, further: Further | None, names: Sequence[str]) -> str:
    tables = ", ".join(f"`kuaimai_{one.name}`" for one in pipeline.records)
    targets = ", ".join(f"`{name}`" for name in names)
    if (further or pipeline.time).dimension == SCAN:
        own = f"`kuaimai_{pipeline.name}` brings what changes meanwhile" if further else ""
        return _SCAN_DOC.format(
            pipeline=pipeline,
            tables=tables,
            targets=targets,
            whose=f", one {pipeline.scope} after the other," if pipeline.scope else "",
            others=f"\n* Between two scans {own}." if own else "",
        )
    if further is None:
        return _DOC.format(pipeline=pipeline, tables=tables, targets=targets, others=_others(pipeline))
    reads = (
        f"the day before, from midnight to midnight, in windows of {further.slot_hours} hours"
        if further.day_before
        else f"the last {further.look_back_hours} hours again"
        + (", or more where orders were seen to come later" if further.dimension == CREATED else "")
    )
    return _FURTHER_DOC.format(pipeline=pipeline, further=further, tables=tables, reads=reads)


def _others(pipeline: Pipeline) -> str:
    """What the DAG's documentation says of its sisters, and of lines that come by further calls."""
    said = ""
    detail = catalog.method(pipeline.source.method).detail
    if detail:
        said += f"\n* Lines come by one call of `{detail.method}` for each record that the list brings."
    by_time = [one for one in pipeline.time.further if not one.scans]
    if by_time:
        names = ", ".join(f"`kuaimai_{pipeline.name}__{one.dimension}`" for one in by_time)
        said += f"\n* What never comes by `{pipeline.time.dimension}`, or too late: {names}"
    if len(by_time) < len(pipeline.time.further):
        said += (
            f"\n* What was there before, and what is gone since, which is never reported: "
            f"`kuaimai_{pipeline.name}__{SCAN}`"
        )
    return said


def _broken(dag_id: str, path: Path, mistake: str) -> DAG:
    with DAG(
        dag_id,
        description=f"⚠ {mistake}"[:200],
        doc_md=f"### This pipeline cannot run\n\n```text\n{mistake}\n```\n\nMend `{path.name}`.",
        schedule=None,
        start_date=START,
        tags=[TAG, "broken"],
        auto_register=False,
        default_args={"owner": TAG, "retries": 0},
    ) as dag:
        _Mistake(task_id="mend_the_pipeline", mistake=mistake)
    return dag


class _Mistake(BaseOperator):
    """Fails with the mistake of a pipeline file."""

    def __init__(self, *, mistake: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mistake = mistake

    def execute(self, context: Context) -> None:  # noqa: ARG002 - Airflow's signature
        raise AirflowFailException(self.mistake)


def _params(pipeline: Pipeline, *, scans: bool) -> dict[str, Param]:
    """Return what the form asks: no times where everything is read, no ids where there is one question."""
    params = {} if scans else _times()
    if pipeline.scope == "shop":
        params["shops"] = Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            title="Shops / 店铺",
            description="Shop ids (userId), one per line; empty for all. 店铺编号，每行一个；留空为全部。",
        )
    elif pipeline.scope == "warehouse":
        params["shops"] = Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            title="Warehouses / 仓库",
            description="Warehouse ids, one per line; empty for all. 仓库编号，每行一个；留空为全部。",
        )
    return params


def _times() -> dict[str, Param]:
    return {
        "start": Param(
            None,
            type=["null", "string"],
            format="date-time",
            title="Start / 开始",
            description="Only for a run by hand: first moment to read, Asia/Shanghai unless it names a zone. "
            "仅手动运行：读取的开始时间。",
        ),
        "end": Param(
            None,
            type=["null", "string"],
            format="date-time",
            title="End / 结束",
            description="Last moment to read. 读取的结束时间。",
        ),
    }


_DOC = """
### {pipeline.name}: {pipeline.description}

Mirrors `{pipeline.source.method}` into {tables} (targets: {targets}),
by `{pipeline.time.dimension}`.

* Every scheduled run reads its interval, {pipeline.time.overlap_minutes} minutes before it, and whatever
  the last {pipeline.time.heal_days} days left unsealed, oldest first. After an outage nobody has to act.
* **Is my data complete?** `SELECT * FROM kuaimai_window WHERE state IN ('open', 'contested')`
  (*open*: the next run reads it again; *contested*: it never agreed with the gateway's total, you were
  told; what the nightly reconcile compares, it tries again)
* Records that could not be stored: `SELECT * FROM kuaimai_quarantine WHERE resolved_at IS NULL`
* Any other time: *Trigger* with start and end, or a backfill. Neither moves newer rows back.{others}
"""

_APART_DOC = """
### {pipeline.name}: what `{outlet.name}` gets, at its own rhythm

Reads what `{pipeline.source.method}` brings by `{pipeline.time.dimension}` since its last run, and writes
it to the target `{outlet.name}` alone: `kuaimai_{pipeline.name}` writes the others, and does not wait.

* Its windows are proven for themselves: `SELECT * FROM kuaimai_window
  WHERE pipeline LIKE '{pipeline.name}%' AND state IN ('open', 'contested')`
* Every scheduled run heals what the last {pipeline.time.heal_days} days left unsealed in this target.
* Any other time: *Trigger* with start and end.
"""

_FURTHER_DOC = """
### {pipeline.name}: what `{pipeline.time.dimension}` does not show

Reads the same records (`{pipeline.source.method}`, into {tables}) by
`{further.dimension}`. Records whose platform sends no change time are never found by
`{pipeline.time.dimension}`, and some become visible hours or days late; here they are found.

* Every scheduled run reads {reads},
  and whatever the last {pipeline.time.heal_days} days left unsealed by this dimension. It goes behind the
  live runs in the request budget.
* **What did only this find?** `SELECT window_start, window_end, found_only FROM kuaimai_window
  WHERE dimension = '{further.dimension}' AND found_only > 0`
* **How late do they come?** `SELECT * FROM kuaimai_lateness ORDER BY day DESC`
* Any other time: *Trigger* with start and end reads exactly that, by `{further.dimension}`.
"""

_SCAN_DOC = """
### {pipeline.name}: {pipeline.description}

Reads everything that `{pipeline.source.method}` has{whose} into {tables} (targets: {targets}).

* A scan counts when it is proven complete: one answer that holds all that it counts, or two readings with the
  same records. Only then rows that it did not see get a `_deleted_at`; no row is removed, and one that comes
  again loses the mark.
* **What is there now?** `SELECT * FROM kuaimai_{pipeline.record.name} WHERE _deleted_at IS NULL`
* A scan that misses a large part of the rows is not believed: it marks nothing and stays *open*. If they are
  really gone, *Trigger* the DAG by hand.
* **Is my data complete?** `SELECT * FROM kuaimai_window WHERE state IN ('open', 'contested')`
  (the next scan closes what it has read as well; after five in a row that did not seal you are told)
* Records that could not be stored: `SELECT * FROM kuaimai_quarantine WHERE resolved_at IS NULL`
* There is no past to read: `kuaimai_backfill` and `kuaimai_reconcile` do not offer a scan.{others}
"""

_SESSION_DOC = """
### Session of the Kuaimai Open Platform

An access token lives 30 days and can be refreshed only while it lives. Every pipeline refreshes it when it is
7 days old; this DAG does so while pipelines are paused. From day 20 on it warns, from day 27 on it fails, and
the message says what to ask Kuaimai for. It also removes staging files older than Variable
`kuaimai_staging_days` (7 days).
"""
