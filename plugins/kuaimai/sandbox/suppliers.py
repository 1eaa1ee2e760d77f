"""Suppliers, with the bank and phone data that the service gives away; all of it is invented."""

from __future__ import annotations

from kuaimai.sandbox.listing import Listing
from kuaimai.sandbox.oddities import Marks
from kuaimai.sandbox.series import drawn
from kuaimai.sandbox.shelf import Lived, Record, Source
from kuaimai.sandbox.world import DAY, World

FIRST_ID = 650_001
_LINES_OF_TRADE = ("日用", "纺织", "灯具", "箱包", "玻璃")
_COOPERATING, _STOPPED = 1, 2


def supplier(world: World, n: int, edit: int = 0) -> Record:
    """Supplier `n` after its `edit`th change; no time tells when that was."""
    draws = drawn(world.seed, "supplier", n)
    name = f"示例{_LINES_OF_TRADE[n % len(_LINES_OF_TRADE)]}供应商{n + 1}"
    return {
        "id": FIRST_ID + n,
        "code": f"S{n + 1:03d}",
        "name": name,
        "status": _STOPPED if draws[0] % 8 == 0 else _COOPERATING,
        "categoryName": "默认分类",
        "planReceiveDay": 1 + draws[1] % 14,
        "billType": "月结",
        "contactName": f"联系人{n + 1}",
        "mobile": f"139{draws[2] % 10_000:04d}{edit % 10_000:04d}",
        "phone": "0571-00000000",
        "fax": "",
        "email": f"s{n + 1}@supplier.example",
        "qq": "",
        "wechat": "",
        "accountBank": "示例银行示例支行",
        "bankNumber": f"6222{draws[3]:05d}{draws[4]:05d}00000",
        "alipay": "",
        "tax": f"9133{draws[5]:05d}{draws[6]:05d}",
        "invoiceName": name,
        "province": "示例省",
        "city": "示例市",
        "district": "示例区",
        "address": f"示例路{n + 1}号",
        "zip": "",
        "webAddress": "",
        "remark": "",
    }


def _lived(world: World, n: int, at: int) -> Lived:
    period = DAY * (1 + drawn(world.seed, "supplier", n)[7] % 30)
    edit = at // period
    return [supplier(world, n, edit)], edit * period, (edit + 1) * period


LIST = Listing(
    Source("supplier", lambda world, _at: world.suppliers, _lived),
    Marks("supplier", key=("id",), retyped="planReceiveDay", dropped="categoryName"),
    filters={"status": "status"},
    allowed={"status": frozenset({"1", "2"})},
)
