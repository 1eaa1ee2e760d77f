"""Real records to look at: the last page that a run has staged, or one live page, asked as a run asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from kuaimai.errors import ConfigError
from kuaimai.extract.details import asked_page, composed_page
from kuaimai.extract.sample import sample
from kuaimai.extract.staged import asked_shop
from kuaimai.extract.staging import Staging
from kuaimai.extract.windows import SCAN, Shop
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, read_envelope
from kuaimai.gateway.client import Client
from kuaimai.pipeline.scopes import fetch_scopes, serving
from kuaimai.pipeline.spec import Pipeline

_HOURS = 24
# Each record whose lines the list leaves out is a call of its own.
_MOST_DETAILS = 20
# Where nothing has changed in a warehouse, the next one may have something to show.
_MOST_SCOPES = 5


class Sample(NamedTuple):
    """A page of one of a pipeline's methods.

    Attributes:
        answer: the page, each record with what the list leaves out of it.
        origin: a staging file, or the live gateway.
        given: ids that the records were asked for by, by field; for records that leave them out.
    """

    answer: Answer
    origin: str
    given: Mapping[str, str] = {}


def check_method(pipeline: Pipeline, method: str | None) -> str:
    """Return the method to look at: the pipeline's first one unless another of its methods is named.

    Raises:
        ConfigError: the pipeline does not use that method.
    """
    if method is None:
        return pipeline.source.method
    if method not in pipeline.source.methods:
        raise ConfigError(
            f"pipeline {pipeline.name} does not use {method}",
            hint=f"it uses {', '.join(pipeline.source.methods)}",
        )
    return method


def last_staged(pipeline: Pipeline, staging: Staging, only: str | None = None) -> Sample | None:
    """Return the newest page with records that a run has staged; None where there is none.

    Args:
        pipeline: the pipeline.
        staging: where runs put their pages.
        only: the method to look at; None for any.
    """
    for _, rank, folder, file in sorted(_staged(pipeline, staging), reverse=True):
        method = pipeline.source.methods[rank]
        if only not in (None, method):
            continue
        raw = staging.read_compressed(f"{folder}/{file}")
        answer = Answer(method, read_envelope(method, raw), raw)
        answer = composed_page(answer, staging, f"{folder}/details")
        if answer.rows(catalog.method(method).list_keys):
            return Sample(
                answer, f"{folder}/{file}", _asked_by(method, asked_shop(folder.rpartition("/")[2]))
            )
    return None


def _staged(pipeline: Pipeline, staging: Staging) -> Iterator[tuple[float, int, str, str]]:
    """Yield the raw pages of the pipeline's runs: time, rank of the method, folder, file."""
    for run in staging.names(pipeline.name):
        for piece in staging.names(f"{pipeline.name}/{run}"):
            for rank in range(len(pipeline.source.methods)):
                questions = f"{pipeline.name}/{run}/{piece}/raw/{rank}"
                for question in staging.names(questions):
                    folder = f"{questions}/{question}"
                    for file in staging.names(folder):
                        if file.endswith(".json.zst"):
                            yield staging.changed_at(f"{folder}/{file}"), rank, folder, file


def live_page(pipeline: Pipeline, client: Client, method: str, *, now: float) -> Sample:
    """Return one page of the last day, asked as the pipeline asks.

    That is by its time, with its parameters, for the first shops or the first warehouse that has something to
    show; where the list leaves out lines, for the first records and with these.

    Args:
        pipeline: the pipeline.
        client: calls the gateway.
        method: one of the pipeline's methods.
        now: epoch seconds.

    Raises:
        ConfigError: the method serves none of the merchant's shops.
        KuaimaiError: the gateway does not answer.
    """
    entry = catalog.method(method)
    size = min(pipeline.source.page_size, _MOST_DETAILS) if entry.detail else pipeline.source.page_size
    first, *more = _groups(pipeline, method, fetch_scopes(pipeline, client))[:_MOST_SCOPES]

    def ask(shops: list[Shop]) -> Answer:
        return sample(
            client,
            method,
            now=now,
            hours=_HOURS,
            records=size,
            dimension=pipeline.time.dimension,
            shops=shops,
            params=pipeline.source.params,
        )

    shops, answer = first, ask(first)
    while more and not answer.rows(entry.list_keys):
        shops = more.pop(0)
        answer = ask(shops)
    since = "" if pipeline.time.dimension == SCAN else f", last {_HOURS} hours"
    where = f", warehouse {shops[0].id}" if pipeline.scope == "warehouse" else ""
    return Sample(
        asked_page(client, answer, _MOST_DETAILS),
        f"the live gateway{since}{where}",
        _asked_by(method, shops[0].id if len(shops) == 1 else ""),
    )


def _asked_by(method: str, shop: str) -> dict[str, str]:
    """Return the id of the one shop or warehouse that was asked for, by the field that may leave it out."""
    scope = catalog.method(method).scope
    return {scope.field: shop} if scope and scope.field and shop else {}


def _groups(pipeline: Pipeline, method: str, scopes: list[Shop]) -> list[list[Shop]]:
    """Return the shops or warehouses that a method serves, as many together as one call takes."""
    served = [shop for shop in scopes if method in serving(pipeline, shop)]
    if not served:
        raise ConfigError(f"{method} serves none of the merchant's shops", method=method)
    scope = catalog.method(method).scope
    most = scope.max if scope else len(served)
    return [served[at : at + most] for at in range(0, len(served), most)]
