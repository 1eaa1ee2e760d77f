"""What the nightly reconcile asks of the target and writes to it: counts, keys, tombstones, totals.

Times are closed windows in whole seconds, as the gateway's: the last second counts whole.
"""
# ruff: noqa: S608 - statements are composed of the catalogue's names; values are bound

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import sqlalchemy as sa

from kuaimai.load import merge
from kuaimai.load.lookup import rows_by_key
from kuaimai.load.proof import (
    AMOUNTS,
    QUARANTINE_TABLE,
    RECONCILE_COLUMNS,
    RECONCILE_TABLE,
    STATUS,
    TOTAL_COLUMNS,
    TOTAL_TABLE,
)
from kuaimai.load.sql import SqlTarget
from kuaimai.transform.fields import to_epoch_ms, to_id
from kuaimai.transform.tables import DELETED_AT, HASH, RANK, VERSION, Column, Table

_SECOND = timedelta(seconds=1)


class Aside(msgspec.Struct, frozen=True):
    """A record in quarantine that did not land since: its key, its shop if known, and all of it."""

    key: str
    shop: str
    record: dict[str, Any]

    def stamp(self, field: str) -> int | None:
        """Return a time of the record, epoch ms; None where there is none."""
        try:
            return to_epoch_ms(self.record.get(field))
        except ValueError:
            return None


class Total(msgspec.Struct, frozen=True):
    """Orders of one shop and status, and the amounts of their lines in yuan."""

    shop: str
    status: str
    orders: int
    payment: Decimal
    pay_amount: Decimal


