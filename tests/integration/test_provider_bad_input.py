"""Answers that no document promises, over a real socket, to each provider's profile: unreadable,
cut short, far too long, slow, of wrong types; a 200 that says no, a 5xx that says yes.

In most of them the provider has acted, as its simulator knows: then the outcome is never one that
says it has not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from paceline_workers.outcome import Kind
from paceline_workers.transports.adapter import REPLY_BYTES
from support.counter import Counter
from support.mails import POSTMARK_MAIL, SENDGRID_MAIL, neutral

PAYLOADS = {
    "maxmd": neutral(),
    "sparkpost": neutral(),
    "mailgun": neutral(),
    "postmark": json.dumps(POSTMARK_MAIL).encode(),
    "sendgrid": json.dumps(SENDGRID_MAIL).encode(),
}
NAMES = pytest.mark.parametrize("name", PAYLOADS)


@pytest.fixture(scope="module")
def counters() -> Iterator[dict[str, Counter]]:
    with ExitStack() as exits:
        yield {name: exits.enter_context(Counter(name)) for name in PAYLOADS}


@NAMES
@pytest.mark.parametrize(
    "fault",
    [
        *("garbage=html", "garbage=empty", "garbage=binary", "garbage=truncated"),
        *("reset_after", "eof_after", "200:body=%5B%5B:acted=yes", "204:acted=yes"),
        # JSON, and nothing of what is looked for.
        *(f"200:acted=yes:body={body}" for body in ("null", "5", "[]", "{}", "%22ok%22", "[{}]")),
        "200:acted=yes:body=" + "%5B" * 3000,
        *("liar=500", "liar=502", "liar=503", "liar=504", "liar=599"),
        "liar=503:acted=no",
    ],
    ids=lambda fault: fault[:40],
)
def test_what_cannot_be_read_is_ambiguous(
    counters: dict[str, Counter], name: str, fault: str
) -> None:
    at = counters[name]
    outcome, _ = at.send(PAYLOADS[name], fault)
    if fault.startswith("liar=503") and name in ("postmark", "sendgrid"):
        # By configuration a body is asked for its yes under a status of success alone.
        assert outcome.kind is Kind.UNAVAILABLE
        return
    assert (outcome.kind, outcome.provider_id) == (Kind.AMBIGUOUS, None), outcome.reason
    assert at.last().accepted is (not fault.endswith("acted=no"))


@NAMES
@pytest.mark.parametrize("size", [REPLY_BYTES + 1000, 16_000_000])
def test_far_too_long(counters: dict[str, Counter], name: str, size: int) -> None:
    at = counters[name]
    outcome, reply = at.send(PAYLOADS[name], f"huge={size}B")
    # SendGrid's status says all.
    assert outcome.kind is (Kind.SENT if name == "sendgrid" else Kind.AMBIGUOUS)
    assert reply is not None
    assert reply.truncated
    assert len(reply.body) <= REPLY_BYTES
    assert len(outcome.body) <= 2048


@NAMES
def test_long_and_yet_whole(counters: dict[str, Counter], name: str) -> None:
    outcome, _ = counters[name].send(PAYLOADS[name], "huge=200kB")
    assert (outcome.kind, outcome.provider_id is None) == (Kind.SENT, False)


@NAMES
def test_every_value_of_a_wrong_type(counters: dict[str, Counter], name: str) -> None:
    at = counters[name]
    outcome, _ = at.send(PAYLOADS[name], "typed")
    assert at.last().accepted
    # SendGrid's status says all; and by configuration any other value is a no.
    kind = {"sendgrid": Kind.SENT, "postmark": Kind.REJECTED}.get(name, Kind.AMBIGUOUS)
    assert outcome.kind is kind, outcome.reason
    if name != "maxmd":
        merged, _ = at.send_merged([PAYLOADS[name]] * 2, "typed")
        assert {merged.kind, *(part.kind for part in merged.parts)} == {kind}


@pytest.mark.parametrize(
    ("name", "code", "kind"),
    [
        *(("maxmd", 999, Kind.REJECTED), ("maxmd", 7, Kind.AMBIGUOUS), ("maxmd", 1, Kind.HELD)),
        # An error where there should be none: not known what it did.
        *(("sparkpost", 1300, Kind.AMBIGUOUS), ("sparkpost", 2101, Kind.AMBIGUOUS)),
        *(("mailgun", 1, Kind.AMBIGUOUS), ("sendgrid", 1, Kind.AMBIGUOUS)),
        *(("postmark", 300, Kind.REJECTED), ("postmark", 7777, Kind.REJECTED)),
        *(("postmark", 10, Kind.HELD), ("postmark", 100, Kind.RETRY)),
    ],
)
def test_a_200_that_says_no(counters: dict[str, Counter], name: str, code: int, kind: Kind) -> None:
    at = counters[name]
    outcome, reply = at.send(PAYLOADS[name], f"business={code}")
    assert reply is not None
    assert (reply.status, outcome.kind, outcome.provider_id) == (200, kind, None)
    assert not at.last().accepted


@NAMES
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(counters: dict[str, Counter], name: str, status: int) -> None:
    at = counters[name]
    before = len(at.sink.arrivals())
    outcome, _ = at.send(PAYLOADS[name], f"redirect={status}:location=/ok")
    assert outcome.kind is Kind.HELD
    assert len(at.sink.arrivals()) == before + 1


@NAMES
@pytest.mark.parametrize("fault", ["reset_before", "eof_before"])
def test_a_connection_that_ends_before_the_body(
    counters: dict[str, Counter], name: str, fault: str
) -> None:
    """The head was received: that nobody acted is not proven here."""
    outcome, reply = counters[name].send(PAYLOADS[name], fault)
    assert reply is None
    assert outcome.kind is Kind.AMBIGUOUS


def test_slow_answers_meet_the_deadline() -> None:
    """A byte each 20 ms is no silence: only the whole's deadline ends it. And silence does, too."""

    def tried(name: str) -> set[tuple[Kind, str]]:
        with Counter(name, total_s=0.25) as at:
            return {
                (outcome.kind, outcome.reason.split(":")[0])
                for fault in ("drip:every=20ms", "hang")
                for outcome, _ in [at.send(PAYLOADS[name], fault)]
            }

    with ThreadPoolExecutor() as pool:
        for found in pool.map(tried, PAYLOADS):
            assert found == {(Kind.AMBIGUOUS, "deadline on read")}
