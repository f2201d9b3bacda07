"""Where events may be delivered to, and what is said of where they may not."""

from __future__ import annotations

import pytest

from paceline.errors import ConfigError
from paceline.event_batches import EVENT_BYTES, FRAME_BYTES, Batch, message_of
from paceline.events import Event
from paceline.settings_file import loads
from paceline.shared_config import script_numbers

A = (
    '[destinations.a]\nprovider = "http"\nurl = "https://a.example"\n'
    '[destinations.a.events]\nkinds = "all"\ndeliver_to = "hook"\n'
)
HOOK = (
    '[destinations.hook]\nprovider = "webhook"\nurl = "https://app.example"\n'
    'secrets = [{ env = "S" }]\n'
)
OTHER = (
    '[destinations.other]\nprovider = "http"\nurl = "https://o.example"\n'
    '[destinations.other.events]\nkinds = "all"\n'
)


def problems(text: str) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        loads(text)
    return [(p.key, f"{p.problem}. {p.mend}") for p in caught.value.problems]


def test_it_is_read_shared_and_told_to_the_scripts() -> None:
    found = loads(A + 'deliver_kinds = ["dead", "sent"]\ndeliver_linger_s = 2\n' + HOOK)
    a, hook = (found.destinations[name] for name in ("a", "hook"))
    assert a.events.deliver_kinds == ("sent", "dead")
    assert (a.events.deliver_batch, a.events.deliver_linger_s) == (100, 2.0)
    public = a.public()["events"]
    assert (public["deliver_to"], public["deliver_kinds"]) == ("hook", ["sent", "dead"])
    assert (script_numbers(a)["deliver_to"], script_numbers(hook)["deliver_to"]) == ("hook", "")


def test_several_may_deliver_to_one_that_writes_events_itself() -> None:
    text = A + HOOK + '[destinations.hook.events]\nkinds = "all"\n'
    text += OTHER + 'deliver_to = "hook"\n'
    assert loads(text).destinations["other"].events.deliver_to == "hook"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (A, "there is no destination 'hook' here. Add a table [destinations.hook]"),
        (A.replace('"hook"', '"hoo"') + HOOK, "there is no destination 'hoo' here. Did you mean"),
        (A.replace('"hook"', '"a"'), "names the destination itself"),
        (A.replace('"hook"', '"other"') + OTHER, "other is of provider http. Name one of provider"),
        (
            A + HOOK.replace('url = "https://app.example"', "") + "[destinations.hook.endpoints]\n",
            "hook has many endpoints, and events go to one URL",
        ),
        (A.replace('"all"', "[]") + HOOK, "no events are written"),
        (
            A + HOOK + '[destinations.hook.events]\nkinds = "all"\ndeliver_to = "third"\n'
            + HOOK.replace(".hook", ".third"),
            "hook delivers its own events (third). Remove deliver_to of hook",
        ),
        (
            A + HOOK + 'fallback = "other"\n' + OTHER + 'deliver_to = "last"\n'
            + HOOK.replace(".hook", ".last"),
            "hook falls back to other, which delivers its events (last)",
        ),
        (
            A + HOOK + "max_payload_bytes = 30000\n",
            "100 events in one message may be more than the 30000 bytes that max_payload_bytes of "
            "hook allows. Raise that of hook, or lower deliver_batch to 11",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_says_how_to_mend_it(text: str, said: str) -> None:
    [(key, told)] = problems(text)
    assert key == "destinations.a.events.deliver_to"
    assert told.startswith(said)


def test_two_that_deliver_to_each_other_are_both_told() -> None:
    text = A + HOOK + '[destinations.hook.events]\nkinds = "all"\ndeliver_to = "a"\n'
    keys = {key for key, _ in problems(text)}
    assert keys == {"destinations.a.events.deliver_to", "destinations.hook.events.deliver_to"}


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('deliver_kinds = ["moved"]', "deliver_kinds"),
        ("deliver_kinds = []", "deliver_kinds"),
        ("deliver_batch = 0", "deliver_batch"),
        ("deliver_batch = 1001", "deliver_batch"),
        ("deliver_linger_s = 0", "deliver_linger_s"),
    ],
)
def test_a_wrong_value_is_named(line: str, key: str) -> None:
    text = A.replace('"all"', '["sent", "dead"]') + line + "\n" + HOOK
    assert [found for found, _ in problems(text)] == [f"destinations.a.events.{key}"]


def test_the_largest_events_fit_into_what_is_reckoned_for_them() -> None:
    event = Event(
        destination="d" * 63, kind="cancelled", id="i" * 128, at=1_800_000_000.123456, seq=2**53,
        entry="1800000000000-123456", provider_id="\x01" * 100, status=200, latency_s=1234.567891,
        attempt=65535, reason="\x01" * 200, request="r" * 16,
    )  # fmt: skip
    batch = Batch(2**53 - 1, 2**53, (event,) * 1000, event.entry, 2**53)
    message = message_of(batch, event.destination, "hook", 1_800_000_000_123_456)
    assert len(message.payload) <= 1000 * EVENT_BYTES + FRAME_BYTES
