"""An $AIRFLOW_HOME of its own for tests: settings, metadata database, commands.

Importing this imports no Airflow: the settings must be in the environment before anybody does.
"""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

PATIENCE = 600  # seconds; only what hangs takes longer, a busy machine is no error


def settings(home: Path) -> dict[str, str]:
    """Return the environment variables of an empty Airflow in `home`: SQLite, no examples, no calls home."""
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__API_AUTH__JWT_SECRET": os.urandom(32).hex(),  # 3.x
        "AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY": "True",  # 2.x warns without it
        # A task must not fail because the API server of a busy machine took five seconds to answer (3.x).
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def enter(home: Path) -> None:
    """Make `home` the Airflow of this process and of those it starts; once, before Airflow is imported."""
    foreign = [name for name in os.environ if name.startswith("AIRFLOW")]
    for name in foreign:
        del os.environ[name]
    for folder in ("dags", "plugins"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    os.environ.update(settings(home))


class Home:
    """An $AIRFLOW_HOME used from the outside, by commands of the interpreter given."""

    def __init__(self, folder: Path, python: Path, **variables: str) -> None:
        self.folder = folder
        self.python = python
        foreign = ("AIRFLOW", "KUAIMAI", "PYTHON")
        self.variables = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        # Executors of 2.x call `airflow` by its bare name.
        self.variables["PATH"] = f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        self.variables |= settings(folder) | variables

    def airflow(self, *arguments: str) -> str:
        """Run an `airflow` command and return its standard output; the error shows both outputs."""
        return self.run("-m", "airflow", *arguments)

    def run(self, *arguments: str) -> str:
        """Run the interpreter with these arguments in the home folder."""
        done = subprocess.run(
            [str(self.python), *arguments],
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout
