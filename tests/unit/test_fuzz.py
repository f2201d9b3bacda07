"""Bytes that others wrote, to everything that reads them (`tests/fuzz`): seeds with pieces taken
out, repeated, exchanged for words that matter. ``PACELINE_HYPOTHESIS=long`` tries much more."""

from __future__ import annotations

import os
from functools import reduce

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS, Target

LONG = os.environ.get("PACELINE_HYPOTHESIS") == "long"
QUICK = settings(
    max_examples=20_000 if LONG else 40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

Change = tuple[float, float, bytes]


def _changed(data: bytes, change: Change) -> bytes:
    at, upto, piece = change
    begin, end = sorted((int(at * len(data)), int(upto * len(data))))
    return data[:begin] + piece + data[end:]


def bytes_for(target: Target) -> st.SearchStrategy[bytes]:
    place = st.floats(0, 1, allow_nan=False)
    word = st.sampled_from([*target.words, b"", b"\0", b"\xff"]) | st.binary(max_size=8)
    near = st.tuples(place, st.floats(0, 0.1)).map(lambda t: (t[0], min(1.0, t[0] + t[1])))
    change = st.builds(lambda span, piece: (*span, piece), near, word)
    return st.builds(
        lambda seed, changes: reduce(_changed, changes, seed),
        st.sampled_from(list(target.seeds)),
        st.lists(change, min_size=1, max_size=5),
    ) | st.binary(max_size=200)


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_the_bytes(name: str) -> None:
    target = TARGETS[name]
    for seed in target.seeds:
        target.run(seed)
    for word in target.words:
        target.run(word)

    @QUICK
    @given(bytes_for(target))
    def whatever(data: bytes) -> None:
        target.run(data)

    whatever()
