"""Settings: `MEMSTORE_*` environment variables, or the same names in a `.env` file in the working directory."""

import contextlib
import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from fsspec import available_protocols
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from app import regular_files
from app.storage.options import StorageOptions
from app.storage.rows import postgres_url

PREFIX = "MEMSTORE_"
_CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""systemd's name for the directory of a service's secrets: a file there that is named like a setting is one."""
"""What the name of every setting begins with in the environment."""
_MOST = 10**15
"""Far beyond use, and inside what both databases count with."""

_CONFIDENTIAL = {"MEMSTORE_DATABASE_URL", "MEMSTORE_BLOB_URL", "MEMSTORE_S3_ENDPOINT_URL", "MEMSTORE_BOOTSTRAP_API_KEY"}

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_DEFAULT_PORT = re.compile(r"http://.*:0*80|https://.*:0*443")
ROOT_PATH = re.compile(r"(/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)*")
"""A path that the service can be shown under; the empty one is the root of a host."""


def _require_file(key: str, path: str) -> None:
    """The driver would wait for the other end of a pipe."""
    try:
        regular_files.require(path)
    except OSError as error:
        raise ValueError(f"names as {key} no file that can be read: {error}") from None


class Settings(BaseSettings):
    """What an operator may choose. The table in docs/reference/settings.md is made from this class."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True)

    data_dir: Path = Field(
        Path("data"), description="Directory of the embedded database, the local blobs and the first API key."
    )
    database_url: str = Field(
        "",
        description="`sqlite:///path` or `postgresql://user:password@host/name`; a Unix socket's directory goes "
        "into `?host=/dir`; libpq's usual keys are known ([how to](../how-to/postgres-and-s3.md#the-url)). "
        "Default: `memstore.db` in the data directory.",
    )
    blob_url: str = Field(
        "",
        description="Where contents live: `file:///dir`, `s3://bucket/prefix`, or another URL that fsspec knows. "
        "Default: `blobs` in the data directory.",
    )
    s3_endpoint_url: str | None = Field(
        None,
        description="An S3-speaking server other than AWS, such as `http://127.0.0.1:7480`. Credentials and region "
        "come from the usual AWS variables.",
    )
    bootstrap_api_key: SecretStr | None = Field(
        None, description="If set, this secret is accepted as an API key of the workspace `default`."
    )
    max_memories_per_store: Annotated[int, Field(ge=1, le=_MOST)] = Field(
        10_000, description="Memories one store may hold."
    )
    max_store_bytes: Annotated[int, Field(ge=1, le=_MOST)] = Field(
        104_857_600, description="Bytes of UTF-8 that the current contents of one store may hold together."
    )
    max_stores: Annotated[int, Field(ge=0, le=_MOST)] = Field(
        0, description="Memory stores one workspace may hold; 0 is no limit."
    )
    version_retention_days: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        30, description="Versions older than this many days are removed by the sweeper."
    )
    keep_recent_versions: Annotated[int, Field(ge=1, le=_MOST)] = Field(
        10,
        description="The newest versions of a live memory that are kept whatever their age; its head always is.",
    )
    strict_beta: bool = Field(
        False,
        description="Refuse what the vendor refuses about request headers: a missing, doubled or unknown "
        "`anthropic-beta`, a missing `anthropic-version`. Off: all of these are accepted.",
    )
    max_body_bytes: Annotated[int, Field(ge=65_536)] = Field(
        1_048_576, description="Larger request bodies are refused with 413 before they are read."
    )
    max_import_bytes: Annotated[int, Field(ge=65_536)] = Field(
        536_870_912, description="Larger archives sent to the import route are refused with 413."
    )
    max_import_versions: Annotated[int, Field(ge=1, le=_MOST)] = Field(
        100_000, description="Versions that an import with its history may bring."
    )
    cache_bytes: Annotated[int, Field(ge=0)] = Field(
        67_108_864, description="Memory for recently used contents, per process."
    )
    sweep_interval_seconds: Annotated[float, Field(gt=0)] = Field(
        3600.0,
        description="Pause between two passes of the sweeper (retention, deleted stores, orphaned blobs).",
    )
    orphan_grace_seconds: Annotated[float, Field(ge=0)] = Field(
        3600.0, description="A blob that no version refers to is removed when it is older than this."
    )
    database_pool_size: Annotated[int, Field(ge=1, le=200)] = Field(
        20,
        description="PostgreSQL connections per process, made as needed. Commits that wait together share a flush.",
    )
    database_wait_seconds: Annotated[float, Field(ge=0, le=3600)] = Field(
        60.0,
        description="How long `memstore serve` waits at its start for a PostgreSQL that does not answer, starts up, "
        "is full or read-only. What waiting can't change, such as a wrong password, ends it at once.",
    )

    rate_limit_requests_per_minute: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        0,
        description="Requests one API key or session token may send in a minute, at once or spread; what is beyond is "
        "refused with 429. Each process counts for itself. 0 is no limit.",
    )
    rate_limit_written_bytes_per_minute: Annotated[int, Field(ge=0, le=_MOST)] = Field(
        0,
        description="Bytes of request bodies one API key or session token may send in a minute, counted likewise. "
        "0 is no limit.",
    )
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (),
        description="Networks of proxies, such as `10.0.0.0/8, ::1`. What they say in `X-Forwarded-For`, `-Proto`, "
        "`-Host` and `-Prefix` is believed; from others it is ignored.",
    )
    root_path: str = Field(
        "",
        description="The path under which a proxy shows the service, such as `/memstore`, if the proxy does not say it "
        "in `X-Forwarded-Prefix`.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins whose pages may call the API from a browser, such as `https://app.example.com`, separated "
        "by commas; `*` is every one. Cookies play no part: each call needs its key.",
    )
    gzip_min_bytes: Annotated[int, Field(ge=0)] = Field(
        4_096,
        description="Answers of the API from this size on are compressed for clients that take gzip. 0 is never.",
    )
    operations_host: str = Field("127.0.0.1", description="Address of the operators' port.")
    operations_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        0,
        description="A port for `/healthz`, `/readyz` and `/metrics` alone. `/metrics` is then there and nowhere else. "
        "0 is none: all three are on the port of the API.",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="What `memstore serve` prints: readable lines, or one JSON object per line."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="The least important lines that are printed. `debug` adds the texts of unexpected errors, which "
        "may hold paths and contents; every other level keeps them out.",
    )
    log_requests: Literal["failed", "all"] = Field(
        "failed", description="The answers that get a line in the log: those with a status of 500 and above, or all."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, values: dict[str, object]) -> dict[str, object]:
        directory = Path(str(values.get("data_dir") or "data")).absolute()
        values["data_dir"] = directory
        if not values.get("database_url"):
            values["database_url"] = f"sqlite:///{directory / 'memstore.db'}"
        if not values.get("blob_url"):
            values["blob_url"] = f"file://{directory / 'blobs'}"
        return values

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, url: str) -> str:
        if postgres_url.is_postgres(url):
            files = dict(postgres_url.parse(url).tls)
            for key in _FILES_OF_TLS:
                if os.path.exists(files.get(key, "")):
                    _require_file(key, files[key])
            return url
        try:
            parsed = make_url(url)
        except ArgumentError:
            parsed = None
        if parsed is None or parsed.drivername != "sqlite":
            raise ValueError(f"must be sqlite:///path/to/file or {postgres_url.EXAMPLE}")
        if parsed.drivername == "sqlite" and not parsed.database:
            raise ValueError("must name a file, such as sqlite:///data/memstore.db; memory is not kept")
        return url

    @field_validator("blob_url")
    @classmethod
    def _check_blob_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if not parts.scheme:
            raise ValueError("must be a URL, such as file:///var/lib/memstore/blobs or s3://bucket/prefix")
        if parts.scheme not in available_protocols():
            raise ValueError(f"has the scheme {parts.scheme!r}, which fsspec does not know; use file:// or s3://")
        if parts.scheme == "file" and (parts.netloc or not parts.path.startswith("/")):
            raise ValueError("must hold an absolute path after file://, such as file:///var/lib/memstore/blobs")
        if parts.scheme == "s3" and not parts.netloc:
            raise ValueError("must name a bucket, such as s3://bucket/prefix")
        return url

    @field_validator("s3_endpoint_url")
    @classmethod
    def _check_endpoint(cls, url: str | None) -> str | None:
        if not url:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http or https URL, such as http://127.0.0.1:7480")
        return url

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _check_networks(cls, networks: list[str] | tuple[str, ...]) -> list[IPv4Network | IPv6Network]:
        try:
            return [ip_network(network) for network in networks]
        except ValueError as error:
            raise ValueError(f"{error}; must be addresses or networks, such as 10.0.0.0/8, ::1") from None

    @field_validator("trusted_proxies", "cors_origins", mode="before")
    @classmethod
    def _split(cls, listed: object) -> object:
        return [part for part in re.split(r"[,\s]+", listed) if part] if isinstance(listed, str) else listed

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and (not _ORIGIN.fullmatch(origin) or _DEFAULT_PORT.fullmatch(origin)):
                raise ValueError(
                    "must be * or origins as browsers send them, in lower case, without a path and without a default "
                    "port, such as https://app.example.com"
                )
        if "*" in origins and len(origins) > 1:
            raise ValueError("must be * alone, or a list of origins without it")
        return origins

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, path: str) -> str:
        if not ROOT_PATH.fullmatch(path.removesuffix("/")):
            raise ValueError("must be a path of letters, digits, dots, hyphens and underscores, such as /memstore")
        return path.removesuffix("/")

    @field_validator("bootstrap_api_key")
    @classmethod
    def _check_bootstrap_key(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and not secret.get_secret_value():
            return None
        return secret

    @property
    def is_embedded(self) -> bool:
        """True on SQLite: one machine, migrated and given a first key by `serve` itself."""
        return self.database_url.startswith("sqlite")


_ENV_FILE = Path(".env")
_SETTINGS_BYTES = 1_048_576
"""Of a file that holds settings, or one of them."""
_FILES_OF_TLS = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
"""Keys of a database URL that name files."""


class BadSettings(Exception):
    """A setting has a wrong value; the text says which and what would be right."""


def load() -> Settings:
    """The settings of this process.

    Raises:
        BadSettings: some value can't be used.

    """
    _check_files()
    try:
        directory = os.environ.get(_CREDENTIALS)
        if directory and os.path.isdir(directory):
            return Settings(_secrets_dir=directory)
        return Settings()
    except SettingsError as error:
        raise BadSettings(f"{error} ({_CREDENTIALS} is {directory!r}): {error.__cause__}") from error
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = PREFIX + "_".join(str(part) for part in problem["loc"]).upper()
            message = problem["msg"].removeprefix("Value error, ")
            # A URL or a secret may hold a password, which has no place in a log.
            shown = "" if name in _CONFIDENTIAL else f" (it is {problem['input']!r})"
            lines.append(f"{name}: {message}{shown}")
        raise BadSettings("\n".join(lines)) from None


def _check_files() -> None:
    """Look at the files that settings are read from, because the libraries that read them trust them."""
    if _ENV_FILE.is_file() or _ENV_FILE.is_fifo():  # In many projects a directory has this name.
        _check_file(_ENV_FILE)
    if directory := os.environ.get(_CREDENTIALS):
        names = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for name in [entry.name for entry in entries if entry.name.upper() in names]:
                _check_file(Path(directory, name))


def _check_file(path: Path) -> None:
    try:
        regular_files.read(path, _SETTINGS_BYTES).decode()
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadSettings(f"settings can't be read: {error}") from error
    except UnicodeDecodeError as error:
        raise BadSettings(f"settings can't be read: {path} is not UTF-8 at byte {error.start}") from error


def storage_options(settings: Settings) -> StorageOptions:
    """The part of the settings that the storage is made from."""
    return StorageOptions(
        database_url=settings.database_url,
        blob_url=settings.blob_url,
        s3_endpoint_url=settings.s3_endpoint_url,
        cache_bytes=settings.cache_bytes,
        pool_size=settings.database_pool_size,
        retention_days=settings.version_retention_days,
        keep_recent_versions=settings.keep_recent_versions,
        sweep_interval_seconds=settings.sweep_interval_seconds,
        orphan_grace_seconds=settings.orphan_grace_seconds,
    )
