"""From the file's tables to `Settings`: secrets, URLs, and what may not be combined.

A contradiction is reported at the key that most likely is the wrong one, and only between values
that are right in themselves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

from paceline.backoff import DEFAULT_POLICY, POLICIES, RetryPolicy
from paceline.errors import ConfigProblem, InvalidMessage
from paceline.listen import parse_listen
from paceline.message import check_name
from paceline.pressure import Limits
from paceline.redaction import pointer_problem
from paceline.secrets_ import Secret
from paceline.settings import (
    LEAST_LEASE_S,
    Destination,
    ExporterSettings,
    RedisSettings,
    Settings,
    Tenant,
)
from paceline.settings_deliver import deliver_problems
from paceline.settings_endpoints import CONNECTIONS, endpoints_from
from paceline.settings_events import events_from
from paceline.settings_fallback import fallback_problems, fallback_warnings, with_providers
from paceline.settings_guard import default_guard, guard_problems
from paceline.settings_merge import merge_from
from paceline.settings_proxy import proxy_problems
from paceline.settings_rules import items_from, outcomes_from, rules_from, success_from
from paceline.settings_secret import secret_from, webhook_secrets_from
from paceline.settings_tables import (
    DESTINATION,
    EXPORTER,
    ONLY,
    PROVIDERS,
    REDIS,
    RETRY,
    TENANT,
    read_table,
    unknown_key,
)
from paceline.settings_webhook import ID_HEADER, MAX_AGE_S, TIMEOUT_S, webhook_problems
from paceline.url_rules import url_problem

__all__ = ["settings_from"]

_TABLES = ("redis", "exporter", "destinations")
_LATER = ("smtp",)
# Without them nobody is let in.
_NEEDED = {
    "maxmd": ("username", "password"),
    "sparkpost": ("api_key",),
    "mailgun": ("api_key",),
    "webhook": ("secrets",),
}
_READ_TIMEOUT_S = {"sparkpost": 300.0, "webhook": TIMEOUT_S}
_REDIS_SCHEMES = ("redis", "rediss", "unix", "sentinel+redis", "sentinel+rediss")

# RFC 9110 §5.6.2; and §5.5, without the obsolete line folding.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t\x80-\xff]*")
# Set by the connection, for they must agree with the bytes it writes.
_FRAMING = ("connection", "content-length", "expect", "host", "transfer-encoding", "upgrade")
# Goes to the proxy, which for https is not where headers go.
_PROXYS = ("proxy-authorization", "proxy-connection")

_Problems = list[ConfigProblem]


def settings_from(document: Mapping[str, Any], problems: _Problems) -> Settings | None:
    """Settings, or None where `problems` grew."""
    before = len(problems)
    warnings: list[str] = []
    problems.extend(unknown_key(name, name, _TABLES) for name in document if name not in _TABLES)
    redis = _redis(document.get("redis", {}), problems)
    exporter = _exporter(document.get("exporter", {}), problems)
    tables = document.get("destinations", {})
    destinations: dict[str, Destination] = {}
    if not isinstance(tables, dict) or not tables:
        problems.append(
            ConfigProblem("destinations", "there is none", "Add a table [destinations.NAME]")
        )
        tables = {}
    for name, table in tables.items():
        destination = _destination(name, table, problems)
        if destination is not None:
            destinations[name] = destination
            warnings.extend(_warnings(destination))
    problems.extend(fallback_problems(destinations, list(tables)))
    problems.extend(deliver_problems(destinations, list(tables)))
    if len(problems) > before:
        return None
    warnings.extend(fallback_warnings(destinations))
    return Settings(
        redis=redis,
        destinations=MappingProxyType(with_providers(destinations)),
        exporter=exporter,
        warnings=tuple(warnings),
    )


def _redis(table: Any, problems: _Problems) -> RedisSettings:
    values = read_table(table, REDIS, "redis", problems)
    if "password" in values:
        values["password"] = secret_from("redis.password", values["password"], problems)
    url = values.get("url")
    if url is not None:
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in _REDIS_SCHEMES:
            problems.append(
                ConfigProblem(
                    "redis.url",
                    "does not begin with redis://, rediss://, unix:// or sentinel+redis://",
                    REDIS["url"].mend,
                )
            )
        elif not rest or (scheme != "unix" and rest.startswith("/")):
            problems.append(ConfigProblem("redis.url", "names no server", REDIS["url"].mend))
        elif scheme.startswith("sentinel+") and not re.search(r"[^/]/[^/?]+", rest):
            problems.append(
                ConfigProblem(
                    "redis.url",
                    "names no master",
                    "Write sentinel+redis://host:26379,host:26379/NAME",
                )
            )
    names = [field.name for field in fields(Limits)]
    limits = Limits(**{name: values.pop(name) for name in names if name in values})
    return RedisSettings(limits=limits, **values)


def _exporter(table: Any, problems: _Problems) -> ExporterSettings:
    values = read_table(table, EXPORTER, "exporter", problems)
    if "listen" in values:
        try:
            values["listen"] = parse_listen(values["listen"])
        except ValueError as error:
            mend = EXPORTER["listen"].mend
            problems.append(ConfigProblem("exporter.listen", str(error), mend))
    return ExporterSettings(**values)


def _destination(name: str, table: Any, problems: _Problems) -> Destination | None:
    """The destination, or None where `problems` grew."""
    at = f"destinations.{name}"
    before = len(problems)
    try:
        check_name(name)
    except InvalidMessage as error:
        problems.append(ConfigProblem(at, f"the name {error.problem}", error.mend))
    many = isinstance(table, dict) and "endpoints" in table
    required = ("provider",) if many else ("provider", "url")
    values = read_table(table, DESTINATION, at, problems, required=required)
    provider = values.get("provider", "http")
    _provider(at, provider, values, problems)
    policy = _retry(at, values.pop("retry", {}), POLICIES.get(provider, DEFAULT_POLICY), problems)
    url = values.get("url", [])
    urls = _urls(at, url, values.get("allow_plain_http", False), problems)
    for key in ("username", "password", "api_key", "proxy_username", "proxy_password"):
        if key in values:
            values[key] = secret_from(f"{at}.{key}", values[key], problems)
    if "secrets" in values:
        values["secrets"] = webhook_secrets_from(at, values["secrets"], problems)
    values["headers"] = _headers(at, values.get("headers", {}), problems)
    values["success"] = success_from(at, values.get("success", {}), problems)
    values["outcomes"] = outcomes_from(at, values.get("outcomes", {}), problems)
    values["rules"] = rules_from(at, values.get("rules", {}), problems)
    if "items" in values:
        values["items"] = items_from(at, values["items"], problems)
    values["endpoints"] = endpoints_from(at, values, problems)
    if values["endpoints"] is not None:
        values.setdefault("pace", "fixed")
        values.setdefault("connections", CONNECTIONS)
    values["tenants"] = _tenants(at, values.get("tenants", {}), problems)
    values["merge"] = merge_from(
        at,
        provider,
        values.get("merge", {}),
        keyed=provider in ONLY["idempotency_key"]
        and values.get("idempotency_key", "bare") != "off"
        and policy.on_ambiguous == "retry",
        problems=problems,
    )
    values["events"] = events_from(at, values.get("events", {}), problems)
    _id_header(at, values, problems)
    if provider == "webhook":
        problems.extend(webhook_problems(at, values, urls))
        values["id_header"] = ID_HEADER
        values.setdefault("max_age_s", MAX_AGE_S)
    problems.extend(proxy_problems(at, values, urls))
    values.setdefault("guard", default_guard(provider))
    values["redact"] = _redact(at, values.get("redact", ()), problems)
    values["guard_allow"] = tuple(values.get("guard_allow", ()))
    problems.extend(guard_problems(at, values, urls))

    burst, connections = values.get("burst", 150), values.get("connections", 10)
    values.setdefault("reserve", max(0, min(5, (burst - connections) // 10)))
    values.setdefault("read_timeout_s", _READ_TIMEOUT_S.get(provider, 30.0))
    values.setdefault("total_timeout_s", values["read_timeout_s"] + 5.0)
    values.setdefault("max_payload_bytes", 1024**2 if provider == "maxmd" else 4 * 1024**2)
    values["provider"] = provider
    values.pop("url", None)
    destination = Destination(name=name, urls=urls, retry=policy, **values)
    _contradictions(at, destination, problems)
    return None if len(problems) > before else destination


def _provider(at: str, provider: str, values: Mapping[str, Any], problems: _Problems) -> None:
    if provider in _LATER:
        problems.append(
            ConfigProblem(
                f"{at}.provider",
                f"{provider!r} is not yet supported",
                "Use one of " + ", ".join(PROVIDERS) + "; http is for any JSON API",
            )
        )
    elif provider not in PROVIDERS:
        problem = unknown_key(f"{at}.provider", provider, (*PROVIDERS, *_LATER))
        problems.append(ConfigProblem(problem.key, f"unknown provider {provider!r}", problem.mend))
    if provider in PROVIDERS:
        problems.extend(
            ConfigProblem(
                f"{at}.{key}",
                f"means nothing for {provider}",
                f"Only {' and '.join(only)} {'has' if len(only) == 1 else 'have'} it; remove it",
            )
            for key, only in ONLY.items()
            if key in values and provider not in only
        )
    needed = () if "endpoints" in values else _NEEDED.get(provider, ())
    problems.extend(
        ConfigProblem(f"{at}.{key}", "missing", f"{provider} needs {' and '.join(needed)}")
        for key in needed
        if key not in values
    )
    if not needed:
        for key, other in (("username", "password"), ("password", "username")):
            if key in values and other not in values:
                problems.append(
                    ConfigProblem(f"{at}.{other}", f"missing beside {key}", "Give both or neither")
                )
    if provider == "sparkpost" and values.get("idempotency_key") == "quoted":
        problems.append(
            ConfigProblem(f"{at}.idempotency_key", "SparkPost wants it bare", '"bare" or "off"')
        )


def _retry(at: str, table: Any, policy: RetryPolicy, problems: _Problems) -> RetryPolicy:
    at = f"{at}.retry"
    policy = replace(policy, **read_table(table, RETRY, at, problems))
    for first, cap in (("first_s", "cap_s"), ("throttle_first_s", "throttle_cap_s")):
        least, most = getattr(policy, first), getattr(policy, cap)
        if least > most:
            problems.append(
                ConfigProblem(
                    f"{at}.{first}", f"{least:g} is over {cap} ({most:g})", f"Raise {cap}"
                )
            )
    if policy.wait_503_s[0] > policy.wait_503_s[1]:
        problems.append(
            ConfigProblem(f"{at}.wait_503_s", "the least is over the most", "Write [30, 60]")
        )
    return policy


def _urls(at: str, value: Any, allow_plain: bool, problems: _Problems) -> tuple[str, ...]:
    urls = [value] if isinstance(value, str) else list(value)
    for index, url in enumerate(urls):
        key = f"{at}.url" if isinstance(value, str) else f"{at}.url[{index}]"
        problem = url_problem(url, allow_plain)
        if problem is None and url in urls[:index]:
            problem = ("is there twice", "Remove one: the load is spread over them")
        if problem is not None:
            problems.append(ConfigProblem(key, *problem))
    return tuple(urls)


def _headers(at: str, table: Any, problems: _Problems) -> Mapping[str, Secret]:
    at = f"{at}.headers"
    if not isinstance(table, dict):
        problems.append(ConfigProblem(at, "no table", f'[{at}] with lines such as X-Key = "…"'))
        return {}
    headers: dict[str, Secret] = {}
    seen: dict[str, str] = {}
    for name, value in table.items():
        key = f"{at}.{name}"
        lower = name.lower()
        if not _TOKEN.fullmatch(name):
            problems.append(ConfigProblem(key, "is no header name", "Letters, digits and -"))
        elif lower in _FRAMING:
            problems.append(ConfigProblem(key, "is set by the connection itself", "Remove it"))
        elif lower in _PROXYS:
            problems.append(
                ConfigProblem(key, "is for a proxy", "Use proxy, proxy_username, proxy_password")
            )
        elif lower in seen:
            problems.append(ConfigProblem(key, f"is the same header as {seen[lower]}", "Keep one"))
        elif secret := secret_from(key, value, problems):
            if secret.source == "value" and not _HEADER_VALUE.fullmatch(secret.ref):
                problems.append(
                    ConfigProblem(key, "holds a line break or a character no header can", "")
                )
            headers[name] = secret
        seen.setdefault(lower, name)
    return MappingProxyType(headers)


def _redact(at: str, pointers: Sequence[str], problems: _Problems) -> tuple[str, ...]:
    for index, pointer in enumerate(pointers):
        problem = pointer_problem(pointer)
        if problem is not None:
            mend = 'A JSON pointer such as "/recipients/*/email"'
            problems.append(ConfigProblem(f"{at}.redact[{index}]", problem, mend))
    return tuple(pointers)


def _id_header(at: str, values: Mapping[str, Any], problems: _Problems) -> None:
    name = values.get("id_header", "Paceline-Message-Id")
    if not name:
        return
    key = f"{at}.id_header"
    if not _TOKEN.fullmatch(name):
        problems.append(ConfigProblem(key, f"{name!r} is no header name", "Letters, digits and -"))
    elif name.lower() in (*_FRAMING, "authorization", "content-type", "idempotency-key"):
        problems.append(ConfigProblem(key, f"{name} has another meaning", "Choose another name"))
    elif name.lower() in (header.lower() for header in values["headers"]):
        problems.append(ConfigProblem(key, f"{name} is in headers too", "Remove one of them"))


def _tenants(at: str, table: Any, problems: _Problems) -> Mapping[str, Tenant]:
    at = f"{at}.tenants"
    if not isinstance(table, dict):
        mend = f'[{at}.NAME] with weight and rate; "*" is any other tenant'
        problems.append(ConfigProblem(at, "no table", mend))
        return {}
    tenants: dict[str, Tenant] = {}
    for name, terms in table.items():
        if name != "*" and not _TENANT.fullmatch(name):
            problems.append(
                ConfigProblem(
                    f"{at}.{name}",
                    "is no tenant's name",
                    "Use 1 to 64 letters, digits, dots, dashes and underscores, "
                    'or "*" for any other',
                )
            )
        values = read_table(terms, TENANT, f"{at}.{name}", problems)
        # One second's worth, so that a cap does not chop what comes in at its own rate.
        values.setdefault("burst", max(1, math.ceil(values.get("rate", 0.0))))
        tenants[name] = Tenant(**values)
    return MappingProxyType(tenants)


def _contradictions(at: str, it: Destination, problems: _Problems) -> None:
    def wrong(key: str, problem: str, mend: str) -> None:
        problems.append(ConfigProblem(f"{at}.{key}", problem, mend))

    if it.reserve > it.burst - 2:
        wrong(
            "reserve",
            f"{it.reserve} leaves ordinary messages nothing of the burst ({it.burst})",
            f"At most {it.burst - 2}: one permit and one connection must be left",
        )
    if it.total_timeout_s < it.read_timeout_s:
        wrong(
            "total_timeout_s",
            f"{it.total_timeout_s:g} is below read_timeout_s ({it.read_timeout_s:g})",
            "It bounds the whole request; leave it out for read_timeout_s + 5",
        )
    if it.bytes_per_s and it.bytes_per_s < it.max_payload_bytes / it.max_age_s:
        wrong(
            "bytes_per_s",
            f"{it.bytes_per_s} would let a message of max_payload_bytes wait longer than max_age_s",
            "Bytes, not megabytes: 135 MB/s is 135000000",
        )
    for name, tenant in it.tenants.items():
        if tenant.rate > it.rate:
            wrong(
                f"tenants.{name}.rate",
                f"{tenant.rate:g} is over the destination's rate ({it.rate:g})",
                "Leave it out: a tenant without a cap may use all that is free",
            )
    if it.body == "form" and it.merge.array is not None:
        wrong("body", "is a form, which merge.array cannot put together", "Remove one of them")
    if it.lease_s < LEAST_LEASE_S:
        wrong(
            "lease_s",
            f"{it.lease_s:g} is below {LEAST_LEASE_S:g} s",
            "A busy worker would lose what it holds; 8 is good",
        )
    if it.max_payload_bytes > it.max_bytes:
        wrong(
            "max_payload_bytes",
            f"{it.max_payload_bytes} is over max_bytes ({it.max_bytes}) of the whole outbox",
            "Raise max_bytes",
        )
    if it.poll_status_after_s >= it.record_ttl_s:
        wrong(
            "poll_status_after_s",
            f"{it.poll_status_after_s:g} is not below record_ttl_s ({it.record_ttl_s:g})",
            "By then the provider's id is forgotten; ask sooner, or raise record_ttl_s",
        )
    for status in it.outcomes:
        if status in it.success.statuses:
            wrong(f"outcomes.{status}", "is in success.statuses too", "Remove one of them")
    retry = it.retry
    if retry.first_s > it.max_age_s:
        wrong(
            "max_age_s",
            f"{it.max_age_s:g} is over before the first retry ({retry.first_s:g} s)",
            "Raise it, or lower retry.first_s",
        )


def _warnings(it: Destination) -> list[str]:
    if it.effective_connections == it.connections:
        return []
    return [
        f"destinations.{it.name}: a burst of {it.burst} leaves room for "
        f"{it.effective_connections} of {it.connections} connections beside a reserve of "
        f"{it.reserve}; raise burst to {it.connections + it.reserve + 1} to use them all"
    ]
