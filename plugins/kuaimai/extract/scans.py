"""Reading everything that a method has, whatever its time: where it knows no times, and to find what is gone.

One answer that holds as many records as it counts is a moment, and proves itself. Otherwise pages are read
until two readings in a row hold the same records (`pages`): a list that moves between two pages hides a
record, and whoever is not seen would be taken for gone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

from kuaimai.extract.asking import Asking, Page, Stretch, instant
from kuaimai.extract.keys import DistinctKeys
from kuaimai.extract.pages import READ_ATTEMPTS, read_settled
from kuaimai.extract.paging import window_request
from kuaimai.extract.reads import READINGS, UNPROVEN, Read
from kuaimai.extract.staged import Part, Staged, question_name
from kuaimai.extract.staging import Staging
from kuaimai.extract.windows import SCAN, Shop, Window
from kuaimai.gateway import catalog
from kuaimai.gateway.client import Client


def read_everything(
    client: Client,
    method: str,
    window: Window,
    shops: Sequence[Shop],
    *,
    rank: int,
    page_size: int,
    staging: Staging,
    folder: str,
    params: Mapping[str, str] | None = None,
    now: Callable[[], float] = time.time,
) -> Read:
    """Read all records of a method into staging.

    Args:
        client: calls the gateway.
        method: a catalogued method that can be asked without a time.
        window: the run's own time, by `SCAN`; part of the proof's id.
        shops: whose records.
        rank: see `Read.rank`.
        page_size: records per page to ask for.
        staging: where raw answers go as they arrive.
        folder: staging folder; the read gets its own below it.
        params: business parameters that are sent with every request.
        now: clock, epoch seconds.

    Returns:
        The read; unproven where no two readings agreed.

    Raises:
        DataError: the gateway ignores the page size or the page number.
        KuaimaiError: a call failed for good.
    """
    spent = client.requests
    request = window_request(method, window, shops, params=params)
    asking = Asking(client, method, request, dimension=SCAN, page_size=page_size, now=now)
    whole = Stretch(math.floor(window.start.timestamp()), math.floor(window.end.timestamp()))
    staged = Staged(staging, f"{folder}/{question_name(method, request, shops)}", whole.start)
    first = asking.page(whole)
    if first.complete:
        part = staged.keep(whole, first)
    elif catalog.method(method).page is None:
        part = _repeated(asking, whole, first, staged)
    else:
        part = read_settled(asking, whole, staged, archive=first.total is None)
    return Read(
        method=method,
        window=window,
        shops=tuple(shop.id for shop in shops),
        rank=rank,
        request=request,
        folder=staged.folder,
        files=part.files,
        rows=part.rows,
        distinct=len(part.keys),
        total_before=part.total_before,
        total_after=part.total_after,
        attempts=part.attempts,
        requests=client.requests - spent,
        first_read_at=instant(part.asked_at),
        last_read_at=instant(now()),
        proof=part.proof,
    ).without_names(staging)


def _repeated(asking: Asking, whole: Stretch, first: Page, staged: Staged) -> Part:
    """Ask again for what comes in one answer without a count, until two in a row hold the same records."""
    last, before = first, first
    attempt, agreed = 1, False
    while not agreed and attempt <= READ_ATTEMPTS:
        before, last = last, asking.page(whole)
        attempt += 1
        agreed = set(before.keys) == set(last.keys)
    name = f"{staged.name(whole)}/{attempt}"
    staged.write(name, last.answer)
    keys = DistinctKeys()
    keys.update(last.keys)
    proof = READINGS if agreed else UNPROVEN
    return Part(whole, (name,), keys, len(last.keys), None, None, proof, before.asked_at, attempt)
