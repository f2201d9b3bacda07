"""What the keys of a destination's guard may hold, and which guard a destination has by itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

from paceline.errors import ConfigProblem
from paceline.guard import Network, parse_networks, refusal

__all__ = ["default_guard", "guard_problems", "guarded_url_problem"]

#: Providers whose URLs are other people's; any other's are the operator's own.
_DEFAULTS: Mapping[str, Literal["off", "public"]] = MappingProxyType({"webhook": "public"})
_MEND = 'Networks and addresses such as "10.1.0.0/16", "127.0.0.1" or "::1"'


def default_guard(provider: str) -> Literal["off", "public"]:
    """`guard` where it is left out."""
    return _DEFAULTS.get(provider, "off")


def guard_problems(
    at: str, values: Mapping[str, Any], urls: Sequence[str]
) -> Iterator[ConfigProblem]:
    """``values`` of the table at ``at``, `guard` among them; ``urls`` are those of the
    destination."""
    allow: list[Network] = []
    for index, text in enumerate(values.get("guard_allow", ())):
        try:
            allow += parse_networks([text])
        except ValueError as error:
            yield ConfigProblem(f"{at}.guard_allow[{index}]", f"is no network: {error}", _MEND)
    if values["guard"] == "off":
        if values.get("guard_allow"):
            yield ConfigProblem(
                f"{at}.guard_allow", 'means nothing with guard = "off"', 'Set guard = "public"'
            )
        return
    if "proxy" in values:
        yield ConfigProblem(
            f"{at}.guard",
            'is "public", which means nothing with proxy: the proxy looks the name up and '
            "connects, so the address is never seen here",
            'Set guard = "off" and let the proxy refuse what is not public, or remove proxy',
        )
        return
    for url in urls:
        problem = guarded_url_problem(url, allow)
        if problem is not None:
            yield ConfigProblem(f"{at}.url", *problem)


def guarded_url_problem(url: str, allow: Sequence[Network]) -> tuple[str, str] | None:
    """Of a URL whose host is a numeric address that `guard = "public"` refuses: (what is wrong
    with it, how to mend it). None for any other, a name among them: its addresses are judged when
    it is connected to."""
    host = _numeric_host(url)
    word = None if host is None else refusal(host, allow)
    if word is None:
        return None
    return (
        f'leads to {host} ({word}), which guard = "public" refuses',
        f'Name it in guard_allow = ["{host}"] if that is meant',
    )


def _numeric_host(url: str) -> str | None:
    """The address that a URL's host is, in whatever form the resolver would take; None for a name,
    or for what is no URL (of which others tell)."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return None
    if ":" in host:
        return host
    try:
        # Decimal, octal, hexadecimal, and with parts left out: 2130706433, 0177.0.0.1, 0x7f.1.
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, ValueError):
        # ValueError: of a character that no host has, or a NUL in it.
        return None
