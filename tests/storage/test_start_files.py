"""What is read at a start is read from ordinary files only: nothing waits for the other end of a pipe."""

import asyncio
import os
import socket
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import httpx2
import pytest

from app import regular_files, settings
from app.cli import api, first_key, mount_settings, places, unknown_settings
from app.contract.errors import InvalidRequest, Unavailable
from app.mount.sync.errors import MountError
from app.settings import BadSettings, Settings
from app.storage.contents.blobs import open_blob_store
from app.storage.rows import migrations
from app.storage.rows.postgres_errors import DatabaseRefused
from tests.support.forks import MEMSTORE
from tests.support.servers import run_cli


def _socket(path: Path) -> None:
    with chdir(path.parent), socket.socket(socket.AF_UNIX) as made:  # the path of a socket may be short only
        made.bind(path.name)


KINDS: dict[str, Callable[[Path], object]] = {
    "a named pipe": os.mkfifo,
    "a directory": Path.mkdir,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str, str], Path]:
    def make(name: str, kind: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        KINDS[kind](path)
        return path

    return make


Made = Callable[[str, str], Path]


@every_kind
def test_the_file_of_the_first_key(kind: str, made: Made) -> None:
    path = made("data/api_key", kind)
    with pytest.raises(BadSettings, match=f"{path} is {kind}; an ordinary file belongs there"):
        first_key.read(path)


def test_a_key_file_without_an_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "api_key").touch()
    os.truncate(tmp_path / "api_key", 1 << 40)
    with pytest.raises(BadSettings, match="holds more than 65,536 bytes"):
        first_key.read(tmp_path / "api_key")


@every_kind
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_the_files_of_the_database(kind: str, suffix: str, made: Made) -> None:
    path = made(f"data/memstore.db{suffix}", kind)
    with pytest.raises(BadSettings, match=f"^MEMSTORE_DATABASE_URL: {path} is {kind}"):
        places.refuse_others(Settings(data_dir=path.parent))


@pytest.mark.parametrize("content", [b"no database", b"x" * 100_000, b"SQLite format 3\0" + b"x" * 100_000])
def test_what_is_no_database_is_said_in_a_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "memstore.db").write_bytes(content)
    with pytest.raises(DatabaseRefused, match=f"^{tmp_path}/memstore.db can't be used: "):
        migrations.upgrade(f"sqlite:///{tmp_path}/memstore.db")


def test_a_fault_of_a_statement_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "memstore.db") as connection:
        connection.execute("CREATE TABLE memory_stores (id TEXT)")
    with pytest.raises(DatabaseRefused, match="can't be migrated: table memory_stores already exists") as raised:
        migrations.upgrade(f"sqlite:///{tmp_path}/memstore.db")
    assert "memstore.db" not in str(raised.value)


@every_kind
def test_the_mark_that_says_whose_the_blobs_are(kind: str, made: Made) -> None:
    path = made("blobs/.memstore-installation", kind)
    store = open_blob_store(f"file://{path.parent}", None)
    with pytest.raises(Unavailable):
        asyncio.run(store.owner("an_installation"))


@every_kind
@pytest.mark.parametrize("key", ["sslrootcert", "sslcert", "sslkey", "sslcrl"])
def test_certificates_and_their_keys(kind: str, key: str, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made("pem", kind)
    monkeypatch.setenv("MEMSTORE_DATABASE_URL", f"postgresql://u:secret@127.0.0.1/x?sslmode=require&{key}={path}")
    with pytest.raises(BadSettings, match=f"^MEMSTORE_DATABASE_URL: names as {key} .*{path} is {kind}") as raised:
        settings.load()
    assert "secret" not in str(raised.value)


@every_kind
def test_a_secret_of_the_system(kind: str, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made("credentials/MEMSTORE_BOOTSTRAP_API_KEY", kind)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(path.parent))
    with pytest.raises(BadSettings, match=f"{path} is {kind}"):
        settings.load()


@pytest.mark.parametrize(("content", "told"), [(b"A=\xff", "not UTF-8|decode"), (b"#" * 1_048_577, "1,048,576 bytes")])
def test_a_file_of_settings_that_is_no_text_or_has_no_end(
    content: bytes, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes(content)
    for read in (settings.load, mount_settings.variables, unknown_settings.unknown_settings):
        with pytest.raises((BadSettings, MountError), match=told):
            read()


def test_a_pipe_of_settings_is_refused(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made(".env", "a named pipe").parent)
    for read in (settings.load, mount_settings.variables, unknown_settings.unknown_settings):
        with pytest.raises((BadSettings, MountError), match=r"\.env is a named pipe"):
            read()


@pytest.mark.parametrize("kind", ["a directory", "a socket", "a device"])
def test_what_can_not_be_a_file_of_settings_is_none(kind: str, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made(".env", kind).parent)
    settings.load()
    assert mount_settings.of_file() == {}


@every_kind
def test_the_key_that_a_command_takes_from_the_data_directory(
    kind: str, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made("data/api_key", kind)
    monkeypatch.setenv("MEMSTORE_DATA_DIR", str(path.parent))
    with pytest.raises((OSError, InvalidRequest), match=f"{path} is {kind}"):
        api._of_settings()


def test_serve_ends_with_one_sentence(made: Made) -> None:
    path = made("data/api_key", "a named pipe")
    path.parent.chmod(0o700)
    done = run_cli({"MEMSTORE_DATA_DIR": str(path.parent)}, "serve", "--port", "0", check=False)
    assert done.returncode == 2
    assert "is a named pipe" in done.stderr.splitlines()[-1]


def test_a_link_to_an_ordinary_file_is_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    assert regular_files.read(tmp_path / "link", 4) == b"text"


def test_a_request_that_comes_right_after_the_greeting_is_answered(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "MEMSTORE_DATA_DIR": str(tmp_path / "data"), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [MEMSTORE, "serve", "--port", "0"], env=environment, cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            url = next(line.split()[-1] for line in process.stdout if "serves at" in line)
            assert httpx2.get(f"{url}/healthz", timeout=60, trust_env=False).status_code == 200
        finally:
            process.terminate()
