"""The proof beside the data: one row per window, one per quarantined record, in the target itself."""

from __future__ import annotations

from kuaimai.transform.tables import Column

WINDOW_TABLE = "kuaimai_window"
QUARANTINE_TABLE = "kuaimai_quarantine"
RECONCILE_TABLE = "kuaimai_reconcile"
TOTAL_TABLE = "kuaimai_reconcile_total"
SCHEMA_TABLE = "kuaimai_schema"

OPEN = "open"
SEALED = "sealed"
CONTESTED = "contested"
SUPERSEDED = "superseded"

# A window that did not seal in so many loads is not healed by scheduled runs any more: a person is told, and
# the nightly reconcile tries.
MOST_TRIES = 5

# What a seal rests on.
# One answer (or several, one per stretch of time) that held all the rows it counted: it cannot have moved.
SNAPSHOT = "snapshot"
# Pages that were read while the gateway's count before and after was the same.
COUNTS = "counts"
# Two readings with the same keys, where the gateway sends no totals (its archive).
READINGS = "readings"
# Nothing: no two readings agreed, or the gateway counted other records than it gave.
UNPROVEN = "unproven"

WINDOW_COLUMNS: tuple[Column, ...] = (
    Column("window_id", "id", "窗口编号"),
    Column("pipeline", "text", "管道"),
    Column("method", "text", "接口"),
    Column("shops", "text", "店铺编号（JSON）"),
    Column("dimension", "text", "时间维度"),
    Column("window_start", "time", "窗口开始（含）"),
    Column("window_end", "time", "窗口结束（含）"),
    Column("total_before", "integer", "读取前网关总数"),
    Column("total_after", "integer", "读取后网关总数"),
    Column("distinct_keys", "integer", "读到的不同主键数"),
    Column("landed", "integer", "已在目标表中的主键数（回读核实）"),
    Column("inserted", "integer", "新增行数"),
    Column("updated", "integer", "更新行数"),
    Column("unchanged", "integer", "未变化行数"),
    Column("stale", "integer", "被更新版本取代、未写入的行数"),
    Column("quarantined", "integer", "隔离记录数"),
    Column("filtered", "integer", "按管道规则略过的记录数（过滤条件或自定义步骤）"),
    Column("missing", "integer", "全量扫描未见到、标记为消失的行数"),
    Column("pages", "integer", "页数"),
    Column("requests", "integer", "请求数"),
    Column("attempts", "integer", "读取次数"),
    Column("tries", "integer", "入库后仍未封存的累计次数（封存后归零）"),
    Column("unread", "integer", "计划后未能读完的次数（读完后归零；多者排在补读队尾）"),
    Column(
        "planned_as",
        "text",
        "首次计划的来源（interval、heal、asked、backfill、border、reconcile；"
        "missed 为早于补读范围、没有读过的时间）",
    ),
    Column("found_only", "integer", "由本窗口首次带来的主键累计数（此前任何时间维度都没有带来过）"),
    Column(
        "state",
        "text",
        "状态（open 未封存 / sealed 已封存 / contested 多次未能封存，已告警，留给夜间核对 / "
        "superseded 已由其他窗口补齐）",
    ),
    Column("reason", "text", "未封存原因"),
    Column("proof", "text", "证明方式"),
    Column("run_id", "text", "运行编号"),
    Column("first_read_at", "time", "首次读取时间"),
    Column("last_read_at", "time", "最后读取时间"),
    Column("recorded_at", "time", "记录时间"),
)

# What plans and seals ask windows by: without these each reads the whole table, a million rows after a year.
WINDOW_INDEXES: dict[str, tuple[str, ...]] = {
    "kuaimai_window_start": ("pipeline", "dimension", "window_start"),
    "kuaimai_window_end": ("pipeline", "dimension", "window_end"),
}

QUARANTINE_COLUMNS: tuple[Column, ...] = (
    Column("quarantine_id", "id", "隔离编号"),
    Column("pipeline", "text", "管道"),
    Column("pipeline_version", "text", "管道定义指纹"),
    Column("method", "text", "接口"),
    Column("record_key", "id", "记录主键（# 开头为内容指纹）"),
    Column("reason", "text", "原因"),
    Column("request", "json", "请求（已脱敏）"),
    Column("record", "text", "完整记录（JSON，个人信息已去除）"),
    Column("window_id", "id", "窗口编号"),
    Column("first_seen_at", "time", "首次出现时间"),
    Column("last_seen_at", "time", "最近出现时间"),
    Column("resolved_at", "time", "解决时间（该记录后来正常入库）"),
)


