"""redis-py's errors as ours, where apps would see them."""

from __future__ import annotations

from collections.abc import Iterator

import redis.exceptions

from paceline.errors import PacelineError, RedisUnavailable
from paceline.events import Event

__all__ = ["translated", "translating"]

#: Too few replicas, a full disk. (Of a replica redis-py makes an error of its own.)
_NO_WRITES = ("NOREPLICAS", "MISCONF")


def translating(events: Iterator[Event]) -> Iterator[Event]:
    """redis-py's errors as ours, also after the first."""
    with translated():
        yield from events


def _takes_no_writes(error: redis.exceptions.ResponseError) -> bool:
    """Redis answers, but takes nothing for the moment."""
    of_role = (redis.exceptions.ReadOnlyError, redis.exceptions.MasterDownError)
    return isinstance(error, of_role) or str(error).startswith(_NO_WRITES)


class translated:  # noqa: N801 - a context manager that reads like a word
    """redis-py's errors as ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)):
            raise RedisUnavailable(str(error)) from error
        if isinstance(error, redis.exceptions.ResponseError) and _takes_no_writes(error):
            raise RedisUnavailable(
                f"it takes no writes now: {error}",
                "It may be a replica since a fail-over, have too few replicas, or a full disk: "
                "paceline doctor tells. Repeating with the same id is safe",
            ) from error
        if isinstance(error, redis.exceptions.RedisError):
            raise PacelineError(
                f"Redis refused: {error}", "Check its version (7 or later) and the user's rights"
            ) from error
