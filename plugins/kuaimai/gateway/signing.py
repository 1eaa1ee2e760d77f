"""Request signatures of the Kuaimai Open Platform, as pure functions.

Source: open.kuaimai.com, "API调用方法详解"; the vectors in the tests were printed there or recomputed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Literal, get_args

SignMethod = Literal["hmac-sha256", "hmac", "md5"]
SIGN_METHODS: tuple[SignMethod, ...] = get_args(SignMethod)


def canonical_text(params: Mapping[str, str]) -> str:
    """Return the text that is signed: name and value of each parameter, sorted by name, raw.

    Args:
        params: every parameter to be sent except `sign`, values exactly as sent (before URL encoding).
    """
    # ASCII order: Python compares code points, and parameter names are ASCII.
    return "".join(name + params[name] for name in sorted(params) if name != "sign")


def signature(params: Mapping[str, str], secret: str, sign_method: SignMethod) -> str:
    """Return the upper-case hex signature (32 characters, 64 for hmac-sha256).

    Args:
        params: as for `canonical_text`; contains `sign_method` if that field is sent.
        secret: the appSecret.
        sign_method: the digest to use, whether or not the field is sent.
    """
    text = canonical_text(params).encode()
    key = secret.encode()
    if sign_method == "md5":
        # The protocol prescribes MD5; it protects nothing that the secret does not protect.
        return hashlib.md5(key + text + key, usedforsecurity=False).hexdigest().upper()
    digest = "md5" if sign_method == "hmac" else "sha256"
    return hmac.new(key, text, digest).hexdigest().upper()
