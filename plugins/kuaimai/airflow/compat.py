"""Every difference between Airflow 2.11 and 3.x that this package meets, on top of the compat provider.

The rest of the package imports Airflow's names from here and asks no version.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowPlugin,
    AirflowSkipException,
    Asset,
    BaseHook,
    BaseNotifier,
    BaseOperator,
    Connection,
    Context,
    ObjectStoragePath,
    Param,
    TaskGroup,
    TriggerRule,
    Variable,
    XComArg,
    conf,
    get_current_context,
    mask_secret,
    task_group,
)
from airflow.providers.common.compat.version_compat import (
    AIRFLOW_V_3_0_PLUS,
    AIRFLOW_V_3_1_PLUS,
    AIRFLOW_V_3_3_PLUS,
)

from kuaimai.errors import Transient

if TYPE_CHECKING:
    from airflow.sdk import CronDataIntervalTimetable
elif AIRFLOW_V_3_0_PLUS:
    try:
        from airflow.sdk import CronDataIntervalTimetable
    except ImportError:  # 3.1 does not offer it to DAG authors yet
        from airflow.timetables.interval import CronDataIntervalTimetable
else:
    from airflow.timetables.interval import CronDataIntervalTimetable

AIRFLOW_V_3_0 = AIRFLOW_V_3_0_PLUS
AIRFLOW_V_3_1 = AIRFLOW_V_3_1_PLUS
AIRFLOW_V_3_3 = AIRFLOW_V_3_3_PLUS

BACKFILLS_MAP_TASKS = AIRFLOW_V_3_0
"""`airflow dags backfill` of 2.x expands a mapped task only if it hears of the end of the task before it from
the executor first and from its database second; else it waits for ever or reports a deadlock."""

__all__ = [
    "AIRFLOW_V_3_0",
    "AIRFLOW_V_3_1",
    "AIRFLOW_V_3_3",
    "BACKFILLS_MAP_TASKS",
    "DAG",
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowPlugin",
    "AirflowSkipException",
    "Asset",
    "BaseHook",
    "BaseNotifier",
    "BaseOperator",
    "Connection",
    "Context",
    "CronDataIntervalTimetable",
    "ObjectStoragePath",
    "Param",
    "TaskGroup",
    "TriggerRule",
    "Variable",
    "XComArg",
    "airflow_home",
    "as_server",
    "conf",
    "get_current_context",
    "is_backfill",
    "is_scheduled",
    "mask_secret",
    "read_variable",
    "run_type",
    "stored_variables",
    "task_group",
    "write_connection_extra",
    "write_variable",
]


def airflow_home() -> Path:
    """Return `$AIRFLOW_HOME`, by default `~/airflow`."""
    return Path(os.path.expandvars(os.environ.get("AIRFLOW_HOME") or "~/airflow")).expanduser()


def run_type(context: Context | Mapping[str, Any]) -> str:
    """Return how the run was started: `scheduled`, `manual`, `backfill`, or another of Airflow's words."""
    kind = getattr(context["dag_run"], "run_type", None)
    return str(getattr(kind, "value", kind) or "manual")


def is_backfill(context: Context | Mapping[str, Any]) -> bool:
    """Whether the run belongs to a backfill (`airflow backfill create`, `airflow dags backfill`)."""
    return run_type(context) == "backfill"


def is_scheduled(context: Context | Mapping[str, Any]) -> bool:
    """Whether the scheduler started the run for its time."""
    return run_type(context) == "scheduled"


def as_server() -> None:
    """Let this process see the Connections of the metadata database, as `airflow connections` does on 3.x.

    Only for a command on a machine that has the database; tasks ask their supervisor instead.
    """
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")


def in_task() -> bool:
    """Whether this is a process of 3.x that may reach the metadata only through its supervisor."""
    runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    return AIRFLOW_V_3_0 and getattr(runner, "SUPERVISOR_COMMS", None) is not None


def read_variable(key: str) -> str | None:
    """Return a Variable's text, or None if there is none.

    Raises:
        Transient: it could not be read; that is not the same as absent.
    """
    if in_task():
        return _read_through_supervisor(key)
    from airflow.models.variable import Variable as Stored

    try:
        value = Stored.get(key, None)
    except Exception as error:
        raise Transient(
            f"Airflow Variable {key} cannot be read ({type(error).__name__})",
            hint="Check the metadata database and the Fernet key.",
        ) from error
    return None if value is None else str(value)


def _read_through_supervisor(key: str) -> str | None:
    try:
        value = Variable.get(key, default=None)
        if value is not None:
            return str(value)
        # `get` gives the default also when the API server did not answer. Only the list of keys tells.
        there = hasattr(Variable, "keys") and key in list(Variable.keys(prefix=key))
    except Exception as error:
        raise Transient(
            f"Airflow Variable {key} cannot be read ({type(error).__name__})",
            hint="Check that the API server runs.",
        ) from error
    if there:
        raise Transient(f"Airflow Variable {key} exists but was not given", hint="Check the API server.")
    return None


def write_variable(key: str, value: str, description: str) -> None:
    """Create or replace a Variable.

    Raises:
        Transient: it could not be written.
    """
    try:
        if in_task():
            Variable.set(key, value, description=description)
        else:
            from airflow.models.variable import Variable as Stored

            Stored.set(key, value, description=description)
    except Exception as error:  # noqa: BLE001 - whatever happened, it is not written
        # Not chained: a database error quotes its parameters, and one of them is the value.
        raise Transient(
            f"Airflow Variable {key} cannot be written ({type(error).__name__})",
            hint="Check that the metadata database, or the API server, runs.",
        ) from None


def stored_variables(prefix: str) -> dict[str, str]:
    """Return the metadata database's Variables whose names begin with `prefix`.

    Tasks of 3.x do not reach it and get none; servers (web server, API server) and tasks of 2.x do.
    """
    if in_task():
        return {}
    from airflow.models.variable import Variable as Stored
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.query(Stored).all()
        return {row.key: str(row.val) for row in rows if row.key.startswith(prefix)}


def write_connection_extra(
    conn_id: str, changes: Mapping[str, str], *, if_extra_has: Mapping[str, str]
) -> bool:
    """Change extra fields of a Connection in the metadata database, where a task may write there (2.x).

    Args:
        conn_id: the Connection.
        changes: extra fields and their new values; the others stay.
        if_extra_has: change nothing unless these fields have these values now, so that no edit of a person
            is overwritten.

    Returns:
        Whether it was changed.
    """
    if AIRFLOW_V_3_0:
        return False
    import json

    from airflow.models.connection import Connection as Stored
    from airflow.utils.session import create_session

    with create_session() as session:
        # Locked, because a person may be saving the form at this moment.
        row = session.query(Stored).filter(Stored.conn_id == conn_id).with_for_update().one_or_none()
        if row is None:
            return False  # it comes from the environment or a secrets backend
        extra = row.extra_dejson
        if any(extra.get(name) != value for name, value in if_extra_has.items()):
            return False
        row.set_extra(json.dumps({**extra, **changes}))
    return True
