"""What a peer tells of its rate limit, in every spelling; and texts that tell nothing."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from paceline_workers.ratelimit import RESET_CAP_S, Advice, parse_rate_limit

NOW = 1_780_000_000.0
NAMES = [
    "RateLimit", "RateLimit-Policy", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset",
    "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "x-rate-limit-limit",
    "x-rate-limit-remaining", "x-rate-limit-reset",
]  # fmt: skip


def parse(headers: dict[str, str], date: str | None = None) -> Advice | None:
    return parse_rate_limit(CaseInsensitiveDict(headers), NOW, lambda: date)


def legacy(reset: str, remaining: str = "7", limit: str = "100") -> dict[str, str]:
    return {
        "X-RateLimit-Limit": limit, "X-RateLimit-Remaining": remaining, "X-RateLimit-Reset": reset,
    }  # fmt: skip


# --- the draft's forms ---


@pytest.mark.parametrize(
    ("limit", "policy", "advice"),
    [
        ('"default";r=50;t=30', '"default";q=100;w=60', Advice(100, 50, 30.0)),
        ('"default";r=50;t=30', "", Advice(None, 50, 30.0)),
        # By draft -08 the time may be left out; then the quota is full after the policy's window.
        ('"default";r=50', '"default";q=100;w=60', Advice(100, 50, 60.0)),
        # 5 requests a second are less than 10, and 50 in an hour less than 20 in 2 s.
        ('"burst";r=20;t=2, "day";r=150;t=30', '"day";q=500;w=86400', Advice(500, 150, 30.0)),
        ('"burst";r=20;t=2,"hour";r=50;t=3600', "", Advice(None, 50, 3600.0)),
        ('"hour";r=3000;t=3600, "burst";r=1;t=2', "", Advice(None, 1, 2.0)),
        # Of two quotas used up, the one that stays so for longer.
        ('"burst";r=0;t=2, "day";r=0;t=900', "", Advice(None, 0, 900.0)),
        # Bytes are no requests.
        ('"b";r=10;t=9, "r";r=50;t=9', '"b";q=99;qu="content-bytes"', Advice(None, 50, 9.0)),
        ('"p";r=50;t=9;pk=:sdfjLJUOUH==:, "q";r=80;t=9', "", Advice(None, 50, 9.0)),
        ('"a, \\"b\\";c";r=5;t=6', "", Advice(None, 5, 6.0)),
        ("token;r=5;t=6", "", Advice(None, 5, 6.0)),
        # What was read before a fault counts.
        ('"a";r=5;t=6, "b";;r=1;t=100', "", Advice(None, 5, 6.0)),
    ],
)
def test_the_most_restrictive_item_of_the_list_counts(
    limit: str, policy: str, advice: Advice
) -> None:
    assert parse({"RateLimit": limit, "RateLimit-Policy": policy}) == advice


def test_the_single_header_before_it() -> None:
    told = {"RateLimit": "limit=100, remaining=50, reset=49"}
    assert parse(told) == Advice(100, 50, 49.0)
    told = {"RateLimit": "limit=100;w=60 ,remaining=0,reset=9", "RateLimit-Policy": "100;w=60"}
    assert parse(told) == Advice(100, 0, 9.0)


def test_the_three_headers_before_that() -> None:
    told = {"RateLimit-Remaining": "50", "RateLimit-Reset": "49"}
    assert parse(told) == Advice(None, 50, 49.0)
    assert parse(told | {"RateLimit-Limit": "100, 100;w=60"}) == Advice(100, 50, 49.0)


def test_of_several_forms_the_newest_that_can_be_read_counts() -> None:
    assert parse({"RateLimit": '"d";r=50;t=30'} | legacy("10")) == Advice(None, 50, 30.0)
    assert parse({"RateLimit": "soon"} | legacy("10")) == Advice(100, 7, 10.0)


# --- the legacy ones ---


@pytest.mark.parametrize(
    ("reset", "reset_s"),
    [
        ("0", 0.0),
        ("40", 40.0),
        ("64.57", 64.57),
        (f"{NOW + 40:.0f}", 40.0),
        (f"{(NOW + 40) * 1000:.0f}", 40.0),
        (f"{NOW - 40:.0f}", 0.0),
        (formatdate(NOW + 40, usegmt=True), 40.0),
        ("999999", RESET_CAP_S),
        (f"{NOW + 10**7:.0f}", RESET_CAP_S),
    ],
)
def test_a_reset_is_told_apart_by_its_magnitude(reset: str, reset_s: float) -> None:
    assert parse(legacy(reset)) == Advice(100, 7, reset_s)
    other = {k.replace("X-RateLimit", "x-rate-limit"): v for k, v in legacy(reset).items()}
    assert parse(other) == Advice(100, 7, reset_s)


def test_a_time_is_compared_with_the_peers_own_clock() -> None:
    behind = formatdate(NOW - 3600, usegmt=True)
    assert parse(legacy(f"{NOW - 3600 + 40:.0f}"), behind) == Advice(100, 7, 40.0)
    assert parse(legacy(f"{NOW + 40:.0f}"), "yesterday") == Advice(100, 7, 40.0)
    assert parse(legacy("40"), behind) == Advice(100, 7, 40.0), "a length of time has no clock"


def test_a_fraction_of_a_request_is_none() -> None:
    assert parse(legacy("10", remaining="7.9")) == Advice(100, 7, 10.0)


# --- what tells nothing ---


@pytest.mark.parametrize(
    "text",
    ["", "-1", "NaN", "inf", "1e3", "+5", "٣", "0x10", "9" * 4000, "9" * 16, "one", "1 2", "\0",
     "1."],
)  # fmt: skip
def test_what_is_no_count_is_not_believed(text: str) -> None:
    assert parse(legacy("10", remaining=text)) is None
    assert parse(legacy(text)) is None
    assert parse(legacy("10", limit=text)) in (Advice(None, 7, 10.0), Advice(7, 7, 10.0))
    assert parse({"RateLimit": f'"d";r={text};t=10'}) is None
    assert parse({"RateLimit": f"limit=1, remaining={text}, reset=10"}) is None


@pytest.mark.parametrize(
    "text",
    ["", ",", ";", "=", '"', '"d', '"d";', '"d";r', '"d";r=', '"d";r=5', '"d";t=5', "r=5;t=5",
     "5", "limit=", "limit=5", '"d";r="5";t=5', '"d"' + ";r" * 2000, "," * 4000],
)  # fmt: skip
def test_half_a_header_is_none(text: str) -> None:
    assert parse({"RateLimit": text, "RateLimit-Policy": text}) is None


def test_a_reply_without_such_headers() -> None:
    assert parse({}) is None
    assert parse({"Retry-After": "5", "X-Request-Id": "r", "": "x"}) is None


PIECES = st.sampled_from(
    [
        '"',
        "\\",
        ";",
        "=",
        ",",
        " ",
        "r",
        "t",
        "q",
        "w",
        "limit",
        "remaining",
        "reset",
        ":",
        "5",
        ".",
    ]
)
TEXTS = st.one_of(st.text(), st.lists(PIECES).map("".join), st.integers().map(str),
                  st.floats().map(str), st.from_regex(r'"d";r=\d+;t=\d+'))  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES), TEXTS), st.none() | TEXTS)
def test_no_text_raises_and_every_answer_is_in_bounds(
    headers: dict[str, str], date: str | None
) -> None:
    advice = parse(headers, date)
    if advice is not None:
        assert advice.remaining >= 0
        assert 0 <= advice.reset_s <= RESET_CAP_S
        assert advice.limit is None or advice.limit >= 0
