"""Staging: raw pages and columnar batches on their way, each file whole or not there at all.

The root is a `pathlib.Path` or anything that behaves like one (Airflow's ObjectStoragePath). Every path
carries its pipeline, run and slice; manifests name files relative to the root.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol, cast

import pyarrow as pa

from kuaimai.errors import ConfigError, Transient

_ZSTD = pa.Codec("zstd")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS}
_SECONDS_A_DAY = 86_400.0


class StagingPath(Protocol):
    """The part of pathlib that staging needs."""

    def __truediv__(self, name: str) -> Any:
        """Return a path below this one."""
        ...

    def open(self, mode: str) -> Any:
        """Open the file."""
        ...

    def mkdir(self, *, parents: bool, exist_ok: bool) -> Any:
        """Make the folder."""
        ...

    def unlink(self, *, missing_ok: bool) -> Any:
        """Remove the file."""
        ...

    def iterdir(self) -> Any:
        """Return the paths in this folder."""
        ...


class Staging:
    """Files of one installation's runs.

    Args:
        root: the folder; local folders are made readable by their owner only, because raw pages hold
            whatever the gateway sent.
    """

    def __init__(self, root: StagingPath) -> None:
        self.root = root

    def write(self, name: str, content: bytes) -> None:
        """Store a file whole: under a temporary name first, where the storage can rename.

        Raises:
            Transient: the disk is full.
            ConfigError: the folder cannot be written.
        """
        with self.writing(name) as file:
            file.write(content)

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file for writing; it gets its name only when the block ends well."""
        path = self._path(name)
        try:
            if not isinstance(path, Path):
                # Not the store's own file: closing that puts what is in it, also on the way out of an error.
                whole = io.BytesIO()
                yield whole
                path.fs.pipe_file(path.path, whole.getvalue())
                return
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
            try:
                with unfinished.open("wb") as file:
                    yield file
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)
        except OSError as err:
            raise self._told(err, name) from err

    def write_compressed(self, name: str, content: bytes) -> None:
        """Store `content` compressed with Zstandard."""
        self.write(name, _ZSTD.compress(content, asbytes=True))

    def read_compressed(self, name: str) -> bytes:
        """Return what `write_compressed` stored."""
        with self.reading(name) as file, pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as stream:
            return cast("bytes", stream.read())

    @contextmanager
    def reading(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file for reading.

        Raises:
            ConfigError: the file is not there: cleaned by age, or this worker sees another disk.
        """
        try:
            file = self._path(name).open("rb")
        except FileNotFoundError as err:
            raise ConfigError(
                f"staging has no file {name!r} under {self.root}",
                hint="clear the extract task to read it again; workers on several hosts need one shared "
                "staging (set kuaimai_staging to an object store or a shared folder)",
            ) from err
        with file:
            yield file

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; a folder that is not there has none."""
        try:
            return sorted(path.name for path in self._path(folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):  # the latter is said of an object store's
            return []

    def changed_at(self, name: str) -> float:
        """Return when a file was written, epoch seconds; 0 where the storage does not tell."""
        return float(getattr(self._path(name).stat(), "st_mtime", 0.0))

    def remove(self, folder: str) -> None:
        """Remove a folder and what is in it; a folder that is not there is fine."""
        path = self._path(folder)
        if isinstance(path, Path):
            shutil.rmtree(path, ignore_errors=True)
        elif path.exists():
            path.rmdir(recursive=True)

    def sweep(self, older_than_days: float, *, now: Callable[[], float] = time.time) -> int:
        """Remove runs whose newest file is older; return how many files went. Local folders only.

        Object stores have lifecycle rules for this.
        """
        root = self.root
        if not isinstance(root, Path) or not root.is_dir():
            return 0
        horizon = now() - older_than_days * _SECONDS_A_DAY
        gone = 0
        for run in root.glob("*/*"):
            files = [file for file in run.rglob("*") if file.is_file()]
            if max((file.stat().st_mtime for file in files), default=run.stat().st_mtime) < horizon:
                shutil.rmtree(run, ignore_errors=True)
                gone += len(files)
        return gone

    def _path(self, name: str) -> Any:
        if ".." in PurePosixPath(name).parts:
            raise ConfigError(f"{name!r} leads out of the staging folder")
        return self.root / name

    def _told(self, err: OSError, name: str) -> Exception:
        if err.errno in _NO_ROOM:
            return Transient(
                f"staging is full: {name!r} could not be written under {self.root}",
                hint="free space there or set kuaimai_staging elsewhere; the window is read again by itself",
            )
        if err.errno in _NO_RIGHT:
            return ConfigError(
                f"staging cannot be written: {self.root} ({os.strerror(err.errno or 0)})",
                hint="give the Airflow user the right to write there or set kuaimai_staging elsewhere",
            )
        return err


def safe_name(text: str) -> str:
    """Return `text` as one path segment; run ids hold colons and plus signs."""
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in text)
