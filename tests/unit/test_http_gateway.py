"""The gateway: limits on bodies, HEAD, refusals in their envelope, and silence for clients that left."""

import asyncio
import json
from collections.abc import Iterable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Body
from fastapi.routing import APIRoute
from pydantic import BaseModel

from app.contract.actors import API_KEY, Actor, Caller
from app.contract.errors import AuthenticationFailed, NotFound, Overloaded, Unavailable
from app.http.replies import Reply
from app.keys.service import Authenticator
from app.server.binding import RouteTable
from app.server.gateway import Gateway

MAXIMUM = 100
WORKSPACE = "wrkspc_1"

router = APIRouter(prefix="/v1/things")


class Thing(BaseModel):
    name: str


@router.get("")
@router.head("")
async def show() -> Reply:
    return Reply({"name": "it"}, {"etag": '"1"'})


@router.post("")
async def keep(body: Annotated[Thing, Body()]) -> dict[str, Any]:
    return {"name": body.name}


@router.get("/broken")
async def broken() -> None:
    raise RuntimeError("the secret reason")


@router.get("/missing")
async def missing() -> None:
    raise NotFound("nothing here")


@router.get("/away")
async def away() -> None:
    raise Unavailable("the database does not answer")


@router.get("/busy")
async def busy() -> None:
    raise Overloaded("too much at once")


class KnowsOneKey(Authenticator):
    """Without a database."""

    def __init__(self) -> None:
        """It needs nothing."""

    async def authenticate(self, secret: bytes) -> Caller:
        if secret != b"right":
            raise AuthenticationFailed("invalid x-api-key")
        return Caller(WORKSPACE, Actor(API_KEY, "apikey_1"))


class Exchange:
    """One request and what became of it."""

    def __init__(self, method: str, path: str, messages: Iterable[dict[str, Any]], headers: dict[str, str]) -> None:
        self.scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        self.unread = list(messages)
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        return self.unread.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        pairs = self.sent[0]["headers"]
        assert len({name for name, _ in pairs}) == len(pairs), "a header twice"
        return {name.decode(): value.decode() for name, value in pairs}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    def error(self) -> dict[str, Any]:
        """The error of a refusal, in a whole envelope."""
        envelope = json.loads(self.body)
        assert set(envelope) == {"type", "error", "request_id"}
        assert envelope["type"] == "error"
        assert envelope["request_id"] == self.headers["request-id"]
        error: dict[str, Any] = envelope["error"]
        return error


def body(*chunks: bytes) -> list[dict[str, Any]]:
    return [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks)}
        for number, chunk in enumerate(chunks, 1)
    ]


def ask(
    method: str, path: str, messages: Iterable[dict[str, Any]] = (), *, key: str = "right", **headers: str
) -> Exchange:
    fallback_calls: list[Any] = []

    async def fallback(scope: Any, receive: Any, send: Any) -> None:
        fallback_calls.append(scope)
        await send({"type": "fallback"})

    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    gateway = Gateway(fallback, RouteTable(routes, {}), KnowsOneKey(), strict_beta=False, max_body_bytes=MAXIMUM)
    named = {"x-api-key": key} | {name.replace("_", "-"): value for name, value in headers.items()}
    exchange = Exchange(method, path, messages, named)
    asyncio.run(gateway(exchange.scope, exchange.receive, exchange.send))
    return exchange


def test_head_is_get_without_the_body() -> None:
    got, head = ask("GET", "/v1/things"), ask("HEAD", "/v1/things")
    assert (got.status, head.status) == (200, 200)
    assert json.loads(got.body) == {"name": "it"}
    assert head.body == b""
    assert head.headers["content-length"] == str(len(got.body))
    assert {**head.headers, "request-id": ""} == {**got.headers, "request-id": ""}
    assert head.headers["etag"] == '"1"'


def test_a_refused_head_has_no_body_either() -> None:
    head = ask("HEAD", "/v1/nothing")
    assert head.status == 404
    assert head.body == b""
    assert int(head.headers["content-length"]) > 0


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/v1/things/x/y"])
def test_an_unknown_path_of_the_api_is_404_in_the_envelope(path: str) -> None:
    answer = ask("GET", path)
    assert answer.status == 404
    assert answer.error()["type"] == "not_found_error"


