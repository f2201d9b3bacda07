"""Destinations in a bare Redis, as a daemon would have published them."""

from __future__ import annotations

import redis

from paceline.outbox import OutboxStore
from paceline.scripts import load_library
from paceline.settings import Destination
from paceline.settings_file import loads
from paceline.shared_config import publish

MAXMD_PAYLOAD = {
    "sender": "ward@clinic.example",
    "recipients": [{"email": "dr.müller@praxis.example", "type": "TO"}],
    "subject": "Befund",
    "body": "Guten Tag",
}


def destination(name: str = "web", provider: str = "http", more: str = "") -> Destination:
    """One configured destination."""
    secrets = {
        "maxmd": 'username = "u"\npassword = { env = "PW" }\n',
        "sparkpost": 'api_key = { env = "KEY" }\n',
        "mailgun": 'api_key = { env = "KEY" }\n',
    }.get(provider, "")
    text = (
        f'[destinations.{name}]\nprovider = "{provider}"\n'
        f'url = "http://127.0.0.1:9/x"\n{secrets}{more}\n'
    )
    return loads(text).destinations[name]


def published(
    client: redis.Redis, name: str = "web", provider: str = "http", more: str = ""
) -> OutboxStore:
    """Its outbox, with its configuration in Redis and the function library loaded."""
    load_library(client)
    store = OutboxStore(client, name)
    publish(store, destination(name, provider, more))
    return store
