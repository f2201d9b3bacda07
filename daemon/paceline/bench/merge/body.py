"""The message of a mailing, one recipient in each: SparkPost's own body, about 300 bytes. Pure."""

from __future__ import annotations

CAMPAIGN = "autumn"
_FIRST = 1_000_000
_LINK = "https://shop.example/autumn/offers?utm_source=mail&utm_campaign=autumn&r="


def payload(number: int) -> dict[str, object]:
    """The message of that number (below 9,000,000); all differ in their recipient only, and are of
    the same length."""
    n = _FIRST + number
    return {
        "recipients": [
            {
                "address": f"somebody.{n}@example.com",
                "substitution_data": {"name": f"Somebody {n}", "link": f"{_LINK}{n}"},
            }
        ],
        "content": {"template_id": "autumn-offers-2026-new-customers"},
        "campaign_id": CAMPAIGN,
    }
