"""Runs migrations on SQLite or PostgreSQL; the URL is that of the service's own settings."""

import asyncio
from dataclasses import replace

from alembic import context
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app import settings
from app.storage.rows import postgres_url
from app.storage.rows.postgres_connect import Connector
from app.storage.rows.tables import metadata

_LOCK = 7_205_759_403_792_794
"""Key of the advisory lock that keeps two replicas from migrating at once."""


def _run(connection: Connection) -> None:
    is_postgresql = connection.dialect.name == "postgresql"
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=not is_postgresql,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        if is_postgresql:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        context.run_migrations()


async def _run_on_postgresql(url: str) -> None:
    connect = Connector(replace(postgres_url.parse(url), prepared_statements="off"))
    # Statements have no names: a pooler would keep them on a server that others use.
    arguments = {
        "async_creator_fn": lambda **_: connect(),
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: "",
    }
    engine = create_async_engine("postgresql+asyncpg://", poolclass=NullPool, connect_args=arguments)
    async with engine.connect() as connection:
        await connection.run_sync(_run)
        await connection.commit()
    await engine.dispose()


def _run_on_sqlite(url: str) -> None:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        # DDL is transactional in SQLite only when the transaction is begun by hand.
        connection.connection.driver_connection.isolation_level = None
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        _run(connection)
        connection.commit()
    engine.dispose()


database_url = context.config.attributes.get("database_url") or settings.load().database_url
if database_url.startswith("sqlite"):
    _run_on_sqlite(database_url)
else:
    asyncio.run(_run_on_postgresql(database_url))
