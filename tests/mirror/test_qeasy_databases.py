"""Expressions mean what a real server says they do; lookups find what has landed, in every database."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
import sqlalchemy as sa
import strategy_cases as cases
from mariadb_server import admin

from kuaimai.errors import ConfigError, DataError
from kuaimai.pipeline.qeasy.compiling import load_strategy
from kuaimai.pipeline.qeasy.formats import as_text
from kuaimai.pipeline.qeasy.lookups import SqlLookups
from kuaimai.pipeline.qeasy.rendering import render_requests

# Texts in quotes, because a quoted placeholder is text here as there.
EXPRESSIONS = """
1 + 2 * 3 - 4 / 8
1/3
10/4
5.0/2
0.001/3
-7 % 3
7 DIV 2
-5 DIV 2
MOD(7.5, 2)
1.0 * 2.50
1.10 - 0.1
1 DIV 2 * 2 + 7 % 4
ROUND(1.5, 4)
ROUND(-2.5)
ROUND(2.345, 2)
ROUND(1250, -2)
TRUNCATE(1.999, 1)
TRUNCATE(-1.999, 0)
FLOOR(-1.5)
CEIL(1.2)
ABS(-0.50)
SIGN(-3)
CAST(1.55 AS DECIMAL(10,1))
CAST(-1.5 AS SIGNED)
CAST(12345.678 AS CHAR)
CONCAT(1.50, 'x', NULL)
CONCAT(1.50, 'x', 3)
CONCAT_WS(',', NULL, 'a', '', 'b')
LEFT('abc', -1)
LEFT('甲乙丙', 2)
RIGHT('abc', 2)
SUBSTRING('abcdef', -2)
SUBSTRING('abcdef', 0)
SUBSTRING('abcdef', 2, 3)
SUBSTRING_INDEX('a.b.c', '.', 2)
SUBSTRING_INDEX('a.b.c', '.', -2)
LPAD('a', 3, 'xy')
RPAD('abc', 2, 'x')
TRIM('  a ')
UPPER('aé')
REVERSE('ab')
REPLACE('aAa', 'A', 'x')
LENGTH('é甲')
CHAR_LENGTH('é甲')
LOCATE('B', 'abc')
LOCATE('', 'abc')
LOCATE('a', 'banana', 3)
INSTR('abc', 'c')
'a' = 'A'
'10' > '9'
10 > '9'
'abc' LIKE '%B_'
'a%c' LIKE 'a\\\\%c'
'abc' LIKE 'a%c%'
1.5 = 1.50
2 IN (1, NULL)
2 IN (1, 2)
2 BETWEEN 1 AND 3
NULL AND 0
NULL OR 1
NOT NULL
NULL <=> NULL
1 IS NULL
IFNULL(NULL, 2)
NULLIF(1, 1)
COALESCE(NULL, NULL, 3)
IF(1 > 2, 'y', 'n')
CASE 'b' WHEN 'a' THEN 1 WHEN 'B' THEN 2 END
CASE WHEN NULL THEN 1 ELSE 2 END
GREATEST(1, 3, 2)
LEAST('b', 'a')
DATE_ADD('2026-01-31', INTERVAL 1 MONTH)
DATE_SUB('2026-03-01 00:00:00', INTERVAL 1 SECOND)
DATE('2026-01-02 03:04:05')
DATEDIFF('2026-03-01', '2026-02-27 23:59:59')
DATE_FORMAT('2026-01-02 03:04:05', '%Y/%c/%e %k:%i:%s %H %y')
DATE_FORMAT(STR_TO_DATE('02.01.2026', '%d.%m.%Y'), '%Y-%m-%d')
FROM_UNIXTIME(1772330400, '%Y-%m-%d %H:%i:%s')
UNIX_TIMESTAMP('2026-03-01 10:00:00')
YEAR('2026-03-01')
MINUTE('2026-03-01 10:59:00')
""".strip().splitlines()


def told(value) -> str | None:
    """Return a value as a client shows it; a date column's time is left out where it is midnight."""
    if value is None:
        return None
    text = as_text(value) if isinstance(value, int | Decimal | str) else str(value)
    return re.sub(r" 00:00:00$", "", text)


