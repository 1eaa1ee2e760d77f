"""A statement of the user's own for each record: into tables that somebody else has made.

What was executed is written down as with a write API (`kuaimai.load.posting`): a record that has not changed
is not executed again, and one bad record is found and set aside without holding up the others of its batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import requests
import sqlalchemy as sa

from kuaimai.errors import KuaimaiError, Rejected, Transient
from kuaimai.gateway.answers import decode_json
from kuaimai.load.api import Unknown, Verdict, WriteApi
from kuaimai.load.book import ProofBook
from kuaimai.load.parts import Documents, Joins
from kuaimai.load.posting import HttpTarget

# A transaction may wait for locks, one after the other.
_LEASE_SECONDS = 900.0
# MySQL's numbers for too many connections, shutdown, broken packets, lock waits, deadlocks and read-only.
_PASSING = frozenset({1040, 1053, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1226, 1290, 1927})


# The parameter that is the id of the row that the statement before has made.
LAST_ID = "lastInsertId"
# PostgreSQL: no number was drawn for a row in this session.
_NO_SEQUENCE = "55000"


class Following(NamedTuple):
    """A statement that follows for each of some lines of a row.

    Attributes:
        lines: where they are in the row.
        text: the statement.
        last: its parameters that are the id of the row that the first statement has made.
    """

    lines: str
    text: str
    last: Sequence[str]


class StatementWriter:
    """Executes a statement for the rows of records; all rows of one call in one transaction.

    Args:
        engine: of the database.
        statement: with a named parameter (`:name`) for each value.
        following: statements that follow it. A row is then an object of `main`, the first one's values, and
            of the lists of lines.
        main: see `following`.
    """

    def __init__(
        self,
        engine: sa.engine.Engine,
        statement: str,
        following: Sequence[Following] = (),
        main: str = "",
    ) -> None:
        self._engine = engine
        self._statement = sa.text(statement)
        self._following = [(one, sa.text(one.text)) for one in following]
        self._main = main

    def post(self, bodies: Sequence[bytes], request: str) -> list[Verdict]:  # noqa: ARG002 - a writer's signature
        """Execute; each body is a JSON list of rows, each an object of the parameters' values.

        Raises:
            Rejected: the database refuses a row, or the statement; nothing was changed.
            Transient: it cannot be reached, or is busy; nothing was changed.
            Unknown: the connection broke at the commit.
        """
        rows = [row for body in bodies for row in decode_json(body)]
        if self._engine.dialect.name == "sqlite":
            rows = _without_decimals(rows)
        try:
            with self._engine.connect() as connection:
                # Begun by the first statement on SQLAlchemy 1.4 and 2 alike.
                transaction = connection.begin()
                if rows and not self._following:
                    connection.execute(self._statement, rows)
                for row in rows if self._following else ():
                    self._with_lines(connection, row)
                self._commit(transaction)
        except sa.exc.SQLAlchemyError as err:
            if _may_pass(err):
                raise Transient(f"the database cannot be written now: {_reason(err)}") from err
            raise Rejected(f"the database refuses the row: {_reason(err)}") from err
        return [Verdict(taken=True)] * len(bodies)

    def _with_lines(self, connection: sa.engine.Connection, row: Mapping[str, Any]) -> None:
        done = connection.execute(self._statement, row[self._main])
        asked = any(one.last for one, _ in self._following)
        last = _last_id(connection, done) if asked else None
        if asked and (not last or done.rowcount == 0):
            raise Rejected(f"the main statement made no row, so that there is no :{LAST_ID} for its lines")
        for one, statement in self._following:
            lines = [{**line, **dict.fromkeys(one.last, last)} for line in row[one.lines]]
            if lines:
                connection.execute(statement, lines)

    @staticmethod
    def _commit(transaction: sa.engine.Transaction) -> None:
        try:
            transaction.commit()
        except sa.exc.DBAPIError as err:
            raise Unknown(f"the connection broke at the commit: {_reason(err)}") from err

    def has(self, key: str) -> bool:
        """A statement cannot be asked.

        Raises:
            KuaimaiError: always.
        """
        raise KuaimaiError(f"a statement's target cannot be asked for {key}")


class StatementTarget(HttpTarget):
    """A database that gets a statement of the user's own for each record.

    Args:
        name: of the target, in its pipeline.
        book: the coordination store's database.
        engine: of the database.
        statement: with named parameters.
        rows: records in one transaction, at most.
        again: whether executing it twice changes nothing: REPLACE, and what does not add to what is there.
        id_check: a record is executed once only, also when it has changed since.
        document: makes of a record the JSON list of its rows.
        joins: makes such a list of the parts of several records.
        following: statements that follow, see `StatementWriter`; and `main`.
        pipeline_version: stored with quarantined records.
    """

    def __init__(
        self,
        name: str,
        book: ProofBook,
        *,
        engine: sa.engine.Engine,
        statement: str,
        rows: int,
        again: bool,
        id_check: bool,
        document: Documents,
        joins: Joins | None = None,
        following: Sequence[Following] = (),
        main: str = "",
        pipeline_version: str = "",
    ) -> None:
        api = WriteApi(
            url=f"{engine.url.get_backend_name()}:{engine.url.database}",
            rows=rows,
            rows_key="rows",
            id_check=id_check,
            in_doubt="resend" if again else "hold",
        )
        super().__init__(
            name,
            book,
            api=api,
            transport=requests.Session(),
            pipeline_version=pipeline_version,
            requests_per_second=1_000,
            lease_seconds=_LEASE_SECONDS,
            document=document,
            joins=joins,
        )
        self.writer = StatementWriter(engine, statement, following, main)
        self.engine = engine

    def try_rights(self) -> str:
        """Connect, and try where the proof is; what the statement does is known with the first record."""
        try:
            with self.engine.connect() as connection:
                connection.execute(sa.text("SELECT 1"))
        except sa.exc.SQLAlchemyError as err:
            raise Transient(f"{self.api.url} cannot be reached: {_reason(err)}") from err
        self.book.try_rights()
        return f"{self.api.url}: can be reached; its proof can be written"

    def close(self) -> None:
        """Close the connections."""
        super().close()
        self.engine.dispose()


def _without_decimals(value: Any) -> Any:
    """Amounts as text, exact: SQLite has no decimals, and its columns of numbers make numbers of text."""
    if isinstance(value, list):
        return [_without_decimals(one) for one in value]
    if isinstance(value, dict):
        return {name: _without_decimals(one) for name, one in value.items()}
    return format(value, "f") if isinstance(value, Decimal) else value


def _last_id(connection: sa.engine.Connection, done: Any) -> Any:
    """The id that the database gave the row; PostgreSQL's drivers do not say it by themselves."""
    if connection.dialect.name == "postgresql":
        return connection.execute(sa.text("SELECT lastval()")).scalar()
    return done.lastrowid


def _may_pass(err: sa.exc.SQLAlchemyError) -> bool:
    """Whether the same rows may be taken later: the connection, a lock or the server is the reason."""
    if not isinstance(err, sa.exc.OperationalError | sa.exc.InterfaceError | sa.exc.TimeoutError):
        return False
    orig = getattr(err, "orig", None) or err
    if getattr(orig, "sqlstate", getattr(orig, "pgcode", None)) == _NO_SEQUENCE:
        return False
    code = orig.args[:1]
    # MySQL's drivers call much of what the server says about a row operational, e.g. 4025, a CHECK.
    return not code or not isinstance(code[0], int) or code[0] in _PASSING or code[0] // 1000 in (0, 2)


def _reason(err: sa.exc.SQLAlchemyError) -> str:
    """The driver's own words; SQLAlchemy's would quote the values."""
    return str(getattr(err, "orig", None) or type(err).__name__)[:200]
