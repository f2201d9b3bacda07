"""Each provider's table, row by row: every row's reply is judged as the row says, and by that row:
a profile built without it judges otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from paceline.backoff import POLICIES
from paceline.endpoint_keys import EndpointKeys
from paceline_workers.outcome import Kind, Outcome, Reply
from paceline_workers.providers import mailgun, maxmd, sparkpost, webhook, webhook_endpoints
from paceline_workers.providers.base import Profile, as_merging
from paceline_workers.providers.table import Row
from paceline_workers.providers.webhook_signer import Signer
from paceline_workers.providers.webhook_table import ENDPOINTS

# Mon, 20 Dec 2021 20:33:01 GMT, the moment of Mailgun's example less 20 s.
NOW = 1_640_032_381.0


def _maxmd(rows: Sequence[Row]) -> Profile:
    return maxmd.MaxMD(username="u", password="p", policy=POLICIES["maxmd"], table=rows)


def _sparkpost(rows: Sequence[Row]) -> Profile:
    return sparkpost.SparkPost(policy=POLICIES["sparkpost"], table=rows)


def _mailgun(rows: Sequence[Row]) -> Profile:
    return mailgun.Mailgun(policy=POLICIES["mailgun"], table=rows)


def _webhook(rows: Sequence[Row]) -> Profile:
    return webhook.Webhook(
        signer=Signer([b"k" * 24]), wall_s=lambda: NOW, policy=POLICIES["webhook"], table=rows
    )


def _endpoints(rows: Sequence[Row]) -> Profile:
    return webhook_endpoints.WebhookEndpoints(
        keys=EndpointKeys([b"k" * 24], None, ""),
        wall_s=lambda: NOW,
        policy=POLICIES["webhook"],
        table=rows,
    )


TABLES: dict[str, tuple[tuple[Row, ...], Callable[[Sequence[Row]], Profile]]] = {
    "maxmd": (maxmd.TABLE, _maxmd),
    "sparkpost": (sparkpost.TABLE, _sparkpost),
    "mailgun": (mailgun.TABLE, _mailgun),
    "webhook": (webhook.TABLE, _webhook),
    "endpoints": (ENDPOINTS, _endpoints),
}
ROWS = [
    pytest.param(name, place, id=f"{name}-{row.status}-{row.case or 'any'}")
    for name, (table, _) in TABLES.items()
    for place, row in enumerate(table)
]


def judge(profile: Profile, row: Row) -> Outcome:
    return profile.judge(Reply(row.status, dict(row.headers), row.body), NOW)


@pytest.mark.parametrize(
    ("name", "count"),
    [("maxmd", 12), ("sparkpost", 63), ("mailgun", 15), ("webhook", 15), ("endpoints", 17)],
)
def test_the_tables_are_whole(name: str, count: int) -> None:
    table = TABLES[name][0]
    assert len(table) == count
    assert len({(row.status, row.case) for row in table}) == count, "two rows for one reply"
    assert len({row.says for row in table}) == count, "two rows that cannot be told apart"


@pytest.mark.parametrize(("name", "place"), ROWS)
def test_a_rows_reply_is_judged_as_it_says(name: str, place: int) -> None:
    table, build = TABLES[name]
    row = table[place]
    outcome = judge(build(table), row)
    assert (outcome.kind, outcome.status, outcome.body) == (row.kind, row.status, row.body)
    assert outcome.reason.startswith(row.says)
    assert (outcome.quota, outcome.most_retries) == (row.quota, row.most_retries)


@pytest.mark.parametrize(("name", "place"), ROWS)
def test_without_the_row_its_reply_is_judged_otherwise(name: str, place: int) -> None:
    table, build = TABLES[name]
    row = table[place]
    without = judge(build([*table[:place], *table[place + 1 :]]), row)
    assert not without.reason.startswith(row.says)
    # And never better than with it.
    assert without.kind is not Kind.SENT or row.kind is Kind.SENT


MERGED = [one for one in ROWS if one.values[0] in ("sparkpost", "mailgun")]


@pytest.mark.parametrize(("name", "place"), MERGED)
def test_merged_requests_are_judged_by_the_same_rows(name: str, place: int) -> None:
    table, build = TABLES[name]
    row = table[place]

    def judged(rows: Sequence[Row]) -> Outcome:
        merging = as_merging(build(rows))
        assert merging is not None
        return merging.judge_merged(Reply(row.status, dict(row.headers), row.body), NOW, 1)

    with_it, without = judged(table), judged([*table[:place], *table[place + 1 :]])
    assert with_it.kind is row.kind
    assert with_it.reason.startswith(row.says)
    alone = judge(build(table), row)
    for said in ("retry_after_s", "quota", "most_retries", "provider_id", "partial"):
        assert getattr(with_it, said) == getattr(alone, said)
    assert not without.reason.startswith(row.says)


# The providers' documents, written out again by hand: the tables above are code.
SPARKPOST = {
    Kind.REJECTED: {
        400: "1200 1305 1401 2008 5002 7000 7001 1901 1902",
        422: "1300 1301 1400 1603 2002 2004 2005 2007",
        409: "1600",
    },
    Kind.RETRY: {400: "1502", 409: "1601"},
    Kind.HELD: {
        **dict.fromkeys((401, 403), "1303 1304 1100 1601"),
        **{404: "1101 1600", 405: "1102", 406: "1800", 415: "1700"},
    },
    Kind.THROTTLED: {420: "2101 2102 2103 2105"},
    Kind.AMBIGUOUS: {500: "1500 1501"},
    Kind.UNAVAILABLE: {503: "1900"},
}


def error(status: int, code: str | int) -> Reply:
    body = {"errors": [{"message": "m", "code": code, "description": "d"}]}
    return Reply(status, {}, json.dumps(body).encode())


def test_sparkposts_pairs_are_those_of_its_documents() -> None:
    profile = _sparkpost(sparkpost.TABLE)
    written = set()
    for kind, statuses in SPARKPOST.items():
        for status, codes in statuses.items():
            for code in codes.split():
                written.add((status, code))
                assert profile.judge(error(status, code), NOW).kind is kind, (status, code)
                assert profile.judge(error(status, int(code)), NOW).kind is kind, (status, code)
    with_codes = {
        (row.status, row.case) for row in sparkpost.TABLE if row.case.isdigit() and not row.last
    }
    assert with_codes == written


def test_sparkposts_range_is_covered_and_ends_where_it_ends() -> None:
    profile = _sparkpost(sparkpost.TABLE)
    for code in range(3000, 3052):
        outcome = profile.judge(error(422, str(code)), NOW)
        assert (outcome.kind, outcome.reason[:8]) == (Kind.REJECTED, "template")
    for code in ("2999", "3052", "30000", "300", "", "x"):
        assert not profile.judge(error(422, code), NOW).reason.startswith("template")


@pytest.mark.parametrize(("name", "place"), ROWS)
def test_a_replys_other_statuses_do_not_borrow_the_row(name: str, place: int) -> None:
    """Judged by the pair: the same body with another status is another reply."""
    table, build = TABLES[name]
    row = table[place]
    for status in (304, 418, 599):
        outcome = build(table).judge(Reply(status, {}, row.body), NOW)
        assert outcome.kind in (Kind.HELD, Kind.REJECTED, Kind.AMBIGUOUS)
        assert not outcome.reason.startswith(row.says)