def test_expressions_mean_what_a_real_server_says(mariadb):
    with admin(mariadb) as cursor:
        cursor.execute("SET time_zone = '+08:00', NAMES utf8mb4")
        for expression in EXPRESSIONS:
            cursor.execute(f"SELECT {expression}")
            ((theirs,),) = cursor.fetchall()
            ours = cases.value(f"_function {expression}")
            assert told(ours) == told(theirs), expression


@pytest.fixture(params=["postgresql", "sqlite", "mariadb"])
def engine(request, tmp_path):
    urls = {"postgresql": "pg_url", "mariadb": "maria_url"}
    url = (
        f"sqlite:///{tmp_path / 'landed.db'}"
        if request.param == "sqlite"
        else request.getfixturevalue(urls[request.param])
    )
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "CREATE TABLE kuaimai_sku (sys_sku_id VARCHAR(40) PRIMARY KEY, sku_outer_id VARCHAR(80), "
                "price NUMERIC(20, 4), stock BIGINT, _deleted_at TIMESTAMP NULL)"
            )
        )
        for row in [
            ("6900000000000000017", "DEMO-A", "29.9000", 5, None),
            ("2", 'it\'s \\ %_ "x" ;--', "1.0000", 6, None),
            ("3", "GONE", "1.0000", 7, "2026-03-01 00:00:00"),
            ("4", "TWICE", "1.0000", 8, None),
            ("5", "TWICE", "1.0000", 8, None),
            ("6", "WEIGHT", "0.1250", 9, None),
        ]:
            connection.execute(
                sa.text("INSERT INTO kuaimai_sku VALUES (:a, :b, :c, :d, :e)"),
                dict(zip("abcde", row, strict=True)),
            )
    yield engine
    engine.dispose()


def find(engine, field, **where):
    return SqlLookups(engine).find("kuaimai_sku", where, field)


def test_lookups_are_bound_and_typed_by_their_columns(engine):
    assert find(engine, "sysSkuId", skuOuterId="DEMO-A") == "6900000000000000017"
    assert find(engine, "sku_outer_id", sysSkuId=6900000000000000017) == "DEMO-A"
    assert Decimal(str(find(engine, "price", stock="5"))) == Decimal("29.9")
    assert find(engine, "sysSkuId", skuOuterId='it\'s \\ %_ "x" ;--') == "2"
    assert find(engine, "sysSkuId", skuOuterId="' OR 1=1 --") is None
    assert find(engine, "sysSkuId", skuOuterId="DEMO-A", stock=6) is None
    assert find(engine, "sysSkuId", skuOuterId="GONE") is None  # vanished at the source
    assert find(engine, "sysSkuId", skuOuterId=None) is None


def test_amounts_that_are_looked_up_have_no_zeros_of_their_column(engine):
    assert as_text(find(engine, "price", stock=5)) == "29.90"
    assert as_text(find(engine, "price", stock=6)) == "1.00"
    assert as_text(find(engine, "price", stock=9)) == "0.125"
    assert as_text(find(engine, "stock", sysSkuId="2")) == "6"


def test_lookups_never_guess(engine):
    assert find(engine, "stock", skuOuterId="TWICE") == 8  # they agree
    with pytest.raises(DataError, match="several rows with this skuOuterId"):
        find(engine, "sysSkuId", skuOuterId="TWICE")
    with pytest.raises(DataError, match="stock cannot be compared"):
        find(engine, "sysSkuId", stock="many")
    with pytest.raises(ConfigError, match=r"no column for 'skuOuterIds' → did you mean 'sku_outer_id'"):
        find(engine, "sysSkuId", skuOuterIds=1)
    with pytest.raises(ConfigError, match="there is no table 'kuaimai_skus'"):
        SqlLookups(engine).find("kuaimai_skus", {"a": 1}, "b")


def test_a_strategy_looks_up_what_another_has_landed(engine):
    compiled = load_strategy(cases.OURS / "lines_to_sql.json")
    rows = [{"sid": 1, "orders": [{"sysOuterId": code, "num": 1} for code in ("DEMO-A", "none", "TWICE")]}]
    made = render_requests(compiled, cases.WINDOW, 1, rows, SqlLookups(engine))
    assert [row["sku_id"] for row in made.writes[0].params] == ["6900000000000000017", None]
    assert [bad.key for bad in made.shaped.bad] == ["1-3"]
