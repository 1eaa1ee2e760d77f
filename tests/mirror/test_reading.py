"""How a window is read: how many requests it takes, what is refused, and where a task that died goes on."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import textwrap
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import pytest
import requests
from moving_set import CHINA, FIRST, MemoryStaging, MovingSet, second

from kuaimai.errors import DataError, TooLarge, TooSlow, Transient
from kuaimai.extract import reads
from kuaimai.extract.paging import read_parts, window_request
from kuaimai.extract.staging import Staging
from kuaimai.extract.windows import Shop, Slice, Window
from kuaimai.gateway.answers import Answer, encode_json
from kuaimai.gateway.budget import Budget
from kuaimai.gateway.client import Client, FixedSession
from kuaimai.gateway.wire import App, Wire
from kuaimai.load import proof
from kuaimai.pipeline.manifests import Extracted, to_manifest
from kuaimai.sandbox import Faults, Sandbox, World

OUTSTOCK = "erp.trade.outstock.simple.query"
SHOPS = [Shop("900001", "fxg")]
DAY = 86_399
START = datetime(2026, 3, 1, 9, tzinfo=CHINA)


def read(gateway, staging=None, *, seconds=None, dimension="upd_time", **how):
    window = Window(second(0), second(gateway.seconds if seconds is None else seconds), dimension)
    given = {"rank": 0, "page_size": 200, "folder": "r", **how}
    return read_parts(gateway, OUTSTOCK, window, SHOPS, staging=staging or MemoryStaging(), **given)


def evenly(rows: int, seconds: int = DAY, **how) -> MovingSet:
    random = Random(rows)
    return MovingSet(random, [random.randint(0, seconds) for _ in range(rows)], seconds, **how)


class Scripted(MovingSet):
    """A gateway whose answers a test changes on their way."""

    def __init__(self, change, rows=120, seconds=DAY) -> None:
        inner = evenly(rows, seconds)
        super().__init__(inner.random, list(inner.times.values()), seconds)
        self.change = change

    def _answer(self, first, last, params, method):
        answer = super()._answer(first, last, params, method)
        body = self.change(dict(answer.body), params)
        return type(answer)(method, body, json.dumps(body).encode())


@pytest.mark.parametrize("rows", [0, 1, 200])
def test_window_that_fits_one_answer_costs_one_request(rows):
    gateway = evenly(rows, 900)
    (one,) = read(gateway)
    assert (one.proof, one.rows, one.distinct, one.total_before) == ("snapshot", rows, rows, rows)
    assert (gateway.requests, one.requests, one.pages) == (1, 1, 1)


def test_large_window_costs_little_more_requests_than_its_records_fill():
    gateway = evenly(20_000)
    (one,) = read(gateway)
    assert one.distinct == one.total_after == 20_000
    assert gateway.requests < 140  # 100 full answers would be the least
    assert one.requests == gateway.requests


@pytest.mark.parametrize("bursts", [False, True], ids=["evenly", "in bursts"])
def test_manifest_of_a_large_slice_stays_small(bursts):
    random = Random(3)
    busy = [second for second in range(0, DAY, 600) for _ in range(10) if random.random() < 0.4]
    times = [random.choice(busy) + random.randint(0, 3) for _ in range(20_000)]
    gateway = MovingSet(random, times, DAY) if bursts else evenly(20_000)
    staging = MemoryStaging()
    (one,) = read(gateway, staging)
    piece = Slice("trades", "run", 1, one.window, tuple(SHOPS))
    assert len(json.dumps(to_manifest(Extracted(piece, (one, one))))) < 2_500
    assert len(one.page_names(staging)) == one.pages > 100
    assert set(one.page_names(staging)) <= {name.removeprefix("/") for name in staging.root.files}


def test_silent_cap_is_learnt_and_stretches_fit_it():
    gateway = evenly(2000, cap=50)
    (one,) = read(gateway)
    assert (one.proof, one.distinct) == ("snapshot", 2000)
    assert gateway.requests < 70


def test_second_with_more_records_than_a_page_is_read_page_by_page():
    gateway = MovingSet(Random(1), [*range(100), *[50] * 450], 100)
    (one,) = read(gateway)
    assert (one.proof, one.distinct, one.total_before, one.total_after) == ("counts", 550, 550, 550)


@pytest.mark.parametrize("body", [{}, {"total": 0}, {"total": "0", "list": []}])
def test_answer_without_a_record_in_any_documented_form_is_an_empty_window(body):
    (one,) = read(Scripted(lambda _body, _params: body))
    assert (one.proof, one.rows, one.total_before) == ("snapshot", 0, 0)


def test_records_without_a_total_prove_nothing_outside_the_archive():
    gateway = Scripted(lambda body, _params: {"list": body["list"]})
    (one,) = read(gateway)
    assert (one.proof, one.total_before, one.distinct) == ("unproven", None, 120)


def test_total_that_never_fits_its_records_is_asked_for_three_times_and_told():
    gateway = Scripted(lambda body, _params: {**body, "total": 119})
    (one,) = read(gateway)
    assert (one.proof, one.attempts, gateway.requests) == ("unproven", 3, 3)
    assert (one.total_after, one.distinct) == (119, 120)


def test_page_larger_than_asked_for_is_refused():
    gateway = Scripted(lambda body, _params: {**body, "list": body["list"] * 2})
    with pytest.raises(DataError, match="ignores the page size"):
        read(gateway)


@pytest.mark.parametrize(("strays", "refused"), [(60, False), (61, True)])
def test_records_outside_the_time_are_kept_and_told_unless_most_are(strays, refused, caplog):
    def stray(body, _params):
        for row in body["list"][:strays]:
            row["updTime"] -= 10**9
        return body

    if refused:
        with pytest.raises(DataError, match="ignores the time parameters"):
            read(Scripted(stray))
        return
    with caplog.at_level(logging.WARNING):
        (one,) = read(Scripted(stray))
    assert (one.proof, one.distinct) == ("snapshot", 120)
    assert "60 of 120 records lie outside" in caplog.text


@pytest.mark.parametrize(
    ("rows", "strays", "refused"), [(120, 60, False), (120, 61, True), (20, 11, True), (19, 19, False)]
)
def test_where_strangers_are_usual_a_page_of_them_betrays_an_ignored_time(rows, strays, refused, caplog):
    def paid(body, _params):
        for number, row in enumerate(body["list"]):
            row["payTime"] = row["updTime"] - (10**9 if number < strays else 0)
        return body

    gateway = Scripted(paid, rows)
    if refused:
        with pytest.raises(DataError, match="ignores the time parameters"):
            read(gateway, dimension="pay_time")
        return
    with caplog.at_level(logging.WARNING):
        (one,) = read(gateway, dimension="pay_time")
    assert (one.proof, one.distinct, caplog.text) == ("snapshot", rows, "")


@pytest.mark.parametrize("error", [TooLarge, TooSlow])
def test_answer_that_is_too_much_is_halved_down_to_a_minute(error):
    class Limited(MovingSet):
        def _answer(self, first, last, params, method):
            if last - first > self.limit:
                raise error("too much", method=method)
            return super()._answer(first, last, params, method)

    gateway = Limited(Random(2), list(range(0, 3600, 60)), 3600)
    gateway.limit = 500
    (one,) = read(gateway)
    assert (one.proof, one.distinct) == ("snapshot", 60)
    gateway.limit = 20
    with pytest.raises(error):
        read(gateway)


def test_names_of_the_proofs_are_those_that_seal():
    names = ("SNAPSHOT", "COUNTS", "READINGS", "UNPROVEN")
    assert [getattr(reads, name) for name in names] == [getattr(proof, name) for name in names]


# --- the archive


def test_archive_is_read_twice_because_it_counts_nothing():
    gateway = evenly(450, counts=False)
    (one,) = read(gateway, dimension="created", archive=True)
    assert (one.proof, one.distinct, one.total_before) == ("readings", 450, None)
    assert one.request["queryType"] == "1"
    assert gateway.requests == 4 + 3


def test_silent_cap_of_the_archive_does_not_look_like_its_end():
    (one,) = read(evenly(450, counts=False, cap=60), dimension="created", archive=True)
    assert (one.proof, one.distinct) == ("readings", 450)


class Shrinking(MovingSet):
    """A gateway whose silent cap is halved before one of its requests."""

    def __init__(self, at: int, rows: int) -> None:
        inner = evenly(rows)
        super().__init__(inner.random, list(inner.times.values()), DAY, counts=False)
        self.at = at

    def _answer(self, *asked):
        self.cap = 200 if self.requests < self.at else 100
        return super()._answer(*asked)


@pytest.mark.parametrize("at", range(1, 16))
def test_silent_cap_that_is_halved_on_the_way_does_not_look_like_the_end_of_the_archive(at):
    """The page after that holds nothing but records that came already, and more are behind it."""
    (one,) = read(Shrinking(at, 1000), dimension="created", archive=True)
    assert (one.proof, one.distinct) == ("readings", 1000)


def test_archive_that_does_not_stand_still_proves_nothing():
    gateway = evenly(450, counts=False, leaves=0.9)
    (one,) = read(gateway, dimension="created", archive=True)
    assert one.proof == "unproven"


def test_archive_refuses_the_dimensions_it_does_not_have():
    with pytest.raises(DataError, match="read it by one of created"):
        read(evenly(1), archive=True)


# --- over HTTP


@pytest.fixture
def opened(clock):
    clock.at = START.timestamp()
    world = World(START, archive_orders=90)
    with Sandbox(world, Faults(), clock) as box, requests.Session() as http:
        app = App(box.credentials.app_key, box.credentials.app_secret)
        wire = Wire(app, url=box.url, transport=http, now=clock)
        session = FixedSession(box.credentials.access_token)
        yield box, Client(wire, session, budget=Budget(1e6), sleep=clock.sleep)


def test_archive_of_the_sandbox_is_mirrored_day_by_day(opened):
    box, client = opened
    old = {
        sid for sid, row in box.truth().items() if row["created"] < (START.timestamp() - 91 * 86_400) * 1000
    }
    assert old
    found = set()
    staging = MemoryStaging()
    for day in range(95, 131):
        window = Window(START - timedelta(days=day), START - timedelta(days=day - 1), "created")
        (one,) = read_parts(
            client, OUTSTOCK, window, [], rank=0, page_size=20, staging=staging, folder="a", archive=True
        )
        assert one.proof == "readings"
        pages = [json.loads(staging.read_compressed(name)) for name in one.page_names(staging)]
        found |= {str(row["sid"]) for page in pages for row in page.get("list", [])}
    assert found == old


@pytest.mark.parametrize("end", ["has_next", "missing", "same", "empty"])
@pytest.mark.parametrize("counted", [0, 7], ids=["counts-agree", "never-agree"])
def test_cursor_ends_in_each_of_its_four_ways_and_never_loops(opened, monkeypatch, end, counted):
    box, client = opened
    box.faults.cursor_end = end
    send = client.wire.send

    def crowded(method, params, *, session):
        # The whole history behind the one second that is asked for, by a gateway that ignores useHasNext.
        wide = window_request(OUTSTOCK, Window(START - timedelta(days=1), START, "pay_time"), [])
        asked = {**params, **wide}
        asked.pop("useHasNext", None)
        body = dict(send(method, asked, session=session).body)
        if counted and "total" in body:
            body["total"] += counted
        body["list"] = [{**row, "payTime": int(START.timestamp() * 1000)} for row in body["list"]]
        return Answer(method, body, encode_json(body))

    monkeypatch.setattr(client.wire, "send", crowded)
    window = Window(START - timedelta(seconds=1), START, "pay_time")
    (one,) = read_parts(
        client,
        OUTSTOCK,
        window,
        [],
        rank=0,
        page_size=20,
        staging=MemoryStaging(),
        folder="c",
        by_cursor=True,
    )
    assert one.proof == ("unproven" if counted else "counts")
    assert one.distinct > 60
    assert any(request.params.get("cursor") for request in box.requests)
    assert len(box.requests) < 60


# --- a task that dies and is tried again


def stretches(staging: MemoryStaging) -> set[str]:
    return {name for name in staging.root.files if name.count("-") == 2}


class Dying(MovingSet):
    """Answers so many requests, then the connection breaks for good."""

    left = 40

    def call(self, method, params):
        if self.left == 0:
            raise Transient("the connection broke", method=method)
        self.left -= 1
        return super().call(method, params)


def half_read(clock) -> tuple[MovingSet, MemoryStaging]:
    whole, staging = evenly(10_000), MemoryStaging()
    gateway = Dying(Random(1), list(whole.times.values()), DAY)
    with pytest.raises(Transient):
        read(gateway, staging, now=clock)
    assert len(stretches(staging)) > 30
    gateway.left = -1
    gateway.requests = 0
    return gateway, staging


def test_what_was_complete_is_not_asked_for_again(clock):
    gateway, staging = half_read(clock)
    before = stretches(staging)
    clock.advance(600)
    (one,) = read(gateway, staging, now=clock)
    assert (one.proof, one.distinct, one.total_after) == ("snapshot", 10_000, 10_000)
    assert before <= {f"/{name}" for name in one.page_names(staging)}
    assert gateway.requests <= one.pages - len(before) + 5
    # The oldest answer dates the read: a window that was not over by then is not proven by a later half.
    assert one.first_read_at.timestamp() == int(clock() - 600)


def paged(left: int, clock, **how) -> tuple[Dying, MemoryStaging]:
    """A gateway whose every answer is a page of many, and what a read of it left when it died."""
    crowd = {"times": [50] * 1900, "seconds": 100, **how}
    gateway, staging = Dying(Random(1), **crowd), MemoryStaging()
    gateway.left = left
    with pytest.raises(Transient):
        read_paged(gateway, staging, clock)
    gateway.left = -1
    gateway.requests = 0
    return gateway, staging


def read_paged(gateway: MovingSet, staging: MemoryStaging, clock):
    by_cursor = {"by_cursor": True} if gateway.counts else {"dimension": "created", "archive": True}
    return read(gateway, staging, now=clock, **by_cursor)


@pytest.mark.parametrize("counts", [False, True], ids=["archive", "cursor"])
def test_pages_of_a_first_reading_are_not_asked_for_again(clock, counts):
    whole = Dying(Random(1), [50] * 1900, 100, counts=counts)
    whole.left = -1
    read_paged(whole, MemoryStaging(), clock)
    gateway, staging = paged(whole.requests - 12, clock, counts=counts)
    clock.advance(600)
    (one,) = read_paged(gateway, staging, clock)
    assert (one.proof, one.distinct) == ("counts" if counts else "readings", 1900)
    assert gateway.requests <= whole.requests - 9
    assert one.first_read_at.timestamp() == int(clock() - 600)


def test_pages_of_a_former_life_prove_nothing_about_a_set_that_moved_meanwhile(clock):
    gateway, staging = paged(6, clock, counts=False)
    for key in range(0, 600, 2):
        gateway.times[key] = 10**6
    (one,) = read_paged(gateway, staging, clock)
    assert (one.proof, one.distinct) == ("readings", 1600)


def test_pages_older_than_two_hours_are_asked_for_again(clock):
    gateway, staging = paged(6, clock, counts=False)
    clock.advance(2 * 3600 + 1)
    (one,) = read_paged(gateway, staging, clock)
    assert one.first_read_at.timestamp() == clock()
    assert gateway.requests == 11 + 10


def test_page_that_was_damaged_is_asked_for_again_with_all_behind_it(clock):
    gateway, staging = paged(6, clock, counts=False)
    name = sorted(staging.root.files)[2]
    staging.root.files[name] = staging.root.files[name][:-40]
    (one,) = read_paged(gateway, staging, clock)
    assert (one.proof, one.distinct) == ("readings", 1900)
    assert gateway.requests == 11 + 10 - 2


def test_answers_older_than_two_hours_are_asked_for_again(clock):
    gateway, staging = half_read(clock)
    clock.advance(2 * 3600 + 1)
    (one,) = read(gateway, staging, now=clock)
    assert gateway.requests >= one.pages
    assert one.first_read_at.timestamp() == clock()


def test_answer_that_was_damaged_is_asked_for_again(clock):
    gateway, staging = half_read(clock)
    for name in list(stretches(staging))[:10]:
        staging.root.files[name] = staging.root.files[name][:-40]
    (one,) = read(gateway, staging, now=clock)
    assert (one.proof, one.distinct) == ("snapshot", 10_000)


def test_answers_to_another_question_are_not_used(clock):
    gateway, staging = half_read(clock)
    window = Window(second(0), second(DAY), "upd_time")
    other = [Shop("900002", "pdd")]
    read_parts(
        gateway, OUTSTOCK, window, other, rank=0, page_size=200, staging=staging, folder="r", now=clock
    )
    assert gateway.requests >= 50


def test_task_killed_in_the_middle_of_a_window_goes_on_where_it_was(tmp_path, clock):
    code = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from test_reading import evenly, read
        from kuaimai.extract.staging import Staging
        gateway = evenly(2000)
        call = gateway.call
        def killed(method, params):
            if gateway.requests == 8:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(method, params)
        gateway.call = killed
        read(gateway, Staging(Path(sys.argv[1])), connections=1)
    """)
    tests = Path(__file__).parent
    path = f"{tests}:{tests.parent}:{tests.parents[1] / 'plugins'}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(tests)],
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    left = len(list(tmp_path.rglob("*.zst")))
    assert left == 7  # all but the first look at the whole window
    gateway = evenly(2000)
    (one,) = read(gateway, Staging(tmp_path))
    assert (one.proof, one.distinct) == ("snapshot", 2000)
    assert gateway.requests == one.pages - left
    assert one.first_read_at.timestamp() > FIRST
