"""The one reading of a PostgreSQL URL, for the server, every command and the migrations.

It is libpq's form (PostgreSQL's manual, "Connection URIs"): several hosts, IPv6 in brackets, a socket's directory as
`%2Frun%2Fpostgresql` or `?host=/run/postgresql`, everything percent-encoded where need be, and libpq's usual keys.
"""

import os
import re
from dataclasses import dataclass, field
from urllib.parse import unquote

EXAMPLE = "postgresql://user:password@host:port/name"
_URL = re.compile(r"postgres(?:ql)?://(?P<authority>[^/?]*)(?:/(?P<name>[^?]*))?(?:\?(?P<query>.*))?", re.DOTALL)
_HOST = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]]*)(?::(?P<port>[^:]*))?")

_TLS_KEYS = (
    "sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "sslnegotiation",
    "ssl_min_protocol_version", "ssl_max_protocol_version",
)  # fmt: skip
_CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "prepared_statements": ("auto", "on", "off"),
    "load_balance_hosts": ("disable", "random"),
    "channel_binding": ("disable", "prefer"),
    "gssencmode": ("disable", "prefer"),
    "client_encoding": ("utf8", "UTF8", "utf-8", "UTF-8", "auto"),
    "ssl_min_protocol_version": ("TLSv1.2", "TLSv1.3"),
    "ssl_max_protocol_version": ("TLSv1.2", "TLSv1.3"),
}
KNOWN_KEYS = (
    "host", "port", "user", "password", "passfile", "dbname", *_TLS_KEYS, "application_name",
    "fallback_application_name", "options", "connect_timeout", "target_session_attrs", "load_balance_hosts",
    "prepared_statements", "channel_binding", "gssencmode", "client_encoding",
)  # fmt: skip
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class PostgresTarget:
    """Where and how to connect. What is None is left to libpq's variables (`PGUSER` and so on) and their defaults."""

    hosts: tuple[tuple[str | None, int | None], ...]
    """Host names, addresses or directories of sockets, and ports; asked in this order."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    passfile: str | None = None
    database: str | None = None
    tls: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """libpq's `ssl…` keys."""
    application_name: str = "memstore"
    options: str | None = None
    connect_seconds: float = _CONNECT_SECONDS
    """For each host."""
    session: str = "any"
    """libpq's `target_session_attrs`."""
    shuffled: bool = False
    prepared_statements: str = "auto"

    def __str__(self) -> str:
        """Hosts and database, for messages."""
        hosts = ", ".join(
            f"{host or 'the local server'}{f' port {port}' if port is not None else ''}" for host, port in self.hosts
        )
        return f"database {self.database!r} on {hosts}" if self.database else hosts


def is_postgres(url: str) -> bool:
    """Whether a URL is one of PostgreSQL."""
    return url.startswith(("postgresql://", "postgres://"))


def parse(url: str) -> PostgresTarget:
    """Read a URL.

    Raises:
        ValueError: it can't be used; the text says why, with no password in it.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError(f"must be {EXAMPLE}")
    login, _, places = found["authority"].rpartition("@")
    user, _, password = login.partition(":")
    keys = _keys(found["query"] or "")
    seconds = _seconds(keys.get("connect_timeout"))
    hosts = _hosts(keys, places)
    default = "read-write" if len(hosts) > 1 else "any"  # The service is of no use where it can't write.
    return PostgresTarget(
        hosts=hosts,
        user=keys.get("user") or _decoded(user, "the user") or None,
        password=keys.get("password") or _decoded(password, "the password") or None,
        passfile=keys.get("passfile") or None,
        database=keys.get("dbname") or _decoded(found["name"] or "", "the database's name") or None,
        tls=tuple((key, keys[key]) for key in _TLS_KEYS if keys.get(key)),
        application_name=keys.get("application_name") or keys.get("fallback_application_name") or "memstore",
        options=keys.get("options") or None,
        connect_seconds=seconds,
        session=keys.get("target_session_attrs") or os.environ.get("PGTARGETSESSIONATTRS") or default,
        shuffled=keys.get("load_balance_hosts") == "random",
        prepared_statements=keys.get("prepared_statements") or "auto",
    )


def _decoded(text: str, what: str) -> str:
    if re.search(r"%(?![0-9a-fA-F]{2})", text) or "%00" in text:
        raise ValueError(f"has a % in {what} that begins no code such as %2F; write % as %25")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(f"has percent-encoded bytes in {what} that are not UTF-8") from None


def _keys(query: str) -> dict[str, str]:
    keys = {}
    for part in query.split("&") if query else ():
        name, has_value, value = part.partition("=")
        name = _decoded(name, "a key")
        if name not in KNOWN_KEYS:
            raise ValueError(f"has the unknown key {name!r} after '?'; known are {', '.join(KNOWN_KEYS)}")
        if not has_value:
            raise ValueError(f"has the key {name} after '?' without '=' and a value")
        keys[name] = value = _decoded(value, f"the key {name}")
        if value and value not in _CHOICES.get(name, (value,)):
            raise ValueError(f"has {name}={value}; it may be {', '.join(_CHOICES[name])}")
    if keys.get("sslrootcert") == "system" and keys.get("sslmode", "verify-full") != "verify-full":
        raise ValueError("has sslrootcert=system, which goes with sslmode=verify-full only")
    return keys


def _seconds(text: str | None) -> float:
    """Libpq's `connect_timeout`: whole seconds; 0 or less is no limit there, and the longest we wait here."""
    if not text:
        return _CONNECT_SECONDS
    if not re.fullmatch(r"\s*-?[0-9]{1,6}\s*", text):
        raise ValueError(f"has connect_timeout={text}; it must be a whole number of seconds")
    return float(min(int(text), 300)) if int(text) > 0 else 300.0


def _port(text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65_535:
        raise ValueError(f"has the port {text!r}; a port is a number from 1 to 65535")
    return int(text)


def _hosts(keys: dict[str, str], places: str) -> tuple[tuple[str | None, int | None], ...]:
    names: list[str | None] = []
    ports: list[int | None] = []
    for place in places.split(","):
        found = _HOST.fullmatch(place)
        if found is None:
            raise ValueError(f"has the host {place!r}; write an IPv6 address in brackets, such as [::1]:5432")
        names.append(_decoded(found["host"], "a host").strip("[]") or None)
        ports.append(_port(_decoded(found["port"] or "", "a port")))
    if host := keys.get("host") or (os.environ.get("PGHOST") if names == [None] else None):
        names = [name.strip("[]") or None for name in host.split(",")]
        if len(ports) != len(names):
            ports = ports * len(names) if len(ports) == 1 else [None] * len(names)
    if port := keys.get("port"):
        ports = [_port(text) for text in port.split(",")]
        if len(ports) == 1:
            ports *= len(names)
        if len(ports) != len(names):
            raise ValueError(f"has {len(ports)} ports for {len(names)} hosts; give one port, or one for each host")
    return tuple(zip(names, ports, strict=True))
