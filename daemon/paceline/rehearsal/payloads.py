"""The messages of a rehearsal: MaxMD payloads of real shape, all from one seed. Pure.

Sizes are log-normal with a median of about 4 kB (up to 200 kB); one in a hundred carries a base64
attachment and has 500 to 900 kB. Subjects, bodies and file names are in several scripts; one to
four recipients, as TO, CC and BCC. A few are invalid, in three ways:

refused       the client refuses it at once, naming the field
unrenderable  enqueued by the function alone, as another language would; no request can be made of
              it, so it must become a dead letter
bad-address   well formed, but the provider rejects an address (code 2): a dead letter as well
"""

from __future__ import annotations

import base64
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from paceline.rehearsal.plan import message_id

Kind = Literal["good", "refused", "unrenderable", "bad-address"]
Priority = Literal["high", "normal", "bulk"]

MEDIAN_BYTES, SIGMA, MOST_BYTES = 4_000, 1.0, 200_000
#: The attachment's bytes before base64 makes four of three.
ATTACHMENT_BYTES = (390_000, 670_000)
LARGE_SHARE = 0.01
TOO_LARGE_BYTES = 1_100_000

_PEOPLE = (
    "Zoë Brontë", "François Lefèvre", "Søren Ødegård", "Łukasz Żak", "Ana Muñoz", "王小明",
    "Αλέξανδρος Παππάς", "Наталья Иванова", "Gülşen Yılmaz", "Siobhán Ní Bhriain", "José Ávila",
    "Mary Jones", "Nguyễn Thị Hoa", "Jörg Müller", "محمد علي",
)  # fmt: skip
_TOPICS = (
    "Résumé of care", "Befund", "Lab results", "Überweisung", "Referral", "検査結果",
    "Discharge summary", "Compte rendu", "Выписка", "Informe clínico",
)  # fmt: skip
_WORDS = (
    "patient", "was", "seen", "today", "with", "no", "fever", "blood", "pressure", "120/80", "café",
    "naïve", "dose", "5 µg", "at", "37 °C", "für", "die", "Größe", "über", "señor", "“stable”",
    "—", "follow-up", "in", "two", "weeks", "\n", "“läuft”", "体温", "正常", "und", "the", "of",
)  # fmt: skip
_HOSTS = ("clinic.direct.example", "hospital.direct.example", "lab.direct.example")
_PRIORITIES: tuple[Priority, ...] = ("high", "normal", "bulk")
_TENANTS = (None, "north", "south", "west")


@dataclass(frozen=True, slots=True)
class Draft:
    """A message before anybody has seen it. ``payload`` is JSON, whatever the kind."""

    id: str
    kind: Kind
    payload: bytes
    priority: Priority = "normal"
    tenant: str | None = None


def drafts(count: int, seed: int) -> Iterator[Draft]:
    """All messages, in the order in which they are sent. Same seed, same bytes."""
    rng = random.Random(f"rehearsal {seed}")  # noqa: S311 - repeatable on purpose
    kinds = _kinds(count, rng)
    large = set(rng.sample(range(count), max(1, round(count * LARGE_SHARE))))
    text = " ".join(rng.choices(_WORDS, k=80_000))
    refusals = 0
    for number in range(count):
        kind = kinds.get(number, "good")
        document = _document(rng, text, large=number in large and kind == "good")
        if kind == "refused":
            _REFUSED[refusals % len(_REFUSED)](document)
            refusals += 1
        elif kind == "unrenderable":
            document["recipients"] = "everybody"
        elif kind == "bad-address":
            document["recipients"][0]["email"] = "nobody@nowhere"
        priority: Priority = rng.choices(_PRIORITIES, (2, 78, 20))[0]
        tenant = rng.choice(_TENANTS)
        payload = msgspec.json.encode(document)
        yield Draft(message_id(seed, number), kind, payload, priority, tenant)


def _kinds(count: int, rng: random.Random) -> dict[int, Kind]:
    refused, each = max(2, count // 250), max(2, count // 500)
    chosen = rng.sample(range(count), min(count, refused + 2 * each))
    kinds: dict[int, Kind] = dict.fromkeys(chosen[:refused], "refused")
    kinds |= dict.fromkeys(chosen[refused : refused + each], "unrenderable")
    kinds |= dict.fromkeys(chosen[refused + each :], "bad-address")
    return kinds


def _document(rng: random.Random, text: str, *, large: bool) -> dict[str, Any]:
    person = rng.choice(_PEOPLE)
    size = min(MOST_BYTES, round(MEDIAN_BYTES * math.exp(SIGMA * rng.gauss(0, 1))))
    # Most of the words are ASCII: about 1.08 bytes a character, and 350 bytes are around the body.
    length = max(20, round((size - 350) / 1.08))
    start = rng.randrange(len(text) - length)
    document: dict[str, Any] = {
        "sender": f"records@{rng.choice(_HOSTS)}",
        "recipients": [
            {"email": f"user{rng.randrange(10_000)}@{rng.choice(_HOSTS)}", "type": way}
            for way in ("TO", *rng.choices(("TO", "CC", "BCC"), k=rng.choice((0, 0, 1, 1, 2, 3))))
        ],
        "subject": f"{rng.choice(_TOPICS)}: {person}",
        "body": f"Dear {person},\n{text[start : start + length]}",
        "htmlBody": False,
    }
    if rng.random() < 0.3:
        document["replyTo"] = f"office@{rng.choice(_HOSTS)}"
    if large:
        content = base64.b64encode(rng.randbytes(rng.randint(*ATTACHMENT_BYTES))).decode("ascii")
        document["attachmentList"] = [
            {"filename": f"{person}.pdf", "contentType": "application/pdf", "content": content}
        ]
    return document


def _without_subject(document: dict[str, Any]) -> None:
    del document["subject"]


def _no_address(document: dict[str, Any]) -> None:
    document["recipients"][0]["email"] = "Zoë Brontë"


def _credentials(document: dict[str, Any]) -> None:
    document["authentication"] = {"username": "acme"}


def _broken_base64(document: dict[str, Any]) -> None:
    document["attachmentList"] = [
        {"filename": "x.pdf", "contentType": "application/pdf", "content": "not base64!"}
    ]


def _too_large(document: dict[str, Any]) -> None:
    document["body"] = "x" * TOO_LARGE_BYTES


_REFUSED: tuple[Callable[[dict[str, Any]], None], ...] = (
    _without_subject, _no_address, _credentials, _broken_base64, _too_large,
)  # fmt: skip