# What was seen of the source's fields, for changes to be told once: one row per pipeline and method.
SCHEMA_COLUMNS: tuple[Column, ...] = (
    Column("schema_id", "id", "编号"),
    Column("pipeline", "text", "管道"),
    Column("method", "text", "接口"),
    Column(
        "known", "text", "已见过的字段：有值的次数、目录之外的字段、不合类型的字段、不再出现的字段（JSON）"
    ),
    Column("changed_at", "time", "更新时间"),
)

# What the last nightly reconcile found: one row per pipeline, day of creation and group of shops.
RECONCILE_COLUMNS: tuple[Column, ...] = (
    Column("reconcile_id", "id", "核对编号"),
    Column("pipeline", "text", "管道"),
    Column("day", "text", "下单日期（东八区）"),
    Column("shops", "text", "店铺编号（JSON）"),
    Column("gateway_count", "integer", "网关总数"),
    Column("target_count", "integer", "目标表有效行数"),
    Column("quarantined", "integer", "仍在隔离的记录数"),
    Column("missing", "integer", "目标表缺少的记录数"),
    Column("repaired", "integer", "已补回的记录数"),
    Column("elsewhere", "integer", "网关按编号仍返回、但不在该时段的记录数"),
    Column("tombstoned", "integer", "网关已不再返回、标记为消失的记录数"),
    Column("changed", "integer", "补上的变更数（当日下单或当日变更，此前各窗口均未见到）"),
    Column("tombstones", "json", "标记为消失的主键（JSON）"),
    Column("problem", "text", "仍未解决的差异"),
    Column("run_id", "text", "运行编号"),
    Column("reconciled_at", "time", "核对时间"),
)

# What the nightly totals are by, and what they add up: columns of the orders and of their lines.
STATUS = "sys_status"
AMOUNTS = ("payment", "pay_amount")

# Orders and amounts of the same days: one row per pipeline, day of creation, shop and status.
TOTAL_COLUMNS: tuple[Column, ...] = (
    Column("total_id", "id", "合计编号"),
    Column("pipeline", "text", "管道"),
    Column("day", "text", "下单日期（东八区）"),
    Column("shop", "id", "店铺编号"),
    Column("status", "text", "系统状态"),
    Column("orders", "integer", "订单数"),
    Column("payment", "yuan", "应付金额（明细合计）"),
    Column("pay_amount", "yuan", "实付金额（明细合计）"),
    Column("reconciled_at", "time", "核对时间"),
)


def why_open(
    *,
    total_before: int | None,
    total_after: int | None,
    landed: int,
    quarantined: int,
    filtered: int = 0,
    read_before_its_end: bool = False,
    proof: str = COUNTS,
    distinct: int = 0,
) -> str | None:
    """Return None if the window is proven complete, else why it is not, in one sentence.

    The equation of the promise: the gateway's count before the read, its count after the read, and the
    records that are in the target, in quarantine, or left out by the pipeline's rules are the same number.
    Where the gateway sends no totals, two readings that agreed stand in for its counts.

    Args:
        total_before: the gateway's count before the read.
        total_after: its count after the read.
        landed: keys of the window that are in the target.
        quarantined: keys of the window that are in quarantine.
        filtered: keys that a filter or a step of the pipeline left out.
        read_before_its_end: whether the window was not over yet when it was read.
        proof: `SNAPSHOT`, `COUNTS`, `READINGS` or `UNPROVEN`.
        distinct: different keys that were read; used for `READINGS`.
    """
    if read_before_its_end:
        return "it was read before its end: more may have come since"
    if proof == READINGS:
        total_before = total_after = distinct
    if total_before is None or total_after is None:
        return "the gateway sent no total"
    if total_before != total_after:
        return f"the window moved while it was read: {total_before} records before, {total_after} after"
    if proof == UNPROVEN:
        return f"its readings did not agree: {total_after} records counted, {distinct} in the last reading"
    if landed + quarantined + filtered != total_before:
        left_out = f", {filtered} filtered" if filtered else ""
        return f"{total_before} records reported, {landed} landed and {quarantined} quarantined{left_out}"
    return None
