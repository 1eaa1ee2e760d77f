"""Signed requests to a running sandbox, without the product's own client."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import requests

from kuaimai.sandbox import Sandbox
from kuaimai.sandbox.signature import expected_sign
from kuaimai.sandbox.world import GMT8

OUTSTOCK = "erp.trade.outstock.simple.query"
ORDER_LIST = "erp.trade.list.query"


def text(second: float) -> str:
    """Epoch seconds as the gateway writes times."""
    return datetime.fromtimestamp(second, GMT8).strftime("%Y-%m-%d %H:%M:%S")


class Caller:
    """Calls one sandbox over one kept-alive connection."""

    def __init__(self, box: Sandbox, session: requests.Session) -> None:
        self.box = box
        self.http = session

    def form(self, method: str, **params: Any) -> dict[str, str]:
        given = self.box.credentials
        form = {
            "method": method,
            "appKey": given.app_key,
            "session": given.access_token,
            "timestamp": text(self.box.clock()),
            "version": "1.0",
            "format": "json",
            "sign_method": "hmac-sha256",
            **{name: str(value) for name, value in params.items()},
        }
        return self.sign(form)

    def sign(self, form: dict[str, str]) -> dict[str, str]:
        sign = expected_sign(form, self.box.credentials.app_secret)
        return {**form, "sign": sign or ""}

    def post(self, method: str, **params: Any) -> requests.Response:
        return self.http.post(self.box.url, data=self.form(method, **params), timeout=20)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        answer = self.post(method, **params)
        assert answer.status_code == 200
        return answer.json()

    def window(
        self, first: float = 0, last: float | None = None, time_type: str = "upd_time"
    ) -> dict[str, str]:
        last = self.box.clock() if last is None else last
        return {"timeType": time_type, "startTime": text(first), "endTime": text(last)}

    def pages(
        self, method: str = OUTSTOCK, size: int = 100, *, key: str = "list", **params: Any
    ) -> Iterator[dict[str, Any]]:
        """All pages by number, until a short one; `key` names the list in the answer."""
        page_no = 1
        while True:
            page = self.call(method, pageNo=page_no, pageSize=size, **params)
            assert "code" not in page, page
            yield page
            if len(page.get(key, ())) < size:
                return
            page_no += 1

    def rows(
        self, method: str = OUTSTOCK, size: int = 100, *, key: str = "list", **params: Any
    ) -> list[dict[str, Any]]:
        return [row for page in self.pages(method, size, key=key, **params) for row in page.get(key, ())]

    def everything(self, **params: Any) -> dict[str, dict[str, Any]]:
        """By sid, what `upd_time` over all times gives."""
        return {str(row["sid"]): row for row in self.rows(**{**self.window(), **params})}
