"""Is a destination served, sound, and configured alike everywhere? Pure."""

from __future__ import annotations

from collections.abc import Iterator

from paceline.census import Census
from paceline.doctor.finding import Finding, Level, destination_group


def judge(census: Census, differences: str | None) -> list[Finding]:
    """``differences`` between the shared configuration and the file here: "" for none, None where
    the file does not have this destination."""
    return list(_judge(census, differences))


def _judge(census: Census, differences: str | None) -> Iterator[Finding]:
    name = census.destination
    group = destination_group(name)

    def said(check: str, level: Level, text: str, mend: str = "") -> Finding:
        return Finding(group, check, level, text, mend)

    if not census.config:
        yield said(
            "published",
            "warn",
            "this Redis does not know it yet: nothing is accepted for it",
            "Start the daemon with this configuration",
        )
        return
    if differences:
        yield said(
            "configuration",
            "fail",
            f"the file differs from the copy in Redis: {differences}",
            "Give every process the same file; to change it, stop them all, then start them",
        )
    elif differences == "":
        version = census.config.get("version", "?")
        yield said("configuration", "ok", f"as in Redis, version {version}")
    waits = f"; {census.unfinished:,} messages wait" if census.unfinished else ""
    absent: Level = "fail" if census.unfinished else "warn"
    if census.daemons:
        yield said("daemon", "ok", f"{census.daemons} live")
    else:
        yield said("daemon", absent, f"none runs{waits}", "Start one: paceline daemon")
    live = [worker for worker in census.workers if worker.live]
    slots = sum(worker.slots for worker in live)
    if live:
        yield said("workers", "ok", f"{len(live)} live, with {slots} connections")
    else:
        yield said("workers", absent, f"none lives{waits}", f"Start one: paceline worker {name}")
    for worker in census.workers:
        if not worker.live:
            yield said(
                "workers",
                "warn",
                f"{worker.id} is silent for {-worker.lease_left_s:.0f} s; {worker.slots} "
                "connections are kept back for it",
                f"Look whether it is frozen, on {worker.facts.get('host') or 'its host'}",
            )
    closed = census.closed()
    if closed is not None:
        what, left_s, why = closed
        left = "until resumed" if left_s is None else f"for {left_s:.0f} s more"
        yield said(
            "open",
            "fail" if what == "held" else "warn",
            f"{what} {left}" + (f": {why}" if why else ""),
            f"When its cause is mended: paceline resume {name}" if left_s is None else "",
        )
    if "draining" in census.gate:
        yield said(
            "open", "warn", "it drains: nothing new is accepted", f"End it: paceline resume {name}"
        )
    shut = census.intake_shut()
    if shut is not None:
        yield said(
            "intake",
            "fail",
            f"nothing new is accepted: {shut}",
            "Let it send, or give Redis more memory (maxmemory)",
        )
    if census.sound:
        yield said("accounts", "ok", "every message is accounted for")
    else:
        yield said(
            "accounts",
            "fail",
            f"{abs(census.difference):,} messages are not accounted for",
            f"Look: paceline audit {name} --deep",
        )
    yield from _fullness(census, group)


def _fullness(census: Census, group: str) -> Iterator[Finding]:
    """Intake is refused beyond max_messages and max_bytes."""
    held = census.unfinished + census.law["dead"] + census.law["parked"]
    for what, used, most in (
        ("max_messages", held, int(census.config.get("max_count", "0"))),
        ("max_bytes", census.counters.get("bytes", 0), int(census.config.get("max_bytes", "0"))),
    ):
        if most and used >= 0.8 * most:
            yield Finding(
                group,
                "room",
                "warn" if used < most else "fail",
                f"{used:,} of {what} {most:,}: at the limit intake is refused",
                "Raise it; or settle dead and parked ones, which count too",
            )
