"""Headers that concern every call: credentials, and the vendor's refusals in strict mode (contract, 0.1 and 0.2)."""

from typing import get_args

import pytest
from anthropic.types import AnthropicBetaParam

from app.contract import betas
from app.contract.errors import AuthenticationFailed, InvalidRequest, MemstoreError, NotFound
from app.http import headers

VERSION = (b"anthropic-version", b"2023-06-01")
BETA = b"anthropic-beta"
NEW, OLD = b"agent-memory-2026-07-22", b"managed-agents-2026-04-01"


@pytest.mark.parametrize(
    "sent",
    [
        {b"x-api-key": b"key"},
        {b"authorization": b"Bearer key"},
        {b"authorization": b"bearer key"},
        {b"authorization": b"Bearer  key "},
        {b"authorization": b"Bearer key", b"x-api-key": b"other"},
    ],
)
def test_the_key_is_the_bearer_token_or_else_x_api_key(sent: dict[bytes, bytes]) -> None:
    assert headers.secret(sent) == b"key"


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {b"x-api-key": b""},
        {b"authorization": b""},
        {b"authorization": b"Bearer"},
        {b"authorization": b"Bearer  "},
        {b"authorization": b"Basic a2V5"},
        {b"authorization": b"key"},
        {b"authorization": b"Basic a2V5", b"x-api-key": b"key"},
    ],
)
def test_no_key_or_another_scheme_is_refused(sent: dict[bytes, bytes]) -> None:
    with pytest.raises(AuthenticationFailed):
        headers.secret(sent)


@pytest.mark.parametrize(
    "betas",
    [
        [(BETA, NEW)],
        [(BETA, OLD)],
        [(BETA, NEW + b"," + NEW)],
        [(BETA, b" " + NEW + b" , ")],
        [(BETA, NEW), (BETA, NEW)],
        [(BETA, b"files-api-2025-04-14," + NEW)],
        [(BETA, b"skills-2025-10-02"), (BETA, OLD)],
    ],
)
@pytest.mark.parametrize("version", [b"2023-06-01", b"2026-10-21"])
def test_strict_mode_accepts_one_known_beta(betas: list[tuple[bytes, bytes]], version: bytes) -> None:
    pairs = [(b"anthropic-version", version), *betas]
    headers.check_strictly(pairs, dict(pairs))


@pytest.mark.parametrize(
    ("pairs", "kind", "told"),
    [
        ([(BETA, NEW)], InvalidRequest, "anthropic-version: header is required"),
        ([(b"anthropic-version", b"2020-01-01"), (BETA, NEW)], InvalidRequest, "'2020-01-01' is not a valid version"),
        ([VERSION], NotFound, "anthropic-beta: agent-memory-2026-07-22"),
        ([VERSION, (BETA, b" , ")], NotFound, "anthropic-beta: agent-memory-2026-07-22"),
        ([VERSION, (BETA, NEW + b"," + OLD)], InvalidRequest, "only one"),
        ([VERSION, (BETA, NEW), (BETA, OLD)], InvalidRequest, "only one"),
        ([VERSION, (BETA, b"new-thing," + NEW)], InvalidRequest, "`new-thing` for the `anthropic-beta` header"),
        ([VERSION, (BETA, b"files-api-2025-04-14")], NotFound, "anthropic-beta: agent-memory-2026-07-22"),
        ([VERSION, (BETA, b"files-api-2025-04-15," + NEW)], InvalidRequest, "`files-api-2025-04-15` for"),
        ([VERSION, (BETA, b"a"), (BETA, b"b")], InvalidRequest, "`a`, `b` for"),
    ],
)
def test_strict_mode_refuses_what_the_vendor_refuses(
    pairs: list[tuple[bytes, bytes]], kind: type[MemstoreError], told: str
) -> None:
    with pytest.raises(kind) as refusal:
        headers.check_strictly(pairs, dict(pairs))
    assert type(refusal.value) is kind
    assert told in refusal.value.message


def test_the_known_betas_are_those_of_the_installed_sdk() -> None:
    listed = {name for part in get_args(AnthropicBetaParam) for name in get_args(part)}
    assert listed == betas.KNOWN_BETAS
    assert listed >= betas.MEMORY_BETAS
