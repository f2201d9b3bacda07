"""Commands that look and change nothing: status, show, audit."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click
import redis

from paceline.audit import DeepAudit, Findings
from paceline.census import Census
from paceline.cli import explain
from paceline.cli.common import (
    DURATION,
    console,
    json_option,
    on_terminal,
    pick_stores,
    print_json,
    progress,
    redis_option,
)
from paceline.cli.endpoint_words import lane_text, why_lane_waits
from paceline.cli.words import count_of, excerpt, in_words, local_time
from paceline.client import Outbox
from paceline.endpoint_registry import EndpointRegistry
from paceline.endpoints import lane_of
from paceline.errors import NotPossible
from paceline.message_status import Status
from paceline.outbox import OutboxStore
from paceline.rates import Rates, between, percentile_s
from paceline.redaction import Redaction

_PAYLOAD_HELP = (
    "Print the payload, byte for byte, and nothing else; with *** for what redact of the "
    "destination names."
)
_NONE_KNOWN = "No destination is known on this Redis: start the daemon once, with a configuration."


@click.command(
    epilog="""\b
Examples:
  paceline status               all destinations, one line each
  paceline status maxmd         one in full
  paceline status --over 5s     with the rate achieved, measured over five seconds
  paceline status --json | jq '.destinations.maxmd.ready'

