"""The simulators before clients that nobody here wrote: django-anymail, sparkpost, mailgun.

What these take for SparkPost or Mailgun is close enough to them; and what they send, which the real
services accept, the strict simulators must accept too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from anymail.exceptions import AnymailRequestsAPIError
from anymail.message import AnymailMessage
from django.conf import settings
from django.core.mail import get_connection
from django.test.utils import override_settings
from mailgun.client import Client
from mailgun.config import RetryPolicy
from sparkpost import SparkPost
from sparkpost.exceptions import SparkPostAPIException

from paceline.sink import Arrival, SinkThread

KEY = "the-only-key"
PDF = ("report.pdf", b"%PDF\x00\r\n--boundary\r\n", "application/pdf")


@pytest.fixture(scope="module")
def sinks() -> Iterator[dict[str, SinkThread]]:
    if not settings.configured:
        settings.configure()
    with (
        SinkThread(profile="sparkpost", api_key=KEY) as sparkpost,
        SinkThread(profile="mailgun", api_key=KEY) as mailgun,
    ):
        anymail = {
            "SPARKPOST_API_KEY": KEY,
            "SPARKPOST_API_URL": f"{sparkpost.url}/api/v1",
            "MAILGUN_API_KEY": KEY,
            "MAILGUN_API_URL": f"{mailgun.url}/v3",
        }
        with override_settings(ANYMAIL=anymail):
            yield {"sparkpost": sparkpost, "mailgun": mailgun}


@pytest.fixture(autouse=True)
def forgotten(sinks: dict[str, SinkThread]) -> None:
    for sink in sinks.values():
        sink.reset()
        sink.set_faults("")


def only(sink: SinkThread) -> Arrival:
    (arrival,) = sink.wait_ended(1)
    return arrival


# -- django-anymail -------------------------------------------------------------------------------

PLAIN: dict[str, Any] = {
    "subject": "Grüße",
    "body": "text",
    "from_email": "Ann <ann@example.com>",
    "to": ["bob@example.com"],
}


def mail(service: str, parts: dict[str, Any], **options: Any) -> AnymailMessage:
    """A message for one of anymail's back ends: Django's own parts, and anymail's options."""
    backend = f"anymail.backends.{service}.EmailBackend"
    return AnymailMessage(**{**PLAIN, **parts}, connection=get_connection(backend, **options))


BOTH = pytest.mark.parametrize("service", ["sparkpost", "mailgun"])


@BOTH
@pytest.mark.parametrize(
    ("parts", "recipients"),
    [
        pytest.param({}, 1, id="plain"),
        pytest.param({"to": ['"Bob, jr." <bob@example.com>']}, 1, id="a name with a comma"),
        pytest.param({"to": ["bob@exämple.com"]}, 1, id="a domain in other letters"),
        pytest.param(
            {
                "cc": ["Carl <carl@example.com>"],
                "bcc": ["dora@example.com"],
                "reply_to": ["r@example.com", "s@example.com"],
                "headers": {"X-Reason": "ünusual"},
            },
            3,
            id="cc, bcc, reply-to, headers",
        ),
        pytest.param({"alternatives": [("<b>ü</b>", "text/html")]}, 1, id="html"),
        pytest.param({"attachments": [PDF, ("ü.txt", "text", "text/plain")]}, 1, id="attachments"),
        pytest.param(
            {
                "to": ["bob@example.com", "carl@example.com"],
                "merge_data": {"bob@example.com": {"name": "Bob"}},
                "merge_global_data": {"name": "friend"},
                "merge_metadata": {"carl@example.com": {"number": 7}},
                "merge_headers": {"bob@example.com": {"X-Number": "1"}},
                "metadata": {"number": 0},
                "tags": ["spring"],
                "track_opens": True,
                "track_clicks": False,
            },
            2,
            id="merge data",
        ),
        pytest.param(
            {
                "subject": None,
                "body": None,
                "from_email": None,
                "template_id": "spring",
                "merge_global_data": {"name": "friend"},
            },
            1,
            id="template",
        ),
    ],
)
def test_anymail_sends(
    sinks: dict[str, SinkThread], service: str, parts: dict[str, Any], recipients: int
) -> None:
    if service == "mailgun" and "template_id" in parts:
        parts = {**parts, "subject": "Grüße", "from_email": "ann@example.com"}
    message = mail(service, parts)
    message.send()
    assert message.anymail_status.status == {"queued"}
    assert message.anymail_status.message_id
    arrival = only(sinks[service])
    assert (arrival.fault, arrival.recipients, arrival.exposed) == ("ok", recipients, 0)


