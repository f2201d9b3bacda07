"""``paceline send``: a JSON Lines file into the outbox, checked whole before anything is sent."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import click

from paceline.cli import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_REDIS, EXIT_USAGE
from paceline.cli.common import (
    Setup,
    interrupts,
    json_option,
    on_terminal,
    open_client,
    pick_stores,
    print_json,
    progress,
    redis_errors,
    setup_options,
)
from paceline.cli.durable import DURABLE, replicas_in_words
from paceline.cli.endpoint_common import registry_of
from paceline.cli.endpoint_words import unknown_endpoint
from paceline.cli.lines import Line, Lines, Refusal, Rules, check_prefix
from paceline.cli.moment import MOMENT
from paceline.cli.reckon import reckon
from paceline.cli.send_summary import Summary
from paceline.cli.spreading import Spread, too_long, too_old
from paceline.cli.words import count_of, in_words
from paceline.client import PIPELINE, Outbox, Receipt
from paceline.durable import Durable
from paceline.endpoint_registry import EndpointRegistry
from paceline.errors import (
    Draining,
    DuplicateConflict,
    InvalidMessage,
    NotReplicated,
    OutboxFull,
    PacelineError,
    RedisUnavailable,
    UnknownDestination,
)
from paceline.message import Message, check_label, new_id
from paceline.outbox import OutboxStore

_SPOOL_BYTES = 16 * 1024 * 1024
#: Refusals of these concern the destination, not the line: the lines after it would fare the same.
_STOPS = (OutboxFull, Draining, UnknownDestination)


@click.command(
    epilog="""\b
Examples:
  paceline send maxmd messages.jsonl
  generate | paceline send maxmd - --id-prefix campaign-7
  paceline send maxmd messages.jsonl --dry-run
  paceline send maxmd messages.jsonl --id-prefix campaign-7 --finish-by 09:00

\b
A line:
  {"payload": {…}, "id": "invoice-17", "priority": "high"}
also: tenant, campaign, not_before, expires, delay_s, ttl_s; endpoint and key, of a destination with
many endpoints.

With --finish-by the last message is due a fiftieth of the time before TIME, at most a minute. A
line's own not_before or delay_s holds where it is later than its turn; one after TIME is a bad
line, and so is one that expires before TIME. When the command is repeated, what was accepted keeps
its turn.

With --durable replica a message is acknowledged when one replica of Redis has it too, with a number
when so many have. Where they do not say so in time, sending stops; what was accepted stays so and
will be sent. To have it acknowledged, give the same command again.

