"""What `memstore unmount` and `status` tell, also of a daemon that was started before an upgrade."""

from pathlib import Path
from typing import Any

import pytest

from app.cli.mount import _lines_of, _print_unsaved

ENTRY: dict[str, Any] = {
    "path": "/mnt/notes", "memory_store_id": "memstore_1", "session_id": None, "mode": "fuse", "read_only": False,
    "connected": True, "feed": "live", "last_sync": None, "pending": [], "unshowable": [], "refused": [],
    "conflicts": [],
}  # fmt: skip


def test_what_an_older_daemon_could_not_save_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEMSTORE_STATE_DIR", str(tmp_path))
    _print_unsaved(
        {"unsaved": [{"path": "/mnt/notes/a.md", "memory_store_id": "memstore_1", "journal": "/state/journal"}]}
    )
    said = capsys.readouterr().err
    assert "not on the server yet" in said
    assert "/mnt/notes/a.md" in said
    assert "/state/journal" in said


def test_a_mount_that_wrote_nothing_yet_is_in_step_with_the_server() -> None:
    (line,) = [line for line in _lines_of({"pid": 1, "restarts": 0, "stores": [ENTRY], "roots": []}) if "feed" in line]
    assert line == "  connected, feed live"
    saved = {**ENTRY, "last_sync": "2026-11-28T00:00:00Z"}
    assert any(
        "last write saved 2026-11-28" in line
        for line in _lines_of({"pid": 1, "restarts": 0, "stores": [saved], "roots": []})
    )
