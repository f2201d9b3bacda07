"""An order, what is in stock, and the outbox's table."""

from __future__ import annotations

import uuid

from django.db import models


class Stock(models.Model):
    item = models.CharField(max_length=40, primary_key=True)
    left = models.PositiveIntegerField()


class Order(models.Model):
    item = models.CharField(max_length=40)
    customer = models.EmailField()


def new_id() -> str:
    return uuid.uuid4().hex


class OutboxRow(models.Model):
    """A message that is to be sent because a transaction was committed.

    ``id`` is the message's id too, so handing the row over twice sends one message. ``payload`` is
    JSON as text, kept as it was first written: a repeated message must be the same to the byte.
    ``refused`` says why Paceline will never take it; it stays until somebody looks.
    """

    id = models.CharField(primary_key=True, max_length=128, default=new_id)
    destination = models.CharField(max_length=63)
    payload = models.TextField()
    priority = models.CharField(max_length=6, default="normal")
    made_at = models.DateTimeField(auto_now_add=True, db_index=True)
    refused = models.TextField(blank=True, default="")
