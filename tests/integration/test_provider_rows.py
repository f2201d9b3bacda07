"""The profiles against the simulators, over loopback: each row of each table provoked and judged,
answers that lie or cannot be read, and one e-mail rendered for all three and taken by all three.

The tables are the profiles' own; what they say is compared with the providers' documents elsewhere
(test_provider_tables.py), and so are the simulators (test_sink_rows.py).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from http.client import HTTPConnection, IncompleteRead

import pytest

from paceline.settings_file import loads
from paceline.sink import SinkThread
from paceline_workers.outcome import Kind, Outcome, Reply
from paceline_workers.providers import mailgun, maxmd, sparkpost
from paceline_workers.providers.base import Profile, RenderedRequest, as_merging
from paceline_workers.providers.registry import build
from paceline_workers.providers.table import Row
from support.mails import PLAIN, neutral

PATHS = {
    "maxmd": "/Send",
    "sparkpost": "/api/v1/transmissions",
    "mailgun": "/v3/d.example/messages",
}
SECRETS = {"maxmd": 'username = "u"\npassword = "p"', "sparkpost": 'api_key = "key"'}
TABLES = {"maxmd": maxmd.TABLE, "sparkpost": sparkpost.TABLE, "mailgun": mailgun.TABLE}
NOW = 1_640_032_381.0
ONE, TWO = neutral(), neutral(to=["a@b.example", "c@d.example"])
MIME = json.dumps({"to": "a@b.example", "message": "From: a@b.example\r\n\r\nt\r\n"}).encode()


class Line:
    """One provider's profile, and its simulator at the other end of a kept connection."""

    def __init__(self, provider: str, sink: SinkThread) -> None:
        config = (
            f'[destinations.d]\nprovider = "{provider}"\nurl = "{sink.url}{PATHS[provider]}"\n'
            f"{SECRETS.get(provider, SECRETS['sparkpost'])}\n"
        )
        self.profile: Profile = build(loads(config).destinations["d"], {})
        self.sink, self.path = sink, PATHS[provider]
        self._address, self._ids = sink.address, itertools.count()

    def send(self, payload: bytes, *faults: str) -> Outcome:
        """The payload alone, each time under an id of its own, and what its reply means."""
        rendered = self.profile.render(f"m-{next(self._ids)}", payload)
        return self.profile.judge(self.reply(rendered, *faults), NOW)

    def reply(self, rendered: RenderedRequest, *faults: str) -> Reply:
        """What the simulator answers."""
        self.sink.set_faults(" ".join(faults))
        http = HTTPConnection(*self._address, timeout=10)
        try:
            path = self.path + rendered.suffix
            http.request(rendered.method, path, rendered.body, rendered.headers)
            answer = http.getresponse()
            try:
                body, cut = answer.read(), False
            except IncompleteRead as error:
                body, cut = error.partial, True
            return Reply(answer.status, dict(answer.getheaders()), body, cut)
        finally:
            http.close()


@pytest.fixture(scope="module")
def lines() -> Iterator[dict[str, Line]]:
    with (
        SinkThread(profile="maxmd") as one,
        SinkThread(profile="sparkpost") as two,
        SinkThread(profile="mailgun") as three,
    ):
        sinks = {"maxmd": one, "sparkpost": two, "mailgun": three}
        yield {name: Line(name, sink) for name, sink in sinks.items()}


def provoked(provider: str, row: Row) -> tuple[bytes, tuple[str, ...]]:
    """The payload and the fault that bring the row's reply."""
    code = json.loads(row.body).get("errors", [{}])[0].get("code") if row.last else row.case
    by_case: dict[str, tuple[bytes, tuple[str, ...]]] = {
        "sent": (ONE, ()),
        "unreadable": (ONE, ("garbage=html",)),
        "partial": (TWO, ("row=200/2000",)),
        "refused": (ONE, ("row=200/2000",)),
        "errors": (ONE, ("business=1300",)),
        mailgun.LARGE_BATCHES: (ONE, ("large-batches",)),
        "until": (ONE, ("limit-exceeded",)),
    }
    if row.case in by_case:
        return by_case[row.case]
    if provider == "maxmd" and row.status == 200:
        return ONE, () if row.case == "0" else (f"row=200/{row.case}",)
    if (provider, row.status, row.case) == ("mailgun", 429, ""):
        return ONE, ("429",)
    return ONE, (f"row={row.status}/{code}" if code else f"row={row.status}",)


