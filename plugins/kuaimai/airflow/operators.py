"""The operators: each builds what its stage needs, calls the stage, logs one line, returns the manifest.

They hold no logic of their own; the stages are plain functions in `kuaimai.pipeline.stages`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kuaimai.airflow.compat import (
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
    Context,
    is_scheduled,
)
from kuaimai.airflow.interval import run_interval, scan_interval
from kuaimai.errors import ConfigError, KuaimaiError, Rejected, SessionError

if TYPE_CHECKING:
    from kuaimai.gateway.client import Client
    from kuaimai.pipeline.spec import Pipeline
    from kuaimai.pipeline.summary import Summary
    from kuaimai.state.budgets import Lane

DEFAULT_CONNECTION = "kuaimai_default"


@contextmanager
def told() -> Iterator[None]:
    """Convert our errors once, at Airflow's border: what a retry cannot mend fails at once.

    Raises:
        AirflowFailException: a setting, the session or the request is wrong; a person must act.
    """
    try:
        yield
    except (ConfigError, SessionError, Rejected) as err:
        raise AirflowFailException(str(err)) from err
    except KuaimaiError:
        raise  # Airflow retries the task


def for_each(given: Any, do: Callable[[Any], dict[str, Any]]) -> Any:
    """Do something with the one slice of a mapped task, or with each slice of a task that is not mapped.

    A slice that heals the past must not hold up the run's own interval: its failure is handed on as
    `{"failed": …}`, and `KuaimaiSealOperator` fails the run with it when everything else has landed.
    """
    if isinstance(given, Mapping):
        return do(given)
    done: list[dict[str, Any]] = []
    for one in given or ():
        try:
            done.append(one if "failed" in one else do(one))
        except KuaimaiError as err:
            if not _heals(one):
                raise
            done.append({"failed": str(err)})
    return done


def flat(manifests: Any) -> list[dict[str, Any]]:
    """Return the manifests that tasks handed over, whichever way they were mapped.

    Where one slice was mapped, Airflow 3 hands over its value instead of a list of one; a task that loads
    into several targets hands over a list.
    """
    if isinstance(manifests, Mapping):
        return [dict(manifests)]
    return [dict(one) for each in manifests or () for one in ([each] if isinstance(each, Mapping) else each)]


def _heals(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest of any stage is about a slice that heals."""
    piece = manifest.get("extracted", manifest)
    return bool(piece.get("slice", piece).get("reason") == "heal")


