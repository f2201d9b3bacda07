"""The reconciliation of ledger, sink and outbox: each way in which they can disagree."""

from __future__ import annotations

from typing import Any

import pytest

from paceline.rehearsal.ledger import Entry, Refusal
from paceline.rehearsal.payloads import Kind
from paceline.rehearsal.reconcile import Fact, Findings, cause_of, reconcile
from paceline.sink.record import Arrival

SHA1, BODY = "a" * 40, "b" * 16
SENT = Fact("sent", SHA1)


def entry(its_id: str = "m", kind: Kind = "good") -> Entry:
    return Entry(its_id, kind, SHA1, BODY, 100, 0.0)


def arrival(
    its_id: str | None = "m",
    fault: str = "ok",
    *,
    accepted: bool = True,
    status: int | None = 200,
    sha256: str = BODY,
) -> Arrival:
    return Arrival(0, 0, 0, its_id, 0, "", "/", 100, fault, status, sha256, 0, accepted)


def attempt(outcome: str, reason: str) -> dict[str, Any]:
    return {"outcome": outcome, "reason": reason}


def sent_after(*reasons: str) -> Fact:
    tries = [attempt("ambiguous", reason) for reason in reasons]
    return Fact("sent", SHA1, [*tries, attempt("sent", "success")])


RESET = arrival(fault="reset_after", status=None)
NOT_ACTED = arrival(fault="500", accepted=False, status=500)


def wrong(found: Findings) -> dict[str, list[str]]:
    """What is not empty, without the duplicates themselves."""
    names = (
        "lost", "unseen", "unfinished", "unreasoned", "disposed", "missent", "misjudged",
        "altered", "strangers", "misrefused", "unexplained",
    )  # fmt: skip
    return {name: getattr(found, name) for name in names if getattr(found, name)}


def test_all_well() -> None:
    entries = [entry("a"), entry("b"), entry("c", "bad-address"), entry("d", "unrenderable")]
    refusals = [Refusal("e", "refused", "payload.subject: missing", 0.0)]
    arrivals = [
        arrival("a"),
        arrival("b", "503", accepted=False, status=503),
        arrival("b"),
        arrival("c", "address", accepted=False),
    ]
    dead = Fact("dead", None, [attempt("rejected", "address error")])
    facts = {"a": SENT, "b": sent_after(), "c": dead, "d": dead}
    found = reconcile(entries, refusals, arrivals, facts)
    assert not wrong(found)
    assert not found.duplicates
    assert found.states == {"sent": 2, "dead": 2}
    assert found.dead_reasons == {"address error": 2}


@pytest.mark.parametrize(
    ("fact", "arrivals", "finding"),
    [
        pytest.param(None, [], "lost", id="unknown to the outbox"),
        pytest.param(None, [arrival()], "lost", id="unknown to the outbox, though sent"),
        pytest.param(SENT, [], "unseen", id="never at the sink"),
        pytest.param(SENT, [NOT_ACTED], "unseen", id="never accepted by the sink"),
        pytest.param(Fact("ready"), [], "unfinished", id="ready"),
        pytest.param(Fact("scheduled"), [NOT_ACTED], "unfinished", id="scheduled"),
        pytest.param(Fact("leased"), [], "unfinished", id="leased"),
        pytest.param(Fact("begun"), [], "unfinished", id="begun"),
        pytest.param(Fact("dead"), [], "unreasoned", id="dead without a reason"),
        pytest.param(Fact("parked"), [], "unreasoned", id="parked without a reason"),
        pytest.param(Fact("expired", SHA1), [], "disposed", id="expired"),
        pytest.param(
            Fact("dead", None, [attempt("rejected", "address error")]),
            [arrival()],
            "misjudged",
            id="rejected, but the sink accepted it",
        ),
        pytest.param(SENT, [arrival(sha256="c" * 16)], "altered", id="other bytes at the sink"),
        pytest.param(Fact("sent", "d" * 40), [arrival()], "altered", id="other hash in the outbox"),
        pytest.param(SENT, [arrival(), arrival()], "unexplained", id="twice for no reason"),
    ],
)
def test_each_failure_is_found_alone(
    fact: Fact | None, arrivals: list[Arrival], finding: str
) -> None:
    facts = {} if fact is None else {"m": fact}
    assert wrong(reconcile([entry()], [], arrivals, facts)) == {finding: ["m"]}


def test_strangers_at_the_sink() -> None:
    arrivals = [arrival(), arrival("x"), arrival(None), arrival("y", accepted=False, status=500)]
    found = reconcile([entry()], [], arrivals, {"m": SENT})
    assert wrong(found) == {"strangers": ["(no id)", "x", "y"]}


def test_a_refused_message_at_the_sink_is_a_stranger() -> None:
    refusal = Refusal("m", "refused", "payload.subject: missing", 0.0)
    assert wrong(reconcile([], [refusal], [arrival()], {})) == {"strangers": ["m"]}


@pytest.mark.parametrize(
    "refusal", [Refusal("m", "good", "no room", 0.0), Refusal("m", "refused", "", 0.0)]
)
def test_a_refusal_needs_an_invalid_message_and_a_reason(refusal: Refusal) -> None:
    assert wrong(reconcile([], [refusal], [], {})) == {"misrefused": ["m"]}


@pytest.mark.parametrize("kind", ["bad-address", "unrenderable"])
def test_an_invalid_message_must_not_be_sent(kind: Kind) -> None:
    found = reconcile([entry(kind=kind)], [], [arrival()], {"m": SENT})
    assert wrong(found) == {"missent": ["m"]}


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("reset on read: [Errno 104] Connection reset by peer", "reset"),
        ("timeout on read", "timeout"),
        ("deadline on read", "timeout"),
        ("eof on read", "eof"),
        ("lease-expired", "lease-expired"),
        ("the reply cannot be read", "unreadable"),
        ("HTTP 500: crashed on an exception; it may have been sent; out of tries", "status"),
    ],
)
def test_a_duplicate_is_explained_by_an_ambiguous_attempt(reason: str, cause: str) -> None:
    assert cause_of(reason) == cause
    found = reconcile([entry()], [], [RESET, arrival()], {"m": sent_after(reason)})
    assert not wrong(found)
    assert found.duplicates[0].causes == (cause,)
    assert found.duplicate_causes == {cause: 1}


def test_each_further_acceptance_needs_an_ambiguous_attempt_of_its_own() -> None:
    thrice = [RESET, RESET, arrival()]
    once, twice = sent_after("reset on read"), sent_after("reset on read", "timeout on read")
    assert wrong(reconcile([entry()], [], thrice, {"m": once})) == {"unexplained": ["m"]}
    assert not wrong(reconcile([entry()], [], thrice, {"m": twice}))


def test_a_failure_that_the_sink_did_not_act_on_explains_no_duplicate() -> None:
    fact = sent_after("HTTP 500: crashed on an exception")
    found = reconcile([entry()], [], [NOT_ACTED, arrival(), arrival()], {"m": fact})
    assert wrong(found) == {"unexplained": ["m"]}
    assert found.duplicate_causes == {"UNEXPLAINED": 1}


def test_dead_after_an_ambiguous_attempt_that_was_accepted_is_no_contradiction() -> None:
    fact = Fact("dead", None, [attempt("ambiguous", "reset on read; it may have been sent")])
    assert not wrong(reconcile([entry()], [], [RESET], {"m": fact}))
