"""What an installation sets: where staging is, where pipelines are, which pool tasks take.

Read when a task runs, or when the DAG file asks; never at import.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from kuaimai.airflow.compat import ObjectStoragePath, airflow_home, read_variable
from kuaimai.errors import ConfigError

if TYPE_CHECKING:
    from kuaimai.extract.staging import Staging
    from kuaimai.load.sql import SqlTarget

STAGING_VARIABLE = "kuaimai_staging"
PIPELINES_ENV = "KUAIMAI_PIPELINES"
POOL_ENV = "KUAIMAI_POOL"


def staging() -> Staging:
    """Return the staging of this installation: `kuaimai_staging` below the Variable's place or AIRFLOW_HOME.

    A plain path or `file://` is a folder on this machine; any other URL is an ObjectStoragePath.
    """
    from kuaimai.extract.staging import Staging

    chosen = read_variable(STAGING_VARIABLE)
    # A folder of our own below what was chosen: old runs are removed there, and nothing else.
    url = f"{chosen.rstrip('/')}/kuaimai_staging" if chosen else str(airflow_home() / "kuaimai_staging")
    if url.startswith("file://"):
        return Staging(Path(url.removeprefix("file://")))
    if "://" not in url:
        return Staging(Path(url))
    return Staging(ObjectStoragePath(url))


def target(conn_id: str) -> SqlTarget:
    """Return the target behind an Airflow Connection; nothing is connected yet."""
    from kuaimai.airflow.stores import target_url
    from kuaimai.load.targets import open_target

    return open_target(target_url(conn_id))


def pipelines_folder(dag_file: str) -> Path:
    """Return the folder of the pipeline files: KUAIMAI_PIPELINES, else `include/pipelines` beside `dags/`."""
    named = os.environ.get(PIPELINES_ENV)
    return Path(named) if named else Path(dag_file).resolve().parent.parent / "include" / "pipelines"


def pool() -> str:
    """Return the pool that limits tasks: KUAIMAI_POOL, else Airflow's default pool."""
    return os.environ.get(POOL_ENV, "default_pool")


def staging_days() -> float:
    """Return how many days staging keeps a run: Variable `kuaimai_staging_days`, else 7.

    Raises:
        ConfigError: the Variable is not a number.
    """
    return _number("kuaimai_staging_days", 7, "days")


def quarantine_hours() -> float:
    """Return after how many hours quarantine alerts: Variable `kuaimai_quarantine_hours`, else 24.

    Raises:
        ConfigError: the Variable is not a number.
    """
    return _number("kuaimai_quarantine_hours", 24, "hours")


def _number(variable: str, default: float, unit: str) -> float:
    text = read_variable(variable)
    if not text:
        return default
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"Variable {variable} is not a number of {unit}: {text!r}") from None
