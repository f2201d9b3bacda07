"""One URL from what the configuration says apart."""

from __future__ import annotations

import pytest

from paceline.errors import ConfigProblem
from paceline.redis_url import completed


@pytest.mark.parametrize(
    ("url", "given", "wanted"),
    [
        ("redis://h:1/0", {}, "redis://h:1/0"),
        ("redis://h:1/0", {"username": "w", "password": "p@/?"}, "redis://w:p%40%2F%3F@h:1/0"),
        ("redis://h:1/0", {"password": "p"}, "redis://:p@h:1/0"),
        ("redis://a:b@h:1/0", {"username": "w", "password": "p"}, "redis://a:b@h:1/0"),
        ("redis://a@h:1/0", {"username": "w", "password": "p"}, "redis://a:p@h:1/0"),
        ("unix:///s?password=x", {"username": "w", "password": "p"}, "unix:///s?password=x"),
        ("rediss://h:1/0?db=1", {"ca_file": "/c a"}, "rediss://h:1/0?db=1&ssl_ca_certs=%2Fc+a"),
        ("rediss://h/0?ssl_ca_certs=/x", {"ca_file": "/y"}, "rediss://h/0?ssl_ca_certs=/x"),
        (
            "sentinel+rediss://h:1,i:2/m",
            {"password": "p", "cert_file": "c", "key_file": "k"},
            "sentinel+rediss://:p@h:1,i:2/m?ssl_certfile=c&ssl_keyfile=k",
        ),
    ],
)
def test_completed_once_and_for_all(url: str, given: dict[str, str], wanted: str) -> None:
    problems: list[ConfigProblem] = []
    once = completed(url, problems, **given)
    assert (once, problems) == (wanted, [])
    assert completed(once, problems, **given) == once


@pytest.mark.parametrize(
    ("url", "given", "key"),
    [
        ("redis://h:1/0", {"ca_file": "c"}, "redis.ca_file"),
        ("rediss://h:1/0", {"cert_file": "c"}, "redis.key_file"),
        ("rediss://h:1/0", {"key_file": "c"}, "redis.cert_file"),
        ("redis://h:1/0", {"username": "u"}, "redis.username"),
    ],
)
def test_what_does_not_go_together(url: str, given: dict[str, str], key: str) -> None:
    problems: list[ConfigProblem] = []
    completed(url, problems, **given)
    assert [problem.key for problem in problems] == [key]
