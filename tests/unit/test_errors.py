"""Errors say what, where and how to mend it, and survive the trip between processes."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from paceline import errors
from paceline.errors import (
    ConfigError,
    ConfigMismatch,
    ConfigProblem,
    Draining,
    DuplicateConflict,
    EndpointDisabled,
    InvalidMessage,
    MessageTooLarge,
    MissingExtra,
    NotPossible,
    NotReplicated,
    OutboxFull,
    PacelineError,
    PayloadError,
    RedisUnavailable,
    UnknownDestination,
    UnknownMessage,
)

ALL: list[PacelineError] = [
    PacelineError("it broke", "Mend it"),
    ConfigError([ConfigProblem("a.b", "is wrong", "Right it")], source="x.toml"),
    ConfigMismatch("maxmd", "rate 90 here, 80 there"),
    MissingExtra("daemon", "paceline daemon"),
    InvalidMessage("id", "too long", "Shorten it", line=7),
    PayloadError("payload.sender", "missing"),
    MessageTooLarge("payload", 2_000_000, 1_048_576),
    DuplicateConflict("maxmd", "m-1"),
    UnknownDestination("maxmdd", ["maxmd"]),
    UnknownMessage("maxmd", "m-1"),
    NotPossible("cancel", "the message is sent"),
    NotReplicated("maxmd", "m-1", 2, 1),
    OutboxFull("maxmd", "max_messages 10"),
    Draining("maxmd"),
    EndpointDisabled("hooks", "acme", "endpoint is gone"),
    RedisUnavailable("timed out"),
]


def test_every_class_of_the_tree_is_tried_here_and_drawn_in_the_docstring() -> None:
    classes = {
        thing
        for thing in vars(errors).values()
        if inspect.isclass(thing) and issubclass(thing, PacelineError)
    }
    assert classes == {type(error) for error in ALL}
    for cls in classes:
        assert cls.__name__ in (errors.__doc__ or "")
        assert cls.__name__ in errors.__all__


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_after_pickle_and_copy(error: PacelineError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.__dict__ == error.__dict__


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_the_text_holds_both_what_is_wrong_and_the_way_out(error: PacelineError) -> None:
    assert error.what in str(error)
    assert error.mend in str(error)


def test_a_config_error_lists_every_problem_with_its_key() -> None:
    problems = [
        ConfigProblem("destinations.a.rate", "is not a number", "Write 90"),
        ConfigProblem("redis.urll", "unknown key", "Did you mean url?"),
    ]
    text = str(ConfigError(problems, source="paceline.toml"))
    assert "paceline.toml: 2 problems" in text
    assert "destinations.a.rate: is not a number. Write 90" in text
    assert "redis.urll: unknown key. Did you mean url?" in text


def test_an_invalid_message_names_field_and_line() -> None:
    error = MessageTooLarge("payload", 2_000_000, 1_048_576).at_line(12)
    assert isinstance(error, MessageTooLarge)
    assert str(error).startswith("line 12: payload: 2,000,000 bytes")
    assert (error.field, error.line, error.limit) == ("payload", 12, 1_048_576)


def test_a_missing_extra_gives_the_command_to_type() -> None:
    assert "pip install 'paceline[daemon]'" in str(MissingExtra("daemon", "paceline daemon"))
