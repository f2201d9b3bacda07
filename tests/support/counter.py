"""A provider's counter: what a profile renders goes over a real socket to its simulator, and what
comes back is judged by it. The profile is built by the registry from a configuration, the transport
is the worker's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from paceline.settings import Destination
from paceline.settings_file import loads
from paceline.sink.record import Arrival
from paceline.sink.settings import SinkOptions
from paceline.sink.thread import SinkThread
from paceline_workers.outcome import Outcome, Reply, judge_failure
from paceline_workers.providers.base import Profile, RenderedRequest, as_merging
from paceline_workers.providers.registry import build
from paceline_workers.transports.adapter import GatedRequest
from paceline_workers.transports.connection import TransportError
from support.rig import Rig

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
_SECRET = "the-only-key"
_SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECRETS = {
    "KEY": _SECRET,
    "SIGNING": _SIGNING,
    "SENDGRID_AUTHORIZATION": f"Bearer {_SECRET}",
    "POSTMARK_SERVER_TOKEN": _SECRET,
}
_KEY = 'api_key = { env = "KEY" }'
_LOGIN = 'username = "u"\npassword = { env = "KEY" }'
#: simulator -> (path, lines of the configuration)
PLACES = {
    "sparkpost": ("/api/v1/transmissions", _KEY),
    "mailgun": ("/v3/mail.example/messages", _KEY),
    "maxmd": ("/message-rest/api/message/Send", _LOGIN),
    "webhook": (
        "/hooks",
        'secrets = [{ env = "SIGNING" }]\nguard_allow = ["127.0.0.1"]',
    ),
    "http": ("/", ""),
}


def configured(simulator: str, sink_url: str, more: str = "") -> Destination:
    """The destination "d" of that provider; of SendGrid and Postmark the shipped example."""
    if simulator in PLACES:
        path, lines = PLACES[simulator]
        text = f'[destinations.d]\nprovider = "{simulator}"\nurl = "{sink_url}{path}"\n{lines}'
        return loads(f"{text}\n{more}").destinations["d"]
    example = (EXAMPLES / f"{simulator}.toml").read_text()
    (url,) = (line for line in example.splitlines() if line.startswith("url = "))
    path = url.split('"')[1].split("/", 3)[3]
    example = example.replace(url, f'url = "{sink_url}/{path}"')
    (destination,) = loads(example + more).destinations.values()
    return destination


class Answer(NamedTuple):
    """What the profile made of it, and the reply itself (None: there was no whole one)."""

    outcome: Outcome
    reply: Reply | None


class Counter:
    """``with Counter("mailgun") as at: at.send(payload, "429")``: each call plays one fault."""

    def __init__(self, simulator: str, *, more: str = "", total_s: float = 4.0) -> None:
        self.simulator = simulator
        self._more = more
        self._total_s = total_s
        options: SinkOptions = {"profile": simulator, "recipients": True}
        if simulator == "maxmd":
            options |= {"username": "u", "password": _SECRET}
        else:
            options["api_key"] = _SIGNING if simulator == "webhook" else _SECRET
        self.sink = SinkThread(**options)
        self._count = 0

    def __enter__(self) -> Self:
        self.sink.__enter__()
        self.destination = configured(self.simulator, self.sink.url, self._more)
        self.profile: Profile = build(self.destination, SECRETS)
        (url,) = self.destination.urls
        self.rig = Rig(url, total_s=self._total_s)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.rig.close()
        self.sink.__exit__(kind, error, trace)

    def send(
        self, payload: bytes, fault: str = "", *, now: float = 0.0, message_id: str = ""
    ) -> Answer:
        """One message, alone; by an id of its own, unless one is given."""
        rendered = self.profile.render(message_id or self._id(), payload)
        return self._post(rendered, fault, now, None)

    def send_merged(
        self, payloads: Sequence[bytes], fault: str = "", *, now: float = 0.0
    ) -> Answer:
        """Several in one request."""
        merging = as_merging(self.profile)
        assert merging is not None, f"{self.simulator} does not merge"
        portions = [merging.portion(payload) for payload in payloads]
        shared = {portion.shared for portion in portions if portion is not None}
        assert len(shared) == 1, "they do not go together"
        body = merging.join(shared.pop(), [one.part for one in portions if one is not None])
        assert None not in portions
        return self._post(merging.render_merged(self._id(), body), fault, now, len(payloads))

    def last(self) -> Arrival:
        """The last arrival, over."""
        return self.sink.wait_ended(len(self.sink.arrivals()))[-1]

    def _id(self) -> str:
        self._count += 1
        return f"m-{self._count}"

    def _post(
        self, rendered: RenderedRequest, fault: str, now: float, members: int | None
    ) -> Answer:
        self.sink.set_faults(fault)
        request = GatedRequest(
            rendered.method,
            self.rig.url,
            rendered.headers,
            rendered.body,
            self.rig.gate,
            suffix=rendered.suffix,
        )
        try:
            got = self.rig.session.send(request, allow_redirects=False)
        except TransportError as error:
            return Answer(judge_failure(error.failure), None)
        reply = Reply(got.status_code, got.headers, got.content or b"", request.truncated)
        return Answer(self._judged(reply, now, members), reply)

    def _judged(self, reply: Reply, now: float, members: int | None) -> Outcome:
        if members is None:
            return self.profile.judge(reply, now)
        merging: Any = as_merging(self.profile)
        outcome: Outcome = merging.judge_merged(reply, now, members)
        return outcome
