"""What a list leaves out of its records, by one call per record: the lines of a purchase, for example.

A record and its lines are asked for one after the other, so lines may be newer than their record. Then the
record has changed meanwhile, and the next window brings both in that version.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec

from kuaimai.errors import Rejected, Transient
from kuaimai.extract.asking import instant
from kuaimai.extract.reads import Read
from kuaimai.extract.skim import record_key, sent
from kuaimai.extract.staged import REUSE_SECONDS
from kuaimai.extract.staging import Staging, safe_name
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, decode_json, encode_json, read_envelope
from kuaimai.gateway.catalog import Detail
from kuaimai.gateway.client import Client

log = logging.getLogger(__name__)

# In place of a record's lines: the gateway's refusal. The record then goes to quarantine with it.
REFUSED = "_refused"
# So many refusals and not one answer are no records' fault: the method itself is refused.
MOST_REFUSALS = 3

_SUFFIX = ".json.zst"
_REFUSAL = f"~refused{_SUFFIX}"
_FIRST = f"~000{_SUFFIX}"


def read_details(
    client: Client,
    read: Read,
    staging: Staging,
    *,
    connections: int,
    now: Callable[[], float] = time.time,
) -> Read:
    """Put into staging what the list of a read leaves out, once per record and version.

    Answers that an earlier life of the same task has staged are not asked for again for a while. A record
    whose call is refused is set aside later; it does not hold up the others.

    Args:
        client: calls the gateway.
        read: a list, as read.
        staging: where its answers are, and the others go.
        connections: how many requests are on their way at the same time, inside the budget.
        now: clock, epoch seconds.

    Returns:
        The read with the folder of the details; the same where the method leaves nothing out.

    Raises:
        Rejected: every call was refused.
        KuaimaiError: a call failed for good; what was complete by then need not be asked for again.
    """
    detail = catalog.method(read.source).detail
    if detail is None:
        return read
    spent = client.requests
    folder = f"{read.folder}/details"
    wanted = {
        _name(read.source, row): str(row[detail.field])
        for name in read.page_names(staging)
        for row in _rows(read.source, staging.read_compressed(name))
        if row.get(detail.field) is not None
    }
    known = {
        name
        for name, at, file in _staged(staging, folder)
        if at >= now() - REUSE_SECONDS and not file.endswith(_REFUSAL)
    }
    missing = {name: value for name, value in wanted.items() if name not in known}
    ask = partial(_ask, client, detail, staging=staging, folder=folder, now=now)
    with ThreadPoolExecutor(connections, thread_name_prefix="detail") as pool:
        futures = [pool.submit(ask, name, value) for name, value in sorted(missing.items())]
        try:
            refusals = [refused for future in futures if (refused := future.result()) is not None]
        finally:
            # After an error the calls that were not begun are not made.
            for future in futures:
                future.cancel()
    if len(refusals) == len(missing) >= MOST_REFUSALS:
        raise refusals[0]
    return msgspec.structs.replace(
        read, details=folder, requests=read.requests + client.requests - spent, last_read_at=instant(now())
    )


def composed(read: Read, answers: Iterable[Answer], staging: Staging) -> Iterator[Answer]:
    """Give answers of a read back with what the list left out in its place in each record."""
    entry = catalog.method(read.source)
    if not read.details or entry.detail is None:
        yield from answers
        return
    files = _newest(staging, read.details)
    for answer in answers:
        rows = [
            {**row, entry.detail.into: _lines(entry.detail, files.get(_name(read.source, row), ()), staging)}
            for row in answer.rows(entry.list_keys)
        ]
        yield _page(answer, rows)


def composed_page(answer: Answer, staging: Staging, folder: str) -> Answer:
    """Return those records of a page whose details are staged, with them; to look at.

    Args:
        answer: a page of a list.
        staging: where the details are.
        folder: in which folder, see `Read.details`.
    """
    entry = catalog.method(answer.method)
    if entry.detail is None:
        return answer
    files = _newest(staging, folder)
    rows = [
        {**row, entry.detail.into: _lines(entry.detail, files[name], staging)}
        for row in answer.rows(entry.list_keys)
        if (name := _name(answer.method, row)) in files
    ]
    return _page(answer, rows)


def asked_page(client: Client, answer: Answer, most: int) -> Answer:
    """Return the first records of a page with their details, asked for now and not staged; to look at.

    Raises:
        KuaimaiError: a call failed for good. One that was refused does not: its refusal is in their place.
    """
    entry = catalog.method(answer.method)
    if entry.detail is None:
        return answer
    rows = []
    for row in answer.rows(entry.list_keys)[:most]:
        value = row.get(entry.detail.field)
        lines = _lacking(entry.detail) if value is None else _asked(client, entry.detail, str(value))
        rows.append({**row, entry.detail.into: lines})
    return _page(answer, rows)


def _asked(client: Client, detail: Detail, value: str) -> Any:
    try:
        return [row for raw in ask_details(client, detail, value) for row in _rows(detail.method, raw)]
    except Rejected as refusal:
        return {REFUSED: str(refusal)}


def _page(answer: Answer, rows: list[dict[str, Any]]) -> Answer:
    """Return an answer with other records."""
    raw = encode_json({catalog.method(answer.method).list_keys[0]: rows})
    return Answer(answer.method, read_envelope(answer.method, raw), raw, answer.trace_id)


def _ask(
    client: Client,
    detail: Detail,
    name: str,
    value: str,
    *,
    staging: Staging,
    folder: str,
    now: Callable[[], float],
) -> Rejected | None:
    """Stage what a record lacks; return the refusal where the gateway gives none."""
    asked_at = int(now())
    try:
        pages = ask_details(client, detail, value)
    except Rejected as refusal:
        log.warning("%s %s: %s", detail.method, value, refusal)
        told = encode_json({REFUSED: str(refusal)})
        staging.write_compressed(f"{folder}/{name}~{asked_at}{_REFUSAL}", told)
        return refusal
    _write(staging, folder, name, asked_at, pages)
    return None


def ask_details(client: Client, detail: Detail, value: str) -> list[bytes]:
    """Return the raw pages of what one record lacks.

    Args:
        client: calls the gateway.
        detail: how a list's records are asked for once more.
        value: of `detail.field` in the record.

    Raises:
        Rejected: the gateway gives none.
        Transient: fewer came than it counted.
        KuaimaiError: a call failed for good.
    """
    entry = catalog.method(detail.method)
    pages: list[bytes] = []
    last: list[dict[str, Any]] = []
    total: int | None = None
    came = 0
    while True:
        paged = {} if entry.page is None else {"pageNo": str(len(pages) + 1), "pageSize": str(entry.page.max)}
        answer = client.call(detail.method, {**entry.send, detail.param: value, **paged})
        rows = answer.rows(entry.list_keys)
        total = total if answer.total is None else answer.total
        if pages and (not rows or rows == last):
            break  # nothing more, or the page number is ignored
        pages.append(answer.raw)
        came, last = came + len(rows), rows
        # Without a count only a page that brings nothing more is the end: a short one may be a silent cap.
        if not paged or not rows or (total is not None and came >= total):
            break
    if total is not None and came < total:
        # Lines that are stored and do not come would be marked as gone.
        raise Transient(
            f"{came} of {total} lines came for {detail.param} {value}",
            method=detail.method,
            hint="nothing was counted as read, the next try asks again; if it repeats, ask Kuaimai",
        )
    return pages


def _write(staging: Staging, folder: str, name: str, asked_at: int, pages: list[bytes]) -> None:
    # The first page last: it says that the others are there.
    for number, raw in reversed(list(enumerate(pages))):
        staging.write_compressed(f"{folder}/{name}~{asked_at}~{number:03d}{_SUFFIX}", raw)


def _staged(staging: Staging, folder: str) -> list[tuple[str, int, str]]:
    """Return name, time of asking and file of every detail that is staged to its end."""
    found = []
    for file in staging.names(folder):
        name, asked_at, _ = file.removesuffix(_SUFFIX).split("~")
        found.append((name, int(asked_at), file))
    whole = {(name, at) for name, at, file in found if file.endswith((_FIRST, _REFUSAL))}
    return [one for one in found if one[:2] in whole]


def _newest(staging: Staging, folder: str) -> dict[str, list[str]]:
    """Return the files of each staged detail, those of the latest asking."""
    files: dict[str, list[str]] = {}
    newest: dict[str, int] = {}
    for name, at, file in _staged(staging, folder):
        if at > newest.get(name, -1):
            newest[name], files[name] = at, []
        if at == newest[name]:
            files[name].append(f"{folder}/{file}")
    return files


def _lines(detail: Detail, files: Iterable[str], staging: Staging) -> Any:
    lines: list[dict[str, Any]] = []
    for file in sorted(files):
        raw = staging.read_compressed(file)
        if file.endswith(_REFUSAL):
            return decode_json(raw)
        lines += _rows(detail.method, raw)
    return lines if files else _lacking(detail)


def _lacking(detail: Detail) -> dict[str, str]:
    return {REFUSED: f"without {detail.field} there is nothing to ask {detail.method} by"}


def _rows(method: str, raw: bytes) -> list[dict[str, Any]]:
    return Answer(method, read_envelope(method, raw), raw).rows(catalog.method(method).list_keys)


def _name(method: str, row: Mapping[str, Any]) -> str:
    """Return a record and its version as part of a file's name: a record that changed is asked for anew."""
    kind = catalog.record(catalog.method(method).record or "")
    stamps = (sent(row, kind.fields[name]) for name in kind.version)
    version = next((stamp for stamp in stamps if stamp is not None), "")
    plain = f"{record_key(dict(row), kind)}-{version}"
    name = safe_name(plain)
    return name if name == plain else f"{name}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"
