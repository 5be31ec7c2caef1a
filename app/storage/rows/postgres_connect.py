"""Connecting to the first of a target's hosts that will do, and finding out what is at the other end.

Behind a pooler such as pgbouncer a connection is not one server: in transaction mode each transaction may go to
another one. Named prepared statements and session settings are then not there at the next use, or in somebody else's
way. A pooler shows in the process number that it told at the start, which is not the server's.
"""

import asyncio
import getpass
import os
import random
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import asyncpg

from app.storage.rows.postgres_errors import OLDEST, DatabaseRefused, NoAnswer
from app.storage.rows.postgres_url import PostgresTarget

_COMMAND_SECONDS = 15.0
_STATEMENTS = 512
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
IDLE = "1min"
"""After so long in the middle of a transaction without a word, a process is frozen or gone, and its locks end.

In PostgreSQL's own words, in which it tells what is set.
"""
_IDLE_SETTING = "idle_in_transaction_session_timeout"
_PROBE = """
    SELECT pid, read_only, standby, version, encoding,
           -- Plans are kept, and the stage is empty most of the time: a plan made then would scan it for ever.
           CASE WHEN pid = {pid} THEN set_config('enable_seqscan', 'off', false) END AS seqscan,
           -- What an administrator has set for the role stays.
           CASE WHEN pid = {pid} AND current_setting('{setting}') = '0'
                THEN set_config('{setting}', '{idle}', false) END AS idle
      FROM (SELECT pg_backend_pid() AS pid, pg_is_in_recovery() AS standby,
                   current_setting('transaction_read_only') = 'on' AS read_only,
                   current_setting('server_version_num')::int AS version,
                   current_setting('server_encoding') AS encoding) AS server
"""
_LIMIT_IDLING = f"""
    SELECT set_config('{_IDLE_SETTING}', $1::text, true) WHERE current_setting('{_IDLE_SETTING}') = ANY($2::text[])
"""
_MATCHES: dict[str, Callable[[Any], bool]] = {
    "any": lambda server: True,
    "read-write": lambda server: not server["read_only"],
    "read-only": lambda server: server["read_only"],
    "primary": lambda server: not server["standby"],
    "standby": lambda server: server["standby"],
    "prefer-standby": lambda server: server["standby"],
}


class Connector:
    """Makes connections to one target, and remembers which of its hosts are poolers."""

    def __init__(self, target: PostgresTarget) -> None:
        self._target = target
        self._pooled: dict[tuple[str | None, int | None], bool] = {}

    @property
    def is_pooled(self) -> bool:
        """Whether a pooler was found at any host: a session's settings do not last there."""
        return any(self._pooled.values())

    async def __call__(self) -> Any:
        """An asyncpg connection to the first host that will do.

        Raises:
            DatabaseRefused: a server of a version or with an encoding that can't be used.
            OSError, asyncpg.PostgresError, asyncpg.TargetServerAttributeNotMatched: none of the hosts would do.
        """
        hosts = list(self._target.hosts)
        if self._target.shuffled:
            random.shuffle(hosts)
        failures: list[Exception] = []
        for wanted in (
            ("prefer-standby", "any") if self._target.session == "prefer-standby" else (self._target.session,)
        ):
            for host in hosts:
                try:
                    connection, server = await self._connect(host)
                except asyncpg.ProtocolViolationError as error:
                    # What pgbouncer says has no code of its own.
                    is_full = "no more connections allowed" in str(error)
                    failures.append(asyncpg.TooManyConnectionsError(str(error)) if is_full else error)
                    continue
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DatabaseRefused) as error:
                    failures.append(error)
                    continue
                if _MATCHES[wanted](server):
                    return connection
                connection.terminate()
                failures.append(
                    asyncpg.TargetServerAttributeNotMatched(
                        f"none of the servers is as target_session_attrs={wanted} asks ({self._target})"
                    )
                )
        # What a server said tells more than that another one did not answer.
        raise max(failures, key=lambda error: isinstance(error, asyncpg.PostgresError | DatabaseRefused))

    async def _connect(self, host: tuple[str | None, int | None]) -> tuple[Any, Any]:
        """A connection, and what it found out about the server."""
        keeps = self._target.prepared_statements
        is_kept = keeps == "on" or (keeps == "auto" and not self._pooled.get(host))
        connection, server = await self._connect_and_ask(host, _STATEMENTS if is_kept else 0)
        self._pooled[host] = server["pid"] != connection.get_server_pid()
        if self._pooled[host] and is_kept and keeps == "auto":
            connection.terminate()
            connection, server = await self._connect_and_ask(host, 0)
        try:
            _require_usable(server)
        except DatabaseRefused:
            connection.terminate()
            raise
        return connection, server

    async def _connect_and_ask(self, host: tuple[str | None, int | None], statements: int) -> tuple[Any, Any]:
        target = self._target
        name, port = host
        _require_local_parts(target)
        settings = {"application_name": target.application_name}
        if target.options:
            settings["options"] = target.options
        connection = await asyncpg.connect(
            _dsn(target),
            host=None if name is None else [name],
            port=port,
            user=target.user or _own_name(),
            password=target.password,
            passfile=target.passfile,
            database=target.database,
            ssl=_system_tls(target),
            target_session_attrs="any",
            timeout=target.connect_seconds,
            command_timeout=_COMMAND_SECONDS,
            statement_cache_size=statements,
            max_cached_statement_lifetime=0,
            server_settings=settings,
        )
        try:
            async with asyncio.timeout(target.connect_seconds):
                # Without a name: a pooler would keep it on a server that others use.
                text = _PROBE.format(pid=connection.get_server_pid(), setting=_IDLE_SETTING, idle=IDLE)
                probe = await connection.prepare(text, name="")
                server = await probe.fetchrow()
        except TimeoutError as error:
            connection.terminate()
            raise NoAnswer from error
        except BaseException:
            connection.terminate()
            raise
        return connection, server


