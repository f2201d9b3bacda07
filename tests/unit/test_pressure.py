"""When intake stops and begins again for the sake of Redis's memory, and what it says meanwhile."""

from __future__ import annotations

import pytest

from paceline.pressure import Drain, Memory, judge, memory_of


@pytest.mark.parametrize(
    ("used", "most", "policy", "word", "why"),
    [
        (10**12, 0, "allkeys-lru", "open", ""),
        (712, 1000, "noeviction", "open", ""),
        (713, 1000, "volatile-ttl", "keep", "71% of Redis's memory is used, and intake stops at"),
        (749, 1000, "noeviction", "keep", "until it is below 71%"),
        (750, 1000, "noeviction", "shut", "75% of Redis's memory is used, and intake stops at 75%"),
        (1, 1000, "allkeys-lfu", "shut", "maxmemory-policy allkeys-lfu"),
    ],
)  # fmt: skip
def test_judge(used: int, most: int, policy: str, word: str, why: str) -> None:
    verdict = judge(Memory(used, most, policy), 0.75)
    assert verdict.word == word
    assert why in verdict.why


def test_buffers_that_redis_does_not_count_are_not_counted() -> None:
    info = {"used_memory": 900, "maxmemory": 1000, "mem_not_counted_for_evict": 300}
    assert memory_of(info) == Memory(600, 1000, "noeviction")


def test_when_to_try_again_is_reckoned_from_the_fall() -> None:
    def told(*falls: tuple[float, int]) -> list[int]:
        drain = Drain()
        return [drain.retry_s(at, Memory(used, 1000, ""), 0.8) for at, used in falls]

    assert told((0, 960)) == [30]
    assert told((0, 960), (1, 965)) == [30, 30], "it does not fall"
    # 20 a second, and 180 to go.
    assert told((0, 960), (1, 940)) == [30, 9]
    assert told((0, 960), (1, 959)) == [30, 60]
    assert told((0, 960), (1, 765)) == [30, 5]
    # What was more than ten seconds ago counts no more.
    assert told((0, 999), (11, 900), (12, 890)) == [30, 30, 13]
