"""Custody of the session: who refreshes, when, and what everyone else sees."""

import threading
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from kuaimai.errors import ConfigError, Rejected, SessionError, Throttled, Transient
from kuaimai.gateway.answers import Answer
from kuaimai.gateway.session import Credentials, SessionKeeper
from kuaimai.gateway.session_report import breaker_key, lease_name
from kuaimai.gateway.tokens import DAY, SPACING, TokenRecord
from kuaimai.gateway.wire import App
from kuaimai.state import Store

GIVEN = Credentials("demoKey123456", "demoSecret", "demoAccess", "demoRefresh")
RENEWED = Credentials("demoKey123456", "demoSecret", "mailedAccess", "mailedRefresh")


class Gateway:
    """Stands in for `Wire` where a test must stop time inside a refresh; test_session_http has the wire."""

    def __init__(self, clock, *, rotate=False):
        self.app = App(GIVEN.app_key, GIVEN.app_secret)
        self.clock = clock
        self.rotate = rotate
        self.pair = (GIVEN.access_token, GIVEN.refresh_token)
        self.refreshed_at = None
        self.ends_at = clock() + 30 * DAY
        self.refreshes = []
        self.trouble = None  # an error to raise instead of an answer
        self.during = None  # called inside the refresh, after the gateway has done it
        self.shape = {}

    def send(self, method, params, *, session):
        assert method == "open.token.refresh"
        now = self.clock()
        self.refreshes.append(now)
        if self.trouble is not None:
            raise self.trouble
        if now >= self.ends_at or (session, params["refreshToken"]) != self.pair:
            raise SessionError(
                "用户未启用，请联系管理员启用", method=method, code="invalid_session", trace_id="17"
            )
        if self.refreshed_at is not None and now - self.refreshed_at < 3600:
            raise Rejected("会话刷新太频繁了", method=method, code="refresh_frequently")
        self.refreshed_at, self.ends_at = now, now + 30 * DAY
        if self.rotate:
            number = len(self.refreshes)
            self.pair = (f"rotatedAccess{number}", f"rotatedRefresh{number}")
        body = self.shape or {
            "success": True,
            "session": {"accessToken": self.pair[0], "refreshToken": self.pair[1], "expiresIn": 30 * 86400},
        }
        if self.during is not None:
            during, self.during = self.during, None
            during()
        return Answer(method, body, b"")


class Memory:
    def __init__(self):
        self.record = None
        self.writes = []
        self.failures = 0

    def read(self):
        return None if self.record is None else dict(self.record)

    def write(self, record):
        if self.failures:
            self.failures -= 1
            raise Transient("the metadata database is away")
        self.record = dict(record)
        self.writes.append(dict(record))


