"""The DAG `kuaimai_replay`: records in quarantine once more, by hand, after the pipeline was mended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kuaimai.airflow.compat import DAG, BaseOperator, Context, Param
from kuaimai.airflow.notifications import KuaimaiNotifier
from kuaimai.airflow.operators import told
from kuaimai.airflow.policy import START, TAG, task_defaults
from kuaimai.errors import ConfigError, KuaimaiError
from kuaimai.pipeline.spec import load_pipeline, pipeline_files


def replay_dag(folder: Path) -> DAG | None:
    """Return the DAG for the pipelines of a folder; None if there are none."""
    pipelines = _pipelines(folder)
    if not pipelines:
        return None
    with DAG(
        "kuaimai_replay",
        description="Quarantine once more, after a mapping was mended / 重放隔离记录",
        doc_md=_DOC,
        schedule=None,
        start_date=START,
        catchup=False,
        max_active_runs=1,
        tags=[TAG, "replay"],
        params={
            "pipeline": Param(
                None,
                type=["null", "string"],
                enum=[None, *sorted(pipelines)],
                title="Pipeline / 管道",
                description="Only this one; empty for all. 仅重放此管道；留空为全部。",
            ),
            "ids": Param(
                None,
                type=["null", "array"],
                items={"type": "string"},
                title="Quarantine ids / 隔离编号",
                description="quarantine_id of single records, one per line; empty for all. "
                "单条记录的 quarantine_id，每行一个；留空为全部。",
            ),
        },
        default_args=task_defaults(),
        on_failure_callback=KuaimaiNotifier(),
        render_template_as_native_obj=False,
    ) as dag:
        KuaimaiReplayOperator(
            task_id="replay", pipelines={name: str(path) for name, path in pipelines.items()}
        )
    return dag


class KuaimaiReplayOperator(BaseOperator):
    """Map what waits in quarantine again, for every target of the chosen pipelines; load what fits.

    Args:
        pipelines: name → file.

    Returns:
        `pipeline→target` → how many waited, landed, were filtered, and still do not fit.
    """

    ui_color = "#e8f4ec"

    def __init__(self, *, pipelines: dict[str, str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipelines = pipelines

    def execute(self, context: Context) -> dict[str, dict[str, int]]:
        """Replay; a target that fails does not hold the others, and fails the task at the end."""
        params: Any = context["params"]
        ids = tuple(str(one) for one in params["ids"] or ())
        done: dict[str, dict[str, int]] = {}
        failures: list[KuaimaiError] = []
        with told():
            for name in [params["pipeline"]] if params["pipeline"] else sorted(self.pipelines):
                if name not in self.pipelines:
                    known = ", ".join(sorted(self.pipelines))
                    raise ConfigError(f"there is no pipeline {name!r}", hint=f"there are {known}")
                for target, counts in self._replay(Path(self.pipelines[name]), ids, failures):
                    done[f"{name}→{target}"] = counts
            if failures:
                raise failures[0]
        return done

    def _replay(
        self, path: Path, ids: tuple[str, ...], failures: list[KuaimaiError]
    ) -> list[tuple[str, dict[str, int]]]:
        from kuaimai.airflow.targets import chosen, opened
        from kuaimai.pipeline.replay import pretty, replay

        spec = load_pipeline(path)
        done = []
        for outlet in chosen(spec, None):
            try:
                with opened(spec, outlet.name) as ((_, target),):
                    found = replay(spec, target, ids)
            except KuaimaiError as err:
                self.log.error("%s, target %s: %s", spec.name, outlet.name, err)  # noqa: TRY400 - raised below
                failures.append(err)
                continue
            self.log.info("%s, target %s: %s", spec.name, outlet.name, pretty(found))
            counts = {
                "waiting": found.waiting,
                "landed": found.landed,
                "filtered": found.filtered,
                "still": sum(found.still.values()),
            }
            done.append((outlet.name, counts))
        return done


def _pipelines(folder: Path) -> dict[str, Path]:
    """Return the pipelines of a folder; a file with a mistake has a DAG of its own to show it."""
    found: dict[str, Path] = {}
    for path in pipeline_files(folder):
        try:
            found.setdefault(load_pipeline(path).name, path)
        except ConfigError:
            continue
    return found


_DOC = """
### Quarantine once more / 重放隔离记录

Records that could not be stored are whole in `kuaimai_quarantine`, with the reason. After the pipeline's
file was mended (a field's `type` and column, a filter, a step), *Trigger* maps them again and
loads what fits into the same target. What lands is resolved, and moves from *quarantined* to *landed* in the
count of its window; what still does not fit stays. Nothing is asked of the gateway, and no newer row is moved
back. What a write API refused is sent to it once more, and nothing else is.

A person's data is not in quarantine unless the pipeline keeps it as it is.

**What waits, and why?** `SELECT pipeline, reason, count(*), min(first_seen_at) FROM kuaimai_quarantine
WHERE resolved_at IS NULL GROUP BY pipeline, reason`
"""
