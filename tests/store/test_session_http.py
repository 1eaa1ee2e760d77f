"""Custody of the session against the sandbox, over real HTTP."""

import json
import os
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from multiprocessing import get_context

import pytest
import requests

from kuaimai.errors import Rejected, SessionError
from kuaimai.gateway.budget import Budget
from kuaimai.gateway.client import Client
from kuaimai.gateway.session import Credentials, SessionKeeper
from kuaimai.gateway.tokens import DAY, TokenRecord
from kuaimai.gateway.wire import App, Wire
from kuaimai.sandbox import Sandbox, World
from kuaimai.state import Store


class FileVault:
    """A vault that several processes share."""

    def __init__(self, file):
        self.file = file

    def read(self):
        return json.loads(self.file.read_text()) if self.file.exists() else None

    def write(self, record):
        fresh = self.file.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(record))
        fresh.replace(self.file)


START = datetime(2026, 3, 1, tzinfo=timezone(timedelta(hours=8)))


@pytest.fixture
def box(clock):
    clock.at = START.timestamp() + DAY
    with Sandbox(World(start=START, seed=7, orders_per_hour=5), now=clock) as box:
        yield box


@pytest.fixture
def store(clock, tmp_path):
    store = Store.open(f"sqlite:///{tmp_path / 'state.db'}", now=clock)
    yield store
    store.close()


@pytest.fixture
def vault(tmp_path):
    return FileVault(tmp_path / "session.json")


@pytest.fixture
def make(box, store, vault, clock):
    """A function that makes the session keeper of one more process; its wire is `keeper.wire`."""
    transports = []

    def made(dialect="router", credentials=None):
        given = Credentials(**vars_of(credentials or box.credentials))
        transport = requests.Session()
        transports.append(transport)
        wire = Wire(
            App(given.app_key, given.app_secret),
            url=box.url if dialect == "router" else box.root,
            transport=transport,
            dialect=dialect,
            now=clock,
        )
        keeper = SessionKeeper(
            wire, given, vault=vault, store=store, name="kuaimai_default", now=clock, sleep=clock.sleep
        )
        keeper.wire = wire
        return keeper

    yield made
    for transport in transports:
        transport.close()


def vars_of(credentials):
    return {
        name: getattr(credentials, name)
        for name in ("app_key", "app_secret", "access_token", "refresh_token")
    }


def shops(keeper):
    client = Client(keeper.wire, keeper, budget=Budget(1000), sleep=lambda _: None, attempts=1)
    return client.call("erp.shop.list.query", {"pageNo": 1, "pageSize": 50}).rows(["list"])


@pytest.mark.parametrize("shape", ["doc", "flat", "wrapped"])
@pytest.mark.parametrize("unit", ["seconds", "epoch_s", "epoch_ms", "absent"])
def test_every_answer_shape_means_30_more_days(box, make, shape, unit):
    box.faults.refresh_shape, box.faults.expires_unit = shape, unit
    box.faults.wrap_response = shape == "doc"
    keeper = make()
    report = keeper.refresh_if_due()
    assert report.state == "refreshed"
    assert report.expires_at == pytest.approx(box.session.expires_at, abs=1)
    assert shops(keeper)


def test_a_quarter_of_runs_refreshes_weekly_and_never_loses_the_session(box, make, clock):
    refreshed = []
    for _ in range(13):
        for hours in (0, 1, 71, 96):
            clock.advance(hours * 3600)
            if make().refresh_if_due().state == "refreshed":
                refreshed.append(clock())
    assert len(refreshed) == box.session.refreshes == 14
    assert min(b - a for a, b in pairwise(refreshed)) >= 7 * DAY
    assert shops(make())


@pytest.mark.parametrize("dialect", ["router", "rest"])
@pytest.mark.parametrize("rotate", [False, True])
def test_both_dialects_refresh_with_and_without_rotation(box, make, vault, dialect, rotate):
    box.faults.rotate_tokens = rotate
    credentials = box.credentials
    report = make(dialect).refresh_if_due()
    assert report.state == "refreshed"
    assert report.days_left == pytest.approx(30)
    stored = TokenRecord.parsed(vault.read())
    assert stored.access_token == box.session.access_token
    assert stored.refresh_token == box.session.refresh_token
    assert rotate == (stored.access_token != credentials.access_token)
    assert make(dialect, credentials).current() == box.session.access_token


