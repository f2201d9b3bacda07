"""Providers, one file each."""

from __future__ import annotations

from paceline.sink.profiles.http import Http
from paceline.sink.profiles.mailgun import Mailgun
from paceline.sink.profiles.maxmd import MaxMD
from paceline.sink.profiles.postmark import Postmark
from paceline.sink.profiles.sendgrid import SendGrid
from paceline.sink.profiles.sparkpost import SparkPost
from paceline.sink.profiles.webhook import Webhook, webhook_key

PROFILES = ("sparkpost", "mailgun", "sendgrid", "postmark", "maxmd", "webhook", "http")

__all__ = [
    "PROFILES",
    "Http",
    "Mailgun",
    "MaxMD",
    "Postmark",
    "SendGrid",
    "SparkPost",
    "Webhook",
    "webhook_key",
]
