from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from shop.models import Stock


class Command(BaseCommand):
    help = "Puts an item in stock."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("item")
        parser.add_argument("count", type=int)

    def handle(self, *_: Any, item: str, count: int, **__: Any) -> None:
        Stock.objects.update_or_create(item=item, defaults={"left": count})
