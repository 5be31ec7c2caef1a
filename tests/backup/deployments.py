"""Large deployments, filled behind the service's back, and commands on them as processes of their own."""

import hashlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from app.storage.rows import migrations
from tests.storage.parts import options
from tests.support.postgres import execute

ROOT = Path(__file__).parents[2]
STORE = "memstore_" + "0" * 24


def command(environment: Mapping[str, str], *arguments: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
    """A command on a deployment; its last line on standard error is its peak memory in bytes."""
    around = {name: value for name, value in os.environ.items() if not name.startswith(("MEMSTORE_", "AWS_"))}
    return subprocess.run(
        [sys.executable, "-m", "tests.backup.measured_command", *arguments],
        cwd=ROOT,
        env={**around, "AWS_EC2_METADATA_DISABLED": "true", **environment},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def peak_of(done: subprocess.CompletedProcess[str]) -> int:
    """The peak memory, in bytes, of a command that ended well."""
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1])


def migrated(environment: Mapping[str, str]) -> Mapping[str, str]:
    """The same environment, its database with the schema."""
    migrations.upgrade(options(environment).database_url)
    return environment


def filled(
    environment: Mapping[str, str],
    count: int,
    contents: int,
    *,
    content_bytes: int = 6,
    agents: int = 0,
    agent_bytes: int = 400_000,
) -> Mapping[str, str]:
    """A deployment with `count` memories of one store, which have `contents` contents, all staged; and agents."""
    _execute(migrated(environment), _statements(count, contents, content_bytes, agents, agent_bytes))
    return environment


def _statements(count: int, contents: int, content_bytes: int, agents: int, agent_bytes: int) -> list[str]:
    """The same for both databases."""
    text = f"lpad(CAST(i % {contents} AS text), {content_bytes}, '0')"
    content = f"convert_to({text}, 'UTF8')"
    number = "lpad(CAST(i AS text), 24, '0')"

    def numbers(last: int) -> str:
        return f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {last}) SELECT"

    statements = [
        "INSERT INTO workspaces (id, name, created_at, store_count) VALUES ('wrkspc_1', 'one', 0, 1)",
        "INSERT INTO memory_stores (id, workspace_id, name, description, metadata, created_at, updated_at, last_seq, "
        f"memory_count, total_bytes) VALUES ('{STORE}', 'wrkspc_1', 'many', '', '{{}}', 0, 0, {count}, {count}, "
        f"{count * content_bytes})",
        "INSERT INTO memories (id, version_id, store_id, path, content_sha256, content_size, created_at, updated_at) "
        f"{numbers(count)} 'mem_' || {number}, 'memver_' || {number}, '{STORE}', '/' || {number} || '.md', "
        f"sha256({content}), {content_bytes}, 0, 0 FROM n",
        "INSERT INTO memory_versions (id, memory_id, store_id, path, content_sha256, content_size, seq, operation, "
        f"created_at) {numbers(count)} 'memver_' || {number}, 'mem_' || {number}, '{STORE}', '/' || {number} || '.md', "
        f"sha256({content}), {content_bytes}, i, 1, 0 FROM n",
        "INSERT INTO staged_contents (version_id, store_id, content_sha256, content, staged_at) "
        f"{numbers(contents)} 'memver_' || {number}, '{STORE}', sha256({content}), {content}, 0 FROM n",
    ]
    if agents:
        statements += [
            "INSERT INTO agents (id, workspace_id, version, created_at, updated_at) "
            f"{numbers(agents)} 'agent_' || {number}, 'wrkspc_1', 1, 0, 0 FROM n",
            "INSERT INTO agent_versions (agent_id, version, definition, created_at) "
            f"{numbers(agents)} 'agent_' || {number}, 1, '{{\"system\":\"' || lpad('', {agent_bytes}, 'x') || '\"}}', "
            "0 FROM n",
        ]
    return statements


def _execute(environment: Mapping[str, str], statements: list[str]) -> None:
    if url := environment.get("MEMSTORE_DATABASE_URL"):
        execute(url, "; ".join(statements))
        return
    with closing(sqlite3.connect(Path(environment["MEMSTORE_DATA_DIR"]) / "memstore.db")) as database, database:
        database.create_function("lpad", 3, lambda text, width, fill: text.rjust(width, fill), deterministic=True)
        database.create_function("convert_to", 2, lambda text, encoding: text.encode(), deterministic=True)
        database.create_function("sha256", 1, lambda data: hashlib.sha256(data).digest(), deterministic=True)
        for statement in statements:
            database.execute(statement)
