"""What must not be read in a log: credentials, and texts that may quote a message. Pure."""

from __future__ import annotations

import json
import re
import traceback
from base64 import b64encode
from types import TracebackType
from urllib.parse import quote, quote_plus, unquote

_COVER = "***"
#: A shorter value would blot out half of every line, and protects nothing.
_LEAST_LETTERS = 4

#: ``scheme://user:password@``: to the last "@", for a password may hold an unescaped one.
_USERINFO = re.compile(r"(?<=://)[^\s\"'<>]*@")
#: Values of a query, whether or not the rest of the URL stands before it: keys are sent there.
_QUERY = re.compile(r"(?<=[?&])([\w.~%-]+)=[^&\s\"'<>)]+")
_NAMED = re.compile(
    r"(?i)(?P<name>\b(?:password|passwd|passphrase|secret|token|api[_-]?key)[\"']?\s*)"
    r"(?:=\s*|(?<=[\"'])\s*:\s*|(?<=[\"']\s)\s*:\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s,;&)}\]]+)"
)
_HEADER = re.compile(r"(?i)(authorization[\"']?\s*[:=]\s*[\"']?)(?:[a-z]+ +)?[^\s\"',]+")
_SCHEME = re.compile(r"\b((?i:basic|bearer) +)[A-Za-z0-9+/=._~-]{16,}")

#: Errors whose text is the system's, Redis's or Python's own. Of others it is left out: a
#: ValueError quotes what it could not read, a KeyError the key: that may be out of a message.
_TELLING = (
    OSError, AttributeError, TypeError, NameError, ArithmeticError, RecursionError, MemoryError,
    NotImplementedError, ImportError,
)  # fmt: skip
_TELLING_MODULES = ("redis.", "paceline.errors", "paceline.embedded")
_LEFT_OUT = "(its text is left out: it may quote a message)"
_QUOTING = ("InvalidMessage", "PayloadError", "MessageTooLarge")


class Veil:
    """Covers what is known to be secret, and what looks like it."""

    def __init__(self) -> None:
        self._known: re.Pattern[str] | None = None
        self._values: set[str] = set()

    def hide(self, *values: str) -> None:
        """These are secrets from now on, in the spellings in which they may turn up too."""
        for value in values:
            spellings = {value, unquote(value), quote(value, safe=""), quote_plus(value)}
            spellings |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
            spellings |= {repr(value)[1:-1], repr(value.encode())[2:-1]}
            self._values |= {s for s in spellings if len(s) >= _LEAST_LETTERS}
        if self._values:
            longest_first = sorted(self._values, key=len, reverse=True)
            self._known = re.compile("|".join(map(re.escape, longest_first)))

    def hide_login(self, username: str, password: str) -> None:
        """A password, and what HTTP Basic makes of the two."""
        pair = f"{username}:{password}"
        self.hide(password, b64encode(pair.encode()).decode("ascii"))

    def cover(self, text: str) -> str:
        """The text without secrets."""
        return redact(self.cover_known(text))

    def cover_known(self, text: str) -> str:
        """The text without the secrets that are known; what looks like others stays."""
        return text if self._known is None else self._known.sub(_COVER, text)


def redact(text: str) -> str:
    """The text without what looks like a credential: in URLs, headers, ``password=…``."""
    text = _USERINFO.sub(_COVER + "@", text)
    text = _QUERY.sub(r"\1=" + _COVER, text)
    text = _HEADER.sub(r"\1" + _COVER, text)
    text = _SCHEME.sub(r"\1" + _COVER, text)
    return _NAMED.sub(r"\g<name>=" + _COVER, text)


def url_password(url: str) -> str | None:
    """The password in a Redis URL of any kind, as it stands there; None where there is none."""
    rest = url.partition("://")[2]
    userinfo, at, _ = rest.rpartition("@")
    _, colon, password = userinfo.partition(":")
    if at and colon and password:
        return password
    found = re.search(r"[?&]password=([^&]+)", rest)
    return found[1] if found else None


def trace(error: BaseException, at: TracebackType | None) -> str:
    """A traceback that quotes nobody: frames and types of the whole chain, and the text of those
    errors only whose text is not made of what they were given."""
    lines: list[str] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        frames = traceback.format_tb(at if link is error else link.__traceback__)
        lines.insert(0, "".join(frames) + error_text(link))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "\nwhich led to:\n".join(lines)


def error_text(error: BaseException) -> str:
    """The error's type, and its text where that cannot quote a message."""
    kind = type(error)
    name = kind.__qualname__
    module = "" if kind.__module__ == "builtins" else kind.__module__ + "."
    text = str(error)
    ours = (kind.__module__ + ".").startswith(_TELLING_MODULES) and name not in _QUOTING
    telling = ours or (isinstance(error, _TELLING) and not isinstance(error, ValueError))
    if not text:
        return module + name
    return f"{module}{name}: {text if telling else _LEFT_OUT}"
