"""Keys of thousands of endpoints, and what their replies mean."""

from __future__ import annotations

import time
from base64 import b64encode
from pathlib import Path

import pytest
from standardwebhooks import Webhook as Receiver
from standardwebhooks import WebhookVerificationError

from paceline.backoff import POLICIES
from paceline.endpoint_keys import EndpointKeys
from paceline.endpoints import Endpoint, decode_endpoint, endpoint_from, lane_of
from paceline.errors import ConfigError, PayloadError
from paceline.settings import Destination
from paceline.settings_file import loads
from paceline_workers.outcome import Kind, Reply
from paceline_workers.providers.registry import build
from paceline_workers.providers.webhook_endpoints import WebhookEndpoints

NEW, OLD = (b"n" * 32, b"o" * 32)
NOW = 1_700_000_000.0


def text(key: bytes) -> str:
    return "whsec_" + b64encode(key).decode()


def profile(keys: EndpointKeys, clock: list[float] | None = None) -> WebhookEndpoints:
    clock = clock or [NOW]
    return WebhookEndpoints(keys=keys, wall_s=lambda: clock[0], policy=POLICIES["webhook"])


def verify(key: str, request: object) -> None:
    assert hasattr(request, "headers")
    assert hasattr(request, "body")
    headers = dict(request.headers)
    assert abs(float(headers["webhook-timestamp"]) - time.time()) < 60
    Receiver(key).verify(request.body, headers)


def test_each_endpoint_has_its_own_key_and_none_can_sign_for_another() -> None:
    keys = EndpointKeys([NEW], None, "destinations.hooks")
    it = profile(keys, [time.time()])
    request = it.render_to("acme", "m-1", b"{}")
    verify(keys.texts("acme")[0], request)
    with pytest.raises(WebhookVerificationError):
        verify(keys.texts("other")[0], request)


def test_while_the_secret_is_replaced_both_keys_verify() -> None:
    both = EndpointKeys([NEW, OLD], None, "destinations.hooks")
    request = profile(both, [time.time()]).render_to("acme", "m-1", b"{}")
    for master in (NEW, OLD):
        [key] = EndpointKeys([master], None, "destinations.hooks").texts("acme")
        verify(key, request)
    assert both.texts("acme")[0] == EndpointKeys([NEW], None, "").texts("acme")[0]


def test_a_file_of_its_own_wins_and_is_read_again(tmp_path: Path) -> None:
    clock = [NOW]
    keys = EndpointKeys([NEW], tmp_path, "destinations.hooks")
    it = profile(keys, clock)
    (tmp_path / "acme").write_text(text(OLD) + "\n")
    assert keys.of_endpoint("acme") == [OLD]
    before = it.render_to("acme", "m", b"{}").headers["webhook-signature"]
    (tmp_path / "acme").write_text(f"{text(NEW)}\n{text(OLD)}\n")
    assert it.render_to("acme", "m", b"{}").headers["webhook-signature"] == before
    clock[0] += 61
    both = it.render_to("acme", "m", b"{}").headers["webhook-signature"]
    assert len(both.split()) == 2
    assert keys.of_endpoint("derived") != [NEW]


@pytest.mark.parametrize(
    ("content", "problem"),
    [("", "has not 1 to 5"), ("whsec_short", "base64"), ("hunter2", "whsec_"), (None, "no file")],
)
def test_a_bad_file_is_named_and_not_shown(
    tmp_path: Path, content: str | None, problem: str
) -> None:
    if content is not None:
        (tmp_path / "acme").write_text(content)
    it = profile(EndpointKeys([], tmp_path, "destinations.hooks"))
    with pytest.raises(PayloadError, match="acme") as caught:
        it.render_to("acme", "m", b"{}")
    assert problem in str(caught.value)
    assert "hunter2" not in str(caught.value)


def hooks(more: str = "") -> Destination:
    return loads(
        '[destinations.hooks]\nprovider = "webhook"\n'
        f'secrets = [{{ env = "KEY" }}]\n{more}\n[destinations.hooks.endpoints]\n'
    ).destinations["hooks"]


def test_a_profile_is_built_with_keys_for_all() -> None:
    made = build(hooks(), {"KEY": text(NEW)})
    assert isinstance(made, WebhookEndpoints)
    with pytest.raises(ConfigError, match="no base64"):
        build(hooks(), {"KEY": "whsec_!"})
    with pytest.raises(PayloadError, match="endpoint"):
        made.render("m", b"{}")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (204, Kind.SENT), (301, Kind.RETRY), (401, Kind.RETRY), (403, Kind.RETRY),
        (404, Kind.RETRY), (400, Kind.REJECTED), (410, Kind.REJECTED), (429, Kind.THROTTLED),
        (500, Kind.AMBIGUOUS), (503, Kind.UNAVAILABLE),
    ],
)  # fmt: skip
def test_no_reply_of_one_holds_all(status: int, kind: Kind) -> None:
    it = profile(EndpointKeys([NEW], None, ""))
    assert it.judge(Reply(status, {}, b""), NOW).kind is kind


@pytest.mark.parametrize(
    ("name", "table", "key"),
    [
        ("../etc", {"url": "https://a.example/"}, "name"),
        ("a/b", {"url": "https://a.example/"}, "name"),
        ("a", {}, "a.url"),
        ("a", {"url": "ftp://a.example/"}, "a.url"),
        ("a", {"url": "http://a.example/"}, "a.url"),
        ("a", {"url": "https://u:p@a.example/"}, "a.url"),
        ("a", {"url": "https://a.example/", "in_flight": 0}, "a.in_flight"),
        ("a", {"url": "https://a.example/", "burst": 3}, "a.burst"),
        ("a", {"url": "https://a.example/", "speed": 3}, "a.speed"),
        ("a", [], "a"),
    ],
)
def test_what_cannot_be_registered_is_named(name: str, table: object, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        endpoint_from(name, table, source="line 3")
    assert [p.key for p in caught.value.problems] == [key]


def test_an_endpoint_and_its_lane() -> None:
    it = endpoint_from("acme", {"url": "https://a.example/x?k=1", "rate": 5, "ordered": True})
    assert decode_endpoint(it.encode()) == it
    assert decode_endpoint(b"[]") is None
    assert it == Endpoint(url="https://a.example/x?k=1", rate=5.0, ordered=True)
    assert (lane_of("acme"), lane_of("acme/k")) == (("acme", None), ("acme", "k"))