Exit codes: 0 all accepted; 1 Redis refused some (outbox full, draining, an id used with another
payload, an endpoint that is disabled or unknown), or replicas did not say that they have them; 2
bad lines, or --finish-by cannot be kept:
nothing was sent; 3 Redis was not available."""
)
@click.argument("destination", metavar="DEST")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--skip-invalid", is_flag=True, help="Leave bad lines out and send the others.")
@click.option("--dry-run", is_flag=True, help="Check every line, send nothing.")
@click.option(
    "--id-prefix",
    metavar="NAME",
    help="Lines without id get NAME-<line number>: repeating the command is then safe.",
)
@click.option(
    "--endpoint",
    metavar="NAME",
    help="Where lines without endpoint go, of a destination with many endpoints.",
)
@click.option(
    "--key", metavar="KEY", help="With --endpoint: lines without key go in the file's order."
)
@click.option(
    "--max-errors",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    help="Print at most so many bad lines; 0 prints all.",
)
@click.option(
    "--finish-by",
    type=MOMENT,
    metavar="TIME",
    help="Spread them evenly, to be sent by then: 09:00 (the next, local time), an ISO 8601 "
    "date-time, or 2h. Refused where the rate cannot carry them beside what waits.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Spread them even if they cannot all be sent by --finish-by: the rest goes later.",
)
@click.option(
    "--durable",
    type=DURABLE,
    metavar="server|replica|N",
    default="server",
    show_default=True,
    help="Who has a message when it counts as accepted: as durable as Redis's own settings, or one "
    "replica has it too, or N have.",
)
@json_option
@setup_options
def send(
    setup: Setup,
    destination: str,
    file: str,
    skip_invalid: bool,
    dry_run: bool,
    id_prefix: str | None,
    endpoint: str | None,
    key: str | None,
    max_errors: int,
    finish_by: float | None,
    force: bool,
    durable: Durable,
    as_json: bool,
) -> int:
    """Hand over the messages of a JSON Lines file.

    Every line is checked first; if any is bad, nothing is sent. What was accepted is on its way
    whatever happens to the rest, and a line with an id can be sent again safely.
    """
    if force and finish_by is None:
        raise click.UsageError("--force goes with --finish-by TIME")
    if id_prefix is not None:
        try:
            check_prefix(id_prefix)
        except InvalidMessage as error:
            raise click.BadParameter(
                f"{id_prefix!r} makes no ids. Use up to 100 of A-Z a-z 0-9 . _ -",
                param_hint="--id-prefix",
            ) from error
    _check_labels(endpoint, key)
    client = open_client(setup, repeats=3)
    try:
        with redis_errors():
            store = pick_stores(client, (destination,))[0]
            rules = _rules(
                store, id_prefix or new_id(), finish_by=finish_by, endpoint=endpoint, key=key
            )
            if endpoint is not None:
                _check_registered(registry_of(client, destination), destination, endpoint)
            if not dry_run and store.census().gate.get("draining"):
                raise Draining(destination)
        with _opened(file) as (source, size):
            run = _Run(Outbox(client), store, source, size, rules, durable=durable, as_json=as_json)
            run.check(max_errors)
            if run.summary.invalid and not skip_invalid:
                return run.refuse(dry_run=dry_run)
            run.summary.skipped = run.summary.invalid
            if finish_by is not None and (problem := run.spread(finish_by, force=force)):
                return run.refuse_spread(problem, dry_run=dry_run)
            code = 0 if dry_run else run.send()
            return run.report(code, dry_run=dry_run, prefix_given=id_prefix is not None)
    finally:
        client.close()


def _check_labels(endpoint: str | None, key: str | None) -> None:
    if key is not None and endpoint is None:
        raise click.UsageError("--key goes with --endpoint NAME: it orders what one endpoint gets")
    for option, value in (("endpoint", endpoint), ("key", key)):
        if value is None:
            continue
        try:
            check_label(option, value)
        except InvalidMessage as error:
            text = f"{error.problem}. {error.mend}"
            raise click.BadParameter(text, param_hint=f"--{option}") from error


def _check_registered(registry: EndpointRegistry, destination: str, endpoint: str) -> None:
    """Else every line would be refused for it."""
    if registry.find(endpoint) is None:
        raise unknown_endpoint(destination, endpoint, registry.names())


def _rules(store: OutboxStore, prefix: str, **asked: Any) -> Rules:
    provider, limit = store.intake_rules()
    if provider is None or limit is None:
        raise UnknownDestination(store.destination)
    return Rules(store.destination, provider, limit, prefix, **asked)


@contextmanager
def _opened(file: str) -> Iterator[tuple[IO[bytes], int]]:
    """The file and its size. What can be read only once is spooled: it is read twice."""
    if file == "-":
        with _spooled(sys.stdin.buffer) as spooled:
            yield spooled
        return
    try:
        source = Path(file).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise click.FileError(file, error.strerror or str(error)) from error
    with source:
        if source.seekable():
            yield source, Path(file).stat().st_size
        else:
            with _spooled(source) as spooled:
                yield spooled


@contextmanager
def _spooled(source: IO[bytes]) -> Iterator[tuple[IO[bytes], int]]:
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
        shutil.copyfileobj(source, spool, 1024 * 1024)
        yield spool, spool.tell()


class _Run:
    """One file on its way: checked, sent, reported."""

    def __init__(
        self,
        outbox: Outbox,
        store: OutboxStore,
        source: IO[bytes],
        size: int,
        rules: Rules,
        *,
        durable: Durable,
        as_json: bool,
    ) -> None:
        self._outbox = outbox
        self._store = store
        self._source = source
        self._size = size
        self._rules = rules
        self._durable = durable
        self._as_json = as_json
        self._error: PacelineError | None = None
        self._bad: set[int] = set()
        self._last = 0
        self.summary = Summary(rules.destination, rules.id_prefix)

    def check(self, max_errors: int) -> None:
        """First pass: every line is checked, every bad one told."""
        summary = self.summary
        with self._progress("check") as advance:
            at = 0
            for line in Lines(self._source, self._rules, time.time()):
                summary.read += 1
                self._last = line.number
                if isinstance(line, Refusal):
                    summary.invalid += 1
                    self._bad.add(line.number)
                    self._refused(line, shown=not max_errors or summary.invalid <= max_errors)
                    continue
                summary.made_ids += line.made_id
                summary.warnings.update(line.warnings)
                advance(line.end - at)
                at = line.end
        if max_errors and summary.invalid > max_errors:
            self._say(
                f"and {summary.invalid - max_errors:,} more bad lines (--max-errors 0 shows all)"
            )

    def refuse(self, *, dry_run: bool) -> int:
        """Reports that nothing is sent, for the file has bad lines."""
        summary = self.summary
        summary.stopped = "bad lines"
        if self._as_json:
            print_json(summary.view(dry_run=dry_run))
        else:
            self._say(
                f"{count_of(summary.invalid, 'bad line')} of {summary.read:,}: nothing was sent. "
                "Mend them, or send the others with --skip-invalid"
            )
        return EXIT_USAGE

    def spread(self, finish_by: float, *, force: bool) -> str:
        """Gives each message its turn before ``finish_by``, unix seconds. Returns why that cannot
        be, in words, or ""; with ``force`` the rate is not asked."""
        good, now = self.summary.good, time.time()
        if not good:
            return ""
        if finish_by <= now:
            return f"--finish-by has passed, {in_words(now - finish_by)} ago"
        planned = Spread(count=good, start=now, finish_by=finish_by)
        with redis_errors():
            census = self._store.census()
            reckoning = reckon(census, planned.until - now)
            problem = "" if force else too_long(planned, reckoning, good)
            if problem:
                # When the command is repeated, what waits is this very file.
                problem = too_long(planned, reckoning, good - self._there_already())
        problem = problem or too_old(planned, census)
        if not problem:
            self.summary.spread = planned
            for note in reckoning.notes:
                self._say(note)
        return problem

    def _there_already(self) -> int:
        """How many of the good lines Redis has, by their ids."""
        count = 0
        with self._progress("look up") as advance:
            at = 0
            lines = (line for line in self._good_lines() if isinstance(line, Line))
            while piece := list(islice(lines, PIPELINE)):
                there = self._store.look([line.message.id for line in piece])
                count += sum(found is not None for found in there)
                advance(piece[-1].end - at)
                at = piece[-1].end
        return count

    def refuse_spread(self, problem: str, *, dry_run: bool) -> int:
        """Reports that nothing is sent, for it could not be sent in time."""
        self.summary.stopped = problem
        if self._as_json:
            print_json(self.summary.view(dry_run=dry_run))
        else:
            self._say(f"{problem}. Nothing was sent")
        return EXIT_USAGE

    def send(self) -> int:
        """Second pass: sends what the first found good. Returns the exit code."""
        try:
            with interrupts() as was_asked:
                return self._send_all(was_asked)
        except KeyboardInterrupt:
            self.summary.stopped = "interrupted"
            return EXIT_INTERRUPTED

    def _send_all(self, was_asked: Callable[[], bool]) -> int:
        under_way: deque[Line | Refusal] = deque()
        at = 0
        try:
            with self._progress("send") as advance:
                messages = self._messages(under_way, was_asked)
                answers = self._outbox.send_stream(messages, durable=self._durable)
                for count, answer in enumerate(answers, 1):
                    self._tell_refusals(under_way)
                    line = under_way.popleft()
                    assert isinstance(line, Line)
                    self._answered(line, answer)
                    if count % PIPELINE == 0:
                        advance(line.end - at)
                        at = line.end
                self._tell_refusals(under_way)
        except (RedisUnavailable, KeyboardInterrupt) as error:
            self._doubt(under_way)
            if isinstance(error, KeyboardInterrupt):
                self.summary.stopped = "interrupted"
                return EXIT_INTERRUPTED
            self._error, self.summary.stopped = error, error.what
            return EXIT_REDIS
        except PacelineError as error:
            # Redis answers, and refused in the middle (a right, say): it can tell how far.
            self._error, self.summary.stopped = error, error.what
            self._look_up(under_way)
            return EXIT_FAILED
        if self.summary.stopped:
            return EXIT_FAILED if self._error else EXIT_INTERRUPTED
        return EXIT_FAILED if self.summary.conflicts else 0

    def _messages(
        self, under_way: deque[Line | Refusal], was_asked: Callable[[], bool]
    ) -> Iterator[Message]:
        """What is to be sent, until something stops it; ``under_way`` holds what has no answer."""
        for line in self._lines_in_turn():
            if not self.summary.stopped and was_asked():
                self.summary.stopped = "interrupted"
            if self.summary.stopped:
                return
            under_way.append(line)
            if isinstance(line, Line):
                yield line.message

    def _tell_refusals(self, under_way: deque[Line | Refusal]) -> None:
        """Lines that are messages no more, in their turn."""
        while under_way and isinstance(refusal := under_way[0], Refusal):
            under_way.popleft()
            self.summary.tried += 1
            self.summary.conflicts += 1
            self._refused(refusal, shown=True)

    def _good_lines(self) -> Iterator[Line | Refusal]:
        """What the first pass found good. A Refusal among it was good then: it has expired since.

        Relative times count from now: checking a big file took a while.
        """
        for line in Lines(self._source, self._rules, time.time()):
            if line.number > self._last:
                break  # appended since the file was checked
            if line.number not in self._bad:
                yield line

    def _lines_in_turn(self) -> Iterator[Line | Refusal]:
        """The good lines, each with its turn where they are spread."""
        spread = self.summary.spread
        if spread is None:
            yield from self._good_lines()
            return
        for line, turn in zip(self._good_lines(), spread.turns(), strict=False):
            yield line if isinstance(line, Refusal) else line.in_turn(turn)

    def _answered(self, line: Line, answer: Receipt | PacelineError) -> None:
        self.summary.tried += 1
        if isinstance(answer, Receipt):
            self._accepted(line, new=answer.status == "new")
        elif isinstance(answer, NotReplicated):
            # The lines after it would wait for the same replicas in vain.
            self._accepted(line, new=answer.status == "new")
            self.summary.unreplicated.add(line.number, self.summary.tried)
            self._error, self.summary.stopped = answer, answer.what
        elif isinstance(answer, _STOPS):
            # What was under way by then is answered still.
            self._error, self.summary.stopped = answer, answer.what
        else:
            self.summary.conflicts += 1
            self._refused(_as_refusal(line, answer), shown=True)

    def _look_up(self, under_way: Iterable[Line | Refusal]) -> None:
        """Asks which of them Redis has after all."""
        lines = [line for line in under_way if isinstance(line, Line)]
        try:
            with redis_errors():
                there = self._store.look([line.message.id for line in lines])
        except PacelineError:
            self._doubt(lines)
            return
        for line, found in zip(lines, there, strict=True):
            self.summary.tried += 1
            if found is not None:
                self._accepted(line, new=True)
                if self._durable != "server":
                    self.summary.unreplicated.add(line.number, self.summary.tried)

    def _accepted(self, line: Line, *, new: bool) -> None:
        if new:
            self.summary.accepted += 1
        else:
            self.summary.already += 1
        self.summary.taken.add(line.number, self.summary.tried)

    def _doubt(self, under_way: Iterable[Line | Refusal]) -> None:
        for line in under_way:
            self.summary.tried += 1
            if isinstance(line, Line):
                self.summary.in_doubt.add(line.number, self.summary.tried)

    def _refused(self, refusal: Refusal, *, shown: bool) -> None:
        if self._as_json:
            self.summary.refused.append(refusal)
        if shown:
            self._say(refusal.text)

    def report(self, code: int, *, dry_run: bool, prefix_given: bool) -> int:
        """Says what became of the file, and how to go on; returns ``code``."""
        summary = self.summary
        if self._as_json:
            print_json(summary.view(dry_run=dry_run))
            return code
        if dry_run:
            good = count_of(summary.good, "message")
            click.echo(f"{good} for {summary.destination} would be sent; nothing was")
        else:
            new = count_of(summary.accepted, "message")
            already = f", {summary.already:,} accepted before" if summary.already else ""
            click.echo(f"{new} accepted by {summary.destination}{already}")
        if summary.spread and (dry_run or summary.accepted):
            click.echo(("would be " if dry_run else "") + summary.spread.text)
        for warning, count in summary.warnings.items():
            self._say(f"warning: {count_of(count, 'message')} {warning}")
        if summary.conflicts:
            self._say(f"{count_of(summary.conflicts, 'line')} refused, as told above")
        if summary.skipped:
            self._say(f"{count_of(summary.skipped, 'bad line')} skipped")
        if summary.stopped:
            self._tell_stop(prefix_given=prefix_given)
        elif summary.made_ids and not prefix_given:
            self._say(
                f"{count_of(summary.made_ids, 'line')} had no id, and got "
                f"{summary.id_prefix}-<line number>. Repeating this command would send them twice: "
                "--id-prefix NAME gives the same ids each time"
            )
        return code

    def _tell_stop(self, *, prefix_given: bool) -> None:
        summary = self.summary
        taken = summary.accepted + summary.already
        self._say(f"stopped: {self._error or summary.stopped}")
        lines = f": lines {summary.taken}" if taken else ""
        self._say(f"  accepted, and stay so: {count_of(taken, 'message')}{lines}")
        if summary.unreplicated.count:
            self._say(
                f"  of these not known to be with {replicas_in_words(self._durable)} yet: "
                f"{count_of(summary.unreplicated.count, 'message')}: lines {summary.unreplicated}"
            )
        if summary.in_doubt.count:
            self._say(
                "  handed over, but no answer came: "
                f"{count_of(summary.in_doubt.count, 'message')}: lines {summary.in_doubt}"
            )
        rest = summary.good - taken - summary.in_doubt.count - summary.conflicts
        self._say(f"  not accepted: {count_of(rest, 'message')}")
        prefix = (
            "" if prefix_given or not summary.made_ids else f" and --id-prefix {summary.id_prefix}"
        )
        self._say(
            f"To go on, give the same command again, with the same file{prefix}: "
            "what was accepted is known by its id and not sent twice"
        )

    def _say(self, text: str) -> None:
        if not self._as_json:
            click.echo(f"paceline: {text}", err=True)

    @contextmanager
    def _progress(self, label: str) -> Iterator[Callable[[int], None]]:
        shown = on_terminal(as_json=self._as_json)
        with progress(f"{label} {self._rules.destination}", self._size, shown=shown) as advance:
            yield advance


def _as_refusal(line: Line, error: PacelineError) -> Refusal:
    if isinstance(error, InvalidMessage):
        return Refusal(line.number, line.message.id, error.field, error.problem, error.mend)
    where = "id" if isinstance(error, DuplicateConflict) else ""
    return Refusal(line.number, line.message.id, where, error.what, error.mend)
