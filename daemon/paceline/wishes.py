"""Cancelling by the function ``paceline_cancel``, which any user may call who may ask at all.

Who may cancel is answered at once. Of others the function takes a wish, which a daemon carries out;
it wakes for it, so that this takes some milliseconds.
"""

from __future__ import annotations

import time

from paceline.outbox import OutboxStore

__all__ = ["cancel"]

_POLL_FIRST_S, _POLL_MOST_S = 0.002, 0.05


def cancel(store: OutboxStore, message_id: str, timeout_s: float) -> str:
    """cancelled, begun (flagged), ended, dead, parked or unknown.

    Raises TimeoutError where no daemon answered in time: the wish stands. And as
    ``OutboxStore.ask_to_cancel``.
    """
    end = time.monotonic() + timeout_s
    word = store.ask_to_cancel(message_id)
    if word == "already":
        return "ended"
    pause = _POLL_FIRST_S
    while word == "asked":
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError(
                f"message {message_id!r} is not cancelled yet: no daemon of "
                f"{store.destination!r} answered within {timeout_s:g} s. One that runs again "
                "carries it out; cancel() once more asks what became of it"
            )
        # Not woken: nothing that an app may block on is written for a message where events are off.
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _POLL_MOST_S)
        word = store.ask_to_cancel(message_id)
    return "cancelled" if word == "already" else word
