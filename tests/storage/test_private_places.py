"""A local user is a stranger: what is on this host is for the service's own user, and the key is in no log."""

import os
import pty
import re
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from app.cli import first_key, places
from app.cli.check_storage import check_places
from app.cli.findings import Findings
from app.settings import BadSettings, Settings
from tests.support.forks import MEMSTORE, memstore
from tests.support.processes import answers, free_port
from tests.support.servers import run_cli, serve

STRANGER = 65_534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_below(directory: Path) -> list[str]:
    """What others could read or write if they came as far as into the directory."""
    return [f"{path} {mode(path):o}" for path in directory.rglob("*") if mode(path) & 0o077]


def in_reach(directory: Path) -> list[str]:
    """What others can read or write, coming from outside."""
    if not mode(directory) & 0o077:
        return []
    below = [line for path in directory.iterdir() if path.is_dir() for line in in_reach(path)]
    return [str(directory), *below]


def open_up(directory: Path) -> None:
    """As an earlier version left it under the usual umask."""
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def settings(data: Path, **others: str) -> Settings:
    return Settings(data_dir=data, **others)  # type: ignore[arg-type]


def test_whatever_is_made_is_for_its_owner_alone_and_what_was_open_is_closed(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    with serve({"MEMSTORE_DATA_DIR": str(data)}) as server:
        with server.client() as client:
            store = client.beta.memory_stores.create(name="Notes")
            client.beta.memory_stores.memories.create(store.id, path="/a.md", content="a")
        assert {"memstore.db-wal", "memstore.db-shm"} <= {path.name for path in data.iterdir()}
        assert (mode(data), open_below(data)) == (0o700, [])
        for arguments in (
            ["export", store.id, "--output", f"{out}/deep/notes"],
            ["backup", "--output", f"{out}/all.tar"],
            ["audit", "export", "--output", f"{out}/audit.jsonl"],
            ["forget", "--store", store.id, "--yes", "--report", f"{out}/report.json"],
        ):
            server.cli(*arguments)
        assert {path.name for path in out.iterdir()} == {"deep", "all.tar", "audit.jsonl", "report.json"}
        assert open_below(out) == []
        server.stop()
        open_up(data)
        server.start()
        assert in_reach(data) == []
        assert [mode(data / name) for name in ("memstore.db", "memstore.db-wal", "memstore.db-shm")] == [0o600] * 3
        told = [line for line in server.log.read_text().splitlines() if "was open to other users" in line]
        assert len(told) == 2, "one line at each start that found it open"
        assert f"{data} was open to other users of this host (0755) and is closed now (0700)" in told[1]


def test_a_data_directory_that_a_command_makes_is_closed_from_the_beginning(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    environment = {"PATH": os.environ["PATH"], "MEMSTORE_DATA_DIR": str(data)}
    subprocess.run([MEMSTORE, "migrate"], env=environment, cwd=tmp_path, check=True, capture_output=True)
    assert (mode(data), open_below(data)) == (0o700, [])


@needs_root
@pytest.mark.parametrize("kind", ["directory", "link to one", "link of somebody else", "database", "blobs"])
def test_what_belongs_to_somebody_else_is_refused_in_a_sentence_that_says_whose_it_is(
    kind: str, tmp_path: Path
) -> None:
    data, theirs = tmp_path / "data", tmp_path / "theirs"
    theirs.mkdir()
    found, setting = settings(data), "MEMSTORE_DATA_DIR"
    if kind == "directory":
        data.mkdir()
        os.chown(data, STRANGER, STRANGER)
    elif kind == "link to one":
        data.symlink_to(theirs)
        os.chown(theirs, STRANGER, STRANGER)
    elif kind == "link of somebody else":
        data.symlink_to(theirs)
        os.chown(data, STRANGER, STRANGER, follow_symlinks=False)
    elif kind == "database":
        data.mkdir()
        (theirs / "theirs.db").touch()
        os.chown(theirs / "theirs.db", STRANGER, STRANGER)
        (data / "memstore.db").symlink_to(theirs / "theirs.db")
        setting = "MEMSTORE_DATABASE_URL"
    else:
        data.mkdir()
        os.chown(theirs, STRANGER, STRANGER)
        found, setting = settings(data, blob_url=f"file://{theirs}"), "MEMSTORE_BLOB_URL"
    with pytest.raises(BadSettings, match=rf"^{setting}: .*user {STRANGER}"):
        places.make_private(found)


@needs_root
def test_every_command_refuses_it_and_nothing_is_made_there(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, STRANGER, STRANGER)
    for command in (["serve", "--port", "0"], ["keys", "list"], ["migrate"]):
        done = run_cli({"MEMSTORE_DATA_DIR": str(data)}, *command, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert f"setpriv --reuid {STRANGER} --regid {STRANGER} --clear-groups memstore" in done.stderr
    assert list(data.iterdir()) == []


def test_a_link_of_ours_to_a_directory_of_ours_is_fine(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    places.make_private(settings(tmp_path / "data"))
    assert mode(tmp_path / "disk") == 0o700


@pytest.mark.parametrize("link", ["nowhere", "data"])
def test_a_link_that_leads_nowhere_is_said(link: str, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(tmp_path / link)
    with pytest.raises(BadSettings, match=r"^MEMSTORE_DATA_DIR: "):
        places.make_private(settings(tmp_path / "data"))


@needs_root
def test_a_volume_that_root_hands_to_a_group_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Kubernetes does with `fsGroup`: the directory is root's, and only its group is the container's."""
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o2775)
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    places.make_private(settings(data))
    assert mode(data) == 0o2775


@pytest.mark.parametrize("right", [0o755, 0o1777, 0o750])
def test_a_directory_with_other_things_in_it_is_neither_closed_nor_begun_in(right: int, tmp_path: Path) -> None:
    """A home, a checkout or /tmp: what others use there must go on."""
    (tmp_path / "homework.txt").touch()
    tmp_path.chmod(right)
    with pytest.raises(BadSettings, match=r"^MEMSTORE_DATA_DIR: .*name a directory of its own"):
        places.make_private(settings(tmp_path))
    assert mode(tmp_path) == right
    tmp_path.chmod(0o700)
    places.make_private(settings(tmp_path))


def test_an_installation_among_other_things_goes_on_with_its_own_files_closed(tmp_path: Path) -> None:
    for name in ("homework.txt", "memstore.db", "api_key"):
        (tmp_path / name).touch()
    (tmp_path / "blobs").mkdir()
    open_up(tmp_path)
    places.make_private(settings(tmp_path))
    closed = {path.name for path in tmp_path.iterdir() if not mode(path) & 0o077}
    assert (mode(tmp_path), closed) == (0o755, {"memstore.db", "api_key", "blobs"})


def test_the_doctor_says_that_others_may_look_in_and_changes_nothing(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "memstore.db").touch()
    findings = Findings()
    check_places(findings, settings(tmp_path))
    assert mode(tmp_path) == 0o755
    (told,) = [finding for finding in findings.found if "other users" in finding.message]
    assert (told.state, "0755" in told.message) == ("warning", True)


def test_the_secret_is_shown_once_on_the_terminal_of_its_maker_and_then_only_its_place(tmp_path: Path) -> None:
    first = greeted(tmp_path, on_a_terminal=True)
    secret = (tmp_path / "data" / "api_key").read_text().strip()
    assert secret in first
    for again in (greeted(tmp_path, on_a_terminal=True), greeted(tmp_path, on_a_terminal=False)):
        assert secret not in again
        assert re.search(r"API key +in data/api_key\s", again)


def test_a_first_start_without_a_terminal_prints_no_secret(tmp_path: Path) -> None:
    printed = greeted(tmp_path, on_a_terminal=False)
    assert (tmp_path / "data" / "api_key").read_text().strip() not in printed
    assert re.search(r"API key +in data/api_key\s", printed)


@pytest.mark.parametrize("is_removed", [False, True], ids=["its file is there", "its file is gone"])
def test_after_the_first_key_was_revoked_the_greeting_says_so_and_makes_none(is_removed: bool, tmp_path: Path) -> None:
    greeted(tmp_path, on_a_terminal=False)
    environment = {"MEMSTORE_DATA_DIR": str(tmp_path / "data")}
    (key_id,) = re.findall(r"apikey_\w+", run_cli(environment, "keys", "list").stdout)
    run_cli(environment, "keys", "revoke", key_id)
    key_file = tmp_path / "data" / "api_key"
    secret = key_file.read_text().strip()
    if is_removed:
        key_file.unlink()
    printed = greeted(tmp_path, on_a_terminal=True)
    assert secret not in printed
    assert "memstore keys create --workspace default" in printed
    assert ("revoked" in printed) == (not is_removed)
    assert len(re.findall(r"apikey_\w+", run_cli(environment, "keys", "list").stdout)) == 1


def test_a_key_file_that_a_power_cut_emptied_is_none(tmp_path: Path) -> None:
    file = tmp_path / "data" / "api_key"
    file.parent.mkdir()
    for written in (b"\n", b"\0" * 48, b""):
        file.write_bytes(written)
        assert first_key.read(file) == ""
    greeted(tmp_path, on_a_terminal=False)
    assert file.read_text().startswith("msk_")


def test_a_key_file_with_something_else_in_it_is_told_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "data" / "api_key"
    file.parent.mkdir()
    for written in (b"caf\xe9", b"\x1b[31mred", b"k" * 2_000, b"two\nlines", b"two words\n"):
        file.write_bytes(written)
        with pytest.raises(BadSettings, match="holds no API key"):
            first_key.read(file)
    done = run_cli({"MEMSTORE_DATA_DIR": str(file.parent)}, "serve", "--port", "0", check=False)
    assert (done.returncode, "holds no API key" in done.stderr) == (2, True), done.stderr
    assert file.read_bytes() == b"two words\n"


def greeted(directory: Path, *, on_a_terminal: bool) -> str:
    """What `memstore serve` prints, started in the directory until it is ready; its key works, if it says so."""
    port = free_port()
    ours, theirs = pty.openpty() if on_a_terminal else os.pipe()
    around = {name: value for name, value in os.environ.items() if not name.startswith("MEMSTORE_")}
    server = memstore(
        ["serve", "--port", str(port)],
        environment=around,
        directory=directory,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    try:
        while not answers(port, "/readyz"):
            assert server.poll() is None
        key = directory / "data" / "api_key"
        if key.exists() and "revoked" not in (text := os.read(ours, 65_536).decode()):
            answer = httpx2.get(
                f"http://127.0.0.1:{port}/v1/memory_stores",
                headers={"x-api-key": key.read_text().strip()}, trust_env=False,
            )  # fmt: skip
            assert answer.status_code == 200
            return text
        return text if key.exists() else os.read(ours, 65_536).decode()
    finally:
        server.terminate()
        server.wait(30)
        os.close(ours)


@needs_root
def test_a_place_below_a_directory_of_another_user_is_used_and_told(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    data = theirs / "data"
    data.mkdir(parents=True)
    os.chown(theirs, STRANGER, STRANGER)
    assert places.at_the_mercy_of(data) == f"user {STRANGER} (nobody) owns {theirs}"
    found = Findings()
    check_places(found, settings(data))
    assert any(f"user {STRANGER} (nobody) owns {theirs}" in str(finding) for finding in found.found)
    places.make_private(settings(data))
    link = tmp_path / "link"
    link.symlink_to(data)
    assert places.at_the_mercy_of(link) == f"user {STRANGER} (nobody) owns {theirs}"


@needs_root
@pytest.mark.parametrize(("mode", "is_open"), [(0o777, True), (0o1777, False), (0o775, False)])
def test_a_directory_above_that_is_open_to_all_is_told_unless_it_is_sticky(
    mode: int, is_open: bool, tmp_path: Path
) -> None:
    data = tmp_path / "above" / "data"
    data.mkdir(parents=True)
    data.parent.chmod(mode)
    told = places.at_the_mercy_of(data)
    assert told == (f"everybody may write in {data.parent} ({mode:04o})" if is_open else None)


@needs_root
def test_a_service_that_is_not_roots_is_told_of_the_directories_above_its_own() -> None:
    with tempfile.TemporaryDirectory() as name:  # one that another user can look into
        Path(name).chmod(0o711)
        theirs, data = Path(name, "theirs"), Path(name, "theirs", "data")
        data.mkdir(parents=True)
        os.chown(data, STRANGER, STRANGER)
        os.chown(theirs, STRANGER - 1, STRANGER - 1)
        os.seteuid(STRANGER)
        try:
            whose = [places.at_the_mercy_of(place) for place in (data, theirs)]
        finally:
            os.seteuid(0)
        assert whose == [f"user {STRANGER - 1} owns {theirs}", None]
