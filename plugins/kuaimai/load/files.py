"""Change files, as Parquet or JSON Lines, in a folder or an object store.

```text
<root>/kuaimai_trade/day=2026-03-01/<window>-<batch>.parquet
<root>/kuaimai_trade_line/day=2026-03-01/<window>-<batch>.parquet
```

Files are only ever added. A file holds the records of one window that were made on one day (GMT+8), lines
on the day of their order. Its name is that of its content: the same records read again replace the same file
by itself, other records are another file beside it. So nothing that was written is lost, whatever is read
again, and a load that is repeated adds nothing.

A file appears when it is whole: it is written under a hidden name and renamed, or, in an object store, put as
one object. Lines are there before their order is. What a window's seal counts was read back from the files.

The newest version of a record is the one with the greatest `_version`, `_rank`, `_loaded_at`; the lines that
belong to an order are those of the same `_batch` as its newest version that came with lines (`_children` is
not null). `current` reads it so.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kuaimai.errors import ConfigError, KuaimaiError, Transient
from kuaimai.load.book import ProofBook
from kuaimai.load.booked import BookedLoad, BookedTarget
from kuaimai.load.lateness import Punctuality
from kuaimai.load.plain import plain_rows
from kuaimai.load.windows import Written
from kuaimai.transform.batches import INSTANT, batch_schema
from kuaimai.transform.tables import CHILD_COUNT, HASH, LOADED_AT, RANK, VERSION, WINDOW, Table

BATCH = "_batch"
"""Which rows came together: an order and its lines have the same."""
DAY = "day"
"""Name of the folders; the day of the order's creation in GMT+8."""
NO_DAY = "__HIVE_DEFAULT_PARTITION__"

_CREATED = "created"
_NULL = msgspec.Raw(b"null")
_DAY_MS, _EAST_8_MS = 86_400_000, 28_800_000
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS}
# There an object is visible when it is complete, and a rename would be a copy.
_OBJECT_STORES = {
    "s3",
    "s3a",
    "s3n",
    "gs",
    "gcs",
    "abfs",
    "abfss",
    "az",
    "adl",
    "wasb",
    "wasbs",
    "oss",
    "oci",
}


class FileFormat(ABC):
    """How rows become a file and come back."""

    suffix: str

    @abstractmethod
    def write(self, table: Table, rows: pa.Table, file: IO[bytes]) -> None:
        """Write rows."""

    @abstractmethod
    def read(self, table: Table, file: IO[bytes], names: Sequence[str]) -> pa.Table:
        """Read the named columns."""


class Parquet(FileFormat):
    """Exact types: decimal(38,18), timestamp[ms, UTC], text."""

    suffix = "parquet"

    def write(self, table: Table, rows: pa.Table, file: IO[bytes]) -> None:  # noqa: ARG002
        """Write rows, compressed with Zstandard."""
        pq.write_table(rows, file, compression="zstd")

    def read(self, table: Table, file: IO[bytes], names: Sequence[str]) -> pa.Table:  # noqa: ARG002
        """Read the named columns."""
        return pq.ParquetFile(file).read(columns=list(names))


class JsonLines(FileFormat):
    """A JSON object on each line; see `kuaimai.load.plain`."""

    suffix = "jsonl"

    def write(self, table: Table, rows: pa.Table, file: IO[bytes]) -> None:
        """Write rows."""
        encoder = msgspec.json.Encoder()
        file.write(encoder.encode_lines(plain_rows(table, rows, rows.column_names)))

    def read(self, table: Table, file: IO[bytes], names: Sequence[str]) -> pa.Table:
        """Read the named columns."""
        lines = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode_lines(file.read())
        schema = file_schema(table)
        json = {column.name for column in table.columns if column.type == "json"}
        arrays = [
            pa.array(
                [_typed(line.get(name, _NULL), schema.field(name).type, json=name in json) for line in lines],
                pa.int64() if schema.field(name).type == INSTANT else schema.field(name).type,
            ).cast(schema.field(name).type)
            for name in names
        ]
        return pa.Table.from_arrays(arrays, names=list(names))


FORMATS: dict[str, FileFormat] = {"parquet": Parquet(), "jsonl": JsonLines()}


def file_schema(table: Table) -> pa.Schema:
    """Return the columns of a table's files: the batch's own, when they came, and which came together."""
    return batch_schema(table).append(pa.field(LOADED_AT, INSTANT)).append(pa.field(BATCH, pa.string()))


