"""The command `kuaimai`: what one does beside Airflow."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import kuaimai
from kuaimai.errors import ConfigError, KuaimaiError
from kuaimai.pipeline.planner import ROWS_PER_SLICE
from kuaimai.sandbox import command as sandbox


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
    chosen = parser.parse_args(arguments)
    try:
        done: int = chosen.do(chosen)
    except KuaimaiError as err:
        print(f"kuaimai: {err}", file=sys.stderr)  # noqa: T201 - a command talks to its terminal
        return 1
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
    parser.add_argument("--dimension", default="created", help="time dimension; default: created")
    parser.add_argument("--conn-id", default="kuaimai_default", help="default: kuaimai_default")
    parser.add_argument(
        "--rows-per-slice", type=int, default=ROWS_PER_SLICE, help=f"default: {ROWS_PER_SLICE}"
    )
    parser.add_argument("--again", action="store_true", help="count also what is sealed already")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    parser.add_argument(
        "--pipelines", type=Path, help="folder of the pipeline files; default: as the DAGs find it"
    )
    parser.set_defaults(do=_plan)


def _plan(chosen: argparse.Namespace) -> int:
    if find_spec("airflow") is None:
        raise ConfigError(
            "kuaimai plan asks Airflow for its Connections, and Airflow is not installed beside this command",
            hint="run it with the interpreter that runs Airflow: python -m kuaimai.cli plan …",
        )
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
    print(  # noqa: T201 - a command talks to its terminal
        json.dumps(plan.plain(), ensure_ascii=False, indent=2) if chosen.json else plan.pretty()
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
