"""The checks that every request passes before its method looks at it, in the gateway's order.

The order is our guess, the codes and texts are documented; `sign_method` and letter case of the signature are
judged as the documents and working clients suggest.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING

from kuaimai.sandbox.desk import Refusal
from kuaimai.sandbox.methods import METHODS
from kuaimai.sandbox.signature import is_signed
from kuaimai.sandbox.world import GMT8

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kuaimai.sandbox.desk import Desk
    from kuaimai.sandbox.tokens import DemoCredentials

COMMON = frozenset({
    "method", "appKey", "session", "timestamp", "version", "sign", "sign_method", "format",
})  # fmt: skip
_CLOCK_TOLERANCE_SECONDS = 600


def check(form: Mapping[str, str], desk: Desk, credentials: DemoCredentials, now: float) -> None:
    """Refuse a request that is not well-formed, known, signed in, on time and signed.

    Raises:
        Refusal: the first check that failed.
    """
    if not form:
        raise Refusal("400", "资源异常，请检查参数")
    _check_signature_fields(form, desk)
    service = _check_method(form)
    if form["appKey"] != credentials.app_key:
        raise Refusal("23", f"{service}的应用键参数appKey无效")
    if not form.get("session"):
        raise Refusal("20", f"{service}缺少会话参数session")
    if desk.faults.session_dead or not desk.session.is_live(form["session"], now):
        raise Refusal("invalid_session", "用户未启用，请联系管理员启用")
    if not _is_on_time(form["timestamp"], now):
        raise Refusal("40", f"{service}的应用键参数timestamp无效")
    if not is_signed(form, credentials.app_secret):
        raise Refusal("25", f"{service}的签名无效")


def _check_method(form: Mapping[str, str]) -> str:
    """The service as error texts name it."""
    method = form.get("method", "")
    if not method:
        raise Refusal("26", "缺少方法名参数method")
    if method not in METHODS:
        raise Refusal("27", f"不存在的服务方法({method})")
    service = f"服务方法({method}:{form.get('version', '')})"
    if not form.get("version"):
        raise Refusal("28", f"服务方法({method})缺少版本参数version")
    if form["version"] != "1.0":
        raise Refusal("29", f"{service}的版本不存在")
    return service


def _check_signature_fields(form: Mapping[str, str], desk: Desk) -> None:
    for name, code in (("sign", "24"), ("timestamp", "40"), ("appKey", "22")):
        if not form.get(name):
            if desk.faults.missing_sign_code == "401":
                raise Refusal("401", "签名参数不完整")
            raise Refusal(code, f"缺少参数{name}")


def _is_on_time(text: str, now: float) -> bool:
    try:
        sent = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=GMT8)
    except ValueError:
        return False
    return abs(sent.timestamp() - now) <= _CLOCK_TOLERANCE_SECONDS


class RateLimiter:
    """Counts the requests of the last second; measured by others at about 15 per second and appKey."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque()

    def allows(self, now: float, per_second: int) -> bool:
        """Whether one more request fits; a refused one does not count."""
        while self._recent and not now - 1 < self._recent[0] <= now:
            self._recent.popleft()
        if per_second and len(self._recent) >= per_second:
            return False
        self._recent.append(now)
        return True
