"""The fault language, scripts, and reproducible draws."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.sink.draw import draws
from paceline.sink.faults import FaultSpecError, parse_fault, parse_faults
from paceline.sink.latency import parse_latency
from paceline.sink.player import Player
from paceline.sink.script import Script, load_script
from paceline.sink.spec import SpecError


def test_a_mix_is_read_with_shares_options_and_labels() -> None:
    mix = parse_faults("503:1%,429:2%:retry_after=1, hang:0.5%:for=3s ,business=3:1%")
    assert [fault.label for fault in mix.faults] == ["503", "429", "hang", "business=3"]
    assert mix.bounds == pytest.approx((0.01, 0.03, 0.035, 0.045))
    assert mix.faults[1].retry_after == "1"
    assert mix.faults[2].for_s == 3.0


def test_a_quantile_falls_into_the_piece_that_owns_it() -> None:
    mix = parse_faults("503:10%,reset_after:20%")

    def label(u: float) -> str | None:
        fault = mix.at(u)
        return fault.label if fault else None

    assert [label(u) for u in (0.05, 0.0999, 0.1001, 0.29, 0.31, 0.99)] == [
        "503",
        "503",
        "reset_after",
        "reset_after",
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("text", "acted"),
    [
        ("503", False),
        ("504:acted=yes", True),
        ("reset_before", False),
        ("reset_after", True),
        ("reset_after:acted=no", False),
        ("eof_before", False),
        ("eof_after", True),
        ("hang", True),
        ("drip", True),
        ("garbage", True),
        ("business=999", False),
        ("redirect", False),
        ("huge=1kB", True),
        ("ok", True),
    ],
)
def test_whether_the_provider_acted(text: str, acted: bool) -> None:
    assert parse_fault(text).acted is acted


def test_option_values_may_be_percent_encoded() -> None:
    fault = parse_fault("429:body=%7B%22a%22%3A1%2C%22b%22%3A2%7D")
    assert fault.body is not None
    assert json.loads(fault.body) == {"a": 1, "b": 2}
    dated = parse_fault("503:retry_after=Wed%2C 21 Oct 2015 07%3A28%3A00 GMT")
    assert dated.retry_after == "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("503:1%,foo:1%", r'piece 2 of 2, "foo:1%": unknown kind "foo"; allowed: .*reset_before'),
        ("503:1", r'"1" is not a share; write 0% to 100%'),
        ("503:x%", r'"x%" is not a share'),
        ("503:101%", "0% to 100%"),
        ("503:1%:2%", "two shares"),
        ("99", "200 to 599"),
        ("status", "needs a value"),
        ("503:for=3s", r'no option "for"; its options: retry_after, body, acted'),
        ("reset_before:acted=yes", 'no option "acted"; its options: none'),
        ("hang:for=3", r'"3" is not a duration'),
        ("hang:for=3s:for=4s", "given twice"),
        ("hang=3", "takes no value"),
        ("garbage=foo", "html, truncated, empty, binary"),
        ("redirect=200", "301, 302, 303, 307, 308"),
        ("huge=16", "is not a size"),
        ("503:acted=maybe", "neither yes nor no"),
        ("429:retry_after=soon", "neither whole seconds"),
        ("redirect:location=/a%0D%0AX%3Ay", "cannot stand in a header"),
        ("503:60%,500:50%", "sum to 110%"),
        ("503,500:1%", "a piece without a share counts as 100%"),
    ],
)
def test_a_spec_that_cannot_be_read_says_where_and_what_is_allowed(text: str, says: str) -> None:
    with pytest.raises(FaultSpecError, match=says):
        parse_faults(text)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="503:%=,.ahngdripfoestu_ \n", max_size=30))
def test_no_text_raises_anything_but_a_spec_error(text: str) -> None:
    for parse in (parse_faults, parse_latency):
        with suppress(SpecError):
            parse(text)


def test_a_single_fault_takes_no_share() -> None:
    with pytest.raises(FaultSpecError, match="certain"):
        parse_fault("503:1%")


def labels(script: Script, ids: list[str | None]) -> list[str | None]:
    return [fault.label if (fault := script.play(i)) else None for i in ids]


def test_a_script_plays_by_order_of_arrival_and_then_is_silent() -> None:
    script = Script(["ok", "503*2", "hang"])
    assert labels(script, [None, "a", "b", "a", "c"]) == ["ok", "503", "503", "hang", None]


def test_a_script_plays_by_id_and_occurrence() -> None:
    script = Script({"a": ["503", "ok"], "b": ["500*"], "*": ["429"]})
    played = labels(script, ["b", "a", "c", "b", "a", "d", "b", "a"])
    assert played == ["500", "503", "429", "500", "ok", None, "500", None]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('["503", "foo"]', 'entry 2: fault "foo"'),
        ('{"a": "503"}', 'script "a": expected a list'),
        ("[503]", "entry 1 is not a text but 503"),
        ("{", "script file"),
        ("7", "expected a list"),
    ],
)
def test_a_script_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: str, says: str
) -> None:
    path = tmp_path / "script.json"
    path.write_text(content)
    with pytest.raises(FaultSpecError, match=says) as caught:
        load_script(path)
    assert str(path) in str(caught.value)


def play(seed: int, order: list[str]) -> dict[str, list[tuple[str | None, float]]]:
    """What each id met, in the order of its own tries."""
    mix = parse_faults("503:20%,reset_after:20%,429:10%")
    player = Player(seed, mix, parse_latency("lognormal:40ms:0.5"))
    met: dict[str, list[tuple[str | None, float]]] = {}
    for number, message_id in enumerate(order):
        fault, latency_s = player.decide(message_id, number)
        met.setdefault(message_id, []).append((fault.label if fault else None, latency_s))
    return met


def test_the_same_seed_plays_the_same_faults_whatever_the_order() -> None:
    order = [f"id-{n}" for n in range(100)] * 3
    expected = play(7, order)
    for shuffle in range(3):
        shuffled = order.copy()
        random.Random(shuffle).shuffle(shuffled)
        assert play(7, shuffled) == expected
    assert play(8, order) != expected
    tries = {tuple(label for label, _ in met) for met in expected.values()}
    assert len(tries) > 10, "each try is drawn anew"


def test_anonymous_arrivals_draw_by_number_and_apart_from_ids() -> None:
    assert draws(1, None, 7) == draws(1, None, 7)
    others = [draws(1, None, 8), draws(1, "", 7), draws(1, "7", 0), draws(1, "7", 7)]
    assert len({draws(1, None, 7), *others}) == 5


def test_a_rewound_player_repeats_itself() -> None:
    player = Player(7, parse_faults("503:50%"), parse_latency(""))
    first = [player.decide("a", n)[0] for n in range(20)]
    player.rewind()
    assert [player.decide("a", n)[0] for n in range(20)] == first
    assert len(set(first)) == 2


def test_shares_are_met() -> None:
    mix = parse_faults("503:1%,reset_after:10%")
    hits = [mix.at(draws(3, f"id-{n}", 0)[0]) for n in range(20_000)]
    played = [fault.label for fault in hits if fault]
    assert played.count("503") == pytest.approx(200, rel=0.25)
    assert played.count("reset_after") == pytest.approx(2000, rel=0.1)


def test_an_order_for_the_next_arrivals_comes_before_script_and_mix() -> None:
    player = Player(0, parse_faults("500"), parse_latency(""))
    player.set_script(["503"])
    player.set_next(2, parse_fault("429"))
    played = [fault.label if (fault := player.decide("a", n)[0]) else None for n in range(4)]
    assert played == ["429", "429", "503", "500"]
    player.rewind()
    fault, _ = player.decide("a", 0)
    assert fault is not None
    assert fault.label == "503"
