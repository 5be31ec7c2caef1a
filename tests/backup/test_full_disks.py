"""A disk that fills up while a deployment goes out or comes in: one sentence, nothing half, and it works again."""

import os
import resource
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.backup.deployments import STORE, command, filled
from tests.faults.small_disks import SmallDisk, small_disk
from tests.transfer.archives import tar_of

MEMORIES, CONTENTS = 2_000, 600


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """A deployment of some megabytes on SQLite and a disk with room."""
    data = tmp_path_factory.mktemp("full") / "data"
    data.mkdir(mode=0o700)
    return filled({"MEMSTORE_DATA_DIR": str(data)}, MEMORIES, CONTENTS, content_bytes=4_000)


@pytest.fixture(scope="module")
def backup(deployment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of it."""
    file = tmp_path_factory.mktemp("backup") / "b.tar"
    assert command(deployment, "backup", "--output", str(file)).returncode == 0
    return file


def nearly_full(disk: SmallDisk) -> dict[str, str]:
    """Leave room for one page; the variables of a command that has its temporary files there.

    Python leaves a directory alone in which not even that can be written.
    """
    disk.fill()
    filler = next(disk.directory.glob("filler"))
    os.truncate(filler, filler.stat().st_size - 2 * resource.getpagesize())
    return {"TMPDIR": str(disk.directory)}


def refused(done: subprocess.CompletedProcess[str], why: str) -> None:
    """The command said in one sentence that a disk is full, and ended with status 2."""
    assert done.returncode == 2, done.stderr
    told = [line for line in done.stderr.splitlines() if line and not line.startswith("memstore: deployment ")][:-1]
    assert len(told) == 1, done.stderr
    assert told[0].startswith("memstore: ")
    assert why in told[0]
    assert done.stdout == ""


@pytest.mark.parametrize("size", ["64k", "5m"])
def test_a_backup_that_finds_its_disk_full_says_so_and_leaves_nothing(deployment: Mapping[str, str], size: str) -> None:
    with small_disk(size) as disk:
        target = disk.directory / "b.tar"
        refused(command(deployment, "backup", "--output", str(target)), f"the disk of '{target}' is full; nothing")
        assert list(disk.directory.iterdir()) == []


def test_a_backup_and_a_restore_take_no_room_but_beside_their_file(
    deployment: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "backups").mkdir()
    target = tmp_path / "backups/b.tar"
    with small_disk("64k") as tiny:
        full = nearly_full(tiny)
        done = command({**deployment, **full}, "backup", "--output", str(target))
        assert done.returncode == 0, done.stderr
        done = command({"MEMSTORE_DATA_DIR": str(tmp_path / "again"), **full}, "restore-backup", str(target), "--yes")
        assert done.returncode == 0, done.stderr
    assert list((tmp_path / "backups").iterdir()) == [target]


@pytest.mark.parametrize("size", ["64k", "4m"])
def test_a_restore_that_finds_its_deployments_disk_full_says_so_and_can_be_run_again(backup: Path, size: str) -> None:
    with small_disk(size) as disk:
        environment = {"MEMSTORE_DATA_DIR": str(disk.directory / "data")}
        done = command(environment, "restore-backup", str(backup), "--yes")
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert "full" in done.stderr or "No space left" in done.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk.directory)], check=True)
        done = command(environment, "restore-backup", str(backup), "--yes")
        assert done.returncode == 0, done.stderr
        assert command(environment, "fsck").stdout == "clean\n"


def test_a_restore_that_finds_no_disk_for_rows_says_so(backup: Path, tmp_path: Path) -> None:
    with small_disk("16m") as disk:
        copy = disk.directory / "b.tar"
        copy.write_bytes(backup.read_bytes())
        environment = {"MEMSTORE_DATA_DIR": str(tmp_path / "data"), **nearly_full(disk)}
        refused(command(environment, "restore-backup", str(copy), "--yes"), "is full; nothing is restored")


def test_a_backup_on_a_full_disk_is_restored_with_its_rows_where_there_is_room(backup: Path, tmp_path: Path) -> None:
    with small_disk("16m") as disk:
        copy = disk.directory / "b.tar"
        copy.write_bytes(backup.read_bytes())
        disk.fill()
        (tmp_path / "roomy").mkdir()
        environment = {"MEMSTORE_DATA_DIR": str(tmp_path / "data"), "TMPDIR": str(tmp_path / "roomy")}
        done = command(environment, "restore-backup", str(copy), "--yes")
        assert done.returncode == 0, done.stderr
        assert list((tmp_path / "roomy").iterdir()) == []


def test_an_export_that_finds_its_disk_full_says_so(deployment: Mapping[str, str]) -> None:
    with small_disk("256k") as disk:
        target = disk.directory / "e.tar"
        refused(command(deployment, "export", STORE, "--output", str(target)), f"the disk of '{target}' is full")
        assert list(disk.directory.iterdir()) == []
        target = disk.directory / "e"
        refused(command(deployment, "export", STORE, "--output", str(target)), "what is there is a part of the export")


def test_an_import_that_finds_no_disk_for_what_comes_in_says_so(deployment: Mapping[str, str], tmp_path: Path) -> None:
    archive = tmp_path / "large.tar"
    archive.write_bytes(tar_of({f"{number}.md": b"%06d" % number * 16_000 for number in range(100)}))
    with small_disk("64k") as disk:
        refused(
            command({**deployment, **nearly_full(disk)}, "import", str(archive)), "name another directory in TMPDIR"
        )
