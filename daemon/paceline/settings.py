"""The configuration as frozen values.

::

    [redis]                                    # may be left out: the embedded server
    url = "redis://127.0.0.1:6379/0"           # rediss://, unix://, sentinel+redis://h:p,h:p/name
    [destinations.maxmd]
    provider = "maxmd"
    url = "https://api.example/Send"           # or a list: the load is spread
    rate = 90                                  # requests per second
    burst = 150
    username = "acme"
    password = { env = "MAXMD_PASSWORD" }      # or { file = "…" }

`settings_file` reads it, and reports **all** that is wrong in one `ConfigError`: each problem with
its dotted key, what is wrong and how to mend it. Nothing here reads the environment: secrets are
revealed where a worker starts. Which keys there are, and what they may hold, is in
`settings_tables.py`; what may not be combined, in `settings_checks.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from paceline.backoff import DEFAULT_POLICY, RetryPolicy
from paceline.listen import DEFAULT_LISTEN, Listen
from paceline.pressure import Limits
from paceline.secrets_ import Secret

__all__ = [
    "LEAST_LEASE_S",
    "Destination",
    "Endpoints",
    "Events",
    "ExporterSettings",
    "ItemsRule",
    "Merge",
    "RedisSettings",
    "ReplyRule",
    "Settings",
    "SuccessRule",
    "Tenant",
    "default_batch",
    "without_query_values",
]

# Below this a worker that is merely busy would lose what it holds.
LEAST_LEASE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """url: where Redis is, None for the embedded server; appendfsync: of the embedded server;
    limits: what all destinations together may put there.

    The others are put into the URL when a process starts (redis_url.py).
    """

    url: str | None = field(default=None, repr=False)
    username: str | None = None
    password: Secret | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    appendfsync: Literal["always", "everysec"] = "always"
    limits: Limits = field(default=Limits())

    @property
    def shown_url(self) -> str:
        """The URL without its password, for logs and `status`."""
        if self.url is None:
            return "embedded"
        # Greedy: a password may hold an unescaped "@", and must not be cut in half.
        return re.sub(r"(?<=://).*@", "***@", re.sub(r"(?<=password=)[^&]*", "***", self.url))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExporterSettings:
    """listen: where the metrics are, None for nowhere."""

    listen: Listen | None = DEFAULT_LISTEN


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessRule:
    """When the `http` profile takes a reply for "sent".

    statuses    "200" or classes such as "2xx"; other 2xx replies are ambiguous
    pointer     JSON pointer (RFC 6901) into the reply's body that must hold `equals`, or None
    id_pointer  JSON pointer to the provider's id of the message, or None
    id_header   header that holds that id, or None
    """

    statuses: tuple[str, ...] = ("2xx",)
    pointer: str | None = None
    equals: Any = None
    id_pointer: str | None = None
    id_header: str | None = None


DEFAULT_SUCCESS = SuccessRule()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyRule:
    """Replies of the `http` profile that mean something by their status and body together.

    status   "403", or a class such as "4xx"
    text     the body must hold it, in whatever case; None: any body
    pointer  JSON pointer into the body that must hold `equals`, or None
    outcome  as in `outcomes`, or "sent"
    """

    status: str
    outcome: str
    text: str | None = None
    pointer: str | None = None
    equals: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsRule:
    """What a reply of the `http` profile says of each message, where it means success as a whole.

    pointer       JSON pointer to the array in it, one item for each message, in their order
    success, equals   JSON pointer into an item, and what it must hold there
    id_pointer    JSON pointer into an item to the provider's id, or None
    code_pointer  JSON pointer into an item to the code that `outcomes` knows, or None
    outcomes      code -> outcome; any other failed item is rejected
    """

    pointer: str
    success: str
    equals: Any
    id_pointer: str | None = None
    code_pointer: str | None = None
    outcomes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant's part of a destination.

    weight  its share beside the others that have something to send
    rate    at most so many messages/s are taken for it, 0 for no cap; burst: at once
    """

    weight: float = 1.0
    rate: float = 0.0
    burst: int = 1


@dataclass(frozen=True, slots=True)
class Merge:
    """Many messages in one request.

    most          members in one request at most; 1: each message goes alone
    max_bytes     of a merged request's body; a message that is larger goes alone
    linger_s      how long a group that is not full waits for more, in seconds
    on_ambiguous  of a merged request that may have been processed: "retry" it whole, or "park" its
                  members for a person's decision
    array         of the `http` profile: JSON pointer to the array in which messages that are equal
                  in all else are put together; "" makes the body an array of the payloads; None
                  where it does not merge
    """

    most: int = 1
    max_bytes: int = 10 * 1024**2
    linger_s: float = 0.2
    on_ambiguous: Literal["retry", "park"] = "park"
    array: str | None = None


