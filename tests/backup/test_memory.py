"""A backup takes memory for a page of a deployment, not for the deployment; the kernel counts."""

from collections.abc import Mapping
from pathlib import Path

from tests.backup.deployments import command, filled, migrated, peak_of
from tests.backup.measured_command import SMALL_CACHES
from tests.support.backends import SQLITE_DISK, Backend

MEBI = 1024 * 1024
FEW, MANY = 3_000, 20_000
"""Memories, each with a version. The fewer fill every page and buffer once."""
FEW_AGENTS, MANY_AGENTS = 8, 60
"""Their definitions have 400 KB."""
LARGE_CONTENTS = 200
"""As large as one may be: 20 MB, of which 100 are read at a time."""
MOST = 134 * MEBI
"""What docs/reference/limits.md allows: the process's own 70 MiB, and 64 MiB."""
MOST_GROWTH = 4 * MEBI


def contents_of(memories: int, backend: Backend) -> int:
    """How many contents they have: fewer on S3, where a test's server takes its time for each."""
    return memories // 5 if backend.name == SQLITE_DISK else memories // 100


def deployments(backend: Backend, directory: Path) -> tuple[Mapping[str, str], Mapping[str, str]]:
    few, many = (backend.environment(directory) for _ in range(2))
    return (
        filled(few, FEW, contents_of(FEW, backend), agents=FEW_AGENTS),
        filled(many, MANY, contents_of(MANY, backend), agents=MANY_AGENTS),
    )


def test_texts_of_100_kilobytes_pass_through_a_backup_and_a_restore_a_few_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir(mode=0o700)
    environment = {"MEMSTORE_DATA_DIR": str(tmp_path / "from"), SMALL_CACHES: "1"}
    filled(environment, LARGE_CONTENTS, LARGE_CONTENTS, content_bytes=102_400)
    backup = command(environment, "backup", "--output", str(tmp_path / "b.tar"))
    assert f" {LARGE_CONTENTS:,} contents" in backup.stdout
    target = {"MEMSTORE_DATA_DIR": str(tmp_path / "to"), SMALL_CACHES: "1"}
    restore = command(target, "restore-backup", str(tmp_path / "b.tar"), "--yes")
    for done in (backup, restore):
        assert peak_of(done) < MOST, f"{peak_of(done) / MEBI:.0f} MiB"


def test_a_backup_and_a_restore_take_no_more_memory_for_a_larger_deployment(backend: Backend, tmp_path: Path) -> None:
    backup, restore = [], []
    for number, environment in enumerate(deployments(backend, tmp_path)):
        file = tmp_path / f"{number}.tar"
        done = command({**environment, SMALL_CACHES: "1"}, "backup", "--output", str(file))
        assert f" {contents_of((FEW, MANY)[number], backend):,} contents" in done.stdout
        backup.append(peak_of(done))
        target = {**migrated(backend.environment(tmp_path)), SMALL_CACHES: "1"}
        restore.append(peak_of(command(target, "restore-backup", str(file), "--yes")))
    assert backup[1] - backup[0] < MOST_GROWTH, backup
    assert restore[1] - restore[0] < MOST_GROWTH, restore
