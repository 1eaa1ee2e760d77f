"""The coordination store on real SQLite, PostgreSQL and MariaDB."""

import os
import pickle
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context

import pytest
from mariadb_server import admin
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from kuaimai.errors import ConfigError, KuaimaiError, Transient
from kuaimai.state import LeaseLost, LeaseTaken, Store
from kuaimai.state.tables import metadata


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'state.db'}"
        return
    url = request.getfixturevalue(f"one_{request.param}")
    yield url
    engine = create_engine(url)
    metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture(scope="module")
def one_postgresql(new_database):
    return new_database()


@pytest.fixture(scope="module")
def one_mariadb(new_maria_database):
    return new_maria_database()


@pytest.fixture
def store(url, clock):
    store = Store.open(url, now=clock)
    yield store
    store.close()


def test_a_lease_is_held_by_one_and_its_fence_grows(store):
    with store.lease("session:a", owner="one", ttl_seconds=60) as first:
        assert store.still_holds(first)
        with pytest.raises(LeaseTaken, match="held by one for 60 more seconds"):
            store.lease("session:a", owner="two", ttl_seconds=60).__enter__()
        with store.lease("session:b", owner="two", ttl_seconds=60) as other:
            assert other.fence == 1
    assert not store.still_holds(first)
    with store.lease("session:a", owner="two", ttl_seconds=60) as second:
        assert second.fence == first.fence + 1


def test_the_same_owner_is_refused_too(store):
    with store.lease("a", owner="task-7", ttl_seconds=60), pytest.raises(LeaseTaken):
        store.lease("a", owner="task-7", ttl_seconds=60).__enter__()


def test_a_lease_is_released_when_its_body_fails(store):
    with pytest.raises(RuntimeError), store.lease("a", owner="one", ttl_seconds=60):
        raise RuntimeError
    with store.lease("a", owner="two", ttl_seconds=60) as lease:
        assert lease.fence == 2


def test_an_expired_lease_can_be_taken_and_its_old_holder_notices(store, clock):
    with store.lease("a", owner="slow", ttl_seconds=60) as old:
        clock.advance(60)
        assert not store.still_holds(old)
        with store.lease("a", owner="next", ttl_seconds=60) as new:
            assert new.fence == old.fence + 1
            assert not store.still_holds(old)
            with pytest.raises(LeaseLost), store.holding(old):
                pytest.fail("an old holder must not get here")
        clock.advance(1)
    # the old holder's late release must not free what the next one took
    with store.lease("a", owner="third", ttl_seconds=60) as third:
        assert third.fence == new.fence + 1


def test_a_late_release_does_not_free_the_next_holder(store, clock):
    slow = store.lease("a", owner="slow", ttl_seconds=60)
    slow.__enter__()
    clock.advance(61)
    with store.lease("a", owner="next", ttl_seconds=60) as new:
        slow.__exit__(None, None, None)
        assert store.still_holds(new)


def test_nobody_takes_a_lease_while_its_holder_stores_something(url, clock):
    mine, theirs = Store.open(url, now=clock), Store.open(url, now=lambda: clock() + 3600)
    order = []

    def take():
        with theirs.lease("a", owner="late", ttl_seconds=60):
            order.append("taken")

    with mine.lease("a", owner="one", ttl_seconds=60) as lease:
        thread = threading.Thread(target=take)
        with mine.holding(lease):
            thread.start()
            thread.join(0.2)  # it must still be waiting, although for its clock the lease is over
            assert thread.is_alive()
            order.append("stored")
        thread.join(20)
    assert order == ["stored", "taken"]
    mine.close()
    theirs.close()


def test_a_fence_never_falls_behind_what_was_seen_even_in_a_new_store(store):
    with store.lease("a", owner="one", ttl_seconds=60, above=57) as lease:
        assert lease.fence == 58
    with store.lease("a", owner="one", ttl_seconds=60, above=90) as lease:
        assert lease.fence == 91
    with store.lease("a", owner="one", ttl_seconds=60, above=3) as lease:
        assert lease.fence == 92


def test_a_breaker_opens_once_keeps_its_first_reason_and_closes(store, clock):
    assert store.breaker("k") is None
    assert store.open_breaker("k", "会话失效")
    assert not store.open_breaker("k", "later")
    breaker = store.breaker("k")
    assert (breaker.key, breaker.reason, breaker.opened_at) == ("k", "会话失效", clock.at)
    assert store.breaker("other") is None
    assert store.close_breaker("k")
    assert not store.close_breaker("k")
    assert store.breaker("k") is None


def test_one_alert_per_quiet_time(store, clock):
    assert store.first_alert("late:trades", quiet_seconds=600)
    assert not store.first_alert("late:trades", quiet_seconds=600)
    assert store.first_alert("late:items", quiet_seconds=600)
    clock.advance(599)
    assert not store.first_alert("late:trades", quiet_seconds=600)
    clock.advance(1)
    assert store.first_alert("late:trades", quiet_seconds=600)


def test_names_longer_than_a_column_stay_apart(store):
    long = "dag/" * 100
    assert store.first_alert(long + "a", quiet_seconds=600)
    assert store.first_alert(long + "b", quiet_seconds=600)
    assert not store.first_alert(long + "a", quiet_seconds=600)
    with store.lease(long, owner=long, ttl_seconds=60) as lease:
        assert store.still_holds(lease)


