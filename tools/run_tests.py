"""Run all tests: the core first, then what needs Airflow, side by side where the processors allow it.

``python3 tools/run_tests.py`` runs everything; ``... core airflow3`` only those environments. One line
per suite as it ends, the log of what failed, and one closing line that sums it up. The environments
must be there (``make test`` makes them).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from environments import ENVIRONMENTS, ROOT

LOGS = ROOT / "build" / "tests"
SUITE_MINUTES = 20  # a suite that takes longer hangs
SHOWN_LINES = 300  # of a failed suite's log; the whole is in build/tests/
NO_TESTS = 5  # pytest's exit code
PROCESSORS = os.cpu_count() or 1
# One worker for each processor, and long tests are taken over.
ON_ALL = ("-n", "auto", "--dist", "worksteal")
# One more where tests wait for databases and disks.
ON_ALL_AND_ONE = ("-n", str(PROCESSORS + 1), "--dist", "worksteal")


@dataclass(frozen=True)
class Suite:
    """Folders of tests that one pytest runs in one environment.

    Attributes:
        environment: its name in `ENVIRONMENTS`.
        folders: below tests/.
        processors: how many it keeps busy.
        options: what pytest is told besides.
    """

    environment: str
    folders: tuple[str, ...]
    processors: int = 1
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What its files in build/tests/ are called."""
        return "-".join((self.environment, *self.folders))


# Stages follow one another; within a stage, what takes longest begins first. Suites with Airflow have one
# process each: to start Airflow in further ones would cost more than they save.
STAGES = (
    # The core needs no server. Alone, so that its time says something.
    (Suite("core", ("core",), PROCESSORS, ON_ALL),),
    # Databases and processes; and the mirror, which lets the sandbox misbehave for hours of its time.
    (Suite("core", ("sandbox", "store", "mirror"), PROCESSORS, ON_ALL_AND_ONE),),
    (
        Suite("airflow2", ("store",)),  # again, because Airflow 2.11 brings SQLAlchemy 1.4
        Suite("airflow3", ("install",)),
        Suite("airflow2", ("install",)),
        Suite("airflow3", ("provider",)),
        Suite("airflow2", ("provider",)),
        Suite("airflow3", ("dags",)),
        Suite("airflow2", ("dags",)),
    ),
    # Schedulers with their tasks fill two processors; with less, they would wait for one another.
    (
        Suite("airflow3", ("e2e",), 2),
        Suite("airflow2", ("e2e",), 2),
    ),
)


