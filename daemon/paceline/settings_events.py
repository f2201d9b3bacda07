"""Delivery events: which kinds a destination writes, and what is kept of them."""

from __future__ import annotations

from typing import Any

from paceline.errors import ConfigProblem
from paceline.events import KINDS
from paceline.settings import Events
from paceline.settings_tables import EVENTS, read_table

__all__ = ["events_from"]


def events_from(at: str, table: Any, problems: list[ConfigProblem]) -> Events:
    """The destination's `events`; `problems` grows by what is wrong with them.

    at  dotted key of the destination
    """
    values = read_table(table, EVENTS, f"{at}.events", problems)
    if isinstance(table, dict) and table and "kinds" not in table:
        problems.append(
            ConfigProblem(f"{at}.events.kinds", "missing: nothing is written", EVENTS["kinds"].mend)
        )
    kinds = values.pop("kinds", ())
    chosen = KINDS if kinds == "all" else tuple(kind for kind in KINDS if kind in kinds)
    delivered = values.pop("deliver_kinds", "all")
    of = () if delivered == "all" else tuple(kind for kind in KINDS if kind in delivered)
    if unwritten := [kind for kind in of if kind not in chosen]:
        names = ", ".join(unwritten)
        problem = f"{names}: not among the kinds that are written"
        mend = "Add it to kinds, or take it out here"
        problems.append(ConfigProblem(f"{at}.events.deliver_kinds", problem, mend))
    return Events(kinds=chosen, deliver_kinds=of, **values)
