"""A campaign as people and apps see it: where its messages are, when they will be sent. Pure.

docs/campaigns.md tells what each figure means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paceline.census import Census
from paceline.prospects import messages_per_s, opens_in_s

#: Where live messages are. ``paused``: they wait with their campaign; ``leased``: with a worker.
STATES = ("ready", "scheduled", "paused", "leased", "dead", "parked")
#: What came, and what became of those that are no more, since the campaign's first message.
TOTALS = ("accepted", "moved_in", "sent", "expired", "cancelled", "dropped", "moved_out")

_PRIORITIES = ("high", "normal", "bulk")
#: Of the places in a batch, those that bulk gets where it waits (``lua/take.lua``).
_BULK_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignPause:
    """Who paused it, when (unix seconds) and why."""

    since_s: float
    who: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignTotals:
    """What is known of a campaign without a look at its messages. ``live``: those that have not
    ended; ``under_way``: a pause or resume has not reached all of them yet."""

    destination: str
    name: str
    live: int
    totals: Mapping[str, int]
    pause: CampaignPause | None
    under_way: bool

    @property
    def known(self) -> bool:
        """Whether there is anything to tell: it has or had messages, or is paused."""
        return bool(self.live or self.pause or any(self.totals.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign(CampaignTotals):
    """A campaign, each of its messages looked at.

    ``states``     how many are in each of STATES
    ``soonest_s``  seconds until its last message is sent, were it alone; 0 where none waits, None
                   where something must be done first: it is paused, or the destination is, or no
                   worker lives
    ``latest_s``   the same, where all goes first that waits before its last message now
    """

    states: Mapping[str, int]
    soonest_s: float | None
    latest_s: float | None

    @property
    def waiting(self) -> int:
        """Those that will be sent by themselves: ready, scheduled and leased."""
        return self.states["ready"] + self.states["scheduled"] + self.states["leased"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """How far back a campaign stands: the lowest of its priorities (0 high to 2 bulk) and its last
    place in it, when the last of its scheduled ones is due (us, 0: none is)."""

    priority: int
    place: int
    last_due_us: int


def tail_of(found: Mapping[str, int]) -> Tail | None:
    """The tail, of what ``survey`` found; None where nothing waits."""
    lasts = {int(name[-1]): n for name, n in found.items() if name.startswith("last:")}
    if not lasts:
        return None
    lowest = max(lasts)
    return Tail(priority=lowest, place=lasts[lowest], last_due_us=found.get("last_due_us", 0))


def eta_s(
    states: Mapping[str, int], tail: Tail | None, census: Census, before: int | None
) -> tuple[float | None, float | None]:
    """(soonest, latest) in seconds from the census. ``before``: ready ones of the tail's priority
    at its place or before it; None where tenants share that priority, so that those behind it may
    go first.
    """
    opens_s, per_s = opens_in_s(census), messages_per_s(census)
    waiting = states["ready"] + states["scheduled"] + states["leased"]
    if states["paused"] or opens_s is None or per_s is None:
        return (None, None) if waiting or states["paused"] else (0.0, 0.0)
    if tail is None or not waiting:
        return 0.0, 0.0
    due_s = max(0.0, (tail.last_due_us - census.now_us) / 1e6)
    ready = [census.sizes.get(f"ready_{name}", 0) for name in _PRIORITIES]
    same = ready[tail.priority] if before is None else before
    ahead = sum(ready[: tail.priority]) + same + census.law["leased"] + states["scheduled"]
    share = 1 - _BULK_SHARE if tail.priority < 2 and ready[2] else 1.0
    soonest_s = max(opens_s + waiting / per_s, due_s)
    latest_s = max(opens_s + max(waiting, ahead) / (per_s * share), due_s)
    return soonest_s, latest_s
