"""Replies and failures: may the provider have acted? And what becomes of the message?"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.backoff import RetryPolicy
from paceline_workers.outcome import (
    EXCERPT_BYTES,
    RETRY_AFTER_CAP_S,
    STATUSES,
    Failure,
    Kind,
    Outcome,
    Phase,
    Reply,
    dispose,
    judge_failure,
    judge_status,
    parse_retry_after,
)

# Sun, 06 Nov 1994 08:49:37 GMT, the moment of RFC 9110's examples.
RFC = 784_111_777.0
NOW = datetime(2026, 11, 30, 8, tzinfo=UTC).timestamp()
POLICY = RetryPolicy(jitter=0)


def reply(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Reply:
    return Reply(status, headers or {}, body)


# --- failures: there was no whole response ---


@pytest.mark.parametrize("cause", ["dns", "refused", "connect-timeout", "tls", "reset", "deadline"])
def test_before_the_first_byte_nothing_can_have_been_processed(cause: str) -> None:
    outcome = judge_failure(Failure("connect", cause, detail="Name or service not known"))
    assert (outcome.kind, outcome.outage) == (Kind.RETRY, True)
    assert cause in outcome.reason
    assert "Name or service not known" in outcome.reason


@pytest.mark.parametrize("phase", ["write", "read"])
@pytest.mark.parametrize("cause", ["timeout", "deadline", "reset", "eof", "unreadable"])
def test_after_the_first_byte_everything_is_ambiguous(phase: Phase, cause: str) -> None:
    outcome = judge_failure(Failure(phase, cause))
    assert outcome.kind is Kind.AMBIGUOUS
    assert outcome.outage is (cause != "unreadable")


@pytest.mark.parametrize("phase", ["write", "read"])
def test_a_clean_eof_that_was_provably_unreceived_may_be_tried_again(phase: Phase) -> None:
    outcome = judge_failure(Failure(phase, "eof", unreceived=True))
    assert outcome.kind is Kind.RETRY
    assert outcome.reason == f"eof on {phase}, provably unreceived"
    assert judge_failure(Failure(phase, "eof")).reason == f"eof on {phase}"


@pytest.mark.parametrize("cause", ["reset", "timeout", "deadline", "unreadable"])
def test_the_counter_proves_nothing_but_for_a_clean_eof(cause: str) -> None:
    assert judge_failure(Failure("read", cause, unreceived=True)).kind is Kind.AMBIGUOUS


# --- the general table ---

TABLE: list[tuple[int, Kind]] = [
    *((status, Kind.SENT) for status in (200, 201, 202, 204, 299)),
    *((status, Kind.HELD) for status in (300, 301, 302, 303, 304, 307, 308)),
    *((status, Kind.HELD) for status in (401, 403, 407)),
    *((status, Kind.RETRY) for status in (408, 425)),
    *((status, Kind.THROTTLED) for status in (420, 429)),
    *((status, Kind.REJECTED) for status in (400, 402, 404, 405, 409, 410, 415, 422, 451)),
    (413, Kind.TOO_LARGE),
    *((status, Kind.AMBIGUOUS) for status in (500, 501, 502, 504, 507, 520, 599)),
    (503, Kind.UNAVAILABLE),
    *((status, Kind.AMBIGUOUS) for status in (100, 101, 103, 600, 999, 0)),
]


@pytest.mark.parametrize(("status", "kind"), TABLE)
def test_every_status_has_its_outcome(status: int, kind: Kind) -> None:
    outcome = judge_status(reply(status, body=b"why"), NOW)
    assert (outcome.kind, outcome.status, outcome.body) == (kind, status, b"why")
    assert outcome.outage is (status in (502, 503, 504))
    assert str(status) in outcome.reason


def test_every_row_of_the_table_is_tried_above() -> None:
    assert len(STATUSES) == 13
    tried = {str(status) for status, _ in TABLE} | {f"{status // 100}xx" for status, _ in TABLE}
    assert set(STATUSES) <= tried


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, Kind.THROTTLED),
        (420, Kind.THROTTLED),
        (503, Kind.THROTTLED),
        (403, Kind.THROTTLED),
        (413, Kind.THROTTLED),
        (400, Kind.THROTTLED),
        (401, Kind.HELD),
        (407, Kind.HELD),
        (408, Kind.RETRY),
        (425, Kind.RETRY),
        (500, Kind.AMBIGUOUS),
        (502, Kind.AMBIGUOUS),
        (504, Kind.AMBIGUOUS),
    ],
)
def test_where_the_peer_names_a_time_it_is_kept(status: int, kind: Kind) -> None:
    outcome = judge_status(reply(status, {"retry-AFTER": "7"}), NOW)
    assert (outcome.kind, outcome.retry_after_s) == (kind, 7)


def test_a_redirect_or_success_is_not_put_off_by_a_retry_after() -> None:
    for status, kind in ((200, Kind.SENT), (301, Kind.HELD)):
        outcome = judge_status(reply(status, {"Retry-After": "7"}), NOW)
        assert (outcome.kind, outcome.retry_after_s) == (kind, None)


def test_a_malformed_retry_after_leaves_the_table_as_it_is() -> None:
    outcome = judge_status(reply(503, {"Retry-After": "soon"}), NOW)
    assert (outcome.kind, outcome.retry_after_s) == (Kind.UNAVAILABLE, None)


def test_the_record_keeps_an_excerpt_and_repr_shows_no_body() -> None:
    outcome = judge_status(reply(400, body=b"secret" * 1000), NOW)
    assert len(outcome.body) == EXCERPT_BYTES == 2048
    assert "secret" not in repr(outcome) + repr(reply(400, {"a": "secret"}, b"secret"))


# --- Retry-After ---


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        " sun, 06 nov 1994 08:49:37 gmt ",
    ],
)
def test_the_three_date_formats_of_rfc_9110(text: str) -> None:
    assert parse_retry_after(text, RFC - 90, None) == 90
    assert parse_retry_after(text, RFC + 1, None) == 0, "past"


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("120", 120), (" 5 ", 5), ("007", 7)])
def test_seconds(text: str, seconds: float) -> None:
    assert parse_retry_after(text, NOW, None) == seconds


@pytest.mark.parametrize("text", ["86401", "9" * 5000, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_no_peer_can_stop_a_destination_for_more_than_a_day(text: str) -> None:
    assert parse_retry_after(text, NOW, None) == RETRY_AFTER_CAP_S == 86_400


@pytest.mark.parametrize(
    "text",
    [
        *("", "soon", "-5", "1.5", "1e3", "+5", "٣", "²", "5 s", "Sun, 06 Nov 1994", "2026-11-30"),
        *("Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 36 Nov 1994 08:49:37 GMT"),
        *("Sun, 00 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 0000 08:49:37 GMT"),
        *("Sun, 06 Nov 1994 08:60:37 GMT", "Sun, 06 Nov 1994 08:49:61 GMT"),
        *("Sun, 06 Nov 1994 24:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 CET"),
    ],
)
def test_what_is_malformed_is_ignored(text: str) -> None:
    assert parse_retry_after(text, NOW, None) is None
    assert parse_retry_after(None, NOW, None) is None


def test_the_peers_own_clock_counts_where_it_is_given() -> None:
    until, date = "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:07 GMT"
    assert parse_retry_after(until, RFC + 3600, date) == 30
    assert parse_retry_after(until, RFC - 3600, date) == 30
    assert parse_retry_after(until, RFC - 60, "not a date") == 60
    assert parse_retry_after("5", RFC + 3600, date) == 5


def test_the_first_and_last_moment_of_a_month_are_read() -> None:
    before = "Mon, 31 Aug 2026 23:59:60 GMT"
    after = "Tue, 01 Sep 2026 00:00:30 GMT"
    assert parse_retry_after(after, NOW, before) == 30


def test_two_digit_years_are_never_more_than_fifty_years_ahead() -> None:
    assert parse_retry_after("Monday, 30-Nov-26 08:00:30 GMT", NOW, None) == 30
    assert parse_retry_after("Monday, 30-Nov-76 08:00:30 GMT", NOW, None) == RETRY_AFTER_CAP_S
    assert parse_retry_after("Tuesday, 30-Nov-77 08:00:30 GMT", NOW, None) == 0


@given(st.text() | st.text("SunMonNov 0123456789:-,GMT"), st.text() | st.none())
def test_no_header_can_break_it(text: str, date: str | None) -> None:
    seconds = parse_retry_after(text, NOW, date)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_CAP_S


# --- what becomes of the message ---


def outcome(kind: Kind, *, retry_after_s: float | None = None, outage: bool = False) -> Outcome:
    return Outcome(kind=kind, reason="why", retry_after_s=retry_after_s, outage=outage)


@pytest.mark.parametrize(
    ("kind", "action", "charge", "delay"),
    [
        (Kind.SENT, "sent", True, 0),
        (Kind.REJECTED, "dead", True, 0),
        (Kind.TOO_LARGE, "dead", True, 0),
        (Kind.HELD, "held", False, 0),
        (Kind.THROTTLED, "throttled", False, 1),
        (Kind.UNAVAILABLE, "unavailable", False, 45),
        (Kind.RETRY, "retry", True, 1),
        (Kind.AMBIGUOUS, "retry", True, 1),
    ],
)
def test_every_kind_has_its_disposition(
    kind: Kind, action: str, charge: bool, delay: float
) -> None:
    found = dispose(outcome(kind), 0, POLICY, 0.5)
    assert (found.action, found.charge, found.delay_s) == (action, charge, delay)
    assert found.reason.startswith("why")


@pytest.mark.parametrize("kind", [Kind.RETRY, Kind.AMBIGUOUS])
def test_three_tries_are_three_retries_after_the_first_attempt(kind: Kind) -> None:
    policy = RetryPolicy(max_retries=3, jitter=0)
    found = [dispose(outcome(kind), tries, policy, 0.5) for tries in range(5)]
    assert [one.action for one in found] == ["retry", "retry", "retry", "dead", "dead"]
    assert [one.delay_s for one in found[:3]] == [1, 2, 4]
    assert "4 attempts" in found[3].reason
    assert ("may have been sent" in found[3].reason) is (kind is Kind.AMBIGUOUS)


def test_an_outcome_may_allow_fewer_retries_than_the_policy_and_never_more() -> None:
    policy = RetryPolicy(max_retries=3, jitter=0)
    for most, last in ((0, 0), (2, 2), (3, 3), (9, 3)):
        few = Outcome(kind=Kind.RETRY, reason="why", most_retries=most)
        actions = [dispose(few, tries, policy, 0.5).action for tries in range(5)]
        assert actions == ["retry"] * last + ["dead"] * (5 - last)
    few = Outcome(kind=Kind.RETRY, reason="why", most_retries=0, outage=True)
    assert dispose(few, 9, policy, 0.5, suspect=True).action == "retry", "an outage is free"


def test_what_is_too_large_speaks_of_a_provider_in_health() -> None:
    assert (outcome(Kind.TOO_LARGE).health, outcome(Kind.REJECTED).health) == ("g", "g")


@pytest.mark.parametrize("kind", [Kind.THROTTLED, Kind.UNAVAILABLE, Kind.HELD])
def test_what_the_destination_waits_for_never_kills_a_message(kind: Kind) -> None:
    found = dispose(outcome(kind), 10_000, POLICY, 0.5)
    assert found.action == kind.value
    assert not found.charge


def test_an_outage_charges_the_destination_and_not_its_backlog() -> None:
    for kind in (Kind.RETRY, Kind.AMBIGUOUS):
        free = dispose(outcome(kind, outage=True), 99, POLICY, 0.5, suspect=True)
        assert (free.action, free.charge) == ("retry", False)
        assert dispose(outcome(kind, outage=True), 99, POLICY, 0.5).action == "dead"
        assert dispose(outcome(kind, outage=False), 99, POLICY, 0.5, suspect=True).action == "dead"


def test_ambiguous_is_parked_where_the_policy_says_so_and_nothing_else_is() -> None:
    park = RetryPolicy(on_ambiguous="park")
    parked = dispose(outcome(Kind.AMBIGUOUS), 0, park, 0.5)
    assert (parked.action, parked.charge, parked.delay_s) == ("parked", True, 0)
    assert dispose(outcome(Kind.AMBIGUOUS, outage=True), 0, park, 0.5, suspect=True).action == (
        "parked"
    )
    assert dispose(outcome(Kind.RETRY), 0, park, 0.5).action == "retry"


def test_a_retry_after_is_a_minimum() -> None:
    for kind in (Kind.RETRY, Kind.AMBIGUOUS, Kind.UNAVAILABLE, Kind.THROTTLED):
        found = dispose(outcome(kind, retry_after_s=300), 0, POLICY, 0.5)
        assert found.delay_s == 300
    assert dispose(outcome(Kind.RETRY, retry_after_s=1), 3, POLICY, 0.5).delay_s == 8


def test_throttling_without_a_time_backs_off_1_2_4_and_a_zero_makes_no_tight_loop() -> None:
    for said in (None, 0.0):
        waits = [
            dispose(outcome(Kind.THROTTLED, retry_after_s=said), 0, POLICY, 0, throttles=n).delay_s
            for n in range(3)
        ]
        assert waits == [1, 2, 4]
    named = outcome(Kind.THROTTLED, retry_after_s=3)
    assert dispose(named, 0, POLICY, 0, throttles=9).delay_s == 3
    one = outcome(Kind.THROTTLED, retry_after_s=1)
    assert dispose(one, 0, POLICY, 0, throttles=9).delay_s == 1
