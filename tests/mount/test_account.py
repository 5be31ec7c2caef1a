"""Sessions and tokens, as the daemon asks a real server for them."""

import threading
from collections.abc import Iterator

import anthropic
import httpx2
import pytest

from app.client.credentials import authorization
from app.client.failures import Away
from app.mount.daemon.account import (
    Account,
    Attachment,
    Credentials,
    NotThere,
    ServerAway,
    SessionToken,
    distinct,
)
from app.mount.door.api import StoreApi
from app.mount.sync.errors import MountError
from tests.mount.hosts import Sessions, wait_for
from tests.support.backends import SQLITE_DISK, Backend, Services
from tests.support.servers import Server, serve

DAY = 86_400.0


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def server(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(Backend(SQLITE_DISK, services).environment(tmp_path_factory.mktemp("server"))) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[anthropic.Anthropic]:
    with server.client(max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def sessions(client: anthropic.Anthropic) -> Sessions:
    return Sessions(client)


@pytest.fixture
def account(server: Server) -> Iterator[Account]:
    account = Account(Credentials(server.base_url, api_key=server.api_key))
    yield account
    account.close()


def tokens_of(server: Server, session: str) -> list[dict[str, str]]:
    """The session's tokens that are not revoked, as the server lists them."""
    with server.http() as http:
        listed: list[dict[str, str]] = http.get(f"/v1/sessions/{session}/tokens").json()["data"]
    return [token for token in listed if token["revoked_at"] is None]


def opens(server: Server, secret: str, session: str) -> int:
    """The status with which the server answers this token's question for its session."""
    return httpx2.get(
        f"{server.base_url}/v1/sessions/{session}", headers={"authorization": f"Bearer {secret}"}, trust_env=False
    ).status_code


def test_a_sessions_attachments(account: Account, sessions: Sessions) -> None:
    notes, twin, reference = sessions.store("My Notes"), sessions.store("My notes!"), sessions.store("日本語")
    session = sessions.open(notes, twin, read_only=(reference,))
    found = account.session_attachments(session)
    assert [(item.store_id, item.slug, item.read_only) for item in found] == [
        (notes, "my-notes", False),
        (twin, "my-notes-2", False),
        (reference, reference.lower().replace("_", "-"), True),
    ]


def test_refusals_name_what_a_person_can_change(server: Server, account: Account, sessions: Sessions) -> None:
    session = sessions.open(sessions.store("Notes"))
    with pytest.raises(NotThere, match="no session sesn_nothing"):
        account.session_attachments("sesn_nothing")
    with pytest.raises(MountError, match="has no memory store attached"):
        account.session_attachments(sessions.open())
    with pytest.raises(MountError, match="does not accept MEMSTORE_API_KEY"):
        Account(Credentials(server.base_url, api_key="wrong")).session_attachments(session)
    with pytest.raises(MountError, match="does not accept MEMSTORE_TOKEN"):
        Account(Credentials(server.base_url, token="mst_wrong")).session_attachments(session)
    with pytest.raises(ServerAway, match="does not answer"):
        Account(Credentials("http://127.0.0.1:9", api_key="k")).session_attachments(session)


def test_an_archived_session_is_refused(account: Account, sessions: Sessions) -> None:
    session = sessions.open(sessions.store("Notes"))
    sessions.beta.sessions.archive(session)
    with pytest.raises(MountError, match="is archived"):
        account.session_attachments(session)


def test_a_token_is_made_used_renewed_and_revoked(server: Server, account: Account, sessions: Sessions) -> None:
    session, clock = sessions.open(sessions.store("Notes")), Clock()
    token = SessionToken(account, session, clock=clock)
    first = token()
    assert first != server.api_key
    assert opens(server, first, session) == 200
    clock.now += DAY * 0.4
    assert token() == first
    clock.now += DAY * 0.2
    second = token()
    assert second != first
    # A stream may still be using the first.
    assert [opens(server, secret, session) for secret in (first, second)] == [200, 200]
    token.revoke()
    assert tokens_of(server, session) == []
    wait_for("the end of the tokens", lambda: {opens(server, made, session) for made in (first, second)} == {401})


def test_threads_that_come_at_once_share_one_renewal(server: Server, account: Account, sessions: Sessions) -> None:
    session, clock = sessions.open(sessions.store("Notes")), Clock()
    token = SessionToken(account, session, clock=clock)
    clock.now += DAY * 1.1  # expired: all must wait for the next one
    threads = [threading.Thread(target=token) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens_of(server, session)) == 2


def test_a_token_outlives_an_outage_until_it_expires(account: Account, sessions: Sessions) -> None:
    session, clock = sessions.open(sessions.store("Notes")), Clock()
    token = SessionToken(account, session, clock=clock)
    first = token()
    token.use(Account(Credentials("http://127.0.0.1:9", api_key="k")))
    clock.now += DAY * 0.9
    assert token() == first
    clock.now += DAY * 0.2
    with pytest.raises(Away, match="does not answer"):
        token()
    token.use(account)
    assert token() != first


def test_a_token_can_be_had_later_if_the_server_is_away(account: Account, sessions: Sessions) -> None:
    session = sessions.open(sessions.store("Notes"))
    token = SessionToken(Account(Credentials("http://127.0.0.1:9", api_key="k")), session)
    with pytest.raises(Away):
        token()
    token.use(account)
    assert token().startswith("mst_")


class Hanging(Account):
    """Of a server that gives no answer, until as many threads want one as there will be."""

    def __init__(self, callers: int) -> None:
        super().__init__(Credentials("http://127.0.0.1:9", api_key="k"))
        self.callers = callers
        self.came: set[int] = set()
        self.asked = 0

    def clock(self) -> float:
        self.came.add(threading.get_ident())
        return 0.0

    def make_token(self, session_id: str) -> tuple[str, str, float]:
        self.asked += 1
        if self.asked > 1:  # the first comes with the object itself
            wait_for("all the threads", lambda: len(self.came) >= self.callers)
        raise ServerAway("it does not answer")


def test_those_who_wait_for_a_server_that_hangs_share_one_attempt() -> None:
    account = Hanging(callers=8)
    token = SessionToken(account, "sesn_1", clock=account.clock)
    failed = []

    def ask() -> None:
        with pytest.raises(Away, match="does not answer"):
            token()
        failed.append(True)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) == 8
    assert account.asked == 2
    ask()
    assert account.asked == 3  # who comes later tries anew


def test_a_read_asks_for_a_token_once_if_there_is_none() -> None:
    asked = []

    def token() -> str:
        asked.append(True)
        raise Away(0, "no token")

    api = StoreApi("http://127.0.0.1:9", "memstore_1", token)
    with pytest.raises(Away, match="no token"):
        api.retrieve("mem_1")
    assert len(asked) == 1


def test_a_given_token_is_used_as_it_is(server: Server, sessions: Sessions) -> None:
    account = Account(Credentials(server.base_url, api_key="key", token="mst_given"))
    token = SessionToken(account, sessions.open(sessions.store("Notes")))
    assert token() == "mst_given"
    token.revoke()  # not ours to end


def test_the_vendors_keys_go_into_the_vendors_header() -> None:
    assert authorization("sk-ant-api03-x") == {"x-api-key": "sk-ant-api03-x"}
    assert authorization("mst_x") == {"authorization": "Bearer mst_x"}


@pytest.mark.parametrize("slugs", [("..",), ("",), ("a/b",), (".",), ("a\0",), ("same", "same")])
def test_a_server_can_not_lead_out_of_the_root(slugs: tuple[str, ...]) -> None:
    with pytest.raises(MountError):
        distinct([Attachment(f"memstore_{n}", "x", slug, False) for n, slug in enumerate(slugs)])


def test_secrets_are_not_shown() -> None:
    shown = repr(Credentials("http://x", api_key="secret-key", token="secret-token"))
    assert "secret" not in shown
