"""A column at a time: from JSON texts as the gateway sent them to Arrow columns, exact or flagged.

Arrow converts the plain forms (whole numbers, amounts, epoch ms, quoted text). Any other text, and whatever
Arrow is more generous about than `kuaimai.transform.fields`, goes through the converters there: once per
different text, because odd values repeat.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from kuaimai.extract.skim import LONGEST_KEY
from kuaimai.gateway.answers import decode_json
from kuaimai.gateway.catalog import FieldType
from kuaimai.transform.batches import ARROW_TYPES, DECIMAL
from kuaimai.transform.fields import CONVERTERS, MOMENTS, NO_TIME_MS

# Neither can be in JSON: control characters are escaped there.
_BETWEEN_VALUES = b"\x1f"
_BETWEEN_ROWS = b"\n"
# Neither can be in UTF-8.
_BETWEEN_HASHED = b"\xff"

# A number of so many digits, and 18 places behind them, fits into 128 bits.
_WHOLE_DIGITS = 20
# Fen are read with two places less than yuan have: the same 128 bits, read as yuan, are a hundredth.
_FEN = pa.decimal128(38, DECIMAL.scale - 2)


def join_rows(rows: Sequence[Sequence[Any]]) -> bytes:
    """Put rows of JSON texts (buffers) into one text, for `split_rows`.

    Raises:
        pa.ArrowInvalid: a nested value was sent with line breaks in it.
    """
    text = _BETWEEN_ROWS.join(map(_BETWEEN_VALUES.join, rows))
    if text.count(_BETWEEN_ROWS) != len(rows) - 1:
        raise pa.ArrowInvalid("a value has line breaks in it")
    return text


def widened(text: bytes, more: int) -> bytes:
    """Add so many nulls to each joined row."""
    nulls = (_BETWEEN_VALUES + b"null") * more
    return text.replace(_BETWEEN_ROWS, nulls + _BETWEEN_ROWS) + nulls if more else text


def split_rows(texts: Sequence[bytes], width: int) -> list[pa.Array]:
    """Turn joined rows into columns of JSON texts; `null` becomes null.

    Raises:
        pa.ArrowInvalid: a text is not UTF-8.
    """
    if not texts:
        return [pa.array([], pa.string())] * width
    text = _BETWEEN_ROWS.join(texts)
    names = [str(number) for number in range(width)]
    table = csv.read_csv(
        pa.BufferReader(text),
        read_options=csv.ReadOptions(use_threads=False, column_names=names, block_size=len(text) + 1),
        parse_options=csv.ParseOptions(
            delimiter=_BETWEEN_VALUES.decode(),
            quote_char=False,
            double_quote=False,
            escape_char=False,
            newlines_in_values=False,
            ignore_empty_lines=False,
        ),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=["null"],
            strings_can_be_null=True,
        ),
    )
    return [one.combine_chunks() for one in table.columns]


def convert(kind: FieldType, texts: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """Return the values of a column of JSON texts, and a mask of those that do not fit (None: all do)."""
    if texts.null_count == len(texts):
        return pa.nulls(len(texts), ARROW_TYPES[kind]), None
    return _BY_TYPE[kind](kind, texts)


def _text(kind: FieldType, texts: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    quoted = pc.starts_with(texts, '"')
    plain = pc.and_not(quoted, pc.match_substring(texts, "\\"))
    values = pc.ascii_trim(texts, '"')
    if kind == "id":
        if not _any(quoted):
            try:
                return pc.cast(pc.cast(texts, pa.int64()), pa.string()), None
            except pa.ArrowInvalid:
                pass
        values = _empty_is_null(values)
        long = pc.fill_null(pc.greater(pc.utf8_length(values), LONGEST_KEY), False)  # noqa: FBT003 - Arrow's signature
        plain = pc.and_not(plain, long)
    return _with_exact(kind, texts, values, pc.invert(plain))


def _integer(kind: FieldType, texts: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    whole, odd = _whole(texts)
    return (whole, None) if odd is None else _with_exact(kind, texts, whole, odd)


def _time(kind: FieldType, texts: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    stamps, odd = _whole(texts)
    none = pc.or_(pc.less_equal(stamps, 0), pc.is_in(stamps, value_set=_no_time()))
    stamps = pc.if_else(none, None, stamps)
    strange = pc.or_(pc.less(stamps, MOMENTS.start), pc.greater_equal(stamps, MOMENTS.stop))
    strange = pc.fill_null(strange, False)  # noqa: FBT003 - Arrow's signature
    moments, bad = _with_exact(kind, texts, stamps, strange if odd is None else pc.or_(strange, odd))
    return moments.cast(ARROW_TYPES[kind]), bad


def _decimal(kind: FieldType, texts: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    sent = _FEN if kind == "fen" else DECIMAL
    values = _unquoted(texts)
    # Arrow does not notice when a number grows out of 128 bits.
    if not (_any(pc.greater(pc.binary_length(values), _WHOLE_DIGITS)) or _holds(values, "eE")):
        try:
            return _in_yuan(pc.cast(values, sent)), None
        except pa.ArrowInvalid:
            pass
    plain = pc.match_substring_regex(values, rf"^-?[0-9]{{1,20}}(\.[0-9]{{1,{sent.scale}}})?$")
    amounts = _in_yuan(pc.cast(pc.if_else(plain, values, None), sent))
    return _with_exact(kind, texts, amounts, pc.invert(plain))


def _in_yuan(amounts: pa.Array) -> pa.Array:
    """Read the bits of fen as yuan; leave yuan as they are."""
    if amounts.type == DECIMAL:
        return amounts
    return pa.Array.from_buffers(DECIMAL, len(amounts), amounts.buffers(), offset=amounts.offset)


@cache
def _no_time() -> pa.Array:
    """The instants that mean none. Made when needed: Arrow imports pandas for the first value it is given."""
    return pa.array(sorted(NO_TIME_MS), pa.int64())


def _whole(texts: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """Return the whole numbers in a column, and a mask of what is something else (None: nothing is)."""
    values = _unquoted(texts)
    # Arrow takes "0x1F" for a number.
    if values is texts or not _holds(values, "xX"):
        try:
            return pc.cast(values, pa.int64()), None
        except pa.ArrowInvalid:
            pass
    plain = pc.match_substring_regex(values, r"^-?[0-9]{1,18}$")
    return pc.cast(pc.if_else(plain, values, None), pa.int64()), pc.fill_null(pc.invert(plain), False)  # noqa: FBT003


def _json(kind: FieldType, texts: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    return _with_exact(kind, texts, pa.nulls(len(texts), pa.string()), pc.is_valid(texts))


_BY_TYPE: dict[FieldType, Callable[[FieldType, pa.Array], tuple[pa.Array, pa.Array | None]]] = {
    "id": _text,
    "text": _text,
    "integer": _integer,
    "number": _decimal,
    "yuan": _decimal,
    "fen": _decimal,
    "time": _time,
    "json": _json,
}


def _any(mask: pa.Array) -> bool:
    return bool(pc.any(mask).as_py())


def _holds(texts: pa.Array, letters: str) -> bool:
    return any(_any(pc.match_substring(texts, letter)) for letter in letters)


def _unquoted(texts: pa.Array) -> pa.Array:
    """Take the quotes off; empty texts are null. Escapes stay, and no number has any."""
    if not _any(pc.starts_with(texts, '"')):
        return texts
    return _empty_is_null(pc.ascii_trim(texts, '"'))


def _empty_is_null(texts: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(texts, ""), None, texts)


def _with_exact(
    kind: FieldType, texts: pa.Array, values: pa.Array, odd: pa.Array
) -> tuple[pa.Array, pa.Array | None]:
    """Replace the values at `odd` by what the exact converter makes of their texts."""
    odd = pc.fill_null(odd, False)  # noqa: FBT003 - Arrow's signature
    if not _any(odd):
        return values, None
    distinct = pc.dictionary_encode(pc.filter(texts, odd))
    exact, wrong = [], []
    for text in distinct.dictionary.to_pylist():
        try:
            exact.append(CONVERTERS[kind](decode_json(text.encode())))
            wrong.append(False)
        except ValueError:
            exact.append(None)
            wrong.append(True)
    at = distinct.indices
    values = pc.replace_with_mask(values, odd, pa.array(exact, values.type).take(at))
    if not any(wrong):
        return values, None
    nowhere = pa.array([False]).take(pa.array([0] * len(texts), pa.int32()))
    return values, pc.replace_with_mask(nowhere, odd, pa.array(wrong).take(at))


def fingerprints(columns: Sequence[pa.Array]) -> pa.Array:
    """Return one text per row that is the same for the same content: 24 hexadecimal digits.

    What is hashed of a row can mean nothing else: which columns are null, then the bits of those of fixed
    width, then the texts, each with what no UTF-8 holds behind it.
    """
    if not len(columns[0]):
        return pa.array([], pa.string())
    bits = [np.packbits([column.is_valid().to_numpy(zero_copy_only=False) for column in columns], axis=0).T]
    bits += [_bits(column) for column in columns if not pa.types.is_string(column.type)]
    fixed = np.concatenate(bits, axis=1)
    count, width = fixed.shape
    rows = pa.Array.from_buffers(pa.binary(width), count, [None, pa.py_buffer(np.ascontiguousarray(fixed))])
    # A column without any text says nothing that the first bits do not.
    texts = [column for column in columns if pa.types.is_string(column.type) and column.null_count < count]
    hashed = pc.binary_join_element_wise(
        rows.cast(pa.binary()),
        *(column.cast(pa.binary()) for column in texts),
        _BETWEEN_HASHED,
        null_handling="skip",
    )
    return pa.array(
        [hashlib.blake2b(row, digest_size=12).hexdigest() for row in hashed.to_pylist()], pa.string()
    )


def _bits(column: pa.Array) -> npt.NDArray[np.uint8]:
    """Return the values of fixed width as bytes, a row each; nulls are zeros."""
    if column.null_count:
        column = pc.fill_null(column, pa.scalar(0, pa.int64()).cast(column.type))
    width = column.type.bit_width // 8
    start = column.offset * width
    whole = np.frombuffer(column.buffers()[1], np.uint8)
    return whole[start : start + len(column) * width].reshape(len(column), width)
