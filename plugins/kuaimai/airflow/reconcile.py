"""The DAG `kuaimai_reconcile`: every night the last days of every pipeline, compared with the gateway.

What cannot be compared, by its pipeline or by its target, has its unsealed windows read again all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pendulum

from kuaimai.airflow.compat import (
    DAG,
    AirflowSkipException,
    Context,
    CronDataIntervalTimetable,
    Param,
    run_type,
)
from kuaimai.airflow.interval import ZONE, RunInterval
from kuaimai.airflow.notifications import KuaimaiNotifier
from kuaimai.airflow.operators import KuaimaiRefreshTokenOperator, _GatewayOperator, told
from kuaimai.airflow.policy import START, TAG, task_defaults
from kuaimai.errors import ConfigError, KuaimaiError, SessionError
from kuaimai.pipeline.comparison import DAYS, comparison
from kuaimai.pipeline.spec import Pipeline, load_pipeline, pipeline_files

if TYPE_CHECKING:
    from datetime import datetime

    from kuaimai.extract.windows import Shop


def reconcile_dag(folder: Path) -> DAG | None:
    """Return the DAG for the pipelines of a folder, one task each; None if none has windows of time."""
    pipelines = _pipelines(folder)
    if not pipelines:
        return None
    with DAG(
        "kuaimai_reconcile",
        description="The last days once more, against the gateway / 夜间核对最近数日",
        doc_md=_DOC.format(without=_without(folder)),
        schedule=CronDataIntervalTimetable("10 4 * * *", timezone=ZONE),
        start_date=START,
        # The next night compares the same days again.
        catchup=False,
        max_active_runs=1,
        tags=[TAG, "reconcile"],
        params=_params(sorted(pipelines)),
        default_args=task_defaults(),
        on_failure_callback=KuaimaiNotifier(),
        render_template_as_native_obj=False,
    ) as dag:
        session = KuaimaiRefreshTokenOperator(
            task_id="refresh_session", doc_md="Keeps the 30-day session alive."
        )
        for name, path in sorted(pipelines.items()):
            session >> KuaimaiReconcileOperator(
                task_id=name,
                pipeline=str(path),
                lane="reconcile",
                doc_md="Compares, mends, marks, reports; fails if differences remain.",
            )
    return dag


class KuaimaiReconcileOperator(_GatewayOperator):
    """Compare the last days of a pipeline with the gateway and mend what differs, target by target.

    Returns:
        How many records were missing, repaired and marked as gone, and how many requests it took.
    """

    def execute(self, context: Context) -> dict[str, int]:
        """Reconcile; skip what the run was not triggered for, and a pipeline that nobody reads."""
        from kuaimai.airflow.settings import staging
        from kuaimai.airflow.targets import open_outlet
        from kuaimai.pipeline import reconcile
        from kuaimai.pipeline.scopes import fetch_scopes

        with told():
            spec, params = self.spec(), context["params"]
            if params["pipeline"] not in {None, spec.name}:
                raise AirflowSkipException(f"this run is for {params['pipeline']} only")
            if params["shops"] and spec.scope != "shop":
                raise AirflowSkipException(f"this run is for some shops; {spec.name} are read of all at once")
            client, asked = self.client(context), _asked(context)
            shops: Sequence[Shop] = ()
            outcomes: list[reconcile.Outcome] = []
            failures: list[KuaimaiError] = []
            for number, outlet in enumerate(spec.outlets):
                try:
                    with closing(open_outlet(outlet, spec)) as target:
                        if not target.standing(spec.name).dimensions:
                            continue  # nobody reads it: to compare would be to begin
                        shops = shops or asked.chosen(fetch_scopes(spec, client))
                        night = reconcile.Night(
                            pipeline=spec,
                            # Answers are staged by run: what one target lacks is not what another does.
                            run=str(context["run_id"]) + (f"-{outlet.name}" if number else ""),
                            until=asked.end,
                            days=params["days"],
                            shops=shops,
                            client=client,
                            staging=staging(),
                        )
                        outcome = reconcile.mend(night, target)
                except SessionError:
                    raise
                except KuaimaiError as err:
                    self.log.warning("target %s is left for the next try: %s", outlet.name, err)
                    failures.append(err)
                    continue
                self.log.info("%s: %s", outlet.name, reconcile.pretty(outcome))
                outcomes.append(outcome)
            if failures:
                raise failures[0]
            for outcome in outcomes:
                reconcile.check(outcome)
        if not outcomes:
            raise AirflowSkipException(f"nothing was read yet; unpause kuaimai_{spec.name} if you need it")
        return {
            **{
                name: sum(outcome.total(name) for outcome in outcomes)
                for name in ("missing", "repaired", "tombstoned")
            },
            "requests": sum(outcome.requests for outcome in outcomes),
        }


def _asked(context: Context) -> RunInterval:
    """Return until when, and which shops: a scheduled run counts from its interval, one by hand from now."""
    params: Any = context["params"]
    interval: datetime | None = context.get("data_interval_end")
    end = interval if interval and run_type(context) != "manual" else pendulum.now(ZONE)
    shops = tuple(str(shop) for shop in params["shops"] or ())
    return RunInterval(end, end, live=False, shops=shops)


def _pipelines(folder: Path) -> dict[str, Path]:
    """Return the pipelines with windows of time; a file with a mistake has a DAG of its own to show it."""
    found: dict[str, Path] = {}
    for path in pipeline_files(folder):
        try:
            pipeline: Pipeline = load_pipeline(path)
        except ConfigError:
            continue
        if pipeline.has_times:
            found.setdefault(pipeline.name, path)
    return found


def _without(folder: Path) -> str:
    """Return a line about the pipelines that are not compared."""
    others = []
    for path in pipeline_files(folder):
        with suppress(ConfigError):
            pipeline = load_pipeline(path)
            if not (comparison(pipeline) and pipeline.databases):
                others.append(f"`{pipeline.name}`")
    if not others:
        return ""
    return (
        f"Not compared: {', '.join(others)}; what is read as a whole is compared by its own scans, and only "
        "databases can be asked what they hold. Their unsealed windows are read again all the same.\n"
        f"不核对 {', '.join(others)}：全量读取的数据由其自身的扫描核对，只有数据库能查询已有的内容。"
        "未能封存的窗口照样再读。\n"
    )


def _params(pipelines: list[str]) -> dict[str, Param]:
    return {
        "days": Param(
            DAYS,
            type="integer",
            minimum=1,
            maximum=80,
            title="Days / 天数",
            description="How many days to compare, yesterday included. 核对最近多少天（含昨天）。",
        ),
        "pipeline": Param(
            None,
            type=["null", "string"],
            enum=[None, *pipelines],
            title="Pipeline / 管道",
            description="Only this one; empty for all. 仅核对此管道；留空为全部。",
        ),
        "shops": Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            title="Shops / 店铺",
            description="Shop ids (userId), one per line; empty for all. 店铺编号，每行一个；留空为全部。",
        ),
    }


_DOC = """
### The last days once more / 夜间核对

Every night at 04:10 each pipeline's yesterday and the seven days before it are counted again, by creation,
per group of shops and two hours (records other than orders: a day), and by the time of change, for changes
that no window has shown. A quiet night costs at most one request for each, and one for as many neighbours
as a page holds together. Where something differs:

* records that are missing, or newer at the gateway, are read by their ids and loaded as always; where the
  method takes no ids (receipts, returns of purchases), with their day;
* records that the gateway has no longer get a `_deleted_at`, with their lines; no row is ever removed;
* windows that could not be sealed, *open* or *contested*, are read again, in every target.

Only pipelines that are read are compared: one whose DAG was never unpaused is skipped.

**What did it find?** `SELECT * FROM kuaimai_reconcile ORDER BY day DESC`
**How much did we sell?** `SELECT * FROM kuaimai_reconcile_total ORDER BY day DESC, shop, status`

A difference that remains fails the task, and the message names the hours.
核对后仍有差异时任务失败并告警，消息中列出时段。

{without}"""
