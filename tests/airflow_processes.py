"""Real Airflow processes in a home of their own, the package dropped in; and waiting for what they do."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import psutil
from airflow_home import PATIENCE, Home

ROOT = Path(__file__).resolve().parent.parent
T = TypeVar("T")
_PORTS = range(20_000, 30_000)


def airflow_line() -> int:
    """Return the major version of the Airflow that is installed, 0 if there is none; without importing it."""
    try:
        return int(metadata.version("apache-airflow").split(".")[0])
    except metadata.PackageNotFoundError:
        return 0


def drop_in(home: Home, *dag_files: str) -> None:
    """Copy `plugins/` and write DAG files, as a user of the drop-in mode would."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "plugins", home.folder / "plugins", ignore=ignored, dirs_exist_ok=True)
    (home.folder / "dags").mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(dag_files):
        (home.folder / "dags" / f"dag_{number}.py").write_text(text, "utf-8")


def free_port() -> int:
    """Return a free port below those that clients are given: none of them takes it until it is used."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"no port between {_PORTS.start} and {_PORTS.stop} is free")


@contextlib.contextmanager
def running(home: Home, *commands: str) -> Iterator[None]:
    """Run `airflow <command>` for each, as sessions of their own, until the block ends."""
    started = []
    try:
        for command in commands:
            log = (home.folder / f"{command.split(maxsplit=1)[0]}.log").open("wb")
            process = subprocess.Popen(
                [str(home.python), "-m", "airflow", *command.split()],
                cwd=home.folder,
                env=home.variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            log.close()
            started.append(process)
        yield
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        until = time.monotonic() + 3
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, until - time.monotonic()))
            kill_session(process.pid)
            process.wait()


def kill_session(leader: int) -> None:
    """Kill everything that a session's leader started; tasks are process groups of their own in it."""
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader:
                os.kill(pid, signal.SIGKILL)


def eventually(look: Callable[[], T], *, home: Home | None = None, what: str = "") -> T:
    """Return what `look` sees as soon as it is something; fail with Airflow's logs if it hangs."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        seen = look()
        if seen:
            return seen
        time.sleep(0.2)
    raise AssertionError(f"{what or look} did not happen within {PATIENCE} s\n{last_words(home)}")


def last_words(home: Home | None, lines: int = 60) -> str:
    """Return the end of every process's log."""
    if home is None:
        return ""
    texts = [
        f"--- {log.name}\n" + "\n".join(log.read_text("utf-8", "replace").splitlines()[-lines:])
        for log in sorted(home.folder.glob("*.log"))
    ]
    return "\n".join(texts)
