"""`memstore serve`: checks, first start, and uvicorn."""

import asyncio
import os
import tempfile
from typing import Annotated

import typer
import uvicorn

from app.keys.service import DEFAULT_WORKSPACE, Keys
from app.settings import BadSettings, Settings, load
from app.storage import migrations
from app.storage.storage import make_database

_SHUTDOWN_SECONDS = 15

_GREETING = """
Memstore serves at {url}
  API key    {key}
  reference  {url}/docs

  from anthropic import Anthropic
  client = Anthropic(base_url="{url}", api_key="{key}")
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
            key = await Keys(database).create(DEFAULT_WORKSPACE, "first start", secret=secret)
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


def _shown_key(settings: Settings) -> str:
    if settings.bootstrap_api_key is not None:
        return "(the one in MEMSTORE_BOOTSTRAP_API_KEY)"
    if settings.is_embedded:
        return _own_key(settings)
    return "(make one with: memstore keys create --workspace default)"


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on.")] = 8080,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that serve.")] = 1,
) -> None:
    """Serve the API. The embedded database is migrated first; another one by 'memstore migrate'."""
    settings = load()
    if settings.is_embedded:
        try:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadSettings(f"MEMSTORE_DATA_DIR: {settings.data_dir} can't be made: {error.strerror}") from None
        migrations.upgrade(settings.database_url)
    else:
        _check_schema(settings)
    shown_host = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
    typer.echo(_GREETING.format(url=f"http://{shown_host}:{port}", key=_shown_key(settings)))
    if workers > 1:
        # The workers' metrics meet in files of this directory.
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="memstore-metrics-"))
    uvicorn.run(
        "app.http.application:create_gateway",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        loop="uvloop",
        http="httptools",
        server_header=False,
        access_log=False,
        log_level="info",
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
