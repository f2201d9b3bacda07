"""From a configured destination to its provider profile. Secrets are revealed here, once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from paceline.endpoint_keys import EndpointKeys
from paceline.errors import ConfigError, ConfigProblem
from paceline.secrets_ import Secret
from paceline.settings import Destination
from paceline.webhook_key import MEND, webhook_key
from paceline_workers.providers.base import Profile
from paceline_workers.providers.http import JsonApi, MergingJsonApi, basic_authorization
from paceline_workers.providers.mailgun import Mailgun
from paceline_workers.providers.maxmd import MaxMD
from paceline_workers.providers.sparkpost import SparkPost
from paceline_workers.providers.webhook import Webhook
from paceline_workers.providers.webhook_endpoints import WebhookEndpoints
from paceline_workers.providers.webhook_signer import Signer

__all__ = ["build"]

_DEFAULT_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "User-Agent": "paceline",
}
_PROFILES = ("maxmd", "sparkpost", "mailgun", "webhook", "http")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t\x80-\xff]*")


def build(
    destination: Destination,
    environ: Mapping[str, str],
    wall_s: Callable[[], float] = time.time,
) -> Profile:
    """The profile that renders and judges this destination's requests.

    Raises ConfigError, naming every key whose secret is missing from `environ` (usually
    os.environ) or from its file, or cannot be used. `wall_s`: unix seconds, for what is dated when
    it is rendered.
    """
    problems: list[ConfigProblem] = []
    username = _revealed(destination.username, environ, problems)
    password = _revealed(destination.password, environ, problems)
    headers = dict(_DEFAULT_HEADERS)
    _authorize(headers, destination, username, password, environ, problems)
    if destination.subaccount is not None:
        _set(headers, "X-MSYS-SUBACCOUNT", str(destination.subaccount))
    keys = _webhook_keys(destination, environ, problems)
    for name, secret in destination.headers.items():
        _set(headers, name, _header_value(secret, environ, problems))
    if destination.provider not in _PROFILES:
        problems.append(
            ConfigProblem(
                f"destinations.{destination.name}.provider",
                f"{destination.provider!r} is not supported by this worker",
                "Use one of " + ", ".join(_PROFILES),
            )
        )
    if problems:
        raise ConfigError(problems, source=f"destination {destination.name}")
    common: dict[str, Any] = {
        "policy": destination.retry,
        "headers": headers,
        "id_header": destination.id_header,
        "max_payload_bytes": destination.max_payload_bytes,
    }
    if destination.provider == "maxmd":
        return MaxMD(
            username=username,
            password=password,
            business_errors=destination.business_errors,
            **common,
        )
    if destination.provider == "sparkpost":
        return SparkPost(idempotency_key=destination.idempotency_key != "off", **common)
    if destination.provider == "mailgun":
        return Mailgun(**common)
    if destination.provider == "webhook":
        del common["id_header"]
        if destination.endpoints is not None:
            endpoint_keys = EndpointKeys.of(destination, environ)
            return WebhookEndpoints(keys=endpoint_keys, wall_s=wall_s, **common)
        return Webhook(signer=Signer(keys), wall_s=wall_s, **common)
    common |= {
        "method": destination.method,
        "idempotency_key": destination.idempotency_key,
        "success": destination.success,
        "outcomes": destination.outcomes,
        "rules": destination.rules,
        "items": destination.items,
        "body": destination.body,
    }
    array = destination.merge.array
    return JsonApi(**common) if array is None else MergingJsonApi(array=array, **common)


def _authorize(
    headers: dict[str, str],
    destination: Destination,
    username: str,
    password: str,
    environ: Mapping[str, str],
    problems: list[ConfigProblem],
) -> None:
    """How the provider knows us: Basic, or SparkPost's bare key. MaxMD's is in the body."""
    if destination.provider == "http" and destination.username is not None:
        if ":" in username:
            # RFC 7617 §2: the first colon ends the name.
            problems.append(
                ConfigProblem(destination.username.key, "holds a colon, which Basic cannot send")
            )
        _set(headers, "Authorization", basic_authorization(username, password))
    if destination.api_key is not None:
        key = _header_value(destination.api_key, environ, problems)
        value = basic_authorization("api", key) if destination.provider == "mailgun" else key
        _set(headers, "Authorization", value)


def _webhook_keys(
    destination: Destination, environ: Mapping[str, str], problems: list[ConfigProblem]
) -> list[bytes]:
    keys = []
    for secret in destination.secrets:
        before = len(problems)
        value = _revealed(secret, environ, problems)
        if len(problems) > before:
            continue
        try:
            keys.append(webhook_key(value))
        except ValueError as error:
            problems.append(ConfigProblem(secret.key, str(error), MEND))
    return keys


def _header_value(secret: Secret, environ: Mapping[str, str], problems: list[ConfigProblem]) -> str:
    value = _revealed(secret, environ, problems)
    if not _HEADER_VALUE.fullmatch(value):
        problems.append(
            ConfigProblem(secret.key, "holds a line break or a character no header can")
        )
    return value


def _revealed(
    secret: Secret | None, environ: Mapping[str, str], problems: list[ConfigProblem]
) -> str:
    if secret is None:
        return ""
    try:
        return secret.reveal(environ)
    except ConfigError as error:
        problems.extend(error.problems)
        return ""


def _set(headers: dict[str, str], name: str, value: str) -> None:
    """Set a header in place of one whose name differs by case only: never send it twice."""
    for present in [key for key in headers if key.lower() == name.lower()]:
        del headers[present]
    headers[name] = value
