"""Whole numbers in bodies: 3.0 is one, and nothing else becomes one."""

import json

import pytest
from pydantic import ValidationError

from app.sessions.token_wire import CreateSessionToken


@pytest.mark.parametrize("written", ["3600", "3600.0", "3.6e3"])
def test_a_whole_number_may_be_written_with_a_point(written: str) -> None:
    body = CreateSessionToken.model_validate_json(f'{{"expires_in_seconds": {written}}}')
    assert body.model_dump_json() == '{"expires_in_seconds":3600}'


@pytest.mark.parametrize("value", [3600.5, "3600", True, None, [3600]])
def test_nothing_else_becomes_a_whole_number(value: object) -> None:
    with pytest.raises(ValidationError):
        CreateSessionToken.model_validate_json(json.dumps({"expires_in_seconds": value}))
