"""Gives the DAG tests an Airflow of their own: settings and folders, no Connection, no Variable."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path

import airflow_home
import pytest

HOME = Path(tempfile.mkdtemp(prefix="kuaimai-airflow-"))
airflow_home.enter(HOME)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Airflow warns of about itself at import
    import airflow.models  # noqa: F401


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Warnings are errors where our code causes them, not where Airflow or its dependencies do.
    for item in items:
        for module in ("airflow", "flask", "connexion", "marshmallow", "sqlalchemy"):
            item.add_marker(pytest.mark.filterwarnings(rf"ignore:::{module}\."))


def parsed(folder: Path) -> tuple[dict, dict]:
    """Parse DAG files as Airflow does, with no network to reach and no database to ask."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # 2.x
        from airflow.models.dagbag import DagBag

    def refuse(*_: object) -> None:
        raise AssertionError("parsing a DAG must reach for nothing outside")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.socket.connect", refuse)
        patch.setattr("airflow.models.Connection.get_connection_from_secrets", refuse)
        patch.setattr("airflow.models.Variable.get", refuse)
        bag = DagBag(folder)
    return bag.dags, bag.import_errors


@pytest.fixture
def parse():
    """A function that parses DAG files."""
    return parsed


@pytest.fixture(scope="session")
def ours() -> dict:
    """The DAGs of this tree, parsed once; whoever changes one takes a copy."""
    dags, errors = parsed(Path(__file__).resolve().parents[2] / "dags")
    assert errors == {}
    return dags


@pytest.fixture
def core_timetable():
    """A function: the timetable of a DAG as the scheduler sees it, after the way through its database."""

    def of(dag):
        from airflow.serialization import serialized_objects

        reader = getattr(serialized_objects, "DagSerialization", serialized_objects.SerializedDAG)
        return reader.from_dict(reader.to_dict(dag)).timetable

    return of
