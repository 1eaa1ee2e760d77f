"""The product as its users get it: copied into an existing $AIRFLOW_HOME, or installed as a wheel."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from airflow_home import Home
from environments import CannotMakeError, find_uv, index_of_pip, make_plain_venv

ROOT = Path(__file__).resolve().parents[2]
WHOLE = shutil.ignore_patterns("__pycache__", "*.pyc")
CONSTRAINT = ROOT / "constraints" / f"airflow-{'.'.join(version('apache-airflow').split('.')[:2])}.txt"
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
def dropped_in(tmp_path_factory, migrated) -> Home:
    """Drop-in mode: the three folders copied into the home of an Airflow that has the dependencies."""
    folder = tmp_path_factory.mktemp("dropped_in")
    shutil.copy(migrated / "airflow.db", folder)
    for name in ("dags", "plugins", "include"):
        shutil.copytree(ROOT / name, folder / name, ignore=WHOLE)
    return Home(folder, Path(sys.executable))


@pytest.fixture(scope="session")
def installed(tmp_path_factory, migrated, wheel) -> Home:
    """Pip mode: a clean environment with nothing but the wheel and what it asks for, at our pins."""
    environment = tmp_path_factory.mktemp("environment") / "venv"
    make_plain_venv(environment)
    python = environment / "bin" / "python"
    wanted = [f"{wheel}[airflow,postgres]", "apache-airflow", "--constraint", str(CONSTRAINT), "--quiet"]
    try:
        command = [find_uv(), "pip", "install", "--python", str(python), *wanted]
        variables = index_of_pip()
    except CannotMakeError:
        command, variables = [str(python), "-m", "pip", "install", *wanted], {}
    home = Home(tmp_path_factory.mktemp("installed"), python, **variables)
    done = subprocess.run(command, env=home.variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copy(migrated / "airflow.db", home.folder)
    for name in ("dags", "include"):
        shutil.copytree(ROOT / name, home.folder / name, ignore=WHOLE)
    return home


def probe(home: Home) -> dict:
    """Load the plugins as every Airflow process does and return what the process then looks like."""
    return json.loads(home.run(str(PROBE)).splitlines()[-1])


@pytest.fixture(scope="session")
def dropped_in_process(dropped_in) -> dict:
    return probe(dropped_in)


@pytest.fixture(scope="session")
def installed_process(installed) -> dict:
    return probe(installed)
