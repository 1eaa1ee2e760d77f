"""Alerts through real HTTP: each thing is told once, on every channel, and nothing is told that is secret."""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from airflow_processes import airflow_line
from inbox import open_inbox

from kuaimai.airflow.channels import secrets_of
from kuaimai.airflow.notifications import KuaimaiNotifier
from kuaimai.cli import main
from kuaimai.errors import ConfigError, SessionError

START = datetime(2026, 3, 1, 1, 0, tzinfo=timezone.utc)
FIVE_MINUTES = timedelta(minutes=5)

# Of a library that one of Apprise's many plugins imports.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")


@pytest.fixture
def inbox():
    with open_inbox() as opened:
        yield opened


@pytest.fixture
def connect(monkeypatch, tmp_path):
    """A function that makes the Connection `kuaimai_alerts`; the coordination store is this test's."""
    state = {"conn_type": "sqlite", "host": str(tmp_path / "state.db")}
    monkeypatch.setenv("AIRFLOW_CONN_KUAIMAI_STATE", json.dumps(state))

    def make(*addresses: str, **extra) -> None:
        config = [{"path": each} for each in addresses]
        text = json.dumps({"conn_type": "apprise", "extra": {"config": config, **extra}})
        monkeypatch.setenv("AIRFLOW_CONN_KUAIMAI_ALERTS", text)

    return make


@pytest.fixture
def logs(capfd):
    """A function that returns what was logged since the last call, at every level, by whomever."""
    lines: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    keeper = Keeper(logging.DEBUG)
    loggers = [logging.getLogger(name) for name in ("", "apprise", "urllib3", "urllib3.connectionpool")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.DEBUG)
    loggers[0].addHandler(keeper)

    def read() -> list[str]:
        # On 3.x Airflow's own loggers write to the standard output, past Python's logging.
        written = capfd.readouterr().out.splitlines() if airflow_line() == 3 else []
        seen, lines[:] = [*lines, *written], []
        return seen

    yield read
    loggers[0].removeHandler(keeper)
    for each, level in zip(loggers, levels, strict=True):
        each.setLevel(level)


def context(window: int = 0, *, error: Exception | None = None, map_index: int = -1, **more) -> dict:
    """Return what Airflow gives the failure callback of a task; windows are numbered."""
    start = START + window * FIVE_MINUTES
    run = SimpleNamespace(
        dag_id="kuaimai_trades",
        run_id=f"scheduled__{start.isoformat()}",
        data_interval_start=start,
        data_interval_end=start + FIVE_MINUTES,
        conf={},
    )
    task = SimpleNamespace(task_id="slice.load", map_index=map_index, state="failed", dag_id="kuaimai_trades")
    return {"dag_run": run, "ti": task, "params": {}, **({"exception": error} if error else {}), **more}


def test_a_failure_says_dag_window_error_and_what_to_do_in_chinese(connect, inbox):
    connect(inbox.webhook)
    error = SessionError("the session is expired", hint="ask Kuaimai for a new pair")

    KuaimaiNotifier().notify(context(error=error))

    [letter] = inbox.letters
    assert letter.json["title"] == "❌ 快麦同步失败 · kuaimai_trades"
    assert letter.json["type"] == "failure"
    assert letter.json["message"].splitlines() == [
        "窗口：2026-03-01 09:00 – 09:05（北京时间）",
        "任务：slice.load",
        "错误：the session is expired → ask Kuaimai for a new pair",
        "运行：scheduled__2026-03-01T01:00:00+00:00",
        "怎么办：打开该次运行，按错误里 → 后面的提示处理。数据不会丢：之后的定时运行会自动补上这个窗口。",
    ]


def test_and_in_english_if_the_connection_says_so(connect, inbox):
    connect(inbox.webhook, language="en")

    KuaimaiNotifier().notify(context(error=ValueError("no such column 😀\n  in line 2")))

    [letter] = inbox.letters
    assert letter.json["title"] == "❌ Kuaimai sync failed · kuaimai_trades"
    lines = letter.json["message"].splitlines()
    assert lines[0] == "Window: 2026-03-01 09:00 – 09:05 (Asia/Shanghai)"
    assert lines[2] == "Error: ValueError: no such column 😀 in line 2"
    assert lines[4].startswith("What to do: open the run")


