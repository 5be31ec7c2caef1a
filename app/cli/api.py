"""The public API as commands call it: where the server is, with which secret, and its answers as rows of a listing.

Commands that speak the API work on any host. They take the server at MEMSTORE_BASE_URL with MEMSTORE_TOKEN or
MEMSTORE_API_KEY; without these, the one on this host at port 8080 with the key that its first start left in the data
directory. That key is sent to no other host.
"""

import ipaddress
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, urlencode, urlsplit

from app import __version__, regular_files
from app.cli import names
from app.cli.mount_settings import API_KEY, BASE_URL, TOKEN, variables
from app.client.credentials import authorization
from app.client.exchange import Connections
from app.client.failures import ApiError, Away, Forbidden, Missing, Unauthorized, failure
from app.contract.errors import InvalidRequest, NotFound

DEFAULT_URL = "http://127.0.0.1:8080"
_BOOTSTRAP = "MEMSTORE_BOOTSTRAP_API_KEY"
_DATA = "MEMSTORE_DATA_DIR"
_KEY_FILE = "api_key"
_KEY_MAX_BYTES = 1_024
_ANSWER_MAX_BYTES = 16 << 20
_PAGE = 100
_PAGES_MAX = 100_000
"""Of one listing, which may be that of a server that never ends it."""
_CONNECT_SECONDS, _READ_SECONDS = 5.0, 60.0
_NO_TEXT = "an argument is no Unicode text: give it in UTF-8"

Found = dict[str, Any]


