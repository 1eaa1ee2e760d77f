"""Two lines make a pipeline of any method: the mirror holds what the gateway has of it, and proves it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from installation import SHIPPED, START, mirror

from kuaimai.gateway import catalog
from kuaimai.pipeline.spec import load_pipeline

DAY = timedelta(days=1)
# Read as they are, by their time or as a whole.
LISTS = [
    "erp.aftersale.refund.warehouse.query",
    "erp.aftersale.replenish.list.query",
    "erp.aftersale.repair.list.query",
    "erp.distributor.list.query",
    "erp.query.customers.list",
    "erp.trade.logistics.company.user.list",
    "erp.item.tag.list",
    "brand.list.get",
    "erp.item.seller.cat.list.get",
    "item.classify.list.get",
    "erp.purchase.shelf.query",
    "erp.virtual.warehouse.query",
    "erp.item.virtual.stock.query",
    "erp.trade.list.query",
    "erp.wave.logistics.order.query",
    "erp.trade.trace.list",
    "erp.trade.waves.query",
    "erp.item.unique.code.query",
    "erp.allocate.task.query",
    "allocate.out.task.query",
    "allocate.in.task.query",
    "other.in.order.query",
    "other.out.order.query",
    "inventory.sheet.query",
    "erp.stock.product.order.query",
    "erp.wms.unshelve.order.query",
    "asso.goods.section.sku.query",
    "asso.goods.section.sku.del.query",
    "goods.section.in.out.record.query",
]
# Read for a state or for codes, which the pipeline's file names.
GIVEN = {
    "erp.trade.query.tag.list": {"tagType": "1"},
    "erp.trade.outstock.list.query": {"status": "FINISH"},
    "erp.item.supplier.list.get": {"outerIds": "DEMO-00,DEMO-01"},
    "erp.item.outerid.list.get": {"outerIds": "DEMO-00-0"},
    "erp.item.multicode.query": {"code": "DEMO-00"},
    "erp.item.warehouse.list.get": {"outerId": "DEMO-00"},
    "erp.item.stock.in.out.list": {"outerId": "DEMO-09"},
    "item.single.get": {"outerId": "DEMO-00"},
    "erp.item.list.get": {"outerIds": "DEMO-00,DEMO-01"},
    "erp.item.sku.list.get": {"outerId": "DEMO-00"},
}


def test_every_list_of_the_catalogue_is_tried():
    methods = {name: catalog.method(name) for name in catalog.method_names()}
    shipped = {load_pipeline(path).source.method for path in SHIPPED.glob("*.yaml")}
    details = {one.detail.method for one in methods.values() if one.detail}
    # Months ago, which the backfill reads for the others.
    histories = {one.history for one in methods.values() if one.history}
    untried = {name for name, one in methods.items() if one.record} - shipped - details - histories
    assert untried - {*LISTS, *GIVEN} == {
        "erp.aftersale.operate.log.query",  # of one work order
        "erp.item.history.cost.price.query",  # of one SKU
        "erp.item.single.sku.get",  # one SKU
        # the first version of methods that are tried
        "item.list.get",
        "item.sku.list.get",
        "item.supplier.list.get",
    }


def reading(shop, folder, name: str, params: dict[str, str] | None = None):
    """Read the last week, or everything where the method knows no times."""
    path = folder / "mine.yaml"
    path.write_text(f"name: mine\nsource: {{method: {name}, params: {params or {}}}}\n", encoding="utf-8")
    shop.pipeline = load_pipeline(path)
    return shop.run(START - 8 * DAY, START, dimension=shop.pipeline.time.dimension)


@pytest.mark.parametrize("name", LISTS)
def test_mirror_of_a_list_holds_what_the_gateway_has(tmp_path, name):
    with mirror(tmp_path, history_orders=60, archive_orders=0, archive_documents=0) as shop:
        summary = reading(shop, tmp_path, name)
        assert summary.sealed
        assert summary.landed == len(shop.box.truth(name)) > 1
        assert shop.wrong() == []


@pytest.mark.parametrize("name", GIVEN)
def test_mirror_of_what_is_asked_for_by_its_name_holds_it(tmp_path, name):
    with mirror(tmp_path, history_orders=60) as shop:
        summary = reading(shop, tmp_path, name, GIVEN[name])
        assert summary.sealed
        assert summary.landed > 0
        again = reading(shop, tmp_path, name, GIVEN[name])
        assert (again.sealed, again.inserted + again.updated) == (True, 0)