class _PipelineOperator(BaseOperator):
    """What all stages share: the pipeline's file."""

    template_fields: Sequence[str] = ("pipeline",)
    ui_color = "#e8f4ec"

    def __init__(self, *, pipeline: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline

    def spec(self) -> Pipeline:
        """Read the pipeline's file."""
        from kuaimai.pipeline.spec import load_pipeline

        return load_pipeline(Path(self.pipeline))


class _GatewayOperator(_PipelineOperator):
    """A stage that asks the gateway."""

    template_fields: Sequence[str] = ("pipeline", "kuaimai_conn_id")

    def __init__(
        self, *, kuaimai_conn_id: str = DEFAULT_CONNECTION, lane: Lane | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.kuaimai_conn_id = kuaimai_conn_id
        self.lane = lane

    def client(self, context: Context) -> Client:
        """Return the client of the Connection, in this task's lane of the request budget.

        Unless the DAG names a lane, scheduled runs have the right of way before all others.
        """
        from kuaimai.airflow.hooks import KuaimaiHook

        lane = self.lane or ("live" if is_scheduled(context) else "backfill")
        return KuaimaiHook(self.kuaimai_conn_id).client(lane)


class KuaimaiRefreshTokenOperator(BaseOperator):
    """Refresh the session if it is due; warn from day 20, fail from day 27.

    Returns:
        The session's age and days left; never a token.
    """

    template_fields: Sequence[str] = ("kuaimai_conn_id",)
    ui_color = "#e8f4ec"

    def __init__(self, *, kuaimai_conn_id: str = DEFAULT_CONNECTION, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kuaimai_conn_id = kuaimai_conn_id

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - Airflow's signature
        """Refresh if due."""
        from kuaimai.airflow.hooks import KuaimaiHook

        with told():
            report = KuaimaiHook(self.kuaimai_conn_id).keeper().refresh_if_due()
        level = self.log.warning if report.state == "warning" else self.log.info
        level("%s", report.message)
        return {"state": report.state, "age_days": report.age_days, "days_left": report.days_left}


class KuaimaiPlanOperator(_GatewayOperator):
    """Plan a run: its interval, and on scheduled runs what earlier runs left unsealed.

    Args:
        dimension: the time by which to read; None for the pipeline's own.
        targets: names of the targets that the run writes; None for all.

    Returns:
        One small dict per slice, for `expand`.
    """

    def __init__(
        self, *, dimension: str | None = None, targets: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.dimension = dimension
        self.targets = targets

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Fetch the shops and cut the run into slices."""
        from kuaimai.airflow.notifications import KuaimaiNotifier
        from kuaimai.airflow.targets import planned_for
        from kuaimai.extract.windows import SCAN, Window
        from kuaimai.pipeline.manifests import to_manifest
        from kuaimai.pipeline.scopes import fetch_scopes
        from kuaimai.pipeline.slices import plan_slices

        def missed(lost: Window) -> None:
            KuaimaiNotifier("missed", details=lost.dimension, window=(lost.start, lost.end)).notify(context)

        with told():
            spec = self.spec()
            scans = (self.dimension or spec.time.dimension) == SCAN
            asked = scan_interval(context) if scans else run_interval(context)
            shops = asked.chosen(fetch_scopes(spec, self.client(context)))
            with planned_for(spec, self.targets) as targets:
                slices = plan_slices(
                    spec,
                    run=str(context["run_id"]),
                    start=asked.start,
                    end=asked.end,
                    shops=shops,
                    live=asked.live,
                    target=targets,
                    dimension=self.dimension,
                    on_missed=missed,
                )
        if slices and slices[0].look_back_minutes:
            self.log.info("look-back by creation: %.1f hours", slices[0].look_back_minutes / 60)
        healing = sum(piece.reason == "heal" for piece in slices)
        whose = f"{len(shops)} {spec.scope}s, " if spec.scope else ""
        self.log.info("%s: %s%d slices, %d of them heal", asked, whose, len(slices), healing)
        return [to_manifest(piece) for piece in slices]


class KuaimaiExtractOperator(_GatewayOperator):
    """Read one slice, or several one after the other, into staging.

    Args:
        slice: one dict of `KuaimaiPlanOperator`'s list, or all of them.
    """

    template_fields: Sequence[str] = ("pipeline", "kuaimai_conn_id", "slice")

    def __init__(self, *, slice: Any, **kwargs: Any) -> None:  # noqa: A002 - the word of the field
        super().__init__(**kwargs)
        self.slice = slice

    def execute(self, context: Context) -> Any:
        """Read every page."""
        from kuaimai.airflow.settings import staging
        from kuaimai.extract.windows import Slice
        from kuaimai.gateway.client import CLOCK_WARNING_SECONDS
        from kuaimai.pipeline import stages
        from kuaimai.pipeline.manifests import from_manifest, to_manifest

        def one(manifest: Any) -> dict[str, Any]:
            extracted = stages.extract(spec, from_manifest(manifest, Slice), client, files)
            for read in extracted.reads:
                self.log.info("%s: %s", read.method, read.describe())
            return to_manifest(extracted)

        with told():
            spec, client, files = self.spec(), self.client(context), staging()
            done = for_each(self.slice, one)
            given = [self.slice] if isinstance(self.slice, Mapping) else self.slice or ()
            stages.ended_well((from_manifest(piece, Slice) for piece in given), files)
        if abs(client.clock_offset or 0.0) > CLOCK_WARNING_SECONDS:
            self.log.warning(
                "this machine's clock is %.0f s off the gateway's; at 600 s every call fails (NTP)",
                client.clock_offset,
            )
        return done


class KuaimaiTransformOperator(_PipelineOperator):
    """Type the raw pages of a slice, or of several; asks nothing of the gateway.

    Args:
        manifest: what `KuaimaiExtractOperator` returned.
    """

    template_fields: Sequence[str] = ("pipeline", "manifest")

    def __init__(self, *, manifest: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.manifest = manifest

    def execute(self, context: Context) -> Any:  # noqa: ARG002 - Airflow's signature
        """Write typed batches."""
        from kuaimai.airflow.settings import staging
        from kuaimai.pipeline import stages
        from kuaimai.pipeline.manifests import Extracted, from_manifest, to_manifest

        def one(manifest: Any) -> dict[str, Any]:
            made = stages.transform(spec, from_manifest(manifest, Extracted), files)
            self.log.info("%d batches, %d bad records", len(made.batches), made.bad)
            for reason, count in made.reasons.items():
                self.log.info("%d records left out: %s", count, reason)
            return to_manifest(made)

        with told():
            spec, files = self.spec(), staging()
            return for_each(self.manifest, one)


class KuaimaiLoadOperator(_PipelineOperator):
    """Write a slice and its proof into a target; several slices one after the other.

    Args:
        manifest: what `KuaimaiTransformOperator` returned.
        target: name of the target. None for all of the pipeline's, one after the other: one that fails does
            not hold the others, and fails the task at the end.
    """

    template_fields: Sequence[str] = ("pipeline", "manifest")

    def __init__(self, *, manifest: Any, target: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.manifest = manifest
        self.target = target

    def execute(self, context: Context) -> Any:  # noqa: ARG002 - Airflow's signature
        """Merge the batches and record the windows."""
        from kuaimai.airflow.targets import chosen

        with told():
            spec = self.spec()
            outlets = chosen(spec, self.target)
            if len(outlets) == 1:
                return self._into(spec, outlets[0].name)
            done, failures = [], []
            for outlet in outlets:
                try:
                    done += flat(self._into(spec, outlet.name))
                except KuaimaiError as err:
                    self.log.error("target %s: %s", outlet.name, err)  # noqa: TRY400 - it is raised below
                    failures.append(err)
            if failures:
                raise failures[0]
            return done

    def _into(self, spec: Pipeline, name: str) -> Any:
        from kuaimai.airflow.settings import staging
        from kuaimai.airflow.targets import opened
        from kuaimai.pipeline import stages
        from kuaimai.pipeline.manifests import Transformed, from_manifest, to_manifest
        from kuaimai.pipeline.summary import pretty, summarise

        def one(manifest: Any) -> dict[str, Any]:
            transformed = from_manifest(manifest, Transformed)
            loaded = stages.load(spec, transformed, files, target, name=name)
            self.log.info("%s: %s", name, pretty(summarise(spec, [loaded])))
            return to_manifest(loaded)

        files = staging()
        with opened(spec, name) as ((_, target),):
            return for_each(self.manifest, one)


class KuaimaiSealOperator(_PipelineOperator):
    """Say whether the run's windows are proven complete.

    An open window does not fail the run: the next scheduled run reads it again by itself. But the task is
    then skipped, and the asset event that others wait for does not come. A window that has become contested,
    and records that came later than the look-back reaches, are told to a person.

    Args:
        manifests: what the `KuaimaiLoadOperator`s of a target returned.
        target: its name; None for the pipeline's first.

    Returns:
        The run's summary; `sealed` is the answer.
    """

    template_fields: Sequence[str] = ("pipeline", "manifests")

    def __init__(self, *, manifests: Any, target: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.manifests = manifests
        self.target = target

    def execute(self, context: Context) -> dict[str, Any]:
        """Add up the slices, and close the windows that they have covered."""
        from kuaimai.airflow.settings import quarantine_hours
        from kuaimai.airflow.targets import opened
        from kuaimai.pipeline import coverage
        from kuaimai.pipeline.manifests import Loaded, from_manifest, to_manifest
        from kuaimai.pipeline.summary import pretty, summarise

        with told():
            spec = self.spec()
            manifests = flat(self.manifests)
            failed = [one["failed"] for one in manifests if "failed" in one]
            loaded = [from_manifest(one, Loaded) for one in manifests if "failed" not in one]
            summary = summarise(spec, loaded)
            with opened(spec, self.target or spec.outlets[0].name) as ((_, target),):
                coverage.settle(spec.name, [window for one in loaded for window in one.windows], target)
                held, since = target.oldest_held(spec.name)
                overdue = (
                    held if since and (time.time() - since.timestamp()) / 3600 > quarantine_hours() else 0
                )
        self.log.info("%s", pretty(summary))
        for change in summary.changes:
            self.log.warning("at the source: %s", change)
        for window in summary.open_windows:
            self.log.warning("not sealed: %s", window)
        self._tell(context, summary, overdue)
        answer = {**to_manifest(summary), "sealed": summary.sealed}
        if failed:
            raise AirflowFailException(f"{len(failed)} slices of the past could not be read: {failed[0]}")
        if not summary.sealed:
            # Skipped, so that nobody behind the asset works with data that is not proven complete.
            context["ti"].xcom_push(key="return_value", value=answer)
            raise AirflowSkipException(f"{len(summary.open_windows)} windows are not sealed yet")
        return answer

    def _tell(self, context: Context, summary: Summary, overdue: int) -> None:
        """Tell a person what no later run will mend; once each, and never failing the task."""
        from kuaimai.airflow.notifications import KuaimaiNotifier
        from kuaimai.extract.windows import DAY, cell_start

        if summary.contested:
            first, more = summary.contested[0], len(summary.contested) - 1
            what = f"{first.method} ({first.dimension}): {first.reason}" + (f" (+{more})" if more else "")
            KuaimaiNotifier("contested", details=what, window=(first.start, first.end)).notify(context)
        midnight = cell_start(run_interval(context).end, DAY)  # one alert a day
        if summary.changes:
            KuaimaiNotifier("schema", details="; ".join(summary.changes)).notify(context)
        if overdue:
            KuaimaiNotifier(
                "quarantine", details=f"{overdue} records", window=(midnight, midnight + DAY)
            ).notify(context)
        if summary.outside:
            hours = summary.look_back_minutes / 60
            self.log.warning(
                "%d new records were made longer ago than the look-back of %g hours reaches",
                summary.outside,
                hours,
            )
            KuaimaiNotifier(
                "outside",
                details=f"{summary.outside} records > {hours:g} h",
                window=(midnight, midnight + DAY),
            ).notify(context)


class KuaimaiSweepOperator(BaseOperator):
    """Remove staging files of runs that are older than Variable `kuaimai_staging_days` (7 days)."""

    ui_color = "#e8f4ec"

    def execute(self, context: Context) -> int:  # noqa: ARG002 - Airflow's signature
        """Sweep; return how many files went."""
        from kuaimai.airflow.settings import staging, staging_days

        with told():
            gone = staging().sweep(staging_days())
        self.log.info("%d old staging files removed", gone)
        return gone