@pytest.mark.parametrize("provider", TABLES)
def test_every_row_is_provoked_and_judged(lines: dict[str, Line], provider: str) -> None:
    judged = 0
    for row in TABLES[provider]:
        if (provider, row.status, row.case) == ("mailgun", 429, ""):
            continue  # This provider's 429 always names a time.
        payload, faults = provoked(provider, row)
        outcome = lines[provider].send(payload, *faults)
        assert (outcome.status, outcome.kind) == (row.status, row.kind), (row.status, row.case)
        assert outcome.reason.startswith(row.says), (row.says, outcome.reason)
        judged += 1
    assert judged == len(TABLES[provider]) - (provider == "mailgun")


@pytest.mark.parametrize("provider", TABLES)
@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        ("garbage=html", {Kind.AMBIGUOUS}),
        ("garbage=empty", {Kind.AMBIGUOUS}),
        ("garbage=binary", {Kind.AMBIGUOUS}),
        ("garbage=truncated", {Kind.AMBIGUOUS}),
        ("typed", {Kind.AMBIGUOUS}),
        ("liar=500", {Kind.AMBIGUOUS}),
        ("business=999", {Kind.REJECTED, Kind.AMBIGUOUS}),
        ("redirect=302", {Kind.HELD}),
        ("huge=1MB", {Kind.SENT}),
    ],
)
def test_what_lies_or_cannot_be_read_is_never_sent(
    lines: dict[str, Line], provider: str, fault: str, kinds: set[Kind]
) -> None:
    assert lines[provider].send(ONE, fault).kind in kinds


@pytest.mark.parametrize("payload", [neutral(PLAIN), ONE, TWO], ids=["whole", "short", "two"])
def test_one_e_mail_is_taken_by_all_three(lines: dict[str, Line], payload: bytes) -> None:
    for line in lines.values():
        outcome = line.send(payload)
        assert (outcome.kind, outcome.partial) == (Kind.SENT, 0)
        assert outcome.provider_id


def test_headers_templates_and_mime_are_taken_where_they_are_rendered(
    lines: dict[str, Line],
) -> None:
    for changes in (
        {"headers": {"X-A": "b"}, "tags": ["x"], "metadata": {"k": 1}},
        {
            "attachments": [
                {"filename": "l", "content_type": "image/png", "content": "", "content_id": "l"}
            ]
        },
    ):
        for provider in ("sparkpost", "mailgun"):
            assert lines[provider].send(neutral(**changes)).kind is Kind.SENT, (provider, changes)
    by_template = {"template": "welcome", "text": ...}
    assert lines["mailgun"].send(neutral(**by_template)).kind is Kind.SENT
    # There the template's own subject holds.
    assert lines["sparkpost"].send(neutral(**by_template, subject=...)).kind is Kind.SENT
    assert lines["mailgun"].send(MIME).kind is Kind.SENT


@pytest.mark.parametrize("provider", ["sparkpost", "mailgun"])
def test_a_merged_request_reaches_each_and_shows_nobody_to_another(
    lines: dict[str, Line], provider: str
) -> None:
    line = lines[provider]
    merging = as_merging(line.profile)
    assert merging is not None
    messages = [
        neutral(to=[f"a{n}@b.example"], substitution={"name": f"N{n} & co"}, html="<b>{{name}}</b>")
        for n in range(50)
    ]
    portions = [one for message in messages if (one := merging.portion(message))]
    body = merging.join(portions[0].shared, [one.part for one in portions])
    before = line.sink.report().recipients
    outcome = merging.judge_merged(line.reply(merging.render_merged("r-1", body)), NOW, 50)
    assert (outcome.kind, outcome.partial, outcome.parts) == (Kind.SENT, 0, ())
    assert line.sink.report().recipients - before == 50


def test_the_key_of_a_repeated_transmission_is_known_and_a_conflict_is_final(
    lines: dict[str, Line],
) -> None:
    line = lines["sparkpost"]
    first = line.profile.render("same", ONE)
    before = line.sink.report().recipients
    replies = [line.reply(first), line.reply(line.profile.render("same", ONE))]
    outcomes = [line.profile.judge(reply, NOW) for reply in replies]
    assert [one.kind for one in outcomes] == [Kind.SENT, Kind.SENT]
    assert outcomes[0].provider_id == outcomes[1].provider_id
    conflict = line.profile.judge(line.reply(line.profile.render("same", TWO)), NOW)
    assert (conflict.kind, conflict.status) == (Kind.REJECTED, 409)
    assert line.sink.report().recipients - before == 1
