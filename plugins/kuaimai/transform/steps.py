"""The user's own function over the rows of one table: a pandas DataFrame in, a DataFrame out.

Columns are backed by Arrow in both directions, so that no id and no amount passes through a float: text is
`string`, amounts are exact decimals, instants have a zone.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from kuaimai.errors import ConfigError
from kuaimai.gateway.catalog import FieldType
from kuaimai.transform.batches import ARROW_TYPES
from kuaimai.transform.rules import Step
from kuaimai.transform.tables import Table

if TYPE_CHECKING:  # half of what a task would import, and most tasks have no use for it
    import pandas as pd

Function: TypeAlias = "Callable[[pd.DataFrame], Any]"


def find(step: Step) -> Function:
    """Return a step's function.

    Raises:
        ConfigError: its module cannot be imported, or has no such function.
    """
    module, _, name = step.run.partition(":")
    with _looked_up_in(step.folder):
        try:
            there = importlib.import_module(module)
        except (Exception, SystemExit) as err:  # the module is the user's: anything may happen in it
            file = module.partition(".")[0]
            absent = isinstance(err, ModuleNotFoundError) and err.name in (file, module)
            raise ConfigError(
                f"{step.told}: its module cannot be imported: {_said(err)}",
                hint=f"put {file}.py beside the pipeline's file, or on PYTHONPATH" if absent else None,
            ) from err
    found = getattr(there, name, None)
    if found is None:
        known = [one for one, value in vars(there).items() if inspect.isfunction(value)]
        near = get_close_matches(name, known, n=1)
        raise ConfigError(
            f"{step.told}: the module has no function {name!r}",
            hint=f"did you mean {near[0]!r}?" if near else None,
        )
    if not callable(found):
        raise ConfigError(f"{step.told}: {name!r} is no function, but a {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def _said(err: BaseException, file: str = "") -> str:
    """Return an error of the user's code in one line, with the last line of a file that led to it."""
    lines = [at.lineno for at in extract_tb(err.__traceback__) if at.filename == file]
    where = f" ({Path(file).name}, line {lines[-1]})" if lines else ""
    return " ".join(f"{type(err).__name__}: {err}".split()) + where


@contextmanager
def _looked_up_in(folder: str) -> Iterator[None]:
    if not folder:
        yield
        return
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)


def run(step: Step, function: Function, table: Table, rows: pa.Table) -> pa.Table:
    """Return a table's rows after its step: fewer or the same keys, its columns, in its order and types.

    Args:
        step: the step.
        function: its function.
        table: the table, with the columns that the step adds.
        rows: one row per key: the table's own columns, without those.

    Raises:
        ConfigError: the function failed, or returned something that cannot be stored. The message says which
            column, and what to do.
    """
    import pandas as pd  # noqa: PLC0415 - see above

    given = [column.name for column in table.columns if column.name not in step.columns]
    frame = pa.table({name: _to_compute_with(rows.column(name)) for name in given}).to_pandas(
        types_mapper=pd.ArrowDtype
    )
    try:
        answer = function(frame)
    except Exception as err:
        file = getattr(getattr(function, "__code__", None), "co_filename", "")
        raise ConfigError(f"{step.told} failed on {table.name}: {_said(err, file)}") from err
    if not isinstance(answer, pd.DataFrame):
        raise ConfigError(
            f"{step.told} returned a {type(answer).__name__}", hint="let it return the DataFrame"
        )
    names = [str(name) for name in answer.columns]
    _expect_columns(step, table, names, answer)
    arrays = [_typed(step, column.name, column.type, answer[column.name]) for column in table.columns]
    result = pa.Table.from_arrays(arrays, names=[column.name for column in table.columns])
    _expect_keys(step, table, rows, result)
    return result


def _to_compute_with(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return amounts with room for arithmetic: Arrow makes a product as wide as both factors together."""
    if not pa.types.is_decimal(column.type):
        return column
    for digits, places in ((24, 6), (37, 18)):
        with suppress(pa.ArrowInvalid):
            return column.cast(pa.decimal256(digits, places))
    return column


def _expect_columns(step: Step, table: Table, names: list[str], answer: pd.DataFrame) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{step.told} returned the column {name!r} twice")
    known = {column.name for column in table.columns}
    for name in names:
        if name not in known:
            kind = _guess(answer[name])
            raise ConfigError(
                f"{step.told} added the column {name!r}, which no table has",
                hint=f"declare it in the pipeline's file: columns: {{{name}: {kind}}}",
            )
    for column in table.columns:
        if column.name not in names:
            what = "the key " if column.name == table.key else ""
            what = "the column of the parent's key " if column.name == table.parent else what
            raise ConfigError(
                f"{step.told} lost {what or 'the column '}{column.name!r}",
                hint="keep it; to have no column of a field, write `drop` under fields",
            )


def _guess(series: pd.Series[Any]) -> FieldType:
    """Return the catalogue's word for what a new column holds."""
    try:
        kind = pa.Array.from_pandas(series).type
    except pa.ArrowException:
        return "text"
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "integer"
    if pa.types.is_decimal(kind) or pa.types.is_floating(kind):
        return "yuan"
    return "time" if pa.types.is_timestamp(kind) else "text"


def _typed(step: Step, name: str, kind: FieldType, series: pd.Series[Any]) -> pa.Array:
    wanted = ARROW_TYPES[kind]
    where = f"{step.told} returned the column {name!r}"
    try:
        found = pa.Array.from_pandas(series)
    except pa.ArrowException as err:
        raise ConfigError(f"{where} with values of several kinds: {err}") from err
    found = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    if found.type == wanted:
        return found
    if pa.types.is_floating(found.type) and found.null_count < len(found):
        raise ConfigError(
            f"{where} as floating-point numbers, which cannot hold an amount exactly",
            hint="compute with decimal.Decimal, or with the columns as they are given",
        )
    if pa.types.is_timestamp(found.type) and found.type.tz is None:
        raise ConfigError(f"{where} as times without a zone", hint="use tz_localize('Asia/Shanghai')")
    if pa.types.is_boolean(found.type) and kind == "integer":
        return found.cast(pa.int64())
    try:
        return found.cast(wanted)
    except pa.ArrowException as err:
        raise ConfigError(f"{where} as {found.type}, which is no {kind}: {err}") from err


def _expect_keys(step: Step, table: Table, before: pa.Table, after: pa.Table) -> None:
    keys = after.column(table.key)
    if keys.null_count or pc.count_distinct(keys).as_py() < after.num_rows:
        raise ConfigError(f"{step.told} returned a key of {table.name} twice, or a row without one")
    if not pc.all(pc.is_in(keys, value_set=before.column(table.key).combine_chunks())).as_py() and len(keys):
        raise ConfigError(
            f"{step.told} returned keys that {table.name} did not have",
            hint="a step may change and leave out rows, not add them",
        )
