"""The sandbox's own reading of the signing rules, written apart from the client's.

Two implementations that share no line check each other against the documented example.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SIGN_METHODS = ("hmac", "md5", "hmac-sha256")


def expected_sign(parameters: Mapping[str, str], secret: str, *, keep_empty: bool = True) -> str | None:
    """The lower-case hex signature of a request, or None if its `sign_method` is unknown.

    Args:
        parameters: all form fields as text, decoded; `sign` itself is left out of the signed text.
        secret: appSecret.
        keep_empty: whether fields with an empty value are part of the signed text. The official samples
            disagree about it, so the gateway accepts both.
    """
    signed = "".join(
        f"{name}{parameters[name]}"
        for name in sorted(parameters)
        if name != "sign" and (keep_empty or parameters[name])
    ).encode()
    key = secret.encode()
    kind = parameters.get("sign_method", "hmac")
    if kind == "md5":
        # Not a choice of ours: the protocol offers MD5.
        return hashlib.md5(key + signed + key).hexdigest()  # noqa: S324
    if kind == "hmac":
        return hmac.new(key, signed, "md5").hexdigest()
    if kind == "hmac-sha256":
        return hmac.new(key, signed, "sha256").hexdigest()
    return None


def is_signed(parameters: Mapping[str, str], secret: str) -> bool:
    """Whether `sign` fits the other fields; letter case does not matter."""
    given = parameters.get("sign", "").lower().encode()
    for keep_empty in (True, False):
        expected = expected_sign(parameters, secret, keep_empty=keep_empty)
        if expected is not None and hmac.compare_digest(expected.encode(), given):
            return True
    return False