def test_anymail_learns_that_some_were_rejected(sinks: dict[str, SinkThread]) -> None:
    message = mail("sparkpost", {"to": ["bob@example.com", "reject-me@example.com"]})
    message.send()
    assert message.anymail_status.status == {"unknown"}, "SparkPost does not say who"
    arrival = only(sinks["sparkpost"])
    assert (arrival.fault, arrival.recipients) == ("partly_rejected", 1)


def test_mailgun_shows_everybody_to_everybody_without_recipient_variables(
    sinks: dict[str, SinkThread],
) -> None:
    message = mail("mailgun", {"to": ["bob@example.com", "carl@example.com"]})
    message.send()
    report = sinks["mailgun"].report()
    assert (report.recipients, report.exposed_recipients) == (2, 2)


@BOTH
def test_anymail_is_told_of_a_wrong_key(sinks: dict[str, SinkThread], service: str) -> None:
    with pytest.raises(AnymailRequestsAPIError) as caught:
        mail(service, {}, api_key="another").send()
    assert caught.value.status_code == 401
    assert only(sinks[service]).fault == "authentication"


TEMPLATE_AND_TEXT = {
    "from_email": None,
    "template_id": "spring",
    "alternatives": [("<b>x</b>", "text/html")],
}


@pytest.mark.parametrize(
    ("service", "parts", "status"),
    [
        ("sparkpost", {"to": ["reject-me@example.com"]}, 400),
        ("mailgun", {"to": ["reject-me@example.com"]}, 400),
        ("sparkpost", TEMPLATE_AND_TEXT, 422),
        ("mailgun", {**TEMPLATE_AND_TEXT, "from_email": "ann@example.com"}, 400),
    ],
)
def test_anymail_is_told_what_is_wrong(
    sinks: dict[str, SinkThread], service: str, parts: dict[str, Any], status: int
) -> None:
    with pytest.raises(AnymailRequestsAPIError) as caught:
        mail(service, parts).send()
    assert caught.value.status_code == status
    assert not only(sinks[service]).accepted


@BOTH
def test_anymail_is_turned_away_by_the_rate_limit(
    sinks: dict[str, SinkThread], service: str
) -> None:
    sinks[service].set_faults("row=429")
    with pytest.raises(AnymailRequestsAPIError) as caught:
        mail(service, {}).send()
    assert caught.value.status_code == 429


@BOTH
@pytest.mark.parametrize("fault", ["typed", "garbage=html", "garbage=empty", "business"])
def test_anymail_does_not_take_an_unreadable_answer_for_success(
    sinks: dict[str, SinkThread], service: str, fault: str
) -> None:
    sinks[service].set_faults(fault)
    message = mail(service, {})
    if (service, fault) == ("sparkpost", "typed"):
        message.send()  # It compares 1 with "1": neither all accepted nor all rejected.
        assert message.anymail_status.status == {"unknown"}
        return
    with pytest.raises((AnymailRequestsAPIError, AttributeError)):
        message.send()


# -- the package sparkpost ------------------------------------------------------------------------


@pytest.fixture
def sparkpost(sinks: dict[str, SinkThread]) -> SparkPost:
    client = SparkPost(KEY)
    client.transmissions.base_uri = f"{sinks['sparkpost'].url}/api/v1"
    return client


def test_sparkpost_sends_everything_at_once(
    sparkpost: SparkPost, sinks: dict[str, SinkThread]
) -> None:
    answer = sparkpost.transmissions.send(
        recipients=["Bob <bob@example.com>"],
        cc=["carl@example.com"],
        bcc=["dora@example.com"],
        from_email="Ann <ann@example.com>",
        subject="Grüße",
        html="<b>x</b>",
        text="x",
        reply_to="r@example.com",
        custom_headers={"X-Reason": "none"},
        campaign="spring",
        metadata={"number": 7},
        substitution_data={"name": "friend"},
        attachments=[{"name": "a.txt", "type": "text/plain", "data": "eHg="}],
        inline_images=[{"name": "a", "type": "image/png", "data": "eHg="}],
        track_opens=True,
        track_clicks=False,
        transactional=True,
    )
    assert answer["total_accepted_recipients"] == 3
    assert answer["id"].isdecimal()
    assert only(sinks["sparkpost"]).recipients == 3


