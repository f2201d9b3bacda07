"""Which messages go into one request: grouped by what they share, until a group is full or has
waited for long enough. Pure; `now` is monotonic seconds.

Messages of different priority, tenant or campaign never share a request, however equal they are: it
is begun as one, what the provider says of one tenant's must not befall another's, and a campaign
can be paused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from paceline.merged import Member
from paceline_workers.providers.base import Portion


class Likeness(NamedTuple):
    """What messages that share a request have in common; ``priority`` is the header's byte."""

    priority: bytes
    tenant: bytes
    shared: tuple[bytes, ...]
    campaign: bytes = b""


@dataclass(slots=True)
class Group:
    """Messages of one likeness, in the order in which they came. ``first`` is the whole string of
    the first, for one that stays alone goes as it is; ``apart`` the keys that may be here only
    once."""

    likeness: Likeness
    born_s: float
    first: bytes
    members: list[Member] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)
    apart: set[bytes] = field(default_factory=set)
    size: int = 0

    def add(self, member: Member, portion: Portion) -> None:
        """One more, at the end."""
        self.members.append(member)
        self.parts.append(portion.part)
        self.size += len(portion.part) + 1
        if portion.apart:
            self.apart.add(portion.apart)


class Grouping:
    """The groups that are not complete.

    most, max_bytes  of one request: members, bytes of their parts
    linger_s         a group is due so long after its first message
    most_held        messages in all groups together; beyond it the largest is complete as it is
    """

    def __init__(self, most: int, max_bytes: int, linger_s: float, most_held: int) -> None:
        self._most = most
        self._max_bytes = max_bytes
        self._linger_s = linger_s
        self._most_held = most_held
        self._groups: dict[Likeness, Group] = {}
        self._held = 0

    def __len__(self) -> int:
        return self._held

    def add(
        self, likeness: Likeness, value: bytes, member: Member, portion: Portion, now: float
    ) -> Group | None:
        """Takes a message in; returns a group that is complete by that, if there is one."""
        complete = None
        group = self._groups.get(likeness)
        if group is not None and (
            group.size + len(portion.part) + 1 > self._max_bytes or portion.apart in group.apart
        ):
            complete, group = self._take(group), None
        if group is None:
            group = self._groups[likeness] = Group(likeness, now, value)
        group.add(member, portion)
        self._held += 1
        if complete is not None:
            return complete
        if len(group.members) >= self._most:
            return self._take(group)
        if self._held > self._most_held:
            return self._take(max(self._groups.values(), key=lambda it: len(it.members)))
        return None

    def due(self, now: float, *, priority: bytes | None = None) -> list[Group]:
        """Groups that have waited for long enough, and all of ``priority``; taken out."""
        ready = [
            group
            for group in self._groups.values()
            if group.likeness.priority == priority or group.born_s + self._linger_s <= now
        ]
        return [self._take(group) for group in ready]

    def next_due_s(self) -> float | None:
        """When the first group is due; None where there is none."""
        if not self._groups:
            return None
        return min(group.born_s for group in self._groups.values()) + self._linger_s

    def drain(self) -> list[Group]:
        """All groups, taken out."""
        return [self._take(group) for group in list(self._groups.values())]

    def _take(self, group: Group) -> Group:
        del self._groups[group.likeness]
        self._held -= len(group.members)
        return group
