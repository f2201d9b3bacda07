"""The transaction outbox: a message is sent if, and only if, its transaction is committed.

The message is written as a row beside what it tells of, in the same transaction. Once that is
committed the row is handed over to Paceline at once, and deleted. A crash in between leaves the
row, and ``relay`` hands it over later.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Sequence
from datetime import datetime

from django.conf import settings
from django.db import transaction

from paceline import Outbox, PacelineError
from paceline.errors import DuplicateConflict, InvalidMessage
from paceline.message import Message
from shop.models import OutboxRow

logger = logging.getLogger(__name__)

#: Rows in one call.
PIECE = 500


@functools.cache
def outbox() -> Outbox:
    """One for the process; it connects at first use. Who has just committed waits for it, so not
    for long: what fails here is sent by the relay."""
    return Outbox.from_url(settings.PACELINE_REDIS_URL, timeout_s=1.0)


def send_on_commit(destination: str, payload: object, *, priority: str = "normal") -> str:
    """Call it within ``transaction.atomic()``. Returns the message's id.

    Raises InvalidMessage, which rolls the transaction back, for what can never be sent.
    """
    row = OutboxRow(destination=destination, payload=json.dumps(payload), priority=priority)
    _message(row)
    row.save(force_insert=True)
    transaction.on_commit(lambda: hand_over([row]))
    return row.id


def hand_over(rows: Sequence[OutboxRow]) -> int:
    """Hands rows over and deletes those that were accepted, now or before. Returns how many.

    Raises nothing of Paceline's: the order stands, and the rows that are left are the relay's.
    """
    try:
        answers = outbox().send_many([_message(row) for row in rows])
    except PacelineError as error:  # Redis is away: nobody knows what it has accepted
        logger.warning("%d left in the outbox's table: %s", len(rows), error)
        return 0
    accepted = []
    for row, answer in zip(rows, answers, strict=True):
        if not isinstance(answer, PacelineError):
            accepted.append(row.id)
        elif isinstance(answer, (InvalidMessage, DuplicateConflict)):
            logger.error("message %s is refused: %s", row.id, answer)
            OutboxRow.objects.filter(id=row.id).update(refused=str(answer))
        else:  # the outbox is full, or draining, or not configured yet: another time
            logger.warning("message %s is left in the outbox's table: %s", row.id, answer)
    OutboxRow.objects.filter(id__in=accepted).delete()
    return len(accepted)


def relay(before: datetime) -> tuple[int, int]:
    """Hands over the rows made before then, oldest first. Returns how many, and how many are left.

    Two at once do no harm, nor does one beside ``hand_over``.
    """
    waiting = OutboxRow.objects.filter(refused="", made_at__lt=before).order_by("made_at", "id")
    ids = list(waiting.values_list("id", flat=True))
    done = 0
    for start in range(0, len(ids), PIECE):
        rows = list(waiting.filter(id__in=ids[start : start + PIECE]))
        accepted = hand_over(rows)
        done += accepted
        if rows and not accepted:
            break
    return done, waiting.count()


def _message(row: OutboxRow) -> Message:
    return Outbox.message(row.destination, row.payload.encode(), id=row.id, priority=row.priority)
