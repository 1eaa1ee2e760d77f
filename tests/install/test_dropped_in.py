"""Drop-in mode: dags/, plugins/ and include/ copied into an existing $AIRFLOW_HOME."""

from __future__ import annotations


def test_the_scan_sees_the_door_and_nothing_behind_it(dropped_in_process):
    loaded = dropped_in_process["from_plugins_folder"]
    assert "kuaimai_plugin" in loaded
    assert [name for name in loaded if not name.startswith("kuaimai")] == []


def test_the_package_comes_from_the_plugins_folder(dropped_in, dropped_in_process):
    expected = dropped_in.folder.resolve() / "plugins" / "kuaimai" / "__init__.py"
    assert dropped_in_process["origins"]["kuaimai"] == str(expected)
