"""``--durable``: who has a message when it is said to be accepted."""

from __future__ import annotations

import re
from typing import Any

import click

from paceline.cli.words import count_of
from paceline.durable import Durable

_COUNT = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)


class _Durable(click.ParamType[Durable]):
    """``server``, ``replica``, or a number of replicas from 1 to 999, as ``Outbox.send`` has it."""

    name = "durable"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Durable:
        if value == "server":
            return "server"
        if value == "replica":
            return "replica"
        if not _COUNT.fullmatch(str(value)):
            self.fail(
                f"{value!r} says nobody. Write server (what Redis itself promises), replica (one "
                "of them has it too), or how many replicas, from 1 to 999",
                param,
                ctx,
            )
        return int(value)


DURABLE = _Durable()


def replicas_in_words(durable: Durable) -> str:
    """``1 replica``, ``2 replicas``."""
    return count_of(durable if isinstance(durable, int) else 1, "replica")
