"""What must hold however the product came into an Airflow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "plugins" / "kuaimai"
MODULES = {path.stem for path in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}


@pytest.fixture(params=["dropped_in", "installed"])
def home(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["dropped_in_process", "installed_process"])
def process(request):
    return request.getfixturevalue(request.param)


def test_exactly_one_plugin_is_registered(process):
    assert [each["name"] for each in process["plugins"] if "kuaimai" in json.dumps(each)] == ["kuaimai"]


def test_no_plugin_fails_to_import(process):
    assert process["plugin_errors"] == {}


def test_every_dag_file_imports(process):
    assert process["dag_errors"] == {}
    assert "kuaimai_trades" in process["dags"]


def test_standard_library_modules_stay_what_they_are(process):
    for name in ("http", "queue", "statistics"):
        assert process["origins"][name].startswith(process["stdlib"]), process["origins"][name]


def test_no_module_of_the_package_is_loaded_under_its_bare_name(process):
    # Names like `errors` or `client`: Airflow's plugin scan would make them, and with them second
    # copies of every class.
    foreign = {"airflow", "config", "cli", "conf", "plugin"}  # names that other packages may have
    assert MODULES & set(process["top_level"]) <= foreign


def test_the_package_is_imported_as_kuaimai(process):
    assert process["origins"]["kuaimai"].endswith("kuaimai/__init__.py")


def test_commands_run(home):
    assert "sandbox" in home.run(
        "-c",
        # As Airflow does: the plugins folder is on the path only in drop-in mode.
        "import sys, pathlib; sys.path.append(str(pathlib.Path('plugins').resolve()));"
        "from kuaimai.cli import main; main(['--help'])",
    )