@pytest.mark.parametrize(
    "parts",
    [
        {"template": "spring", "use_draft_template": True},
        {"email_rfc822": "From: ann@example.com\r\nSubject: x\r\n\r\nx"},
    ],
)
def test_sparkpost_sends_templates_and_whole_messages(
    sparkpost: SparkPost, parts: dict[str, Any]
) -> None:
    recipient = {"address": {"email": "bob@example.com"}, "substitution_data": {"name": "Bob"}}
    answer = sparkpost.transmissions.send(recipients=[recipient], **parts)
    assert answer["total_accepted_recipients"] == 1


def test_sparkpost_is_told_what_is_wrong(sparkpost: SparkPost) -> None:
    with pytest.raises(SparkPostAPIException) as caught:
        sparkpost.transmissions.send(recipients=["bob@example.com"], subject="x", html="x")
    assert caught.value.status == 422
    assert "required field is missing Code: 1400" in caught.value.errors[0]


def test_sparkpost_is_told_of_quota_and_key(
    sparkpost: SparkPost, sinks: dict[str, SinkThread]
) -> None:
    mail_parts = {"recipients": ["bob@example.com"], "template": "spring"}
    sinks["sparkpost"].set_faults("quota=2102")
    with pytest.raises(SparkPostAPIException, match="2102") as caught:
        sparkpost.transmissions.send(**mail_parts)
    assert caught.value.status == 420
    sinks["sparkpost"].set_faults("")
    sparkpost.transmissions.api_key = "another"
    with pytest.raises(SparkPostAPIException, match="Unauthorized") as caught:
        sparkpost.transmissions.send(**mail_parts)
    assert caught.value.status == 401


# -- the package mailgun --------------------------------------------------------------------------


@pytest.fixture
def mailgun(sinks: dict[str, SinkThread]) -> Iterator[Client]:
    once = RetryPolicy(max_retries=0)
    url = sinks["mailgun"].url
    with Client(auth=("api", KEY), api_url=url, retry_policy=once) as client:
        yield client


FORM = {
    "from": "Ann <ann@example.com>",
    "to": ["bob@example.com", "carl@example.com"],
    "cc": "dora@example.com",
    "subject": "Grüße",
    "text": "Hello %recipient.name%",
    "o:tag": ["spring", "test"],
    "h:X-Reason": "none",
    "v:number": "7",
    "recipient-variables": '{"bob@example.com":{"name":"Bob"},"carl@example.com":{"name":"Carl"}}',
}


@pytest.mark.parametrize("files", [None, [("attachment", PDF), ("inline", ("a.png", b"x"))]])
def test_mailgun_sends_forms_and_attachments(
    mailgun: Client, sinks: dict[str, SinkThread], files: list[Any] | None
) -> None:
    answer = mailgun.messages.create(data=FORM, files=files, domain="example.com")
    assert answer.status_code == 200
    assert answer.json()["message"] == "Queued. Thank you."
    assert answer.json()["id"].endswith("@example.com>")
    arrival = only(sinks["mailgun"])
    assert (arrival.recipients, arrival.exposed) == (3, 0)


def test_mailgun_sends_templates(mailgun: Client) -> None:
    form = {**FORM, "template": "spring", "t:variables": '{"name":"friend"}'}
    del form["text"]
    assert mailgun.messages.create(data=form, domain="example.com").status_code == 200


def test_mailgun_sends_mime(mailgun: Client, sinks: dict[str, SinkThread]) -> None:
    message = b"From: ann@example.com\r\nSubject: x\r\n\r\nx"
    answer = mailgun.mimemessage.create(
        data={"to": "bob@example.com"}, files={"message": ("m.mime", message)}, domain="example.com"
    )
    assert answer.status_code == 200
    assert only(sinks["mailgun"]).path == "/v3/example.com/messages.mime"


def test_mailgun_is_turned_away_with_the_time_in_the_text(
    mailgun: Client, sinks: dict[str, SinkThread]
) -> None:
    sinks["mailgun"].set_faults("limit-exceeded:for=90s")
    answer = mailgun.messages.create(data=FORM, domain="example.com")
    assert answer.status_code == 429
    assert "limit exceeded, try again after " in answer.json()["message"]
    assert answer.json()["message"].endswith(" UTC")
    assert "Retry-After" not in answer.headers


def test_mailgun_is_told_of_key_and_batch_size(
    sinks: dict[str, SinkThread], mailgun: Client
) -> None:
    with Client(auth=("api", "another"), api_url=sinks["mailgun"].url) as stranger:
        assert stranger.messages.create(data=FORM, domain="example.com").status_code == 401
    sinks["mailgun"].set_faults("large-batches")
    answer = mailgun.messages.create(data=FORM, domain="example.com")
    assert answer.status_code == 403
    assert "large batches" in answer.json()["message"]
