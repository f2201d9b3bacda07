from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from shop.sending import relay


class Command(BaseCommand):
    help = "Hands over what a crash, or an absent Redis, left in the outbox's table."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--older-than", type=float, default=10.0, metavar="SECONDS",
            help="leave younger rows to the process that has just committed them (10)",
        )  # fmt: skip

    def handle(self, *_: Any, older_than: float, **__: Any) -> None:
        done, left = relay(timezone.now() - timedelta(seconds=older_than))
        self.stdout.write(f"{done} handed over, {left} left")
        if left:
            raise CommandError("see the log for what is left; run it again")
