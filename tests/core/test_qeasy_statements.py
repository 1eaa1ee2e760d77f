"""What a statement of the user's own does when it is executed once more."""

from __future__ import annotations

import pytest

from kuaimai.pipeline.qeasy.compiled import Statement

INSERT = "INSERT INTO stock (sku, qty) VALUES (:sku, :qty)"


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("REPLACE INTO stock (sku, qty) VALUES (:sku, :qty)", True),
        ("UPDATE stock SET qty = :qty, price = cost * 2 WHERE qty < :qty", True),
        (f"{INSERT} ON DUPLICATE KEY UPDATE qty = VALUES(qty)", True),
        (f"{INSERT} AS new ON DUPLICATE KEY UPDATE qty = new.qty", True),
        (f"{INSERT} ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id), qty = :qty", True),
        ("INSERT IGNORE INTO stock (sku, qty) VALUES (:sku, :qty)", True),
        (f"{INSERT} ON CONFLICT DO NOTHING", True),
        (f"{INSERT} ON CONFLICT (sku) DO UPDATE SET qty = excluded.qty", True),
        (INSERT, False),
        ("UPDATE stock SET qty = qty + :qty WHERE sku = :sku", False),
        ("UPDATE stock AS s SET s.qty = S.QTY + :qty WHERE sku = :sku", False),
        ("UPDATE stock SET before_qty = qty, qty = :qty WHERE sku = :sku", False),
        (f"{INSERT} ON DUPLICATE KEY UPDATE qty = qty + VALUES(qty)", False),
        (f"{INSERT} ON CONFLICT (sku) DO UPDATE SET qty = stock.qty + excluded.qty", False),
        ("REPLACE INTO stock (sku, qty) SELECT sku, qty + :qty FROM stock WHERE sku = :sku", False),
    ],
)
def test_only_a_statement_that_changes_nothing_more_is_executed_again(text, again):
    assert Statement(text, ("sku", "qty"), 1).again is again
