"""``paceline sink``, and ``python -m paceline.sink``: a sink as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from paceline.sink.faults import parse_faults
from paceline.sink.latency import parse_latency
from paceline.sink.limit import parse_limit
from paceline.sink.profiles import PROFILES
from paceline.sink.report import Report, as_text
from paceline.sink.script import load_script
from paceline.sink.server import Sink
from paceline.sink.settings import SinkSettings
from paceline.sink.spec import SpecError, duration_s

_Callback = Callable[[click.Context, click.Parameter, str | None], str | None]


def _checked(parse: Callable[[str], object]) -> _Callback:
    """Read a text of one of the sink's languages early, so that the error names the option."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        try:
            if value:
                parse(value)
        except SpecError as exc:
            raise click.BadParameter(str(exc), ctx, param) from exc
        return value

    return check


_HELP_EPILOG = """\b
Faults, separated by commas, each KIND[=VALUE][:SHARE%][:option=value]:
  503, 429:2%:retry_after=1   an HTTP status; options retry_after (seconds,
                              HTTP date, date+N), body, acted=yes|no
  reset_before, eof_before    RST or FIN once the headers are in
  reset_after, eof_after      RST or FIN after the whole body; acted
  hang, hang:for=3s           no answer, or late; acted
  drip:every=200ms            the answer byte by byte; acted
  close                       a good answer, then FIN without warning
  business=999                HTTP 200 with a business error
  garbage=html                200 unreadable: html, empty, binary, truncated
  redirect=302:location=/x    a redirect
  huge=16MB                   a good answer of that size
  typed                       a good answer, every value of a wrong type
  liar=502                    that 5xx with the body of a good answer
  row=422/1300, row=429       the profile's own error answer: HTTP status and
                              code; an unknown one lists those there are
  quota=2101                  sparkpost: row=420/2101
  large-batches               mailgun: the 403 that wants smaller calls
  limit-exceeded:for=30s      mailgun: the 429 with the time in its text
Without a share a fault is certain.

\b
Latency: 50ms, 20-60ms, exp:40ms (mean), lognormal:40ms:0.5 (median, sigma).

\b
While it runs: GET /_sink/report, /_sink/arrivals, /_sink/connections;
POST /_sink/faults {"faults": "429:retry_after=2"}, {"next": {"count": 5,
"fault": "503"}}, {"down": "3s"}; POST /_sink/reset.

\b
Paths: sparkpost /api/v1/transmissions; mailgun /v3/DOMAIN/messages and
/messages.mime; sendgrid /v3/mail/send; postmark /email and /email/batch;
maxmd, webhook and http any. A mail address that begins with reject- is refused:
sparkpost and postmark take the others, mailgun and sendgrid refuse the call;
postmark takes the ErrorCode from a number there (reject-300@example.com).

\b
Example:
  paceline sink --profile maxmd --port 8025 --latency 20-60ms \\
      --faults 503:1%,reset_after:0.5% --seed 7 --record arrivals.jsonl
"""


@click.command("sink", epilog=_HELP_EPILOG)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="maxmd",
    show_default=True,
    help="Whose answers to give.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8025,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--port-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write host:port to this file once listening.",
)
@click.option(
    "--faults", metavar="FAULTS", callback=_checked(parse_faults), default="", help="See below."
)
@click.option(
    "--latency", metavar="LATENCY", callback=_checked(parse_latency), default="", help="See below."
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Same seed: same faults to the same tries of the same messages.",
)
@click.option(
    "--script",
    "script_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='JSON file: ["503", "ok"], or by id {"id-7": ["503*3", "ok"]}.',
)
@click.option(
    "--limit",
    metavar="RATE,BURST",
    callback=_checked(parse_limit),
    help="The sink's own rate limit (429), requests/s and burst: 100,150.",
)
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append every arrival to this file, JSON Lines.",
)
@click.option("--username", help="The only username accepted (maxmd).")
@click.option("--password", help="The only password accepted (maxmd).")
@click.option(
    "--api-key",
    envvar="PACELINE_SINK_API_KEY",
    help="The only key accepted (sparkpost, mailgun, sendgrid, postmark), or the secret that must "
    "have signed (webhook); default: any.",
)
@click.option(
    "--reject",
    metavar="PREFIX",
    default="reject-",
    show_default=True,
    help="Refuse mail addresses that begin so (sparkpost, mailgun, sendgrid, postmark).",
)
@click.option(
    "--recipients",
    is_flag=True,
    help="Keep every address accepted; the report lists those accepted more than once.",
)
@click.option(
    "--status",
    type=click.IntRange(200, 599),
    default=200,
    show_default=True,
    help="HTTP status of the good answer (http).",
)
@click.option(
    "--idle-close",
    metavar="DURATION",
    callback=_checked(duration_s),
    help="Close connections without traffic for so long, e.g. 5s.",
)
@click.option(
    "--lean",
    is_flag=True,
    help="Answer without checking anything, for benchmarks; recipients are counted by bytes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the final report as JSON.")
