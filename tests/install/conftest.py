"""The product as its users get it: copied into an existing $AIRFLOW_HOME, or installed as a wheel."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from pathlib import Path

import pytest
from airflow_home import Home
from airflow_processes import free_port
from environments import install, make_plain_venv
from sqlalchemy.engine import make_url

from kuaimai.sandbox import Faults, Sandbox, World

ROOT = Path(__file__).resolve().parents[2]
WHOLE = shutil.ignore_patterns("__pycache__", "*.pyc")
CONSTRAINT = ROOT / "constraints" / f"airflow-{'.'.join(version('apache-airflow').split('.')[:2])}.txt"
CHINA = timezone(timedelta(hours=8))
PROBE = Path(__file__).with_name("probe.py")


@pytest.fixture(scope="session")
def migrated(tmp_path_factory) -> Path:
    """An empty $AIRFLOW_HOME with a metadata database, to be copied."""
    home = Home(tmp_path_factory.mktemp("migrated"), Path(sys.executable))
    home.airflow("db", "migrate")
    return home.folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """A merchant who has sold something in the last minutes."""
    now = datetime.now(CHINA)
    world = World(seed=7, start=now - timedelta(hours=2), orders_per_hour=600)
    with Sandbox(world, faults=Faults()) as box:
        yield box


@pytest.fixture(scope="session")
def dropped_in(tmp_path_factory, migrated, sandbox, new_database) -> Home:
    """Drop-in mode: an Airflow with what the README's command adds, and the three folders in its home."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^pip install (msgspec .*)$", readme, re.MULTILINE)
    python = environment(tmp_path_factory, *command.split())
    folder = copied(tmp_path_factory, migrated, "dags", "plugins", "include")
    return home(folder, python, sandbox, new_database())


@pytest.fixture(scope="session")
def installed(tmp_path_factory, migrated, wheel, sandbox, new_database) -> Home:
    """Pip mode: an Airflow with the wheel and what it asks for."""
    python = environment(tmp_path_factory, f"{wheel}[airflow,postgres]")
    folder = copied(tmp_path_factory, migrated, "dags", "include")
    return home(folder, python, sandbox, new_database())


def environment(tmp_path_factory, *wanted: str) -> Path:
    """Make a clean environment with Airflow and what is wanted, at our pins; return its interpreter."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    make_plain_venv(folder)
    python = folder / "bin" / "python"
    install(python, *wanted, "apache-airflow", "--constraint", str(CONSTRAINT))
    return python


def copied(tmp_path_factory, migrated: Path, *names: str) -> Path:
    """Make an $AIRFLOW_HOME with folders of this tree."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copy(migrated / "airflow.db", folder)
    for name in names:
        shutil.copytree(ROOT / name, folder / name, ignore=WHOLE)
    return folder


def home(folder: Path, python: Path, box: Sandbox, target: str) -> Home:
    """Return the Airflow of an interpreter in a folder, with Connections to the sandbox and to a target."""
    given = box.credentials
    kuaimai = {
        "conn_type": "generic",
        "host": box.url,
        "login": given.app_key,
        "password": given.app_secret,
        "extra": {"access_token": given.access_token, "refresh_token": given.refresh_token},
    }
    url = make_url(target)
    database = {
        "conn_type": "postgres",
        "host": url.query["host"],
        "login": url.username,
        "schema": url.database,
    }
    address = f"http://127.0.0.1:{free_port()}"
    return Home(
        folder,
        python,
        AIRFLOW_CONN_KUAIMAI_DEFAULT=json.dumps(kuaimai),
        AIRFLOW_CONN_KUAIMAI_TARGET=json.dumps(database),
        AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
        AIRFLOW__CORE__PARALLELISM="2",
        AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"{address}/execution/",
        AIRFLOW__API__BASE_URL=address,
        AIRFLOW__API__PORT=address.rpartition(":")[2],
        AIRFLOW__API__WORKERS="1",
    )


def probe(home: Home) -> dict:
    """Load the plugins as every Airflow process does and return what the process then looks like."""
    return json.loads(home.run(str(PROBE)).splitlines()[-1])


@pytest.fixture(scope="session")
def dropped_in_process(dropped_in) -> dict:
    return probe(dropped_in)


@pytest.fixture(scope="session")
def installed_process(installed) -> dict:
    return probe(installed)
