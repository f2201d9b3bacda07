"""A profile that can be replaced under way: for new credentials nothing has to stand still.

A request is rendered whole by one profile; its reply may be judged by the next, which is of the
same provider.
"""

from __future__ import annotations

from typing import Any

from paceline.backoff import RetryPolicy
from paceline_workers.outcome import Outcome, Reply
from paceline_workers.providers.base import Profile, RenderedRequest


class LiveProfile:
    """Whatever profile was set last. Safe to use from many threads; replaced by one."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    def replace(self, profile: Profile) -> None:
        """The next request is this one's."""
        self._profile = profile

    @property
    def name(self) -> str:
        """The provider's."""
        return self._profile.name

    @property
    def policy(self) -> RetryPolicy:
        """The retry policy now."""
        return self._profile.policy

    def render(self, message_id: str, payload: bytes) -> RenderedRequest:
        """As Profile."""
        return self._profile.render(message_id, payload)

    def judge(self, reply: Reply, now: float) -> Outcome:
        """As Profile."""
        return self._profile.judge(reply, now)

    def __getattr__(self, name: str) -> Any:
        # What some profiles have beside Profile: whoever asks whether it is there must hear of the
        # profile's own.
        return getattr(self._profile, name)