def sink_command(
    profile: str,
    host: str,
    port: int,
    port_file: Path | None,
    faults: str,
    latency: str,
    seed: int,
    script_file: Path | None,
    limit: str | None,
    record: Path | None,
    username: str | None,
    password: str | None,
    api_key: str | None,
    reject: str,
    recipients: bool,
    status: int,
    idle_close: str | None,
    lean: bool,
    as_json: bool,
) -> None:
    """Run a local provider simulator until SIGTERM or Ctrl-C.

    It answers like the provider, fails and delays as asked, records every arrival, and prints a
    report when it ends.
    """
    try:
        script = load_script(script_file) if script_file is not None else None
    except (SpecError, OSError) as exc:
        raise click.BadParameter(str(exc), param_hint="--script") from exc
    settings = SinkSettings(
        host=host,
        port=port,
        profile=profile,
        username=username,
        password=password,
        api_key=api_key,
        reject=reject,
        recipients=recipients,
        status=status,
        validate=not lean,
        faults=faults,
        latency=latency,
        seed=seed,
        script=script,
        limit=limit,
        record=record,
        idle_s=duration_s(idle_close) if idle_close else None,
    )
    report = asyncio.run(_serve(settings, port_file))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
    else:
        click.echo(as_text(report), nl=False)


async def _serve(settings: SinkSettings, port_file: Path | None) -> Report:
    stop = asyncio.Event()
    try:
        sink = Sink(settings)
    except SpecError as exc:
        raise click.UsageError(str(exc)) from exc
    except OSError as exc:
        raise click.ClickException(
            f"cannot open the record file {settings.record}: {exc.strerror}; "
            "give --record a path that can be written"
        ) from exc
    loop = asyncio.get_running_loop()
    _watch_parent(loop, stop)
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    try:
        await sink.start(stop.set)
    except OSError as exc:
        raise click.ClickException(
            f"cannot listen on {settings.host}:{settings.port}: {exc.strerror}; "
            "choose another --port (0 takes a free one) or --host"
        ) from exc
    try:
        if port_file is not None:
            _write_port_file(port_file, f"{settings.host}:{sink.port}")
        click.echo(f"sink: listening on {sink.url} (profile {settings.profile})", err=True)
        await stop.wait()
    finally:
        await sink.stop()
        if port_file is not None:
            port_file.unlink(missing_ok=True)
    if sink.failure is not None:
        raise click.ClickException(
            f"stopped by a failure inside the sink: {sink.failure!r}; the record ends there"
        ) from sink.failure
    return sink.report()


def _watch_parent(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stops the sink when the process that started it, and said so, is gone."""
    named = os.environ.get("PACELINE_PARENT")

    def look() -> None:
        if str(os.getppid()) != named:
            stop.set()
        else:
            loop.call_later(1.0, look)

    if named:
        look()


def _write_port_file(path: Path, address: str) -> None:
    # Renamed into place: who waits for the file must never read half of it.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(address + "\n", "utf-8")
        draft.replace(path)
    except OSError as exc:
        raise click.ClickException(
            f"cannot write the port file {path}: {exc.strerror}; "
            "give --port-file a path in a folder that can be written"
        ) from exc
