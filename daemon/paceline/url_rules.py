"""Which URLs requests may go to. Pure."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from paceline.settings_proxy import is_loopback

__all__ = ["url_problem"]

_EXAMPLE = 'For example "https://api.example/Send"'


def url_problem(url: str, allow_plain_http: bool) -> tuple[str, str] | None:
    """(what is wrong with it, how to mend it); None where nothing is."""
    if re.search(r"[\x00-\x20\x7f]", url):
        return "holds a space or control character", "Escape it as %20"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        # Its text quotes what could not be read: of "user:password@host" forms, the password.
        return "is no URL: its host or port cannot be read", _EXAMPLE
    if parts.scheme not in ("http", "https"):
        return "does not begin with https://", _EXAMPLE
    if not host or port == 0:
        return "names no host" if not host else "has the port 0", _EXAMPLE
    if parts.username is not None or parts.password is not None:
        return "holds credentials", "Move them to username and password"
    if parts.fragment:
        return "has a #fragment, which is never sent", "Remove it"
    if parts.scheme == "http" and not allow_plain_http and not is_loopback(host):
        return (
            "is plain http to another machine: credentials and messages would travel readable",
            "Use https://, or set allow_plain_http = true",
        )
    return None