@dataclass(frozen=True, slots=True)
class Events:
    """Which events of the messages are written to the destination's stream.

    kinds      names of `paceline.events.KINDS`; none: events are off
    max_count  about how many are kept
    max_age_s  for how long they are kept, in seconds

    deliver_to        the destination whose URL is told of them, None for none
    deliver_kinds     of which kinds; none: of all that are written
    deliver_batch     at most so many events in one message
    deliver_linger_s  how long a message that is not full waits for more, in seconds
    """

    kinds: tuple[str, ...] = ()
    max_count: int = 100_000
    max_age_s: float = 24 * 3600.0
    deliver_to: str | None = None
    deliver_kinds: tuple[str, ...] = ()
    deliver_batch: int = 100
    deliver_linger_s: float = 1.0

    def public(self) -> dict[str, Any]:
        """As JSON has it."""
        lists = {"kinds": list(self.kinds), "deliver_kinds": list(self.deliver_kinds)}
        return {**asdict(self), **lists}


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Many endpoints behind one destination, each registered under its name (`endpoints.py`).

    in_flight        requests to one endpoint at the same time, over all workers
    rate, burst      requests per second to one endpoint, 0 for no cap; and at once
    disable_after_s  one that has only failed for so long is disabled
    secrets_dir      a folder with a file for each endpoint, of its name: its keys, the newest
                     first, a line each; None: keys are derived from the destination's `secrets`
    """

    in_flight: int = 4
    rate: float = 0.0
    burst: int = 1
    disable_after_s: float = 5 * 86_400.0
    secrets_dir: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One provider account. Times in seconds, sizes in bytes, `rate` in requests per second."""

    name: str
    provider: str
    urls: tuple[str, ...] = field(repr=False)
    rate: float = 90.0
    burst: int = 150
    connections: int = 10
    reserve: int = 5
    pace: Literal["adaptive", "fixed"] = "adaptive"
    probe_after_s: float = 30.0
    bytes_per_s: int = 0
    fallback: str | None = None
    # Of the destination it names, no key of its own.
    fallback_provider: str | None = None
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 30.0
    total_timeout_s: float = 35.0
    lease_s: float = 8.0
    max_payload_bytes: int = 4 * 1024**2
    max_messages: int = 1_000_000
    max_bytes: int = 4 * 1024**3
    max_age_s: float = 72 * 3600.0
    record_ttl_s: float = 24 * 3600.0
    connection_idle_s: float = 20.0
    connection_max_age_s: float = 900.0
    connection_max_requests: int = 10_000
    username: Secret | None = None
    password: Secret | None = None
    headers: Mapping[str, Secret] = field(default_factory=dict)
    retry: RetryPolicy = DEFAULT_POLICY
    id_header: str = "Paceline-Message-Id"
    allow_plain_http: bool = False
    ca_file: str | None = None
    proxy: str | None = None
    proxy_username: Secret | None = None
    proxy_password: Secret | None = None
    guard: Literal["off", "public"] = "off"
    guard_allow: tuple[str, ...] = ()
    gzip_from_bytes: int = 0
    redact: tuple[str, ...] = ()
    method: str = "POST"
    body: Literal["json", "form"] = "json"
    success: SuccessRule = DEFAULT_SUCCESS
    outcomes: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, ReplyRule] = field(default_factory=dict)
    items: ItemsRule | None = None
    idempotency_key: Literal["bare", "quoted", "off"] = "bare"
    api_key: Secret | None = None
    # The newest first; every request is signed with each of them.
    secrets: tuple[Secret, ...] = ()
    subaccount: int | None = None
    business_errors: Literal["retry", "reject"] = "retry"
    poll_status_after_s: float = 0.0
    # What is retried with an idempotency key is not sent twice.
    merge: Merge = field(default=Merge(on_ambiguous="retry"))
    events: Events = field(default=Events())
    endpoints: Endpoints | None = None

    @property
    def effective_connections(self) -> int:
        """Connections really used: the bucket holds burst − connections, and beyond the reserve
        one permit must be left that ordinary messages may draw."""
        return max(1, min(self.connections, self.burst - 1 - self.reserve))

    @property
    def heartbeat_s(self) -> float:
        """Seconds between a worker's heartbeats: several fit into a lease, so that one may fail."""
        return min(1.0, self.lease_s / 5)

    @property
    def batch(self) -> int:
        """Messages one job takes together."""
        return default_batch(self.rate, self.burst)

    def public(self) -> dict[str, Any]:
        """A copy for Redis and for people: plain JSON types, no secrets.

        Of a secret only whether there is one: where it comes from may differ between hosts.
        Values in the URLs' queries are left out too, for keys are sometimes sent there.
        """
        return {
            "name": self.name,
            "provider": self.provider,
            "urls": [without_query_values(url) for url in self.urls],
            "rate": self.rate,
            "burst": self.burst,
            "connections": self.connections,
            "effective_connections": self.effective_connections,
            "reserve": self.reserve,
            "pace": self.pace,
            "probe_after_s": self.probe_after_s,
            "bytes_per_s": self.bytes_per_s,
            "fallback": self.fallback,
            "fallback_provider": self.fallback_provider,
            "tenants": {name: asdict(tenant) for name, tenant in sorted(self.tenants.items())},
            "batch": self.batch,
            "connect_timeout_s": self.connect_timeout_s,
            "read_timeout_s": self.read_timeout_s,
            "total_timeout_s": self.total_timeout_s,
            "lease_s": self.lease_s,
            "max_payload_bytes": self.max_payload_bytes,
            "max_messages": self.max_messages,
            "max_bytes": self.max_bytes,
            "max_age_s": self.max_age_s,
            "record_ttl_s": self.record_ttl_s,
            "connection_idle_s": self.connection_idle_s,
            "connection_max_age_s": self.connection_max_age_s,
            "connection_max_requests": self.connection_max_requests,
            "username": self.username is not None,
            "password": self.password is not None,
            "headers": sorted(self.headers, key=str.lower),
            "retry": {**asdict(self.retry), "wait_503_s": list(self.retry.wait_503_s)},
            "id_header": self.id_header,
            "allow_plain_http": self.allow_plain_http,
            "guard": self.guard,
            "guard_allow": list(self.guard_allow),
            "gzip_from_bytes": self.gzip_from_bytes,
            "redact": list(self.redact),
            "method": self.method,
            "body": self.body,
            "success": {**asdict(self.success), "statuses": list(self.success.statuses)},
            "outcomes": dict(sorted(self.outcomes.items())),
            # A list: their order means something.
            "rules": [{"name": name, **asdict(rule)} for name, rule in self.rules.items()],
            "items": None if self.items is None else _items_public(self.items),
            "idempotency_key": self.idempotency_key,
            "api_key": self.api_key is not None,
            # Not how many: while they are replaced, hosts may differ.
            "secrets": bool(self.secrets),
            "subaccount": self.subaccount,
            "business_errors": self.business_errors,
            "poll_status_after_s": self.poll_status_after_s,
            "merge": asdict(self.merge),
            "events": self.events.public(),
            "endpoints": None if self.endpoints is None else _endpoints_public(self.endpoints),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A whole configuration. `warnings`: lines for people, about what was adjusted."""

    redis: RedisSettings
    destinations: Mapping[str, Destination]
    exporter: ExporterSettings = field(default_factory=ExporterSettings)
    warnings: tuple[str, ...] = ()


def default_batch(rate: float, burst: int | None = None) -> int:
    """Messages per batch: 100 to 500, one second of the rate; below 50/s two seconds of it.

    Never more than the burst, where that is given: a batch is taken to be sent soon.
    """
    size = min(500.0, max(min(100.0, 2 * rate), rate))
    return max(1, min(math.ceil(size), 500 if burst is None else burst))


def _items_public(items: ItemsRule) -> dict[str, Any]:
    return {
        "pointer": items.pointer,
        "success": items.success,
        "equals": items.equals,
        "id_pointer": items.id_pointer,
        "code_pointer": items.code_pointer,
        "outcomes": dict(sorted(items.outcomes.items())),
    }


def _endpoints_public(endpoints: Endpoints) -> dict[str, Any]:
    # Where the keys are may differ between hosts.
    return {**asdict(endpoints), "secrets_dir": endpoints.secrets_dir is not None}


def without_query_values(url: str) -> str:
    """A URL for people to see: keys are sometimes sent in its query. Of what is none nothing."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(no URL)"
    query = "&".join(item.partition("=")[0] + "=***" for item in parts.query.split("&") if item)
    return urlunsplit(parts._replace(query=query))
