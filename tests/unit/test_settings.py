"""The configuration file: what it may say, and that every mistake in it is named at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.backoff import POLICIES
from paceline.config_digest import digest
from paceline.errors import ConfigError
from paceline.pressure import Limits
from paceline.settings import Destination, Merge, RedisSettings, Settings, default_batch
from paceline.settings_file import load, loads

MAXMD = """
[destinations.maxmd]
provider = "maxmd"
url = "https://api.example/Send"
username = "acme"
password = { env = "MAXMD_PASSWORD" }
"""
HTTP = """
[destinations.api]
provider = "http"
url = "https://api.example/v1"
"""


def problems(text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        loads(text)
    assert all(problem.mend or problem.problem for problem in caught.value.problems)
    return {problem.key: f"{problem.problem}. {problem.mend}" for problem in caught.value.problems}


def http(lines: str = "") -> Destination:
    return loads(HTTP + lines).destinations["api"]


# --- what it may say ---


def test_the_example_of_the_design_is_read() -> None:
    settings = loads("""
        [redis]
        url = "redis://127.0.0.1:6379/0"
        [destinations.maxmd]
        provider = "maxmd"
        url = "https://api.example/Send"
        rate = 90
        burst = 150
        connections = 10
        read_timeout_s = 30
        username = "acme"
        password = { env = "MAXMD_PASSWORD" }
    """)
    assert settings.redis.url == "redis://127.0.0.1:6379/0"
    maxmd = settings.destinations["maxmd"]
    assert maxmd.urls == ("https://api.example/Send",)
    assert (maxmd.rate, maxmd.burst, maxmd.connections) == (90.0, 150, 10)
    assert maxmd.password is not None
    assert maxmd.password.reveal({"MAXMD_PASSWORD": "s3cret"}) == "s3cret"
    assert settings.warnings == ()


def test_the_defaults_are_those_of_the_documents() -> None:
    settings = loads(MAXMD)
    assert settings.redis == RedisSettings(url=None, appendfsync="always")
    it = settings.destinations["maxmd"]
    assert (it.rate, it.burst, it.connections, it.effective_connections) == (90, 150, 10, 10)
    assert (it.reserve, it.batch) == (5, 100)
    assert (it.connect_timeout_s, it.read_timeout_s, it.total_timeout_s) == (5, 30, 35)
    assert (it.lease_s, it.max_age_s, it.record_ttl_s) == (8, 72 * 3600, 24 * 3600)
    assert (it.max_payload_bytes, it.max_messages, it.max_bytes) == (2**20, 10**6, 2**32)
    assert (it.connection_idle_s, it.connection_max_age_s) == (20, 900)
    assert it.connection_max_requests == 10_000
    assert it.id_header == "Paceline-Message-Id"
    assert it.retry == POLICIES["maxmd"]
    assert http().max_payload_bytes == 4 * 2**20
    assert http().success.statuses == ("2xx",)
    assert (http().method, http().idempotency_key) == ("POST", "bare")


def test_limits_of_a_whole_redis() -> None:
    assert loads(HTTP).redis.limits == Limits(max_messages=0, max_bytes=0, memory_share=0.75)
    given = loads("[redis]\nmax_messages = 5\nmax_bytes = 9\nmemory_share = 1\n" + HTTP)
    assert given.redis.limits == Limits(max_messages=5, max_bytes=9, memory_share=1.0)
    assert given.redis.url is None


def test_every_default_of_the_class_is_the_default_of_the_file() -> None:
    assert http() == Destination(name="api", provider="http", urls=("https://api.example/v1",))


@pytest.mark.parametrize("lease_s", [2, 4, 8, 60])
def test_one_heartbeat_of_a_lease_may_fail(lease_s: float) -> None:
    assert 0 < http(f"lease_s = {lease_s}").heartbeat_s <= min(1, lease_s / 5)


def test_total_timeout_follows_the_read_timeout() -> None:
    assert http("read_timeout_s = 300").total_timeout_s == 305


def test_a_list_of_urls_spreads_the_load() -> None:
    text = HTTP.replace('"https://api.example/v1"', '["https://a.example", "https://b.example/x"]')
    assert loads(text).destinations["api"].urls == ("https://a.example", "https://b.example/x")


def test_retry_overrides_fields_of_the_providers_policy() -> None:
    text = MAXMD + "[destinations.maxmd.retry]\nmax_retries = 0\nwait_503_s = [5, 6]"
    retry = loads(text).destinations["maxmd"].retry
    assert (retry.max_retries, retry.wait_503_s, retry.first_s) == (0, (5.0, 6.0), 1.0)


@pytest.mark.parametrize(
    "line",
    [
        *("rate = 0.01", "burst = 2", "connections = 1", "reserve = 0", "reserve = 148"),
        *("lease_s = 2", "total_timeout_s = 30", "max_messages = 1", "max_age_s = 1"),
        *("max_payload_bytes = 1", "max_payload_bytes = 536870912", "connections = 10000"),
        "retry = { wait_503_s = [0, 0], jitter = 0, factor = 1, max_retries = 1000 }",
        "retry = { first_s = 60, jitter = 1 }",
    ],
)
def test_values_at_the_ends_of_their_range_are_taken(line: str) -> None:
    http(line)


def test_http_rules_are_read() -> None:
    it = http("""
        method = "PUT"
        idempotency_key = "quoted"
        id_header = ""
        [destinations.api.success]
        statuses = ["200", "202"]
        body = { pointer = "/status", equals = true }
        id_pointer = "/id"
        [destinations.api.outcomes]
        409 = "retry"
        4xx = "held"
    """)
    assert it.success.statuses == ("200", "202")
    assert (it.success.pointer, it.success.equals, it.success.id_pointer) == (
        "/status",
        True,
        "/id",
    )
    assert it.outcomes == {"409": "retry", "4xx": "held"}
    assert (it.method, it.idempotency_key, it.id_header) == ("PUT", "quoted", "")


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "rediss://u:p@h:6380/1",
        "unix:///run/r.sock?db=1",
        "sentinel+redis://h:26379,i:26379/mymaster",
    ],
)
def test_redis_urls(url: str) -> None:
    assert loads(f'[redis]\nurl = "{url}"\n{HTTP}').redis.url == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (None, "embedded"),
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://u:p@ss/w@h:1/0", "redis://***@h:1/0"),
        ("unix:///run/r.sock?password=p&db=1", "unix:///run/r.sock?password=***&db=1"),
        ("sentinel+redis://:p@h:1,i:2/m", "sentinel+redis://***@h:1,i:2/m"),
    ],
)
def test_a_redis_password_is_never_shown(url: str | None, shown: str) -> None:
    redis = RedisSettings(url=url)
    assert redis.shown_url == shown
    assert url is None or url not in repr(redis)


# --- one key wrong ---


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("rate = nan", "rate"),
        ("rate = inf", "rate"),
        ("rate = 0", "rate"),
        ("rate = -1", "rate"),
        ("rate = true", "rate"),
        ('rate = "90"', "rate"),
        ("burst = 1", "burst"),
        ("burst = true", "burst"),
        ("burst = 1.5", "burst"),
        ("connections = 0", "connections"),
        ("reserve = -1", "reserve"),
        ("reserve = 149", "reserve"),
        ("connect_timeout_s = 0", "connect_timeout_s"),
        ("connect_timeout_s = inf", "connect_timeout_s"),
        ("total_timeout_s = 29", "total_timeout_s"),
        ("lease_s = 1.9", "lease_s"),
        ("max_payload_bytes = 536870913", "max_payload_bytes"),
        ("max_bytes = 10", "max_payload_bytes"),
        ("max_messages = 0", "max_messages"),
        ("max_age_s = 0.5", "max_age_s"),
        ("record_ttl_s = -5", "record_ttl_s"),
        ("connection_max_requests = 0", "connection_max_requests"),
        ('username = "u"', "password"),
        ('password = "p"', "username"),
        ('username = ""\npassword = "p"', "username"),
        ('username = "u"\npassword = 5', "password"),
        ('username = "u"\npassword = { env = "A", file = "b" }', "password"),
        ('username = "u"\npassword = { evn = "A" }', "password.evn"),
        ('username = "u"\npassword = { env = 5 }', "password.env"),
        ('id_header = "a b"', "id_header"),
        ('id_header = "Content-Type"', "id_header"),
        ('id_header = "X"\nheaders = { x = "1" }', "id_header"),
        ('allow_plain_http = "yes"', "allow_plain_http"),
        ("ca_file = 1", "ca_file"),
        ("proxy = 5", "proxy"),
        ('proxy = "https://p:3128"', "proxy"),
        ('proxy = "p:3128"', "proxy"),
        ('proxy = "http://:3128"', "proxy"),
        ('proxy = "http://p:0"', "proxy"),
        ('proxy = "http://p:x"', "proxy"),
        ('proxy = "http://u:pw@p:3128"', "proxy"),
        ('proxy = "http://p:3128/path"', "proxy"),
        ('proxy = "http://p p:3128"', "proxy"),
        ('proxy = "http://p"\nproxy_username = "u"', "proxy_password"),
        ('proxy = "http://p"\nproxy_password = "u"', "proxy_username"),
        ('proxy_username = "u"\nproxy_password = "u"', "proxy_username"),
        ('headers = { Proxy-Authorization = "x" }', "headers.Proxy-Authorization"),
        ("gzip_from_bytes = -1", "gzip_from_bytes"),
        ('method = "GET"', "method"),
        ('idempotency_key = "yes"', "idempotency_key"),
        ("headers = 1", "headers"),
        ('headers = { Host = "x" }', "headers.Host"),
        ('headers = { "a b" = "x" }', "headers.a b"),
        ('headers = { A = "x", a = "y" }', "headers.a"),
        ('headers = { A = "x\\ny" }', "headers.A"),
        ('success = { statuses = ["2xy"] }', "success.statuses"),
        ("success = { statuses = [] }", "success.statuses"),
        ('success = { body = { pointer = "x", equals = 1 } }', "success.body.pointer"),
        ('success = { body = { pointer = "/x" } }', "success.body.equals"),
        ('success = { id_pointer = "id" }', "success.id_pointer"),
        ("success = 5", "success"),
        ('outcomes = { 600 = "retry" }', "outcomes.600"),
        ('outcomes = { 409 = "resend" }', "outcomes.409"),
        ('outcomes = { 409 = ["retry"] }', "outcomes.409"),
        ('outcomes = { 2xx = "retry" }', "outcomes.2xx"),
        ("retry = { first_s = 61 }", "retry.first_s"),
        ("retry = { throttle_first_s = 61 }", "retry.throttle_first_s"),
        ("retry = { jitter = 1.5 }", "retry.jitter"),
        ("retry = { factor = 0.5 }", "retry.factor"),
        ("retry = { max_retries = -1 }", "retry.max_retries"),
        ("retry = { wait_503_s = [60, 30] }", "retry.wait_503_s"),
        ("retry = { wait_503_s = [1, nan] }", "retry.wait_503_s"),
        ('retry = { on_ambiguous = "drop" }', "retry.on_ambiguous"),
        ("retry = { retries = 3 }", "retry.retries"),
    ],
)
def test_a_wrong_value_is_named_by_its_key_alone(line: str, key: str) -> None:
    found = problems(HTTP + line)
    assert list(found) == [f"destinations.api.{key}"]


def test_plain_http_goes_through_no_other_machine_unless_allowed() -> None:
    here = HTTP.replace("https://api.example", "http://127.0.0.1:8025")
    far = here + 'proxy = "http://proxy.example:3128"\n'
    assert "readable" in problems(far)["destinations.api.proxy"]
    assert "readable" in problems(far.replace("http:", "HTTP:", 1))["destinations.api.proxy"]
    assert loads(far + "allow_plain_http = true").destinations["api"].proxy
    assert loads(here + 'proxy = "http://[::1]:3128"').destinations["api"].proxy
    assert http('proxy = "http://proxy.example:3128"').proxy


def test_a_proxys_password_is_not_shown() -> None:
    found = problems(HTTP + 'proxy = "http://u:hunter2@p:3128"')
    assert "hunter2" not in str(found)
    secret = 'proxy = "http://p:3128"\nproxy_username = "u"\nproxy_password = "hunter2"'
    assert "hunter2" not in repr(http(secret)) + str(http(secret).public())


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("api.example/v1", "https://"),
        ("ftp://api.example", "https://"),
        ("https://", "no host"),
        ("https://a b/", "space"),
        ("https://h:99999/", "no URL"),
        ("https://h:0/", "port 0"),
        ("https://h:hunter2/", "no URL"),
        ("https://[u:hunter2]/", "no URL"),
        ("https://h/#x", "fragment"),
        ("https://u:hunter2@h/", "credentials"),
        ("https://hunter2@h/", "credentials"),
        ("http://api.example/", "plain http"),
        ("http://10.0.0.1/", "plain http"),
        ("http://localhost.example/", "plain http"),
        ("", "https://"),
    ],
)
def test_urls_that_cannot_be_used(url: str, says: str) -> None:
    found = problems(HTTP.replace("https://api.example/v1", url))
    assert says in found["destinations.api.url"]
    assert "hunter2" not in found["destinations.api.url"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8/x", "http://[::1]/", "http://localhost:1/"])
def test_plain_http_is_fine_on_this_machine_and_elsewhere_by_order(url: str) -> None:
    loads(HTTP.replace("https://api.example/v1", url))
    loads(HTTP.replace("https:", "http:") + "allow_plain_http = true")


def test_a_list_of_urls_may_hold_one_but_not_none() -> None:
    one = HTTP.replace('"https://api.example/v1"', '["https://a.example"]')
    assert loads(one).destinations["api"].urls == ("https://a.example",)
    none = HTTP.replace('"https://api.example/v1"', "[]")
    assert list(problems(none)) == ["destinations.api.url"]


def test_the_wrong_url_of_a_list_is_numbered() -> None:
    found = problems(HTTP.replace('"https://api.example/v1"', '["https://a", "https://a", "b"]'))
    assert list(found) == ["destinations.api.url[1]", "destinations.api.url[2]"]


@pytest.mark.parametrize("name", ["smtp"])
def test_providers_to_come_say_so(name: str) -> None:
    found = problems(HTTP.replace('"http"', f'"{name}"'))
    assert "not yet" in found["destinations.api.provider"]


def test_maxmd_needs_credentials_and_takes_nothing_of_http() -> None:
    text = '[destinations.m]\nprovider = "maxmd"\nurl = "https://h"\nmethod = "POST"'
    assert set(problems(text)) == {
        "destinations.m.username",
        "destinations.m.password",
        "destinations.m.method",
    }


NEEDS = {"sparkpost": 'api_key = "k"', "mailgun": 'api_key = "k"', "http": ""}


def mail(provider: str, lines: str = "") -> str:
    return (
        f'[destinations.m]\nprovider = "{provider}"\nurl = "https://h"\n{NEEDS[provider]}\n{lines}'
    )


@pytest.mark.parametrize("name", ["sparkpost", "mailgun"])
def test_sparkpost_and_mailgun_need_a_key(name: str) -> None:
    text = f'[destinations.m]\nprovider = "{name}"\nurl = "https://h"\n'
    assert set(problems(text)) == {"destinations.m.api_key"}
    key = loads(mail(name)).destinations["m"].api_key
    assert key is not None
    assert key.reveal({}) == "k"
    assert loads(mail(name)).destinations["m"].retry == POLICIES[name]


def test_sparkposts_defaults_are_those_of_its_documents() -> None:
    it = loads(mail("sparkpost", "subaccount = 17")).destinations["m"]
    assert (it.read_timeout_s, it.total_timeout_s, it.connections) == (300, 305, 10)
    assert (it.connection_max_requests, it.connection_max_age_s) == (10_000, 900)
    assert (it.retry.first_s, it.retry.throttle_first_s, it.retry.throttle_cap_s) == (5, 1, 5)
    assert (it.subaccount, it.public()["subaccount"], it.public()["api_key"]) == (17, 17, True)


@pytest.mark.parametrize(
    ("provider", "line", "key"),
    [
        ("sparkpost", 'username = "u"', "username"),
        ("sparkpost", 'password = "p"', "password"),
        ("sparkpost", 'method = "PUT"', "method"),
        ("sparkpost", 'outcomes = { 409 = "retry" }', "outcomes"),
        ("sparkpost", 'idempotency_key = "quoted"', "idempotency_key"),
        ("sparkpost", "subaccount = -1", "subaccount"),
        ("sparkpost", 'merge = { array = "/recipients" }', "merge.array"),
        ("sparkpost", "merge = { most = 10001 }", "merge.most"),
        ("mailgun", "subaccount = 1", "subaccount"),
        ("mailgun", 'idempotency_key = "bare"', "idempotency_key"),
        ("mailgun", "merge = { most = 1001 }", "merge.most"),
        ("mailgun", "success = {}", "success"),
        ("http", 'api_key = "k"', "api_key"),
        ("http", "merge = { most = 2 }", "merge.array"),
        ("http", "merge = { most = 0 }", "merge.most"),
        ("http", 'merge = { array = "personalizations" }', "merge.array"),
        ("http", "merge = { max_bytes = 50000001 }", "merge.max_bytes"),
        ("http", "merge = { linger_s = 0 }", "merge.linger_s"),
        ("http", 'merge = { on_ambiguous = "drop" }', "merge.on_ambiguous"),
        ("http", "merge = { last = 1 }", "merge.last"),
        ("http", "merge = 5", "merge"),
        ("http", 'events = { kinds = ["opened"] }', "events.kinds"),
        ("http", 'events = { kinds = "sent" }', "events.kinds"),
        ("http", "events = { max_count = 5 }", "events.kinds"),
        ("http", 'events = { kinds = "all", max_count = 0 }', "events.max_count"),
        ("http", 'events = { kinds = "all", max_age_s = 0 }', "events.max_age_s"),
        ("http", 'business_errors = "retry"', "business_errors"),
        ("http", "poll_status_after_s = 5", "poll_status_after_s"),
        ("http", 'rules = { a = { status = "403" } }', "rules.a.outcome"),
        ("http", 'rules = { a = { outcome = "held" } }', "rules.a.status"),
        ("http", 'rules = { a = { status = "600", outcome = "held" } }', "rules.a.status"),
        ("http", 'rules = { a = { status = "403", outcome = "resend" } }', "rules.a.outcome"),
        (
            "http",
            'rules = { a = { status = "403", outcome = "held", text = "" } }',
            "rules.a.text",
        ),
        (
            "http",
            'rules = { a = { status = "403", outcome = "held", pointer = "/a" } }',
            "rules.a.equals",
        ),
        (
            "http",
            'rules = { a = { status = "403", outcome = "held", equals = 1 } }',
            "rules.a.pointer",
        ),
        (
            "http",
            'rules = { a = { status = "403", outcome = "held", pointer = "/a", equals = [1] } }',
            "rules.a.equals",
        ),
        ("http", "rules = []", "rules"),
        ("http", 'body = "form"\nmerge = { array = "" }', "body"),
        ("http", 'body = "xml"', "body"),
        ("sparkpost", 'body = "json"', "body"),
        ("http", 'items = { success = { pointer = "/c", equals = 0 } }', "items.pointer"),
        ("http", 'items = { pointer = "" }', "items.success"),
        (
            "http",
            'items = { pointer = "x", success = { pointer = "/c", equals = 0 } }',
            "items.pointer",
        ),
        ("http", 'items = { pointer = "", success = { pointer = "/c" } }', "items.success.equals"),
        (
            "http",
            'items = { pointer = "", success = { pointer = "/c", equals = 0 }, '
            'outcomes = { 1 = "held" } }',
            "items.code_pointer",
        ),
        (
            "http",
            'items = { pointer = "", success = { pointer = "/c", equals = 0 }, '
            'code_pointer = "/c", outcomes = { 1 = "sent" } }',
            "items.outcomes.1",
        ),
        ("http", 'success = { id_header = "a b" }', "success.id_header"),
    ],
)
def test_what_means_nothing_for_a_provider_is_named(provider: str, line: str, key: str) -> None:
    assert list(problems(mail(provider, line))) == [f"destinations.m.{key}"]


def test_the_rules_order_is_part_of_what_all_processes_must_agree_on() -> None:
    rules = [f'[destinations.m.rules.{n}]\nstatus = "403"\noutcome = "held"\n' for n in "ab"]
    one, other = (
        loads(mail("http", "".join(lines))).destinations["m"] for lines in (rules, rules[::-1])
    )
    assert [list(it.rules) for it in (one, other)] == [["a", "b"], ["b", "a"]]
    assert digest(one) != digest(other)


def test_maxmd_merges_nothing() -> None:
    assert "merge" in problems(MAXMD + "merge = { most = 2 }").popitem()[0]


@pytest.mark.parametrize(
    ("provider", "lines", "merge"),
    [
        ("http", "", Merge(on_ambiguous="retry")),
        ("http", 'idempotency_key = "off"', Merge(on_ambiguous="park")),
        ("http", 'retry = { on_ambiguous = "park" }', Merge(on_ambiguous="park")),
        ("sparkpost", "", Merge(on_ambiguous="retry")),
        ("sparkpost", 'idempotency_key = "off"', Merge(on_ambiguous="park")),
        ("mailgun", "", Merge(on_ambiguous="park")),
        ("mailgun", 'merge = { on_ambiguous = "retry" }', Merge(on_ambiguous="retry")),
        (
            "http",
            'merge = { most = 500, max_bytes = 50000000, linger_s = 1, array = "" }',
            Merge(500, 50_000_000, 1.0, "retry", ""),
        ),
        ("sparkpost", "merge = { most = 10000 }", Merge(most=10_000, on_ambiguous="retry")),
    ],
)
def test_merging_is_read(provider: str, lines: str, merge: Merge) -> None:
    it = loads(mail(provider, lines)).destinations["m"]
    assert it.merge == merge
    assert it.public()["merge"]["most"] == merge.most


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        (HTTP + "conections = 4", "destinations.api.conections", "Did you mean connections?"),
        (HTTP.replace('"http"', '"htpp"'), "destinations.api.provider", "Did you mean http?"),
        ("[rediss]\n" + HTTP, "rediss", "Did you mean redis?"),
        ('[redis]\nurl = "localhost:6379"' + HTTP, "redis.url", "redis://"),
        ('[redis]\nurl = "redis://"' + HTTP, "redis.url", "no server"),
        ('[redis]\nurl = "sentinel+redis://h:1"' + HTTP, "redis.url", "no master"),
        ('[redis]\nappendfsync = "no"' + HTTP, "redis.appendfsync", "everysec"),
        ("[redis]\nmemory_share = 75" + HTTP, "redis.memory_share", "such as 0.75"),
        ("[redis]\nmax_messages = -1" + HTTP, "redis.max_messages", "0 for no limit"),
        ("", "destinations", "there is none"),
        ("destinations = 5", "destinations", "there is none"),
        ("[destinations]\napi = 5", "destinations.api", "table"),
        (HTTP.replace("api]", "API]"), "destinations.API", "not allowed"),
        (HTTP.replace("url", "#url"), "destinations.api.url", "missing"),
        ("this is no toml", "", "is not TOML"),
        ("a = " + "9" * 5000, "", "is not TOML"),
        ("a = " + "[" * 5000, "", "is not TOML"),
        (HTTP + 'proxy = "https://p"', "destinations.api.proxy", "http://"),
    ],
)
def test_each_mistake_has_its_key_and_its_mending(text: str, key: str, says: str) -> None:
    assert says in problems(text)[key]


def test_all_mistakes_are_reported_at_once() -> None:
    text = (
        '[redis]\nurl = 5\n[destinations.a]\nprovider = "http"\nurl = "x"\nrate = 0\nburts = 3\n'
        '[destinations.b]\nprovider = "maxmd"\nlease_s = 1\n[destinations.b.retry]\nfactor = 0'
    )
    assert set(problems(text)) == {
        "redis.url",
        "destinations.a.url",
        "destinations.a.rate",
        "destinations.a.burts",
        "destinations.b.url",
        "destinations.b.username",
        "destinations.b.password",
        "destinations.b.lease_s",
        "destinations.b.retry.factor",
    }


def test_no_error_shows_a_password_in_the_wrong_place() -> None:
    text = (
        '[redis]\nurl = ["redis://:hunter2@h"]\n[destinations.a]\nprovider = "http"\n'
        'url = [5, "https://u:hunter2@h"]\nusername = "u"\npassword = ["hunter2"]\n'
        'pasword = "hunter2"\nheaders = { Authorization = ["hunter2"] }'
    )
    with pytest.raises(ConfigError) as caught:
        loads(text)
    assert len(caught.value.problems) >= 4
    assert "hunter2" not in str(caught.value)


JUNK: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text("ab/:{}%\x7f", max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("axy", min_size=1), inner),
    max_leaves=4,
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return repr(value) if isinstance(value, float) else json.dumps(value).replace("\x7f", "\\u007F")


@given(st.sampled_from(sorted(Destination.__dataclass_fields__)), JUNK)
def test_no_value_of_any_key_can_break_the_reader(key: str, value: Any) -> None:
    line = f"{'url' if key == 'urls' else key} = {toml(value)}\n"
    text = '[destinations.api]\nprovider = "http"\nurl = "https://h"\n'
    text = "".join(one for one in text.splitlines(True) if not one.startswith(line.split("=")[0]))
    try:
        assert isinstance(loads(text + line), Settings)
    except ConfigError as error:
        assert error.problems  # noqa: PT017
        assert all(one.key.startswith("destinations.api") for one in error.problems)  # noqa: PT017


# --- connections, batches ---


@pytest.mark.parametrize(
    ("lines", "effective", "reserve"),
    [
        ("burst = 2", 1, 0),
        ("burst = 5", 4, 0),
        ("burst = 10", 9, 0),
        ("burst = 11", 10, 0),
        ("burst = 11\nreserve = 3", 7, 3),
        ("burst = 2\nreserve = 0\nconnections = 1", 1, 0),
        ("burst = 40", 10, 3),
        ("burst = 1000", 10, 5),
    ],
)
def test_a_small_burst_means_fewer_connections_and_a_warning(
    lines: str, effective: int, reserve: int
) -> None:
    settings = loads(HTTP + lines)
    it = settings.destinations["api"]
    assert (it.effective_connections, it.reserve) == (effective, reserve)
    assert bool(settings.warnings) is (effective < it.connections)
    assert all("destinations.api" in line for line in settings.warnings)


@given(st.integers(2, 500), st.integers(1, 500))
def test_one_permit_is_always_left_for_ordinary_messages(burst: int, connections: int) -> None:
    it = http(f"burst = {burst}\nconnections = {connections}")
    assert 1 <= it.effective_connections <= connections
    assert it.burst - it.effective_connections - it.reserve >= 1


def test_the_warning_names_the_burst_that_is_needed() -> None:
    settings = loads(HTTP + "burst = 11\nreserve = 3")
    assert "raise burst to 14" in settings.warnings[0]
    assert loads(HTTP + "burst = 14\nreserve = 3").warnings == ()


@pytest.mark.parametrize(
    ("rate", "burst", "batch"),
    [
        (0.01, None, 1),
        (0.6, None, 2),
        (10, None, 20),
        (50, None, 100),
        (90, 150, 100),
        (250.5, None, 251),
        (5000, None, 500),
        (90, 30, 30),
        (90, 2, 2),
    ],
)
def test_batches_are_100_to_500_and_smaller_where_the_rate_is_low(
    rate: float, burst: int | None, batch: int
) -> None:
    assert default_batch(rate, burst) == batch


# --- secrets ---


def test_secrets_come_from_the_file_the_environment_or_another_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from file\n")
    it = http(f"""
        username = "u"
        password = {{ file = "{tmp_path / "key"}" }}
        headers = {{ X-Key = {{ env = "KEY" }}, X-Plain = "plain" }}
    """)
    assert it.password is not None
    assert it.password.reveal({}) == "from file"
    assert it.headers["X-Key"].reveal({"KEY": "from env"}) == "from env"
    assert it.headers["X-Plain"].reveal({}) == "plain"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ('{ env = "NOPE" }', "NOPE is not set"),
        ('{ env = "EMPTY" }', "EMPTY is empty"),
        ('{ file = "/nowhere/key" }', "/nowhere/key cannot be read"),
        ('{ file = "/dev/null" }', "/dev/null is empty"),
    ],
)
def test_a_missing_secret_is_an_error_only_where_it_is_needed(source: str, says: str) -> None:
    it = http(f'username = "u"\npassword = {source}')
    assert it.password is not None
    with pytest.raises(ConfigError, match=says) as caught:
        it.password.reveal({"EMPTY": ""})
    assert caught.value.problems[0].key == "destinations.api.password"


SECRET = HTTP + 'username = "hunter1"\npassword = "hunter2"\nheaders = { X-Key = "hunter3" }'


def test_secrets_are_in_no_repr_and_no_public_copy() -> None:
    text = SECRET.replace("/v1", "/v1?key=hunter4&a=hunter5")
    settings = loads(text)
    it = settings.destinations["api"]
    everything = f"{settings!r} {settings} {it.password!r} {it.password} {it.headers!r}"
    everything += json.dumps(it.public()) + digest(it)
    assert "hunter" not in everything
    assert it.public()["urls"] == ["https://api.example/v1?key=***&a=***"]


def test_the_public_copy_is_json_and_comes_back_the_same() -> None:
    public = loads(MAXMD).destinations["maxmd"].public()
    assert json.loads(json.dumps(public)) == public
    assert (public["rate"], public["password"], public["batch"]) == (90.0, True, 100)


def test_every_field_is_in_the_public_copy_or_left_out_on_purpose() -> None:
    assert set(Destination.__dataclass_fields__) - set(http().public()) == {
        # Of one host, not of the account: another may reach the provider another way.
        "ca_file",
        "proxy",
        "proxy_username",
        "proxy_password",
    }


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (("rate = 90", "rate = 90.0"), True),
        (('"hunter2"', '{ env = "X" }'), True),
        (("rate = 90", "rate = 91"), False),
        (("X-Key", "X-Other"), False),
        (("/v1", "/v2"), False),
        (("rate = 90", "rate = 90\nretry = { max_retries = 9 }"), False),
        (("rate = 90", "rate = 90\nsuccess = { id_pointer = '/id' }"), False),
        (("rate = 90", "rate = 90\noutcomes = { 409 = 'retry' }"), False),
    ],
)
def test_the_digest_tells_configurations_apart(change: tuple[str, str], same: bool) -> None:
    text = SECRET + "\nrate = 90"
    one, other = (digest(loads(t).destinations["api"]) for t in (text, text.replace(*change)))
    assert (one == other) is same


# --- files ---


def test_a_file_is_read_and_named_in_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "paceline.toml"
    path.write_bytes(b"\xef\xbb\xbf" + MAXMD.encode())
    assert list(load(path).destinations) == ["maxmd"]
    path.write_text("[destinations.x]\n")
    with pytest.raises(ConfigError, match=r"paceline\.toml: 2 problems"):
        load(str(path))


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "latin").write_bytes(b"# \xe4")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "latin")


# --- tenants ---


def test_tenants_are_read_with_their_defaults() -> None:
    it = http("""
        rate = 90
        [destinations.api.tenants.acme]
        weight = 2.5
        [destinations.api.tenants."*"]
        rate = 4.2
        [destinations.api.tenants.bolt]
        rate = 90
        burst = 7
        [destinations.api.tenants.none]
    """)
    assert {name: (t.weight, t.rate, t.burst) for name, t in it.tenants.items()} == {
        "acme": (2.5, 0.0, 1),
        "*": (1.0, 4.2, 5),
        "bolt": (1.0, 90.0, 7),
        "none": (1.0, 0.0, 1),
    }


@pytest.mark.parametrize(
    ("line", "key"),
    [
        *(("weight = 0", "weight"), ("weight = -1", "weight"), ('weight = "2"', "weight")),
        *(("weight = inf", "weight"), ("weight = nan", "weight"), ("weight = 1e7", "weight")),
        *(("rate = -1", "rate"), ("rate = 91", "rate"), ("rate = inf", "rate")),
        *(("burst = 0", "burst"), ("burst = 1.5", "burst"), ("wieght = 2", "wieght")),
    ],
)
@pytest.mark.parametrize("name", ["acme", "*"])
def test_wrong_terms_of_a_tenant_are_named(name: str, line: str, key: str) -> None:
    text = f'{HTTP}rate = 90\n[destinations.api.tenants."{name}"]\n{line}\n'
    assert list(problems(text)) == [f"destinations.api.tenants.{name}.{key}"]


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a/b", "**", "a*", "ä", "x" * 65])
def test_what_no_message_can_name_is_no_tenant(name: str) -> None:
    text = f'{HTTP}[destinations.api.tenants."{name}"]\nweight = 2\n'
    assert "letters, digits" in problems(text)[f"destinations.api.tenants.{name}"]


def test_tenants_must_be_tables() -> None:
    assert "destinations.api.tenants" in problems(HTTP + 'tenants = ["acme"]')
    assert "destinations.api.tenants.acme" in problems(HTTP + "tenants = { acme = 3 }")


def test_tenants_are_part_of_what_all_processes_must_agree_on() -> None:
    one, other = (http(f"[destinations.api.tenants.acme]\nweight = {n}\n").public() for n in (1, 2))
    assert one != other
