"""What an engine is made of: where two configurations are equal in it, the engine may stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from paceline.proxy import Proxy, proxy_of
from paceline.settings import Destination

__all__ = ["Recipe", "recipe_of"]

#: Keys that live in the profile, which is replaced for the next request, …
_OF_THE_PROFILE = frozenset(
    {
        "username", "password", "headers", "api_key", "secrets", "subaccount", "retry", "method",
        "success", "outcomes", "idempotency_key", "max_payload_bytes",
    }
)  # fmt: skip
#: … or in the copy in Redis alone, which the scripts read at each call. What an engine has of these
#: four first ones is how many connections it may use, and that is compared by itself.
_OF_REDIS = frozenset(
    {
        "rate", "burst", "connections", "reserve", "pace", "probe_after_s", "bytes_per_s",
        "fallback", "tenants", "max_messages", "max_bytes", "max_age_s", "record_ttl_s",
        "allow_plain_http",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recipe:
    """All the rest, so that a key that is new asks for a new engine unless it is named above; what
    is in ``ca_file``, and the proxy with its secrets, for both may change under one name."""

    keys: Mapping[str, Any] = field(repr=False)
    effective_connections: int
    authorities: bytes | None = field(repr=False)
    proxy: Proxy | None


def recipe_of(destination: Destination, environ: Mapping[str, str]) -> Recipe:
    """Raises ConfigError where a secret of the proxy is missing."""
    passed_over = _OF_THE_PROFILE | _OF_REDIS | {"proxy_username", "proxy_password"}
    names = [it.name for it in fields(Destination) if it.name not in passed_over]
    return Recipe(
        keys={name: getattr(destination, name) for name in names},
        effective_connections=destination.effective_connections,
        authorities=_content(destination.ca_file),
        proxy=proxy_of(destination, environ),
    )


def _content(path: str | None) -> bytes | None:
    try:
        return None if path is None else Path(path).read_bytes()
    except OSError:
        return None  # who builds the engine says so
