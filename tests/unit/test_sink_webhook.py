"""The sink as a receiver of webhooks: it takes what the standard's own package signs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook as Signing

from paceline.sink.answers import Request, Verdict
from paceline.sink.profiles import Webhook, webhook_key
from paceline.sink.settings import SinkSettings
from paceline.sink.spec import SpecError

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + "k" * 32
AT = 1_614_265_330
BODY = b'{"a": 1}'


def headers(key: str = KEY, message_id: str = "m-1", at_s: int = AT) -> dict[bytes, bytes]:
    when = datetime.fromtimestamp(at_s, UTC)
    return {
        b"webhook-id": message_id.encode(),
        b"webhook-timestamp": b"%d" % at_s,
        b"webhook-signature": Signing(key).sign(message_id, when, BODY.decode()).encode(),
    }


def judge(given: dict[bytes, bytes], key: str | None = KEY, late_s: float = 0.0) -> Verdict:
    it = Webhook(webhook_key(key), clock=lambda: AT + late_s)
    return it.judge(Request(BODY, headers=given))


def test_what_is_signed_is_taken() -> None:
    for late_s in (-300, 0, 300):
        verdict = judge(headers(), late_s=late_s)
        assert (verdict.status, verdict.accepted, verdict.recipients) == (200, True, 1)


def test_of_several_signatures_one_is_enough() -> None:
    two = headers(OTHER)[b"webhook-signature"] + b" " + headers()[b"webhook-signature"]
    both = {**headers(), b"webhook-signature": two}
    assert judge(both).accepted
    assert judge(both, OTHER).accepted


@pytest.mark.parametrize(
    "change",
    [
        {b"webhook-id": b"m-2"},
        {b"webhook-id": b""},
        {b"webhook-timestamp": b"%d" % (AT + 1)},
        {b"webhook-timestamp": b"now"},
        {b"webhook-timestamp": b""},
        {b"webhook-signature": b""},
        {b"webhook-signature": b"v1,"},
        {b"webhook-signature": headers()[b"webhook-signature"].replace(b"v1,", b"v2,")},
        {b"webhook-signature": headers(OTHER)[b"webhook-signature"]},
    ],
)
def test_what_is_not_is_refused(change: dict[bytes, bytes]) -> None:
    verdict = judge({**headers(), **change})
    assert (verdict.status, verdict.accepted, verdict.name) == (401, False, "signature")


def test_what_is_old_or_has_a_full_stop_in_its_id_is_refused() -> None:
    assert judge(headers(), late_s=301).status == 401
    assert judge(headers(), late_s=-301).status == 401
    assert judge(headers(message_id="m.1")).status == 401


def test_without_a_secret_any_signature_will_do() -> None:
    assert judge(headers(OTHER), None).accepted
    assert not judge({**headers(), b"webhook-signature": b""}, None).accepted


@pytest.mark.parametrize("key", ["hunter2x", "whsec_hunter2!", OTHER.removeprefix("whsec_")])
def test_what_is_no_secret_is_told_without_it(key: str) -> None:
    with pytest.raises(SpecError, match="whsec_ and base64") as caught:
        SinkSettings(profile="webhook", api_key=key).make_profile()
    assert key not in str(caught.value)
    assert repr(Webhook(webhook_key(KEY))).count("key") == 0