class Api:
    """One server and one secret."""

    def __init__(self, base_url: str, secret: str, source: str) -> None:
        """Nothing is sent yet. source: where the secret is from, for people."""
        self.base_url = base_url
        self._source = source
        self._prefix = urlsplit(base_url).path.rstrip("/")
        self._headers = {
            "accept": "application/json",
            "accept-encoding": "identity",
            "anthropic-beta": "agent-memory-2026-07-22,managed-agents-2026-04-01",
            "anthropic-version": "2023-06-01",
            "content-type": "application/json",
            "user-agent": f"memstore-cli/{__version__}",
            **authorization(secret),
        }
        self._connections = Connections(base_url, size=1, connect_seconds=_CONNECT_SECONDS, read_seconds=_READ_SECONDS)

    def close(self) -> None:
        """Close the connection."""
        self._connections.close()

    def get(self, path: str, **query: Any) -> Found:
        """What is at a path below the base URL.

        Raises:
            MemstoreError: a refusal or an outage, in a sentence for people.

        """
        try:
            asked = f"?{urlencode(query)}" if query else ""
        except UnicodeEncodeError:
            raise InvalidRequest(_NO_TEXT) from None
        return self._call("GET", f"{path}{asked}", None)

    def post(self, path: str, body: Found) -> Found:
        """Send a body to a path. Raises as `get`."""
        try:
            data = json.dumps(body, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InvalidRequest(_NO_TEXT) from None
        return self._call("POST", path, data)

    def pages(self, path: str, **query: Any) -> Iterator[Found]:
        """The items of a listing, page after page. Raises as `get`."""
        seen: set[str] = set()
        for _ in range(_PAGES_MAX):
            answer = self.get(path, **query)
            items = answer.get("data")
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                self._misunderstood(path)
            yield from items
            page = answer.get("next_page")
            if page is None:
                return
            if not isinstance(page, str) or page in seen:
                self._misunderstood(path)
            seen.add(page)
            query["page"] = page
        self._misunderstood(path)

    def _call(self, method: str, path: str, body: bytes | None) -> Found:
        try:
            status, headers, data = self._connections.call(
                method, f"{self._prefix}{path}", self._headers, body, most=_ANSWER_MAX_BYTES
            )
            if not 200 <= status < 300:
                raise failure(status, headers, data)
        except ApiError as error:
            raise self._told(error) from error
        except ValueError as error:
            raise InvalidRequest(f"{BASE_URL}: {error}") from error
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            self._misunderstood(path)
        return answer

    def _misunderstood(self, path: str) -> NoReturn:
        raise InvalidRequest(
            f"{self.base_url} answers {urlsplit(path).path} with something else than the memory-store API does; "
            f"{BASE_URL} is the server's URL, without /v1"
        )

    def _told(self, error: ApiError) -> Exception:
        if isinstance(error, Away) and error.status == 0:
            return InvalidRequest(
                f"no server answers at {self.base_url} ({error.message}); start one with 'memstore serve', or set "
                f"{BASE_URL} to the URL of yours"
            )
        if isinstance(error, Unauthorized):
            return InvalidRequest(f"the server at {self.base_url} does not know the secret from {self._source}")
        kind = NotFound if isinstance(error, Missing) else InvalidRequest
        return _Refused(error.message) if isinstance(error, Forbidden) else kind(error.message)


class _Refused(InvalidRequest):
    """The secret is good, and this is not for it."""


@contextmanager
def connected() -> Iterator[Api]:
    """The server of the settings, for as long as the context is open. Raises as `_of_settings` and `Api.get`."""
    api = _of_settings()
    try:
        yield api
    finally:
        api.close()


def _of_settings() -> Api:
    """The server of the settings.

    Raises:
        InvalidRequest: no secret is known for it, or a setting is wrong.

    """
    known = variables(_BOOTSTRAP, _DATA)
    url = known.get(BASE_URL, "").strip() or DEFAULT_URL
    if not url.startswith(("http://", "https://")):
        raise InvalidRequest(f"{BASE_URL} must be an http or https URL, such as {DEFAULT_URL}, not {url!r}")
    try:
        here = _is_this_host(urlsplit(url).hostname or "")
        _ = urlsplit(url).port
    except ValueError as error:
        raise InvalidRequest(f"{BASE_URL} is no URL ({error}): {url!r}") from error
    for name in (TOKEN, API_KEY, *([_BOOTSTRAP] if here else ())):
        if secret := known.get(name, "").strip():
            return Api(url.rstrip("/"), _checked(secret, name), name)
    if here:
        file = Path(known.get(_DATA) or "data") / _KEY_FILE
        if secret := _read(file):
            return Api(url.rstrip("/"), _checked(secret, str(file)), str(file))
        raise InvalidRequest(
            f"there is no key for {url}: {file} is not there, and neither {API_KEY} nor {TOKEN} is set; run this where "
            "the server's settings are, or set one of them"
        )
    raise InvalidRequest(f"there is no key for {url}: set {API_KEY} or {TOKEN}")


def _is_this_host(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(file: Path) -> str:
    try:
        return regular_files.read(file, _KEY_MAX_BYTES).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return ""


def _checked(secret: str, source: str) -> str:
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise InvalidRequest(f"{source} holds a character that no key or token has")
    return secret


def text(found: Found, name: str) -> str:
    """A member of an answer as a text; empty if it is none."""
    value = found.get(name)
    return value if isinstance(value, str) else ""


def store(api: Api, named: str) -> Found:
    """The store that a person means: ID, beginning of one, or name.

    Raises:
        MemstoreError: there is none, several may be meant, or as `Api.get`.

    """
    return _the_one(api, names.STORE, named, "/v1/memory_stores", "name")


def session(api: Api, named: str) -> Found:
    """The session that a person means: ID, beginning of one, or title. Raises as `store`."""
    return _the_one(api, names.SESSION, named, "/v1/sessions", "title")


def _the_one(api: Api, kind: names.Kind, named: str, path: str, name: str) -> Found:
    if names.is_beginning(kind, named):
        try:
            return api.get(f"{path}/{quote(named, safe='')}")
        except NotFound:
            if names.is_whole_id(kind, named):
                raise
    try:
        meant = [
            found
            for found in api.pages(path, limit=_PAGE, include_archived="true")
            if names.is_meant(kind, named, names.Candidate(text(found, "id"), text(found, name)))
        ]
    except _Refused:
        raise InvalidRequest(f"with a session's token a {kind.thing} is found by its whole ID only") from None
    chosen = names.the_one(kind, named, [names.Candidate(text(found, "id"), text(found, name)) for found in meant])
    return next(found for found in meant if text(found, "id") == chosen.id)


def stores(api: Api, *, archived: bool) -> Iterator[Found]:
    """Every store of the key's workspace, newest first."""
    return api.pages("/v1/memory_stores", limit=_PAGE, include_archived="true" if archived else "false")
