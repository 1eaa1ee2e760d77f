"""Which time a run covers: the scheduler's interval, or what a person asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pendulum

from kuaimai.airflow.compat import Context, is_scheduled, run_type
from kuaimai.errors import ConfigError
from kuaimai.extract.windows import EVERYTHING, WAREHOUSE, Shop

ZONE = "Asia/Shanghai"


@dataclass(frozen=True)
class RunInterval:
    """The time that a run covers.

    Attributes:
        start: first instant, with zone.
        end: last instant, with zone.
        live: a scheduled run, which also reaches back and heals.
        shops: ids of the shops or warehouses asked for; empty for all.
    """

    start: datetime
    end: datetime
    live: bool
    shops: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the interval as the merchant's wall clock shows it."""
        start, end = pendulum.instance(self.start).in_tz(ZONE), pendulum.instance(self.end).in_tz(ZONE)
        return f"{start:YYYY-MM-DD HH:mm:ss} to {end:YYYY-MM-DD HH:mm:ss}"

    def chosen(self, shops: Iterable[Shop]) -> list[Shop]:
        """Return the shops to read.

        Raises:
            ConfigError: a shop that was asked for is not one of the merchant's.
        """
        known = {shop.id: shop for shop in shops}
        if self.shops and list(known) == [EVERYTHING.id]:
            raise ConfigError(
                "this pipeline reads everything at once, not by shop",
                hint="leave the list of shops or warehouses empty",
            )
        for shop in self.shops:
            if shop not in known:
                kind, field = ("warehouse", "id") if _are_warehouses(known) else ("shop", "userId")
                raise ConfigError(
                    f"{kind} {shop!r} is not one of this merchant's",
                    hint=f"use the ERP's {kind} ids ({field}): {', '.join(sorted(known))}",
                )
        return [known[shop] for shop in self.shops] if self.shops else list(known.values())


def _are_warehouses(known: Mapping[str, Shop]) -> bool:
    return any(one.source == WAREHOUSE for one in known.values())


def run_interval(context: Context) -> RunInterval:
    """Return the time that the run of `context` covers.

    The params `start` and `end` of a manual run win over the scheduler's interval.

    Raises:
        ConfigError: only one of them is given, a text is no time, or the end is not after the start.
    """
    params: Any = context["params"]
    asked_start, asked_end = params.get("start"), params.get("end")
    if bool(asked_start) != bool(asked_end):
        raise ConfigError("give both start and end, or neither", hint="trigger again with both times")
    shops = params.get("shops") or ()
    if asked_start:
        return asked_interval(asked_start, asked_end, shops)
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start is None or end is None or start == end:
        raise ConfigError(
            "this run has no interval of its own", hint="trigger it with the params start and end"
        )
    return _checked(start, end, live=is_scheduled(context), shops=shops)


def scan_interval(context: Context) -> RunInterval:
    """Return the time that the run of `context` stands for when it reads everything, whatever its time.

    A run without an interval of its own, as one by hand may be, stands for the minute before it began.
    """
    shops = context["params"].get("shops") or ()
    by_hand = run_type(context) == "manual"
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start is not None and end is not None and start != end:
        return _checked(start, end, live=not by_hand, shops=shops)
    moment: datetime = context["dag_run"].start_date or pendulum.now()
    return _checked(moment - timedelta(minutes=1), moment, live=not by_hand, shops=shops)


def asked_interval(
    start: str, end: str, shops: Iterable[str] = (), *, names: tuple[str, str] = ("start", "end")
) -> RunInterval:
    """Return the time that a person asked for.

    Args:
        start: its begin; the merchant's wall clock unless it names a zone.
        end: its end.
        shops: ids of the shops; empty for all.
        names: what the two are called where they were asked for.

    Raises:
        ConfigError: a text is no time, the end is not after the start, or it lies in the future.
    """
    return _checked(_moment(start, names[0]), _moment(end, names[1]), live=False, shops=shops)


def _checked(start: datetime, end: datetime, *, live: bool, shops: Iterable[str]) -> RunInterval:
    if end <= start:
        raise ConfigError(f"end {end} is not after start {start}")
    if end > pendulum.now() + timedelta(minutes=1):
        raise ConfigError(f"end {end} lies in the future", hint="give an end that has passed")
    return RunInterval(_plain(start), _plain(end), live, tuple(str(shop) for shop in shops))


def _moment(text: str, name: str) -> datetime:
    try:
        moment = pendulum.parse(text, tz=ZONE)  # a text without zone is the merchant's wall clock
    except ValueError as err:
        raise ConfigError(f"{name} is not a time: {text!r}", hint="write 2026-11-24T08:00:00") from err
    if not isinstance(moment, datetime):
        raise ConfigError(f"{name} is not a moment: {text!r}", hint="write 2026-11-24T08:00:00")
    return moment


def _plain(moment: datetime) -> datetime:
    """Return Airflow's pendulum object as the standard library's, which manifests can hold."""
    return datetime.fromisoformat(moment.isoformat())
