"""What DingTalk, WeCom and Feishu are sent: Apprise's own code, real HTTP, our server at the other end."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from apprise.plugins.dingtalk import NotifyDingTalk
from apprise.plugins.feishu import NotifyFeishu
from apprise.plugins.wecombot import NotifyWeComBot
from inbox import open_inbox

from kuaimai.airflow.channels import AlertSettings, deliver
from kuaimai.airflow.messages import Alert, body, one_line, title

END = datetime(2026, 3, 1, 1, 5, tzinfo=timezone.utc)
ALERT = Alert(
    event="late",
    dag_id="kuaimai_trades",
    run_id="scheduled__2026-03-01T01:00:00+00:00",
    start=END - timedelta(minutes=5),
    end=END,
    late=timedelta(minutes=83),
    limit=timedelta(minutes=10),
    error="店铺「旗舰店 😀」*限流* <b>_429_</b>",
    url="https://airflow.example.cn/dags/kuaimai_trades/runs/1",
)
TEXT = [
    "⏰ 快麦数据延迟 · kuaimai_trades",
    "窗口：2026-03-01 09:00 – 09:05（北京时间）",
    "已晚：窗口已结束 1 小时 23 分钟，数据仍未到齐（限 10 分钟）",
    "情况：店铺「旗舰店 😀」*限流* <b>_429_</b>",
    "运行：https://airflow.example.cn/dags/kuaimai_trades/runs/1",
    (
        "怎么办：打开该次运行，看是哪个任务还没结束；都没开始时，检查调度器、执行器和 Pool 是否有空位。"
        "数据不会丢：之后的定时运行会自动补上。"
    ),
]

# Of a library that one of Apprise's many plugins imports.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")


@pytest.fixture
def inbox():
    with open_inbox() as opened:
        yield opened


def send(address: str) -> bool:
    """Send the alert to one channel."""
    return deliver(
        AlertSettings((address,)),
        title(ALERT, "zh"),
        body(ALERT, "zh"),
        severe=True,
        sleep=lambda _seconds: None,
        log=lambda _line: None,
    )


def test_dingtalk_gets_a_signed_text_message(inbox, monkeypatch):
    monkeypatch.setattr(NotifyDingTalk, "notify_url", f"{inbox.url}/robot/send?access_token={{token}}")

    assert send("dingtalk://SECinvented1@invented2/") is True

    [letter] = inbox.letters
    assert letter.path.startswith("/robot/send?access_token=invented2&timestamp=")
    assert "&sign=" in letter.path
    assert letter.json["msgtype"] == "text"
    assert letter.json["text"]["content"].splitlines() == TEXT


def test_wecom_gets_a_text_message(inbox, monkeypatch):
    monkeypatch.setattr(NotifyWeComBot, "notify_url", f"{inbox.url}/cgi-bin/webhook/send?key={{key}}")

    assert send("wecombot://invented-key") is True

    [letter] = inbox.letters
    assert letter.path == "/cgi-bin/webhook/send?key=invented-key"
    assert letter.json["msgtype"] == "text"
    assert letter.json["text"]["content"].splitlines() == TEXT


def test_feishu_gets_a_text_message(inbox, monkeypatch):
    monkeypatch.setattr(NotifyFeishu, "notify_url", f"{inbox.url}/open-apis/bot/v2/hook/{{token}}/")

    assert send("feishu://invented-token") is True

    [letter] = inbox.letters
    assert letter.path == "/open-apis/bot/v2/hook/invented-token/"
    assert letter.json["msg_type"] == "text"
    assert letter.json["content"]["text"].splitlines() == TEXT


def test_the_longest_message_is_within_what_wecom_takes():
    long = Alert(
        event="failure",
        dag_id="kuaimai_" + "x" * 60,
        run_id="scheduled__2026-03-01T01:00:00+00:00",
        start=END - timedelta(minutes=5),
        end=END,
        task_id="slice.extract",
        error="错" * 5000,
        url="https://airflow.example.cn/" + "x" * 200,
    )

    for language in ("zh", "en"):
        assert len(f"{title(long, language)}\n{body(long, language)}".encode()) <= 2048


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("session=abc&x=1", "session=***&x=1"),
        ('{"access_token": "abc", "sid": 1}', '{"access_token": "***", "sid": 1}'),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("postgresql://user:pass@db:5432/erp", "postgresql://***@db:5432/erp"),
        ("buyer 13812345678 is unknown", "buyer *** is unknown"),
        ("order 5138123456781234 is unknown", "order 5138123456781234 is unknown"),
        ("a\n  b\t c", "a b c"),
        ("x" * 300, "x" * 239 + "…"),
    ],
)
def test_an_error_becomes_one_line_that_may_leave_the_house(text, shown):
    assert one_line(text) == shown
