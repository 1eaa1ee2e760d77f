"""One place that decides what may be seen: used for every logged request and every stored request.

Credentials and people both: a request can carry a buyer's phone as a search term.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

MASK = "***"
_RECOGNISABLE = 4  # masking shorter values would tear words apart

SECRET_PARAMETERS = frozenset(
    {
        "access_token",
        "accesstoken",
        "appkey",
        "appsecret",
        "authorization",
        "password",
        "refresh_token",
        "refreshtoken",
        "secret",
        "session",
        "sign",
    }
)


def masked(secret: str) -> str:
    """Return enough of a credential to recognise it and too little to use it: `12…56`."""
    return f"{secret[:2]}…{secret[-2:]}" if len(secret) > 8 else MASK  # noqa: PLR2004 - shorter shows too much


def redact_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return `params` with every credential replaced by a mask, names kept."""
    return {
        name: MASK if name.lower().replace("-", "_") in SECRET_PARAMETERS else value
        for name, value in params.items()
    }


def secret_values(params: Mapping[str, str]) -> list[str]:
    """Return the values of secret parameters that are long enough to be recognised in a text."""
    return [
        value
        for name, value in params.items()
        if name.lower().replace("-", "_") in SECRET_PARAMETERS and len(value) >= _RECOGNISABLE
    ]


def redact_text(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with each of `secrets` masked; for texts that others wrote, like server messages."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, MASK)
    return text