def test_a_foreign_program_that_refreshed_before_us_does_no_harm(box, make, clock):
    box.session.refresh(clock() - 600, ttl_seconds=30 * DAY, rotate=False)
    keeper = make()
    assert keeper.refresh_if_due().state == "already_refreshed"
    assert [entry.code for entry in box.requests] == ["refresh_frequently"]
    assert keeper.refresh(force=True).state == "already_refreshed"
    assert len(box.requests) == 1


@pytest.mark.parametrize("failure", ["502", "disconnect", "truncated", "html", "busy", "429_html"])
def test_a_failing_refresh_is_a_warning_and_the_next_one_succeeds(box, make, failure):
    box.faults.fail(failure, times=1)
    keeper = make()
    assert keeper.refresh_if_due().state == "warning"
    assert keeper.refresh_if_due().state in ("refreshed", "already_refreshed")
    assert shops(keeper)


def test_a_dead_session_stops_after_one_attempt(box, make, clock):
    keeper, other = make(), make()
    keeper.refresh_if_due()
    shops(other)
    clock.advance(31 * DAY)
    for each in (keeper, other, keeper, make()):
        with pytest.raises(SessionError, match="is dead"):
            shops(each)
    methods = [entry.method for entry in box.requests if entry.code == "invalid_session"]
    assert methods == ["erp.shop.list.query", "open.token.refresh"]


def test_new_credentials_end_the_stop(box, make, clock):
    make().refresh_if_due()
    clock.advance(31 * DAY)
    with pytest.raises(SessionError):
        shops(make(credentials=box.credentials))
    mailed = box.session.renew(clock(), ttl_seconds=30 * DAY)
    keeper = make(credentials=mailed)
    assert shops(keeper)
    assert keeper.refresh_if_due().state == "refreshed"


def test_a_session_that_was_rotated_in_mid_flight_is_picked_up(box, make):
    box.faults.rotate_tokens = True
    given = box.credentials
    running = make()
    shops(running)
    make(credentials=given).refresh_if_due()
    assert shops(running)
    assert box.session.refreshes == 1


def test_a_wrong_secret_is_named(box, make):
    wrong = Credentials(**{**vars_of(box.credentials), "app_secret": "notTheSecret"})
    with pytest.raises(Rejected, match="appSecret"):
        make(credentials=wrong).refresh_if_due()


def test_a_wrong_clock_is_named(box, store, vault, clock):
    given = Credentials(**vars_of(box.credentials))
    with requests.Session() as transport:
        wire = Wire(
            App(given.app_key, given.app_secret),
            url=box.url,
            transport=transport,
            now=lambda: clock() - 8 * 3600,
        )
        keeper = SessionKeeper(wire, given, vault=vault, store=store, name="kuaimai_default", now=clock)
        with pytest.raises(Rejected, match="clock"):
            keeper.refresh_if_due()


def _refresher(start, out):
    """A process of its own, on the real clock."""
    url, given, folder = start.recv()
    store = Store.open(f"sqlite:///{folder / 'state.db'}")
    with requests.Session() as transport:
        wire = Wire(App(given.app_key, given.app_secret), url=url, transport=transport)
        vault = FileVault(folder / "session.json")
        keeper = SessionKeeper(wire, given, vault=vault, store=store, name="kuaimai_default")
        out.put((keeper.refresh(force=True).state, keeper.current()))
    store.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_together_refresh_a_rotating_session_once(tmp_path):
    context = get_context("fork")
    out = context.SimpleQueue()
    starts, workers = [], []
    for _ in range(3):
        start, theirs = context.Pipe()
        starts.append(start)
        workers.append(context.Process(target=_refresher, args=(theirs, out)))
        workers[-1].start()
    with Sandbox(World(start=START, seed=7, orders_per_hour=5)) as box:
        box.faults.rotate_tokens = True
        given = Credentials(**vars_of(box.credentials))
        for start in starts:
            start.send((box.url, given, tmp_path))
        outcomes = [out.get() for _ in workers]
        for worker in workers:
            worker.join(30)
            assert worker.exitcode == 0
        assert box.session.refreshes == len(box.requests) == 1
        assert [state for state, _ in outcomes].count("refreshed") == 1
        assert {token for _, token in outcomes} == {box.session.access_token}
