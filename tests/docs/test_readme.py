"""What the README and the quickstart tell a reader to type is typed here."""

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import anthropic
import pytest

from tests.docs.blocks import (
    PROJECT,
    PYTHON,
    READERS_URL,
    SHELL,
    SHOWN_ONLY,
    Block,
    blocks,
    make_readers_directory,
    reader_environment,
    run_as_reader,
)
from tests.support.backends import POSTGRES_S3, Backend, Services
from tests.support.processes import Daemon, answers, free_port
from tests.support.servers import Server, serve

pytestmark = pytest.mark.any_backend

PAGES = ["README.md", "docs/quickstart.md"]
MAKE_RUN, MAKE_TEST = "make run\n", "make test\n"
MAKE_SECONDS = 60

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def server_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.starts_a_server]


def scale_out_block() -> Block:
    (found,) = [block for block in server_blocks() if block.text not in (MAKE_RUN, MAKE_TEST)]
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_block_that_a_reader_runs_is_run_here(page: str) -> None:
    languages = {block.language for block in blocks(page)}
    assert languages <= {SHELL, PYTHON, *SHOWN_ONLY}
    alone = {block.text for block in blocks(page) if block.starts_a_server}
    # Each of these has a test of its own below; all others run in `test_a_page_does_what_it_says`.
    assert alone <= {MAKE_RUN, MAKE_TEST, scale_out_block().text}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_what_it_says(page: str, server: Server, tmp_path: Path) -> None:
    directory = make_readers_directory(tmp_path / "checkout", server.api_key)
    with server.client() as client:
        store = client.beta.memory_stores.create(name="Team notes")
        somebody = client.beta.memory_stores.create(name="Of a person", metadata={"user": "u_123"})
        client.beta.memory_stores.memories.create(somebody.id, path="/address.md", content="At home.")
        memory = client.beta.memory_stores.memories.create(store.id, path="/first.md", content="One.")
        client.beta.memory_stores.memories.update(memory.id, memory_store_id=store.id, content="Two.")
    places = {f"MEMSTORE_{place}_DIR": str(tmp_path / place.lower()) for place in ("RUN", "STATE", "CACHE")}
    found = [block for block in blocks(page) if not block.starts_a_server]
    for language in (SHELL, PYTHON):
        if mine := [block for block in found if block.language == language]:
            replace = {READERS_URL: server.base_url}
            run_as_reader(mine, language, directory, server.environment | places | {"STORE": store.id}, replace)
    if page == "README.md":
        with server.client() as client, pytest.raises(anthropic.NotFoundError):
            client.beta.memory_stores.retrieve(somebody.id)


@needs_make
def test_make_run_and_make_test_do_what_the_readme_says() -> None:
    def recipe(target: str) -> str:
        command = ["make", "--dry-run", "--no-print-directory", target]
        return subprocess.run(
            command, cwd=PROJECT, capture_output=True, text=True, timeout=MAKE_SECONDS, check=True
        ).stdout

    assert re.search(r"memstore serve\b", recipe("run"))
    assert re.search(r"\bpytest\b", recipe("test"))


def test_the_first_start_makes_a_key_and_prints_a_program_that_works(tmp_path: Path) -> None:
    directory = make_readers_directory(tmp_path / "checkout")
    port = free_port()
    daemon = Daemon(
        "first start",
        [Path(sys.executable).with_name("memstore"), "serve", "--port", str(port)],
        log=tmp_path / "first-start.log",
        ready=lambda: answers(port, "/readyz"),
        environment=reader_environment({}),
        directory=directory,
    )
    daemon.start()
    try:
        key_file = directory / "data" / "api_key"
        # The greeting comes before the first answer.
        printed = daemon.log.read_text(encoding="utf-8")
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
        assert key_file.read_text(encoding="utf-8").strip() not in printed, "standard output may be a log"
        assert "in data/api_key" in printed
        assert f"http://127.0.0.1:{port}" in printed
        program = printed_program(printed)
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=directory,
            env=reader_environment({}),
            capture_output=True,
            text=True,
            timeout=MAKE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, program + done.stderr
        assert len(program.splitlines()) == 6
    finally:
        daemon.stop()


def printed_program(printed: str) -> str:
    """The lines from the first import to the blank line after them, without their indentation."""
    lines = printed.splitlines()
    first = next(number for number, line in enumerate(lines) if re.match(r"\s*(from|import) ", line))
    indentation = len(lines[first]) - len(lines[first].lstrip())
    program = []
    for line in lines[first:]:
        if not line.strip():
            break
        program.append(line[indentation:])
    return "\n".join(program)


def test_two_settings_lead_to_postgresql_and_s3(services: Services, tmp_path: Path) -> None:
    block = scale_out_block()
    exported = re.findall(r"^export (\w+)=", block.text, re.MULTILINE)
    assert exported == ["MEMSTORE_DATABASE_URL", "MEMSTORE_BLOB_URL"]
    migrate, serving = [line for line in block.text.splitlines() if not line.startswith("export ")]
    assert migrate == ".venv/bin/memstore migrate"
    assert serving == ".venv/bin/memstore serve --host 0.0.0.0 --port 8080 --workers 4"
    environment = Backend(POSTGRES_S3, services).environment(tmp_path)
    assert set(exported) <= set(environment)
    directory = make_readers_directory(tmp_path / "checkout")
    run_as_reader([Block(block.page, block.line, SHELL, migrate)], SHELL, directory, environment)
    with serve(environment, workers=4) as server, server.client(max_retries=0) as client:
        store = client.beta.memory_stores.create(name="On PostgreSQL and S3")
        memory = client.beta.memory_stores.memories.create(store.id, path="/a.md", content="text")
        read = client.beta.memory_stores.memories.retrieve(memory.id, memory_store_id=store.id)
        assert read.content == "text"
