"""The command `kuaimai`: what one does beside Airflow."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import kuaimai
from kuaimai.errors import ConfigError, KuaimaiError
from kuaimai.pipeline.backfill_plan import ROWS_PER_SLICE
from kuaimai.sandbox import command as sandbox

# Exit code of `kuaimai status` where something is missing or late.
NOT_COMPLETE = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(prog="kuaimai", description="Kuaimai (快麦 ERP) on Airflow.")
    parser.add_argument("--version", action="version", version=kuaimai.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    about_sandbox = commands.add_parser("sandbox", help="a fake gateway to develop and test against")
    verbs = about_sandbox.add_subparsers(dest="verb", required=True)
    serve = verbs.add_parser("serve", help="serve it over HTTP until Ctrl-C")
    sandbox.add_arguments(serve)
    serve.set_defaults(do=sandbox.serve)
    _add_plan(commands.add_parser("plan", help="count a stretch of the past and say what reading it costs"))
    _add_status(commands.add_parser("status", help="say how complete every pipeline is, and since when"))
    _add_doctor(commands.add_parser("doctor", help="look at everything a sync needs, and say what to do"))
    _add_replay(commands.add_parser("replay", help="take what is in quarantine through the mapping again"))
    _add_preview(commands.add_parser("preview", help="show what a pipeline makes of real records"))
    _add_alerts(commands.add_parser("alerts", help="send a trial alert to every channel"))
    _add_lint(commands.add_parser("lint", help="check pipelines and Qeasy strategies before they run"))
    chosen = parser.parse_args(arguments)
    try:
        done: int = chosen.do(chosen)
    except KuaimaiError as err:
        _complain(err)
        return 1
    except BrokenPipeError:  # whoever reads has seen enough: `kuaimai preview trades | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    return done


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Ask the gateway how many records a stretch of the past holds, and print what the DAG "
        "kuaimai_backfill would read. Credentials come from the Airflow Connection. "
        "Nothing is read and nothing is written."
    )
    parser.add_argument("pipeline", help="its name, e.g. trades")
    moment = "Asia/Shanghai unless it names a zone, e.g. 2026-10-01 or 2026-10-01T08:00"
    parser.add_argument("--from", dest="start", required=True, help=f"first moment; {moment}")
    parser.add_argument("--to", dest="end", required=True, help="last moment")
    parser.add_argument("--shops", default="", help="shop ids (userId) with commas; default: all")
    parser.add_argument("--dimension", help="time dimension; default: created, or the pipeline's own")
    parser.add_argument("--conn-id", default="kuaimai_default", help="default: kuaimai_default")
    parser.add_argument(
        "--rows-per-slice", type=int, default=ROWS_PER_SLICE, help=f"default: {ROWS_PER_SLICE}"
    )
    parser.add_argument("--again", action="store_true", help="count also what is sealed already")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    _add_folder(parser)
    parser.set_defaults(do=_plan)


def _plan(chosen: argparse.Namespace) -> int:
    _need_airflow("plan")
    from kuaimai.airflow.terminal import plan_at_the_terminal  # noqa: PLC0415 - the rest needs no Airflow

    plan = plan_at_the_terminal(
        chosen.pipeline,
        chosen.start,
        chosen.end,
        shops=[shop for shop in chosen.shops.split(",") if shop],
        dimension=chosen.dimension,
        kuaimai_conn_id=chosen.conn_id,
        rows_per_slice=chosen.rows_per_slice,
        again=chosen.again,
        folder=chosen.pipelines,
    )
    _say(_as_json(plan.plain()) if chosen.json else plan.pretty())
    return 0


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print what the coverage of every pipeline says: until when it is complete, what is open, contested "
        f"and in quarantine. Exit code 0: all complete; {NOT_COMPLETE}: something is not; 1: a target does "
        "not answer, or a file has a mistake."
    )
    parser.add_argument("pipelines_named", nargs="*", metavar="pipeline", help="names; default: all")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    _add_folder(parser)
    parser.set_defaults(do=_status)


def _status(chosen: argparse.Namespace) -> int:
    _need_airflow("status")
    from kuaimai.airflow.terminal import status_at_the_terminal  # noqa: PLC0415 - the rest needs no Airflow
    from kuaimai.pipeline.status import plain, pretty  # noqa: PLC0415 - only for this verb

    found, mistakes = status_at_the_terminal(chosen.pipelines_named, folder=chosen.pipelines)
    if chosen.json:
        _say(_as_json([plain(one) for one in found]))
    elif found:
        _say(pretty(found, datetime.now(timezone.utc)))
    for mistake in mistakes:
        _complain(mistake)
    if mistakes or any(one.unknown for one in found):
        return 1
    return 0 if all(one.complete and not one.late for one in found) else NOT_COMPLETE


def _add_replay(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Map the records in quarantine again, by the pipeline's file as it is now, and load what fits. "
        f"Nothing is asked of the gateway. Exit code 0: nothing is left; {NOT_COMPLETE}: some do not fit."
    )
    parser.add_argument("pipelines_named", nargs="*", metavar="pipeline", help="names; default: all")
    parser.add_argument("--target", help="name of one of their targets; default: all")
    parser.add_argument("--ids", default="", help="quarantine_id of records, with commas; default: all")
    _add_folder(parser)
    parser.set_defaults(do=_replay)


def _replay(chosen: argparse.Namespace) -> int:
    _need_airflow("replay")
    from kuaimai.airflow.terminal import replay_at_the_terminal  # noqa: PLC0415 - the rest needs no Airflow
    from kuaimai.pipeline.replay import pretty  # noqa: PLC0415 - only for this verb

    left = False
    ids = [one for one in chosen.ids.split(",") if one]
    for where, done in replay_at_the_terminal(
        chosen.pipelines_named, target=chosen.target, ids=ids, folder=chosen.pipelines
    ):
        _say(f"{where}: {pretty(done)}")
        left = left or bool(done.still)
    return NOT_COMPLETE if left else 0


def _add_preview(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show, for the last page that a run has staged or for one live page, every source field beside its "
        "column, and which records would be set aside and why. Nothing is written but the page of --html."
    )
    parser.add_argument("pipeline", help="its name, e.g. trades")
    parser.add_argument("--live", action="store_true", help="ask the gateway even if a page is staged")
    parser.add_argument("--method", help="one of the pipeline's methods; default: the first")
    parser.add_argument("--conn-id", default="kuaimai_default", help="default: kuaimai_default")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it as one self-contained page too")
    _add_folder(parser)
    parser.set_defaults(do=_preview)


def _preview(chosen: argparse.Namespace) -> int:
    _need_airflow("preview")
    from kuaimai.airflow.terminal import preview_at_the_terminal  # noqa: PLC0415 - the rest needs no Airflow
    from kuaimai.pipeline.preview import as_text  # noqa: PLC0415 - only for this verb
    from kuaimai.pipeline.preview_page import as_page  # noqa: PLC0415 - only for this verb

    found = preview_at_the_terminal(
        chosen.pipeline,
        live=chosen.live,
        method=chosen.method,
        kuaimai_conn_id=chosen.conn_id,
        folder=chosen.pipelines,
    )
    if chosen.html:  # first: whoever reads the text may have seen enough of it, and end this
        try:
            chosen.html.write_text(as_page(found), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{chosen.html} cannot be written: {error.strerror}") from error
    _say(as_text(found))
    if chosen.html:
        _say(f"\nas a page: {chosen.html}")
    return 0


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Look at pipelines, staging, coordination store, targets, Connection, session, clock, the right to "
        "each method and the request rate. Asks one smallest page per method, and write APIs by "
        "OPTIONS; keeps nothing. Exit code 0: all well; 1: something failed."
    )
    parser.add_argument("--conn-id", default="kuaimai_default", help="default: kuaimai_default")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    _add_folder(parser)
    parser.set_defaults(do=_doctor)


def _doctor(chosen: argparse.Namespace) -> int:
    _need_airflow("doctor")
    from kuaimai.airflow.terminal import doctor_at_the_terminal  # noqa: PLC0415 - the rest needs no Airflow

    findings = []
    for finding in doctor_at_the_terminal(chosen.conn_id, folder=chosen.pipelines):
        findings.append(finding)
        if not chosen.json:
            _say(finding.line())
    if chosen.json:
        _say(_as_json([finding.plain() for finding in findings]))
    return 1 if any(finding.state == "failed" for finding in findings) else 0


def _add_alerts(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Send a trial message to every channel of the Connection with the alerts. Exit code 0: each took it; "
        "1: one did not."
    )
    parser.add_argument("--conn-id", default="kuaimai_alerts", help="default: kuaimai_alerts")
    parser.set_defaults(do=_alerts)


def _alerts(chosen: argparse.Namespace) -> int:
    _need_airflow("alerts")
    from kuaimai.airflow.terminal import alerts_at_the_terminal  # noqa: PLC0415 - the rest needs no Airflow

    told, troubles = alerts_at_the_terminal(chosen.conn_id)
    _say(
        "\n".join(
            [told, *troubles, "Look whether it is in the chat: some robots accept what they do not show."]
        )
    )
    return 1 if troubles else 0


def _add_lint(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Check pipelines (YAML) and Qeasy strategies (JSON): mistakes with their place, dangerous settings "
        "with a fix, and how much of a strategy is supported. Nothing is asked of anybody."
    )
    parser.add_argument("places", nargs="+", type=Path, help="files or folders, e.g. include/pipelines")
    parser.set_defaults(do=_lint)


def _lint(chosen: argparse.Namespace) -> int:
    from kuaimai.pipeline.lint import lint  # noqa: PLC0415 - only for this verb

    found = lint(chosen.places)
    _say("\n".join(one.told for one in found))
    return 0 if all(one.runs for one in found) else 1


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pipelines", type=Path, help="folder of the pipeline files; default: as the DAGs find it"
    )


def _need_airflow(verb: str) -> None:
    if find_spec("airflow") is None:
        raise ConfigError(
            f"kuaimai {verb} asks Airflow for its Connections, and Airflow is not installed beside it",
            hint=f"run it with the interpreter that runs Airflow: python -m kuaimai.cli {verb} …",
        )


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _complain(error: KuaimaiError) -> None:
    print(f"kuaimai: {error}", file=sys.stderr, flush=True)  # noqa: T201 - as below


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command talks to its terminal


if __name__ == "__main__":
    sys.exit(main())
