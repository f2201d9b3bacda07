"""Every row of every provider's table, provoked at the simulator and judged as it came over the
wire.

What a row is to mean is written here once more, by hand, from the providers' documents: a row that
is taken out of a table, or that no simulator can provoke, fails here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from email.utils import parsedate_to_datetime

import pytest

from paceline.sink.settings import SinkSettings
from paceline_workers.outcome import STATUSES, Kind, Outcome, Reply
from paceline_workers.providers import mailgun, maxmd, sparkpost
from paceline_workers.providers.table import Row
from support.counter import Counter
from support.mails import POSTMARK_MAIL, SENDGRID_MAIL, neutral

#: Our clock is wrong, and the provider's own tells how long to wait.
NOW = 1_640_032_381.0
PAYLOAD = neutral()
#: Of equal content: they go together.
MEMBERS = [neutral(to=[f"jane{n}@example.org"]) for n in range(3)]

TABLES: dict[str, tuple[Row, ...]] = {
    "maxmd": maxmd.TABLE,
    "sparkpost": sparkpost.TABLE,
    "mailgun": mailgun.TABLE,
}
ROWS = [
    pytest.param(name, row, id=f"{name}-{row.status}-{row.case or 'any'}")
    for name, table in TABLES.items()
    for row in table
]
MERGED = [param for param in ROWS if param.values[0] != "maxmd"]

# kind -> the rows, as status or status/case.
DOCUMENTED: dict[str, dict[Kind, str]] = {
    "maxmd": {
        Kind.SENT: "200/0",
        Kind.HELD: "200/1",
        Kind.REJECTED: "200/2 200/999",
        Kind.RETRY: "200/3 200/4",
        Kind.AMBIGUOUS: "200/unreadable 500 502 504",
        Kind.THROTTLED: "429",
        Kind.UNAVAILABLE: "503",
    },
    "sparkpost": {
        Kind.SENT: "200/sent 200/partial",
        Kind.REJECTED: "200/refused 400 422 409/1600 "
        "400/1200 400/1305 400/1401 400/2008 400/5002 400/7000 400/7001 400/1901 400/1902 "
        "422/1300 422/1301 422/1400 422/1603 422/2002 422/2004 422/2005 422/2007 "
        "422/3000 422/3010 422/3040",
        Kind.RETRY: "400/1502 409/1601",
        Kind.HELD: "401/1303 401/1304 401/1100 401/1601 403/1303 403/1304 403/1100 403/1601 "
        "404/1101 404/1600 405/1102 406/1800 415/1700 401 403 404 405 406 415",
        Kind.TOO_LARGE: "413",
        Kind.THROTTLED: "420 420/2101 420/2102 420/2103 420/2105 429",
        Kind.AMBIGUOUS: "200/errors 200/unreadable 500/1500 500/1501 500 502 504",
        Kind.UNAVAILABLE: "503/1900 503",
    },
    "mailgun": {
        Kind.SENT: "200/sent",
        Kind.REJECTED: "400",
        Kind.HELD: "401 402 403",
        Kind.RETRY: "404",
        Kind.TOO_LARGE: "403/large batches 413",
        Kind.THROTTLED: "429/until 429",
        Kind.AMBIGUOUS: "200/unreadable 500 502 504",
        Kind.UNAVAILABLE: "503",
    },
}
COUNTS = {"maxmd": 12, "sparkpost": 63, "mailgun": 15}

# Rows that are not asked for by the name they have in the table.
FAULTS = {
    "maxmd 200/0": "",
    "maxmd 200/unreadable": "garbage=html",
    "sparkpost 200/sent": "",
    "sparkpost 200/errors": "business=1300",
    "sparkpost 200/unreadable": "garbage=html",
    "mailgun 200/sent": "",
    "mailgun 200/unreadable": "garbage=html",
    "mailgun 403/large batches": "large-batches",
    "mailgun 429/until": "limit-exceeded:for=90s",
    "mailgun 429": "row=429/too-many-requests",
}


def key(row: Row) -> str:
    return f"{row.status}/{row.case}" if row.case else f"{row.status}"


def documented(name: str) -> dict[str, Kind]:
    found: dict[str, Kind] = {}
    for kind, rows in DOCUMENTED[name].items():
        for row in rows.replace("large batches", "large_batches").split():
            found[row.replace("_", " ")] = kind
    return found


@pytest.fixture(scope="module")
def counters() -> Iterator[dict[str, Counter]]:
    with ExitStack() as exits:
        yield {name: exits.enter_context(Counter(name)) for name in (*TABLES, "http")}


@pytest.mark.parametrize("name", TABLES)
def test_the_table_is_what_the_documents_say(name: str) -> None:
    table = TABLES[name]
    assert {key(row): row.kind for row in table} == documented(name)
    assert len(table) == COUNTS[name]


def fault_of(name: str, row: Row) -> str:
    return FAULTS.get(f"{name} {key(row)}", f"row={key(row)}")


def is_by(outcome: Outcome, row: Row, reply: Reply | None) -> bool:
    """The outcome is the row's: kind, reason, retry time and the rest. Raises where it is not."""
    assert reply is not None, outcome.reason
    assert reply.status == row.status
    assert outcome.kind is row.kind
    assert outcome.reason.startswith(row.says), outcome.reason
    assert outcome.retry_after_s == wait_s(row, reply)
    assert (outcome.quota, outcome.most_retries) == (row.quota, row.most_retries)
    assert outcome.outage == (row.status in (502, 503, 504))
    assert (outcome.provider_id is not None) == (row.kind is Kind.SENT)
    assert outcome.body == reply.body[:2048]
    return True


