"""Request headers that concern every call: the credential, the workspace, the beta (contract, 0.1 and 0.2)."""

import re
from collections.abc import Iterable, Mapping

from app.contract.actors import Caller
from app.contract.betas import KNOWN_BETAS, MEMORY_BETAS
from app.contract.errors import AuthenticationFailed, InvalidRequest, NotFound, PermissionDenied

Headers = Mapping[bytes, bytes]
"""Lower-case names; of a repeated header, the last value."""

_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")
_KNOWN_VERSIONS = frozenset({b"2023-06-01", b"2026-10-21"})


def secret(headers: Headers) -> bytes:
    """The API key: the bearer token, or `x-api-key` if there is no `Authorization`.

    Raises:
        AuthenticationFailed: neither is there, or `Authorization` is not a bearer.

    """
    authorization = headers.get(b"authorization")
    if authorization is None:
        key = headers.get(b"x-api-key")
        if not key:
            raise AuthenticationFailed("an API key is required, as 'x-api-key: KEY' or 'Authorization: Bearer KEY'")
        return key
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() != b"bearer" or not token.strip():
        raise AuthenticationFailed("the Authorization header must be 'Bearer KEY'")
    return token.strip()


def weights(field: str) -> dict[str, float]:
    """What an `Accept` or `Accept-Encoding` names, in lower case without parameters, and how much it is wanted.

    From 0, which is not at all, to 1; a weight that is none counts as 1 (RFC 9110, 12.4.2).
    """
    found: dict[str, float] = {}
    for part in field.lower().split(","):
        name, *parameters = (each.strip() for each in part.split(";"))
        said = (each.partition("=") for each in parameters)
        weight = next((value.strip() for key, _, value in said if key.strip() == "q"), "1")
        found[name] = float(weight) if _WEIGHT.fullmatch(weight) else 1.0
    return found


def check_workspace(headers: Headers, caller: Caller) -> None:
    """Refuse a request that names another workspace than its key's."""
    wanted = headers.get(b"anthropic-workspace-id")
    if wanted is not None and wanted.decode("latin-1") != caller.workspace_id:
        raise PermissionDenied("the API key does not belong to the workspace in anthropic-workspace-id")


def check_strictly(pairs: Iterable[tuple[bytes, bytes]], headers: Headers) -> None:
    """The vendor's refusals about `anthropic-version` and `anthropic-beta`."""
    version = headers.get(b"anthropic-version")
    if version is None:
        raise InvalidRequest("anthropic-version: header is required, such as 2023-06-01")
    if version not in _KNOWN_VERSIONS:
        raise InvalidRequest(f"anthropic-version: {version.decode('latin-1')!r} is not a valid version; try 2023-06-01")
    betas = [
        beta.strip()
        for name, value in pairs
        if name == b"anthropic-beta"
        for beta in value.decode("latin-1").split(",")
        if beta.strip()
    ]
    unknown = [beta for beta in betas if beta not in KNOWN_BETAS]
    if unknown:
        names = ", ".join(f"`{beta}`" for beta in unknown)
        raise InvalidRequest(f"Unexpected value(s) {names} for the `anthropic-beta` header")
    opening = MEMORY_BETAS.intersection(betas)
    if not opening:
        # The vendor hides the routes of a beta from callers that do not ask for it.
        raise NotFound("not found; send the header 'anthropic-beta: agent-memory-2026-07-22'")
    if len(opening) > 1:
        raise InvalidRequest(
            "anthropic-beta: agent-memory-2026-07-22 replaces managed-agents-2026-04-01; send only one of them"
        )
