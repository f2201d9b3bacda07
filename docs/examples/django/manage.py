"""A Django project in one file: a shop whose orders are confirmed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import django
from django.conf import settings
from django.core.management import execute_from_command_line

HERE = Path(__file__).parent

settings.configure(
    # Or a database server's: an outbox needs nothing but transactions.
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("SHOP_DATABASE", HERE / "db.sqlite3"),
        }
    },
    INSTALLED_APPS=["shop"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    # Read by shop/sending.py.
    PACELINE_REDIS_URL=os.environ.get("PACELINE_REDIS_URL", "redis://127.0.0.1:6379/0"),
)
django.setup()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
