"""Shops and warehouses: read in full, they carry no time of change."""

from __future__ import annotations

from kuaimai.sandbox.listing import Listing, Paging
from kuaimai.sandbox.merchant import WAREHOUSES, shop_records
from kuaimai.sandbox.oddities import Marks
from kuaimai.sandbox.series import FOREVER
from kuaimai.sandbox.shelf import Source

_MAX_SHOP_PAGE = 500

# The parameter `id` has no effect, as measured.
SHOPS = Listing(
    Source(
        "shop",
        lambda world, _at: len(world.shops),
        lambda world, n, _at: (shop_records(world.shops[n : n + 1]), 0, FOREVER),
        stays=True,
    ),
    Marks("shop", key=("userId",), time="deadline", retyped="state", dropped="groupName"),
    paging=Paging(default=_MAX_SHOP_PAGE, max=_MAX_SHOP_PAGE),
)
WAREHOUSE_LIST = Listing(
    Source(
        "warehouse",
        lambda _world, _at: len(WAREHOUSES),
        lambda _world, n, _at: ([WAREHOUSES[n]], 0, FOREVER),
        stays=True,
    ),
    Marks("warehouse", key=("id",), retyped="status", dropped="companyId"),
    paging=Paging(max=None, total_on="none"),
    filters={"id": "id", "name": "name", "code": "code"},
)