class Ledger:
    """The rows of one pipeline's tables, asked by one of their times or by their keys.

    Args:
        target: the database.
        tables: header first, then its lines; they must exist.
        stamp: column of the header's time.
        shop: column that says whose a row is; None where all are of one, whose id is empty.
        needs: a column without which a row does not count by that time; None if there is none.
    """

    def __init__(
        self,
        target: SqlTarget,
        tables: Sequence[Table],
        stamp: str,
        *,
        shop: str | None,
        needs: str | None = None,
    ) -> None:
        self.target = target
        self.tables = tables
        self.header = tables[0]
        self.stamp = stamp
        self.shop = shop
        self.needs = needs

    def counts(self, spans: Sequence[tuple[datetime, datetime]]) -> list[dict[str, int]]:
        """Count the living rows of each closed stretch of time, by shop; one statement for all of them."""
        sums = ", ".join(
            f'SUM(CASE WHEN "{self.stamp}" >= :s{at} AND "{self.stamp}" < :e{at} THEN 1 ELSE 0 END)'
            for at in range(len(spans))
        )
        values: dict[str, Any] = {}
        for at, (start, end) in enumerate(spans):
            values[f"s{at}"], values[f"e{at}"] = self._bounds(start, end)
        values["start"], values["end"] = self._bounds(spans[0][0], spans[-1][1])
        with self.target.connected() as connection:
            rows = connection.execute(
                sa.text(
                    f'SELECT {self._whose()}, {sums} FROM "{self.header.name}" '
                    f"WHERE {self._living()} GROUP BY 1"
                ),
                values,
            ).fetchall()
        return [{row[0]: int(row[at + 1] or 0) for row in rows} for at in range(len(spans))]

    def keys(self, start: datetime, end: datetime, shops: Iterable[str]) -> dict[str, int]:
        """Return key → version of the living rows of a closed stretch of time."""
        first, last = self._bounds(start, end)
        with self.target.connected() as connection:
            rows = connection.execute(
                sa.text(
                    f'SELECT "{self.header.key}", "{VERSION}" FROM "{self.header.name}" '
                    f"WHERE {self._living()} AND {self._whose()} IN :shops"
                ).bindparams(sa.bindparam("shops", expanding=True)),
                {"start": first, "end": last, "shops": sorted(shops)},
            ).fetchall()
        return {row[0]: int(row[1]) for row in rows}

    def states(self, keys: Iterable[str]) -> dict[str, tuple[int, int, str]]:
        """Return version, rank and content hash of those of some keys that are living rows."""
        found = self._by_key((VERSION, RANK, HASH), keys)
        return {row[0]: (int(row[1]), int(row[2]), str(row[3])) for row in found}

    def stamps(self, keys: Iterable[str], shops: Iterable[str]) -> dict[str, int]:
        """Return the version of those of some keys that are living rows of some shops, dated by the time."""
        wanted = set(shops)
        columns = (VERSION, self.shop) if self.shop else (VERSION,)
        rows = self._by_key(columns, keys, self._counting())
        return {row[0]: int(row[1]) for row in rows if not self.shop or row[2] in wanted}

    def owners(self, keys: Iterable[str]) -> dict[str, str]:
        """Return whose those of some keys are that are living rows, as `counts` names them: key → shop."""
        columns = (self.shop,) if self.shop else ()
        return {row[0]: row[1] if self.shop else "" for row in self._by_key(columns, keys)}

    def unlisted(
        self, start: datetime, end: datetime, shops: Iterable[str], columns: Iterable[str]
    ) -> list[str]:
        """Return the keys of living rows of a closed stretch of time that lack one of some columns."""
        first, last = self._bounds(start, end)
        lacking = " OR ".join(f'"{column}" IS NULL' for column in columns)
        with self.target.connected() as connection:
            rows = connection.execute(
                sa.text(
                    f'SELECT "{self.header.key}" FROM "{self.header.name}" '
                    f"WHERE {self._living()} AND {self._whose()} IN :shops AND ({lacking})"
                ).bindparams(sa.bindparam("shops", expanding=True)),
                {"start": first, "end": last, "shops": sorted(shops)},
            ).fetchall()
        return [row[0] for row in rows]

    def _by_key(self, columns: Sequence[str], keys: Iterable[str], also: str = "") -> list[Any]:
        key = self.header.key
        living = f'"{DELETED_AT}" IS NULL{also}'
        with self.target.connected() as connection:
            return rows_by_key(connection, self.header.name, key, (key, *columns), keys, condition=living)

    def set_aside(self, pipeline: str, method: str, shop: str | None) -> list[Aside]:
        """Return a method's records that are in quarantine and did not land since, the latest of each key.

        Args:
            pipeline: its name.
            method: the method.
            shop: the records' field that says whose they are; None where all are of one.
        """
        with self.target.connected() as connection:
            rows = connection.execute(
                sa.text(
                    f'SELECT "record_key", "record" FROM "{QUARANTINE_TABLE}" '
                    'WHERE "pipeline" = :pipeline AND "resolved_at" IS NULL AND "method" = :method '
                    'ORDER BY "last_seen_at"'
                ),
                {"pipeline": pipeline, "method": method},
            ).fetchall()
        found = {}
        for key, text in rows:
            record = json.loads(text)
            found[key] = Aside(key, (to_id(record.get(shop)) or "") if shop else "", record)
        return list(found.values())

    def entomb(self, versions: Mapping[str, int]) -> list[str]:
        """Mark orders, and their lines, that the gateway no longer has; return the keys that were marked.

        An order that somebody has written since its version was looked at stays as it is.
        """
        marked: list[str] = []
        moment = self.target.instant(datetime.fromtimestamp(self.target.now(), tz=timezone.utc))
        with self.target.connected() as connection:
            for key, version in sorted(versions.items()):
                done = connection.execute(
                    sa.text(
                        f'UPDATE "{self.header.name}" SET "{DELETED_AT}" = :now '
                        f'WHERE "{self.header.key}" = :key AND "{VERSION}" = :version '
                        f'AND "{DELETED_AT}" IS NULL'
                    ),
                    {"now": moment, "key": key, "version": version},
                )
                if not done.rowcount:
                    continue
                marked.append(key)
                for child in self.tables[1:]:
                    connection.execute(
                        sa.text(
                            f'UPDATE "{child.name}" SET "{DELETED_AT}" = :now '
                            f'WHERE "{child.parent}" = :key AND "{DELETED_AT}" IS NULL'
                        ),
                        {"now": moment, "key": key},
                    )
        return marked

    def totals(self, start: datetime, end: datetime, shops: Iterable[str]) -> list[Total]:
        """Return orders and amounts by shop and status, of the orders of a closed stretch of time.

        Amounts are those of the lines: the header of a merged order names one part's amount only (measured by
        others). Equal amounts are counted in the database and added here, so that no database rounds them.
        """
        first, last = self._bounds(start, end)
        values = {"start": first, "end": last, "shops": sorted(shops)}
        by_shop: Any = sa.bindparam("shops", expanding=True)
        head, status = self.header, f"COALESCE(t.\"{STATUS}\", '')"
        orders: dict[tuple[str, str], int] = {}
        sums: dict[tuple[str, str], list[Decimal]] = {}
        with self.target.connected() as connection:
            for shop, state, count in connection.execute(
                sa.text(
                    f'SELECT t."{self.shop}", {status}, COUNT(*) FROM "{head.name}" t '
                    f'WHERE {self._living("t.")} AND t."{self.shop}" IN :shops '
                    f'GROUP BY t."{self.shop}", {status}'
                ).bindparams(by_shop),
                values,
            ):
                orders[shop, state] = int(count)
            for child in self.tables[1:]:
                amounts = ", ".join(f'l."{name}"' for name in AMOUNTS)
                for shop, state, *found, count in connection.execute(
                    sa.text(
                        f'SELECT t."{self.shop}", {status}, {amounts}, COUNT(*) FROM "{head.name}" t '
                        f'JOIN "{child.name}" l ON l."{child.parent}" = t."{head.key}" '
                        f'WHERE {self._living("t.")} AND t."{self.shop}" IN :shops '
                        f'AND l."{DELETED_AT}" IS NULL GROUP BY t."{self.shop}", {status}, {amounts}'
                    ).bindparams(by_shop),
                    values,
                ):
                    held = sums.setdefault((shop, state), [Decimal(0)] * len(AMOUNTS))
                    for at, amount in enumerate(found):
                        held[at] += Decimal(str(amount or 0)) * int(count)
        zero = [Decimal(0)] * len(AMOUNTS)
        return [
            Total(shop, state, count, *sums.get((shop, state), zero))
            for (shop, state), count in sorted(orders.items())
        ]

    def write_report(
        self,
        pipeline: str,
        day: str,
        *,
        shops: Sequence[str],
        found: Mapping[str, Any],
        totals: Iterable[Total],
        run_id: str,
    ) -> None:
        """Replace what an earlier reconcile wrote about a day of some shops, in whatever groups they were.

        Args:
            pipeline: its name.
            day: `yyyy-mm-dd` in GMT+8.
            shops: the group of shops.
            found: the columns of `kuaimai_reconcile` that this night found out.
            totals: by shop and status.
            run_id: the run.
        """
        now = self.target.instant(datetime.fromtimestamp(self.target.now(), tz=timezone.utc))
        told = {"pipeline": pipeline, "day": day, "reconciled_at": now}
        group = json.dumps(sorted(shops))
        with self.target.connected() as connection:
            row = {
                **told,
                **found,
                "shops": group,
                "run_id": run_id,
                "reconcile_id": _id(pipeline, day, group),
            }
            for old, of in connection.execute(
                sa.text(
                    f'SELECT "reconcile_id", "shops" FROM "{RECONCILE_TABLE}" '
                    'WHERE "pipeline" = :pipeline AND "day" = :day'
                ),
                {"pipeline": pipeline, "day": day},
            ).fetchall():
                if not set(shops).isdisjoint(json.loads(of)):
                    connection.execute(
                        sa.text(f'DELETE FROM "{RECONCILE_TABLE}" WHERE "reconcile_id" = :reconcile_id'),
                        {"reconcile_id": old},
                    )
            connection.execute(sa.text(_insert(RECONCILE_TABLE, RECONCILE_COLUMNS)), row)
            connection.execute(
                sa.text(
                    f'DELETE FROM "{TOTAL_TABLE}" '
                    'WHERE "pipeline" = :pipeline AND "day" = :day AND "shop" IN :shops'
                ).bindparams(sa.bindparam("shops", expanding=True)),
                {"pipeline": pipeline, "day": day, "shops": sorted(shops)},
            )
            for one in totals:
                connection.execute(
                    sa.text(_insert(TOTAL_TABLE, TOTAL_COLUMNS)),
                    {
                        **told,
                        **msgspec.structs.asdict(one),
                        "payment": f"{one.payment:f}",
                        "pay_amount": f"{one.pay_amount:f}",
                        "total_id": _id(pipeline, day, one.shop, one.status),
                    },
                )

    def _whose(self) -> str:
        return f'"{self.shop}"' if self.shop else "''"

    def _living(self, prefix: str = "") -> str:
        return (
            f'{prefix}"{self.stamp}" >= :start AND {prefix}"{self.stamp}" < :end '
            f'AND {prefix}"{DELETED_AT}" IS NULL{self._counting(prefix)}'
        )

    def _counting(self, prefix: str = "") -> str:
        return f' AND {prefix}"{self.needs}" IS NOT NULL' if self.needs else ""

    def _bounds(self, start: datetime, end: datetime) -> tuple[Any, Any]:
        return self.target.instant(start), self.target.instant(end + _SECOND)


def _insert(name: str, columns: Sequence[Column]) -> str:
    return merge.insert(name, [column.name for column in columns])


def _id(*parts: str) -> str:
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:24]
