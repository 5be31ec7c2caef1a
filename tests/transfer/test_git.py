"""The history of a store as a Git repository."""

import subprocess
from pathlib import Path

import pytest

from app.contract import paths
from app.contract.errors import InvalidRequest
from app.storage.rows.statements import Statement
from app.transfer.git_history import GitHistory, is_gits_own
from tests.storage.parts import Parts
from tests.transfer.test_round_trips import exported, files_of, lively_store

pytestmark = pytest.mark.anyio

_VERSIONS = Statement("SELECT id FROM memory_versions WHERE store_id = :store_id ORDER BY seq")


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", directory, *arguments], capture_output=True, check=True)
    return done.stdout.decode()


async def test_each_version_is_a_commit_and_the_tree_is_the_store(parts: Parts, tmp_path: Path) -> None:
    store_id = await lively_store(parts)
    unholdable = await parts.create(store_id, "x", "/a/.git/config")
    odd = await parts.create(store_id, 'quote " and \\ slash', '/odd "name"\\ .md')
    files = files_of(await exported(parts, store_id, history=True))
    result = await GitHistory(parts.storage).export(parts.caller, store_id, tmp_path / "repository")
    assert result.left_out == ["/a/.git/config", "/.hidden/.git"][::-1]
    expected = {
        name.removeprefix("memories/"): data
        for name, data in files.items()
        if name.startswith("memories/") and "/.git" not in name
    }
    tracked = git(tmp_path / "repository", "ls-files", "-z").split("\0")[:-1]
    assert {name: (tmp_path / "repository" / name).read_bytes() for name in tracked} == expected
    log = git(tmp_path / "repository", "log", "--reverse", "--format=%an|%at|%s").splitlines()
    assert len(log) == len(files["versions.jsonl"].splitlines()) == result.versions
    assert {line.split("|")[0] for line in log} == {parts.caller.actor.id}
    assert log[0].endswith("|created /notes/one.md")
    assert sum("redacted" in line for line in log) == 1
    assert "a secret" not in git(tmp_path / "repository", "log", "-p", "--all")
    assert git(tmp_path / "repository", "status", "--porcelain") == ""
    git(tmp_path / "repository", "fsck", "--strict")
    assert unholdable.store_id == odd.store_id


async def test_a_file_gives_way_to_a_directory_whose_rename_was_redacted(parts: Parts, tmp_path: Path) -> None:
    store_id = await parts.store()
    first = await parts.create(store_id, "one", "/a")
    await parts.rename(first, "/b")
    await parts.update(first, "two")
    page = await parts.storage.database.fetch_all(_VERSIONS, {"store_id": store_id})
    await parts.versions.redact(parts.caller, store_id, page[1]["id"])
    await parts.create(store_id, "below", "/a/c")
    await GitHistory(parts.storage).export(parts.caller, store_id, tmp_path / "r")
    assert git(tmp_path / "r", "ls-files").splitlines() == ["a/c", "b"]


async def test_without_git_it_says_what_to_do(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidRequest, match="needs Git: install it"):
        await GitHistory(parts.storage).export(parts.caller, await parts.store(), tmp_path / "r")


async def test_an_empty_store_is_an_empty_repository(parts: Parts, tmp_path: Path) -> None:
    await GitHistory(parts.storage).export(parts.caller, await parts.store(), tmp_path / "r")
    assert git(tmp_path / "r", "status", "--porcelain") == ""


REFUSED = [
    ".git", ".GIT", ".Git", ".git ", ".git.", ".git . .", ".git::$INDEX_ALLOCATION", ".git:x", ".git \\x",
    ".git\\config",
    "a\\.git", "a\\.GIT.\\b", "git~1", "GIT~1", "git~1.", "git~1 ", "git~1:x", "a\\git~1", ".g\u200cit", ".git\u200d",
    "\u200e.git", ".gi\u202at", ".g\u206ait", "\ufeff.GIT", ".\u202eg\u206fit",
]  # fmt: skip
HELD = [
    ".gitignore", ".gitattributes", ".gitmodules", ".git~1", "git~2", "git", ".git2", "x.git", ".git x", "git~1x",
    "a:.git",
    ".gitt", "\u200c", " .git", ".g\u0131t", "CON", "aux.txt", "a ", "a.", "a\\b", "-x", '"', "'", "*", "a\u0301",
    "x" * 255, ".gitmodules:x", "gitmod~1", ".git\u2060",
]  # fmt: skip


def is_lawful(name: str) -> bool:
    """Whether a memory can have such a part in its path: format characters are refused at the door."""
    try:
        paths.check(f"/{name}")
    except InvalidRequest:
        return False
    return True


async def test_what_git_takes_for_its_own_on_any_system_is_left_out_and_named(parts: Parts, tmp_path: Path) -> None:
    """Judged by the real Git: the list of what it refuses is its own, in its versions of Windows and macOS, too."""
    store_id = await parts.store()
    refused, held = [name for name in REFUSED if is_lawful(name)], [name for name in HELD if is_lawful(name)]
    for number, name in enumerate([*refused, *held]):
        content = "* working-tree-encoding=UTF-16 text eol=crlf" if name == ".gitattributes" else "text\n"
        await parts.create(store_id, content, f"/{number}/{name}/x" if number % 2 else f"/{number}/{name}")
    await parts.create(store_id, "* filter=none working-tree-encoding=nonsense", "/.gitattributes")
    result = await GitHistory(parts.storage).export(parts.caller, store_id, tmp_path / "r")
    assert len(result.left_out) == len(refused)
    assert result.memories == len(held) + 1
    git(tmp_path / "r", "-c", "core.protectHFS=true", "-c", "core.protectNTFS=true", "reset", "--hard", "--quiet")
    assert git(tmp_path / "r", "status", "--porcelain") == ""
    assert all(found.read_bytes() != b"text\r\n" for found in (tmp_path / "r").rglob("x"))


def test_git_itself_judges_names_in_the_same_way(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    blob = subprocess.run(
        ["git", "-C", tmp_path, "hash-object", "-w", "--stdin"], input=b"x", capture_output=True, check=True
    ).stdout.decode().strip()  # fmt: skip
    protected = ["git", "-C", str(tmp_path), "-c", "core.protectHFS=true", "-c", "core.protectNTFS=true"]
    for name in [*REFUSED, *HELD]:
        command = [*protected, "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}"]
        added = subprocess.run(command, check=False, capture_output=True)
        assert (added.returncode != 0) == is_gits_own(name), name
