"""What a destination may fall back to, and what is said of one that cannot."""

from __future__ import annotations

import pytest

from paceline.errors import ConfigError
from paceline.settings_file import loads
from paceline.shared_config import script_numbers

A = '[destinations.a]\nprovider = "http"\nurl = "https://a.example"\nfallback = "b"\n'
B = '[destinations.b]\nprovider = "http"\nurl = "https://b.example"\n'
C = '[destinations.c]\nprovider = "http"\nurl = "https://c.example"\n'
MAXMD = (
    '[destinations.b]\nprovider = "maxmd"\nurl = "https://b.example"\nusername = "u"\n'
    'password = "p"\nmax_payload_bytes = 4194304\n'
)


def problems(text: str) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        loads(text)
    return [(p.key, f"{p.problem}. {p.mend}") for p in caught.value.problems]


def test_it_is_read_shared_and_told_to_the_scripts() -> None:
    a, b = (loads(A + B).destinations[name] for name in "ab")
    assert (a.fallback, b.fallback) == ("b", None)
    assert (a.public()["fallback"], b.public()["fallback"]) == ("b", None)
    assert (script_numbers(a)["fallback"], script_numbers(b)["fallback"]) == ("b", "")


def test_two_may_fall_back_to_one() -> None:
    text = A + B + C + 'fallback = "b"\n'
    assert loads(text).destinations["c"].fallback == "b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (A, "there is no destination 'b' here. Add a table [destinations.b]"),
        (A.replace('"b"', '"bb"') + B, "there is no destination 'bb' here. Did you mean b?"),
        (A.replace('"b"', '"a"'), "names the destination itself"),
        (A + B + 'fallback = "c"\n' + C, "b has a fallback itself (c). Remove that of b"),
        (
            A + B + "max_payload_bytes = 1000\n",
            "max_payload_bytes of b is 1000, below the 4194304 of a. Raise that of b",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_says_how_to_mend_it(text: str, said: str) -> None:
    [(key, told)] = problems(text)
    assert key == "destinations.a.fallback"
    assert told.startswith(said)


def test_two_that_fall_back_to_each_other_are_both_told() -> None:
    found = problems(A + B + 'fallback = "a"\n')
    assert [key for key, _ in found] == ["destinations.a.fallback", "destinations.b.fallback"]


def mail(name: str, provider: str, more: str = "") -> str:
    needed = 'username = "u"\npassword = "p"' if provider == "maxmd" else 'api_key = "k"'
    return (
        f'[destinations.{name}]\nprovider = "{provider}"\nurl = "https://{name}.example"\n'
        f"{'' if provider == 'http' else needed}\nmax_payload_bytes = 1000000\n{more}\n"
    )


@pytest.mark.parametrize("one", ["maxmd", "sparkpost", "mailgun", "http"])
@pytest.mark.parametrize("other", ["maxmd", "sparkpost", "mailgun", "http"])
def test_any_may_fall_back_to_any_but_to_another_provider_with_neutral_e_mails_only(
    one: str, other: str
) -> None:
    settings = loads(mail("a", one, 'fallback = "b"') + mail("b", other))
    a, b = settings.destinations["a"], settings.destinations["b"]
    told = " ".join(settings.warnings)
    assert ("destinations.a: to b only neutral e-mails are moved" in told) == (one != other)
    assert ("die there" in told) == (one != other == "maxmd")
    assert (a.fallback_provider, b.fallback_provider) == (other, None)
    assert a.public()["fallback_provider"] == other
    assert script_numbers(a)["fallback_neutral"] == (one != other)
    assert script_numbers(b)["fallback_neutral"] == 0


def test_one_that_is_wrong_itself_is_not_called_missing() -> None:
    assert [key for key, _ in problems(A + B + "rate = 0\n")] == ["destinations.b.rate"]
