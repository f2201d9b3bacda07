"""What a bench of merging is asked to do, and how its destination speaks. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from paceline.bench.lines import HTTP, Dialect

#: The destination's name.
NAME = "mailing"
#: Messages in one batch of the floor where nothing is merged: as many as a worker takes.
BATCH = 500


@dataclass(frozen=True, slots=True)
class Speech:
    """``profile`` and ``path`` are the sink's; ``counted`` is the field of its report that counts
    what it accepted; ``most`` how many messages one request carries at most."""

    dialect: Dialect
    profile: str
    path: str
    counted: str
    most: int

    @property
    def batch(self) -> int:
        """Messages that the floor takes at a time."""
        return self.most if self.most > 1 else BATCH


def plain() -> Speech:
    """A request for each message."""
    return Speech(HTTP, "http", "/messages", "accepted", 1)


def sparkpost(most: int) -> Speech:
    """Up to ``most`` messages in a transmission."""
    dialect = Dialect(
        "sparkpost",
        ('api_key = { env = "BENCH_API_KEY" }', f"merge = {{ most = {most} }}"),
        {"BENCH_API_KEY": "bench"},
    )
    return Speech(dialect, "sparkpost", "/api/v1/transmissions", "recipients", most)


@dataclass(frozen=True, slots=True, kw_only=True)
class MergePlan:
    """``messages`` in each measurement of each of ``pairs`` turns; ``workers`` drain them, up to
    ``most`` in a request."""

    messages: int = 400_000
    pairs: int = 3
    workers: int = 3
    most: int = 2000

    @property
    def room(self) -> int:
        """Messages that the outbox must hold; it has 4 kB for each, and one may be of 4 MB."""
        return max(10_000, 2 * self.messages)

    @property
    def speech(self) -> Speech:
        """How the destination speaks: the one place that says so."""
        return sparkpost(self.most)