def _grab(url, start, out):
    """In a process of its own: threads fight for one lease whose holder must be alone."""
    start.recv()
    store = Store.open(url)

    def once(_):
        for _ in range(5000):
            with suppress(LeaseTaken), store.lease("race", owner="me", ttl_seconds=120) as lease:
                with store.holding(lease):
                    pass
                alone = store.first_alert(f"inside:{lease.fence}", quiet_seconds=1e6)
                return lease.fence, alone and store.still_holds(lease)
        return None

    with ThreadPoolExecutor(2) as threads:
        out.put(list(threads.map(once, range(4))))
    store.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_several_processes_and_threads_never_hold_together(url):
    context = get_context("fork")
    out = context.SimpleQueue()
    starts, workers = [], []
    for _ in range(3):
        start, theirs = context.Pipe()
        starts.append(start)
        workers.append(context.Process(target=_grab, args=(url, theirs, out)))
        workers[-1].start()
    for start in starts:
        start.send("go")
    grants = [grant for _ in workers for grant in out.get()]
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    assert None not in grants
    assert sorted(fence for fence, _ in grants) == list(range(1, 13))
    assert all(alone for _, alone in grants)


def test_threads_that_claim_the_same_alert_get_it_once(store):
    with ThreadPoolExecutor(8) as threads:
        claims = list(threads.map(lambda _: store.first_alert("same", quiet_seconds=600), range(16)))
    assert claims.count(True) == 1


def test_opening_creates_the_tables_once_for_all_who_open_at_the_same_time(url):
    stores = [Store.open(url) for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(lambda store: store.breaker("x"), stores)) == [None] * 6
    for store in stores:
        store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_opens_its_own_connections(store):
    assert store.open_breaker("parent", "x")
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if store.breaker("parent") and store.open_breaker("child", "y") else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.breaker("child").reason == "y"


def test_nothing_is_opened_before_the_first_use(tmp_path):
    Store.open(f"sqlite:///{tmp_path / 'not-yet.db'}")
    Store.open("postgresql://nobody:secret@127.0.0.1:1/none")
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_is_none_is_a_config_error():
    with pytest.raises(ConfigError, match="not a database URL"):
        Store.open("kuaimai_state.db")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_store_in_memory_is_refused(url):
    with pytest.raises(ConfigError, match="no other process"):
        Store.open(url)


def test_a_missing_driver_is_named():
    with pytest.raises(ConfigError, match="not installed"):
        Store.open("postgresql+pg8000://u:hidden@h/d")


def test_an_unreachable_store_is_transient_and_hides_its_password():
    with pytest.raises(Transient, match="does not answer") as caught:
        Store.open("postgresql://u:hidden@127.0.0.1:1/d").breaker("k")
    assert "hidden" not in str(caught.value)
    assert "kuaimai_state" in str(caught.value)


def test_a_file_that_cannot_be_opened_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"unable to open.*right to create"):
        Store.open(f"sqlite:///{tmp_path / 'no' / 'folder.db'}").breaker("k")


def test_a_file_that_is_no_database_is_a_config_error(tmp_path):
    (tmp_path / "state.db").write_text("this is a text file, and long enough to be read as a header of pages")
    with pytest.raises(ConfigError, match="not a database"):
        Store.open(f"sqlite:///{tmp_path / 'state.db'}").breaker("k")


def test_a_locked_file_is_transient(tmp_path, monkeypatch):
    monkeypatch.setattr("kuaimai.state.database.LOCK_WAIT_SECONDS", 0.1)
    store = Store.open(f"sqlite:///{tmp_path / 'state.db'}")
    store.breaker("k")
    blocker = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(Transient, match="locked"):
        store.open_breaker("k", "r")
    assert store.breaker("k") is None  # reading goes on
    blocker.close()


@pytest.fixture
def guest(pg_url):
    """A user who may connect and nothing else."""
    engine = create_engine(pg_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE ROLE guest LOGIN PASSWORD 'hidden'"))
        connection.execute(text("REVOKE ALL ON SCHEMA public FROM PUBLIC"))
        connection.execute(text("CREATE SCHEMA guest_room AUTHORIZATION guest"))
    yield engine.url.set(username="guest", password="hidden")
    with engine.begin() as connection:
        connection.execute(text("DROP OWNED BY guest CASCADE"))
        connection.execute(text("DROP ROLE guest"))
    engine.dispose()


def test_a_user_without_rights_is_told_so(guest):
    store = Store.open(guest.update_query_dict({"options": "-csearch_path=public"}))
    with pytest.raises(ConfigError, match="right to create tables") as caught:
        store.breaker("k")
    assert "hidden" not in str(caught.value)
    store.close()


def test_a_mariadb_user_without_rights_is_told_so(mariadb, maria_url):
    with admin(mariadb) as cursor:
        cursor.execute("CREATE OR REPLACE USER 'guest'@'localhost' IDENTIFIED BY 'hidden'")
        cursor.execute(f"GRANT SELECT ON {make_url(maria_url).database}.* TO 'guest'@'localhost'")
        store = Store.open(maria_url.replace("root@", "guest:hidden@"))
        with pytest.raises(ConfigError, match="right to create tables") as caught:
            store.breaker("k")
        assert "hidden" not in str(caught.value)
        store.close()
        cursor.execute("DROP USER 'guest'@'localhost'")


def test_names_that_differ_in_case_are_two(store):
    assert store.open_breaker("k", "r")
    assert store.open_breaker("K", "r")


def test_options_in_the_url_are_kept(guest):
    store = Store.open(guest.update_query_dict({"options": "-csearch_path=guest_room"}))
    assert store.open_breaker("k", "r")
    store.close()


def test_its_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(LeaseTaken("a is held", hint="Wait.")))  # noqa: S301
    assert isinstance(error, KuaimaiError)
    assert str(error) == "a is held → Wait."
