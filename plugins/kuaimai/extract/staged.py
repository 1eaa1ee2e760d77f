"""Raw answers of one read in staging, named so that a task that died can go on where it was.

The name of a complete answer says all that a restart needs: `3600-4212-1772330405.json.zst` is the stretch
from second 3600 to second 4212 of the window, asked for at that epoch second; in a folder `50-51/1` is
`00002-1772330405.json.zst` page 2 of the first reading of a stretch that is read page by page. Why an answer
of an earlier life may be used is argued in docs/adr/0005.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kuaimai.errors import KuaimaiError
from kuaimai.extract.asking import Asking, Page, Stretch
from kuaimai.extract.keys import DistinctKeys
from kuaimai.extract.reads import SNAPSHOT
from kuaimai.extract.staging import Staging
from kuaimai.extract.windows import Shop
from kuaimai.gateway.answers import Answer, encode_json, read_envelope

log = logging.getLogger(__name__)

# Answers of an earlier life that are older are asked for again, to see what has become visible late since.
REUSE_SECONDS = 2 * 3600.0

_SUFFIX = ".json.zst"
_COMPLETE = re.compile(r"(\d+)-(\d+)-(\d+)\.json\.zst")
_PAGE = re.compile(r"(\d+)-(\d+)\.json\.zst")


@dataclass(frozen=True)
class Part:
    """A stretch of a window that was read.

    Attributes:
        stretch: its time.
        files: staging names of its answers, without folder and suffix.
        keys: the keys of its records.
        rows: how many records came.
        total_before: the gateway's count, or None.
        total_after: the gateway's count when the stretch was read again, or the same.
        proof: see `kuaimai.extract.reads`.
        asked_at: when the oldest of its answers was asked for, epoch seconds.
        attempts: how often it was read.
    """

    stretch: Stretch
    files: tuple[str, ...]
    keys: DistinctKeys
    rows: int
    total_before: int | None
    total_after: int | None
    proof: str
    asked_at: float
    attempts: int = 1


class Staged:
    """The staging folder of one read.

    Args:
        staging: where the folder is.
        folder: its name; it belongs to one question, so whatever is in it answers that.
        base: the window's first second, epoch: names count from there, which keeps them short.
    """

    def __init__(self, staging: Staging, folder: str, base: int) -> None:
        self.folder = folder
        self._staging = staging
        self._base = base

    def keep(self, stretch: Stretch, page: Page, proof: str = SNAPSHOT, *, attempts: int = 1) -> Part:
        """Stage the one answer that is a whole stretch; only a complete one gets a name for a restart."""
        name = f"{self.name(stretch)}-{int(page.asked_at)}"
        if proof != SNAPSHOT:
            name += f"-{proof}"
        self.write(name, page.answer)
        return _part(stretch, name, page, proof, attempts)

    def write(self, name: str, answer: Answer) -> None:
        """Stage an answer as it was received."""
        self._staging.write_compressed(f"{self.folder}/{name}{_SUFFIX}", answer.raw)

    def forget(self, name: str) -> None:
        """Remove what is staged under a name that has further names below it."""
        self._staging.remove(f"{self.folder}/{name}")

    def name(self, stretch: Stretch) -> str:
        """Return a stretch as text, counted from the window's first second."""
        return f"{stretch.start - self._base}-{stretch.end - self._base}"

    def complete(self, asking: Asking) -> list[Part]:
        """Return the stretches that an earlier life of this read has finished, in order of time.

        Each answer is opened and must still prove itself; none is older than `REUSE_SECONDS`, and no two of
        them share more than an edge.
        """
        found: list[Part] = []
        for stretch, asked_at, name in sorted(self._finished(), key=lambda one: (one[0].start, -one[1])):
            if asked_at < asking.now() - REUSE_SECONDS or (found and stretch.start < found[-1].stretch.end):
                continue
            part = self._again(stretch, asked_at, name, asking)
            found += [part] if part else []
        return found

    def pages(self, name: str, asking: Asking) -> Iterator[tuple[str, Page]]:
        """Yield the pages that an earlier life of this read has staged under a name, from the first on.

        They end with the first one that is missing, damaged or older than `REUSE_SECONDS`.
        """
        found: dict[int, int] = {}
        for file in self._staging.names(f"{self.folder}/{name}"):
            if match := _PAGE.fullmatch(file):
                number, asked_at = map(int, match.groups())
                found[number] = max(asked_at, found.get(number, 0))
        number = 1
        while number in found and found[number] >= asking.now() - REUSE_SECONDS:
            page_name = f"{name}/{page_file(number, found[number])}"
            page = self._page(page_name, found[number], asking)
            if page is None:
                return
            yield page_name, page
            number += 1

    def _finished(self) -> Iterable[tuple[Stretch, int, str]]:
        for file in self._staging.names(self.folder):
            match = _COMPLETE.fullmatch(file)
            if match:
                start, end, asked_at = map(int, match.groups())
                yield Stretch(self._base + start, self._base + end), asked_at, file.removesuffix(_SUFFIX)

    def _again(self, stretch: Stretch, asked_at: int, name: str, asking: Asking) -> Part | None:
        page = self._page(name, asked_at, asking)
        return _part(stretch, name, page, SNAPSHOT, 1) if page and page.complete else None

    def _page(self, name: str, asked_at: int, asking: Asking) -> Page | None:
        try:
            raw = self._staging.read_compressed(f"{self.folder}/{name}{_SUFFIX}")
            answer = Answer(asking.method, read_envelope(asking.method, raw), raw)
            return Page(answer, asking.skim(answer).keys, asked_at)
        except (KuaimaiError, OSError, ValueError) as err:
            log.warning("staged answer %s is asked for again: %s", name, err)
            return None


def question_name(method: str, request: Mapping[str, str], shops: Sequence[Shop]) -> str:
    """Return the name of the folder for the answers to one question; it ends with the id of a single shop."""
    digest = hashlib.sha256(encode_json([method, sorted(request.items())])).hexdigest()[:8]
    return f"{digest}_{shops[0].id}" if len(shops) == 1 and shops[0].id.isalnum() else digest


def asked_shop(question: str) -> str:
    """Return the id of the one shop or warehouse that a question was about; empty where it was about more."""
    return question.partition("_")[2]


def page_file(number: int, asked_at: float) -> str:
    """Return the name of a page among those of its reading."""
    return f"{number:05d}-{int(asked_at)}"


def _part(stretch: Stretch, name: str, page: Page, proof: str, attempts: int) -> Part:
    keys = DistinctKeys()
    keys.update(page.keys)
    rows, total = len(page.keys), page.total
    return Part(stretch, (name,), keys, rows, total, total, proof, page.asked_at, attempts)
