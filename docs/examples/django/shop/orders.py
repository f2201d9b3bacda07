"""What the shop does. It knows nothing of Redis."""

from __future__ import annotations

from django.db import transaction
from django.db.models import F

from shop.models import Order, Stock
from shop.sending import send_on_commit


class SoldOut(Exception):
    pass


@transaction.atomic
def place(item: str, customer: str) -> tuple[Order, str]:
    """The order, and the id of the message that confirms it; neither where it raises SoldOut."""
    order = Order.objects.create(item=item, customer=customer)
    message_id = send_on_commit(
        "partner", {"to": customer, "text": f"Your order {order.pk}: {item}"}, priority="high"
    )
    if not Stock.objects.filter(item=item, left__gt=0).update(left=F("left") - 1):
        raise SoldOut(f"no {item} left")
    return order, message_id