The exit code is 0 when every conservation law is sound, else 1."""
)
@click.argument("destinations", metavar="[DEST]...", nargs=-1)
@click.option(
    "--over",
    type=DURATION,
    metavar="DURATION",
    help="Measure the rate achieved, over so long: 5s, 1m.",
)
@json_option
@redis_option
def status(
    client: redis.Redis, destinations: tuple[str, ...], over: float | None, as_json: bool
) -> int:
    """What waits, why, and when it will be done."""
    stores = pick_stores(client, destinations)
    achieved: dict[str, Rates | None] = {}
    found = [store.census() for store in stores]
    if over is not None and found:
        before = found
        time.sleep(over)
        found = [store.census() for store in stores]
        achieved = {b.destination: between(b, a) for b, a in zip(before, found, strict=True)}
    sound = all(census.sound for census in found)
    if as_json:
        views = {c.destination: explain.status_view(c, achieved.get(c.destination)) for c in found}
        print_json({"sound": sound, "destinations": views})
    elif not found:
        click.echo(_NONE_KNOWN)
    elif destinations:
        texts = (status_text(c, achieved.get(c.destination)) for c in found)
        click.echo("\n\n".join(texts))
    else:
        _status_table(found, achieved)
    return 0 if sound else 1


def _status_table(found: Sequence[Census], achieved: Mapping[str, Rates | None]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("destination", no_wrap=True)
    for name in ("ready", "scheduled", "leased", "dead", "parked", "sent", "rate", "oldest",
                 "done in"):  # fmt: skip
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why it waits", overflow="fold")
    for census in found:
        why = explain.why_waits(census).text
        if "draining" in census.gate:
            why = f"draining; {why}"
        if census.intake_shut() is not None:
            why = f"intake shut; {why}"
        leans = explain.leans_to(census)
        if leans and leans[1]:
            why = f"fallback {leans[1]}% to {leans[0]}; {why}"
        if not census.sound:
            why = f"NOT SOUND, see: paceline audit {census.destination}; {why}"
        law = census.law
        table.add_row(
            census.destination,
            *(f"{law[term]:,}" for term in ("ready", "scheduled", "leased", "dead", "parked")),
            f"{law['sent']:,}",
            explain.rate_words(census, achieved.get(census.destination)),
            in_words(census.sizes["oldest_us"] / 1e6) if law["ready"] else "-",
            eta_words(census),
            Text(why, style="red" if not census.sound else ""),
        )
    console().print(table)


def eta_words(census: Census) -> str:
    """When what waits will be done, "?" where something must be done first."""
    if not census.unfinished:
        return "-"
    eta_s = explain.eta_s(census)
    return "?" if eta_s is None else in_words(eta_s)


def status_text(census: Census, rates: Rates | None = None) -> str:
    """One destination in full; ``rates`` where they were measured."""
    law, sizes = census.law, census.sizes
    lines = [
        census.destination + ("" if census.sound else "   " + explain.law_verdict(census)),
        f"  waits       {law['ready']:,} ready (high {sizes['ready_high']:,}, normal "
        f"{sizes['ready_normal']:,}, bulk {sizes['ready_bulk']:,}), "
        f"{law['scheduled']:,} scheduled, {law['leased']:,} with workers",
        f"  why         {explain.why_waits(census).text}",
    ]
    lines += [f"  closed      {closure.text}" for closure in explain.closures(census)]
    if "draining" in census.gate:
        lines.append(f"  draining    takes nothing new ({census.gate['draining']})")
    if (shut := census.intake_shut()) is not None:
        lines.append(f"  intake      shut: {shut}")
    if leans := explain.leans_to(census):
        lines.append(f"  fallback    {leans[1]}% to {leans[0]}, {law['moved_out']:,} moved so far")
    if told := explain.endpoints_words(census):
        lines.append(f"  endpoints   {told}")
    if forward := explain.forwards_to(census):
        lost = forward["unforwarded"]
        missed = f", {lost:,} trimmed away before" if lost else ""
        lines.append(f"  events      to {forward['to']}, {forward['lag']:,} not there yet{missed}")
    if census.unfinished:
        backlog = explain.backlog_s(census)
        at_rate = "" if backlog is None else f" ({in_words(backlog)} at the rate)"
        lines.append(f"  done in     {eta_words(census)}{at_rate}")
    if sizes.get("merged"):
        merged = f"{sizes['merged']:,} messages in {sizes['merged_requests']:,} requests"
        lines.append(f"  merged      {merged}, {census.fill:.0f} in one on average")
    if law["ready"]:
        lines.append(f"  oldest      {in_words(sizes['oldest_us'] / 1e6)}")
    if census.held_back:
        lines.append(
            f"  campaigns   {census.held_back:,} of those scheduled wait with paused campaigns"
        )
    if law["scheduled"] > census.held_back:
        lines.append(f"  next due    in {in_words(max(0, sizes['next_due_us']) / 1e6)}")
    level = explain.bucket_level(census)
    lines += [
        f"  pace        {explain.rate_words(census, rates)}, "
        + f"burst {census.config.get('burst', '?')}, bucket "
        + ("not drawn from yet" if level is None else f"{max(0.0, level):.1f}")
        + f" of {census.gate.get('k', '?')}",
        f"  ended       {law['sent']:,} sent, {law['expired']:,} expired, {law['cancelled']:,} "
        f"cancelled, {law['dropped']:,} dropped, {law['moved_out']:,} moved",
        f"  shelved     {law['dead']:,} dead, {law['parked']:,} parked",
        "  counted     "
        + ", ".join(f"{n:,} {name}" for name, n in explain.counters(census).items()),
    ]
    for name, what in (("api", "api"), ("sent", "to sent")):
        p50 = percentile_s(census.histogram, name, 0.5)
        p99 = percentile_s(census.histogram, name, 0.99)
        if p50 is not None and p99 is not None:
            lines.append(f"  {what:<11} p50 {in_words(p50)}, p99 {in_words(p99)}")
    lines.append(f"  processes   {count_of(census.daemons, 'daemon')}, "
                 f"{count_of(explain.live_workers(census), 'live worker')}")  # fmt: skip
    for worker in census.workers:
        if worker.live:
            state = f"lease {in_words(worker.lease_left_s)}"
        else:
            state = f"silent for {in_words(-worker.lease_left_s)}"
        host = worker.facts.get("host") or worker.facts.get("hostname") or ""
        at = f" on {host}" if host else ""
        held = explain.held_words(worker)
        lines.append(f"    {worker.id}{at}: {count_of(worker.slots, 'connection')}{held}, {state}")
        if worker.facts.get("config_stale"):
            lines.append("      lives by an older configuration: reload it (SIGHUP)")
        lines += [f"      {words}" for words in explain.route_words(worker)]
    return "\n".join(lines)


@click.command(
    epilog="""\b
