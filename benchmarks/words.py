"""What the tables and the plot say: English, Chinese."""

from __future__ import annotations

Words = tuple[str, str]

WORDS: dict[str, Words] = {
    "way": ("way", "方式"),
    "slower": ("this package is faster by", "本包快多少倍"),
    "rate": ("orders/s", "单/秒"),
    "cpu_ratio": ("it takes CPU, times ours", "CPU 为本包的倍数"),
    "cpu": ("CPU s", "CPU 秒"),
    "pg": ("PostgreSQL CPU s", "PostgreSQL CPU 秒"),
    "peak": ("peak MiB, all processes", "内存峰值 MiB（全部进程）"),
    "runs": ("runs", "次数"),
    "orders": ("orders", "订单数"),
    "not run": ("not run", "未测"),
    "failed": ("failed", "失败"),
    "too slow": ("too slow", "过慢"),
    "wrong": ("wrong", "结果不对"),
    "requests": ("requests", "请求数"),
    "store": ("store", "协调库"),
    "used": ("share of the budget", "预算使用率"),
    "most": ("most in one second", "一秒内最多"),
    "allowed": ("allowed", "允许"),
    "latency": ("latency", "延迟"),
    "connections": ("download and discard, orders/s", "下载即丢弃，单/秒"),
    "fastest": ("the fastest way, orders/s", "最快的方式，单/秒"),
    "headroom": ("the gateway could serve, times that", "网关能力为其倍数"),
    "server_cpu": ("the gateway's share of a core", "网关占一个核的比例"),
    "goal": ("goal, without a request limit, 50 ms", "目标（不限请求速率，50 毫秒）"),
    "reached": ("reached", "达到"),
    "verdict": ("met", "是否达成"),
    "yes": ("yes", "是"),
    "no": ("no", "否"),
    "at": ("**{most}** at {orders} orders", "{orders} 单时 **{most}**"),
    "beyond": (
        "no: it would take {wanted} orders/s, and the bare work alone, on all cores, did {bound}",
        "否：需 {wanted} 单/秒，而仅做最少工作、用满所有核时测得 {bound}",
    ),
    "goal http": ("20 times Airflow's HttpOperator", "Airflow HttpOperator 的 20 倍"),
    "goal documented": ("10 times dlt as documented", "照文档写的 dlt 的 10 倍"),
    "goal expert": ("2.5 times dlt by an expert", "专家写法的 dlt 的 2.5 倍"),
    "goal bound": ("half of the limit by CPU seconds, see below", "下述按 CPU 秒计的上限的一半"),
    "goal memory": ("every task under {promised} MiB", "每个任务低于 {promised} MiB"),
    "goal flat": ("and within 10 % from the fewest to the most orders", "且从最少到最多订单相差不超过 10%"),
    "goal budget": ("97 % of a budget of 15/s, by 4 processes", "4 个进程用满 15 次/秒预算的 97%"),
    "goal burst": ("and no second above rate and burst", "且任何一秒都不超过速率加突发"),
    "fault": ("what goes wrong", "出了什么问题"),
}

CHINESE: dict[str, str] = {
    "kuaimai-2": "本包，2 个进程",
    "kuaimai-3": "本包，3 个进程",
    "kuaimai-4": "本包，4 个进程",
    "article": "种子文章的简单循环（requests.post、executemany）",
    "session": "简单循环，改用 Session 与多行 insert",
    "http-operator": "Airflow HttpOperator 加 pagination_function，executemany",
    "http-operator-multirow": "Airflow HttpOperator 加 pagination_function，多行 insert",
    "dlt-documented": "dlt，照文档写，全部字段",
    "dlt-documented-columns": "dlt，照文档写，字段与本包相同",
    "dlt-tuned": "dlt，调优（按天并行、worker、文件大小）",
    "dlt-expert": "dlt，专家写法（线程、手工摊平为 Arrow、csv 装载）",
    "dlt-expert-upsert": "dlt，专家写法，合并策略 upsert",
    "dlt-expert-without-zone": "dlt，专家写法，时间不带时区",
    "dlt-expert-adbc": "dlt，专家写法，经 ADBC 装载 Parquet",
    "download-1": "下载即丢弃，1 个连接",
    "download-8": "下载即丢弃，8 个连接",
    "download-32": "下载即丢弃，32 个连接",
}
"""Names of ways; the English ones are the ways' titles."""

WAYS_UNDER_FAULTS: dict[str, Words] = {
    "session": ("loop with a Session", "Session 循环"),
    "checked": ("the same, checking `success`", "同左，但检查 `success`"),
    "http-operator": ("Airflow HttpOperator", "Airflow HttpOperator"),
    "dlt-documented": ("dlt as documented", "dlt，照文档写"),
    "dlt-expert": ("dlt by an expert", "dlt，专家写法"),
    "kuaimai": ("**this package**", "**本包**"),
}

FAULTS: dict[str, Words] = {
    "none": ("nothing", "一切正常"),
    "429": ("HTTP 429, once", "HTTP 429，一次"),
    "503": ("HTTP 503, once", "HTTP 503，一次"),
    "disconnect": ("the connection is cut, once", "连接中断，一次"),
    "truncated": ("half of the JSON, once", "只收到半个 JSON，一次"),
    "html": ("an HTML page with status 200, once", "状态 200 的 HTML 页面，一次"),
    "busy": (
        "HTTP 200 with `success: false` (service unavailable), once",
        "HTTP 200 但 `success: false`（服务不可用），一次",
    ),
    "session": ("the session ends in the midst, for good", "会话中途失效，且不再恢复"),
    "rate-15": ("no more than 15 requests a second", "每秒最多 15 次请求"),
    "rate-2": ("no more than 2 requests a second", "每秒最多 2 次请求"),
    "page-cap": ("pages are silently cut to 50 rows", "每页被悄悄截为 50 行"),
    "drift": ("orders change while they are paged", "翻页期间订单在变化"),
    "null-modified": ("2 % of the orders have no `modified`", "2% 的订单没有 `modified`"),
    "bad-amount": ("1 % of the orders have an amount that is none", "1% 的订单金额不是数字"),
}

OUTCOMES: dict[str, Words] = {
    "ok": ("complete", "完整"),
    "again": ("complete at the next try", "重试后完整"),
    "later": ("failed; the next run mended it", "失败；下一次运行已补齐"),
    "told": ("failed, {missing} missing", "失败，缺 {missing} 单"),
    "silent": ("**silent, {missing} missing**", "**无声，缺 {missing} 单**"),
    "held": ("complete, {held} of it in quarantine", "完整，其中 {held} 单在隔离区"),
}
