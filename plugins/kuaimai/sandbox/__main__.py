"""`python -m kuaimai.sandbox serve`."""

from __future__ import annotations

import argparse
import sys

from kuaimai.sandbox.command import add_arguments, serve


def main() -> int:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m kuaimai.sandbox", description="A fake Kuaimai gateway.")
    commands = parser.add_subparsers(required=True)
    add_arguments(commands.add_parser("serve", help="serve until interrupted"))
    return serve(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
