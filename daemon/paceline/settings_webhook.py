"""What a webhook's configuration may not hold beside its secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from paceline.errors import ConfigProblem

__all__ = ["ID_HEADER", "MAX_AGE_S", "TIMEOUT_S", "webhook_problems"]

ID_HEADER = "webhook-id"
#: What receivers are given by most senders; one that needs longer should answer first, work then.
TIMEOUT_S = 15.0
#: Five days: the last of the policy's tries is 65 to 79 hours after the first; what costs no try
#: (an outage, a Retry-After) comes on top.
MAX_AGE_S = 5 * 86_400.0

_SIGNED = (ID_HEADER, "webhook-timestamp", "webhook-signature")


def webhook_problems(
    at: str, values: Mapping[str, Any], urls: tuple[str, ...]
) -> Iterator[ConfigProblem]:
    """`at`: dotted key of the destination; `values`: what is converted of it."""
    if len(urls) > 1:
        yield ConfigProblem(
            f"{at}.url",
            "names several, and a webhook's is one endpoint",
            "A destination for each: every endpoint has its own secrets, and fails by itself",
        )
    for name in values["headers"]:
        if name.lower() in _SIGNED:
            yield ConfigProblem(
                f"{at}.headers.{name}", "is made anew for each request", "Remove it"
            )
