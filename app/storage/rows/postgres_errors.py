"""What an administrator is told of a PostgreSQL that can't be used: what is wrong, and what would help."""

import re
import socket
import ssl

import asyncpg
from asyncpg.exceptions import ClientConfigurationError

from app.contract.errors import Unavailable

OLDEST = 13
"""The first version that has every function which is used here."""


class DatabaseRefused(Unavailable):
    """The database can't be used as it is, until an administrator changes something."""


class NoAnswer(TimeoutError):
    """Somebody took the connection, and did not answer on it."""


FORGOTTEN = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)
"""A prepared statement is not where it was made: each transaction may reach another server."""
POOLER_FORGETS = (
    "a pooler in between does not keep prepared statements: set prepared_statements=off in MEMSTORE_DATABASE_URL"
)

_ADVICE: tuple[tuple[type[Exception], str], ...] = (
    (asyncpg.InvalidPasswordError, "correct the password in MEMSTORE_DATABASE_URL"),
    (asyncpg.InvalidAuthorizationSpecificationError, "see the role in MEMSTORE_DATABASE_URL, and pg_hba.conf"),
    (asyncpg.InvalidCatalogNameError, "make it: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"),
    (asyncpg.InsufficientPrivilegeError, "let the owner do it, or grant it to the role in MEMSTORE_DATABASE_URL"),
    (asyncpg.InvalidSchemaNameError, "see that the schema in the role's search_path is there"),
    (asyncpg.UndefinedTableError, "run 'memstore migrate', with the same search_path"),
    (asyncpg.TooManyConnectionsError, "raise its limit, or lower MEMSTORE_DATABASE_POOL_SIZE"),
    (asyncpg.DiskFullError, "make room on the database's disk"),
    (asyncpg.ReadOnlySQLTransactionError, "name the primary, or all hosts with target_session_attrs=read-write"),
    (asyncpg.TargetServerAttributeNotMatched, "see which of the hosts takes writes"),
    (asyncpg.CannotConnectNowError, "wait until it has started"),
    (asyncpg.LockNotAvailableError, "try again when others use it less, or raise lock_timeout"),
    (asyncpg.QueryCanceledError, "raise the statement_timeout of this role"),
    (ClientConfigurationError, "see what stands after '?' in MEMSTORE_DATABASE_URL"),
    (asyncpg.UndefinedObjectError, "see the names in MEMSTORE_DATABASE_URL"),
    (asyncpg.CantChangeRuntimeParamError, "leave it out of the options in MEMSTORE_DATABASE_URL"),
    (asyncpg.ProtocolViolationError, "see the settings of the pooler in between"),
)
_POOLERS_WORDS = (
    ("startup parameter", "a pooler in between takes no such parameter: leave it out of MEMSTORE_DATABASE_URL"),
    ("statement pooling", "set the pooler's pool_mode to transaction or session"),
    ("does not exist", "see the names in MEMSTORE_DATABASE_URL and those that the pooler in between knows"),
)
"""What poolers say under codes that tell nothing, and what would help."""
_GRANTS = {
    "schema": "GRANT USAGE ON SCHEMA {0} TO its role, and for 'memstore migrate' CREATE",
    "table": "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA … TO its role",
    "sequence": "GRANT USAGE ON ALL SEQUENCES IN SCHEMA … TO its role",
    "database": "GRANT CONNECT ON DATABASE {0} TO its role",
}
"""By what a permission was denied for."""
_ADMINISTRATORS = (
    asyncpg.PostgresConnectionError,
    ClientConfigurationError,
    *FORGOTTEN,
    *(kind for kind, _ in _ADVICE),
)
_TRANSIENT = (
    TimeoutError,
    ConnectionError,
    FileNotFoundError,  # A socket that is not there yet.
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.ConnectionFailureError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TargetServerAttributeNotMatched,
)


def is_transient(error: BaseException | None) -> bool:
    """Whether waiting may help: the server starts, fails over or is full."""
    if isinstance(error, ssl.SSLError) or (isinstance(error, ConnectionError) and "SSL" in str(error)):
        return False
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    if "statement pooling" in str(error):
        return False
    return isinstance(error, _TRANSIENT)


def sentence(error: BaseException) -> str:
    """What is wrong, in one line, and what to do about it."""
    text = " ".join(re.sub(r"\[Errno -?[0-9]+\] ", "", str(error)).split())
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); see sslrootcert and the host's name"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or text}); see sslmode, sslrootcert, sslcert and sslkey"
    if isinstance(error, ConnectionError) and "rejected SSL upgrade" in text:
        return f"the server speaks no TLS ({text}); turn it on there, or set sslmode=prefer"
    if isinstance(error, socket.gaierror):
        return f"its host's name can't be resolved ({error.strerror}); see the host in MEMSTORE_DATABASE_URL"
    if isinstance(error, NoAnswer):
        return (
            "it took the connection and did not answer in time; where a pooler is in between, raise the number of its "
            "connections (pgbouncer: default_pool_size)"
        )
    if isinstance(error, TimeoutError):
        return (
            "it did not answer in time; see that it runs, host and port in MEMSTORE_DATABASE_URL, and, where a pooler "
            "is in between, that it has a connection left (pgbouncer: default_pool_size)"
        )
    if isinstance(error, OSError):
        text = text or "it ended the connection without a word"
        return f"{text}; see that it runs, and what MEMSTORE_DATABASE_URL names"
    if isinstance(error, FORGOTTEN):
        return POOLER_FORGETS
    if isinstance(error, asyncpg.PostgresConnectionError):
        for words, advice in _POOLERS_WORDS:
            if words in text:
                return f"{text}; {advice}"
    denied = re.fullmatch(r"permission denied for (\w+) (\S+)", text)
    if isinstance(error, asyncpg.InsufficientPrivilegeError) and denied and denied[1] in _GRANTS:
        return f"{text}; the owner may {_GRANTS[denied[1]].format(denied[2])}"
    for kind, advice in _ADVICE:
        if isinstance(error, kind):
            return f"{text}; {advice}"
    return text


def cause_of(error: BaseException | None) -> BaseException | None:
    """The driver's error behind another one that an administrator can do something about; None if there is none."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        found: BaseException = error
        if isinstance(error, _ADMINISTRATORS):
            return found
        below: BaseException | None = getattr(error, "orig", None)
        error = below or error.__cause__
    return None
