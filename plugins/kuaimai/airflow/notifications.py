"""Tells people when a run fails, when data is late, and when records need a look: once each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, cast
from urllib.parse import quote

import pendulum

from kuaimai.airflow.channels import DEFAULT_CONN_ID, alert_settings, deliver
from kuaimai.airflow.compat import AIRFLOW_V_3_0, BaseNotifier, Context, conf
from kuaimai.airflow.messages import EVENTS, Alert, Event, body, one_line, title
from kuaimai.errors import ConfigError

# A window that fails again tomorrow is news.
_TOLD_ONCE_SECONDS = 86400.0
# The DAG's own callback can overtake that of the task, which runs when the task's end is known already. Only
# the task can say what happened, so it goes first; what is told here first is then not told again.
_TASK_FIRST_SECONDS = 10.0
# Airflow 2 has this address if nobody set another; on a telephone it leads nowhere.
_UNSET_URLS = ("", "http://localhost:8080")


class KuaimaiNotifier(BaseNotifier):
    """Sends alerts to the channels of an Apprise Connection.

    For `on_failure_callback` of tasks (which know the error) and of the DAG (which sees a run that died
    without one of its tasks failing); both together still tell one thing once. Never raises: an alert that
    cannot be sent must not add a failure to the one it reports.

    Args:
        event: what is told.
        conn_id: Connection with the channels; without it the alert is only a log line.
        details: what happened, for events that are no failure.
        window: time that is told of and told once, where it is not the run's own.
        context: of the run; only for `await KuaimaiNotifier(context=...)`.
        now: epoch seconds.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        event: Event = "failure",
        *,
        conn_id: str = DEFAULT_CONN_ID,
        details: str = "",
        window: tuple[datetime, datetime] | None = None,
        context: Context | None = None,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__()
        if event not in EVENTS:
            raise ConfigError(f"no alert is called {event!r}", hint=f"use one of {', '.join(EVENTS)}")
        self.event = event
        self.conn_id = conn_id
        self.details = details
        self.window = window
        self.context = context or cast("Context", {})
        self._now = now
        self._sleep = sleep

    def notify(self, context: Context | Mapping[str, Any]) -> None:
        """Send the alert that belongs to a run's context."""
        try:
            alert = alert_of(self.event, context, details=self.details)
            if alert.event == "failure" and not alert.task_id and not alert.error:
                self._sleep(_TASK_FIRST_SECONDS)
            self.tell(replace(alert, start=self.window[0], end=self.window[1]) if self.window else alert)
        except Exception as error:  # noqa: BLE001 - see the class
            self.lost(error)

    async def async_notify(self, context: Context | Mapping[str, Any]) -> None:
        """Send the alert from the triggerer, whose event loop must not wait for chat servers."""
        from asgiref.sync import sync_to_async

        await sync_to_async(self.notify, thread_sensitive=False)(context)

    def tell(self, alert: Alert) -> bool:
        """Log the alert, and send it if it is the first of its window and not folded into an earlier one.

        Returns:
            Whether a channel took it.
        """
        alert = replace(alert, error=_masked(alert.error))
        # First of all, because everything after this line can fail.
        self.log.warning("%s | %s", title(alert, "en"), " | ".join(body(alert, "en").splitlines()))
        try:
            settings = alert_settings(self.conn_id)
        except ConfigError as error:
            self.log.error("Alert for %s: %s", alert.dag_id, error)  # noqa: TRY400 - one line, the cause is in it
            return False
        if not self._claim(alert, settings.quiet_seconds):
            return False
        return deliver(
            settings,
            title(alert, settings.language),
            body(alert, settings.language),
            severe=alert.event in ("failure", "late"),
            sleep=self._sleep,
            log=lambda line: self.log.error(
                "Alert for %s, Connection %s: %s", alert.dag_id, self.conn_id, line
            ),
        )

    def tell_late(self, alert: Alert, limit: timedelta, state: str) -> bool:
        """Send the alert about a run that is late, unless it is over by now and that is known.

        Args:
            alert: the run.
            limit: time that it had after its window.
            state: of the run, in Airflow's words.

        Returns:
            Whether a channel took it.
        """
        if state == "success":
            self.log.info("%s %s came late, but it is there.", alert.dag_id, alert.run_id)
            return False
        if state == "failed" and not self._claim(replace(alert, event="failure"), None):
            self.log.info("%s %s failed, and that was told.", alert.dag_id, alert.run_id)
            return False
        late = None
        if alert.end is not None:
            late = datetime.fromtimestamp(self._now(), timezone.utc) - alert.end
        return self.tell(replace(alert, late=late, limit=limit))

    def lost(self, error: Exception) -> None:
        """Log that an alert could not even be attempted."""
        self.log.error("Alert (%s) lost: %s", self.event, one_line(f"{type(error).__name__}: {error}"))

    def _claim(self, alert: Alert, quiet_seconds: float | None) -> bool:
        """Whether nobody told this window before, and (with a quiet time) nothing else of the same kind."""
        from kuaimai.airflow.stores import state_store

        kind = f"alert:{alert.dag_id}:{alert.event}"
        try:
            with contextlib.closing(state_store(now=self._now)) as store:
                if not store.first_alert(f"{kind}:{alert.window}", quiet_seconds=_TOLD_ONCE_SECONDS):
                    self.log.info("This was told before.")
                    return False
                if quiet_seconds is not None and not store.first_alert(kind, quiet_seconds=quiet_seconds):
                    self.log.info("Folded into the alert of the last %.0f minutes.", quiet_seconds / 60)
                    return False
        except Exception as error:  # noqa: BLE001 - told twice is better than not told
            self.log.warning(
                "Alerts may repeat, the coordination store cannot be used: %s", one_line(str(error))
            )
        return True


def alert_of(event: Event, context: Context | Mapping[str, Any], *, details: str = "") -> Alert:
    """Return the alert for a run, from whatever context Airflow gives: of a task, a DAG or a deadline."""
    run = context.get("dag_run") or {}
    task = context.get("ti") or context.get("task_instance")
    dag_id = _of(run, "dag_id") or getattr(context.get("dag"), "dag_id", "") or _of(task, "dag_id") or "?"
    run_id = (
        _of(run, "run_id") or _of(run, "dag_run_id") or context.get("run_id") or _of(task, "run_id") or ""
    )
    start, end = _window(context, run)
    error = context.get("exception")
    failed = error is not None or str(getattr(_of(task, "state"), "value", _of(task, "state"))) == "failed"
    return Alert(
        event=event,
        dag_id=str(dag_id),
        run_id=str(run_id),
        start=start,
        end=end,
        task_id=str(_of(task, "task_id") or "") if failed and event == "failure" else "",
        error=details or (_named(error) if error is not None else ""),
        reason=str(context.get("reason") or ""),
        url=run_url(str(dag_id), str(run_id)),
    )


def run_url(dag_id: str, run_id: str) -> str:
    """Return the address of a run in Airflow's UI; an empty text if nobody told Airflow its own address."""
    section = "api" if AIRFLOW_V_3_0 else "webserver"
    base = str(conf.get(section, "base_url", fallback="")).rstrip("/")
    if base in _UNSET_URLS or not run_id:
        return ""
    if AIRFLOW_V_3_0:
        return f"{base}/dags/{quote(dag_id)}/runs/{quote(run_id, safe='')}"
    return f"{base}/dags/{quote(dag_id)}/grid?dag_run_id={quote(run_id, safe='')}"


def _window(context: Context | Mapping[str, Any], run: Any) -> tuple[datetime | None, datetime | None]:
    asked = _of(run, "conf") or {}
    for source in (context.get("params") or {}, asked):  # a run by hand may cover what a person asked for
        with_start = _moment(source.get("start")), _moment(source.get("end"))
        if None not in with_start:
            return with_start
    return _moment(_of(run, "data_interval_start")), _moment(_of(run, "data_interval_end"))


def _moment(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not value:
        return None
    try:
        moment = pendulum.parse(value, tz="Asia/Shanghai")
    except ValueError:
        return None
    return moment if isinstance(moment, datetime) else None


def _of(thing: Any, name: str) -> Any:
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def _named(error: Any) -> str:
    text = str(error)
    return text if "→" in text or not isinstance(error, BaseException) else f"{type(error).__name__}: {text}"


def _masked(text: str) -> str:
    from airflow.providers.common.compat.sdk import redact

    return str(redact(text))