def wait_s(row: Row, reply: Reply) -> float | None:
    """By the clock of the reply, read by the standard library."""
    said_at = parsedate_to_datetime(reply.headers["Date"]).timestamp()
    if row.case == "until":
        _, _, until = json.loads(reply.body)["message"].partition("try again after ")
        return parsedate_to_datetime(until.replace("UTC", "GMT")).timestamp() - said_at
    return row.wait_s(said_at) if row.wait_s is not None else None


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_a_row(counters: dict[str, Counter], name: str, row: Row) -> None:
    at, fault = counters[name], fault_of(name, row)
    payload = PAYLOAD
    if row.case == "partial":
        fault, payload = "row=200/2000", neutral(to=["a@example.org", "b@example.org"])
    elif row.case == "refused":
        fault = "row=200/2000"
    outcome, reply = at.send(payload, fault, now=NOW)
    assert is_by(outcome, row, reply)
    # What the sink believes, who has the message in hand.
    assert at.last().accepted is (row.kind is Kind.SENT or fault.startswith("garbage"))
    assert outcome.partial == (row.case == "partial")


@pytest.mark.parametrize(("name", "row"), MERGED)
def test_a_row_answers_a_merged_request(counters: dict[str, Counter], name: str, row: Row) -> None:
    at, fault, members = counters[name], fault_of(name, row), MEMBERS
    if row.case == "partial":
        fault = "row=200/2000"
    elif row.case == "refused":
        fault, members = "row=200/2000", MEMBERS[:1]
    outcome, reply = at.send_merged(members, fault, now=NOW)
    assert is_by(outcome, row, reply)
    accepted = row.kind is Kind.SENT or fault.startswith("garbage")
    assert at.last().recipients == accepted * len(members) - (row.case == "partial")
    assert at.last().exposed == 0
    # None of them may be sent in a smaller request.
    each = key(row) in ("409/1600", "409/1601", "200/refused") and row.kind is Kind.REJECTED
    assert [one.kind for one in outcome.parts] == [row.kind] * len(members) * each


