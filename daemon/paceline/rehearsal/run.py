"""One rehearsal from start to report: stage, intake, wait, stop, collect, reconcile, judge."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from paceline.client import Outbox
from paceline.rehearsal import ledger as ledgers
from paceline.rehearsal import plants
from paceline.rehearsal.checks import judge
from paceline.rehearsal.evidence import Crowd, Evidence, collect_facts, save_facts, save_looks
from paceline.rehearsal.intake import Taken, send_all
from paceline.rehearsal.payloads import Draft, drafts
from paceline.rehearsal.plan import Plan, message_id, waits_twice
from paceline.rehearsal.processes import machine_ticks, stolen_since
from paceline.rehearsal.progress import Teller
from paceline.rehearsal.reconcile import reconcile
from paceline.rehearsal.report import Report, figures
from paceline.rehearsal.stage import Stage
from paceline.rehearsal.watch import Watch

LEDGER = "ledger.jsonl"


def rehearse(plan: Plan, folder: Path, tell: Teller) -> Report:
    """Runs it in ``folder`` (empty), and leaves there: paceline.toml, redis/, ledger.jsonl,
    arrivals.jsonl, outbox.jsonl, looks.jsonl, report.json, and a log of each process.

    Raises PartFailed, EmbeddedServerError, RedisUnavailable, RedisError, OSError. Whatever it
    raises (KeyboardInterrupt too), every process has been stopped in order.
    """
    began_s = time.monotonic()
    tell.stage(f"making {plan.messages:,} messages (seed {plan.seed})")
    forecast = _forecast(plan)
    messages = list(drafts(plan.messages, plan.seed))
    tell.stage(f"starting Redis, sink, daemon and {plan.workers} workers")
    with Stage(plan, folder) as stage:
        evidence = _perform(plan, stage, messages, began_s + plan.within_s, tell)
    evidence = replace(evidence, exits=stage.exits, elapsed_s=time.monotonic() - began_s)
    findings = reconcile(evidence.entries, evidence.refusals, evidence.arrivals, evidence.facts)
    allowed = stage.destination.effective_connections
    report = Report(
        plan,
        figures(plan, evidence, findings, forecast),
        judge(plan, evidence, findings, allowed),
        str(folder),
    )
    document = msgspec.json.format(msgspec.json.encode(report.as_dict()), indent=2)
    (folder / "report.json").write_bytes(document + b"\n")
    return report


def _forecast(plan: Plan) -> dict[str, Any]:
    ids = [message_id(plan.seed, number) for number in range(plan.messages)]
    return {"waits_twice": waits_twice(plan, ids)}


def _perform(
    plan: Plan, stage: Stage, messages: list[Draft], until_s: float, tell: Teller
) -> Evidence:
    watch = Watch(stage.store, tell.looked)
    tell.stage("sending")
    watch.look()
    began_s = time.monotonic()
    ticks = machine_ticks()
    plants.before_intake(plan, stage.store)
    taken = _take_in(stage, messages, watch)
    plants.after_intake(plan, stage.store, messages)
    crowd = None
    stolen = 0.0
    while (sample := watch.look()).unfinished and time.monotonic() < until_s:
        stage.check()
        if crowd is None and sample.ready == sample.leased == 0 and sample.is_open:
            ended = taken.acknowledged - sample.unfinished
            crowd = Crowd(time.monotonic() - began_s, ended, stage.cpu_used_s())
        if crowd is None:
            stolen = stolen_since(ticks)
        watch.rest()
    run_s = time.monotonic() - began_s
    cpu_s = stage.cpu_used_s()
    tell.stage("stopping the workers and the daemon")
    stage.stop_senders()
    plants.after_senders(plan, stage, messages)
    tell.stage("reconciling ledger, sink and outbox")
    entries, refusals = ledgers.read(stage.folder / LEDGER)
    facts = collect_facts(stage.store, [entry.id for entry in entries])
    save_facts(facts, stage.folder / "outbox.jsonl")
    save_looks(watch.samples, stage.folder / "looks.jsonl")
    return Evidence(
        entries=entries,
        refusals=refusals,
        arrivals=stage.sink.arrivals(),
        facts=facts,
        census=stage.store.census(),
        sink=stage.sink.report(),
        samples=watch.samples,
        taken=taken,
        cpu_s=cpu_s,
        run_s=run_s,
        crowd=crowd,
        stolen=stolen,
    )


def _take_in(stage: Stage, messages: list[Draft], watch: Watch) -> Taken:
    ledger = ledgers.Ledger(stage.folder / LEDGER, stage.username, stage.password)
    try:
        with Outbox.from_url(stage.redis.url) as outbox:
            return send_all(messages, outbox, stage.store.client, ledger, watch.look_if_due)
    finally:
        ledger.close()
