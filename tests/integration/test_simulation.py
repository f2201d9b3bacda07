"""What the product promises, held by many hosts at once on a fake clock (tests/simulation)."""

from __future__ import annotations

from simulation.scene import Scene
from simulation.verdict import simulate


def test_ten_hosts_keep_the_promises_of_three_destinations() -> None:
    run = simulate(Scene(hosts=10, destinations=3, seconds=10, seed=11))
    assert run.workers == 30
    for seen in run.verdicts:
        assert seen.margin <= 0, f"{seen.margin} requests over burst + rate * w"
        assert seen.use >= 0.99
        assert seen.connections <= seen.connections_max
        assert seen.granted == seen.connections_max
        assert seen.hosts > 3
        assert set(seen.words) == {"sent ok"}
        assert seen.law == 0


def test_hosts_that_freeze_with_a_permit_in_hand_break_no_window() -> None:
    """Full buckets, and almost as many connections as permits: what a frozen host holds weighs
    most."""
    scene = Scene(
        hosts=5, destinations=2, seconds=9, quiet_s=1.5, freezes=6,
        rate=60.0, burst=30, connections=12, seed=5,
    )  # fmt: skip
    run = simulate(scene)
    assert run.frozen >= 3
    for seen in run.verdicts:
        assert seen.margin <= 0, f"{seen.margin} requests over burst + rate * w"
        assert seen.margin > -scene.connections - 2, "no full bucket was emptied"
        assert seen.connections <= seen.connections_max
        assert seen.law == 0
