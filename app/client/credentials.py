"""Where the server is, and who asks: given, or from the environment."""

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

BASE_URL, API_KEY, TOKEN, WORKSPACE = (
    "MEMSTORE_BASE_URL", "MEMSTORE_API_KEY", "MEMSTORE_TOKEN", "MEMSTORE_WORKSPACE_ID",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Credentials:
    """One server and one secret."""

    base_url: str
    secret: str = field(repr=False)
    """An API key, or the token of a session."""
    workspace_id: str | None

    @classmethod
    def found(cls, base_url: str | None, secret: str | None, workspace_id: str | None) -> "Credentials":
        """What is given; what is not, from the environment, where a token wins over an API key.

        Raises:
            ValueError: something is missing, or can't be what it should be; the sentence says what to set.

        """
        url = (base_url or os.environ.get(BASE_URL, "")).strip().rstrip("/")
        if not url:
            raise ValueError(f"no server: give base_url, such as 'http://127.0.0.1:8080', or set {BASE_URL}")
        secret = (secret or os.environ.get(TOKEN) or os.environ.get(API_KEY) or "").strip()
        if not secret:
            raise ValueError(f"no key: give api_key, or set {API_KEY}, or {TOKEN} to the token of a session")
        workspace_id = (workspace_id or os.environ.get(WORKSPACE, "")).strip() or None
        for what, text in (("API key or token", secret), ("workspace ID", workspace_id or "")):
            if not text.isascii() or " " in text or not text.isprintable():
                raise ValueError(f"the {what} holds a character that none has")
        return cls(_checked(url), secret, workspace_id)

    def headers(self) -> dict[str, str]:
        """What every call says of them."""
        workspace = {} if self.workspace_id is None else {"anthropic-workspace-id": self.workspace_id}
        return {**authorization(self.secret), **workspace}


def authorization(secret: str) -> dict[str, str]:
    """The header that carries a credential: the vendor takes its API keys in `x-api-key` alone."""
    if secret.startswith("sk-ant-api"):
        return {"x-api-key": secret}
    return {"authorization": f"Bearer {secret}"}


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r} is no URL of a server, such as 'http://127.0.0.1:8080'")
    if parts.query or parts.fragment or parts.username is not None or parts.password is not None:
        raise ValueError("the URL of a server has no query, no fragment, no user and no password")
    return url