Examples:
  paceline show maxmd invoice-17
  paceline show maxmd invoice-17 --payload | jq ."""
)
@click.argument("destination", metavar="DEST")
@click.argument("message_id", metavar="ID")
@click.option("--payload", is_flag=True, help=_PAYLOAD_HELP)
@json_option
@redis_option
def show(
    client: redis.Redis, destination: str, message_id: str, payload: bool, as_json: bool
) -> int:
    """What became of one message."""
    if payload and as_json:
        raise click.UsageError("--payload prints bytes as they are: leave out --json")
    store = pick_stores(client, (destination,))[0]
    found = Outbox(client).status(destination, message_id)
    if payload:
        body = store.payload(message_id)
        if body is None:
            raise NotPossible(
                "printing the payload",
                f"message {message_id!r} is {found.state}, and its payload went with its end",
            )
        sys.stdout.buffer.write(Redaction(store.redacted()).shown(body))
        sys.stdout.buffer.flush()
        return 0
    census = store.census()
    lane = found.tenant if census.config.get("endpoints") else None
    why = _why_message(found, census, _why_lane(store, found, census) if lane else None)
    if as_json:
        view = asdict(found)
        view["history"] = [dict(attempt) for attempt in found.history]
        now = time.time()
        view["age_s"] = None if found.accepted_at is None else now - found.accepted_at
        print_json({**view, "why": why})
    else:
        click.echo(_message_text(found, why, time.time(), lane))
    return 0


def _why_lane(store: OutboxStore, found: Status, census: Census) -> str | None:
    """Why its endpoint keeps the message waiting; None where it does not."""
    if found.state not in ("ready", "scheduled"):
        return None
    lane = found.tenant or ""
    registry = EndpointRegistry(store)
    [seen] = registry.look([lane_of(lane)[0]])
    turn = registry.turn(lane, seen.endpoint) if seen else None
    return why_lane_waits(store.destination, lane, seen, turn, census)


def _why_message(found: Status, census: Census, why_lane: str | None) -> str:
    """``why_lane``: what its endpoint has to do with it."""
    if found.state == "moved":
        return (
            f"moved to {found.provider_id}, to which this one falls back; "
            f"paceline show {found.provider_id} {found.id} tells what became of it"
        )
    if found.final:
        return f"it has ended: {found.state}"
    last = str(found.history[-1].get("reason") or "") if found.history else ""
    if found.state == "dead":
        return f"dead letter: {last or 'no reason on record'}; " + (
            f"paceline dead replay {found.destination} {found.id} sends it again"
        )
    if found.state == "parked":
        return f"nobody knows whether it was sent: {last}; " + (
            f"paceline parked settle {found.destination} {found.id} --as sent|retry|drop decides"
        )
    if found.state == "begun":
        return f"on the wire, by worker {found.worker}"
    if found.paused:
        return (
            f"it waits with its campaign, which is paused; paceline campaign resume "
            f"{found.destination} {found.campaign}"
        )
    closed = explain.closures(census)
    if closed:
        return "; ".join(closure.text for closure in closed)
    if found.state == "leased":
        return f"with worker {found.worker}, for its permit"
    if found.state == "scheduled":
        left = in_words(max(0.0, (found.due or 0) - census.now_us / 1e6))
        told = f"to be tried in {left}" + (f", after: {last}" if last else "")
        return told + (f"; {why_lane}" if why_lane else "")
    if why_lane:
        return why_lane
    if cap := explain.tenant_cap(census, found.tenant):
        return cap
    why = explain.why_waits(census)
    if why.code == "endpoints":
        return "it waits for its turn: what is of its endpoint and key goes one after the other"
    if why.code == "tenant-cap":
        return "it goes with the next batch: only other tenants' own rates hold anything back"
    if why.code not in ("rate", "connections"):
        return why.text
    ahead = ("high", "normal", "bulk")
    upto = ahead[: ahead.index(found.priority or "normal") + 1]
    before = max(0, sum(census.sizes.get(f"ready_{name}", 0) for name in upto) - 1)
    return f"at most {count_of(before, 'message')} go before it; what binds: {why.text}"


def _message_text(found: Status, why: str, now: float, lane: str | None) -> str:
    """``lane``: of a destination with many endpoints, where it goes."""
    lines = [f"{found.destination} {found.id}: {found.state}", f"  why         {why}"]

    def moment(label: str, at: float | None) -> None:
        if at is not None:
            span = f"{in_words(now - at)} ago" if at <= now else f"in {in_words(at - now)}"
            lines.append(f"  {label:<11} {local_time(at)} ({span})")

    moment("accepted", found.accepted_at)
    moment("ended", found.ended_at)
    moment("due", found.due)
    moment("expires", found.expires)
    if not found.final:
        labels = [f"priority {found.priority}"]
        if found.tenant:
            labels.append(lane_text(lane) if lane else f"tenant {found.tenant}")
        labels += [f"campaign {found.campaign}"] if found.campaign else []
        lines.append(f"  as          {', '.join(labels)}; {found.payload_bytes:,} bytes")
        lines.append(f"  attempts    {found.attempts} begun, {found.tries} charged")
        if found.request:
            lines.append(f"  request     {found.request}, merged with others")
    if found.provider_id and found.state != "moved":
        lines.append(f"  provider id {found.provider_id}")
    if found.cancel_asked:
        lines.append("  cancel      asked for: not tried again should this attempt fail")
    lines += [f"    {attempt_line(attempt)}" for attempt in found.history]
    response = next((a["response"] for a in reversed(found.history) if a.get("response")), None)
    if response:
        lines.append(f"  last response: {excerpt(str(response), 600)}")
    return "\n".join(lines)


def attempt_line(attempt: Mapping[str, Any]) -> str:
    """One attempt on record, in one line."""
    at = attempt.get("at_us")
    parts = [local_time(float(at) / 1e6)] if at else []
    parts.append(f"{attempt.get('outcome', '?')}: {attempt.get('reason') or '-'}")
    if attempt.get("latency_ms") is not None:
        parts.append(in_words(float(attempt["latency_ms"]) / 1e3))
    if attempt.get("worker"):
        parts.append(f"by {attempt['worker']}")
    if attempt.get("members"):
        others = int(attempt["members"]) - 1
        parts.append(f"in request {attempt.get('request')} with {others:,} others")
    return "  ".join(parts)


@click.command(
    epilog="""\b
