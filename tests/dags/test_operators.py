"""The operators on their own: made without network and database, clear about what may be templated."""

from __future__ import annotations

import pytest

from kuaimai.airflow import operators
from kuaimai.airflow.compat import AirflowFailException
from kuaimai.errors import ConfigError, DataError, Rejected, SessionError, Throttled, Transient

MADE = {
    operators.KuaimaiRefreshTokenOperator: ({}, ("kuaimai_conn_id",)),
    operators.KuaimaiPlanOperator: ({"pipeline": "/x.yaml"}, ("pipeline", "kuaimai_conn_id")),
    operators.KuaimaiExtractOperator: (
        {"pipeline": "/x.yaml", "slice": {}},
        ("pipeline", "kuaimai_conn_id", "slice"),
    ),
    operators.KuaimaiTransformOperator: (
        {"pipeline": "/x.yaml", "manifest": {}},
        ("pipeline", "manifest"),
    ),
    operators.KuaimaiLoadOperator: ({"pipeline": "/x.yaml", "manifest": {}}, ("pipeline", "manifest")),
    operators.KuaimaiSealOperator: ({"pipeline": "/x.yaml", "manifests": []}, ("pipeline", "manifests")),
    operators.KuaimaiSweepOperator: ({}, ()),
}


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: kind.__name__)
def test_operators_are_made_without_reaching_for_anything(kind, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a constructor must reach for nothing")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("airflow.models.Connection.get_connection_from_secrets", refuse)
    monkeypatch.setattr("kuaimai.pipeline.spec.load_pipeline", refuse)
    arguments, fields = MADE[kind]
    made = kind(task_id="made", **arguments)
    monkeypatch.undo()

    assert tuple(made.template_fields) == fields
    for name in fields:
        assert hasattr(made, name)


def test_every_operator_is_tested_here():
    defined = {
        each
        for name, each in vars(operators).items()
        if name.startswith("Kuaimai") and isinstance(each, type) and each.__module__ == operators.__name__
    } - {operators.KuaimaiError}
    assert defined == set(MADE)


@pytest.mark.parametrize("error", [ConfigError, SessionError, Rejected])
def test_what_no_retry_can_mend_fails_at_once(error):
    with pytest.raises(AirflowFailException, match="what happened"), operators.told():
        raise error("what happened")


@pytest.mark.parametrize("error", [Throttled, Transient, DataError])
def test_what_time_can_mend_is_left_to_airflows_retries(error):
    with pytest.raises(error, match="what happened"), operators.told():
        raise error("what happened")


def test_one_slice_gives_one_manifest_and_a_list_gives_a_list():
    def double(one):
        return {"n": one["n"] * 2}

    assert operators.for_each({"n": 1}, double) == {"n": 2}
    assert operators.for_each([{"n": 1}, {"n": 2}], double) == [{"n": 2}, {"n": 4}]
    assert operators.for_each([], double) == []
    assert operators.for_each(None, double) == []


@pytest.mark.parametrize(
    "wrap", [lambda one: one, lambda one: {"slice": one}, lambda one: {"extracted": {"slice": one}}]
)
def test_slice_of_the_past_that_fails_does_not_hold_up_the_present(wrap):
    def stage(manifest):
        if "heal" in str(manifest):
            raise Rejected("the shop is gone")
        return {"done": True}

    given = [wrap({"reason": "interval"}), wrap({"reason": "heal"}), wrap({"reason": "interval"})]
    done = operators.for_each(given, stage)
    assert done == [{"done": True}, {"failed": "the shop is gone"}, {"done": True}]
    assert operators.for_each(done, lambda one: one) == done


def test_slice_of_the_present_that_fails_fails_the_task():
    def stage(manifest):
        raise Rejected("no")

    with pytest.raises(Rejected):
        operators.for_each([{"reason": "interval"}], stage)
