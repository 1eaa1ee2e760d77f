"""The DAG `kuaimai_backfill`: a stretch of the past, counted, cut by rows, read below the live runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kuaimai.airflow.compat import (
    DAG,
    AirflowFailException,
    AirflowSkipException,
    Context,
    Param,
    conf,
    task_group,
)
from kuaimai.airflow.interval import RunInterval, asked_interval
from kuaimai.airflow.notifications import KuaimaiNotifier
from kuaimai.airflow.operators import (
    DEFAULT_CONNECTION,
    KuaimaiExtractOperator,
    KuaimaiLoadOperator,
    KuaimaiRefreshTokenOperator,
    KuaimaiTransformOperator,
    _GatewayOperator,
    _PipelineOperator,
    flat,
    told,
)
from kuaimai.airflow.policy import START, TAG, task_defaults
from kuaimai.errors import ConfigError
from kuaimai.gateway import catalog
from kuaimai.pipeline.backfill_plan import ROWS_PER_SLICE
from kuaimai.pipeline.spec import STRATEGY, Pipeline, load_pipeline, pipeline_files

if TYPE_CHECKING:
    from kuaimai.pipeline.backfill_plan import BackfillPlan
    from kuaimai.state.budgets import Lane

LANE: Lane = "backfill"
DIMENSION = "created"
"""By which the past is read unless a person says otherwise: the archive knows it, and an order never leaves
its day of birth."""

# Slices on their way at the same time. The budget sets the pace; more would only fill workers.
_PARALLEL = 4
_NAMES = ("from", "to")


def backfill_dag(folder: Path) -> DAG | None:
    """Return the DAG for the pipelines of a folder; None if there is no pipeline that could run."""
    pipelines = _pipelines(folder)
    if not pipelines:
        return None
    # The file's name, not the pipeline's: the form shows it, and the template turns it into the path.
    ending = f"{{{{ '' if params.pipeline.endswith('{STRATEGY}') else '.yaml' }}}}"
    file = f"{folder}/{{{{ params.pipeline }}}}{ending}"
    with DAG(
        "kuaimai_backfill",
        description="A stretch of the past, planned by rows / 按行数规划的历史补数",
        doc_md=_DOC.format(without=_without(folder, pipelines)),
        schedule=None,
        start_date=START,
        catchup=False,
        max_active_runs=1,
        tags=[TAG, "backfill"],
        params=_params(pipelines),
        # Live tasks of the pool go first, and what is read is written before more is read.
        default_args={**task_defaults(), "weight_rule": "absolute", "priority_weight": -1},
        on_failure_callback=KuaimaiNotifier(),
        render_template_as_native_obj=False,
    ) as dag:
        session = KuaimaiRefreshTokenOperator(
            task_id="refresh_session", doc_md="Keeps the 30-day session alive."
        )
        plan = KuaimaiBackfillPlanOperator(
            task_id="plan", pipeline=file, doc_md="Counts, shows what it costs, cuts slices."
        )

        @task_group(group_id="slice")
        def read_and_write(piece: Any) -> Any:
            limit: dict[str, Any] = {"max_active_tis_per_dagrun": _PARALLEL}
            extracted = KuaimaiExtractOperator(
                task_id="extract", pipeline=file, slice=piece, lane=LANE, priority_weight=-3, **limit
            )
            transformed = KuaimaiTransformOperator(
                task_id="transform", pipeline=file, manifest=extracted.output, priority_weight=-2, **limit
            )
            return KuaimaiLoadOperator(
                task_id="load", pipeline=file, manifest=transformed.output, **limit
            ).output

        report = KuaimaiBackfillReportOperator(
            task_id="report",
            pipeline=file,
            manifests=read_and_write.expand(piece=plan.output),
            # Where everything is sealed already there is nothing to map; that is a complete answer too.
            trigger_rule="none_failed",
            doc_md="Says whether every window of the plan is proven complete.",
        )
        session >> plan
        plan >> report
    return dag


def default_dimension(spec: Pipeline) -> str:
    """Return the time by which the past of a pipeline is read unless a person says otherwise."""
    times = catalog.method(spec.source.method).times
    return DIMENSION if times and DIMENSION in times.dimensions else spec.time.dimension


def make_plan(
    spec: Pipeline,
    asked: RunInterval,
    *,
    run: str,
    dimension: str | None = None,
    kuaimai_conn_id: str = DEFAULT_CONNECTION,
    rows_per_slice: int = ROWS_PER_SLICE,
    again: bool = False,
    most_slices: int | None = None,
) -> BackfillPlan:
    """Plan a backfill with what the Connections say; for the task and for `kuaimai plan`.

    Args:
        spec: the pipeline.
        asked: the time and the shops.
        run: the run's id.
        dimension: the time by which to read; None for `default_dimension`.
        kuaimai_conn_id: Connection of the gateway; its `requests_per_second` is the budget.
        rows_per_slice: at most so many records in a slice.
        again: read also what is sealed.
        most_slices: refuse a plan with more and write the others down as open windows; None writes nothing.

    Raises:
        ConfigError: a Connection is missing, or what is asked for cannot be read.
    """
    from kuaimai.airflow.hooks import KuaimaiHook
    from kuaimai.airflow.targets import planned_for
    from kuaimai.pipeline import planner
    from kuaimai.pipeline.scopes import fetch_scopes

    with closing(KuaimaiHook(kuaimai_conn_id)) as hook, planned_for(spec) as targets:
        client = hook.client(LANE)
        plan = planner.plan_backfill(
            spec,
            run=run,
            start=asked.start,
            end=asked.end,
            shops=asked.chosen(fetch_scopes(spec, client)),
            dimension=dimension or default_dimension(spec),
            client=client,
            rate=hook.settings.requests_per_second,
            target=targets,
            rows_per_slice=rows_per_slice,
            again=again,
        )
        if most_slices is not None:
            if len(plan.slices) > most_slices:
                raise ConfigError(
                    f"the plan has {len(plan.slices)} slices, and Airflow maps at most {most_slices}",
                    hint="ask for less time in each run or more rows a slice, or raise core.max_map_length",
                )
            planner.announce(plan, spec, targets)
    return plan


class KuaimaiBackfillPlanOperator(_GatewayOperator):
    """Plan a stretch of the past; the log shows what it costs.

    Returns:
        One small dict per slice, for `expand`; none for a dry run. The totals are in the XCom `plan`.
    """

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Count and cut."""
        from kuaimai.pipeline.manifests import to_manifest

        params = context["params"]
        dry = bool(params["dry_run"])
        with told():
            plan = make_plan(
                self.spec(),
                asked_interval(params["from"], params["to"], params["shops"] or (), names=_NAMES),
                run=str(context["run_id"]),
                dimension=params["dimension"],
                kuaimai_conn_id=self.kuaimai_conn_id,
                rows_per_slice=params["rows_per_slice"],
                again=bool(params["again"]),
                most_slices=None if dry else conf.getint("core", "max_map_length", fallback=1024),
            )
        self.log.info("%s", f"the plan:\n{plan.pretty()}")
        context["ti"].xcom_push(key="plan", value=plan.figures())
        return [] if dry else [to_manifest(piece) for piece in plan.slices]


