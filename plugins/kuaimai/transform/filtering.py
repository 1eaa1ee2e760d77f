"""Which filter a record meets: for a batch of columns, and for one record alone, with the same answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kuaimai.transform.rules import Condition, Filter

_COMPARE: dict[str, tuple[Callable[[pa.Array, pa.Scalar], pa.Array], Callable[[Any, Any], bool]]] = {
    "below": (pc.less, lambda value, bound: value < bound),
    "at_most": (pc.less_equal, lambda value, bound: value <= bound),
    "above": (pc.greater, lambda value, bound: value > bound),
    "at_least": (pc.greater_equal, lambda value, bound: value >= bound),
}


def met(filters: Sequence[Filter], columns: Mapping[str, pa.Array], count: int) -> pa.Array:
    """Return the number of the first filter that each of `count` records meets, null where it meets none.

    Args:
        filters: in their order.
        columns: API field → the values of all records, of the field's type.
        count: how many records there are.
    """
    found = pa.nulls(count, pa.int8())
    for number, one in reversed(list(enumerate(filters))):
        holds = pa.repeat(pa.scalar(True), count)  # noqa: FBT003 - Arrow's signature
        for condition in one.conditions:
            holds = pc.and_(holds, _holds_for(condition, columns[condition.field]))
        found = pc.if_else(holds, pa.scalar(number, pa.int8()), found)
    return found


def _holds_for(condition: Condition, values: pa.Array) -> pa.Array:
    if condition.test == "empty":
        return _empty(values)
    if condition.test == "filled":
        return pc.invert(_empty(values))
    if condition.test in ("one_of", "none_of"):
        found = pc.is_in(values, value_set=pa.array(condition.values, values.type))
        return found if condition.test == "one_of" else pc.invert(found)
    compare, _ = _COMPARE[condition.test]
    return pc.fill_null(compare(values, pa.scalar(condition.values[0], values.type)), False)  # noqa: FBT003


def _empty(values: pa.Array) -> pa.Array:
    none = pc.is_null(values)
    return pc.or_kleene(none, pc.equal(values, "")) if pa.types.is_string(values.type) else none


def first_met(filters: Sequence[Filter], values: Mapping[str, Any]) -> Filter | None:
    """Return the first filter that one record meets; `values` as `kuaimai.transform.fields` gives them."""
    for one in filters:
        if all(_holds(condition, values[condition.field]) for condition in one.conditions):
            return one
    return None


def _holds(condition: Condition, value: Any) -> bool:
    if condition.test in ("empty", "filled"):
        return (value in (None, "")) == (condition.test == "empty")
    if condition.test in ("one_of", "none_of"):
        return (value is not None and value in condition.values) == (condition.test == "one_of")
    _, compare = _COMPARE[condition.test]
    return value is not None and compare(value, condition.values[0])
