"""Many endpoints behind one destination: what all of them have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from paceline.errors import ConfigProblem
from paceline.settings import Endpoints
from paceline.settings_tables import ENDPOINTS, read_table

__all__ = ["CONNECTIONS", "endpoints_from"]

#: Requests in flight, where the key is left out: an endpoint that hangs keeps one for as long as a
#: request may take, and of thousands there are always some.
CONNECTIONS = 100

_MEANINGLESS = {
    "url": "each endpoint has its own, which an operator registers: paceline endpoints add",
    "tenants": "the endpoints share the destination",
    "fallback": "what was meant for an endpoint can go nowhere else",
}


def endpoints_from(
    at: str, values: Mapping[str, Any], problems: list[ConfigProblem]
) -> Endpoints | None:
    """The destination's `endpoints`, None where it has no such table; `problems` grows by what is
    wrong with it.

    at      dotted key of the destination
    values  its table, as far as it is converted
    """
    if "endpoints" not in values:
        return None
    its = read_table(values["endpoints"], ENDPOINTS, f"{at}.endpoints", problems)
    for key, why in _MEANINGLESS.items():
        if values.get(key):
            problems.append(
                ConfigProblem(f"{at}.{key}", f"means nothing with endpoints: {why}", "Remove it")
            )
    if values.get("pace") == "adaptive":
        problems.append(
            ConfigProblem(
                f"{at}.pace",
                'is "adaptive", but endpoints answer each at its own pace',
                'Remove it, or write "fixed"; give endpoints a rate of their own',
            )
        )
    if "secrets" not in values and "secrets_dir" not in its:
        problems.append(
            ConfigProblem(
                f"{at}.secrets",
                "missing: nothing could be signed",
                "Give secrets, from which each endpoint's key is derived, or endpoints.secrets_dir",
            )
        )
    its.setdefault("burst", max(1, math.ceil(its.get("rate", 0.0))))
    return Endpoints(**its)
