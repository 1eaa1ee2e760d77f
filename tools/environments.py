"""Make the virtual environments: ``python3 tools/environments.py core airflow3 airflow2``.

Needs Python 3.10 to 3.13 with ``venv`` and a reachable package registry, nothing else. An environment
is exactly its constraint file; it is made anew when that file (or the interpreter) has changed. The
installer is uv, fetched by pip, because it is many times faster; where it cannot be had, pip serves.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = ((3, 10), (3, 13))


@dataclass(frozen=True)
class Environment:
    """A virtual environment: what is in it (extras and one dependency group) and which Pythons it fits."""

    name: str
    pins: str
    group: str
    extras: tuple[str, ...]
    newest_python: tuple[int, int] = SUPPORTED[1]

    @property
    def constraint(self) -> Path:
        """The file that pins every package of this environment."""
        return ROOT / "constraints" / self.pins

    @property
    def folder(self) -> Path:
        """Where the environment lives."""
        return ROOT / f".venv-{self.name}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def fits(self) -> bool:
        """Whether the running interpreter can hold this environment."""
        return SUPPORTED[0] <= sys.version_info[:2] <= self.newest_python


ENVIRONMENTS = {
    each.name: each
    for each in (
        Environment("core", "core.txt", "core", ("postgres", "mysql")),
        Environment("airflow3", "airflow-3.3.txt", "airflow3", ("airflow", "postgres", "mysql")),
        # Airflow 2.11 itself refuses Python 3.13.
        Environment("airflow2", "airflow-2.11.txt", "airflow2", ("airflow", "postgres", "mysql"), (3, 12)),
        Environment("bench", "bench.txt", "bench", ("postgres",)),
    )
}


class CannotMakeError(Exception):
    """An environment cannot be made; the text says what to do."""


def find_uv() -> str:
    """Return the path of uv, fetching it once into .venv-uv; raise CannotMakeError if that fails."""
    uv = ROOT / ".venv-uv" / "bin" / "uv"
    if not uv.exists():
        make_plain_venv(uv.parent.parent)
        fetch = [str(uv.parent / "python"), "-m", "pip", "install", "--quiet", "uv>=0.8"]
        if subprocess.run(fetch, capture_output=True, check=False).returncode != 0:
            raise CannotMakeError("pip could not install uv")
    return str(uv)


def make_plain_venv(folder: Path) -> None:
    """Make an empty environment with pip in it; raise CannotMakeError saying what the machine lacks."""
    shutil.rmtree(folder, ignore_errors=True)
    made = subprocess.run(
        [sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        raise CannotMakeError(
            f"`{sys.executable} -m venv` failed: {(made.stdout + made.stderr).strip()[-500:]}\n"
            "Debian and Ubuntu keep it in a package of its own: apt install python3-venv "
            "(or set PYTHON=/path/to/another/python for make)."
        )


def index_of_pip() -> dict[str, str]:
    """Return the variable that makes uv ask the registry that pip is set up for; uv reads no pip settings."""
    if "UV_DEFAULT_INDEX" in os.environ or "UV_INDEX_URL" in os.environ:
        return {}
    listing = subprocess.run(
        [str(ROOT / ".venv-uv" / "bin" / "python"), "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        if key.endswith(".index-url"):
            return {"UV_DEFAULT_INDEX": value.strip().strip("'\"")}
    return {}


def install(python: Path, *arguments: str) -> None:
    """Install into the environment of an interpreter, arguments as for ``pip install``.

    By uv; where it cannot be had or fails, by pip. Raises CannotMakeError if that fails as well.
    """
    try:
        uv_install(python, *arguments)
    except CannotMakeError as err:
        print(f"{err}\ntrying pip (slower)", flush=True)
        done = run([str(python), "-m", "pip", "install", "--quiet", *arguments], {**os.environ})
        if done.returncode != 0:
            raise CannotMakeError(
                f"pip failed: {done.stderr.strip()[-1000:]}\n"
                "Check that this machine reaches its package registry (`pip config list` shows which) "
                "and try again."
            ) from err


def uv_install(python: Path, *arguments: str) -> None:
    """Install with uv; raise CannotMakeError if it cannot be had or fails."""
    command = [find_uv(), "pip", "install", "--quiet", "--python", str(python), *arguments]
    settings = {**os.environ, **index_of_pip(), "UV_PYTHON_DOWNLOADS": "never"}
    done = run(command, settings)
    if done.returncode != 0 and "certificate" in done.stderr:
        # uv trusts a list of its own; behind a company's proxy the system's list is the right one.
        done = run(command, {**settings, "UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"})
    if done.returncode != 0:
        raise CannotMakeError(f"uv failed: {done.stderr.strip()[-500:]}")


def run(command: list[str], settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it says."""
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)


def make(environment: Environment) -> None:
    """Make the environment unless it is already what its constraint file says."""
    if not environment.fits:
        newest = ".".join(map(str, environment.newest_python))
        raise CannotMakeError(
            f"{environment.folder.name} needs Python 3.10 to {newest}, "
            f"this is {sys.version.split()[0]} ({sys.executable}). Give another: make PYTHON=python3.11 ..."
        )
    content = environment.constraint.read_bytes() + sys.version.encode() + sys.base_prefix.encode()
    want = hashlib.sha256(content).hexdigest()
    stamp = environment.folder / ".made-from"
    if environment.python.exists() and stamp.exists() and stamp.read_text() == want:
        return
    print(f"{environment.folder.name}: installing {environment.constraint.relative_to(ROOT)} ...", flush=True)
    started = time.monotonic()
    make_plain_venv(environment.folder)
    install(environment.python, "--no-deps", "-r", str(environment.constraint))
    stamp.write_text(want)
    print(f"{environment.folder.name}: ready in {time.monotonic() - started:.0f} s", flush=True)


def main() -> int:
    """Make the environments named on the command line."""
    parser = argparse.ArgumentParser(description="Make virtual environments from constraints/.")
    parser.add_argument("names", nargs="+", choices=list(ENVIRONMENTS), metavar="environment")
    parser.add_argument(
        "--that-fit", action="store_true", help="pass over those that this Python cannot hold"
    )
    options = parser.parse_args()
    try:
        for name in options.names:
            if ENVIRONMENTS[name].fits or not options.that_fit:
                make(ENVIRONMENTS[name])
    except CannotMakeError as err:
        print(err, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