def test_the_link_to_the_run_is_there_once_airflow_knows_its_own_address(connect, inbox, monkeypatch):
    connect(inbox.webhook)
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.cn/")
    monkeypatch.setenv("AIRFLOW__WEBSERVER__BASE_URL", "https://airflow.example.cn/")

    KuaimaiNotifier().notify(context())

    assert "运行：https://airflow.example.cn/dags/kuaimai_trades/" in inbox.letters[0].json["message"]
    assert "scheduled__2026-03-01T01%3A00%3A00%2B00%3A00" in inbox.letters[0].json["message"]


def test_a_run_by_hand_is_told_with_the_window_that_was_asked_for(connect, inbox):
    connect(inbox.webhook)
    asked = {"start": "2026-02-01T08:00:00", "end": "2026-02-01T23:30:00+08:00"}

    KuaimaiNotifier().notify(context(params=asked))

    assert "窗口：2026-02-01 08:00 – 23:30（北京时间）" in inbox.letters[0].json["message"]


def test_many_mapped_tasks_and_the_dag_itself_are_one_alert(connect, inbox):
    connect(inbox.webhook, quiet_minutes=0)
    for index in range(5):
        KuaimaiNotifier().notify(context(error=ValueError("refused"), map_index=index))
    KuaimaiNotifier().notify(context(reason="task_failure"))

    assert len(inbox.letters) == 1
    assert "refused" in inbox.letters[0].json["message"]


def test_the_dag_lets_the_task_that_knows_the_error_go_first(connect, inbox):
    """Its callback can overtake the task's: seen on a busy machine, and the alert then had no cause."""
    connect(inbox.webhook)
    of_the_dag = {**context(reason="task_failure"), "ti": None}

    KuaimaiNotifier(
        sleep=lambda _seconds: KuaimaiNotifier().notify(context(error=ValueError("refused")))
    ).notify(of_the_dag)

    assert len(inbox.letters) == 1
    assert "refused" in inbox.letters[0].json["message"]


def test_a_dag_that_keeps_failing_is_told_once_in_a_quarter_of_an_hour(connect, inbox, clock):
    connect(inbox.webhook)
    for window in range(9):  # 40 minutes
        KuaimaiNotifier(now=clock).notify(context(window))
        clock.advance(300)

    told = [each.json["message"].splitlines()[0] for each in inbox.letters]
    assert told == [
        "窗口：2026-03-01 09:00 – 09:05（北京时间）",
        "窗口：2026-03-01 09:15 – 09:20（北京时间）",
        "窗口：2026-03-01 09:30 – 09:35（北京时间）",
    ]


def test_another_dag_or_another_event_is_not_folded_into_the_first(connect, inbox, clock):
    connect(inbox.webhook)
    other = context()
    other["dag_run"].dag_id = "kuaimai_items"

    KuaimaiNotifier(now=clock).notify(context())
    KuaimaiNotifier(now=clock).notify(other)
    KuaimaiNotifier("quarantine", details="3 条记录", now=clock).notify(context())

    titles = [each.json["title"] for each in inbox.letters]
    assert titles == [
        "❌ 快麦同步失败 · kuaimai_trades",
        "❌ 快麦同步失败 · kuaimai_items",
        "⚠️ 快麦有记录被隔离 · kuaimai_trades",
    ]
    assert "情况：3 条记录" in inbox.letters[2].json["message"]


def test_without_the_connection_there_is_one_log_line_that_says_how_to_make_it(monkeypatch, logs):
    monkeypatch.delenv("AIRFLOW_CONN_KUAIMAI_ALERTS", raising=False)

    KuaimaiNotifier().notify(context(error=ValueError("refused")))

    lines = logs()
    assert any("Kuaimai sync failed · kuaimai_trades" in line and "refused" in line for line in lines)
    [told] = [line for line in lines if "there is no Connection kuaimai_alerts" in line]
    assert "type apprise, extra {" in told


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"config": "dingtalk://invented0123456789"}, "has no channels"),
        ({"config": [{"url": "dingtalk://invented0123456789"}]}, "has no channels"),
        ({}, "has no channels"),
        ({"config": {"path": "feishu://invented0123456789"}, "language": "fr"}, "language 'fr'"),
        ({"config": {"path": "feishu://invented0123456789"}, "quiet_minutes": "long"}, "quiet_minutes"),
    ],
)
def test_a_malformed_connection_is_one_log_line_that_names_the_field(monkeypatch, logs, extra, named):
    text = json.dumps({"conn_type": "apprise", "extra": extra})
    monkeypatch.setenv("AIRFLOW_CONN_KUAIMAI_ALERTS", text)

    KuaimaiNotifier().notify(context())

    lines = logs()
    assert len([line for line in lines if named in line]) == 1
    assert not [line for line in lines if "invented0123456789" in line]


