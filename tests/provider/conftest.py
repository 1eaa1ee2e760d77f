"""Gives the provider tests an Airflow of their own, with a real metadata database."""

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
    import airflow.models
    import airflow.utils.db
    import airflow.utils.session


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Warnings are errors where our code causes them, not where Airflow or its dependencies do.
    for item in items:
        for module in ("airflow", "flask", "connexion", "marshmallow", "sqlalchemy"):
            item.add_marker(pytest.mark.filterwarnings(rf"ignore:::{module}\."))


@pytest.fixture(scope="session", autouse=True)
def metadata_database() -> None:
    """Make the tables of the metadata database, once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        airflow.utils.db.initdb()


@pytest.fixture
def session():
    """A session of Airflow's metadata database."""
    with airflow.utils.session.create_session() as each:
        yield each


@pytest.fixture(autouse=True)
def forget_secrets():
    """Let no test hide parts of another test's log: 2.x masks a secret of any length, for ever."""
    if not airflow.__version__.startswith("2."):
        yield
        return
    from airflow.utils.log.secrets_masker import _secrets_masker

    masker = _secrets_masker()
    patterns, replacer = set(masker.patterns), masker.replacer
    yield
    masker.patterns, masker.replacer = patterns, replacer
