"""What alerts say, in Chinese and in English.

A message names the DAG, the window, how late it is or what went wrong, and what to do. It is read on a phone
by somebody who may not know Airflow, so it is short, and it passes through chat servers of third parties, so
no credential and no telephone number of a buyer may be in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

import pendulum

from kuaimai.airflow.interval import ZONE
from kuaimai.gateway.redaction import MASK, SECRET_PARAMETERS

Event = Literal["failure", "late", "contested", "missed", "outside", "quarantine", "schema"]
Language = Literal["zh", "en"]
EVENTS: tuple[Event, ...] = get_args(Event)
LANGUAGES: tuple[Language, ...] = get_args(Language)

# WeCom refuses texts above 2048 bytes, and a Chinese character takes three.
_ERROR_LENGTH = 240

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@dataclass(frozen=True)
class Alert:
    """Something that a person should know.

    Attributes:
        event: what kind of thing.
        dag_id: the DAG.
        run_id: its run, or an empty text.
        start: first instant of the window, with zone; None if the run has no window.
        end: last instant of the window, with zone.
        task_id: the task that failed, or an empty text.
        error: the error in the words of the code, or an empty text.
        reason: Airflow's word for why a run failed, such as `timed_out`, or an empty text.
        late: time since the end of the window.
        limit: time that the window had.
        url: address of the run in the UI, or an empty text.
    """

    event: Event
    dag_id: str
    run_id: str = ""
    start: datetime | None = None
    end: datetime | None = None
    task_id: str = ""
    error: str = ""
    reason: str = ""
    late: timedelta | None = None
    limit: timedelta | None = None
    url: str = ""

    @property
    def window(self) -> str:
        """Return what tells this window from others of the DAG."""
        if self.start is None or self.end is None:
            return self.run_id
        return f"{int(self.start.timestamp())}-{int(self.end.timestamp())}"


def title(alert: Alert, language: Language) -> str:
    """Return the one line that a chat shows in its list."""
    return f"{_TITLES[language][alert.event]} · {alert.dag_id}"


def body(alert: Alert, language: Language) -> str:
    """Return the lines below the title."""
    words = _WORDS[language]
    lines = [(words["window"], _window(alert, language))]
    if alert.late is not None:
        lines.append((words["late"], _lateness(alert.late, alert.limit, language)))
    if alert.task_id:
        lines.append((words["task"], alert.task_id))
    if alert.error:
        lines.append((words["error" if alert.event == "failure" else "what"], one_line(alert.error)))
    elif alert.reason:
        lines.append((words["error"], _REASONS[language].get(alert.reason, one_line(alert.reason))))
    if alert.url:
        lines.append((words["run"], alert.url))
    elif alert.run_id:
        lines.append((words["run"], alert.run_id))
    lines.append((words["advice"], _ADVICE[language][alert.event]))
    return "\n".join(f"{name}{words['colon']}{text}" for name, text in lines if text)


def one_line(text: str, secrets: Iterable[str] = ()) -> str:
    """Return an error as one line that may leave the house: masked, and cut where it is long.

    Args:
        text: what the code says.
        secrets: texts that must not be shown.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, MASK)
    for pattern, shown in _NOT_FOR_OTHERS:
        text = pattern.sub(shown, text)
    line = " ".join(text.split())
    return line if len(line) <= _ERROR_LENGTH else f"{line[: _ERROR_LENGTH - 1]}…"


