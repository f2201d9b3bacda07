"""Which texts are a destination's secrets: for the veil over logs, and over what goes on record."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl, urlsplit

from paceline.errors import ConfigError
from paceline.log_veil import Veil
from paceline.secrets_ import Secret
from paceline.settings import Destination

__all__ = ["hide_secrets_of"]

#: A shorter value of a query is as likely a version or a language as a key.
_LEAST_OF_A_QUERY = 8


def hide_secrets_of(
    veil: Veil,
    destination: Destination,
    environ: Mapping[str, str],
    sources: Collection[str] = ("value", "env", "file"),
) -> None:
    """The veil covers them from now on, in the forms in which they are sent. Not the username by
    itself: it may be any word."""

    def value(secret: Secret | None) -> str:
        if secret is None or secret.source not in sources:
            return ""
        try:
            return secret.reveal(environ)
        except ConfigError:
            return ""  # it is not there, so it cannot be told; the worker says so when it starts

    if password := value(destination.password):
        veil.hide_login(value(destination.username), password)
    if key := value(destination.api_key):
        # Bare, and as Mailgun wants it.
        veil.hide_login("api", key)
    if password := value(destination.proxy_password):
        veil.hide_login(value(destination.proxy_username), password)
    veil.hide(*(v for secret in destination.headers.values() if (v := value(secret))))
    # With its prefix or without.
    veil.hide(*(value(secret).removeprefix("whsec_") for secret in destination.secrets))
    queries = (parse_qsl(urlsplit(url).query) for url in destination.urls)
    veil.hide(*(v for query in queries for _, v in query if len(v) >= _LEAST_OF_A_QUERY))
