"""`kuaimai sandbox serve`: the sandbox as a process of its own."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import textwrap
import time
from datetime import datetime
from threading import Event

from kuaimai.sandbox.failures import FAILURES
from kuaimai.sandbox.faults import Faults, described
from kuaimai.sandbox.server import Sandbox
from kuaimai.sandbox.world import GMT8, World

DEFAULT_PORT = 8085


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `serve` to a parser."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="0 for any free one (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=7, help="another seed, another merchant (default: %(default)s)"
    )
    parser.add_argument(
        "--start",
        type=_moment,
        help="when live orders begin, '2026-03-01' or '2026-03-01 08:00:00' in GMT+8 (default: today 00:00)",
    )
    parser.add_argument(
        "--orders-per-hour", type=float, default=240.0, help="live rate (default: %(default)s)"
    )
    parser.add_argument("--days-back", type=float, default=5.0, help="days of history (default: %(default)s)")
    parser.add_argument("--history-orders", type=int, default=600, help="orders in it (default: %(default)s)")
    parser.add_argument("--bulk", type=int, default=0, help="this many orders of history instead")
    parser.add_argument("--bulk-days", type=float, default=1.0, help="days they are spread over")
    parser.add_argument(
        "--shops", type=int, default=6, help="number of shops, 1 to 12 (default: %(default)s)"
    )
    parser.add_argument(
        "--items", type=int, default=12, help="items before the start, at least 10 (default: %(default)s)"
    )
    parser.add_argument(
        "--items-per-day", type=float, default=6.0, help="items that appear later (default: %(default)s)"
    )
    parser.add_argument("--suppliers", type=int, default=8, help="number of suppliers (default: %(default)s)")
    parser.add_argument(
        "--purchases-per-day", type=float, default=24.0, help="purchase orders a day (default: %(default)s)"
    )
    parser.add_argument(
        "--documents-per-day",
        type=float,
        default=12.0,
        help="transfers, counts and so on, of each kind a day (default: %(default)s)",
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="set a switch (drift, page_cap=50) or a failure (429=0.05, 503=next3, disconnect=at7:METHOD); "
        "may be repeated",
    )
    parser.add_argument(
        "--list-faults", action="store_true", help="explain every switch and failure, then end"
    )


def serve(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code.

    The first line on standard output is JSON with `url`, `control` and `credentials`, for programs that start
    the sandbox and need its address; the credentials are invented.
    """
    if args.list_faults:
        sys.stdout.write(explained())
        return 0
    try:
        faults = Faults.parse(args.fault)
        world = World(
            start=args.start or _today(),
            seed=args.seed,
            orders_per_hour=args.orders_per_hour,
            days_back=args.days_back,
            history_orders=args.history_orders,
            bulk=args.bulk,
            bulk_days=args.bulk_days,
            shop_count=args.shops,
            items=args.items,
            items_per_day=args.items_per_day,
            suppliers=args.suppliers,
            purchases_per_day=args.purchases_per_day,
            documents_per_day=args.documents_per_day,
        )
        box = Sandbox(world, faults, host=args.host, port=args.port)
        box.start()
    except (ValueError, OSError) as error:
        sys.stderr.write(f"kuaimai sandbox: {error}\n")
        return 2
    ended = Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    credentials = box.credentials
    first_line = {
        "url": box.url,
        "control": f"{box.root}/sandbox",
        "credentials": {
            "app_key": credentials.app_key,
            "app_secret": credentials.app_secret,
            "access_token": credentials.access_token,
            "refresh_token": credentials.refresh_token,
        },
    }
    sys.stdout.write(json.dumps(first_line) + "\n")
    sys.stdout.flush()
    ended.wait()
    box.stop()
    return 0


def explained() -> str:
    """All switches and failures as text for people."""
    parts = [
        f"{entry['name']} (default {entry['default']!r})\n"
        + textwrap.indent(f"{entry['doc']}\nattacks: {entry['attacks']}\n", "    ")
        for entry in described(Faults())
        if entry["name"] != "plan"
    ]
    parts.append("Failures, each as NAME, NAME=0.05, NAME=next3 or NAME=at7, with :METHOD behind if wanted\n")
    parts += [f"    {name}: {doc}\n" for name, doc in FAILURES.items()]
    return "".join(parts)


def _today() -> datetime:
    return datetime.fromtimestamp(time.time(), GMT8).replace(hour=0, minute=0, second=0, microsecond=0)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a date like 2026-03-01 or 2026-03-01 08:00:00"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=GMT8)
