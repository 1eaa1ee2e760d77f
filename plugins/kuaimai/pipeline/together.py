"""Several targets planned as one: a time is done when every one of them has it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from kuaimai.errors import KuaimaiError
from kuaimai.load.proof import CONTESTED, READINGS, SEALED
from kuaimai.load.protocol import Coverage
from kuaimai.load.windows import PlannedWindow, ReadWindow

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
_SETTLED = {CONTESTED: 1, SEALED: 2}


def together(targets: Sequence[Coverage]) -> Coverage:
    """Return the coverage of a pipeline's targets as one."""
    return targets[0] if len(targets) == 1 else Together(targets)


def of_each(target: Coverage, ask: Callable[[Coverage], Answer]) -> list[Answer]:
    """Ask a coverage, or each of those that it is made of, for itself.

    Raises:
        KuaimaiError: none answers.
    """
    return target.of_each(ask) if isinstance(target, Together) else [ask(target)]


class Together:
    """The common coverage of several targets.

    What any of them lacks is planned again; those that have it take the same records without effect. One that
    does not answer is left out, so that it does not hold the others; what it lacks is found when it answers
    again. A target that is added later gets the last `heal_days` by itself, and the rest by a backfill.

    Args:
        targets: of one pipeline; each is asked on its own.
    """

    def __init__(self, targets: Sequence[Coverage]) -> None:
        self._there = list(targets)

    def announce(self, windows: Sequence[PlannedWindow]) -> None:
        """Write down in each what is going to be read."""
        self.of_each(lambda one: one.announce(windows))

    def began(self, pipeline: str, dimension: str) -> datetime | None:
        """Return the start of the first window that was planned for any of them, or None."""
        begins = self.of_each(lambda one: one.began(pipeline, dimension))
        return min((begin for begin in begins if begin is not None), default=None)

    def look_back(self, pipeline: str, configured_minutes: int) -> int:
        """Return the longest look-back that any of them asks for, in minutes."""
        return max(self.of_each(lambda one: one.look_back(pipeline, configured_minutes)))

    def supersede(self, window_ids: Sequence[str]) -> None:
        """Close windows whose time all of them have sealed since."""
        self.of_each(lambda one: one.supersede(window_ids))

    def coverage(
        self, pipeline: str, dimension: str, since: datetime, until: datetime | None = None
    ) -> list[ReadWindow]:
        """Return what is settled in all of them, stretch by stretch, and what is open in any."""
        held = self.of_each(lambda one: one.coverage(pipeline, dimension, since, until))
        unsettled = {one.window_id: one for windows in held for one in windows if one.state not in _SETTLED}
        return [*unsettled.values(), *_common(held)]

    def of_each(self, ask: Callable[[Coverage], Answer]) -> list[Answer]:
        """Ask every target that answers, each for itself.

        Raises:
            KuaimaiError: none does.
        """
        answers: list[Answer] = []
        there: list[Coverage] = []
        failure: KuaimaiError | None = None
        for one in self._there:
            try:
                answers.append(ask(one))
                there.append(one)
            except KuaimaiError as err:
                log.warning("a target does not answer and is left out of the plan: %s", err)
                failure = err
        if failure is not None and not there:
            raise failure
        self._there = there
        return answers


def _common(held: Sequence[Sequence[ReadWindow]]) -> Iterator[ReadWindow]:
    """Yield the stretches that every target has settled; contested where any of them holds it so."""
    settled = [[one for one in windows if one.state in _SETTLED] for windows in held]
    numbered = [(target, one) for target, windows in enumerate(settled) for one in windows]
    by_shop: dict[tuple[str, str], list[int]] = {}
    for number, (_, one) in enumerate(numbered):
        for shop in one.shops:
            by_shop.setdefault((one.method, shop), []).append(number)
    # Most shops have the very same windows: they are looked at once.
    alike: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for (method, shop), numbers in by_shop.items():
        alike.setdefault((method, tuple(numbers)), []).append(shop)
    for (method, those), shops in alike.items():
        chosen = [numbered[number] for number in those]
        for start, end, best, read_from in _stretches(chosen, len(held)):
            reads = [one for one in best if one.proof != READINGS]
            times = [one.last_read_at for one in reads if one.last_read_at is not None]
            yield ReadWindow(
                window_id="",
                method=method,
                shops=tuple(sorted(shops)),
                start=start,
                end=end,
                state=min((one.state for one in best), key=lambda state: _SETTLED[state]),
                proof=reads[0].proof if reads else READINGS,
                last_read_at=max(times) if reads and len(times) == len(reads) else None,
                planned_as=best[0].planned_as,
                first_read_at=read_from,
            )


def _stretches(
    windows: Sequence[tuple[int, ReadWindow]], targets: int
) -> Iterator[tuple[datetime, datetime, list[ReadWindow], datetime | None]]:
    """Yield the stretches between two edges that all targets cover, with the best window of each target.

    The instant is when they were last begun to be read for that target for which this is longest ago; None
    where it is not known.
    """
    edges = sorted(
        [(one.start, True, at) for at, (_, one) in enumerate(windows)]
        + [(one.end, False, at) for at, (_, one) in enumerate(windows)]
    )
    running: set[int] = set()
    before: datetime | None = None
    for moment, begins, at in edges:
        if before is not None and before < moment and running:
            best: dict[int, ReadWindow] = {}
            read_from: dict[int, datetime] = {}
            for number in running:
                target, one = windows[number]
                if one.first_read_at is not None:
                    read_from[target] = max(one.first_read_at, read_from.get(target, one.first_read_at))
                if target not in best or _worth(one) > _worth(best[target]):
                    best[target] = one
            if len(best) == targets:
                known = min(read_from.values()) if len(read_from) == targets else None
                yield before, moment, list(best.values()), known
        (running.add if begins else running.discard)(at)
        before = moment


def _worth(one: ReadWindow) -> tuple[int, bool, float]:
    read_at = one.last_read_at.timestamp() if one.last_read_at else float("inf")
    return _SETTLED[one.state], one.proof == READINGS, -read_at
