"""A gateway in memory whose records move between any two requests, for thousands of readings a second."""

from __future__ import annotations

import io
import json
from datetime import datetime, timedelta, timezone
from functools import cache
from random import Random
from threading import Lock
from typing import Any

from kuaimai.errors import TooSlow
from kuaimai.extract.staging import Staging
from kuaimai.gateway.answers import Answer

CHINA = timezone(timedelta(hours=8))
FIRST = 1_772_326_800
MINUTE = 60
ORDERS = ("time", "newest", "arrival", "random")


class MovingSet:
    """Stands where the client stands. One answer is one moment; between two answers anything may happen.

    Args:
        random: decides everything.
        times: second of each record, counted from `FIRST`; a record's key is its position.
        seconds: length of the window that is read.
        order: how records are ordered before they are cut into pages.
        cap: records on a page at most, whatever is asked for.
        leaves: chance that a record leaves before a request: it is changed, and its time becomes now.
        enters: chance that a record becomes visible late before a request, with a time in the window.
        slow: chance that a request for more than a minute is not answered in time.
        counts: whether page 1 carries the total.
    """

    def __init__(
        self,
        random: Random,
        times: list[int],
        seconds: int,
        *,
        order: str = "time",
        cap: int = 200,
        leaves: float = 0.0,
        enters: float = 0.0,
        slow: float = 0.0,
        counts: bool = True,
    ) -> None:
        self.random = random
        self.seconds = seconds
        self.order = order
        self.cap = cap
        self.leaves = leaves
        self.enters = enters
        self.slow = slow
        self.counts = counts
        self.times = dict(enumerate(times))
        self.at_first = dict(self.times)
        self.requests = 0
        self._lock = Lock()

    def call(self, method: str, params: dict[str, str]) -> Answer:
        with self._lock:
            if self.requests:
                self._move()
            self.requests += 1
            first, last = (_second(params[name]) for name in ("startTime", "endTime"))
            if last - first > MINUTE and self.random.random() < self.slow:
                raise TooSlow("no answer", method=method)
            return self._answer(first, last, params, method)

    def stayed(self) -> dict[int, int]:
        """Records that were there from before the first request on until now, and their times."""
        return {key: time for key, time in self.at_first.items() if self.times[key] == time}

    def _move(self) -> None:
        while self.random.random() < self.leaves:
            inside = [key for key, time in self.times.items() if time <= self.seconds]
            if inside:
                self.times[self.random.choice(inside)] = 10**6
        while self.random.random() < self.enters:
            self.times[len(self.times)] = self.random.randint(0, self.seconds)

    def _answer(self, first: int, last: int, params: dict[str, str], method: str) -> Answer:
        found = [key for key, time in self.times.items() if first <= time <= last]
        if self.order == "random":
            self.random.shuffle(found)
        elif self.order != "arrival":
            found.sort(key=lambda key: (self.times[key], key), reverse=self.order == "newest")
        size = min(int(params["pageSize"]), self.cap)
        body: dict[str, Any] = {}
        if params.get("useCursor"):
            start = int(params.get("cursor", "0"))
            body["cursor"] = str(start + size)
            body["hasNext"] = start + size < len(found)
        else:
            start = (int(params["pageNo"]) - 1) * size
            if start == 0 and self.counts:
                body["total"] = len(found)
        body["list"] = [
            {"sid": key, "updTime": (FIRST + self.times[key]) * 1000} for key in found[start : start + size]
        ]
        return Answer(method, body, json.dumps(body).encode())


class MemoryPath:
    """The part of an object store that staging needs, in a dict."""

    def __init__(self, files: dict[str, bytes], name: str = "") -> None:
        self.files = files
        self.path = name

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def __truediv__(self, name: str) -> MemoryPath:
        return MemoryPath(self.files, f"{self.path}/{name}")

    @property
    def fs(self) -> MemoryPath:
        """The store itself."""
        return self

    def pipe_file(self, name: str, content: bytes) -> None:
        self.files[name] = content

    def open(self, mode: str) -> io.BytesIO:
        assert mode == "rb"
        if self.path not in self.files:
            raise FileNotFoundError(self.path)
        return io.BytesIO(self.files[self.path])

    def exists(self) -> bool:
        return any(True for _ in self._below())

    def iterdir(self) -> list[MemoryPath]:
        below = {name.removeprefix(f"{self.path}/").partition("/")[0] for name in self._below()}
        if not below:
            raise FileNotFoundError(self.path)
        return [self / name for name in below]

    def rmdir(self, *, recursive: bool) -> None:
        assert recursive
        for name in self._below():
            self.files.pop(name, None)

    def _below(self) -> list[str]:
        # Readers work side by side: what is being written meanwhile must not stop the listing.
        return [name for name in list(self.files) if name.startswith(f"{self.path}/")]


class MemoryStaging(Staging):
    """Staging in memory, without the compression that would take most of the time."""

    def __init__(self) -> None:
        super().__init__(MemoryPath({}))

    def write_compressed(self, name: str, content: bytes) -> None:
        self.write(name, content)

    def read_compressed(self, name: str) -> bytes:
        with self.reading(name) as file:
            return file.read()


def second(offset: int) -> datetime:
    return datetime.fromtimestamp(FIRST + offset, CHINA)


@cache
def _second(text: str) -> int:
    moment = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=CHINA)
    return int(moment.timestamp()) - FIRST
