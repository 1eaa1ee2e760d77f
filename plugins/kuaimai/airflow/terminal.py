"""Planning from a terminal of a machine where Airflow is installed, with Airflow's own Connections."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path
from sys import stderr
from typing import TYPE_CHECKING

from kuaimai.errors import ConfigError

if TYPE_CHECKING:
    from kuaimai.pipeline.backfill_plan import BackfillPlan


def plan_at_the_terminal(
    name: str,
    start: str,
    end: str,
    *,
    shops: Iterable[str],
    dimension: str,
    kuaimai_conn_id: str,
    rows_per_slice: int,
    again: bool,
    folder: Path | None = None,
) -> BackfillPlan:
    """Plan a backfill of a pipeline by its name; nothing is written.

    Args:
        name: of the pipeline.
        start: first moment; the merchant's wall clock unless it names a zone.
        end: last moment.
        shops: ids; none for all.
        dimension: the time by which to read.
        kuaimai_conn_id: Connection of the gateway.
        rows_per_slice: at most so many records in a slice.
        again: plan also what is sealed.
        folder: of the pipeline files; by default as the DAG files beside Airflow's find it.

    Raises:
        ConfigError: there is no such pipeline or Connection, or what is asked for cannot be read.
    """
    # Standard output is the plan's: Airflow writes its log there.
    with redirect_stdout(stderr):
        from kuaimai.airflow.backfill import make_plan
        from kuaimai.airflow.compat import as_server, conf
        from kuaimai.airflow.interval import asked_interval
        from kuaimai.airflow.settings import pipelines_folder
        from kuaimai.pipeline.spec import load_pipelines

        as_server()
        logging.getLogger().setLevel(logging.WARNING)
        place = folder or pipelines_folder(f"{conf.get('core', 'dags_folder')}/kuaimai_backfill.py")
        pipelines = {each.name: each for each in load_pipelines(place)}
        if name not in pipelines:
            raise ConfigError(
                f"there is no pipeline {name!r} in {place}", hint=f"there are {', '.join(sorted(pipelines))}"
            )
        return make_plan(
            pipelines[name],
            asked_interval(start, end, shops, names=("--from", "--to")),
            run="plan",
            dimension=dimension,
            kuaimai_conn_id=kuaimai_conn_id,
            rows_per_slice=rows_per_slice,
            again=again,
        )
