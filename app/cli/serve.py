"""`memstore serve`: checks, first start, and uvicorn."""

import asyncio
import contextlib
import logging.config
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from uvicorn.supervisors import Multiprocess

from app.cli import first_key, places, terminal
from app.cli.first_key import FirstKey, State
from app.cli.running import blamed_on, prepare
from app.cli.unknown_settings import warn_of_unknown_settings
from app.contract.errors import Unavailable
from app.server import logs, tracing
from app.server.protocol import BoundedProtocol
from app.settings import BadSettings, Settings, load
from app.storage.contents.blobs import open_blob_store
from app.storage.rows import migrations
from app.storage.rows.postgres_errors import DatabaseRefused
from app.storage.storage import make_database

_log = logging.getLogger(__name__)

_AGAIN_SECONDS = 0.5
_SHUTDOWN_SECONDS = 15
_WORKER_SECONDS = 60
"""Before a worker that says nothing is replaced. One that starts on a busy host takes longer than uvicorn's 5 s, and
its successors would as well: the service would never be up."""
_KEEP_ALIVE_SECONDS = 75
"""Longer than balancers keep an idle connection (60 s is usual): the server must not end it first."""

_GREETING = """
Memstore serves at {url}
  API key    {key}
  reference  {url}/docs

Paste into Python, where the official SDK is installed (pip install anthropic):

  {imports}
  client = Anthropic(base_url="{url}", api_key={expression})
  store = client.beta.memory_stores.create(name="Notes")
  client.beta.memory_stores.memories.create(store.id, path="/hello.md", content="Hello, memory!")
  for memory in client.beta.memory_stores.memories.list(store.id, view="full"):
      print(memory.path, memory.content)
"""


def _first_key(settings: Settings) -> FirstKey:
    async def ensure() -> FirstKey:
        database = make_database(settings.database_url, 1)
        await database.open()
        try:
            return await first_key.ensure(database, settings.data_dir)
        finally:
            await database.close()

    return asyncio.run(ensure())


def _check_schema(settings: Settings) -> None:
    """See that the schema is current and the database takes writes; one that starts or fails over is waited for."""

    async def check() -> None:
        database = make_database(settings.database_url, 1)
        try:
            await database.open()
            await migrations.require_current(database)
            await database.require_writable()
        finally:
            await database.close()

    until, waits = time.monotonic() + settings.database_wait_seconds, False
    while True:
        try:
            return asyncio.run(check())
        except DatabaseRefused:
            raise
        except Unavailable as error:
            if time.monotonic() >= until:
                raise
            if not waits:
                terminal.echo(f"memstore: {error}; waiting for up to {settings.database_wait_seconds:.0f} s", err=True)
            waits = True
            time.sleep(_AGAIN_SECONDS)


def _greeting(url: str, settings: Settings, first: FirstKey | None) -> str:
    """What a person needs to begin: the URL, where the key is or how to get one, and six lines of Python.

    A secret is shown to the person who has just made it, on a terminal, and never again: standard output may be a log.
    """
    make = "memstore keys create --workspace default"
    imports, key, expression = "from anthropic import Anthropic", f"make one with: {make}", '"<its secret>"'
    if settings.bootstrap_api_key is not None:
        imports = f"import os; {imports}"
        key = "the secret in MEMSTORE_BOOTSTRAP_API_KEY"
        expression = 'os.environ["MEMSTORE_BOOTSTRAP_API_KEY"]'
    elif first is not None and first.state is State.MADE and sys.stdout.isatty():
        key, expression = f"{first.secret} (kept in {_shown(first.file)})", f'"{first.secret}"'
    elif first is not None and first.state in (State.MADE, State.KEPT):
        imports = f"from pathlib import Path; {imports}"
        key = f"in {_shown(first.file)}"
        expression = f"Path({str(first.file)!r}).read_text().strip()"
    elif first is not None and first.state is State.REVOKED:
        key = f"the one in {_shown(first.file)} was revoked; make another one with: {make}"
    elif first is not None:
        key = f"those of 'memstore keys list'; make another one with: {make}"
    return _GREETING.format(url=url, key=key, imports=imports, expression=expression)


def _shown(file: Path) -> str:
    """A path as a person in this directory would type it."""
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def _check_host(host: str) -> None:
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError, TypeError) as error:
        why = getattr(error, "strerror", None) or "it is no name of a host"
        raise BadSettings(f"--host: {host!r} can't be listened on: {why}; name an address of this machine") from error


@contextlib.contextmanager
def _operators_socket(settings: Settings) -> Iterator[list[socket.socket]]:
    """The socket of the operators' port, if there is to be one."""
    if not settings.operations_port:
        yield []
        return
    place = settings.operations_host, settings.operations_port
    with blamed_on("MEMSTORE_OPERATIONS_PORT", "{}:{}".format(*place)):
        family = socket.AF_INET6 if ":" in settings.operations_host else socket.AF_INET
        listener = socket.create_server(place, family=family)
    listener.set_inheritable(True)
    with listener:
        yield [listener]


def _run(config: uvicorn.Config) -> None:
    """Bind, so that a port that is taken is said before anything else, and serve until a signal."""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(config.bind_socket())
        host, port = listener.getsockname()[:2]
        shown_host = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
        url, settings = f"http://{shown_host}:{port}", load()
        listeners = [listener, *opened.enter_context(_operators_socket(settings))]
        own_key = settings.is_embedded and settings.bootstrap_api_key is None
        first = _first_key(settings) if own_key else None
        listener.listen(config.backlog)  # What comes before the service accepts waits, since we say that it serves.
        if settings.log_format == "text":
            terminal.echo(_greeting(url, settings, first))
        if config.workers > 1:
            Multiprocess(config, sockets=listeners).run()
            return
        # uvicorn drains on a signal and then raises it again; having drained, the process ends well.
        signal.signal(signal.SIGTERM, lambda *_: None)
        server = uvicorn.Server(config)
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=listeners)
        if not server.started:
            raise typer.Exit(3)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")] = 8080,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that serve.")] = 1,
) -> None:
    """Serve the API. The embedded database is migrated first; another one by 'memstore migrate'."""
    _check_host(host)
    warn_of_unknown_settings()
    settings = load()
    logging.config.dictConfig(logs.configuration(settings))  # For what is said before uvicorn sets it.
    tracing.wanted()  # What is missing for it is said now.
    prepare(settings, may_make=True)
    for place in places.of(settings):
        if (whose := places.at_the_mercy_of(place.directory)) is not None:
            _log.warning("%s can be taken away by somebody else: %s", place.directory, whose)
    if not settings.is_embedded:
        _check_schema(settings)
    # Opened once here, so that a place that can't be used is said in one sentence, not by every worker.
    with blamed_on("MEMSTORE_BLOB_URL", settings.blob_url):
        open_blob_store(settings.blob_url, settings.s3_endpoint_url)
    config = uvicorn.Config(
        "app.server.application:create_gateway",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        loop="app.server.accepting:new_loop" if workers == 1 else "uvloop",
        http=BoundedProtocol,
        ws="none",
        server_header=False,
        proxy_headers=False,  # Nothing here depends on the client's address.
        access_log=False,
        log_config=logs.configuration(settings),
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        timeout_worker_healthcheck=_WORKER_SECONDS,
    )
    if workers == 1:
        _run(config)
        return
    with tempfile.TemporaryDirectory(prefix="memstore-metrics-") as directory:
        # The workers' metrics meet in the files of this directory.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        _run(config)
