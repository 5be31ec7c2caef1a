"""A start that can't work ends with a sentence that names the setting."""

import http.client
import subprocess
from pathlib import Path

import pytest

from app.settings import BadSettings, load
from tests.support.backends import POSTGRES_S3, Backend, Services
from tests.support.forks import MEMSTORE
from tests.support.processes import Daemon, free_port
from tests.support.servers import run_cli

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}


def start(directory: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Start a server with nothing but these variables; it ends by itself, or is killed."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(directory),
        "MEMSTORE_DATABASE_WAIT_SECONDS": "0",
        "MEMSTORE_DATA_DIR": str(directory),
    }
    return subprocess.run(
        [MEMSTORE, "serve", "--port", "0"],
        env={**environment, **variables},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=30,
    )


def assert_refused(done: subprocess.CompletedProcess[str], name: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("memstore: ")
    assert name in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MEMSTORE_BLOB_URL", "file:///proc/nowhere"),
        ("MEMSTORE_DATABASE_URL", "sqlite:////proc/nowhere/memstore.db"),
        ("MEMSTORE_DATA_DIR", "/proc/nowhere"),
    ],
)
def test_a_place_that_can_not_be_used_is_refused_with_the_name_of_its_setting(
    name: str, value: str, tmp_path: Path
) -> None:
    assert_refused(start(tmp_path, **{name: value}), name)


@pytest.mark.parametrize("url", ["postgresql://127.0.0.1:1/nothing", "postgresql://postgres@/nothing?host=/proc"])
def test_a_database_server_that_is_not_there_is_said_in_a_sentence(url: str, tmp_path: Path) -> None:
    assert_refused(start(tmp_path, MEMSTORE_DATABASE_URL=url), "database")


def test_s3_without_credentials_is_refused_with_the_names_of_what_is_missing(tmp_path: Path) -> None:
    done = start(tmp_path, MEMSTORE_BLOB_URL="s3://bucket", AWS_EC2_METADATA_DISABLED="true")
    assert_refused(done, "AWS_ACCESS_KEY_ID")


def test_an_s3_endpoint_that_is_no_url_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMSTORE_S3_ENDPOINT_URL", "127.0.0.1:9000")
    with pytest.raises(BadSettings, match=r"^MEMSTORE_S3_ENDPOINT_URL: .*http"):
        load()


@pytest.mark.parametrize(
    "name",
    [
        "MEMSTORE_MAX_STORE_BYTES",
        "MEMSTORE_MAX_STORES",
        "MEMSTORE_VERSION_RETENTION_DAYS",
        "MEMSTORE_KEEP_RECENT_VERSIONS",
    ],
)
def test_a_number_that_no_database_can_hold_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "9" * 23)
    with pytest.raises(BadSettings, match=f"^{name}: .*less than"):
        load()


def test_a_bucket_that_does_not_exist_is_said_and_the_server_is_not_ready(services: Services, tmp_path: Path) -> None:
    environment = Backend(POSTGRES_S3, services).environment(tmp_path) | {"MEMSTORE_BLOB_URL": "s3://no-such-bucket/x"}
    run_cli(environment, "migrate")
    port = free_port()
    answers: list[int] = []

    def answers_at_all() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            answers.append(connection.getresponse().status)
        except OSError:
            return False
        finally:
            connection.close()
        return True

    server = Daemon(
        "memstore without a bucket",
        [MEMSTORE, "serve", "--port", str(port)],
        log=tmp_path / "log",
        ready=answers_at_all,
        environment={"PATH": "/usr/bin:/bin", **KEYS, **environment},
        directory=tmp_path,
    )
    server.start()
    server.stop()
    assert answers == [503]