@dataclass(frozen=True)
class Count:
    """How many tests of a suite passed, failed (or broke) and were skipped."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Count) -> Count:
        """Sum two counts."""
        return Count(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        """Write it as people and the CI read it."""
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


class Runner:
    """Runs suites as process groups of their own, so that stopping leaves nothing behind."""

    def __init__(self, pytest_options: list[str]) -> None:
        self.pytest_options = pytest_options
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.talking = threading.Lock()
        self.stopped = False

    def stage(self, suites: list[Suite]) -> Count:
        """Run suites, as many at a time as there are processors for, and return their sum."""
        if not suites:
            return Count()
        side_by_side = max(1, PROCESSORS // max(suite.processors for suite in suites))
        with ThreadPoolExecutor(side_by_side) as pool:
            try:
                return sum(pool.map(self.suite, suites), Count())
            except BaseException:
                self.stop()  # or the pool would wait for what runs
                raise

    def suite(self, suite: Suite) -> Count:
        """Run one suite, print how it went and return its count."""
        if self.stopped:
            return Count()
        log, report = LOGS / f"{suite.name}.log", LOGS / f"{suite.name}.xml"
        report.unlink(missing_ok=True)
        command = [
            *(str(ENVIRONMENTS[suite.environment].python), "-m", "pytest", "--durations=10", "--color=no"),
            *(f"tests/{folder}" for folder in suite.folders),
            *(
                "-o",
                f"cache_dir=.pytest_cache/{suite.name}",
                "-o",
                f"faulthandler_timeout={SUITE_MINUTES * 45}",
            ),
            *(f"--junitxml={report}", *suite.options, *self.pytest_options),
        ]
        # A developer's own Airflow or Python settings must not decide what is tested.
        foreign = ("AIRFLOW", "KUAIMAI", "PYTHON")
        settings = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        # A folder for everything temporary, so that whatever a killed suite leaves can be found.
        settings["TMPDIR"] = tempfile.mkdtemp(prefix="kuaimai-tests-")
        started = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=settings,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.running[process.pid] = process
            try:
                code: int | None = process.wait(timeout=SUITE_MINUTES * 60)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                kill_group(process.pid)
                stop_databases(Path(settings["TMPDIR"]))
                shutil.rmtree(settings["TMPDIR"], ignore_errors=True)
                self.running.pop(process.pid, None)
        if self.stopped:
            return Count()
        count = read_report(report)
        if code not in (0, NO_TESTS) and count.failed == 0:
            count += Count(failed=1)  # it broke before or after the tests themselves
        with self.talking:
            label = f"{suite.environment} {', '.join(suite.folders)}"
            print(f"{label:<28} {count}  ({time.monotonic() - started:.0f} s)", flush=True)
            if count.failed:
                why = "stopped, took too long" if code is None else f"exit code {code}"
                print(f"--- {suite.name}: {why}; from {log.relative_to(ROOT)}:")
                print(shown(log), flush=True)
                print(f"--- end of {suite.name}", flush=True)
        return count

    def stop(self) -> None:
        """End everything that runs."""
        self.stopped = True
        for pid in list(self.running):
            kill_group(pid)


def kill_group(pid: int) -> None:
    """End a process group that we started, whatever is left of it."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def stop_databases(folder: Path) -> None:
    """End PostgreSQL servers with their data below `folder`: they leave the process group at their start."""
    for pid_file in folder.rglob("postmaster.pid"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            os.kill(int(pid_file.read_text().splitlines()[0]), signal.SIGQUIT)  # at once, no clean-up


def read_report(report: Path) -> Count:
    """Count the test cases of a JUnit file; a missing or cut file counts nothing."""
    try:
        cases = list(ET.parse(report).getroot().iter("testcase"))  # noqa: S314  our own file
    except (OSError, ET.ParseError):
        return Count()
    failed = sum(1 for case in cases if case.find("failure") is not None or case.find("error") is not None)
    skipped = sum(1 for case in cases if case.find("skipped") is not None)
    return Count(len(cases) - failed - skipped, failed, skipped)


def shown(log: Path) -> str:
    """Return the part of a failed suite's log that says why."""
    lines = log.read_text(errors="replace").splitlines()
    starts = [
        number
        for number, line in enumerate(lines)
        if line.startswith("=") and (" FAILURES " in line or " ERRORS " in line)
    ]
    wanted = lines[starts[0] :] if starts else lines
    return "\n".join(wanted[-SHOWN_LINES:])


def main() -> int:
    """Run the suites and print the closing line; return 1 if anything failed."""
    known = list(dict.fromkeys(suite.environment for stage in STAGES for suite in stage))
    parser = argparse.ArgumentParser(description="Run all tests in their environments.")
    parser.add_argument("names", nargs="*", metavar="environment", help=", ".join(known))
    options, pytest_options = parser.parse_known_args()
    names = options.names or known
    LOGS.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    runner = Runner(pytest_options)
    # A shell that starts a command in the background makes it deaf to Ctrl-C, and all its children too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A terminated run must not leave servers behind any more than an interrupted one.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    total = Count()
    for name in names:
        if not ENVIRONMENTS[name].fits:
            print(f"{name:<28} not run: it needs another Python than {sys.version.split()[0]}", flush=True)
            total += Count(skipped=1)
    try:
        for stage in STAGES:
            total += runner.stage(
                [each for each in stage if each.environment in names and ENVIRONMENTS[each.environment].fits]
            )
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        return 130
    print(f"\n{time.monotonic() - started:.0f} seconds, {len(names)} environments: {', '.join(names)}")
    print(total, flush=True)
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
