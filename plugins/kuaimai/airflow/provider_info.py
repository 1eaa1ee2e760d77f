"""What Airflow reads when it discovers the provider; imports nothing but the version."""

from __future__ import annotations

from typing import Any

from kuaimai import __version__


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, with the Connection form as Airflow 3 wants it."""
    return {
        "package-name": "airflow-provider-kuaimai",
        "name": "Kuaimai",
        "description": "A complete, provably gap-free mirror of Kuaimai (快麦 ERP) data.",
        "versions": [__version__],
        "connection-types": [
            {
                "connection-type": "kuaimai",
                "hook-class-name": "kuaimai.airflow.hooks.KuaimaiHook",
                "hook-name": "Kuaimai (快麦 ERP)",
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": CONNECTION_FIELDS,
            }
        ],
    }


UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["schema", "port", "extra"],
    "relabeling": {"host": "Gateway URL", "login": "appKey", "password": "appSecret"},
    "placeholders": {
        "host": "https://gw.superboss.cc/router",
        "login": "from Kuaimai's mail",
        "password": "from Kuaimai's mail",
    },
}

CONNECTION_FIELDS: dict[str, dict[str, Any]] = {
    "access_token": {
        "label": "accessToken",
        "description": "From Kuaimai's mail; refreshed by the DAGs from then on.",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
    "refresh_token": {
        "label": "refreshToken",
        "description": "From Kuaimai's mail.",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
    "sign_method": {
        "label": "Signature",
        "description": "hmac-sha256 unless Kuaimai says otherwise.",
        "schema": {
            "type": ["string", "null"],
            "enum": ["hmac-sha256", "hmac", "md5"],
            "default": "hmac-sha256",
        },
    },
    "requests_per_second": {
        "label": "Requests per second",
        "description": "The gateway allows about 15 for all programs that share the appKey.",
        "schema": {"type": ["number", "null"], "default": 5},
    },
    "timeout": {
        "label": "Timeout (seconds)",
        "description": "How long to wait for an answer; 90 if empty.",
        "schema": {"type": ["number", "null"]},
    },
    "verify": {
        "label": "TLS verification",
        "description": "true, false, or the path of a CA bundle.",
        "schema": {"type": ["string", "null"]},
    },
    "proxies": {
        "label": "Proxy",
        "description": 'A proxy URL, or JSON such as {"https": "http://proxy:3128"}.',
        "schema": {"type": ["string", "null"]},
    },
    "dialect": {
        "label": "Wire form",
        "description": "router is Kuaimai's own protocol; rest is JSON POST to {host}/{method}.",
        "schema": {"type": ["string", "null"], "enum": ["router", "rest"], "default": "router"},
    },
}