@pytest.mark.parametrize("code", [*range(3000, 3052)])
def test_every_code_of_sparkposts_ranges(counters: dict[str, Counter], code: int) -> None:
    outcome, reply = counters["sparkpost"].send(PAYLOAD, f"row=422/{code}")
    assert reply is not None
    assert json.loads(reply.body)["errors"][0]["code"] == str(code)
    assert outcome.kind is Kind.REJECTED
    says = {300: "language", 301: "MIME", 302: "MIME", 303: "MIME"}.get(code // 10, "content")
    assert says in outcome.reason


# Whatever the code beside them: SparkPost's document names every pair of these with its codes.
BY_STATUS = {
    **dict.fromkeys((401, 403, 404, 405, 406, 415), Kind.HELD),
    413: Kind.TOO_LARGE,
    **dict.fromkeys((420, 429), Kind.THROTTLED),
    **dict.fromkeys((500, 502, 504), Kind.AMBIGUOUS),
    503: Kind.UNAVAILABLE,
}


def test_every_pair_of_sparkposts(counters: dict[str, Counter]) -> None:
    at = counters["sparkpost"]
    rows = SinkSettings(profile="sparkpost").make_profile().rows
    found = {row: at.send(PAYLOAD, f"row={row}")[0].kind for row in rows if row != "200/2000"}
    wanted = {row: BY_STATUS.get(int(row[:3]), Kind.REJECTED) for row in found}
    assert found == wanted | {"400/1502": Kind.RETRY, "409/1601": Kind.RETRY}
    assert len(found) == 137


@pytest.mark.parametrize("name", TABLES)
def test_a_time_the_provider_names_is_the_least_wait(
    counters: dict[str, Counter], name: str
) -> None:
    at = counters[name]
    for fault, kind in (("429", Kind.THROTTLED), ("503", Kind.THROTTLED)):
        outcome, _ = at.send(PAYLOAD, f"{fault}:retry_after=7", now=NOW)
        assert (outcome.kind, outcome.retry_after_s) == (kind, 7.0)
        outcome, _ = at.send(PAYLOAD, f"{fault}:retry_after=date+20", now=NOW)
        assert outcome.kind is kind
        assert outcome.retry_after_s == pytest.approx(20, abs=1)
    # They may have acted.
    for status in (500, 502, 504):
        outcome, _ = at.send(PAYLOAD, f"{status}:retry_after=7", now=NOW)
        assert (outcome.kind, outcome.retry_after_s) == (Kind.AMBIGUOUS, 7.0)
    outcome, _ = at.send(PAYLOAD, "401:retry_after=7", now=NOW)
    assert outcome.kind is Kind.HELD


def test_a_repeated_transmission_is_known_by_its_key(counters: dict[str, Counter]) -> None:
    at = counters["sparkpost"]
    first, _ = at.send(PAYLOAD, "reset_after", message_id="same")
    assert (first.kind, at.last().recipients) == (Kind.AMBIGUOUS, 1)
    again, reply = at.send(PAYLOAD, message_id="same")
    assert reply is not None
    assert reply.header("x-idempotent-replayed") == "true"
    assert (again.kind, at.last().fault, at.last().recipients) == (Kind.SENT, "replayed", 0)
    other, _ = at.send(neutral(subject="another"), message_id="same")
    assert (other.kind, other.status, at.last().accepted) == (Kind.REJECTED, 409, False)


# --- the general table ---

GENERAL: dict[str, tuple[str, Kind]] = {
    "2xx": ("200", Kind.SENT),
    "3xx": ("redirect=301", Kind.HELD),
    "401": ("401", Kind.HELD),
    "403": ("403", Kind.HELD),
    "407": ("407", Kind.HELD),
    "408": ("408", Kind.RETRY),
    "413": ("413", Kind.TOO_LARGE),
    "420": ("420", Kind.THROTTLED),
    "425": ("425", Kind.RETRY),
    "429": ("429", Kind.THROTTLED),
    "503": ("503", Kind.UNAVAILABLE),
    "4xx": ("422", Kind.REJECTED),
    "5xx": ("599", Kind.AMBIGUOUS),
}


def test_the_general_table_is_what_the_documents_say() -> None:
    assert {status: kind for status, (_, kind) in GENERAL.items()} == STATUSES
    assert len(STATUSES) == 13


@pytest.mark.parametrize("status", STATUSES)
def test_a_row_of_the_general_table(counters: dict[str, Counter], status: str) -> None:
    fault, kind = GENERAL[status]
    at = counters["http"]
    outcome, reply = at.send(b'{"a":1}', fault)
    assert reply is not None
    assert (outcome.kind, outcome.status) == (kind, reply.status)
    assert f"HTTP {reply.status}" in outcome.reason
    # The redirect was not followed.
    assert len({arrival.path for arrival in at.sink.arrivals()}) == 1


# --- by configuration alone ---

# What the two documents say of each, and the examples that ship make of it.
EXAMPLES: dict[str, dict[Kind, str]] = {
    "sendgrid": {
        Kind.REJECTED: "400 451",
        Kind.HELD: "401 404 405 406 415",
        # "too many bad requests": let in again after a while.
        Kind.THROTTLED: "403 429",
        Kind.TOO_LARGE: "413",
        Kind.AMBIGUOUS: "500 502 504",
        Kind.UNAVAILABLE: "503",
    },
    "postmark": {
        Kind.REJECTED: "200/300 200/400 200/401 200/406 422 422/300 422/400 422/401 422/402 "
        "422/403 422/406 422/409 422/410 422/411",
        Kind.HELD: "200/405 200/412 200/413 401 401/10 404 405 415 415/409 422/405 422/412 422/413",
        Kind.THROTTLED: "429 429/429",
        Kind.TOO_LARGE: "413",
        Kind.AMBIGUOUS: "500 502 504",
        Kind.UNAVAILABLE: "503 503/100",
    },
}
EXAMPLE_ROWS = [
    pytest.param(name, row, kind, id=f"{name}-{row}")
    for name, kinds in EXAMPLES.items()
    for kind, rows in kinds.items()
    for row in rows.split()
]
NATIVE = {"sendgrid": SENDGRID_MAIL, "postmark": POSTMARK_MAIL}


@pytest.fixture(scope="module")
def examples() -> Iterator[dict[str, Counter]]:
    with ExitStack() as exits:
        yield {name: exits.enter_context(Counter(name)) for name in EXAMPLES}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_row_the_simulator_has_is_asked_for(name: str) -> None:
    written = [row for rows in EXAMPLES[name].values() for row in rows.split()]
    assert set(SinkSettings(profile=name).make_profile().rows) == set(written)
    assert len(set(written)) == len(written) == {"sendgrid": 14, "postmark": 34}[name]


@pytest.mark.parametrize(("name", "row", "kind"), EXAMPLE_ROWS)
def test_a_row_by_configuration_alone(
    examples: dict[str, Counter], name: str, row: str, kind: Kind
) -> None:
    at, payload = examples[name], json.dumps(NATIVE[name]).encode()
    alone, reply = at.send(payload, f"row={row}")
    assert reply is not None
    assert (alone.kind, alone.status, alone.parts) == (kind, reply.status, ())
    assert not at.last().accepted
    merged, _ = at.send_merged([payload] * 3, f"row={row}")
    assert merged.kind is kind
    # Item by item, where the reply has items.
    parts = 3 if row.startswith("200/") else 0
    assert [part.kind for part in merged.parts] == [kind] * parts
    assert not at.last().accepted


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_good_answer_by_configuration_alone(examples: dict[str, Counter], name: str) -> None:
    at, payload = examples[name], json.dumps(NATIVE[name]).encode()
    alone, _ = at.send(payload)
    assert (alone.kind, alone.provider_id is not None) == (Kind.SENT, True)
    assert at.last().recipients == 1
    merged, _ = at.send_merged([payload] * 3)
    assert merged.kind is Kind.SENT
    assert at.last().recipients == 3
    ids = [part.provider_id for part in merged.parts] or [merged.provider_id]
    assert all(ids)
    assert len(set(ids)) == (3 if name == "postmark" else 1)


def test_postmark_tells_each_members_fate(examples: dict[str, Counter]) -> None:
    at = examples["postmark"]
    recipients = ["a@example.org", "reject-300@example.org", "reject-405@example.org"]
    mails = [json.dumps(POSTMARK_MAIL | {"To": to}).encode() for to in recipients]
    outcome, _ = at.send_merged(mails)
    assert [part.kind for part in outcome.parts] == [Kind.SENT, Kind.REJECTED, Kind.HELD]
    assert at.last().recipients == 1