def duration(span: timedelta, language: Language) -> str:
    """Return a time span in its two largest units."""
    words = _UNITS[language]
    seconds = int(span.total_seconds())
    if seconds < _MINUTE:
        return words["moment"]
    parts = [
        (seconds // _DAY, words["day"]),
        (seconds % _DAY // _HOUR, words["hour"]),
        (seconds % _HOUR // _MINUTE, words["minute"]),
    ]
    while parts[0][0] == 0:
        del parts[0]
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count)


def _window(alert: Alert, language: Language) -> str:
    if alert.start is None or alert.end is None:
        return ""
    start, end = (pendulum.instance(each).in_tz(ZONE) for each in (alert.start, alert.end))
    last = f"{end:HH:mm}" if start.date() == end.date() else f"{end:YYYY-MM-DD HH:mm}"
    return f"{start:YYYY-MM-DD HH:mm} – {last}{_WORDS[language]['zone']}"


def _lateness(late: timedelta, limit: timedelta | None, language: Language) -> str:
    since = _WORDS[language]["since"].format(duration(late, language))
    return since + (_WORDS[language]["limit"].format(duration(limit, language)) if limit else "")


_SECRET_NAMES = "|".join(sorted({re.escape(name) for name in SECRET_PARAMETERS}, key=len, reverse=True))
# The second fence: what Airflow's masker does not know, because it is in nobody's Connection.
_NOT_FOR_OTHERS = (
    (re.compile(r"(://)[^/\s@]+@"), rf"\1{MASK}@"),
    (
        re.compile(rf"""(?i)\b({_SECRET_NAMES})(["']?\s*[=:]\s*["']?)(?:Bearer\s+)?[^\s"'&,;}}\]]+"""),
        rf"\1\2{MASK}",
    ),
    (re.compile(r"(?<!\d)1[3-9]\d{9}(?!\d)"), MASK),
)

_TITLES: dict[Language, dict[Event, str]] = {
    "zh": {
        "failure": "❌ 快麦同步失败",
        "late": "⏰ 快麦数据延迟",
        "contested": "⚠️ 快麦窗口对不上数",
        "missed": "⚠️ 快麦有时间段没有读过",
        "outside": "⚠️ 快麦有订单来得太晚",
        "quarantine": "⚠️ 快麦有记录被隔离",
        "schema": "ℹ️ 快麦数据结构有变化",
    },
    "en": {
        "failure": "❌ Kuaimai sync failed",
        "late": "⏰ Kuaimai data is late",
        "contested": "⚠️ Kuaimai window does not add up",
        "missed": "⚠️ Kuaimai time was never read",
        "outside": "⚠️ Kuaimai orders came very late",
        "quarantine": "⚠️ Kuaimai records in quarantine",
        "schema": "ℹ️ Kuaimai sends other fields",
    },
}
_ADVICE: dict[Language, dict[Event, str]] = {
    "zh": {
        "failure": "打开该次运行，按错误里 → 后面的提示处理。数据不会丢：之后的定时运行会自动补上这个窗口。",
        "late": "打开该次运行，看是哪个任务还没结束；都没开始时，检查调度器、执行器和 Pool 是否有空位。"
        "数据不会丢：之后的定时运行会自动补上。",
        "contested": "读了多次仍与网关报的总数对不上，定时运行不再重读，留给夜间核对。想马上再试：用这段时间"
        "手动触发该 DAG。仍对不上，请把接口和时间告诉快麦客服。查看："
        "SELECT * FROM kuaimai_window WHERE state = 'contested'",
        "missed": "停机太久：这段时间早于定时运行的补读范围（heal_days），不会自动补上。"
        "用这段时间手动触发该 DAG。"
        "查看：SELECT * FROM kuaimai_window WHERE planned_as = 'missed' AND state = 'open'",
        "outside": "这些订单已入库，但首次读到时距创建已超过回看时间，更晚的可能会漏。回看时间会按观察到的"
        "延迟自动加长；经常出现，请调大管道文件里的 look_back_hours，并对较早的日期手动触发 created 的 DAG。",
        "quarantine": "其余数据已入库。查看原因：SELECT * FROM kuaimai_quarantine WHERE resolved_at IS NULL；"
        "改好管道文件后触发 DAG kuaimai_replay 重放。",
        "schema": "数据没有丢失，按管道文件里的 schema 处理：evolve 新增列，freeze 不存，quarantine 隔离。"
        "需要新字段时改为 schema: evolve；每个变化只提醒一次。",
    },
    "en": {
        "failure": "open the run and do what the error says after →. Nothing is lost: later scheduled runs "
        "fetch this window again by themselves.",
        "late": "open the run and see which task has not ended; if none has begun, check that the scheduler "
        "and the executor run and that the pool has a free slot. Nothing is lost: later scheduled runs "
        "catch up.",
        "contested": "it was read several times and never agreed with the gateway's total; scheduled runs "
        "leave it to the nightly reconcile. To try at once, trigger this DAG with these times; if it stays, "
        "tell Kuaimai's support the method and the time. See: "
        "SELECT * FROM kuaimai_window WHERE state = 'contested'",
        "missed": "the outage was longer than scheduled runs heal (heal_days), so no run reads this time by "
        "itself. Trigger this DAG with these times. See: "
        "SELECT * FROM kuaimai_window WHERE planned_as = 'missed' AND state = 'open'",
        "outside": "these orders are stored, but they were first seen longer after their creation than the "
        "look-back reaches; still later ones may be missing. The look-back grows with what is observed; if "
        "this keeps coming, raise look_back_hours in the pipeline's file and trigger the DAG by created for "
        "earlier days.",
        "quarantine": "all other records are stored. Reasons: "
        "SELECT * FROM kuaimai_quarantine WHERE resolved_at IS NULL. Mend the pipeline's file, then trigger "
        "the DAG kuaimai_replay.",
        "schema": "nothing is lost; it goes as `schema` in the pipeline's file says (evolve: a new column, "
        "freeze: not stored, quarantine: set aside). For the new field say schema: evolve. Each change is "
        "told once.",
    },
}
_WORDS: dict[Language, dict[str, str]] = {
    "zh": {
        "window": "窗口",
        "late": "已晚",
        "since": "窗口已结束 {}，数据仍未到齐",
        "limit": "（限 {}）",
        "task": "任务",
        "error": "错误",
        "what": "情况",
        "run": "运行",
        "advice": "怎么办",
        "colon": "：",
        "zone": "（北京时间）",
    },
    "en": {
        "window": "Window",
        "late": "Late",
        "since": "{} after the end of the window its data is not complete",
        "limit": " (limit {})",
        "task": "Task",
        "error": "Error",
        "what": "What",
        "run": "Run",
        "advice": "What to do",
        "colon": ": ",
        "zone": " (Asia/Shanghai)",
    },
}
_REASONS: dict[Language, dict[str, str]] = {
    "zh": {
        "task_failure": "有任务失败，错误见任务日志",
        "timed_out": "整个运行超时",
        "all_tasks_deadlocked": "任务互相等待，无法继续",
    },
    "en": {
        "task_failure": "a task failed; its log has the error",
        "timed_out": "the whole run timed out",
        "all_tasks_deadlocked": "the tasks wait for each other",
    },
}
_UNITS: dict[Language, dict[str, str]] = {
    "zh": {"moment": "不到 1 分钟", "day": "天", "hour": "小时", "minute": "分钟"},
    "en": {"moment": "less than a minute", "day": "d", "hour": "h", "minute": "min"},
}
