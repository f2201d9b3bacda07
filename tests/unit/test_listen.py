"""Addresses to listen on, as text."""

from __future__ import annotations

import pytest

from paceline.errors import ConfigError
from paceline.listen import DEFAULT_LISTEN, Listen, parse_listen
from paceline.settings_file import loads

DESTINATION = '[destinations.d]\nprovider = "http"\nurl = "https://api.example/"\n'


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:9108", "127.0.0.1", 9108, True),
        ("localhost:0", "localhost", 0, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("[::1]:9108", "::1", 9108, True),
        ("[::]:65535", "::", 65535, False),
        ("exporter_1.internal:9108", "exporter_1.internal", 9108, False),
    ],
)
def test_addresses(text: str, host: str, port: int, loopback: bool) -> None:
    found = parse_listen(text)
    assert found == Listen(host, port, named=True)
    assert found.is_loopback is loopback
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    ["", "9108", ":9108", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:9108", "[::g]:1",
     "http://127.0.0.1:9108", "a b:1", "127.0.0.1:9108\n", "OFF"],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError):
        parse_listen(text)


def test_off_is_nowhere() -> None:
    assert parse_listen("off") is None


def test_the_configuration_names_it() -> None:
    assert loads(DESTINATION).exporter.listen == DEFAULT_LISTEN
    assert not DEFAULT_LISTEN.named
    assert DEFAULT_LISTEN.is_loopback
    chosen = loads('[exporter]\nlisten = "127.0.0.1:9108"\n' + DESTINATION).exporter.listen
    assert chosen == Listen("127.0.0.1", 9108, named=True)
    assert loads('[exporter]\nlisten = "off"\n' + DESTINATION).exporter.listen is None


@pytest.mark.parametrize(
    ("table", "key"), [('listen = "9108"', "exporter.listen"), ("listen = 9108", "exporter.listen"),
                       ('lisen = "off"', "exporter.lisen")],
)  # fmt: skip
def test_a_wrong_one_is_named_with_its_mend(table: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(f"[exporter]\n{table}\n" + DESTINATION)
    assert [problem.key for problem in caught.value.problems] == [key]
    assert caught.value.problems[0].mend
