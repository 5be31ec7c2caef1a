"""After Ctrl-C a command that takes long says what has become of its work."""

from typing import NoReturn

import pytest

from app.backup.restoring import Restore
from app.backup.writing import Backup
from app.storage.upkeep.fsck import Fsck
from app.transfer.importing import Imports
from app.transfer.pulling import Pull
from tests.commands.conftest import Commands

INTERRUPTED = 130


async def interrupted(*arguments: object, **options: object) -> NoReturn:
    raise KeyboardInterrupt


def interrupted_at_once(*arguments: object, **options: object) -> NoReturn:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("line", "kind", "method", "said"),
    [
        ("backup --output b.tar", Backup, "write", "nothing is left at b.tar"),
        ("restore-backup in/a.md --yes", Restore, "read", "run the same again: it begins again"),
        ("fsck", Fsck, "run", "nothing was changed"),
        ("fsck --repair", Fsck, "run", "what was repaired stays so"),
        ("import in", Imports, "run", "an import is all or nothing"),
        ("pull memstore_011ChEkFsdfn5FHnFG2aJ7nz --from http://127.0.0.1:9", Pull, "read", "it goes on where it was"),
    ],
)
def test_a_command_says_what_has_become_of_its_work(
    line: str, kind: type, method: str, said: str, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    (commands.directory / "in").mkdir(exist_ok=True)
    (commands.directory / "in" / "a.md").write_text("a")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "of the other server")
    monkeypatch.setattr(kind, method, interrupted_at_once if kind is Pull else interrupted)
    done = commands.run(line)
    assert (done.status, done.out) == (INTERRUPTED, "")
    assert "memstore: interrupted; " in done.err
    assert said in done.err
    assert not (commands.directory / "b.tar").exists()
