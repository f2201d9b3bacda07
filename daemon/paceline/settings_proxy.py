"""What the keys of a destination's proxy may hold."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from paceline.errors import ConfigProblem

__all__ = ["is_loopback", "proxy_problems"]

_EXAMPLE = 'For example "http://proxy.example:3128"'


def proxy_problems(
    at: str, values: Mapping[str, Any], urls: Sequence[str]
) -> Iterator[ConfigProblem]:
    """``values`` of the table at ``at``; ``urls`` are those of the destination."""
    proxy = values.get("proxy")
    keys = [key for key in ("proxy_username", "proxy_password") if key in values]
    if proxy is None:
        if keys:
            yield ConfigProblem(f"{at}.{keys[0]}", "means nothing without proxy", _EXAMPLE)
        return
    if len(keys) == 1:
        other = "proxy_password" if keys[0] == "proxy_username" else "proxy_username"
        yield ConfigProblem(f"{at}.{other}", f"missing beside {keys[0]}", "Give both or neither")
    problem = _problem(proxy)
    if problem is not None:
        yield ConfigProblem(f"{at}.proxy", *problem)
        return
    plain = any(url.lower().startswith("http://") for url in urls)
    host = urlsplit(proxy).hostname or ""
    if plain and not values.get("allow_plain_http", False) and not is_loopback(host):
        yield ConfigProblem(
            f"{at}.proxy",
            "is another machine, and would be given plain http: credentials and messages would "
            "travel readable",
            "Use an https:// url, or set allow_plain_http = true",
        )


def _problem(proxy: str) -> tuple[str, str] | None:
    if re.search(r"[\x00-\x20\x7f-\U0010ffff]", proxy):
        return "holds a space, or a character that is not ASCII", _EXAMPLE
    try:
        parts = urlsplit(proxy)
        host, port = parts.hostname, parts.port
    except ValueError:
        # Its text quotes what could not be read, which may be a password.
        return "is no URL: its host or port cannot be read", _EXAMPLE
    if parts.scheme != "http":
        return "does not begin with http://, the only kind of proxy that is spoken to", _EXAMPLE
    if not host or port == 0:
        return "names no host" if not host else "has the port 0", _EXAMPLE
    if parts.username is not None or parts.password is not None:
        return "holds credentials", "Move them to proxy_username and proxy_password"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return "holds more than host and port", _EXAMPLE
    return None


def is_loopback(host: str) -> bool:
    """Whether a URL's host is this machine, by its name alone."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
