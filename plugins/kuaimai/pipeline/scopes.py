"""Whose records a pipeline asks for: the shops or warehouses of the merchant, and who serves them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from kuaimai.errors import ConfigError, DataError, Transient
from kuaimai.extract.windows import EVERYTHING, WAREHOUSE, Shop
from kuaimai.gateway import catalog
from kuaimai.gateway.client import Client
from kuaimai.pipeline.spec import Pipeline

log = logging.getLogger(__name__)

SHOP_METHOD = "erp.shop.list.query"
WAREHOUSE_METHOD = "erp.warehouse.list.query"


def fetch_scopes(pipeline: Pipeline, client: Client) -> list[Shop]:
    """Return whose records a pipeline asks for: shops, warehouses, or everything at once.

    Shops of a platform that the pipeline's own method does not serve are left out, and told: a call that
    names one is refused as a whole.

    Raises:
        ConfigError: the method serves none of the merchant's shops.
        DataError: a shop or warehouse has no id, or there are none, which looks the same as a lost right.
        Transient: fewer came than the gateway counted.
    """
    if pipeline.scope == "shop":
        return _served(pipeline, fetch_shops(client))
    if pipeline.scope == "warehouse":
        return [Shop(key, WAREHOUSE) for key in sorted(_fetch(client, WAREHOUSE_METHOD))]
    return [EVERYTHING]


def _served(pipeline: Pipeline, shops: Sequence[Shop]) -> list[Shop]:
    base = catalog.method(pipeline.source.method)
    served = [shop for shop in shops if shop.source not in base.not_served]
    others = sorted({shop.source for shop in shops} & base.not_served)
    if others:
        log.warning(
            "%s: %d of %d shops are left out, because %s does not serve %s",
            pipeline.name,
            len(shops) - len(served),
            len(shops),
            base.name,
            ", ".join(others),
        )
    if not served:
        raise ConfigError(
            f"{base.name} serves none of the merchant's platforms: {', '.join(others)}",
            method=base.name,
            hint="read orders by erp.trade.outstock.simple.query, which serves all",
        )
    return served


def fetch_shops(client: Client) -> list[Shop]:
    """Return all shops of the merchant, page by page.

    Raises:
        DataError: a shop has no id, or there are no shops, which looks the same as a lost right.
        Transient: fewer came than the gateway counted.
    """
    found = _fetch(client, SHOP_METHOD)
    return sorted(Shop(key, str(row.get("source") or "")) for key, row in found.items())


def _fetch(client: Client, method: str) -> dict[str, dict[str, Any]]:
    """Return all records of a short list, by their key.

    Whose records a run does not ask for, nobody misses: a list that comes short is not believed.
    """
    found, total = _listed(client, method)
    if len(found) < total:
        found, total = _listed(client, method)  # one may have moved between two pages
    name = catalog.record(catalog.method(method).record or "").name
    if len(found) < total:
        raise Transient(
            f"{len(found)} of {total} {name}s came",
            method=method,
            hint="nothing was planned for only some of them; the next try asks again",
        )
    if not found:
        raise DataError(
            f"the list of {name}s is empty",
            method=method,
            hint="a merchant has some: ask Kuaimai whether the appKey has lost the right to see them",
        )
    return found


def _listed(client: Client, method: str) -> tuple[dict[str, dict[str, Any]], int]:
    """Return what a list holds, by key, and how many it counts; 0 where it sends no count."""
    entry = catalog.method(method)
    kind = catalog.record(entry.record or "")
    found: dict[str, dict[str, Any]] = {}
    total = page = 0
    while True:
        page += 1
        paged = {"pageNo": str(page), "pageSize": str(entry.page.max)} if entry.page else {}
        answer = client.call(method, {**entry.send, **paged})
        before = len(found)
        for row in answer.rows(entry.list_keys):
            key = str(row.get(kind.key) or "")
            if not key:
                raise DataError(
                    f"a {kind.name} without {kind.key} in the answer", method=method, trace_id=answer.trace_id
                )
            found[key] = row
        total = answer.total or total
        # Total first; where there is none, a page that brings nothing new ends it.
        if 0 < total <= len(found) or len(found) == before or not paged:
            return found, total


def serving(pipeline: Pipeline, shop: Shop) -> list[str]:
    """Return the pipeline's methods that return this shop's records."""
    base = pipeline.source.method
    return [
        name
        for name in pipeline.source.methods
        if name == base or shop.source not in catalog.method(name).not_served
    ]
