"""Redis clients, built explicitly: time-outs, no silent repeats, bytes in and out.

redis-py repeats a command up to ten times by default, also those that must not be; who may repeat
what is known by the callers of the outbox.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from paceline.errors import ConfigError, ConfigProblem
from paceline.redis_url import UnusableUrl, tls_options

#: Of another's text nothing is shown: it quotes what could not be read, which may be a password.
_UNREADABLE = (
    "its host, port or options cannot be read; in a password write %2F for /, %40 for @, "
    "%23 for # and %3F for ?"
)
_SCHEMES = ("redis://", "rediss://", "unix://", "sentinel+redis://", "sentinel+rediss://")


def connect(
    url: str,
    *,
    name: str = "",
    timeout_s: float = 5.0,
    connect_timeout_s: float = 2.0,
    repeats: int = 0,
) -> redis.Redis:
    """A client for ``redis://``, ``rediss://``, ``unix://``, or
    ``sentinel+redis://host:26379,host:26379/service``. Over TLS the server's certificate is
    verified, and its name, whatever the URL says (redis_url.py).

    ``repeats`` > 0 only where every command sent may be repeated (the producer's enqueue).
    ``name`` is what CLIENT LIST shows. Connects at the first command. Raises ConfigError for a
    URL that cannot be read.
    """
    backoff = ExponentialBackoff(cap=0.5, base=0.05) if repeats else NoBackoff()
    options: dict[str, object] = {
        "decode_responses": False,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": connect_timeout_s,
        "socket_keepalive": True,
        "retry": Retry(backoff, repeats),
        "client_name": name or None,
    }
    try:
        if not url.startswith(_SCHEMES):
            raise UnusableUrl("does not begin as a URL of Redis does")
        options |= tls_options(url)
        if url.startswith("sentinel+"):
            return _through_sentinel(url, options)
        client: redis.Redis = redis.Redis.from_url(url, **options)
    except ValueError as error:
        raise ConfigError(
            [
                ConfigProblem(
                    "redis.url",
                    str(error) if isinstance(error, UnusableUrl) else _UNREADABLE,
                    "Use redis://host:6379/0, rediss://, unix:// or sentinel+redis://",
                )
            ]
        ) from error
    return client


def _through_sentinel(url: str, options: dict[str, object]) -> redis.Redis:
    # urlsplit cannot read several hosts' ports.
    scheme, _, rest = url.removeprefix("sentinel+").partition("://")
    rest, _, query = rest.partition("?")
    authority, _, service = rest.partition("/")
    credentials, _, hosts = authority.rpartition("@")
    if scheme not in ("redis", "rediss") or not service:
        raise UnusableUrl("a Sentinel URL is sentinel+redis://host:26379,host:26379/service")
    pairs = []
    for host in hosts.split(","):
        parts = urlsplit(f"//{host}")
        pairs.append((parts.hostname or "", parts.port or 26379))
    user, _, password = credentials.rpartition(":")
    # Of the query, the files of TLS; the Sentinels themselves are asked over TLS too.
    tls: dict[str, object] = {}
    if scheme == "rediss":
        files = {name: value for name, value in parse_qsl(query) if name.startswith("ssl_")}
        tls = {"ssl": True, **files, **tls_options(f"{scheme}://{rest}")}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        pairs, sentinel_kwargs={"socket_timeout": 1.0, "socket_connect_timeout": 1.0, **tls}
    )
    client: redis.Redis = sentinel.master_for(  # type: ignore[no-untyped-call]
        service,
        username=unquote(user) or None,
        password=unquote(password) or None,
        **{**options, **tls},
    )
    return client