class KuaimaiBackfillReportOperator(_PipelineOperator):
    """Say whether everything that was planned is proven complete.

    No later run reads a stretch of the past by itself: one that is not sealed fails the run, so that somebody
    hears of it. A new run over the same time reads only what is missing.

    Args:
        manifests: what the `KuaimaiLoadOperator`s returned.

    Returns:
        The run's summary.
    """

    template_fields = ("pipeline", "manifests")

    def __init__(self, *, manifests: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.manifests = manifests

    def execute(self, context: Context) -> dict[str, Any]:
        """Add up the slices; close the windows of earlier plans that are sealed now."""
        from kuaimai.airflow.targets import opened
        from kuaimai.pipeline import planner
        from kuaimai.pipeline.manifests import Loaded, from_manifest, to_manifest
        from kuaimai.pipeline.summary import pretty, summarise

        params = context["params"]
        if params["dry_run"]:
            raise AirflowSkipException("a dry run only counts; the log of the task `plan` shows the plan")
        with told():
            spec = self.spec()
            loaded = [from_manifest(one, Loaded) for one in flat(self.manifests)]
            summary = summarise(spec, loaded)
            asked = asked_interval(params["from"], params["to"], names=_NAMES)
            now = datetime.now(timezone.utc).timestamp()
            with opened(spec) as targets:
                for _, target in targets:
                    dimension = params["dimension"] or default_dimension(spec)
                    planner.settle(spec, dimension, asked.start, target, now)
        self.log.info("%s", pretty(summary))
        for window in summary.open_windows:
            self.log.warning("not sealed: %s", window)
        if not summary.sealed:
            raise AirflowFailException(
                f"{len(summary.open_windows)} of {summary.windows} windows are not sealed: trigger the DAG "
                "again for the same time, it then reads only these"
            )
        return {**to_manifest(summary), "sealed": True}


def _pipelines(folder: Path) -> dict[str, Pipeline]:
    """Return the pipelines with a past, by their file's stem; strategies by its whole name.

    Those that are read as a whole have none; a file with a mistake has a DAG of its own that shows it.
    """
    return {stem: pipeline for stem, pipeline in _readable(folder) if pipeline.has_times}


def _readable(folder: Path) -> Iterator[tuple[str, Pipeline]]:
    for path in pipeline_files(folder):
        with suppress(ConfigError):
            yield path.name if path.suffix == STRATEGY else path.stem, load_pipeline(path)


def _without(folder: Path, offered: Mapping[str, Pipeline]) -> str:
    """Return a line about the pipelines that are not offered."""
    others = [f"`{stem}`" for stem, _ in _readable(folder) if stem not in offered]
    if not others:
        return ""
    return (
        "* Not offered, because their method knows no times and every run reads everything: "
        f"{', '.join(others)}.\n"
        f"  不提供（接口没有时间条件，每次运行都是全量）：{', '.join(others)}\n"
    )


def _params(pipelines: Mapping[str, Pipeline]) -> dict[str, Param]:
    # A person chooses the pipeline; where there is one alone there is nothing to choose.
    only: dict[str, Any] = {"default": next(iter(pipelines))} if len(pipelines) == 1 else {}
    dimensions: dict[str, None] = {}
    for pipeline in pipelines.values():
        times = catalog.method(pipeline.source.method).times
        dimensions.update(dict.fromkeys(times.dimensions if times else ()))
    return {
        "pipeline": Param(
            **only,
            type="string",
            enum=list(pipelines),
            title="Pipeline / 管道",
            description="Which records to read. 读取哪种数据。",
        ),
        "from": Param(
            type="string",
            format="date-time",
            title="From / 开始",
            description="First moment to read, Asia/Shanghai unless it names a zone. "
            "读取的开始时间，未注明时区时按北京时间。",
        ),
        "to": Param(
            type="string",
            format="date-time",
            title="To / 结束",
            description="Last moment to read; it must have passed. 读取的结束时间，不能晚于现在。",
        ),
        "shops": Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            title="Shops / 店铺",
            description="Shop ids (userId), one per line; empty for all. 店铺编号，每行一个；留空为全部。",
        ),
        "dimension": Param(
            None,
            type=["null", "string"],
            enum=[None, *dimensions],
            title="Time dimension / 时间维度",
            description="Which time of a record lies between from and to; empty for created, or for the "
            "pipeline's own where its method does not know that. Orders beyond three months only by created, "
            "pay_time and consign_time. 按哪个时间取数；留空为 created，接口不支持时用管道自己的时间维度。"
            "三个月以前的订单只支持 created、pay_time、consign_time。",
        ),
        "dry_run": Param(
            False,  # noqa: FBT003 - Airflow's signature
            type="boolean",
            title="Dry run / 只看计划",
            description="Only count, and show the plan in the log of the task plan. "
            "只统计数量，计划见任务 plan 的日志，不读取数据。",
        ),
        "again": Param(
            False,  # noqa: FBT003 - Airflow's signature
            type="boolean",
            title="Again / 重新读取",
            description="Read also what is sealed already. 已封存的时间也重新读取。",
        ),
        "rows_per_slice": Param(
            ROWS_PER_SLICE,
            type="integer",
            minimum=200,
            title="Rows per slice / 每片行数",
            description="At most so many records in one task. 每个任务最多读取的记录数。",
        ),
    }


_DOC = """
### A stretch of the past / 历史补数

Press *Trigger*: pipeline, from, to. With *dry run* nothing is read, and the log of `plan` shows what it would
cost: rows of each day, requests, minutes, share of the request budget.
先勾选 *dry run* 查看计划（行数、请求数、分钟、占用额度），再正式运行。

* Slices of at most `rows_per_slice` records are read side by side, behind every live run.
* **Pause** this DAG and no new slice begins; unpause it and the run goes on.
* A run that failed or was killed: **clear its failed tasks**. A new run over the same time reads only what is
  not sealed yet, unless *again* is set.
* Older than three months: read from the gateway's archive, by created, pay_time or consign_time.
* A newer row is never overwritten by an older one; live runs may go on meanwhile.
{without}"""
