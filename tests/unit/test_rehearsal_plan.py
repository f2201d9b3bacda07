"""The plan: the configuration made of it, and the forecast of its faults."""

from __future__ import annotations

from paceline.backoff import POLICIES
from paceline.rehearsal.plan import (
    DEFAULT_FAULTS,
    Plan,
    config_text,
    destination_of,
    fault_chain,
    message_id,
    waits_twice,
)
from paceline.settings_file import loads
from paceline.sink.faults import parse_faults


def ids(plan: Plan) -> list[str]:
    return [message_id(plan.seed, number) for number in range(plan.messages)]


def test_the_configuration_keeps_the_profiles_own_retry_policy() -> None:
    destination = destination_of(Plan())
    assert destination.retry == POLICIES["maxmd"]
    assert (destination.rate, destination.burst, destination.connections) == (100, 150, 10)


def test_no_credential_is_in_the_file() -> None:
    settings = loads(config_text(Plan(), "redis://127.0.0.1:1/0", "http://127.0.0.1:2"))
    destination = settings.destinations["rehearsal"]
    assert destination.username is not None
    assert destination.password is not None
    assert (destination.username.source, destination.password.source) == ("env", "env")


def test_a_given_wait_goes_into_the_policy() -> None:
    assert destination_of(Plan(wait_503_s=(1.0, 2.0))).retry.wait_503_s == (1.0, 2.0)


def test_the_default_run_gives_no_message_503_twice() -> None:
    plan = Plan()
    assert waits_twice(plan, ids(plan)) == []
    chains = [fault_chain(plan.seed, parse_faults(DEFAULT_FAULTS), i) for i in ids(plan)]
    assert {fault for chain in chains for fault in chain} == {"503", "500", "reset_after", "hang"}


def test_the_forecast_finds_the_unlucky() -> None:
    plan = Plan(seed=1)
    assert waits_twice(plan, ids(plan)) == ["r1-01049"]


def test_a_certain_fault_ends_the_chain_of_the_forecast() -> None:
    assert set(fault_chain(1, parse_faults("503"), "a")) == {"503"}
