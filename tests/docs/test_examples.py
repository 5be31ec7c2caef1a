"""The example programs run, and print what they say."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.blocks import PROJECT, make_readers_directory, reader_environment
from tests.support.backends import SQLITE_DISK, Backend, Services
from tests.support.servers import Server, serve

EXAMPLES = PROJECT / "docs" / "examples"
PROGRAMS = sorted(file.name for file in EXAMPLES.glob("*.py"))
SECONDS = 120


@pytest.fixture(scope="module")
def environment(services: Services, server_of: Callable[[Backend], Server]) -> dict[str, str]:
    server = server_of(Backend(SQLITE_DISK, services))
    variables = {"ANTHROPIC_BASE_URL": server.base_url, "ANTHROPIC_API_KEY": server.api_key}
    return reader_environment(variables)


def test_the_list_of_examples_names_each() -> None:
    named = re.findall(r"^\| \[(\S+)\]", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(file.name for file in EXAMPLES.iterdir() if file.suffix in (".py", ".sh"))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_prints_what_it_says(program: str, environment: dict[str, str]) -> None:
    text = (EXAMPLES / program).read_text(encoding="utf-8")
    said = re.sub(r"^# ?", "", text.partition("\n# prints:\n")[2], flags=re.MULTILINE)
    done = subprocess.run(
        [sys.executable, EXAMPLES / program], env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert (done.stdout, done.returncode) == (said, 0), done.stderr
    assert said


def test_a_request_of_a_person_is_answered_by_the_script(tmp_path: Path) -> None:
    directory = make_readers_directory(tmp_path / "checkout")
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    with serve({"MEMSTORE_DATA_DIR": str(data)}) as server, server.client() as client:
        stores = client.beta.memory_stores
        store = stores.create(name="Notes", metadata={"user": "u_123"})
        stores.memories.create(store.id, path="/a.md", content="Likes tea.")
        done = subprocess.run(
            ["sh", "-eu", EXAMPLES / "request_of_a_person.sh", "user=u_123", "DSR-17"],
            cwd=directory, env={**os.environ, **server.environment}, capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "Nothing is left of 1 store, 1 memory, 1 version" in done.stdout
        assert done.stdout.split()[-4:] == ["copy.zip", "report.html", "report.json", "summary.txt"]
        assert list(stores.list()) == []
