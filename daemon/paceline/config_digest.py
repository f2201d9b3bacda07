"""Whether two processes live by one configuration, be they of different versions. Pure.

The digest is over what differs from the defaults: a version that knows a key which another one has
never heard of agrees with it for as long as that key is not used. So processes can be upgraded one
after another. What forbids it says so here:

- where scripts or processes of a version can not live beside those of the one before, ``LAYOUT`` is
  raised with it: they refuse each other, and the upgrade stops all first (docs/operations.md);
- a default that changes would go unnoticed, for each side leaves its own out: what it was before is
  kept in ``FORMER_DEFAULTS``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import msgspec

from paceline.settings import Destination, Endpoints, Tenant

__all__ = ["FORMER_DEFAULTS", "LAYOUT", "base", "differences", "digest", "distinct", "shared_copy"]

#: Of keys, scripts and what processes tell one another.
LAYOUT = 1

#: Key of ``Destination.public()``, dotted where it is in a table -> the default that it had when it
#: was new.
FORMER_DEFAULTS: Mapping[str, Any] = {}


def digest(destination: Destination) -> str:
    """A hash, equal wherever the same destination is configured, with no secret in it."""
    stable = msgspec.json.encode([LAYOUT, distinct(destination)], order="sorted")
    return hashlib.sha256(stable).hexdigest()


def base(destination: Destination) -> dict[str, Any]:
    """``public()`` of one of that name, of which nothing more is said than must be."""
    plain = Destination(name=destination.name, provider=destination.provider, urls=())
    found = plain.public()
    for dotted, value in FORMER_DEFAULTS.items():
        *tables, key = dotted.split(".")
        table = found
        for name in tables:
            table = table[name]
        table[key] = value
    return found


def shared_copy(destination: Destination) -> dict[str, Any]:
    """What is in Redis for all to see."""
    return {"layout": LAYOUT, **destination.public()}


def differences(theirs: Mapping[str, Any], destination: Destination) -> str:
    """Which keys are not as in ``theirs``, the shared copy, and how, in words; "" for none. A key
    that they do not know is as theirs for as long as it is not used."""
    # Through JSON as theirs went: a tuple is a list there.
    ours = msgspec.json.decode(msgspec.json.encode(shared_copy(destination)))
    unused = {**theirs, "layout": 0}
    plain = msgspec.json.decode(msgspec.json.encode(base(destination)))
    keys = sorted(k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k))
    return "; ".join(
        f"{k} is {theirs.get(k)!r} there, {ours.get(k)!r} here"
        for k in keys
        if k in unused or ours[k] != plain[k]
    )


def distinct(destination: Destination) -> dict[str, Any]:
    """The part of ``public()`` that differs from the defaults, and what names it."""
    public, plain = destination.public(), base(destination)
    found = _beside(public, plain)
    found |= {key: public[key] for key in ("name", "provider", "urls")}
    found["tenants"] = {
        name: _beside(tenant, asdict(Tenant())) for name, tenant in public["tenants"].items()
    }
    if destination.endpoints is not None:
        # That it has any is said, if by nothing but defaults.
        found["endpoints"] = _beside(
            public["endpoints"], {**asdict(Endpoints()), "secrets_dir": False}
        )
    if destination.items is not None:
        found["items"] = _stated(public["items"])
    found["rules"] = [_stated(rule) for rule in public["rules"]]
    return found


def _beside(ours: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """What differs, in tables that stand in both by what differs in them."""
    found = {}
    for key, value in ours.items():
        default = plain.get(key)
        if value == default and key in plain:
            continue
        if isinstance(value, dict) and isinstance(default, dict):
            found[key] = _beside(value, default)
        else:
            found[key] = value
    return found


def _stated(table: Mapping[str, Any]) -> dict[str, Any]:
    """Of a table without defaults but None."""
    return {key: value for key, value in table.items() if value is not None}
