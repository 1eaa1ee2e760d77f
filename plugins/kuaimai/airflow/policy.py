"""What all our DAGs share: the tag, the start, and how their tasks meet failures."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from kuaimai.airflow.notifications import KuaimaiNotifier
from kuaimai.airflow.settings import pool

TAG = "kuaimai"

# Any moment before the first run; windows come from the schedule and from the coverage.
START = datetime(2024, 1, 1, tzinfo=timezone.utc)


def task_defaults() -> dict[str, Any]:
    """Return what every task does about failures; a DAG may change single points."""
    return {
        "owner": TAG,
        "pool": pool(),
        "retries": 3,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
        "execution_timeout": timedelta(hours=2),
        # Only a task knows its error; the DAG itself also hears of time-outs. One message comes of both.
        "on_failure_callback": KuaimaiNotifier(),
    }
