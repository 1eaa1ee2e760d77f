"""Pip mode: the wheel in a clean environment."""

from __future__ import annotations

import subprocess
from zipfile import ZipFile


def test_the_wheel_holds_the_package_at_its_root_and_nothing_else(wheel):
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"kuaimai"}
    assert "kuaimai/py.typed" in names
    assert [name for name in names if "test" in name.lower() or "__pycache__" in name] == []


def test_the_wheel_holds_the_catalogue_data(wheel):
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    assert [name for name in names if name.startswith("kuaimai/gateway/catalog/")]


def test_the_package_comes_from_the_environment(installed, installed_process):
    origin = installed_process["origins"]["kuaimai"]
    assert origin.startswith(str(installed.python.parent.parent))
    assert installed_process["from_plugins_folder"] == []


def test_airflow_lists_the_provider(installed_process):
    assert "airflow-provider-kuaimai" in installed_process["providers"]


def test_the_connection_type_exists_with_its_form(installed_process):
    assert "kuaimai" in installed_process["connection_types"]
    assert "HookInfo" in installed_process["kuaimai_hook"]  # None would mean that its import failed


def test_the_command_is_installed(installed):
    command = [str(installed.python.with_name("kuaimai")), "--help"]
    done = subprocess.run(command, env=installed.variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "sandbox" in done.stdout


def test_the_environment_needs_nothing_that_the_wheel_does_not_ask_for(installed):
    installed.run("-m", "pip", "check")
