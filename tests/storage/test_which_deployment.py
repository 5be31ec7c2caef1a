"""A command answers about the deployment that the settings name, and never about an empty one that it just made."""

import subprocess
from pathlib import Path

import pytest

from tests.support.forks import MEMSTORE

COMMANDS = [
    ("keys", "list"),
    ("keys", "create", "--workspace", "w"),
    ("sessions", "list"),
    ("log", "memstore_x"),
    ("export", "memstore_x", "--output", "out"),
    ("import", "."),
    ("forget", "--where", "user=u_123", "--yes"),
    ("hold", "memstore_x"),
    ("audit", "verify"),
    ("fsck",),
    ("sweep",),
    ("backup", "--output", "all.tar"),
]


def memstore(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(directory), **variables}
    return subprocess.run(
        [MEMSTORE, *arguments], env=environment, cwd=directory, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_where_no_deployment_is_says_so_and_makes_none(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "note.md").write_text("text")
    done = memstore(tmp_path, *command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"memstore: there is no deployment in {tmp_path}/data (MEMSTORE_DATA_DIR)")
    assert [file.name for file in tmp_path.iterdir()] == ["note.md"]


def test_the_setting_that_names_an_absent_database_is_the_one_blamed(tmp_path: Path) -> None:
    done = memstore(tmp_path, "keys", "list", MEMSTORE_DATABASE_URL=f"sqlite:///{tmp_path}/x/other.db")
    assert f"there is no deployment in {tmp_path}/x (MEMSTORE_DATABASE_URL): other.db is not there" in done.stderr


def test_migrate_makes_a_deployment_that_commands_then_find(tmp_path: Path) -> None:
    assert memstore(tmp_path, "migrate").returncode == 0
    assert memstore(tmp_path, "keys", "list").returncode == 0


def test_a_mistyped_setting_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MEMSTORE_LOGFORMAT=json\n")
    done = memstore(tmp_path, "keys", "list", MEMSTORE_DATA_DRI="/srv/data")
    assert "'MEMSTORE_DATA_DRI' is not a setting and has no effect; did you mean MEMSTORE_DATA_DIR?" in done.stderr
    assert "'MEMSTORE_LOGFORMAT' is not a setting and has no effect; did you mean MEMSTORE_LOG_FORMAT?" in done.stderr