class FilesTarget(BookedTarget):
    """A folder of change files.

    Args:
        name: of the target, in its pipeline.
        book: the coordination store's database.
        root: the folder: a `pathlib.Path`, or what behaves like one (Airflow's ObjectStoragePath).
        form: `parquet` or `jsonl`.
        partition_by: column of the record whose day is the folder; None for `created`, else its first time.
    """

    def __init__(
        self, name: str, book: ProofBook, *, root: Any, form: str = "parquet", partition_by: str | None = None
    ) -> None:
        super().__init__(name, book)
        self.root = root
        self.form = FORMATS[form]
        self.partition_by = partition_by

    def partition_of(self, table: Table) -> str | None:
        """Return the column of a record's table whose day is the folder; None if it has no times.

        Raises:
            ConfigError: the pipeline names a column that is no time of this record.
        """
        times = [column.name for column in table.columns if column.type == "time"]
        if self.partition_by is None:
            return _CREATED if _CREATED in times else next(iter(times), None)
        if self.partition_by not in times:
            raise ConfigError(
                f"target {self.name}: partition_by: {self.partition_by!r} is no time of {table.name}",
                hint=f"give one of {', '.join(times)}" if times else "leave it out",
            )
        return self.partition_by

    def try_rights(self) -> str:
        """Write a file and remove it, and try where the proof is."""
        trial = self.root / f"kuaimai_doctor_{secrets.token_hex(4)}"
        with _writing(trial, self.name) as file:
            file.write(b"kuaimai")
        trial.unlink(missing_ok=True)
        return f"{self.root}: files can be written; {super().try_rights()}"

    def _load(
        self,
        tables: Sequence[Table],
        punctuality: Punctuality | None,  # noqa: ARG002 - files do not know what is new
    ) -> BookedLoad:
        return _FilesLoad(self, tables)


class _FilesLoad(BookedLoad):
    """Writes the files of each batch as it comes."""

    target: FilesTarget

    def __init__(self, target: FilesTarget, tables: Sequence[Table]) -> None:
        super().__init__(target, tables)
        self._partition = target.partition_of(tables[0])
        self._standing: dict[int, set[str]] = {}
        self._written: dict[int, Written] = {}

    def merge(self, read: int, batches: Sequence[pa.Table]) -> None:
        """Write one batch, lines first; then read the records' keys back."""
        header, rows = self.tables[0], batches[0]
        if not rows.num_rows:
            return
        batch = _digest(batches)
        name = f"{rows.column(WINDOW)[0].as_py()}-{batch}.{self.target.form.suffix}"
        days = _days(rows, self._partition)
        for table, part in reversed(list(zip(self.tables, batches, strict=True))):
            theirs = days if table is header else _days_of_parents(header, rows, days, table, part)
            stamped = _stamped(table, part, self.moment, batch)
            for day in sorted(set(theirs)):
                chosen = stamped.filter(pa.array([one == day for one in theirs], pa.bool_()))
                path = self.target.root / table.name / f"{DAY}={day}" / name
                with _writing(path, self.target.name) as file:
                    self.target.form.write(table, chosen, file)
                if table is header:
                    self._read_back(read, path)
        written = self._written.setdefault(read, Written())
        written.inserted += rows.num_rows

    def _read_back(self, read: int, path: Any) -> None:
        key = self.tables[0].key
        with path.open("rb") as file:
            keys = self.target.form.read(self.tables[0], file, [key]).column(key).to_pylist()
        self._standing.setdefault(read, set()).update(keys)

    def standing(self, read: int) -> set[str]:
        """Return the keys that were read back from the files."""
        return self._standing.get(read, set())

    def written(self, read: int) -> Written:
        """Return the rows that were written; whether they were known before, files do not say."""
        return self._written.get(read, Written())


def current(root: Any, tables: Sequence[Table], form: str = "parquet") -> list[pa.Table]:
    """Return the newest version of each record, and the lines that belong to it, from all files of a folder.

    Args:
        root: what the target was given.
        tables: parent first.
        form: `parquet` or `jsonl`.
    """
    header, *children = tables
    rows = _all_rows(root, header, FORMATS[form])
    newest = _newest(rows, header.key)
    with_lines = _newest(rows.filter(pc.is_valid(rows.column(CHILD_COUNT))), header.key)
    together = pc.binary_join_element_wise(with_lines.column(header.key), with_lines.column(BATCH), "\x1f")
    found = [newest]
    for child in children:
        lines = _newest(_all_rows(root, child, FORMATS[form]), child.key, (child.parent or "", BATCH))
        belongs = pc.binary_join_element_wise(lines.column(child.parent), lines.column(BATCH), "\x1f")
        lines = lines.filter(pc.is_in(belongs, value_set=together.combine_chunks()))
        # A line that moved to another order lives in the newer one.
        found.append(_newest(lines, child.key))
    return found


def _all_rows(root: Any, table: Table, form: FileFormat) -> pa.Table:
    schema = file_schema(table)
    parts = [schema.empty_table()]
    folder = root / table.name
    for day in sorted(folder.iterdir(), key=str) if folder.exists() else ():
        for path in sorted(day.iterdir(), key=str):
            if path.name.endswith(f".{form.suffix}") and not path.name.startswith("."):
                with path.open("rb") as file:
                    parts.append(_with_all(form.read(table, file, schema.names), schema))
    return pa.concat_tables(parts)


def _with_all(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows with all columns of today; a file from before a column was known has nulls there."""
    columns = [
        rows.column(one.name).cast(one.type)
        if one.name in rows.column_names
        else pa.nulls(len(rows), one.type)
        for one in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _newest(rows: pa.Table, key: str, further: Sequence[str] = ()) -> pa.Table:
    """Keep of each key (with further columns) the row that is newest."""
    names = [key, *further]
    order = [(name, "ascending") for name in (*names, VERSION, RANK, LOADED_AT, BATCH) if name]
    rows = rows.sort_by(list(dict.fromkeys(order))).combine_chunks()
    if rows.num_rows == 0:
        return rows
    whole = pc.binary_join_element_wise(*(rows.column(name) for name in names), "\x1f").combine_chunks()
    last = pa.concat_arrays([pc.not_equal(whole[1:], whole[:-1]), pa.array([True])])
    return rows.filter(last)


def _digest(batches: Sequence[pa.Table]) -> str:
    """Return the name of a batch's content: same rows, same name."""
    digest = hashlib.blake2b(digest_size=8)
    for batch in batches:
        for name in filter(batch.column_names.__contains__, (VERSION, RANK, HASH, CHILD_COUNT)):
            digest.update("\x1f".join(map(str, batch.column(name).to_pylist())).encode())
            digest.update(b"\x1e")
    return digest.hexdigest()


def _days(rows: pa.Table, column: str | None) -> list[str]:
    if column is None:
        return [NO_DAY] * rows.num_rows
    moments = pc.add(rows.column(column).cast(pa.int64()), _EAST_8_MS)
    days = moments.cast(pa.timestamp("ms")).cast(pa.date32()).cast(pa.string())
    return [day or NO_DAY for day in days.to_pylist()]


def _days_of_parents(
    header: Table, rows: pa.Table, days: Sequence[str], child: Table, lines: pa.Table
) -> list[str]:
    by_key = dict(zip(rows.column(header.key).to_pylist(), days, strict=True))
    return [by_key.get(key, NO_DAY) for key in lines.column(child.parent).to_pylist()]


def _stamped(table: Table, rows: pa.Table, moment: datetime, batch: str) -> pa.Table:
    count = rows.num_rows
    at = round(moment.timestamp() * 1000)
    columns = [pa.array([at] * count, pa.int64()).cast(INSTANT), pa.array([batch] * count, pa.string())]
    return pa.Table.from_arrays([*rows.columns, *columns], schema=file_schema(table))


@contextmanager
def _writing(path: Any, target: str) -> Iterator[IO[bytes]]:
    """Open a file that gets its name when it is whole."""
    if not isinstance(path, Path) and getattr(path, "protocol", "") in _OBJECT_STORES:
        # Not the store's own file: closing that puts what is in it, also on the way out of an error.
        whole = io.BytesIO()
        yield whole
        _put(path, whole.getvalue(), target)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
        try:
            with unfinished.open("wb") as file:
                yield file
                file.flush()
                if isinstance(path, Path):
                    # The seal will be durable; what it speaks of must be so before.
                    os.fsync(file.fileno())
            if isinstance(path, Path):
                unfinished.replace(path)
            else:
                unfinished.fs.mv(unfinished.path, path.path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as err:
        raise _told(err, path, target) from err


def _put(path: Any, content: bytes, target: str) -> None:
    try:
        path.fs.pipe_file(path.path, content)
    except FileNotFoundError as err:
        raise ConfigError(
            f"target {target}: {path} cannot be written, there is no such bucket",
            hint="create it, or name another url",
        ) from err
    except Exception as err:
        # Each store's client has errors of its own for a connection that fails.
        raise _told(err, path, target) from err


def _told(err: Exception, path: Any, target: str) -> KuaimaiError:
    number = getattr(err, "errno", None)
    reason = os.strerror(number) if number else type(err).__name__
    if isinstance(err, PermissionError) or number in _NO_RIGHT:
        return ConfigError(
            f"target {target}: {path} cannot be written ({reason})",
            hint="give the Airflow user, or the Connection in the url, the right to write there, or name "
            "another url",
        )
    what = "there is no room for" if number in _NO_ROOM else "the store failed at"
    return Transient(
        f"target {target}: {what} {path} ({reason})",
        hint="the load is repeated; what was written stays and is written again",
    )


def _typed(raw: msgspec.Raw, kind: pa.DataType, *, json: bool) -> Any:
    """Return the value in one JSON text; instants as epoch ms."""
    if bytes(raw) == b"null":
        return None
    if json:
        return bytes(raw).decode()
    value = msgspec.json.decode(raw)
    if pa.types.is_decimal(kind):
        return Decimal(value)
    if kind == INSTANT:
        return round(datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp() * 1000)
    return value