def open_store(file, clock):
    store = Store.open(f"sqlite:///{file}", now=clock)
    # Nothing here has to survive a power cut.
    event.listen(store._database._engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous = OFF"))
    return store


class Installation:
    """One gateway, one vault, one store; as many processes as the test wants."""

    def __init__(self, clock, folder, **gateway):
        self.clock = clock
        self.gateway = Gateway(clock, **gateway)
        self.vault = Memory()
        self.store = open_store(folder / "state.db", clock)
        self.connection = GIVEN
        self.written_back = []

    def keeper(self, *, sleep=None, on_rotation=None):
        return SessionKeeper(
            self.gateway,
            lambda: self.connection,
            vault=self.vault,
            store=self.store,
            name="kuaimai_default",
            now=self.clock,
            sleep=sleep or self.clock.sleep,
            on_rotation=on_rotation,
        )

    def write_back(self, pair):
        self.connection = pair
        self.written_back.append(pair)
        return True

    @property
    def record(self):
        return TokenRecord.parsed(self.vault.record)


@pytest.fixture
def world(clock, tmp_path):
    world = Installation(clock, tmp_path)
    yield world
    world.store.close()


@pytest.fixture
def rotating(clock, tmp_path):
    world = Installation(clock, tmp_path, rotate=True)
    yield world
    world.store.close()


INVALID = SessionError("用户未启用", method="erp.trade.list.query", code="invalid_session", trace_id="9")


# When


def test_the_first_refresh_settles_the_unknown_expiry(world, clock):
    keeper = world.keeper()
    assert keeper.current() == GIVEN.access_token
    report = keeper.refresh_if_due()
    assert (report.state, report.days_left, report.age_days) == ("refreshed", 30, 0)
    assert world.record.expires_at == clock() + 30 * DAY
    assert world.record.fence == report.fence == 1
    assert "30.0 days" in report.message


def test_it_is_refreshed_every_seven_days_and_not_before(world, clock):
    keeper = world.keeper()
    states = []
    for _ in range(29):
        states.append(keeper.refresh_if_due().state)
        clock.advance(DAY)
    assert states == (["refreshed"] + ["fresh"] * 6) * 4 + ["refreshed"]


def test_by_force_it_is_refreshed_earlier_but_never_twice_within_65_minutes(world, clock):
    keeper = world.keeper()
    assert keeper.refresh(force=True).state == "refreshed"
    clock.advance(SPACING - 1)
    assert keeper.refresh(force=True).state == "already_refreshed"
    assert len(world.gateway.refreshes) == 1
    clock.advance(1)
    assert keeper.refresh(force=True).state == "refreshed"


def test_refresh_frequently_is_success(world, clock):
    world.gateway.refreshed_at = clock() - 600  # by some other program
    report = world.keeper().refresh_if_due()
    assert report.state == "already_refreshed"
    assert report.days_left == pytest.approx(30 - 1 / 24)
    assert world.keeper().refresh_if_due().state == "fresh"
    assert len(world.gateway.refreshes) == 1


def test_a_refresh_without_session_in_its_answer_keeps_the_tokens(world):
    world.gateway.shape = {"success": True, "code": 0}
    assert world.keeper().refresh_if_due().state == "refreshed"
    assert world.record.has_tokens_of(GIVEN)


@pytest.mark.parametrize(
    "trouble",
    [
        Transient("HTTP 502 from the gateway"),
        Throttled("HTTP 429, too many requests"),
        Rejected("没有权限", code="7"),
    ],
)
def test_trouble_warns_until_day_27_and_then_fails_loudly(world, clock, trouble):
    keeper = world.keeper()
    keeper.refresh_if_due()
    world.gateway.trouble = trouble
    for day in (7, 19.9, 20, 26.9):
        clock.at = world.record.last_refreshed_at + day * DAY
        report = keeper.refresh_if_due()
        assert report.state == "warning"
        assert trouble.message in report.message
        assert keeper.current() == GIVEN.access_token
    clock.at = world.record.last_refreshed_at + 27 * DAY
    with pytest.raises(SessionError, match=r"3\.0 days") as caught:
        keeper.refresh_if_due()
    assert caught.value.__cause__ is trouble
    assert keeper.current() == GIVEN.access_token  # it is not dead yet
    world.gateway.trouble = None
    assert keeper.refresh_if_due().state == "refreshed"


def test_a_session_that_was_never_refreshed_ages_from_its_first_try(world, clock):
    world.gateway.trouble = Transient("HTTP 502 from the gateway")
    assert world.keeper().refresh_if_due().state == "warning"
    clock.advance(27 * DAY)
    with pytest.raises(SessionError):
        world.keeper().refresh_if_due()


def test_from_day_20_a_mere_look_warns(world, clock):
    keeper = world.keeper()
    keeper.refresh_if_due()
    assert keeper.report().state == "fresh"
    clock.advance(20 * DAY)
    report = keeper.report()
    assert (report.state, report.days_left) == ("warning", 10)
    assert "20.0 days" in report.message
    assert len(world.gateway.refreshes) == 1


@pytest.mark.parametrize("code", ["25", "23", "40"])
def test_a_wrong_key_secret_or_clock_is_said_as_it_is(world, code):
    world.gateway.trouble = Rejected("签名无效", code=code)
    with pytest.raises(Rejected, match="签名无效"):
        world.keeper().refresh_if_due()
    assert world.keeper().current()
    with pytest.raises(Rejected):
        world.keeper().rejected(GIVEN.access_token, INVALID)
    assert world.keeper().current()  # no breaker


def test_a_wrong_address_is_said_as_it_is(world):
    world.gateway.trouble = ConfigError("HTTP 404: this address does not answer like the gateway")
    with pytest.raises(ConfigError):
        world.keeper().refresh_if_due()


# Rotation


def test_a_rotated_pair_is_stored_before_anyone_uses_it(rotating):
    keeper = rotating.keeper()
    keeper.refresh_if_due()
    assert rotating.vault.record["access_token"] == "rotatedAccess1"
    assert keeper.current() == rotating.keeper().current() == "rotatedAccess1"


def test_a_rotated_pair_goes_back_into_the_connection_where_that_is_possible(rotating, clock):
    keeper = rotating.keeper(on_rotation=rotating.write_back)
    keeper.refresh_if_due()
    assert rotating.connection.access_token == "rotatedAccess1"
    assert rotating.record.fingerprint == rotating.connection.fingerprint()
    clock.advance(7 * DAY)
    assert rotating.keeper(on_rotation=rotating.write_back).refresh_if_due().state == "refreshed"
    assert rotating.connection.access_token == rotating.keeper().current() == rotating.gateway.pair[0]


def test_a_connection_that_cannot_be_written_loses_nothing(rotating, clock, caplog):
    def fails(_pair):
        raise RuntimeError("rotatedAccess1 must not be in the log")

    keeper = rotating.keeper(on_rotation=fails)
    assert keeper.refresh_if_due().state == "refreshed"
    assert keeper.current() == "rotatedAccess1"
    assert "not in its Connection (RuntimeError)" in caplog.text
    assert "rotatedAccess1" not in caplog.text
    clock.advance(7 * DAY)
    assert rotating.keeper().refresh_if_due().state == "refreshed"


def test_a_kill_between_connection_and_record_is_healed(rotating, clock):
    before = None

    def killed(pair):
        nonlocal before
        before = dict(rotating.vault.record)
        return rotating.write_back(pair)

    rotating.keeper(on_rotation=killed).refresh_if_due()
    rotating.vault.record = before  # the second write never happened
    assert rotating.keeper().report().last_refreshed_at == clock()
    assert rotating.keeper().refresh_if_due().state == "fresh"


def test_a_vault_that_is_away_for_a_moment_does_not_cost_the_new_pair(rotating, clock):
    def vault_goes_away():
        rotating.vault.failures = 3

    rotating.gateway.during = vault_goes_away
    assert rotating.keeper().refresh_if_due().state == "refreshed"
    assert rotating.vault.record["access_token"] == "rotatedAccess1"
    assert clock.slept == [1, 2, 5]


# One at a time


def test_a_loser_reads_again_instead_of_refreshing(world):
    loser, winner = world.keeper(sleep=lambda _: winner_done()), world.keeper()
    held = world.store.lease(lease_name(GIVEN.app_key), owner="winner", ttl_seconds=300)
    lease = held.__enter__()

    def winner_done():
        after = TokenRecord.adopted(GIVEN, now=world.clock()).refreshed({}, now=world.clock())
        world.vault.write({**after.as_json(), "fence": lease.fence})

    report = loser.refresh_if_due()
    assert report.state == "already_refreshed"
    assert world.gateway.refreshes == []
    held.__exit__(None, None, None)
    assert winner.refresh_if_due().state == "fresh"


def test_a_killed_refresher_blocks_nobody_while_the_session_is_good(world, clock):
    with world.store.lease(lease_name(GIVEN.app_key), owner="killed", ttl_seconds=300):
        report = world.keeper().refresh_if_due()
        assert report.state == "warning"
        assert sum(clock.slept) == 30
        assert world.keeper().current() == GIVEN.access_token
    clock.advance(300)
    assert world.keeper().refresh_if_due().state == "refreshed"


def test_threads_together_refresh_once(world):
    keepers = [world.keeper(sleep=lambda _: None) for _ in range(6)]
    states = []
    threads = [
        threading.Thread(target=lambda each=each: states.append(each.refresh_if_due().state))
        for each in keepers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(world.gateway.refreshes) == 1
    assert sorted(set(states) - {"warning"}) in (
        ["already_refreshed", "refreshed"],
        ["already_refreshed", "fresh", "refreshed"],
        ["fresh", "refreshed"],
    )


def test_an_old_holder_does_not_overwrite_what_the_next_one_stored(world, clock):
    def paused_for_long():
        clock.advance(3600)
        assert world.keeper().refresh_if_due().state == "refreshed"

    world.gateway.during = paused_for_long
    report = world.keeper().refresh_if_due()
    assert [write["fence"] for write in world.vault.writes] == [1, 2, 2]
    assert report.fence == 2
    assert report.last_refreshed_at == clock()


def test_a_paused_holder_brings_home_the_only_pair_that_works(rotating, clock):
    """The next holder asked with the old pair and was refused: only the paused one knows the new pair."""

    def paused_for_long():
        clock.advance(600)
        assert rotating.keeper().refresh_if_due().state == "warning"

    rotating.gateway.during = paused_for_long
    keeper = rotating.keeper()
    real_send, answers = rotating.gateway.send, []

    def send(method, params, *, session):
        if answers:
            raise Rejected("busy with something", code="9")
        answers.append(1)
        return real_send(method, params, session=session)

    rotating.gateway.send = send
    report = keeper.refresh_if_due()
    assert report.state == "refreshed"
    assert rotating.vault.record["access_token"] == "rotatedAccess1"
    assert rotating.record.fence == 3
    assert rotating.keeper().current() == "rotatedAccess1"


def test_a_new_store_does_not_lock_out_the_old_record(world, clock, tmp_path):
    world.keeper().refresh_if_due()
    world.vault.record["fence"] = 57
    world.store.close()
    world.store = open_store(tmp_path / "new.db", clock)
    clock.advance(7 * DAY)
    assert world.keeper().refresh_if_due().fence == 58


# A refused session


def test_a_refused_session_gets_one_attempt_and_then_stops_everyone(world, clock):
    keeper, other = world.keeper(), world.keeper()
    keeper.refresh_if_due()
    clock.advance(31 * DAY)
    token = keeper.current()
    other.current()
    with pytest.raises(SessionError) as caught:
        keeper.rejected(token, INVALID)
    asked = len(world.gateway.refreshes)
    assert asked == 2
    text = str(caught.value)
    for part in ("invalid_session", "kuaimai_default", "de…56", "accessToken", "重新签发", "trace 17"):
        assert part in text
    for secret in (GIVEN.app_key, GIVEN.app_secret, GIVEN.access_token, GIVEN.refresh_token):
        assert secret not in text
    for call in (
        keeper.current,
        other.current,
        other.refresh_if_due,
        other.report,
        lambda: other.refresh(force=True),
        lambda: other.rejected(token, INVALID),
        world.keeper().current,
    ):
        with pytest.raises(SessionError) as again:
            call()
        assert str(again.value) == text
    assert len(world.gateway.refreshes) == asked


def test_a_due_refresh_that_is_refused_stops_everyone_too(world, clock):
    world.keeper().refresh_if_due()
    clock.advance(31 * DAY)
    with pytest.raises(SessionError, match="is dead"):
        world.keeper().refresh_if_due()
    with pytest.raises(SessionError, match="is dead"):
        world.keeper().current()


def test_the_first_credentials_may_be_dead_already(world):
    world.gateway.ends_at = 0
    for _ in range(3):
        with pytest.raises(SessionError, match="is dead"):
            world.keeper().refresh_if_due()
    assert len(world.gateway.refreshes) == 1


def test_an_attempt_that_helps_gives_a_token_worth_one_more_try(rotating, clock):
    keeper = rotating.keeper()
    keeper.refresh_if_due()
    clock.advance(2 * DAY)
    assert keeper.rejected(keeper.current(), INVALID) == rotating.gateway.pair[0] == "rotatedAccess2"


def test_a_second_refusal_after_the_attempt_stops_everyone(world, clock):
    keeper = world.keeper()
    keeper.refresh_if_due()
    clock.advance(2 * DAY)
    token = keeper.rejected(keeper.current(), INVALID)
    with pytest.raises(SessionError, match="is dead"):
        keeper.rejected(token, INVALID)
    assert len(world.gateway.refreshes) == 2


def test_a_process_that_comes_late_uses_the_others_attempt(world, clock):
    one, two = world.keeper(), world.keeper()
    one.refresh_if_due()
    clock.advance(2 * DAY)
    one.current()
    two.current()
    assert one.rejected(GIVEN.access_token, INVALID) == GIVEN.access_token
    assert two.rejected(GIVEN.access_token, INVALID) == GIVEN.access_token
    assert len(world.gateway.refreshes) == 2
    with pytest.raises(SessionError, match="is dead"):
        two.rejected(GIVEN.access_token, INVALID)


def test_a_token_that_was_rotated_meanwhile_needs_no_attempt(rotating):
    keeper = rotating.keeper()
    stale = keeper.current()
    rotating.keeper().refresh_if_due()
    assert keeper.rejected(stale, INVALID) == "rotatedAccess1"
    assert len(rotating.gateway.refreshes) == 1


def test_an_attempt_without_a_clear_answer_leaves_the_breaker_closed(world, clock):
    keeper = world.keeper()
    keeper.refresh_if_due()
    clock.advance(2 * DAY)
    world.gateway.trouble = Transient("no answer within 90 s")
    with pytest.raises(Transient):
        keeper.rejected(keeper.current(), INVALID)
    world.gateway.trouble = None
    assert keeper.current() == GIVEN.access_token


def test_an_attempt_that_is_refused_for_another_reason_stops_everyone(world):
    world.gateway.trouble = Rejected("没有权限", code="7")
    with pytest.raises(SessionError, match="没有权限"):
        world.keeper().rejected(GIVEN.access_token, INVALID)
    with pytest.raises(SessionError, match="没有权限"):
        world.keeper().current()


# What people do


def dead(world):
    world.gateway.ends_at = 0
    with pytest.raises(SessionError):
        world.keeper().refresh_if_due()


def test_new_credentials_in_the_connection_win_and_close_the_breaker(world, clock):
    dead(world)
    world.connection = RENEWED
    world.gateway.pair, world.gateway.ends_at = ("mailedAccess", "mailedRefresh"), clock() + 30 * DAY
    keeper = world.keeper()
    assert keeper.current() == "mailedAccess"
    assert keeper.refresh_if_due().state == "refreshed"
    assert world.record.fingerprint == RENEWED.fingerprint()
    assert world.record.fence == 2


def test_a_task_that_already_runs_sees_the_new_credentials(world, clock):
    keeper = world.keeper()
    assert keeper.current() == GIVEN.access_token
    world.connection = RENEWED
    clock.advance(30)
    assert keeper.current() == "mailedAccess"


def test_going_back_to_the_old_credentials_counts_as_an_edit(world, clock):
    dead(world)
    world.connection = RENEWED
    dead(world)
    world.connection = GIVEN
    world.gateway.ends_at = clock() + 30 * DAY
    assert world.keeper().refresh_if_due().state == "refreshed"


def test_a_changed_secret_ends_a_running_task_with_a_retry(world):
    keeper = world.keeper()
    world.connection = Credentials(GIVEN.app_key, "otherSecret", GIVEN.access_token, GIVEN.refresh_token)
    with pytest.raises(Transient, match="was changed while this task was running"):
        keeper.current()


def test_deleting_the_record_tries_the_same_tokens_again(world, clock, caplog):
    dead(world)
    world.gateway.ends_at = clock() + 30 * DAY
    with pytest.raises(SessionError):
        world.keeper().current()
    world.vault.record = None
    assert world.keeper().current() == GIVEN.access_token
    assert "renewed" in caplog.text
    assert world.keeper().refresh_if_due().state == "refreshed"


def test_a_call_that_succeeded_at_a_persons_wish_closes_the_breaker(world):
    dead(world)
    world.keeper().proved_alive()
    assert world.keeper().current() == GIVEN.access_token


@pytest.mark.parametrize("rubbish", [{}, {"access_token": "x"}, {"access_token": 1, "refresh_token": []}])
def test_an_unreadable_record_is_rebuilt_from_the_connection(world, caplog, rubbish):
    world.vault.record = rubbish
    keeper = world.keeper()
    assert keeper.current() == GIVEN.access_token
    assert "unreadable" in caplog.text
    assert keeper.refresh_if_due().state == "refreshed"
    assert world.record.has_tokens_of(GIVEN)


def test_a_vault_that_cannot_be_read_is_transient(world):
    def away():
        raise Transient("the metadata database is away")

    world.vault.read = away
    with pytest.raises(Transient, match="away"):
        world.keeper().current()
    with pytest.raises(Transient, match="away"):
        world.keeper().refresh_if_due()


def test_a_breaker_belongs_to_its_credentials_alone(world):
    assert breaker_key(GIVEN) != breaker_key(RENEWED)
    assert breaker_key(GIVEN).rsplit(":", 1)[0] == lease_name(GIVEN.app_key)
    assert GIVEN.app_key not in breaker_key(GIVEN)


# Any order of events


@settings(max_examples=20, deadline=None)
@given(
    rotate=st.booleans(),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["refresh", "force", "use", "outage"]),
            st.integers(0, 1),
            st.sampled_from([0, 60, 1800, 3900, DAY, 5 * DAY]),
            st.booleans(),
        ),
        max_size=10,
    ),
)
def test_two_refreshers_in_any_order_keep_the_one_session(tmp_path_factory, rotate, steps):
    from conftest import Clock

    clock = Clock()
    world = Installation(clock, tmp_path_factory.mktemp("any"), rotate=rotate)
    keepers = [world.keeper(), world.keeper()]
    fences = [0]

    def meanwhile(other):
        clock.advance(400)  # beyond the lease
        with suppress(SessionError):  # with the old pair it may hear that the session is dead
            other.refresh(force=True)

    for action, who, pause, paused_inside in steps:
        if paused_inside:
            # the other one wants a refresh too, while this one is stopped in the middle of its own
            world.gateway.during = lambda other=keepers[1 - who]: meanwhile(other)
        if action == "use":
            token = keepers[who].current()
            if token != world.gateway.pair[0]:  # rotated by the other within the last 30 s
                assert keepers[who].rejected(token, INVALID) == world.gateway.pair[0]
        elif action == "outage":
            world.gateway.trouble = Transient("HTTP 502 from the gateway")
            keepers[who].refresh_if_due()
            world.gateway.trouble = None
        else:
            keepers[who].refresh(force=action == "force")
        world.gateway.during = None
        if world.record is not None:
            fences.append(world.record.fence)
        clock.advance(pause)
    clock.advance(31)
    if world.gateway.refreshed_at is not None:
        assert {keeper.current() for keeper in keepers} == {world.gateway.pair[0]}
    assert fences == sorted(fences)
    assert [w["fence"] for w in world.vault.writes] == sorted(w["fence"] for w in world.vault.writes)
    world.store.close()
