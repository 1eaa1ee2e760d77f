"""Late data, on either line of Airflow: what to give to the DAG, and what Airflow calls then.

Late means: a scheduled run has not succeeded some time after its window ended. Backfills and runs by hand
are never late, whatever interval they cover. docs/adr/0003 says why it is done this way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pendulum

from kuaimai.airflow.channels import DEFAULT_CONN_ID
from kuaimai.airflow.compat import AIRFLOW_V_3_0, AIRFLOW_V_3_1
from kuaimai.airflow.messages import Alert
from kuaimai.airflow.notifications import KuaimaiNotifier, alert_of, run_url

D = TypeVar("D")
# Of the intervals since the last success; Airflow 2 takes about a millisecond for each.
_INTERVALS_TO_CHECK = 600


def lateness(dag_id: str, late_after: timedelta, *, conn_id: str = DEFAULT_CONN_ID) -> dict[str, Any]:
    """Return the arguments of `DAG(...)` that make late data heard.

    On 2.x the last task needs `**last_task(late_after)` as well, and the finished DAG `bounded(dag)`.

    Args:
        dag_id: the DAG they are for.
        late_after: how long after the end of its window a scheduled run may take.
        conn_id: Connection with the channels of the alert.
    """
    if AIRFLOW_V_3_1:
        return {"deadline": _deadline(late_after, conn_id)}
    if AIRFLOW_V_3_0:  # has neither; not supported, but its DAGs should parse
        return {}
    return {"sla_miss_callback": _sla_miss_callback(dag_id, late_after, conn_id)}


def last_task(late_after: timedelta) -> dict[str, Any]:
    """Return the arguments of the DAG's last task: its `sla` on 2.x, nothing on 3.x."""
    return {} if AIRFLOW_V_3_0 else {"sla": late_after}


def bounded(dag: D, *, now: Callable[[], float] = time.time) -> D:
    """Return the DAG, with Airflow 2's search for late intervals bounded; unchanged on 3.x.

    While a run is active, 2.x walks over every interval since the last task's last success, in the process
    that parses the DAG file. After a pause of half a year, or a backfill of last year before the first live
    run, that takes longer than the file may take (50 s): Airflow kills the process, takes the DAG for
    deleted, and deactivates it. Only the newest intervals can be late, so the walk may begin there.

    Args:
        dag: with all its tasks.
        now: epoch seconds.
    """
    if AIRFLOW_V_3_0:
        return dag
    from airflow.timetables.base import DataInterval

    following: Callable[..., Any] = getattr(dag, "next_dagrun_info")  # noqa: B009 - 3.x has none to check

    def next_dagrun_info(last_automated_dagrun: Any, *, restricted: bool = True) -> Any:
        # Unrestricted, it is the SLA check that asks; for scheduling a run it is restricted.
        if not restricted and isinstance(last_automated_dagrun, DataInterval):
            start, end = last_automated_dagrun
            earliest = pendulum.from_timestamp(now()) - (end - start) * _INTERVALS_TO_CHECK
            if end < earliest:
                last_automated_dagrun = DataInterval(earliest, earliest)
        return following(last_automated_dagrun, restricted=restricted)

    vars(dag)["next_dagrun_info"] = next_dagrun_info
    return dag


def _deadline(late_after: timedelta, conn_id: str) -> Any:
    from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

    try:
        from airflow.sdk.definitions.callback import AsyncCallback
    except ImportError:  # 3.1
        from airflow.sdk.definitions.deadline import AsyncCallback  # type: ignore[attr-defined]

    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=late_after,
        callback=AsyncCallback(
            deadline_missed, kwargs={"late_after_seconds": late_after.total_seconds(), "conn_id": conn_id}
        ),
    )


async def deadline_missed(
    *,
    late_after_seconds: float,
    conn_id: str = DEFAULT_CONN_ID,
    context: Mapping[str, Any] | None = None,
) -> None:
    """Alert about a run that missed its deadline, if it is a scheduled one. The triggerer of 3.x calls this.

    Args:
        late_after_seconds: what the run had.
        conn_id: Connection with the channels.
        context: what the scheduler knows of the run, as JSON.
    """
    from asgiref.sync import sync_to_async

    # Connections are asked for in a thread: the triggerer's event loop refuses to wait.
    await sync_to_async(_tell_missed_deadline, thread_sensitive=False)(
        KuaimaiNotifier("late", conn_id=conn_id), context or {}, timedelta(seconds=late_after_seconds)
    )


def _tell_missed_deadline(notifier: KuaimaiNotifier, context: Mapping[str, Any], limit: timedelta) -> None:
    run = context.get("dag_run") or {}
    try:
        alert = alert_of("late", context)
        if run.get("run_type") != "scheduled":
            notifier.log.info(
                "%s %s is a %s run, which has no deadline.", alert.dag_id, alert.run_id, run.get("run_type")
            )
        else:
            notifier.tell_late(alert, limit, str(run.get("state")))
    except Exception as error:  # noqa: BLE001 - Airflow would store the traceback, with whatever is in it
        notifier.lost(error)


def _sla_miss_callback(dag_id: str, limit: timedelta, conn_id: str) -> Callable[..., None]:
    # A function, not a notifier: Airflow 2 asks the callback for its `__name__`.
    def sla_missed(
        _dag: Any, _tasks: str, _blocking: str, misses: Iterable[Any], _task_instances: Any
    ) -> None:
        notifier = KuaimaiNotifier("late", conn_id=conn_id)
        try:
            late = _late_scheduled_runs(dag_id, [miss.execution_date for miss in misses])
            for run in late[:1]:
                notifier.tell_late(_alert_of_run(run), limit, str(run.state))
            if len(late) > 1:
                notifier.log.info("%d more runs of %s are late.", len(late) - 1, dag_id)
        except Exception as error:  # noqa: BLE001 - Airflow would try again at every parse, for ever
            notifier.lost(error)

    return sla_missed


def _late_scheduled_runs(dag_id: str, missed: list[datetime]) -> list[Any]:
    """Return the scheduled runs behind SLA misses that have not succeeded, newest first.

    Airflow 2 books a miss under the interval *after* the one that is late, and also books every interval
    since the last success that never had a run: those before a first live run, while the DAG was paused, or
    passed over because of `catchup=False`. There is no data to wait for in them.
    """
    from airflow.models import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunType

    if not missed:
        return []
    with create_session() as session:
        runs = (
            session.query(DagRun)
            .filter(
                DagRun.dag_id == dag_id,
                DagRun.run_type == DagRunType.SCHEDULED,
                DagRun.state != "success",
                DagRun.data_interval_end >= min(missed),
                DagRun.data_interval_end <= max(missed),
            )
            .order_by(DagRun.data_interval_end.desc())
            .all()
        )
        session.expunge_all()
    ends = set(missed)
    return [run for run in runs if run.data_interval_end in ends]


def _alert_of_run(run: Any) -> Alert:
    return Alert(
        event="late",
        dag_id=run.dag_id,
        run_id=run.run_id,
        start=run.data_interval_start,
        end=run.data_interval_end,
        url=run_url(run.dag_id, run.run_id),
    )
