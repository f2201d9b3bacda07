from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from shop.orders import SoldOut, place


class Command(BaseCommand):
    help = "Places an order for each item, one after the other."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("customer")
        parser.add_argument("items", nargs="+")

    def handle(self, *_: Any, customer: str, items: list[str], **__: Any) -> None:
        for item in items:
            try:
                order, message_id = place(item, customer)
            except SoldOut as error:
                raise CommandError(str(error)) from error
            self.stdout.write(f"order {order.pk}, message {message_id}")
