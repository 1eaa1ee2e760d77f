"""`groupCalculate` in a DAG: the flat rows of the records of one load become documents together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from kuaimai.errors import DataError
from kuaimai.gateway.answers import decode_json, encode_json
from kuaimai.gateway.clock import GATEWAY_ZONE
from kuaimai.load.parts import Document
from kuaimai.pipeline.qeasy.compiled import Target
from kuaimai.pipeline.qeasy.lookups import Lookups
from kuaimai.pipeline.qeasy.misfits import Misfit, Origin
from kuaimai.pipeline.qeasy.moments import RunWindow
from kuaimai.pipeline.qeasy.rendering import UNFIT, document_of
from kuaimai.pipeline.qeasy.scope import value_at
from kuaimai.pipeline.qeasy.shaping import Row, joined, parted
from kuaimai.pipeline.qeasy.strategy import Grouping


def columns_of(row: Row, grouping: Grouping) -> Row:
    """Return what grouping uses of a flat row: a change of anything else is no change of a document."""
    return {name: value_at(row, name) for name in grouping.columns}


class Grouped:
    """Makes one document of the rows of several records; see `kuaimai.load.parts.Joins`.

    Args:
        target: the strategy's target.
        grouping: its `groupCalculate`.
        lookups: landed tables, for `_findCollection`.
        origin: where the strategy is written.
        now: clock, epoch seconds.
    """

    def __init__(
        self,
        target: Target,
        grouping: Grouping,
        lookups: Lookups | None = None,
        *,
        origin: Origin | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._target = target
        self._grouping = grouping
        self._lookups = lookups
        self._origin = origin or Origin()
        self._now = now

    def groups(self, parts: Sequence[Document]) -> tuple[list[list[Document]], dict[str, str]]:
        """Return the rows of each document, and by key the reasons of rows that fit into none."""
        made: list[list[Document]] = []
        reasons: dict[str, str] = {}
        for places in parted([_row(one) for one in parts], self._grouping):
            members = [parts[place] for place in places]
            try:
                self.document(members)
            except DataError as err:
                reasons |= dict.fromkeys((one.key for one in members), err.message)
            else:
                made.append(members)
        return made, reasons

    def document(self, parts: Sequence[Document]) -> bytes:
        """Return the document of such a group; for a statement the list of its one row.

        Raises:
            DataError: it cannot be made.
        """
        now = datetime.fromtimestamp(self._now(), GATEWAY_ZONE)
        try:
            row = joined([_row(one) for one in parts], self._grouping)
            made = document_of(self._target, row, RunWindow(now, now, now), self._lookups)
        except UNFIT as err:
            path = err.path if isinstance(err, Misfit) else ""
            raise DataError(self._origin.tell(path, str(err))) from err
        return encode_json([made] if self._target.statement is not None else made)


def _row(part: Document) -> Mapping[str, Any]:
    row: Mapping[str, Any] = decode_json(part.body)
    return row
