"""Windows that no run could seal, read once more by the night: whole, and loaded as always.

Any target will do: what a window needs is a proof, and each target has its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timezone

import msgspec

from kuaimai.errors import ConfigError, KuaimaiError, SessionError
from kuaimai.extract.staging import Staging
from kuaimai.extract.windows import Shop, Slice, Window
from kuaimai.gateway import catalog
from kuaimai.gateway.client import Client
from kuaimai.gateway.clock import GATEWAY_ZONE
from kuaimai.load.proof import CONTESTED, OPEN, SEALED
from kuaimai.load.protocol import Target
from kuaimai.load.windows import ReadWindow, Sealing
from kuaimai.pipeline import planner, stages
from kuaimai.pipeline.coverage import settle
from kuaimai.pipeline.manifests import Loaded
from kuaimai.pipeline.spec import Pipeline

log = logging.getLogger(__name__)

# Windows that one run reads again.
MOST_RETRIES = 48


class Retried(msgspec.Struct, frozen=True):
    """What reading windows again came to: how many were tried, and a sentence for each that is not sealed."""

    windows: int
    still_open: tuple[str, ...]


class Rereading:
    """Reads windows of one pipeline for one target.

    Args:
        pipeline: the pipeline.
        run: the run's id; part of every staging path.
        client: calls the gateway.
        staging: where raw pages go.
        target: where the records go.
        now: clock, epoch seconds.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        run: str,
        client: Client,
        staging: Staging,
        target: Target,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.pipeline = pipeline
        self.run = run
        self.client = client
        self.staging = staging
        self.target = target
        self.now = now
        self.base = catalog.method(pipeline.source.method)
        self._slices = 0

    def retry(self, since: datetime, until: datetime, shops: Iterable[Shop]) -> Retried:
        """Read once more what no run could seal, in every dimension the pipeline has windows of.

        Args:
            since: windows that ended before this are left alone.
            until: and those that end later: what runs at this moment reads them itself.
            shops: the shops of this run; windows of others are left alone.

        Raises:
            ConfigError: a setting is wrong; no other window would fare better.
            SessionError: nobody can read anything.
        """
        known = {shop.id: shop for shop in shops}
        sealings: list[Sealing] = []
        unread: list[str] = []
        wanted = self._wanted(since, until, known)
        for window, ids in wanted:
            try:
                sealings += self.whole(window, [known[one] for one in ids]).windows
            except (ConfigError, SessionError):
                raise
            except KuaimaiError as err:
                log.warning("%s: %s stays open: %s", self.pipeline.name, clock(window), err)
                unread.append(f"{self.base.name} {clock(window)}: {err}")
        settle(self.pipeline.name, sealings, self.target)
        still_open = [
            f"{one.method} {clock(Window(one.start, one.end, one.dimension))}: {one.reason}"
            for one in sealings
            if one.state != SEALED
        ]
        return Retried(len(wanted), (*still_open, *unread))

    def whole(self, window: Window, shops: Sequence[Shop]) -> Loaded:
        """Take a window through the stages as every run does."""
        piece = self.slice(window, shops)
        extracted = stages.extract(self.pipeline, piece, self.client, self.staging, now=self.now)
        transformed = stages.transform(self.pipeline, extracted, self.staging)
        return stages.load(self.pipeline, transformed, self.staging, self.target)

    def slice(self, window: Window, shops: Sequence[Shop]) -> Slice:
        """Return a slice of this run, with nothing read of it yet."""
        self._slices += 1
        piece = Slice(self.pipeline.name, self.run, self._slices, window, tuple(shops), "reconcile")
        # An earlier try of the task may have read it. Rows have landed since, which those pages do not show.
        self.staging.remove(stages.raw_folder(piece))
        return piece

    def _wanted(
        self, since: datetime, until: datetime, known: Collection[str]
    ) -> list[tuple[Window, tuple[str, ...]]]:
        """Return windows and ids of their shops, what could not even be read last.

        If they are too many each night goes on where the one before has stopped, and begins anew at the end:
        what never seals keeps nothing waiting.
        """
        border = planner.reach(self.pipeline, datetime.fromtimestamp(self.now(), timezone.utc))
        unread: dict[tuple[Window, tuple[str, ...]], int] = {}
        for dimension in self.base.times.dimensions if self.base.times else ():
            for one in self.target.coverage(self.pipeline.name, dimension, since, until):
                within = (border is None or border <= one.start) and one.end <= until
                if within and _is_left(one) and set(known) >= set(one.shops):
                    asked = Window(one.start, one.end, dimension), one.shops
                    unread[asked] = max(one.unread, unread.get(asked, 0))
        everything = sorted(unread)
        turn = until.toordinal() * MOST_RETRIES % max(len(everything), 1)
        chosen = (everything[turn:] + everything[:turn])[:MOST_RETRIES]
        return sorted(chosen, key=lambda asked: (unread[asked], asked))


def _is_left(one: ReadWindow) -> bool:
    """Whether nobody else reads a window: a backfill reads its own, now or when it is started again."""
    return one.state == CONTESTED or (one.state == OPEN and one.planned_as != planner.BACKFILL)


def clock(window: Window) -> str:
    """Return a window as the merchant's clock shows it, to the second."""
    start, end = (moment.astimezone(GATEWAY_ZONE) for moment in (window.start, window.end))
    return f"{window.dimension} {start:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S}"
