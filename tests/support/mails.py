"""Neutral e-mails to try providers on."""

from __future__ import annotations

import json
from typing import Any

#: Everything that all mail providers can express.
PLAIN: dict[str, Any] = {
    "from": {"email": "praxis@mail.example", "name": "Praxis Dr. Öhm, Berlin"},
    "to": ["Jürgen <jan@direct.example>"],
    "cc": [{"email": "copy@direct.example"}],
    "bcc": ["blind@direct.example"],
    "reply_to": "Antwort <antwort@mail.example>",
    "subject": "Befund für {{name}}",
    "html": "<p>Guten Tag {{name}}, Nr. {{ number }}</p><style>@media{a{b:c}}</style>",
    "text": "Guten Tag {{name}},\nNr. {{number}}",
    "substitution": {"name": "Jan & <Söhne>", "number": 17},
    "attachments": [
        {"filename": "größe.pdf", "content_type": "application/pdf", "content": "JVBERg=="}
    ],
    "tags": ["befund"],
    "metadata": {"case": "a-1", "page": 2},
}


def neutral(base: dict[str, Any] | None = None, /, **changes: Any) -> bytes:
    """A neutral payload: `base` (a short mail to one) with fields changed, or removed by `...`."""
    email = dict(SHORT if base is None else base)
    for name, value in changes.items():
        name = "from" if name == "sender" else name
        if value is ...:
            email.pop(name, None)
        else:
            email[name] = value
    return json.dumps({"email": email}, ensure_ascii=False).encode()


SHORT: dict[str, Any] = {
    "from": "news@acme.example",
    "to": ["jane@example.org"],
    "subject": "Hello {{name}}",
    "text": "Dear {{name}}",
    "substitution": {"name": "Jane"},
}

# As the two take it by themselves.
SENDGRID_MAIL: dict[str, Any] = {
    "personalizations": [{"to": [{"email": "jane@example.org"}]}],
    "from": {"email": "news@acme.example"},
    "subject": "s",
    "content": [{"type": "text/plain", "value": "t"}],
}
POSTMARK_MAIL: dict[str, Any] = {
    "From": "news@acme.example",
    "To": "jane@example.org",
    "Subject": "s",
    "TextBody": "t",
}
