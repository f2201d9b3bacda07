"""Every provider's error answers, by name; and answers that lie."""

from __future__ import annotations

import json

import pytest

from paceline.sink.answers import Profile, Request, Verdict, When, mistyped, padded
from paceline.sink.faults import FaultSpecError, parse_fault
from paceline.sink.profiles import (
    Http,
    Mailgun,
    MaxMD,
    Postmark,
    SendGrid,
    SparkPost,
    Webhook,
)
from paceline.sink.settings import SinkSettings
from paceline.sink.spec import SpecError

PROFILES: list[Profile] = [
    SparkPost(),
    Mailgun(),
    SendGrid(),
    Postmark(),
    MaxMD(),
    Webhook(),
    Http(),
]
GOOD = Verdict(200, b'{"results":{"id":"7"}}', True, recipients=2, addresses=("a@b.de", "c@d.de"))
NOW = When(1000.0)
KEY = "whsec_" + "k" * 32


def words(text: str) -> list[str]:
    return text.split()


# What the providers document, as (profile, HTTP status, code); the code as it stands in the body.
WANTED = [
    *(("sparkpost", 400, c) for c in words("1200 1305 1401 2008 5002 7000 7001 1901 1902 1502")),
    *(("sparkpost", s, c) for s in (401, 403) for c in words("1303 1304 1100 1601")),
    *(("sparkpost", s, c) for s in (404, 405, 406, 415) for c in words("1101 1102 1600 1700 1800")),
    ("sparkpost", 413, None),
    *(("sparkpost", 420, c) for c in words("2101 2102 2103 2105")),
    *(("sparkpost", 422, c) for c in words("1300 1301 1400 1603 2002 2004 2005 2007")),
    *(("sparkpost", 422, str(c)) for c in range(3000, 3052)),
    ("sparkpost", 429, None),
    *(("sparkpost", 409, c) for c in ("1600", "1601")),
    *(("sparkpost", s, c) for s in (500, 502, 503, 504) for c in (None, "1500", "1501", "1900")),
    *(("mailgun", s, None) for s in (400, 401, 402, 403, 404, 413, 429, 500, 502, 503, 504)),
    *(("maxmd", 200, c) for c in ("1", "2", "3", "4", "999")),
    *(("maxmd", s, None) for s in (429, 500, 502, 503, 504)),
    *(("sendgrid", s, None) for s in (400, 401, 403, 413, 429, 500)),
    *(("postmark", 200, c) for c in ("300", "406")),
    *(("postmark", s, c) for s, c in ((401, "10"), (422, "300"), (422, "406"), (429, "429"))),
]


def named(name: str) -> Profile:
    return next(profile for profile in PROFILES if profile.name == name)


@pytest.mark.parametrize("provider", sorted({provider for provider, _, _ in WANTED}))
def test_every_row_can_be_had(provider: str) -> None:
    profile = named(provider)
    for _, status, code in [wanted for wanted in WANTED if wanted[0] == provider]:
        name = f"{status}" if code is None else f"{status}/{code}"
        verdict = profile.row(name, GOOD, NOW)
        assert (verdict.status, verdict.accepted) == (status, False), name
        if code is not None:
            body = json.loads(verdict.body)
            found = body["errors"][0]["code"] if "errors" in body else body.get("code")
            found = body.get("ErrorCode") if found is None else found
            assert str(found) == code, name
            assert isinstance(found, str) == (provider == "sparkpost"), name


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_every_row_there_is_can_be_asked_for(profile: Profile) -> None:
    assert "429" in profile.rows or "429/429" in profile.rows
    for name in profile.rows:
        fault = parse_fault(f"row={name}")
        assert (fault.kind, fault.form, fault.label) == ("row", name, f"row={name}")
        assert profile.row(name, GOOD, NOW).status == int(name[:3])
    assert profile.row("429", GOOD, NOW).status == 429
    with pytest.raises(SpecError, match=r'no row "418"; its rows: .*429'):
        profile.row("418", GOOD, NOW)