def test_another_method_is_405_with_the_methods_of_the_path() -> None:
    answer = ask("DELETE", "/v1/things")
    assert answer.status == 405
    assert answer.error()["type"] == "invalid_request_error"
    assert answer.headers["allow"] == "GET, HEAD, POST"


def test_a_key_comes_before_everything_else() -> None:
    for path in ("/v1/things", "/v1/nothing"):
        answer = ask("DELETE", path, key="wrong")
        assert answer.status == 401
        assert answer.error()["type"] == "authentication_error"
        assert "anthropic-workspace-id" not in answer.headers


def test_an_answer_to_a_known_key_names_its_workspace() -> None:
    for path in ("/v1/things", "/v1/nothing", "/v1/things/broken"):
        assert ask("GET", path).headers["anthropic-workspace-id"] == WORKSPACE


def test_another_workspace_than_the_keys_is_403() -> None:
    assert ask("GET", "/v1/things", anthropic_workspace_id=WORKSPACE).status == 200
    answer = ask("GET", "/v1/things", anthropic_workspace_id="wrkspc_2")
    assert answer.status == 403
    assert answer.error()["type"] == "permission_error"


def test_a_body_in_pieces_is_one_body() -> None:
    answer = ask("POST", "/v1/things", body(b'{"na', b"", b'me": "it"}'))
    assert json.loads(answer.body) == {"name": "it"}


def test_a_body_of_the_limit_is_read() -> None:
    whole = b'{"name": "it"}'.ljust(MAXIMUM)
    assert ask("POST", "/v1/things", body(whole), content_length=str(MAXIMUM)).status == 200
    assert ask("POST", "/v1/things", body(whole[:50], whole[50:])).status == 200


def test_a_body_that_says_it_is_too_large_is_refused_unread() -> None:
    answer = ask("POST", "/v1/things", body(b"x" * (MAXIMUM + 1)), content_length=str(MAXIMUM + 1))
    assert answer.status == 413
    assert answer.error()["type"] == "request_too_large"
    assert answer.headers["connection"] == "close"
    assert len(answer.unread) == 1


def test_a_body_that_grows_too_large_is_read_no_further() -> None:
    answer = ask("POST", "/v1/things", body(b"x" * MAXIMUM, b"x", b"never read"))
    assert answer.status == 413
    assert [message["body"] for message in answer.unread] == [b"never read"]


def test_a_client_that_left_gets_no_answer() -> None:
    answer = ask("POST", "/v1/things", [*body(b"{", b"")[:1], {"type": "http.disconnect"}])
    assert answer.sent == []


def test_a_refusal_of_the_service_keeps_its_status_and_words() -> None:
    answer = ask("GET", "/v1/things/missing")
    assert answer.status == 404
    assert answer.error() == {"type": "not_found_error", "message": "nothing here"}


@pytest.mark.parametrize(("path", "status", "kind"), [("away", 503, "api_error"), ("busy", 529, "overloaded_error")])
def test_what_may_work_later_says_when(path: str, status: int, kind: str) -> None:
    answer = ask("GET", f"/v1/things/{path}")
    assert answer.status == status
    assert answer.error()["type"] == kind
    assert int(answer.headers["retry-after"]) >= 1


def test_a_fault_is_500_without_the_reason_which_is_logged_under_the_request_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = ask("GET", "/v1/things/broken")
    assert answer.status == 500
    assert answer.error()["type"] == "api_error"
    assert answer.headers["request-id"] in answer.error()["message"]
    assert b"secret" not in answer.body
    (record,) = [record for record in caplog.records if record.name == "app.server.gateway"]
    assert answer.headers["request-id"] in record.getMessage()
    assert record.exc_info is not None
    assert "the secret reason" in str(record.exc_info[1])


@pytest.mark.parametrize("path", ["/", "/healthz", "/v2/things", "/v10/things", "/docs"])
def test_what_is_not_of_the_api_goes_to_the_fallback_without_a_key(path: str) -> None:
    assert ask("GET", path, key="wrong").sent == [{"type": "fallback"}]
