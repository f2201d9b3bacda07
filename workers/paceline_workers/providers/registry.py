"""From a configured destination to its provider profile. Secrets are revealed here, once."""

from __future__ import annotations

import re
from collections.abc import Mapping

from paceline.errors import ConfigError, ConfigProblem
from paceline.secrets_ import Secret
from paceline.settings import Destination
from paceline_workers.providers.base import Profile
from paceline_workers.providers.http import JsonApi, basic_authorization
from paceline_workers.providers.maxmd import MaxMD

__all__ = ["build"]

_DEFAULT_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "User-Agent": "paceline",
}
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t\x80-\xff]*")


def build(destination: Destination, environ: Mapping[str, str]) -> Profile:
    """The profile that renders and judges this destination's requests.

    Raises ConfigError, naming every key whose secret is missing from `environ` (usually
    os.environ) or from its file, or cannot be used.
    """
    problems: list[ConfigProblem] = []
    username = _revealed(destination.username, environ, problems)
    password = _revealed(destination.password, environ, problems)
    headers = dict(_DEFAULT_HEADERS)
    if destination.provider == "http" and destination.username is not None:
        if ":" in username:
            # RFC 7617 §2: the first colon ends the name.
            problems.append(
                ConfigProblem(destination.username.key, "holds a colon, which Basic cannot send")
            )
        _set(headers, "Authorization", basic_authorization(username, password))
    for name, secret in destination.headers.items():
        value = _revealed(secret, environ, problems)
        if not _HEADER_VALUE.fullmatch(value):
            problems.append(
                ConfigProblem(secret.key, "holds a line break or a character no header can")
            )
        _set(headers, name, value)
    if destination.provider not in ("maxmd", "http"):
        problems.append(
            ConfigProblem(
                f"destinations.{destination.name}.provider",
                f"{destination.provider!r} is not supported by this worker",
                "Use maxmd or http",
            )
        )
    if problems:
        raise ConfigError(problems, source=f"destination {destination.name}")
    if destination.provider == "maxmd":
        return MaxMD(
            username=username,
            password=password,
            policy=destination.retry,
            headers=headers,
            id_header=destination.id_header,
            max_payload_bytes=destination.max_payload_bytes,
        )
    return JsonApi(
        policy=destination.retry,
        method=destination.method,
        headers=headers,
        id_header=destination.id_header,
        idempotency_key=destination.idempotency_key,
        success=destination.success,
        outcomes=destination.outcomes,
        max_payload_bytes=destination.max_payload_bytes,
    )


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
