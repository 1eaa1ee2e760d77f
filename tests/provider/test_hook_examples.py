"""The example Connections are ones that Airflow imports and we understand."""

import json
from pathlib import Path

import pytest

from kuaimai.airflow.gateway_settings import GatewaySettings
from kuaimai.airflow.stores import database_url

FILES = sorted((Path(__file__).parents[2] / "include" / "connections").glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_is_understood(file):
    from airflow.models import Connection

    for conn_id, fields in json.loads(file.read_text()).items():
        connection = Connection.from_json(json.dumps(fields), conn_id=conn_id)
        if connection.conn_type == "kuaimai":
            assert GatewaySettings.of(connection).credentials.app_key == "your-appKey"
        elif connection.conn_type in ("postgres", "mysql"):
            assert f"{connection.conn_type}.example.internal" in database_url(connection)
        assert "Invented values" in connection.description


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_importing_an_example_brings_the_one_connection_that_was_wanted(file):
    """A coordination store that nobody has would stop every run."""
    assert len(json.loads(file.read_text())) == 1


def test_there_are_examples():
    stems = {file.stem for file in FILES}
    assert {"kuaimai", "target_postgres", "target_mysql", "state", "airflow_api"} <= stems
