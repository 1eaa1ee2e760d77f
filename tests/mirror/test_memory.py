"""A task holds one batch at a time, however large its slice is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import IO

import pyarrow as pa
from tests.installation import START, mirror

from kuaimai.extract.staging import Staging
from kuaimai.pipeline import stages
from kuaimai.pipeline.scopes import fetch_scopes
from kuaimai.pipeline.slices import plan_slices

DAY = timedelta(days=1)
# A batch of 400 orders with their lines takes several times as much.
LITTLE = 100_000


class Watched(Staging):
    """Notes how many bytes of columns are held whenever a file with a certain ending is opened."""

    def __init__(self, root, ending: str) -> None:
        super().__init__(root)
        self.ending = ending
        self.held: list[int] = []

    @contextmanager
    def reading(self, name: str) -> Iterator[IO[bytes]]:
        if name.endswith(self.ending):
            self.held.append(pa.total_allocated_bytes())
        with super().reading(name) as file:
            yield file


def test_nothing_of_a_batch_is_held_when_the_next_one_begins(tmp_path):
    with mirror(tmp_path, bulk=2000, bulk_days=1) as shop:
        pipeline = shop.pipeline.model_copy(update={"batch_size": 200})
        (piece,) = plan_slices(
            pipeline,
            run="run",
            start=START - DAY,
            end=START,
            shops=fetch_scopes(pipeline, shop.client),
            live=False,
            target=shop.target,
            now=shop.clock,
        )
        extracted = stages.extract(pipeline, piece, shop.client, shop.staging, now=shop.clock)

        pages = Watched(shop.staging.root, ".json.zst")
        transformed = stages.transform(pipeline, extracted, pages)
        assert len(transformed.batches) >= 4
        assert max(pages.held) - pages.held[0] < LITTLE

        batches = Watched(shop.staging.root, "-kuaimai_trade.arrow")
        stages.load(pipeline, transformed, batches, shop.target)
        assert len(batches.held) == len(transformed.batches)
        assert max(batches.held) - batches.held[0] < LITTLE