async def limit_idling(connection: Any, idle: str) -> None:
    """Let the transaction that has begun idle so long, unless an administrator has set something.

    A session's setting does not last behind a pooler; one of a transaction does.
    """
    await connection.fetchval(_LIMIT_IDLING, idle, ["0", IDLE])


def _require_local_parts(target: PostgresTarget) -> None:
    """See that the files are there which the URL names, since the driver's errors do not tell which is not.

    The driver looks for more in the home directory, and gives up where that is closed to this user, as in a container
    that runs with another user ID than its image thought of. Nothing of ours is there then.
    """
    for key, value in target.tls:
        if key in _FILES and value != "system":
            try:
                open(value, "rb").close()
            except OSError as error:
                raise DatabaseRefused(
                    f"the database can't be used: {key} in MEMSTORE_DATABASE_URL is {value!r}, which can't be read: "
                    f"{error.strerror}"
                ) from error
    home = os.environ.get("HOME")
    if home and os.path.isdir(home) and not os.access(home, os.X_OK):
        os.environ["HOME"] = os.devnull


def _own_name() -> str | None:
    """The user where the URL names none: PostgreSQL's variable, else the name of the process's own user."""
    if name := os.environ.get("PGUSER"):
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise DatabaseRefused(
            f"the database can't be used: MEMSTORE_DATABASE_URL names no user, and user ID {os.getuid()} has no name "
            "that could stand for it; write postgresql://user@host/name, or set PGUSER"
        ) from None


def _dsn(target: PostgresTarget) -> str | None:
    """The TLS keys, in the only form in which asyncpg takes them; all others are arguments."""
    keys = [(key, value) for key, value in target.tls if _system_tls(target) is None]
    return f"postgresql://?{urlencode(keys, quote_via=quote)}" if keys else None


def _system_tls(target: PostgresTarget) -> ssl.SSLContext | None:
    """For `sslrootcert=system`: trust what the system trusts."""
    keys = dict(target.tls)
    if keys.get("sslrootcert") != "system":
        return None
    context = ssl.create_default_context()
    if "sslcert" in keys:
        context.load_cert_chain(keys["sslcert"], keys.get("sslkey"), keys.get("sslpassword"))
    return context


def _require_usable(server: Any) -> None:
    if server["version"] < OLDEST * 10_000:
        raise DatabaseRefused(
            f"the database can't be used: its PostgreSQL is of version {server['version'] // 10_000}, and Memstore "
            f"needs {OLDEST} or newer"
        )
    if server["encoding"] != "UTF8":
        raise DatabaseRefused(
            f"the database can't be used: its encoding is {server['encoding']}, and Memstore needs UTF8; make another "
            "one: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )
