"""Credentials: a key in `x-api-key` or as a bearer token, the workspace header, and revocation (part 0.1)."""

import itertools
import json
import threading
import time

import anthropic
import httpx2
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.contract.conftest import Credential, bare_http, make_key, sign_in
from tests.contract.routes import ROUTES, Route, Sample, name_of
from tests.contract.shapes import API_KEY_ID, WORKSPACE_ID, check_refusal, is_id, refused
from tests.support.servers import Server

STORES = "/v1/memory_stores"
REVOKED_KEYS_DIE_WITHIN_SECONDS = 5.0


def test_a_key_is_accepted_in_x_api_key(anonymous: httpx2.Client, server: Server) -> None:
    assert anonymous.get(STORES, headers={"x-api-key": server.api_key}).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_a_key_is_accepted_as_a_bearer_token(anonymous: httpx2.Client, server: Server, scheme: str) -> None:
    response = anonymous.get(STORES, headers={"authorization": f"{scheme} {server.api_key}"})
    assert response.status_code == 200


def test_authorization_wins_when_both_headers_are_sent(anonymous: httpx2.Client, server: Server) -> None:
    good, bad = server.api_key, "sk-wrong"
    accepted = anonymous.get(STORES, headers={"authorization": f"Bearer {good}", "x-api-key": bad})
    assert accepted.status_code == 200
    check_refusal(anonymous.get(STORES, headers={"authorization": f"Bearer {bad}", "x-api-key": good}), 401)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param({"x-api-key": ""}, id="empty"),
        pytest.param({"x-api-key": "sk-wrong"}, id="wrong"),
        pytest.param({"authorization": "Bearer sk-wrong"}, id="wrong-bearer"),
        pytest.param({"authorization": "Bearer"}, id="bearer-without-token"),
        pytest.param({"authorization": "Basic dXNlcjpwYXNz"}, id="other-scheme"),
        pytest.param({"x-api-key": "k" * 5000}, id="very-long"),
    ],
)
def test_a_missing_or_wrong_key_is_401(anonymous: httpx2.Client, headers: dict[str, str]) -> None:
    response = anonymous.get(STORES, headers=headers)
    check_refusal(response, 401)
    assert "anthropic-workspace-id" not in response.headers


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_every_route_asks_for_a_key(anonymous: httpx2.Client, sample: Sample, route: Route) -> None:
    check_refusal(route.call(anonymous, sample), 401)


def test_the_key_is_checked_before_the_body(anonymous: httpx2.Client) -> None:
    check_refusal(anonymous.post(STORES, content=b"{not json"), 401)


def test_the_sdk_reports_a_wrong_key_as_an_authentication_error(server: Server) -> None:
    with sign_in(server, "sk-wrong") as stranger, refused(401):
        stranger.beta.memory_stores.list()


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_every_answer_names_the_workspace(http: httpx2.Client, sample: Sample, route: Route) -> None:
    response = route.call(http, sample)
    assert response.status_code == 200
    assert is_id(response.headers["anthropic-workspace-id"], WORKSPACE_ID)


def test_a_refusal_names_the_workspace_too(http: httpx2.Client) -> None:
    response = http.get(f"{STORES}/memstore_nowhere")
    check_refusal(response, 404)
    assert is_id(response.headers["anthropic-workspace-id"], WORKSPACE_ID)


def test_the_workspace_header_may_name_the_keys_own_workspace(
    guest: anthropic.Anthropic, guest_key: Credential
) -> None:
    response = guest.beta.memory_stores.with_raw_response.list(workspace_id=guest_key.workspace_id)
    assert response.headers["anthropic-workspace-id"] == guest_key.workspace_id


def test_another_workspace_in_the_header_is_403(
    client: anthropic.Anthropic, guest: anthropic.Anthropic, guest_key: Credential
) -> None:
    with refused(403):
        client.beta.memory_stores.list(workspace_id=guest_key.workspace_id)
    with refused(403):
        guest.beta.memory_stores.create(name="x", workspace_id="wrkspc_011CZkZaBF1tNoB5wlCeusgy")


def test_keys_of_one_workspace_share_its_stores(
    client: anthropic.Anthropic, colleague: anthropic.Anthropic, colleague_key: Credential, store: Store
) -> None:
    assert is_id(colleague_key.id, API_KEY_ID)
    assert colleague.beta.memory_stores.retrieve(store.id) == store
    response = client.beta.memory_stores.with_raw_response.retrieve(store.id)
    assert response.headers["anthropic-workspace-id"] == colleague_key.workspace_id


def test_keys_are_listed_without_their_secrets(server: Server, guest_key: Credential) -> None:
    printed = server.cli("keys", "list", "--json").stdout
    assert json.loads(printed)
    assert guest_key.id in printed
    assert guest_key.secret not in printed


@pytest.mark.any_backend
def test_a_revoked_key_dies_within_five_seconds(server: Server, guest: anthropic.Anthropic) -> None:
    doomed = make_key(server, "guests")
    with sign_in(server, doomed.secret) as client:
        client.beta.memory_stores.list()

        server.cli("keys", "revoke", doomed.id)
        deadline = time.monotonic() + REVOKED_KEYS_DIE_WITHIN_SECONDS
        pause = threading.Event()
        for _ in itertools.count():
            asked_at = time.monotonic()
            try:
                client.beta.memory_stores.list()
            except anthropic.AuthenticationError:
                break
            assert asked_at < deadline, "the key was accepted 5 seconds after its revocation"
            pause.wait(0.05)

    guest.beta.memory_stores.list()


def test_secrets_are_never_logged(server: Server, guest_key: Credential) -> None:
    wrong = "sk-wrong-and-to-be-hidden"
    with bare_http(server) as http:
        for secret in (server.api_key, guest_key.secret, wrong):
            http.get(STORES, headers={"x-api-key": secret})
            http.post(STORES, headers={"authorization": f"Bearer {secret}"}, content=b"{")
    log = server.log.read_text()
    assert log.strip()
    for secret in (server.api_key, guest_key.secret, wrong):
        assert secret not in log
