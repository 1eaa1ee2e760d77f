"""Which pipelines the night can compare with the gateway, and by what.

Records are compared by a time of theirs that never changes: each stays in its slot for life, so one that is
missing there is missing, and one too many is gone. What is read as a whole is left out: its scans see more.
"""

from __future__ import annotations

from datetime import timedelta

import msgspec

from kuaimai.extract.windows import SCAN
from kuaimai.gateway import catalog
from kuaimai.load.proof import AMOUNTS, STATUS
from kuaimai.pipeline.spec import Pipeline

# Times that never change once a record is there, by the catalogue's names.
BIRTHS = ("created", "applied")
DAYS = 8
"""Yesterday and the seven days before it."""
# Orders are many: slots of two hours. Of other records a page holds a day.
_ORDERS_SLOT = timedelta(hours=2)
_SLOT = timedelta(days=1)


class Comparison(msgspec.Struct, frozen=True):
    """What a pipeline's records are compared by.

    Attributes:
        dimension: the gateway's name of the time that never changes.
        field: the record's field with that time.
        shop: the field that says whose a record is; None where all are asked for at once.
        by_id: whether the gateway can be asked for single records.
        totals: whether they have amounts by status that are added up.
        slot: the length of what is counted at once, a part of a day.
    """

    dimension: str
    field: str
    shop: str | None
    by_id: bool
    totals: bool
    slot: timedelta


def comparison(pipeline: Pipeline) -> Comparison | None:
    """Return what a pipeline's records are compared by; None where that is not possible."""
    method, record = catalog.method(pipeline.source.method), pipeline.record
    dimensions = method.times.dimensions if method.times else {}
    dimension = next((name for name in BIRTHS if name in dimensions), None)
    if dimension is None or SCAN in pipeline.time.dimensions:
        return None
    if any(catalog.method(name).history == method.name for name in catalog.method_names()):
        return None  # it holds nothing of the days that are compared
    field = dimensions[dimension].stamp
    shop = method.scope.field if method.scope else None
    if field is None or column_of(pipeline, field) is None:
        return None
    if method.scope and (shop is None or column_of(pipeline, shop) is None):
        return None  # whose a stored record is cannot be told
    columns = {one.column for one in record.fields.values()}
    totals = shop is not None and columns.issuperset({STATUS, *AMOUNTS})
    return Comparison(
        dimension=dimension,
        field=field,
        shop=shop,
        by_id=method.ids is not None,
        totals=totals,
        slot=_ORDERS_SLOT if totals else _SLOT,
    )


def column_of(pipeline: Pipeline, field: str) -> str | None:
    """Return the column that holds a field as the gateway sends it; None where none does."""
    known = pipeline.record.fields[field]
    rule = pipeline.rules.of(pipeline.record.name, field)
    if rule.drop or rule.type or rule.keep in ("hash", "mask") or (known.personal and not rule.keep):
        return None
    return rule.column or known.column
