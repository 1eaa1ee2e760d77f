"""The live session in an Airflow Variable, and the way of a rotated pair back into its Connection."""

from __future__ import annotations

import json
from typing import Any

import requests

from kuaimai.airflow.compat import (
    AIRFLOW_V_3_0,
    AirflowNotFoundException,
    BaseHook,
    mask_secret,
    read_variable,
    write_connection_extra,
    write_variable,
)
from kuaimai.errors import ConfigError
from kuaimai.gateway.session import Credentials

PREFIX = "kuaimai_token__"
"""Of the Variable's name; the word `token` in it makes Airflow hide the value in its UI."""

API_CONN_ID = "kuaimai_airflow_api"
_DESCRIPTION = "Live Kuaimai session, kept by the DAGs. Delete it to begin again from the Connection."
_API_SECONDS = (10.0, 30.0)


class VariableVault:
    """Keeps the record of one Connection in the Variable `kuaimai_token__<conn_id>`."""

    def __init__(self, conn_id: str) -> None:
        self._key = f"{PREFIX}{conn_id}"

    def read(self) -> dict[str, Any] | None:
        """Return the record, None if there is none, an empty one if it is not a JSON object.

        Raises:
            Transient: it could not be read.
        """
        text = read_variable(self._key)
        return None if text is None else decoded(text)

    def write(self, record: dict[str, Any]) -> None:
        """Replace the record.

        Raises:
            Transient: it could not be written.
        """
        masked_record(record)
        write_variable(self._key, json.dumps(record), _DESCRIPTION)


def decoded(text: str) -> dict[str, Any]:
    """Return the record in a Variable's text; an empty one if it is not a JSON object."""
    mask_secret(text)
    try:
        record = json.loads(text)
    except ValueError:
        return {}
    return masked_record(record) if isinstance(record, dict) else {}


def masked_record(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record after telling Airflow's log filter about its secrets."""
    for name in ("access_token", "refresh_token"):
        if isinstance(record.get(name), str) and record[name]:
            mask_secret(record[name])
    return record


def write_back(conn_id: str, before: Credentials, after: Credentials) -> bool:
    """Put a rotated pair into the Connection, where Airflow lets a task do so.

    On 2.x that is the metadata database. On 3.x it is the REST API, if the Connection `kuaimai_airflow_api`
    (host, login, password of an Airflow user) exists.

    Args:
        conn_id: the Kuaimai Connection.
        before: its credentials until now; a person's edit in between is not overwritten.
        after: the credentials to put there.

    Returns:
        Whether the Connection has the new pair now.
    """
    changes = {"access_token": after.access_token, "refresh_token": after.refresh_token}
    expected = {"access_token": before.access_token, "refresh_token": before.refresh_token}
    if not AIRFLOW_V_3_0:
        return write_connection_extra(conn_id, changes, if_extra_has=expected)
    try:
        api = BaseHook.get_connection(API_CONN_ID)
    except AirflowNotFoundException:
        return False
    stored = BaseHook.get_connection(conn_id)
    extra = stored.extra_dejson
    if any(extra.get(name) != value for name, value in expected.items()):
        return False
    _patch(api, conn_id, str(stored.conn_type), {**extra, **changes})
    return True


def _patch(api: Any, conn_id: str, conn_type: str, extra: dict[str, Any]) -> None:
    base = (api.host or "").rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise ConfigError(
            f"Connection {API_CONN_ID}: host is not a URL", hint="Write the UI's address, https://…"
        )
    with requests.Session() as session:
        session.trust_env = False  # a .netrc or a proxy of the outside world has no say here
        token = session.post(
            f"{base}/auth/token", json={"username": api.login, "password": api.password}, timeout=_API_SECONDS
        )
        token.raise_for_status()
        access = token.json()["access_token"]
        mask_secret(access)
        session.patch(
            f"{base}/api/v2/connections/{conn_id}",
            params={"update_mask": "extra"},
            json={"connection_id": conn_id, "conn_type": conn_type, "extra": json.dumps(extra)},
            headers={"Authorization": f"Bearer {access}"},
            timeout=_API_SECONDS,
        ).raise_for_status()