def test_rows_with_names_of_their_own() -> None:
    assert parse_fault("quota=2103").form == "420/2103"
    assert parse_fault("quota").form == "420/2101"
    assert parse_fault("large-batches").form == "403/large-batches"
    limited = parse_fault("limit-exceeded:for=30s")
    assert (limited.form, limited.for_s, limited.label) == (
        "429/limit-exceeded", 30.0, "limit-exceeded",
    )  # fmt: skip
    assert parse_fault("row=429:retry_after=3").retry_after == "3"
    assert not parse_fault("row=500").acted
    assert parse_fault("row=500:acted=yes").acted


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("row", "needs a value"),
        ("row=", "not the name of a row"),
        ("row=4/2", "not the name of a row"),
        ("quota=", "not the name of a row"),
        ("large-batches=1", "takes no value"),
        ("liar=404", "from 500 to 599"),
        ("typed=1", "takes no value"),
    ],
)
def test_rows_that_cannot_be_read(text: str, says: str) -> None:
    with pytest.raises(FaultSpecError, match=says):
        parse_fault(text)


def test_a_partial_rejection_leaves_one_out() -> None:
    verdict = SparkPost().row("200/2000", GOOD, NOW)
    body = json.loads(verdict.body)
    assert body["errors"][0]["code"] == "2000"
    assert body["results"]["total_accepted_recipients"] == 1
    assert body["results"]["total_rejected_recipients"] == 1
    assert body["results"]["id"] == "7"
    assert (verdict.accepted, verdict.recipients, verdict.addresses) == (True, 1, ("a@b.de",))


def test_how_long_to_wait_is_said_in_the_providers_way() -> None:
    for profile in (MaxMD(), Http()):
        assert profile.row("429", GOOD, When(0.0, 1.2)).extra == b"Retry-After: 2\r\n"
        assert profile.row("429", GOOD, When(0.0)).extra == b""
    assert SparkPost().row("429", GOOD, When(0.0, 1.2)).extra == b""


def test_answers_of_wrong_types() -> None:
    body = b'{"results":{"total":1,"id":"12"},"ok":true,"list":[{"a":"b"}],"none":null}'
    assert json.loads(mistyped(body)) == {
        "results": {"total": "1", "id": 12},
        "ok": "true",
        "list": [{"a": ["b"]}],
        "none": 0,
    }
    assert json.loads(mistyped(b"")) == ["accepted"]


def test_padding_keeps_what_is_said() -> None:
    for body in (b'{"a":1}', b'[{"a":1}]'):
        grown = padded(body, 1000)
        assert len(grown) == 1000
        found = json.loads(grown)
        assert (found.get("a") if isinstance(found, dict) else found[0]["a"]) == 1
    assert padded(b"", 10) == b" " * 10


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_a_business_error_is_no_success(profile: Profile) -> None:
    body = json.loads(profile.business(999, GOOD))
    assert "results" not in body
    assert "id" not in body
    assert body.get("success", False) is False
    assert body.get("ErrorCode", 1) != 0


def test_settings_make_every_profile() -> None:
    for profile in PROFILES:
        made = SinkSettings(profile=profile.name, api_key=KEY, reject="x-").make_profile()
        assert made.name == profile.name
        assert getattr(made, "api_key", KEY) == KEY
        assert getattr(made, "marker", "x-") == "x-"
    with pytest.raises(SpecError, match="allowed: sparkpost, mailgun"):
        SinkSettings(profile="ses").make_profile()
    with pytest.raises(SpecError, match="leave out recipients or lean"):
        SinkSettings(recipients=True, validate=False).make_profile()


def test_a_lean_profile_takes_anything() -> None:
    for profile in (
        SparkPost(validate=False), Mailgun(validate=False), SendGrid(validate=False),
        Postmark(validate=False), MaxMD(validate=False), Webhook(validate=False),
        Http(validate=False),
    ):  # fmt: skip
        assert profile.judge(Request(b"{")).accepted
