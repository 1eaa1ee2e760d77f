"""Reading the parameters of the two order queries, with the refusals that are documented for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from kuaimai.sandbox.book import TIME_TYPES
from kuaimai.sandbox.desk import Call, Refusal
from kuaimai.sandbox.world import GMT8

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kuaimai.sandbox.faults import Faults

SYS_STATUSES = frozenset({
    "WAIT_BUYER_PAY", "WAIT_AUDIT", "WAIT_FINANCE_AUDIT", "WAIT_MANUAL_AUDIT", "FINISHED_AUDIT",
    "WAIT_EXPRESS_PRINT", "SYS_STATUS_WAIT_DELIVERY_PRINT", "WAIT_PACKAGE", "WAIT_WEIGHT", "WAIT_SEND_GOODS",
    "WAIT_DEST_SEND_GOODS", "SELLER_SEND_GOODS", "FINISHED", "CLOSED", "CANCEL",
})  # fmt: skip
_ARCHIVE_TIME_TYPES = ("created", "pay_time", "consign_time")
_MAX_SHOPS = 10
_MAX_PAGE = 200
_MIN_PAGE = 20
_DEFAULT_PAGE = 20


@dataclass(frozen=True)
class TradeQuery:
    """What is asked for; times are epoch seconds, both ends included.

    `sids`, `tids` and `out_sids` bypass the window.
    """

    time_type: str
    first: int
    last: int
    user_ids: frozenset[int]
    statuses: frozenset[str]
    sids: tuple[int, ...]
    tids: tuple[str, ...]
    out_sids: tuple[str, ...]
    archive: bool
    page_no: int
    page_size: int
    use_has_next: bool
    use_cursor: bool
    cursor: str

    @property
    def by_id(self) -> bool:
        """Whether single orders are asked for instead of a window."""
        return bool(self.sids or self.tids or self.out_sids)

    @property
    def identity(self) -> tuple[object, ...]:
        """What two pages of one scan have in common."""
        return (
            self.time_type, self.first, self.last, self.user_ids, self.statuses,
            self.sids, self.tids, self.out_sids, self.archive,
        )  # fmt: skip


def read_trade_query(call: Call, faults: Faults) -> TradeQuery:
    """Check the parameters in a fixed order; the first fault found is the answer.

    Raises:
        Refusal: with the documented code, or our guess where none is documented (see the README).
    """
    params = call.params
    page_no = whole_number(params, "pageNo", 1, code="20001")
    page_size = whole_number(params, "pageSize", _DEFAULT_PAGE, code="20002")
    if page_size > _MAX_PAGE:
        raise Refusal("33", "单页数量不能超过200！")
    if faults.strict_min_page and page_size < _MIN_PAGE:
        raise Refusal("20002", "页数为空或不符合规定")
    archive = _query_type(params.get("queryType", ""))
    sids = _numbers(params.get("sid", ""), "20009", "系统订单号格式错误！")
    tids = tuple(part for part in params.get("tid", "").split(",") if part)
    out_sids = tuple(part for part in params.get("outSids", "").split(",") if part)
    user_ids = _numbers(params.get("userIds") or params.get("userId", ""), "20014", "店铺ID格式错误！")
    if len(user_ids) > _MAX_SHOPS:
        raise Refusal("20015", "店铺ID数量最大支持10组！")
    statuses = frozenset(part for part in params.get("status", "").split(",") if part)
    if not statuses <= SYS_STATUSES:
        raise Refusal("50", "查询的订单状态不合法！字段：[status]")
    time_type = params.get("timeType") or faults.default_time_type
    if time_type not in (_ARCHIVE_TIME_TYPES if archive else TIME_TYPES):
        raise Refusal("50", "查询的时间类型不合法！字段：[timeType]")
    first = last = 0
    if not (sids or tids or out_sids):
        first, last = moment(params, "startTime"), moment(params, "endTime")
        if first > last:
            raise Refusal("50", "开始时间不能大于结束时间！字段：[startTime]")
    return TradeQuery(
        time_type, first, last, frozenset(user_ids), statuses, sids, tids, out_sids, archive,
        page_no, page_size,
        use_has_next=params.get("useHasNext") == "true",
        use_cursor=params.get("useCursor") == "true" and not archive,
        cursor=params.get("cursor", ""),
    )  # fmt: skip


def whole_number(params: Mapping[str, str], name: str, default: int, *, code: str) -> int:
    """A page number or size of at least 1."""
    text = params.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise Refusal(code, "页数为空或不符合规定")
    return int(text)


def _query_type(text: str) -> bool:
    if text not in {"", "0", "1"}:
        raise Refusal("50", "查询类型不合法！字段：[queryType]")
    return text == "1"


def _numbers(text: str, code: str, message: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise Refusal(code, message)
    return tuple(int(part) for part in parts)


def moment(params: Mapping[str, str], name: str) -> int:
    """Epoch second of a required time parameter, `yyyy-MM-dd HH:mm:ss` in GMT+8."""
    text = params.get(name, "")
    if not text:
        raise Refusal("32", f"缺少必要参数！字段：[{name}]")
    try:
        # A date alone is refused: measured on warehouse-type methods, assumed here.
        return int(datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=GMT8).timestamp())
    except ValueError:
        raise Refusal("50", f"时间格式不合法！字段：[{name}]") from None
