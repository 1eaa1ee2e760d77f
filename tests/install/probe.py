"""Runs inside an installed Airflow: load all plugins and print, as JSON, what became of the process."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

before = set(sys.modules)

import airflow.plugins_manager as manager  # noqa: E402
from airflow.providers_manager import ProvidersManager  # noqa: E402

plugins = [each["name"] for each in manager.get_plugin_info()]
errors = manager.get_import_errors() if hasattr(manager, "get_import_errors") else manager.import_errors

import kuaimai.errors  # noqa: E402, F401

providers = ProvidersManager()
hooks = dict(providers.hooks.items())
folder = Path(os.environ["AIRFLOW_HOME"]).resolve() / "plugins"


def origin(name: str) -> str:
    """Return the file that a module comes from."""
    module = sys.modules.get(name) or importlib.import_module(name)
    return str(getattr(module, "__file__", None) or "")


print(  # noqa: T201
    json.dumps(
        {
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
    )
)
