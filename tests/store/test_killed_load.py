"""A load that is killed with SIGKILL between its statements loses nothing and doubles nothing."""

from __future__ import annotations

import os
import signal

import pytest
import sqlalchemy as sa
from loads import batch, facts
from orders import order
from workers import workers

from kuaimai.load.targets import open_target
from kuaimai.transform.mapping import Mapper

ORDERS = [1, 2, 3]


def load(url: str, *, die_after: int | None = None) -> None:
    """Merge one batch per order, then seal; die before the statement with this number."""
    target = open_target(url)
    with target.loading(Mapper("trade").tables) as loading:
        for number, sid in enumerate(ORDERS):
            if number == die_after:
                os.kill(os.getpid(), signal.SIGKILL)
            loading.merge(0, batch([order(sid)]))
        loading.seal(facts(total=len(ORDERS)))
        if die_after == len(ORDERS):
            os.kill(os.getpid(), signal.SIGKILL)
    target.close()


def counts(url: str) -> list[int]:
    target = open_target(url)
    with target.engine.connect() as connection:
        found = [
            connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar()
            for table in ("kuaimai_trade", "kuaimai_trade_line", "kuaimai_window")
        ]
    target.close()
    return found


@pytest.mark.parametrize(
    "die_after", [0, 2, 3], ids=["before-the-data", "amid-the-data", "before-the-commit"]
)
@pytest.mark.parametrize("database", ["postgres", "mariadb", "sqlite"])
def test_killed_load_leaves_nothing_and_the_next_one_lands_all_once(request, tmp_path, database, die_after):
    if database == "sqlite":
        url = f"sqlite:///{tmp_path}/target.db"
    else:
        url = request.getfixturevalue({"postgres": "pg_url", "mariadb": "maria_url"}[database])
    process = workers().Process(target=load, args=(url,), kwargs={"die_after": die_after})
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert counts(url) == [0, 0, 0]
    load(url)
    load(url)
    assert counts(url) == [len(ORDERS), len(ORDERS), 1]
