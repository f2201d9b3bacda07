"""Merging: how many messages may go in one request, and what follows where one is ambiguous."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paceline.errors import ConfigProblem
from paceline.settings import Merge
from paceline.settings_tables import MERGE, read_table

__all__ = ["MOST", "merge_from"]

# What one call takes: SparkPost 2,000 to 10,000 recipients, Mailgun 1,000. Any other API's limit is
# the operator's to know (SendGrid 1,000 personalizations, Postmark 500 messages).
MOST: Mapping[str, int] = {"sparkpost": 10_000, "mailgun": 1_000, "http": 10_000}


def merge_from(
    at: str, provider: str, table: Any, *, keyed: bool, problems: list[ConfigProblem]
) -> Merge:
    """The destination's `merge`; `problems` grows by what is wrong with it.

    at     dotted key of the destination
    keyed  requests carry an idempotency key, and a lone ambiguous message is retried: then a merged
           request is too, where the table does not say otherwise
    """
    at = f"{at}.merge"
    values = read_table(table, MERGE, at, problems)
    values.setdefault("on_ambiguous", "retry" if keyed else "park")
    merge = Merge(**values)
    most = MOST.get(provider)
    if most is not None and merge.most > most:
        problems.append(
            ConfigProblem(f"{at}.most", f"{merge.most} is more than {provider} takes", f"{most}")
        )
    if provider != "http":
        if merge.array is not None:
            problems.append(
                ConfigProblem(f"{at}.array", f"means nothing for {provider}", "Remove it")
            )
    elif merge.most > 1 and merge.array is None:
        problems.append(ConfigProblem(f"{at}.array", "missing beside most", MERGE["array"].mend))
    return merge
