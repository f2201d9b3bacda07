"""Which messages share a request."""

from __future__ import annotations

from paceline.merged import Member
from paceline_workers.grouping import Group, Grouping, Likeness
from paceline_workers.providers.base import Portion

ONE = Likeness(b"1", b"", (b"content",))
OTHER = Likeness(b"1", b"", (b"another",))


def grouping(
    most: int = 3, max_bytes: int = 1000, linger_s: float = 1.0, held: int = 10
) -> Grouping:
    return Grouping(most, max_bytes, linger_s, held)


def add(
    groups: Grouping,
    name: str,
    likeness: Likeness = ONE,
    part: bytes = b"p",
    now: float = 0.0,
    apart: bytes = b"",
) -> Group | None:
    member = Member(name, "nonce", bytes(60), bytes(20), 2)
    return groups.add(likeness, b"whole", member, Portion(likeness.shared, part, apart), now)


def names(group: Group | None) -> list[str]:
    assert group is not None
    return [member.id for member in group.members]


def test_a_group_is_complete_when_it_is_full() -> None:
    groups = grouping()
    assert add(groups, "a") is None
    assert add(groups, "b") is None
    assert names(add(groups, "c")) == ["a", "b", "c"]
    assert len(groups) == 0


def test_what_is_not_alike_does_not_share() -> None:
    groups = grouping(most=2)
    for number, likeness in enumerate(
        [
            ONE,
            OTHER,
            Likeness(b"2", b"", ONE.shared),
            Likeness(b"1", b"acme", ONE.shared),
            Likeness(b"1", b"", ONE.shared, b"spring"),
        ]
    ):
        assert add(groups, str(number), likeness) is None
    assert names(add(groups, "5", OTHER)) == ["1", "5"]


def test_one_that_would_pass_the_bytes_begins_a_group_of_its_own() -> None:
    groups = grouping(max_bytes=10)
    assert add(groups, "a", part=b"12345") is None
    assert names(add(groups, "b", part=b"12345")) == ["a"]
    assert names(groups.drain()[0]) == ["b"]


def test_one_that_is_larger_than_all_goes_alone() -> None:
    groups = grouping(max_bytes=10)
    assert add(groups, "a", part=b"x" * 50) is None
    assert names(add(groups, "b")) == ["a"]


def test_what_must_be_apart_is_in_two_requests() -> None:
    groups = grouping()
    assert add(groups, "a", apart=b"x@example.com") is None
    assert add(groups, "b", apart=b"y@example.com") is None
    assert names(add(groups, "c", apart=b"x@example.com")) == ["a", "b"]
    assert names(groups.drain()[0]) == ["c"]


def test_a_group_waits_for_so_long_after_its_first() -> None:
    groups = grouping()
    add(groups, "a", now=5.0)
    add(groups, "b", now=5.9)
    assert groups.next_due_s() == 6.0
    assert groups.due(5.99) == []
    assert names(groups.due(6.0)[0]) == ["a", "b"]
    assert groups.next_due_s() is None


def test_high_does_not_wait() -> None:
    groups = grouping()
    add(groups, "a")
    add(groups, "h", Likeness(b"0", b"", ONE.shared))
    assert [names(group) for group in groups.due(0.1, priority=b"0")] == [["h"]]
    assert len(groups) == 1


def test_too_many_that_wait_send_the_largest_group_off() -> None:
    groups = grouping(most=5, held=3)
    add(groups, "a")
    add(groups, "b")
    add(groups, "c", OTHER)
    assert names(add(groups, "d", OTHER)) in (["a", "b"], ["c", "d"])
    assert len(groups) == 2
