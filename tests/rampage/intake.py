"""The producer, and the ledger of what it was told: a file outside Redis."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from paceline import Outbox
from paceline.errors import PacelineError
from paceline.message import Message
from paceline.rehearsal.ledger import Entry
from support.stack import DESTINATION

_GIVE_UP_S = 60.0
_AGAIN_S = 0.05


class Ledger:
    """Appends a line for each acknowledged message before the next one is sent. Any thread."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._lock = threading.Lock()
        self.count = 0

    def note(self, message: Message) -> None:
        """It was acknowledged."""
        payload = message.payload
        entry = Entry(
            id=message.id,
            kind="good",
            sha1=hashlib.sha1(payload).hexdigest(),
            body=hashlib.sha256(payload).hexdigest()[:16],
            bytes=len(payload),
            at=time.time(),
        )
        with self._lock:
            self._file.write(msgspec.json.encode(entry) + b"\n")
            self.count += 1

    def close(self) -> None:
        self._file.close()


def hand_over(outbox: Outbox, messages: Sequence[Message], ledger: Ledger, give_up_s: float) -> int:
    """Repeats them until all are acknowledged; returns how often they were not. Raises the error
    of a refusal, and of an outage that does not end."""
    failures = 0
    end = time.monotonic() + give_up_s
    while True:
        try:
            answers = outbox.send_many(messages)
        except PacelineError:
            if time.monotonic() > end:
                raise
            failures += 1
            time.sleep(_AGAIN_S)
            continue
        for one, answer in zip(messages, answers, strict=True):
            if isinstance(answer, PacelineError):
                raise answer
            ledger.note(one)
        return failures
    return failures


class Producer(threading.Thread):
    """Sends ``per_s``, ``together`` at a time, until ``halt``. After an outage it does not catch
    up."""

    def __init__(
        self, url: str, ledger: Ledger, per_s: float, prefix: str, together: int = 1
    ) -> None:
        super().__init__(name="producer", daemon=True)
        self._url, self._ledger, self._prefix = url, ledger, prefix
        self._together, self._pause_s = together, together / per_s
        self._over = threading.Event()
        self.outages = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        number = 0
        next_s = time.monotonic()
        try:
            with Outbox.from_url(self._url, timeout_s=2.0) as outbox:
                while not self._over.wait(max(0.0, next_s - time.monotonic())):
                    next_s = max(next_s + self._pause_s, time.monotonic() - 1.0)
                    many = [message(f"{self._prefix}-{number + n}") for n in range(self._together)]
                    self.outages += hand_over(outbox, many, self._ledger, _GIVE_UP_S)
                    number += self._together
        except BaseException as error:  # noqa: BLE001  raised where somebody waits for it
            self.failure = error

    def halt(self) -> None:
        """Ends it, its last message acknowledged. Raises what went wrong in it."""
        self._over.set()
        self.join(_GIVE_UP_S + 10)
        assert not self.is_alive(), "the producer does not end"
        if self.failure is not None:
            raise self.failure


def message(its_id: str, priority: Literal["high", "normal"] = "normal") -> Message:
    """About 200 bytes."""
    text = {"id": its_id, "text": "Grüße " * 20}
    return Outbox.message(DESTINATION, text, id=its_id, priority=priority)
