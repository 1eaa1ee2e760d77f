"""The command `kuaimai`: what one does beside Airflow."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import kuaimai
from kuaimai.errors import KuaimaiError
from kuaimai.sandbox import command as sandbox


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(prog="kuaimai", description="Kuaimai (快麦 ERP) on Airflow.")
    parser.add_argument("--version", action="version", version=kuaimai.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    about_sandbox = commands.add_parser("sandbox", help="a fake gateway to develop and test against")
    verbs = about_sandbox.add_subparsers(dest="verb", required=True)
    sandbox.add_arguments(verbs.add_parser("serve", help="serve it over HTTP until Ctrl-C"))
    chosen = parser.parse_args(arguments)
    try:
        return sandbox.serve(chosen)
    except KuaimaiError as err:
        print(f"kuaimai: {err}", file=sys.stderr)  # noqa: T201 - a command talks to its terminal
        return 1


if __name__ == "__main__":
    sys.exit(main())
