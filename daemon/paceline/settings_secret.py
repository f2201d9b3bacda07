"""Secrets of the configuration file: one, and the keys of a webhook. None is ever shown."""

from __future__ import annotations

from typing import Any

from paceline.errors import ConfigProblem
from paceline.secrets_ import Secret
from paceline.settings_tables import unknown_key
from paceline.webhook_key import MEND, webhook_key

__all__ = ["secret_from", "webhook_secrets_from"]

#: A key is replaced by signing with the new one and the old one until all receivers know the new.
_MOST = 5


def secret_from(key: str, value: Any, problems: list[ConfigProblem]) -> Secret | None:
    """The secret at this dotted key; None where `problems` grew."""
    mend = 'Write "…", { env = "NAME" } or { file = "/path" }'
    if isinstance(value, str):
        if value:
            return Secret(key, "value", value)
        problems.append(ConfigProblem(key, "empty", mend))
    elif isinstance(value, dict) and len(value) == 1:
        (source, ref), *_ = value.items()
        if source not in ("env", "file"):
            problems.append(unknown_key(f"{key}.{source}", source, ("env", "file")))
        elif not isinstance(ref, str) or not ref:
            problems.append(ConfigProblem(f"{key}.{source}", "is no name", mend))
        else:
            return Secret(key, source, ref)
    else:
        # The value itself is not shown: it may be the secret, written in another form.
        problems.append(ConfigProblem(key, "is neither a string nor one reference", mend))
    return None


def webhook_secrets_from(at: str, value: Any, problems: list[ConfigProblem]) -> tuple[Secret, ...]:
    """The destination's `secrets`, the newest first. Those that the file itself holds are looked
    at here; of the others a worker sees what they are when it starts."""
    at = f"{at}.secrets"
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST:
        mend = 'The newest first: [{ env = "NAME" }, { file = "/path" }]'
        problems.append(ConfigProblem(at, f"is no list of 1 to {_MOST} secrets", mend))
        return ()
    found: list[Secret] = []
    for index, one in enumerate(value):
        key = f"{at}[{index}]"
        secret = secret_from(key, one, problems)
        if secret is None:
            continue
        if any((secret.source, secret.ref) == (it.source, it.ref) for it in found):
            problems.append(ConfigProblem(key, "is there twice", "Remove one of them"))
        elif secret.source == "value":
            try:
                webhook_key(secret.ref)
            except ValueError as error:
                problems.append(ConfigProblem(key, str(error), MEND))
        found.append(secret)
    return tuple(found)
