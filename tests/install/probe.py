"""Runs inside an installed Airflow: load plugins and DAGs as it does and print, as JSON, what came of it."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

before = set(sys.modules)

import airflow.plugins_manager as manager  # noqa: E402
from airflow.providers_manager import ProvidersManager  # noqa: E402

plugins = manager.get_plugin_info()
errors = manager.get_import_errors() if hasattr(manager, "get_import_errors") else manager.import_errors

import kuaimai.errors  # noqa: E402, F401

providers = ProvidersManager()
hooks = dict(providers.hooks.items())
folder = Path(os.environ["AIRFLOW_HOME"]).resolve() / "plugins"


def origin(name: str) -> str:
    """Return the file that a module comes from."""
    module = sys.modules.get(name) or importlib.import_module(name)
    return str(getattr(module, "__file__", None) or "")


seen = {
    "plugins": plugins,
    "plugin_errors": {str(key): str(value) for key, value in errors.items()},
    "from_plugins_folder": sorted(
        name for name in set(sys.modules) - before if origin(name).startswith(f"{folder}/")
    ),
    "origins": {name: origin(name) for name in ("http", "queue", "statistics", "kuaimai")},
    "top_level": sorted(name for name in sys.modules if "." not in name),
    "providers": sorted(providers.providers),
    "connection_types": sorted(hooks),
    "kuaimai_hook": str(hooks.get("kuaimai")),
    "stdlib": str(Path(os.__file__).parent),
}

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # 2.x
    from airflow.models.dagbag import DagBag
bag = DagBag()  # of the folder that Airflow is set up for
seen |= {"dags": sorted(bag.dags), "dag_errors": bag.import_errors}

print(json.dumps(seen, default=str))  # noqa: T201
