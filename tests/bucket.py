"""An object store that no test can reach, as far as we use it, like Airflow's ObjectStoragePath."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Bucket:
    """The store's objects, by path; `error` is what it fails with."""

    objects: dict[str, bytes] = field(default_factory=dict)
    error: Exception | None = None

    def pipe_file(self, path: str, content: bytes) -> None:
        """Put an object at once."""
        if self.error:
            raise self.error
        self.objects[path] = content


@dataclass(frozen=True)
class BucketPath:
    """A path of `Bucket`, as Airflow's ObjectStoragePath is one of a real store."""

    fs: Bucket
    path: str = "bucket"
    protocol: str = "s3"

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def __truediv__(self, name: str) -> BucketPath:
        return BucketPath(self.fs, f"{self.path}/{name}")

    def __str__(self) -> str:
        return f"s3://{self.path}"

    def iterdir(self) -> Iterator[BucketPath]:
        """Yield what lies under this path; like universal_pathlib, refuse one under which nothing lies."""
        below = {
            path.removeprefix(f"{self.path}/").partition("/")[0]
            for path in self.fs.objects
            if path.startswith(f"{self.path}/")
        }
        if not below:
            raise NotADirectoryError(str(self))
        return (self / name for name in sorted(below))

    def open(self, mode: str) -> Any:
        """Open an object; like fsspec's files, one that is closed is put, whatever it holds."""
        return io.BytesIO(self.fs.objects[self.path]) if mode == "rb" else _Upload(self)


class _Upload(io.BytesIO):
    def __init__(self, path: BucketPath) -> None:
        super().__init__()
        self._path = path

    def close(self) -> None:
        self._path.fs.pipe_file(self._path.path, self.getvalue())
        super().close()
