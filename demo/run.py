"""The demo: a merchant's orders reach a PostgreSQL on this machine every five minutes, before your eyes.

``make demo`` runs until Ctrl-C. ``make demo-once`` does one interval without a UI, compares the target
with what the sandbox knows to be true, and prints one line of JSON at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import one_interval
import services
from services import DEMO, LOGS, ROOT, DemoError, Process, SandboxGateway
from watch import Watch

PORT = 8080


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Make .demo/ anew; raise DemoError if another demo of this clone is running."""
    DEMO.mkdir(exist_ok=True)
    with (DEMO / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError("a demo is running in this folder already; end it with Ctrl-C first") from None
        for path in DEMO.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()
        LOGS.mkdir()
        yield


class Steps:
    """Says what is being done and how long it took."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.number = 0

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Announce a step and, when it is done, its seconds."""
        self.number += 1
        print(f"[{self.number}/{self.total}] {what} ... ", end="", flush=True)
        started = time.monotonic()
        try:
            yield
        except BaseException:
            print("failed" if not isinstance(sys.exc_info()[1], KeyboardInterrupt) else "", flush=True)
            raise
        print(f"{time.monotonic() - started:.1f} s", flush=True)


def stop() -> None:
    """End all processes; a second Ctrl-C must not cut this short."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    print("stopping ...", flush=True)
    services.end_all()


def run(port: int) -> int:
    """Run everything until Ctrl-C."""
    steps = Steps(4)
    processes: list[Process] = []
    with alone(), contextlib.ExitStack() as stack:
        with steps.step("PostgreSQL, the target"):
            folder = stack.enter_context(services.postgres())
        stack.callback(stop)
        with steps.step("sandbox gateway, the merchant"):
            gateway = SandboxGateway()
            processes.append(gateway.process)
        port = services.free_port(port)
        settings = services.airflow_settings(gateway, folder, port)
        with steps.step("Airflow's metadata database"):
            password = services.write_password(settings)
            services.migrate(settings)
        with steps.step("Airflow: api-server, scheduler, triggerer, dag-processor"):
            processes += services.start_airflow(settings, port)
            services.wait_for(services.ui(port), processes)
            services.unpause(services.DAG_ID, settings, processes)
        command = services.shown(services.write_command(settings))
        print(
            f"\n  UI       http://127.0.0.1:{port}/dags/{services.DAG_ID}"
            f"\n  login    admin / {password}"
            f"\n  rows     {services.psql(folder)}"
            f"\n  ask      {command} status    (or: preview trades, doctor, plan, replay)"
            f"\n  gateway  {gateway.control}/health"
            f"\n  logs     {services.shown(LOGS)}/"
            "\n  stop     Ctrl-C\n",
            flush=True,
        )
        with services.connected(folder) as connection:
            Watch(connection).follow(processes, then=lambda: services.unpause_further(settings))
    return 0


def once() -> int:
    """Do one interval without a UI, compare, print the line of JSON; return 1 unless all is well."""
    steps = Steps(6)
    processes: list[Process] = []
    with alone(), contextlib.ExitStack() as stack:
        with steps.step("PostgreSQL, the target"):
            folder = stack.enter_context(services.postgres())
        stack.callback(stop)
        with steps.step("sandbox gateway, the merchant"):
            gateway = SandboxGateway()
            processes.append(gateway.process)
            # The comparison needs a truth that holds still.
            gateway.ask("clock", {"freeze": True})
        port = services.free_port(PORT)
        settings = services.airflow_settings(gateway, folder, port)
        with steps.step("Airflow's metadata database"):
            services.migrate(settings)
        with steps.step("Airflow, without UI and triggerer"):
            processes += services.start_airflow(settings, port, ui=False)
            services.wait_for(services.execution_api(port), processes)
            services.unpause(services.DAG_ID, settings, processes)
        with steps.step(f"{services.DAG_ID}, the last complete five minutes:"):
            result = one_interval.follow(Path(settings["AIRFLOW_HOME"]), processes)
        with steps.step("target against the sandbox's truth"):
            differences = list(one_interval.differences(gateway, folder))
    for each in differences[:20]:
        print(f"  {each}")
    if differences:
        print(f"{len(differences)} differences between target and truth; logs: {services.shown(LOGS)}/")
    print(json.dumps(result), flush=True)
    well = result["state"] == "success" and result["sealed"] and result["landed"] and not differences
    return 0 if well else 1


def main() -> int:
    """Run the demo; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--once", action="store_true", help="one interval without a UI")
    parser.add_argument("--port", type=int, default=PORT, help="of the UI; a free one if it is taken")
    options = parser.parse_args()
    services.without_foreign_settings()
    os.chdir(ROOT)
    # A shell that starts a command in the background makes it deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return once() if options.once else run(options.port)
    except KeyboardInterrupt:
        print("stopped: no process is left; the logs stay in .demo/ until the next demo", flush=True)
        return 130 if options.once else 0
    except DemoError as err:
        print(f"\ndemo: {err}", file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
