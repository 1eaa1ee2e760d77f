"""One page of a method, to look at: nothing is staged, nothing is proven."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone

from kuaimai.extract.paging import window_request
from kuaimai.extract.windows import SCAN, Shop, Window
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer
from kuaimai.gateway.client import Client


def sample(
    client: Client,
    method: str,
    *,
    now: float,
    hours: float = 1,
    records: int | None = None,
    dimension: str | None = None,
    shops: Iterable[Shop] = (),
    params: Mapping[str, str] | None = None,
) -> Answer:
    """Return one page of the records of the last hours, or of all where a method knows no times.

    Args:
        client: calls the gateway.
        method: a catalogued method.
        now: epoch seconds.
        hours: how far back.
        records: how many to ask for; by default, and at least, as few as the gateway gives.
        dimension: the time to ask by; by default the method's first one. `SCAN` asks for everything.
        shops: whose records; without any, those that the method gives by itself.
        params: further business parameters, such as a pipeline's own.

    Raises:
        KuaimaiError: the call failed for good.
    """
    entry = catalog.method(method)
    end = datetime.fromtimestamp(int(now), timezone.utc)
    first = next(iter(entry.times.dimensions)) if entry.times else SCAN
    window = Window(end - timedelta(hours=hours), end, dimension or first)
    request = window_request(method, window, shops, params=params)
    if entry.page:
        size = min(max(records or 0, entry.page.min), entry.page.max)
        request |= {"pageNo": "1", "pageSize": str(size)}
    return client.call(method, request)
