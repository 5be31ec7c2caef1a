"""`make demo`: the whole story on real files, and a clear failure when something is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import PROJECT, reader_environment
from tests.support.servers import Server

DEMO_SECONDS = 240.0
LAST_LINE = "Everything was as it should be."


def run_demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.demo", *arguments],
        cwd=PROJECT,
        env=reader_environment(environment),
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
        check=False,
    )


def test_the_demo_imports_the_projects_own_documentation_into_a_server_of_its_own() -> None:
    done = run_demo()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == LAST_LINE
    assert "A server of its own" in done.stdout


@pytest.mark.any_backend
def test_the_demo_tells_its_story_to_a_running_server(server: Server, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    (notes / "deep").mkdir(parents=True)
    for number in range(30):
        (notes / "deep" / f"{number:02}.md").write_text(f"# Note {number}\n", encoding="utf-8")
    (notes / "first.md").write_text("no newline at the end, and ümläuts", encoding="utf-8")
    (notes / "empty.md").write_text("", encoding="utf-8")
    done = run_demo(str(notes), "--base-url", server.base_url, ANTHROPIC_API_KEY=server.api_key)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "32/32" in done.stdout
    with server.client(max_retries=0) as client:
        left_behind = [store.id for store in client.beta.memory_stores.list() if store.name == "Demo"]
    assert left_behind == []


@pytest.mark.any_backend
def test_the_demo_fails_when_the_server_refuses(server: Server) -> None:
    done = run_demo("--base-url", server.base_url, "--api-key", "wrong")
    assert done.returncode == 1
    assert "The demo failed:" in done.stdout
    assert LAST_LINE not in done.stdout


def test_the_demo_fails_when_its_time_is_up() -> None:
    done = run_demo("--timeout", "0.01")
    assert done.returncode == 1
    assert "longer than it may" in done.stdout
