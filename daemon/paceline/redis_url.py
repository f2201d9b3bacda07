"""The URL of Redis with all that a connection needs: login, and the files of TLS. Pure.

One text, because every client is built from it, in every process. Files stand in it as redis-py
reads them: ``rediss://host:6380/0?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem``.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, urlencode

from paceline.errors import ConfigProblem

__all__ = ["UnusableUrl", "completed", "tls_options"]

#: Key of the configuration -> of the URL.
_FILES = {"ca_file": "ssl_ca_certs", "cert_file": "ssl_certfile", "key_file": "ssl_keyfile"}
_TLS = ("rediss", "sentinel+rediss")
#: What would let anybody answer in Redis's place.
_WEAKER = {"ssl_cert_reqs": "required", "ssl_check_hostname": "true"}


class UnusableUrl(ValueError):
    """A URL that nobody is to connect by. Its text is ours, and shows nothing secret."""


def completed(
    url: str,
    problems: list[ConfigProblem],
    *,
    username: str | None = None,
    password: str | None = None,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
) -> str:
    """``url`` with what it does not say itself; `problems` grows where they do not go together."""
    files = {"ca_file": ca_file, "cert_file": cert_file, "key_file": key_file}
    given = {key: value for key, value in files.items() if value is not None}
    scheme, _, rest = url.partition("://")
    if given and scheme not in _TLS:
        mend = "Write rediss:// (or sentinel+rediss://), or leave it out"
        problems.extend(
            ConfigProblem(f"redis.{key}", "the URL is not one of TLS", mend) for key in given
        )
        return url
    if (cert_file is None) != (key_file is None):
        missing, other = ("key", "cert") if key_file is None else ("cert", "key")
        problems.append(
            ConfigProblem(
                f"redis.{missing}_file",
                f"missing, beside {other}_file",
                "Give both: a certificate is shown with its key",
            )
        )
        return url
    place, mark, query = rest.partition("?")
    user, at, host = place.rpartition("@")
    if password is not None and ":" not in user and "password=" not in query:
        named = user if at else quote(username or "", safe="")
        place = f"{named}:{quote(password, safe='')}@{host}"
    elif username is not None and password is None:
        problems.append(
            ConfigProblem("redis.username", "has no password", 'Add password = { file = "…" }')
        )
    stated = dict(parse_qsl(query))
    more = {_FILES[key]: value for key, value in given.items() if _FILES[key] not in stated}
    joined = "&".join(filter(None, (query, urlencode(more))))
    return f"{scheme}://{place}" + (f"?{joined}" if mark or joined else "")


def tls_options(url: str) -> dict[str, object]:
    """What a client of this URL is built with beyond it: nothing but for TLS.

    Raises UnusableUrl for a URL that wants less than to be sure who answers.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in _TLS:
        return {}
    for name, value in parse_qsl(rest.partition("?")[2]):
        if value.lower() != _WEAKER.get(name, value.lower()):
            raise UnusableUrl(f"{name}={value} lets anybody answer in Redis's place; leave it out")
    return {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
