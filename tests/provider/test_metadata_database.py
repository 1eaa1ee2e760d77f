"""The provider tests stand on a real Airflow."""

from __future__ import annotations

import os
from pathlib import Path


def test_airflow_lives_in_a_folder_of_this_test_run(session):
    from airflow.configuration import conf
    from airflow.models import Connection, DagModel

    assert conf.get("database", "sql_alchemy_conn") == f"sqlite:///{os.environ['AIRFLOW_HOME']}/airflow.db"
    assert Path(os.environ["AIRFLOW_HOME"]) != Path.home() / "airflow"
    assert session.query(Connection).count() == 0
    assert session.query(DagModel).count() == 0


def test_variables_reach_the_metadata_database():
    from airflow.models import Variable

    Variable.set("a_name", "a value")
    assert Variable.get("a_name") == "a value"
