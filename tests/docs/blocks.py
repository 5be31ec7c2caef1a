"""The fenced blocks of the documentation's pages, and where they are run as a reader would run them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGE_SECONDS = 120.0
READERS_URL = "http://127.0.0.1:8080"
"""Where the pages say the server is."""

SHELL, PYTHON = "sh", "python"
SHOWN_ONLY = {"text", "json", "yaml", "caddyfile"}
"""Languages of blocks that are there to be read."""

_FENCED = re.compile(r"^```(?P<language>\S*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its page, its first line there, its language, its text."""

    page: str
    line: int
    language: str
    text: str

    @property
    def starts_a_server(self) -> bool:
        """Whether it runs until somebody stops it, or runs all the tests: not to be run with its page."""
        lines = self.text.splitlines() if self.language == SHELL else []
        return any(line.startswith("make ") or "memstore serve" in line for line in lines)


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, by its path from the project's root."""
    text = (PROJECT / page).read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start("text")) + 1, found["language"], found["text"])
        for found in _FENCED.finditer(text)
    ]


def reader_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a reader who has these settings and none else."""
    ours = ("MEMSTORE_", "AWS_", "ANTHROPIC_")
    around = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**around, "AWS_EC2_METADATA_DISABLED": "true", **settings}


def make_readers_directory(directory: Path, api_key: str | None = None) -> Path:
    """A checkout as the reader sees it: `.venv`, and the key where the first start keeps it."""
    directory.mkdir(exist_ok=True)
    (directory / ".venv").symlink_to(sys.prefix)
    if api_key is not None:
        (directory / "data").mkdir()
        (directory / "data" / "api_key").write_text(api_key + "\n", encoding="utf-8")
    return directory


def run_as_reader(
    found: Iterable[Block],
    language: str,
    directory: Path,
    settings: Mapping[str, str],
    replace: Mapping[str, str] | None = None,
) -> str:
    """Run all blocks of one language as one script; what it printed. Fails with its output if it fails."""
    chosen = [block for block in found if block.language == language]
    script = "\n".join(block.text for block in chosen)
    for text, by in (replace or {}).items():
        assert text in script, f"the page does not say {text!r} any more"
        script = script.replace(text, by)
    command = ["sh", "-eu", "-c", script] if language == SHELL else [sys.executable, "-c", script]
    done = subprocess.run(
        command,
        cwd=directory,
        env=reader_environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PAGE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n--- printed:\n{done.stdout}{done.stderr}"
    return done.stdout
