"""`memstore serve`: checks, first start, and uvicorn."""

import asyncio
import contextlib
import os
import signal
import tempfile
from typing import Annotated

import typer
import uvicorn
from uvicorn.supervisors import Multiprocess

from app.cli.operator import actor
from app.cli.running import blamed_on, migrate_embedded
from app.cli.unknown_settings import warn_of_unknown_settings
from app.keys.service import DEFAULT_WORKSPACE, Keys
from app.server import logs, tracing
from app.settings import Settings, load
from app.storage.contents.blobs import open_blob_store
from app.storage.rows import migrations
from app.storage.storage import make_database

_SHUTDOWN_SECONDS = 15
_KEEP_ALIVE_SECONDS = 75
"""Longer than balancers keep an idle connection (60 s is usual): who ends it first must not be the server."""

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


def _own_key(settings: Settings) -> str:
    """The secret of the first key of an embedded service: from its file, or made and kept there."""
    path = settings.data_dir / "api_key"
    path.parent.mkdir(parents=True, exist_ok=True)
    secret = path.read_text().strip() if path.exists() else None

    async def ensure() -> str:
        database = make_database(settings.database_url, 1)
        await database.open()
        try:
            key = await Keys(database).create(DEFAULT_WORKSPACE, "first start", actor=actor(), secret=secret)
        finally:
            await database.close()
        return key.secret

    made = asyncio.run(ensure())
    if secret is None:
        # Written beside and moved, so that a crash can't leave half a key.
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix="api_key.")
        with os.fdopen(descriptor, "w") as file:
            file.write(made + "\n")
        os.replace(temporary, path)
    return made


def _check_schema(settings: Settings) -> None:
    async def check() -> None:
        database = make_database(settings.database_url, 1)
        await database.open()
        try:
            await migrations.require_current(database)
        finally:
            await database.close()

    asyncio.run(check())


def _greeting(url: str, settings: Settings) -> str:
    """What a person needs to begin: the URL, the key or where to get one, and six lines of Python."""
    imports, key = "from anthropic import Anthropic", "make one with: memstore keys create --workspace default"
    expression = '"<its secret>"'
    if settings.bootstrap_api_key is not None:
        imports = f"import os; {imports}"
        key = "the secret in MEMSTORE_BOOTSTRAP_API_KEY"
        expression = 'os.environ["MEMSTORE_BOOTSTRAP_API_KEY"]'
    elif settings.is_embedded:
        key = _own_key(settings)
        expression = f'"{key}"'
    return _GREETING.format(url=url, key=key, imports=imports, expression=expression)


def _run(config: uvicorn.Config) -> None:
    """Bind, so that a port that is taken is said before anything else, and serve until a signal."""
    with config.bind_socket() as listener:
        host, port = listener.getsockname()[:2]
        shown_host = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
        url, settings = f"http://{shown_host}:{port}", load()
        if settings.log_format == "text":
            typer.echo(_greeting(url, settings))
        elif settings.is_embedded and settings.bootstrap_api_key is None:
            _own_key(settings)  # A log is no place for its secret; it is in its file.
        if config.workers > 1:
            Multiprocess(config, sockets=[listener]).run()
            return
        # uvicorn drains on a signal and then raises it again; having drained, the process ends well.
        signal.signal(signal.SIGTERM, lambda *_: None)
        server = uvicorn.Server(config)
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
        if not server.started:
            raise typer.Exit(3)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")] = 8080,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that serve.")] = 1,
) -> None:
    """Serve the API. The embedded database is migrated first; another one by 'memstore migrate'."""
    warn_of_unknown_settings()
    settings = load()
    tracing.wanted()  # What is missing for it is said now.
    if settings.is_embedded:
        with blamed_on("MEMSTORE_DATA_DIR", settings.data_dir):
            settings.data_dir.mkdir(parents=True, exist_ok=True)
        migrate_embedded(settings)
    else:
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
        loop="uvloop",
        http="httptools",
        server_header=False,
        proxy_headers=False,  # Nothing here depends on the client's address.
        access_log=False,
        log_config=logs.configuration(settings),
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    if workers == 1:
        _run(config)
        return
    with tempfile.TemporaryDirectory(prefix="memstore-metrics-") as directory:
        # The workers' metrics meet in the files of this directory.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        _run(config)
