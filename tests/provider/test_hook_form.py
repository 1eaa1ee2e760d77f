"""The Connection form, on either line, as Airflow shows it where the package is installed with pip."""
# ruff: noqa: F811 - the imported fixtures are arguments

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hooked import real_box  # noqa: F401

from kuaimai.airflow.compat import AIRFLOW_V_3_0
from kuaimai.airflow.gateway_settings import GatewaySettings
from kuaimai.airflow.provider_info import CONNECTION_FIELDS, get_provider_info

SECRETS = {"access_token", "refresh_token"}
PLUGINS = str(Path(__file__).parents[2] / "plugins")

# What Airflow's own pages do, in a process that finds our provider by its entry point.
LOOK = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
import airflow
from airflow.models import Connection
from airflow.providers_manager import ProvidersManager
from kuaimai.airflow.compat import AIRFLOW_V_3_0

seen = {}
if AIRFLOW_V_3_0:
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    (ours,) = [meta for meta in HookMetaService.hook_meta_data() if meta.connection_type == "kuaimai"]
    seen["form"] = ours.model_dump()
else:
    manager = ProvidersManager()
    seen["widgets"] = {
        key: info.is_sensitive
        for key, info in manager.connection_form_widgets.items()
        if key.startswith("extra__kuaimai__")
    }
    seen["behaviour"] = manager.field_behaviours["kuaimai"]
seen["hook"] = Connection(conn_id="kuaimai_default", conn_type="kuaimai").get_hook().kuaimai_conn_id
# The Test button: the Connection exists only as a URI under an invented id.
conn = Connection(conn_id="q7xk2p", **json.loads(os.environ["FORM"]))
os.environ["AIRFLOW_CONN_Q7XK2P"] = conn.get_uri()
seen["test"] = conn.test_connection()
print("SEEN" + json.dumps(seen))
"""


@pytest.fixture
def installed(tmp_path, real_box):
    """What Airflow sees of us where the package is installed with pip."""
    info = tmp_path / "airflow_provider_kuaimai-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: airflow-provider-kuaimai\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(
        "[apache_airflow_provider]\nprovider_info = kuaimai.airflow.provider_info:get_provider_info\n"
    )
    given = real_box.credentials
    form = {
        "conn_type": "kuaimai",
        "host": real_box.url,
        "login": given.app_key,
        "password": given.app_secret,
        "extra": json.dumps({"access_token": given.access_token, "refresh_token": given.refresh_token}),
    }
    environment = {"PYTHONPATH": os.pathsep.join([PLUGINS, str(tmp_path)]), "FORM": json.dumps(form)}
    environment |= {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW")}
    done = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("SEEN")[2])


def test_provider_info_imports_neither_airflow_nor_the_core():
    code = (
        "import sys, kuaimai.airflow.provider_info as p; p.get_provider_info();"
        "print(sorted({'airflow', 'requests', 'sqlalchemy', 'pandas', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": PLUGINS}
    )
    assert done.stdout.strip() == "[]"


def test_provider_info_fits_airflows_schema():
    import jsonschema
    from airflow.providers_manager import _create_provider_info_schema_validator

    validator = _create_provider_info_schema_validator()
    assert isinstance(validator, jsonschema.protocols.Validator)
    validator.validate(get_provider_info())


def test_the_form_offers_what_the_settings_read():
    named = set(CONNECTION_FIELDS)
    read = {"access_token", "refresh_token", *GatewaySettings.__dataclass_fields__} - {"url", "credentials"}
    assert named == read


def test_airflow_shows_our_form_makes_our_hook_and_tests_it(installed):
    if AIRFLOW_V_3_0:
        sees_on_3(installed["form"])
    else:
        sees_on_2(installed["widgets"], installed["behaviour"])
    assert installed["hook"] == "kuaimai_default"
    passed, said = installed["test"]
    assert passed, said
    assert "Kuaimai accepts these credentials (open.system.time.get)" in said


def sees_on_3(form):
    assert form["hook_name"] == "Kuaimai (快麦 ERP)"
    assert form["hook_class_name"] == "kuaimai.airflow.hooks.KuaimaiHook"
    extra, standard = form["extra_fields"], form["standard_fields"]
    assert set(extra) == set(CONNECTION_FIELDS)
    assert {name for name, fact in extra.items() if fact["schema"].get("format") == "password"} == SECRETS
    assert extra["sign_method"]["schema"]["enum"] == ["hmac-sha256", "hmac", "md5"]
    assert extra["requests_per_second"]["value"] == 5
    assert standard["host"]["title"] == "Gateway URL"
    assert standard["login"]["title"] == "appKey"
    assert standard["password"]["title"] == "appSecret"
    assert standard["url_schema"]["hidden"]
    assert standard["port"]["hidden"]


def sees_on_2(widgets, behaviour):
    assert set(widgets) == {f"extra__kuaimai__{name}" for name in CONNECTION_FIELDS}
    assert {name for name, secret in widgets.items() if secret} == {f"extra__kuaimai__{n}" for n in SECRETS}
    assert behaviour["relabeling"]["login"] == "appKey"
    assert {"schema", "port", "extra"} <= set(behaviour["hidden_fields"])
    assert behaviour["placeholders"]["extra__kuaimai__sign_method"] == "hmac-sha256"


def test_the_plugin_is_one_and_cheap():
    from kuaimai.airflow.plugin import KuaimaiPlugin

    assert KuaimaiPlugin.name == "kuaimai"
