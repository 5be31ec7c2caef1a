"""`scripts/forget_me.py` as a person runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import anthropic
import pytest

from tests.erasure.planting import new_marker, places_with
from tests.support.servers import Server

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "forget_me.py"


def run(own: Server, *arguments: str) -> "subprocess.CompletedProcess[str]":
    around = {name: value for name, value in os.environ.items() if not name.startswith(("MEMSTORE_", "AWS_"))}
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        env={**around, "AWS_EC2_METADATA_DISABLED": "true", **own.environment},
        cwd=own.environment["MEMSTORE_DATA_DIR"], capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.any_backend
def test_two_commands_forget_a_user_and_prove_it(own: Server, sdk: anthropic.Anthropic, tmp_path: Path) -> None:
    marker, report = new_marker(), tmp_path / "erased.json"
    store = sdk.beta.memory_stores.create(name="Anna", metadata={"user": "u_123"})
    sdk.beta.memory_stores.memories.create(store.id, path="/notes.md", content=marker)
    looked = run(own, "--where", "user=u_123")
    assert looked.returncode == 0, looked.stderr
    assert store.id in looked.stdout
    assert "Nothing has changed" in looked.stdout
    assert places_with(own, marker)

    done = run(own, "--where", "user=u_123", "--yes", "--report", str(report))
    assert done.returncode == 0, done.stderr
    assert json.loads(report.read_text())["counts"]["stores"] == 1
    assert places_with(own, marker) == []
    proved = run(own, "verify", str(report))
    assert proved.returncode == 0, proved.stderr
    assert "Nothing is left of 1 store" in proved.stdout
    report.write_text(report.read_text().replace('"stores": 1', '"stores": 2'))
    changed = run(own, "verify", str(report))
    assert changed.returncode == 1
    assert "the signature does not match" in changed.stdout


def test_a_report_appears_when_it_is_whole_and_is_for_its_owner(
    own: Server, sdk: anthropic.Anthropic, tmp_path: Path
) -> None:
    sdk.beta.memory_stores.create(name="Anna", metadata={"user": "u_123"})
    place = tmp_path / "reports"
    refused = own.cli("forget", "--where", "user=u_123", "--yes", "--report", str(place / "r.json"), check=False)
    assert refused.returncode != 0
    assert "can't be written" in refused.stderr
    place.mkdir()
    assert own.cli(
        "forget", "--where", "user=nobody", "--yes", "--report", str(place / "r.json"), check=False
    ).returncode
    assert list(place.iterdir()) == [], "a refusal leaves nothing behind"
    own.cli("forget", "--where", "user=u_123", "--yes", "--report", str(place / "r.json"))
    (file,) = place.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())["counts"]["stores"] == 1
