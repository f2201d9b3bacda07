"""A mailing's later messages are looked at in part only: what is said of one must be what the full
check would have said of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.backoff import POLICIES
from paceline.errors import PayloadError
from paceline_workers.providers.base import Portion
from paceline_workers.providers.mailgun import Mailgun
from paceline_workers.providers.sparkpost import SparkPost
from support.mails import SHORT

Provider = type[SparkPost] | type[Mailgun]
TEXTS = st.sampled_from(["Jane", "", "a\nb", "a\0b", "ü", "{{name}}", "%recipient.name%", "x" * 70])
NAMES = st.sampled_from(["name", "n", "if", "In", "a__b", "a-b", "1", "n" * 65, ""])
ODD = st.dictionaries(NAMES, TEXTS | st.sampled_from([7, None, True, 0.5]), max_size=1)
# Mostly right, with one thing that may be wrong.
VALUES = st.builds(lambda odd: {"name": "Jane", **odd}, ODD) | ODD
ADDRESSES = st.sampled_from(
    [
        *("jane@example.org", "JANE@example.org", "Jane <jane@example.org>", "jane", "a..b@c.org"),
        *("a@b", "ä@b.org", "a@b.org\n", '"Q, Q" <q@b.org>', {"email": "a@b.org", "name": "Ü"}),
        *({"email": "a@b.org", "x": 1}, {"name": "x"}, 5, None, "x" * 65 + "@b.org"),
    ]
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "to": ADDRESSES.map(lambda one: [one]) | st.lists(ADDRESSES, max_size=2),
    "substitution": VALUES,
    "metadata": VALUES,
    "tags": st.lists(TEXTS, max_size=2),
    "text": st.sampled_from(["Dear {{name}}", "Dear {{n}}", "{{", 5]),
    "cc": st.lists(ADDRESSES, max_size=1),
    "subjct": TEXTS,
}
# One field is changed, or two: more faults at once would hide one another.
ONE = st.one_of([st.fixed_dictionaries({name: values}) for name, values in FIELDS.items()])
DIFFERENT = st.builds(lambda one, other: {**one, **other}, ONE, ONE | st.just({}))


def payload(changes: dict[str, Any]) -> bytes:
    return json.dumps({"email": {**SHORT, **changes}}, ensure_ascii=False).encode()


def said(profile: SparkPost | Mailgun, body: bytes) -> Portion | str | None:
    try:
        return profile.portion(body)
    except PayloadError as error:
        return error.field


@settings(max_examples=150)
@given(st.lists(DIFFERENT, min_size=1, max_size=6))
@pytest.mark.parametrize("provider", [SparkPost, Mailgun])
def test_what_is_known_of_others_changes_nothing(
    provider: Provider, messages: list[dict[str, Any]]
) -> None:
    known = provider(policy=POLICIES["http"])
    for changes in [{}, *messages, *messages]:
        body = payload(changes)
        assert said(known, body) == said(provider(policy=POLICIES["http"]), body)
