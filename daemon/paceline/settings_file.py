"""The configuration file, read: TOML to Settings, with all that is wrong told at once."""

from __future__ import annotations

import tomllib
from pathlib import Path

from paceline.errors import ConfigError, ConfigProblem
from paceline.settings import Settings
from paceline.settings_checks import settings_from

__all__ = ["load", "loads"]


def load(path: str | Path) -> Settings:
    """Read a configuration file. Raises ConfigError, also where it cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigError(
            [ConfigProblem("", f"cannot be read: {why}", "Name it with --config")],
            source=str(path),
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            [ConfigProblem("", f"is not UTF-8 (byte {error.start})", "Save it as UTF-8")],
            source=str(path),
        ) from error
    return loads(text, source=str(path))


def loads(text: str, *, source: str = "configuration") -> Settings:
    """Settings from TOML. Raises ConfigError with all problems; `source` names the file in it."""
    try:
        document = tomllib.loads(text)
    # ValueError: a TOMLDecodeError, or what int() says of a number with 5,000 digits.
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            [ConfigProblem("", f"is not TOML: {error}", "See https://toml.io")], source=source
        ) from error
    problems: list[ConfigProblem] = []
    settings = settings_from(document, problems)
    if problems or settings is None:
        raise ConfigError(problems, source=source)
    return settings
