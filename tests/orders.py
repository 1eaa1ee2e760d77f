"""Orders written out by hand, for tests that look at one rule; everything wider uses the sandbox."""

from __future__ import annotations

from typing import Any

T0 = 1_772_326_800_000  # 2026-03-01 09:00:00 +08:00, epoch ms


def line(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": number, "num": 1, "price": "29.90", "oid": 6900000000000000017, **fields}


def order(
    sid: int, at: int = T0, *, lines: list[dict[str, Any]] | None = None, **fields: Any
) -> dict[str, Any]:
    return {
        "sid": sid,
        "userId": 900001,
        "source": "fxg",
        "updTime": at,
        "payment": "59.80",
        "consignTime": 946656000000,
        "orders": [line(sid * 10)] if lines is None else lines,
        **fields,
    }
