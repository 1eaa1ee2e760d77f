"""Records of a read as they came: what a target refuses is kept so, and can be mapped again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kuaimai.extract.details import composed
from kuaimai.extract.reads import Read
from kuaimai.extract.skim import record_key
from kuaimai.extract.staging import Staging
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, encode_json, read_envelope
from kuaimai.pipeline.spec import Pipeline
from kuaimai.transform.personal import drop_personal
from kuaimai.transform.versions import version_of


def originals(
    pipeline: Pipeline, read: Read, staging: Staging, keys: Collection[str], *, given: Mapping[str, str]
) -> dict[str, str]:
    """Return some records of a read as JSON by key, each in its newest version, without a person's data.

    Args:
        pipeline: the pipeline.
        read: whose answers are in staging.
        staging: where they are.
        keys: of the records.
        given: ids that the records were asked for by, by field; for records that leave them out.

    Raises:
        ConfigError: the answers are not in staging any more.
    """
    answers = (
        Answer(read.method, read_envelope(read.method, raw), raw)
        for raw in map(staging.read_compressed, read.page_names(staging))
    )
    found: dict[str, dict[str, Any]] = {}
    for answer in composed(read, answers, staging):
        for row in answer.rows(catalog.method(read.method).list_keys):
            absent = {name: value for name, value in given.items() if row.get(name) is None}
            record = {**row, **absent}
            key = record_key(record, pipeline.record)
            if key in keys and (
                key not in found or _version(pipeline, record) >= _version(pipeline, found[key])
            ):
                found[key] = record
    return {
        key: encode_json(drop_personal(record, pipeline.record, pipeline.rules)).decode()
        for key, record in found.items()
    }


def _version(pipeline: Pipeline, record: Mapping[str, Any]) -> int:
    """Return a record's version, epoch ms; 0 of one that is set aside for its times."""
    try:
        return version_of(record, pipeline.record) or 0
    except ValueError:
        return 0