Examples:
  paceline audit                the conservation law of every destination
  paceline audit maxmd --deep   and every message against its container

The exit code is 0 when all is sound, else 1."""
)
@click.argument("destinations", metavar="[DEST]...", nargs=-1)
@click.option("--deep", is_flag=True, help="Walk every message and every place in the containers.")
@json_option
@redis_option
def audit(client: redis.Redis, destinations: tuple[str, ...], deep: bool, as_json: bool) -> int:
    """Account for every message.

    Per destination: accepted + moved_in = sent + expired + cancelled + dropped + moved_out + dead +
    parked + ready + scheduled + leased, all read at one instant.
    """
    sound = True
    views: dict[str, Any] = {}
    for store in pick_stores(client, destinations):
        findings = _walk(store, as_json=as_json) if deep else None
        census = store.census()
        sound = sound and census.sound and (findings is None or findings.sound)
        if as_json:
            views[store.destination] = explain.law_view(census)
            if findings is not None:
                views[store.destination]["deep"] = _findings_view(findings)
                views[store.destination]["sound"] = census.sound and findings.sound
        else:
            click.echo(_audit_text(census, findings))
            views[store.destination] = True
    if as_json:
        print_json({"sound": sound, "destinations": views})
    elif not views:
        click.echo(_NONE_KNOWN)
    return 0 if sound else 1


def _walk(store: OutboxStore, *, as_json: bool) -> Findings:
    walk = DeepAudit(store)
    shown = on_terminal(as_json=as_json)
    total = walk.steps() if shown else 0
    with progress(f"audit {store.destination}", total, shown=shown) as advance:
        return walk.run(advance)


def _audit_text(census: Census, findings: Findings | None) -> str:
    arrived, accounted = explain.equation(census)
    lines = [
        f"{census.destination}: {explain.law_verdict(census)}",
        f"  {arrived}",
        f"  {accounted}",
    ]
    if lost := explain.lost_text(census):
        lines.append(f"  {lost}")
    if findings is None:
        return "\n".join(lines)
    lines.append(
        f"  walked {count_of(findings.messages, 'message')}, "
        f"{count_of(findings.records, 'record')} of ended ones, "
        f"{count_of(findings.places, 'place')} in containers"
    )
    if findings.bytes_found is None:
        lines.append(
            "  bytes: not compared, for messages came or went meanwhile; "
            "pause and audit again to have them compared"
        )
    else:
        lines.append(
            f"  bytes: counter {findings.bytes_counter:,}, payloads {findings.bytes_found:,}"
        )
    if findings.sound:
        lines.append("  every message agrees with its container")
        return "\n".join(lines)
    total = sum(findings.counts.values())
    lines.append(f"  NOT SOUND: {count_of(total, 'discrepancy', 'discrepancies')}")
    for fault in findings.faults:
        lines.append(f"    {excerpt(f'{fault.subject}: {fault.problem}', 1000)}")
        lines.append(f"      {excerpt(fault.mend, 1000)}")
    if total > len(findings.faults):
        lines.append(f"    and {total - len(findings.faults):,} more")
    return "\n".join(lines)


def _findings_view(findings: Findings) -> dict[str, Any]:
    return {
        "sound": findings.sound,
        "messages": findings.messages,
        "records": findings.records,
        "places": findings.places,
        "bytes_counter": findings.bytes_counter,
        "bytes_found": findings.bytes_found,
        "counts": dict(findings.counts),
        "faults": [asdict(fault) for fault in findings.faults],
    }
