"""The provider tests stand on a real Airflow of their own."""

from __future__ import annotations

import os
from pathlib import Path


def test_airflow_lives_in_a_folder_of_this_test_run():
    from airflow.configuration import conf

    assert conf.get("database", "sql_alchemy_conn") == f"sqlite:///{os.environ['AIRFLOW_HOME']}/airflow.db"
    assert Path(os.environ["AIRFLOW_HOME"]) != Path.home() / "airflow"


def test_variables_reach_the_metadata_database():
    from airflow.models import Variable

    Variable.set("a_name", "a value")
    try:
        assert Variable.get("a_name") == "a value"
    finally:
        Variable.delete("a_name")
