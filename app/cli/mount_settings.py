"""The settings of a mount: a client's, apart from the server's and read without what that needs."""

import io
import os
from pathlib import Path

from dotenv import dotenv_values

from app import regular_files
from app.mount.daemon.account import Credentials
from app.mount.sync.errors import MountError

BASE_URL, API_KEY, TOKEN = "MEMSTORE_BASE_URL", "MEMSTORE_API_KEY", "MEMSTORE_TOKEN"
SECRETS = (API_KEY, TOKEN)
VARIABLES = (BASE_URL, *SECRETS, "MEMSTORE_RUN_DIR", "MEMSTORE_STATE_DIR", "MEMSTORE_CACHE_DIR")
"""All of them; docs/mount.md says what each does."""
ENV_FILE = Path(".env")
_MAX_BYTES = 1_048_576


def variables(*more: str) -> dict[str, str]:
    """The environment, over what `.env` in the working directory says of these variables, and of `more`."""
    written = of_file()
    return {**{name: written[name] or "" for name in (*VARIABLES, *more) if name in written}, **os.environ}


def of_file() -> dict[str, str | None]:
    """What `.env` in the working directory says; nothing if there is none, or a directory.

    Raises:
        MountError: it can't be read.

    """
    try:
        if not (ENV_FILE.is_file() or ENV_FILE.is_fifo()):
            return {}
        return dotenv_values(stream=io.StringIO(regular_files.read(ENV_FILE, _MAX_BYTES).decode()))
    except (OSError, UnicodeDecodeError) as error:
        raise MountError(f"{ENV_FILE.resolve()} can't be read: {error}") from error


def credentials() -> Credentials:
    """Where the server is, and the secret for it.

    Raises:
        MountError: something is missing or wrong; the sentence says what to set.

    """
    known = variables()
    url, api_key, token = (known.get(name, "").strip() for name in (BASE_URL, API_KEY, TOKEN))
    if not url:
        raise MountError(f"{BASE_URL} is not set: it is the server's URL, such as http://127.0.0.1:8080")
    if not url.startswith(("http://", "https://")):
        raise MountError(f"{BASE_URL} must be an http or https URL, such as http://127.0.0.1:8080, not {url!r}")
    if not api_key and not token:
        raise MountError(
            f"neither {API_KEY} nor {TOKEN} is set: the first is an API key, the second the token of a session "
            "('memstore sessions token SESSION_ID' on the server)"
        )
    for name, secret in ((API_KEY, api_key), (TOKEN, token)):
        if not secret.isascii() or (secret and not secret.isprintable()) or " " in secret:
            raise MountError(f"{name} holds a character that no key or token has")
    return Credentials(url.rstrip("/"), api_key or None, token or None)


def secrets_in_reach() -> list[str]:
    """The secrets in the `.env` of the working directory, where a command that is started there can read them."""
    written = of_file()
    return [name for name in SECRETS if written.get(name)]