def test_a_channel_that_is_down_keeps_no_other_from_hearing(connect, inbox, logs, clock):
    connect("json://127.0.0.1:1/hooks/invented-token-1", inbox.webhook)

    KuaimaiNotifier(sleep=clock.sleep).notify(context())

    assert len(inbox.letters) == 1
    assert clock.slept == [3.0]
    assert [line for line in logs() if "channel 1 (json) did not take the alert" in line]


def test_a_channel_that_stumbles_gets_a_second_try(connect, inbox, clock):
    connect(inbox.webhook)
    inbox.status = 503

    def recover(_seconds: float) -> None:
        inbox.status = 200

    assert KuaimaiNotifier(sleep=recover).tell(_alert()) is True
    assert len(inbox.letters) == 2


def test_no_channel_at_all_is_no_exception(connect, logs, clock):
    connect("dingtalk://not/a+valid@address", "nothing at all", "json://127.0.0.1:1/hooks/invented-token-1")

    KuaimaiNotifier(sleep=clock.sleep).notify(context())

    assert len([line for line in logs() if "did not take the alert" in line]) == 3


@pytest.mark.parametrize("status", [200, 403])
def test_no_log_at_any_level_shows_a_channels_address(connect, inbox, logs, monkeypatch, status):
    from apprise.plugins.dingtalk import NotifyDingTalk

    monkeypatch.setattr(NotifyDingTalk, "notify_url", f"{inbox.url}/robot/send?access_token={{token}}")
    inbox.status = status
    connect(
        "dingtalk://SECinvented0001@invented0002/",
        "json://person:invented0003@127.0.0.1:1/hooks/invented0004?+X-Key=invented0005",
        "dingtalk://invented-0006/",
    )

    KuaimaiNotifier(sleep=lambda _seconds: None).notify(context())

    assert inbox.letters[0].path.startswith("/robot/send?access_token=invented0002&")
    lines = logs()
    assert [line for line in lines if "DingTalk" in line]
    assert [line for line in lines if "invented" in line] == []


def test_an_alert_is_sent_even_if_nothing_can_remember_it(connect, inbox, logs, monkeypatch):
    connect(inbox.webhook)
    monkeypatch.setenv("AIRFLOW_CONN_KUAIMAI_STATE", json.dumps({"conn_type": "ftp", "host": "nowhere"}))

    KuaimaiNotifier().notify(context())

    assert len(inbox.letters) == 1
    assert [line for line in logs() if "Alerts may repeat" in line]


def test_a_broken_context_is_no_exception(connect, inbox):
    connect(inbox.webhook)

    for broken in ({"run_id": "manual__1", "dag": SimpleNamespace(dag_id="kuaimai_trades")}, {}):
        KuaimaiNotifier(sleep=lambda _seconds: None).notify(broken)

    assert "运行：manual__1" in inbox.letters[0].json["message"]


def test_the_channels_can_be_tried(connect, inbox, monkeypatch, capsys):
    connect(inbox.webhook, "json://127.0.0.1:1/hooks/invented-token-1")
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)

    codes = [main(["alerts"]), main(["alerts"])]

    told = capsys.readouterr().out.splitlines()
    assert codes == [1, 1]
    assert told[0] == "1 of 2 channels took it"
    assert told[1].startswith("channel 2 (json) did not take the alert")
    assert [each.json["title"] for each in inbox.letters] == ["✅ kuaimai 测试 / test"] * 2


def test_an_event_that_nobody_knows_is_refused():
    with pytest.raises(ConfigError, match="no alert is called 'fire'"):
        KuaimaiNotifier("fire")


@pytest.mark.parametrize(
    ("address", "secret"),
    [
        ("dingtalk://SECabc@token1/", {"SECabc", "token1"}),
        ("wecombot://key-123456", {"key-123456"}),
        ("feishu://token-123456", {"token-123456"}),
        ("https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=key-1234", {"key-1234"}),
        ("mailtos://user:pass%40word@smtp.example.cn?to=a@example.cn", {"pass%40word", "pass@word"}),
    ],
)
def test_what_opens_a_channel_is_secret(address, secret):
    assert secret | {address} <= secrets_of(address)


def _alert():
    from kuaimai.airflow.notifications import alert_of

    return alert_of("failure", context())
