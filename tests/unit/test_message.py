"""What an app may ask for, and what it hears when it may not."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paceline.errors import InvalidMessage
from paceline.message import (
    MAX_DEPTH,
    Message,
    build,
    check_id,
    check_label,
    check_name,
    encode_payload,
    new_id,
    parse_line,
    parse_time,
)

NOW = 1_800_000_000.0
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abé\n"), inner),
    max_leaves=12,
)


def line(**fields: Any) -> bytes:
    return json.dumps({"payload": {}} | fields).encode()


# --- ids and names ---


def test_a_new_id_has_26_safe_characters_and_is_new() -> None:
    ids = {new_id() for _ in range(5_000)}
    assert len(ids) == 5_000
    assert {len(check_id(value)) for value in ids} == {26}


@given(st.integers(0, 2**40 * 10**6), st.integers(1_000, 10**15), st.binary(min_size=9, max_size=9))
def test_ids_sort_by_time_to_the_microsecond(ns: int, later: int, rand: bytes) -> None:
    assert new_id(ns, rand) < new_id(ns + later, b"\0" * 9)


def test_an_id_begins_with_the_ulid_time_so_that_its_tools_can_read_it() -> None:
    # The example of the ULID specification: 1469918176385 ms is 01ARYZ6S41.
    assert new_id(1_469_918_176_385_000_000, b"\xff" * 9).startswith("01ARYZ6S41")


def test_all_random_bits_but_none_of_the_time_come_from_rand() -> None:
    low, high = new_id(10**18, b"\0" * 9), new_id(10**18, b"\xff" * 9)
    assert low[:12] == high[:12]
    assert low.endswith("0" * 13)
    assert high.endswith("Z" * 13)


@pytest.mark.parametrize("good", ["a", "A.b_c-9", "x" * 128])
def test_good_ids_are_given_back(good: str) -> None:
    assert check_id(good) == good


@pytest.mark.parametrize("bad", ["", "x" * 129, "a b", "a\n", "é", "a/b", "٣", 7, None])
def test_bad_ids_are_refused(bad: Any) -> None:
    with pytest.raises(InvalidMessage) as caught:
        check_id(bad)
    assert caught.value.field == "id"


@pytest.mark.parametrize("good", ["maxmd", "0-a_b", "x" * 63])
def test_good_destination_names(good: str) -> None:
    assert check_name(good) == good


@pytest.mark.parametrize("bad", ["", "x" * 64, "Maxmd", "_a", "-a", "a.b", "{a}", "a\n", None])
def test_bad_destination_names(bad: Any) -> None:
    with pytest.raises(InvalidMessage) as caught:
        check_name(bad)
    assert caught.value.field == "destination"


@pytest.mark.parametrize("bad", ["", "x" * 65, "a:b", "a b", "ü", 3])
def test_bad_tenants_and_campaigns_name_their_field(bad: Any) -> None:
    assert check_label("tenant", "Acme.eu-1_b") == "Acme.eu-1_b"
    for field in ("tenant", "campaign"):
        with pytest.raises(InvalidMessage) as caught:
            build("maxmd", {}, now=NOW, **{field: bad})
        assert caught.value.field == field


# --- payloads ---


@given(JSON, st.sampled_from([None, 2]), st.booleans())
def test_ready_json_is_kept_to_the_last_byte(value: Any, indent: int | None, ascii: bool) -> None:
    text = " " + json.dumps(value, indent=indent, ensure_ascii=ascii) + "\n"
    assert encode_payload(text) == text.encode()
    assert encode_payload(text.encode()) == text.encode()


@pytest.mark.parametrize(
    "ready",
    [b'{"a":1,"a":2}', b"[]", b"{}", b"123456789012345678901234567890", b"1e999", b"0.10", b"null"],
)
def test_what_reencoding_would_change_comes_through_unchanged(ready: bytes) -> None:
    assert encode_payload(ready) == ready
    assert encode_payload(bytearray(ready)) == ready
    assert encode_payload(memoryview(ready)) == ready


@given(JSON.filter(lambda value: not isinstance(value, str)))
def test_objects_are_encoded_so_that_they_decode_to_themselves(value: Any) -> None:
    assert json.loads(encode_payload(value)) == value


def test_dataclasses_and_datetimes_are_encoded() -> None:
    @dataclasses.dataclass
    class Order:
        at: datetime
        note: str | None = None

    encoded = encode_payload(Order(datetime(2026, 11, 30, 8, tzinfo=UTC)))
    assert json.loads(encoded) == {"at": "2026-11-30T08:00:00Z", "note": None}


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"a": [1.0, {"b": float("nan")}]}, "payload.a[1].b"),
        ({"n": None, "x": float("inf")}, "payload.x"),
        ((0.0, float("-inf")), "payload[1]"),
    ],
)
def test_nan_is_refused_where_it_stands_and_not_turned_into_null(value: Any, field: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        encode_payload(value)
    assert caught.value.field == field


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = {"a": value} if levels % 2 else [value]
    return value


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 5_000, 100_000])
def test_too_deep_nesting_is_refused_as_bytes_and_as_object(levels: int) -> None:
    for value in (deep(levels), b"[" * levels + b"]" * levels):
        with pytest.raises(InvalidMessage, match="nested deeper than 100"):
            encode_payload(value)


def test_nesting_up_to_the_limit_and_brackets_in_strings_are_fine() -> None:
    encode_payload(deep(MAX_DEPTH))
    encode_payload(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    for levels, fine in ((MAX_DEPTH, True), (MAX_DEPTH + 1, False)):
        siblings = b"[" + b"[[[],{}]]," * 50 + b"[" * (levels - 1) + b"]" * levels
        if fine:
            assert encode_payload(siblings) == siblings
        else:
            with pytest.raises(InvalidMessage, match="nested"):
                encode_payload(siblings)
    flat = json.dumps(["[" * 500, '"{\\' * 200] + [[]] * 500)
    assert encode_payload(flat) == flat.encode()


@pytest.mark.parametrize(
    "value",
    ["\ud800", {"a": "\udfff"}, {"\ud800": 1}, b'"\\ud800"', b'{"a":"x\\udc00 "}', '"\ud83d"'],
)
def test_half_an_emoji_is_refused_with_its_reason(value: Any) -> None:
    with pytest.raises(InvalidMessage, match="surrogate pair"):
        encode_payload(value)


def test_a_whole_emoji_escaped_is_fine() -> None:
    assert encode_payload(rb'"\ud83d\ude00"') == rb'"\ud83d\ude00"'


@pytest.mark.parametrize(
    "value",
    [
        *(b"", " ", "hello", b"{'a':1}", b"{} {}", b"[1,]", b"NaN", b"01", b"\xff"),
        *(b'"\xed\xa0\x80"', b"\xef\xbb\xbf{}", b'"\x01"', b'"\\ud800'),
        *(object(), {(1, 2): 3}, {"a": {1j}}),
    ],
)
def test_what_is_no_json_is_refused_by_the_name_of_the_field(value: Any) -> None:
    with pytest.raises(InvalidMessage) as caught:
        encode_payload(value)
    assert caught.value.field == "payload"
    assert "surrogate" not in str(caught.value)


@given(st.text('[]{}",:\\u0123dD8tre .-+eE\n', max_size=12))
@example('"\\ud800\\udc00"')
@example('{"":[-0.0e+1]}')
def test_a_document_is_taken_exactly_where_the_standard_library_takes_it(text: str) -> None:
    def standard() -> bool:
        try:
            json.loads(text).__repr__().encode()
            json.dumps(json.loads(text), ensure_ascii=False).encode()
        except ValueError:
            return False
        return True

    try:
        encode_payload(text)
        taken = True
    except InvalidMessage:
        taken = False
    assert taken == standard()


# --- times ---


@pytest.mark.parametrize(
    "value",
    [
        1_764_489_600,
        1_764_489_600.0,
        "2025-11-30T08:00:00Z",
        "2025-11-30t08:00:00.000z",
        "2025-11-30 09:00:00+01:00",
        "2025-11-30T03:30:00-04:30",
        datetime(2025, 11, 30, 9, tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_one_moment_written_in_many_ways(value: Any) -> None:
    assert parse_time("not_before", value) == 1_764_489_600.0


@pytest.mark.parametrize(
    "value",
    [
        *("2025-11-30T08:00:00", "2025-11-30", "now", "1764489600", "2025-13-01T00:00:00Z", ""),
        *(True, None, float("nan"), float("inf"), -1, 10**400, 1_764_489_600_000, [1]),
        datetime(2025, 11, 30, 8),
    ],
)
def test_times_that_mean_no_moment_are_refused(value: Any) -> None:
    with pytest.raises(InvalidMessage) as caught:
        parse_time("expires", value)
    assert caught.value.field == "expires"


def test_zero_is_a_time_and_a_delay() -> None:
    assert parse_time("not_before", 0) == 0
    assert build("maxmd", {}, now=NOW, delay_s=0).not_before == NOW


def test_milliseconds_are_recognised() -> None:
    with pytest.raises(InvalidMessage, match="milliseconds"):
        parse_time("not_before", 1_764_489_600_000)


# --- messages and lines ---


def test_a_message_is_frozen_and_has_quiet_defaults() -> None:
    message = build("maxmd", {"a": 1}, now=NOW)
    assert message == Message(id=message.id, destination="maxmd", payload=b'{"a":1}')
    assert message.priority == "normal"
    with pytest.raises(AttributeError):
        message.priority = "high"  # type: ignore[misc]


def test_delay_and_ttl_count_from_now() -> None:
    message = build("maxmd", {}, now=NOW, delay_s=60, ttl_s=3600)
    assert (message.not_before, message.expires) == (NOW + 60, NOW + 3600)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"priority": "urgent"}, "priority"),
        ({"delay_s": 1, "not_before": NOW}, "delay_s"),
        ({"ttl_s": 1, "expires": NOW}, "ttl_s"),
        ({"delay_s": -1}, "delay_s"),
        ({"ttl_s": float("nan")}, "ttl_s"),
        ({"delay_s": True}, "delay_s"),
        ({"delay_s": 60, "ttl_s": 60}, "ttl_s"),
        ({"not_before": NOW + 1, "expires": NOW}, "expires"),
        ({"id": "a b"}, "id"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        build("maxmd", {}, now=NOW, **fields)
    assert caught.value.field == field


def test_a_message_that_has_expired_already_is_accepted_to_be_accounted() -> None:
    assert build("maxmd", {}, now=NOW, expires=NOW - 5).expires == NOW - 5


@given(JSON, st.booleans())
def test_a_line_keeps_the_bytes_of_its_payload(value: Any, ascii: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii, separators=(" ,", ": ")).encode()
    message = parse_line(
        b' {"id":"m-1", "payload":' + raw + b"}\r\n", 3, destination="maxmd", now=NOW
    )
    assert message is not None
    assert (message.id, message.payload) == ("m-1", raw)


def test_a_line_takes_every_field() -> None:
    text = line(
        id="m-1",
        priority="bulk",
        tenant="acme",
        campaign="c1",
        not_before="2027-01-15T08:00:00Z",
        ttl_s=10**6,
    )
    assert parse_line(text, 1, destination="maxmd", now=NOW) == Message(
        id="m-1",
        destination="maxmd",
        payload=b"{}",
        priority="bulk",
        tenant="acme",
        campaign="c1",
        not_before=1_800_000_000.0,
        expires=NOW + 10**6,
    )


def test_a_line_without_an_id_gets_one() -> None:
    first = parse_line(line(), 1, destination="maxmd", now=NOW)
    second = parse_line(line(), 2, destination="maxmd", now=NOW)
    assert first is not None
    assert second is not None
    assert first.id != second.id


@pytest.mark.parametrize("blank", [b"", b"\n", b"  \r\n", b"\xef\xbb\xbf\n"])
def test_a_blank_line_is_no_message(blank: bytes) -> None:
    assert parse_line(blank, 1, destination="maxmd", now=NOW) is None


def test_a_byte_order_mark_is_skipped_on_the_first_line_only() -> None:
    marked = b"\xef\xbb\xbf" + line()
    assert parse_line(marked, 1, destination="maxmd", now=NOW) is not None
    with pytest.raises(InvalidMessage):
        parse_line(marked, 2, destination="maxmd", now=NOW)


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        (line(prioritiy="high"), "prioritiy", "Did you mean priority?"),
        (line(colour="red"), "colour", "unknown key"),
        (b'{"id":"m"}', "payload", "missing"),
        (line(id=7), "id", "str"),
        (line(priority="urgent"), "priority", "none of high, normal, bulk"),
        (line(not_before=True), "not_before", "bool"),
        (line(expires="tomorrow"), "expires", "RFC 3339"),
        (line(delay_s="5"), "delay_s", "str"),
        (b"[1]", "line", "array"),
        (b'{"payload":{}', "line", "not JSON"),
        (b'{"payload":"\xff"}', "payload", "UTF-8"),
        (b'{"payload":{},"id":"\xff"}', "line", "UTF-8"),
        (b'{"payload":' + b"[" * 200 + b"]" * 200 + b"}", "payload", "nested"),
        (b'{"payload":' + b"[" * 9999 + b"]" * 9999 + b"}", "payload", "nested"),
        (b'{"payload":"\\ud800"}', "payload", "surrogate"),
    ],
)
def test_a_bad_line_is_refused_by_number_field_and_reason(
    text: bytes, field: str, says: str
) -> None:
    with pytest.raises(InvalidMessage, match="line 41: ") as caught:
        parse_line(text, 41, destination="maxmd", now=NOW)
    assert caught.value.field == field
    assert says in str(caught.value)
    assert caught.value.line == 41
