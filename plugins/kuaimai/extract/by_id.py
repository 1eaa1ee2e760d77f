"""Reading records by their own ids: single orders, past all time windows.

An id that a list does not bring back is asked for once more on its own, because how many ids one call takes
is not documented: an answer that was cut short must not look like a record that is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

import msgspec

from kuaimai.errors import DataError, Transient
from kuaimai.extract.reads import COUNTS, Read
from kuaimai.extract.skim import record_key
from kuaimai.extract.staging import Staging
from kuaimai.extract.windows import Window
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, read_envelope
from kuaimai.gateway.client import Client


class Found(msgspec.Struct, frozen=True):
    """What the gateway has of some ids.

    Attributes:
        reads: one per call that brought records; their raw pages are in staging.
        shops: id → shop id of each record that came.
        absent: ids that did not come, neither in a list nor alone.
    """

    reads: tuple[Read, ...]
    shops: dict[str, str]
    absent: tuple[str, ...]


def calls_for(method: str, ids: int) -> int:
    """Return how many calls it takes to ask for so many ids."""
    return -(-ids // _limit(method))


def read_ids(
    client: Client,
    method: str,
    ids: Iterable[str],
    *,
    window: Window,
    shops: Iterable[str],
    rank: int,
    staging: Staging,
    folder: str,
    alone: Iterable[str] | None = None,
    now: Callable[[], float] = time.time,
) -> Found:
    """Read records by their ids into staging.

    Args:
        client: calls the gateway.
        method: a catalogued method that takes ids.
        ids: the ids.
        window: the window that the records are read for; part of every row's `_window_id`.
        shops: ids of that window's shops.
        rank: see `Read.rank`.
        staging: where raw pages go.
        folder: staging folder; each call gets its own below it.
        alone: those that are asked for once more on their own if no list brings them; None for all.
        now: clock, epoch seconds.

    Raises:
        DataError: the gateway ignores the ids.
        Transient: it counts a record that it does not give.
        KuaimaiError: a call failed for good.
    """
    wanted = sorted(set(ids))
    size = _limit(method)
    insisted = set(wanted if alone is None else alone)
    reads: list[Read] = []
    found: dict[str, str] = {}

    def ask(some: list[str]) -> None:
        read, records = _one_call(
            client,
            method,
            some,
            window=window,
            shops=tuple(shops),
            rank=rank,
            staging=staging,
            folder=f"{folder}/{len(reads)}",
            now=now,
        )
        if records:
            reads.append(read)
            found.update(records)

    for at in range(0, len(wanted), size):
        ask(wanted[at : at + size])
    for one in wanted:
        if one not in found and one in insisted and len(wanted) > 1:
            ask([one])
    return Found(tuple(reads), found, tuple(one for one in wanted if one not in found))


def records_of(reads: Iterable[Read], staging: Staging) -> Iterator[dict[str, Any]]:
    """Yield all records that some reads have put into staging, as they came."""
    for read in reads:
        entry = catalog.method(read.method)
        for name in read.page_names(staging):
            raw = staging.read_compressed(name)
            yield from Answer(read.method, read_envelope(read.method, raw), raw).rows(entry.list_keys)


def _one_call(
    client: Client,
    method: str,
    ids: list[str],
    *,
    window: Window,
    shops: tuple[str, ...],
    rank: int,
    staging: Staging,
    folder: str,
    now: Callable[[], float],
) -> tuple[Read, dict[str, str]]:
    """Ask for some ids, all pages, and return the read with id → shop id of what came."""
    entry = catalog.method(method)
    kind = catalog.record(entry.record or "")
    request = {**entry.send, entry.ids.param if entry.ids else kind.key: ",".join(ids)}
    size = entry.page.max if entry.page else len(ids)
    spent, began = client.requests, now()
    staging.remove(folder)
    found: dict[str, str] = {}
    pages = rows = 0
    total: int | None = None
    while True:
        answer = client.call(method, {**request, "pageNo": str(pages + 1), "pageSize": str(size)})
        total = answer.total if pages == 0 else total
        records = answer.rows(entry.list_keys)
        fresh = {record_key(one, kind): str(one.get("userId") or "") for one in records}
        strangers = fresh.keys() - set(ids)
        if strangers and not fresh.keys() & set(ids):
            raise DataError(
                f"asked for {len(ids)} ids, got {len(strangers)} other records",
                method=method,
                trace_id=answer.trace_id,
                hint="the gateway ignores the ids; nothing was marked as gone",
            )
        if not records or fresh.keys() <= found.keys():
            break
        pages += 1
        rows += len(records)
        found.update(fresh)
        staging.write_compressed(f"{folder}/{pages:05d}.json.zst", answer.raw)
        if len(found) >= (len(ids) if total is None else total):
            break
    if len(ids) == 1 and total and not found:
        raise Transient(
            f"0 of {total} records came for the id {ids[0]}",
            method=method,
            hint="the record is there, so it was not marked as gone; the next try asks again",
        )
    read = Read(
        method=method,
        window=window,
        shops=shops,
        rank=rank,
        request=request,
        folder=folder,
        files=tuple(f"{number:05d}" for number in range(1, pages + 1)),
        rows=rows,
        distinct=len(found),
        total_before=total,
        total_after=total,
        attempts=1,
        requests=client.requests - spent,
        first_read_at=datetime.fromtimestamp(began, timezone.utc),
        last_read_at=datetime.fromtimestamp(now(), timezone.utc),
        proof=COUNTS,
    )
    return read, found


def _limit(method: str) -> int:
    entry = catalog.method(method)
    if entry.ids is None:
        raise DataError(f"{method} cannot be asked by id", method=method)
    return entry.ids.max
