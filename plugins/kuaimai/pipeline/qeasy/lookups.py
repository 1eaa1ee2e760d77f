"""`_findCollection`: a value from a landed table, found by equality; all values are bound, none is pasted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, Protocol

import sqlalchemy as sa

from kuaimai.errors import ConfigError, DataError
from kuaimai.gateway.catalog import snake_case
from kuaimai.pipeline.qeasy.exact import to_decimal
from kuaimai.pipeline.qeasy.findings import near
from kuaimai.pipeline.qeasy.formats import as_text
from kuaimai.pipeline.qeasy.moments import read_time, to_epoch
from kuaimai.transform.tables import DELETED_AT


class Lookups(Protocol):
    """Landed tables that can be asked."""

    def find(self, table: str, where: Mapping[str, Any], field: str) -> Any:
        """Return the field of the one row where all the given fields have the given values.

        Returns:
            The value; None if there is no such row.

        Raises:
            DataError: rows that match disagree, or a value cannot be compared with its column.
            ConfigError: the table or a column does not exist.
        """
        ...


class SqlLookups:
    """Lookups in a SQL target (PostgreSQL, MySQL, MariaDB, SQLite). Rows that have vanished are not found.

    Args:
        engine: of the target.
    """

    def __init__(self, engine: sa.engine.Engine) -> None:
        self.engine = engine
        self._tables: dict[str, sa.Table] = {}

    def find(self, table: str, where: Mapping[str, Any], field: str) -> Any:
        """Do what `Lookups.find` says; names are the API's (`skuOuterId`) or the columns' own."""
        landed = self._table(table)
        wanted = self._column(landed, field)
        statement = sa.select(wanted).distinct().limit(2)
        for name, value in where.items():
            column = self._column(landed, name)
            if value is None:
                return None  # nothing equals null, as on the platform
            statement = statement.where(column == _bound(column, value))
        if DELETED_AT in landed.c:
            statement = statement.where(landed.c[DELETED_AT].is_(None))
        with self.engine.connect() as connection:
            found = connection.execute(statement).fetchall()
        if len(found) > 1:
            named = " and ".join(where)
            raise DataError(
                f"{table} has several rows with this {named}, and their {field} differ",
                hint="add a condition that makes it one row",
            )
        value = found[0][0] if found else None
        # A column without a zone holds UTC (MySQL, SQLite); the merchant's values are wall clock times.
        if isinstance(value, datetime):
            return read_time(value if value.tzinfo else value.replace(tzinfo=timezone.utc))
        return _shortened(value) if isinstance(value, Decimal) else value

    def _table(self, name: str) -> sa.Table:
        if name not in self._tables:
            try:
                self._tables[name] = sa.Table(name, sa.MetaData(), autoload_with=self.engine)
            except sa.exc.NoSuchTableError:
                raise ConfigError(
                    f"there is no table {name!r} to look up in",
                    hint="let the pipeline that fills it run first, or mend `collections` in the strategy",
                ) from None
        return self._tables[name]

    @staticmethod
    def _column(table: sa.Table, name: str) -> Any:
        for spelt in (name, snake_case(name)):
            if spelt in table.c:
                return table.c[spelt]
        raise ConfigError(f"table {table.name} has no column for {name!r}", hint=near(name, table.c.keys()))


def _shortened(amount: Decimal) -> Decimal:
    """Return 29.9000 as 29.90: places of the column are no part of an amount (`amounts_as_text`)."""
    whole, point, places = f"{amount:f}".partition(".")
    return Decimal(f"{whole}.{places.rstrip('0'):0<2}") if point else amount


def _bound(column: Any, value: Any) -> Any:
    """Return the value in the column's own type, so that no database has to guess."""
    kind = column.type
    try:
        if isinstance(kind, sa.types.String):
            return as_text(value)
        if isinstance(kind, sa.types.Integer | sa.types.Numeric):
            return to_decimal(value)
        if isinstance(kind, sa.types.DateTime):
            wall = read_time(value)
            instant = None if wall is None else datetime.fromtimestamp(to_epoch(wall), timezone.utc)
            return instant if instant is None or kind.timezone else instant.replace(tzinfo=None)
    except ValueError as err:
        raise DataError(f"{column.name} cannot be compared: {err}") from err
    return as_text(value)
