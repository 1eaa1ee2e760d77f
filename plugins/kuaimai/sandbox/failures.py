"""Failures that hit single requests, and the plan that says which ones."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import blake2b

FAILURES: dict[str, str] = {
    "429": "HTTP 429 with an empty body",
    "429_html": "HTTP 429 with an HTML body",
    "500": "HTTP 500 with an HTML body",
    "502": "HTTP 502 with an HTML body",
    "503": "HTTP 503 with an HTML body",
    "504": "HTTP 504 with an HTML body",
    "disconnect": "the connection is closed before the request is looked at",
    "disconnect_mid": "the request takes effect, then the connection is closed in the middle of the answer",
    "slow": "the right answer after `slow_seconds`",
    "truncated": "the request takes effect, then half of the JSON comes as if it were whole",
    "html": "an HTML page with status 200",
    "busy": "code 1, service unavailable",
    "too_large": "code 1, data length too large",
    "query_failed": "code 30077, order query failed",
    "lost_right": "success with neither list nor total, as an appKey gets that has lost its right",
}
BEFORE_EFFECT = frozenset({"429", "429_html", "500", "502", "503", "504", "disconnect", "html"})

_BARE_SHARE = 0.05
_WHEN = re.compile(r"(?:next(?P<next>\d+)|at(?P<at>\d+)|(?P<share>[\d.]+)(?P<percent>%?))")


@dataclass
class Failure:
    """One entry of the plan; exactly one of `share`, `times`, `at` says when it strikes.

    Args:
        kind: a key of `FAILURES`.
        share: probability per request, 0 to 1, drawn from the seed.
        times: the next so many requests.
        at: only the request with this number, counted from 1 since the entry was added.
        method: only requests of this API method; None for all.
        retry_after: seconds announced in `Retry-After` (429 and 503), None for no such header.
    """

    kind: str
    share: float | None = None
    times: int | None = None
    at: int | None = None
    method: str | None = None
    retry_after: float | None = None
    _seen: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in FAILURES:
            raise ValueError(f"unknown failure {self.kind!r}; known are {', '.join(FAILURES)}")
        if sum(value is not None for value in (self.share, self.times, self.at)) != 1:
            raise ValueError(f"failure {self.kind}: give exactly one of share, times, at")
        if self.share is not None and not 0 <= self.share <= 1:
            raise ValueError(f"failure {self.kind}: share must be 0 to 1, not {self.share}")

    @classmethod
    def parse(cls, text: str) -> Failure:
        """Read `429`, `429=0.05`, `429=5%`, `429=next3` or `429=at7`, each with `:method` behind if wanted.

        A bare name means one request in twenty. `,retry=2` at the end announces `Retry-After: 2`.
        """
        text, _, retry = text.partition(",retry=")
        text, _, method = text.partition(":")
        kind, has_when, when = text.partition("=")
        share, times, at = (None if has_when else _BARE_SHARE), None, None
        if has_when:
            match = _WHEN.fullmatch(when)
            if match is None:
                raise ValueError(
                    f"cannot read {when!r} of failure {kind!r}: write a share (0.05 or 5%), next3, or at7"
                )
            if match["next"]:
                times = int(match["next"])
            elif match["at"]:
                at = int(match["at"])
            else:
                share = float(match["share"]) / (100 if match["percent"] else 1)
        return cls(kind, share, times, at, method or None, float(retry) if retry else None)

    def strikes(self, method: str, seed: int, position: int) -> bool:
        """Whether the entry hits this request; every call counts as one request."""
        if self.method is not None and self.method != method:
            return False
        self._seen += 1
        if self.times is not None:
            return self._seen <= self.times
        if self.at is not None:
            return self._seen == self.at
        drawn = blake2b(f"{seed}/{position}/{self.kind}/{self._seen}".encode(), digest_size=4).digest()
        return int.from_bytes(drawn, "big") < (self.share or 0.0) * 2**32
