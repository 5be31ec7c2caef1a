"""`memstore doctor` on what is well and on what is broken, on both back ends (the issue, section 4)."""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from app import __version__
from app.cli import check_host, check_storage
from app.cli.findings import Findings, without_secrets
from app.storage.rows import migrations
from tests.support.backends import POSTGRES_S3, SQLITE_DISK, Backend, Services
from tests.support.servers import Server, run_cli, serve


def examined(environment: Mapping[str, str]) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit status of `memstore doctor --json`, and what it found by check; of several, the worst."""
    done = run_cli(environment, "doctor", "--json", check=False)
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    order = ["ok", "skipped", "warning", "failed"]
    found: dict[str, dict[str, str]] = {}
    for finding in sorted(answer["findings"], key=lambda finding: order.index(finding["state"])):
        assert finding.keys() == {"check", "state", "message", "advice"}
        assert finding["message"]
        assert bool(finding["advice"]) == (finding["state"] not in ("ok", "skipped")), finding
        found[finding["check"]] = finding
    assert answer["state"] == ("failed" if done.returncode else "ok")
    return done.returncode, found


@pytest.fixture
def environment(backend: Backend, tmp_path: Path) -> dict[str, str]:
    return backend.environment(tmp_path)


def test_a_server_that_nobody_named_is_not_counted_as_well(tmp_path: Path) -> None:
    environment = {"MEMSTORE_DATA_DIR": str(tmp_path)}
    _, found = examined(environment)
    assert found["server"]["state"] == "skipped"
    assert "1 not looked at" in run_cli(environment, "doctor", check=False).stdout


def test_a_running_installation_is_well(server: Server, backend: Backend) -> None:
    variables = {"MEMSTORE_BASE_URL": server.base_url, "MEMSTORE_API_KEY": server.api_key}
    status, found = examined({**server.environment, **variables})
    broken = [finding for finding in found.values() if finding["state"] == "failed"]
    assert (status, broken) == (0, [])
    for check in ("python", "settings", "database", "migrations", "blob store", "blob store's owner", "server",
                  "server's clock", "server's version", "server's answer"):  # fmt: skip
        assert found[check]["state"] == "ok", found[check]
    name = "SQLite 3." if backend.name == SQLITE_DISK else "PostgreSQL 1"
    assert found["database"]["message"].startswith(name)
    assert found["blob store"]["message"].startswith("put ")
    if backend.name == POSTGRES_S3:
        assert found["blob store's clock"]["state"] == "ok"
    else:
        assert found["disk"]["state"] in ("ok", "warning")


def test_it_leaves_nothing_behind(environment: dict[str, str]) -> None:
    with serve(environment) as server:  # of its own, where nobody else leaves anything
        examined(server.environment)
        assert json.loads(server.cli("fsck", "--json").stdout)["ok"]
    if blobs := next(Path(environment["MEMSTORE_DATA_DIR"]).glob("blobs"), None):
        assert not list(blobs.glob(".memstore-doctor-*"))


def test_before_the_first_start_it_says_what_to_do(environment: dict[str, str], backend: Backend) -> None:
    status, found = examined(environment)
    if backend.name == SQLITE_DISK:
        assert status == 0
        assert found["database"]["state"] == "warning"
        assert "memstore serve" in found["database"]["advice"]
        assert not list(Path(environment["MEMSTORE_DATA_DIR"]).iterdir())  # it looked, and made nothing
    else:
        assert status == 1
        assert found["database"]["state"] == "ok"
        assert "has no schema yet" in found["migrations"]["message"]
        assert "memstore migrate" in found["migrations"]["advice"]


def test_an_old_schema_is_told(environment: dict[str, str], backend: Backend) -> None:
    url = environment.get("MEMSTORE_DATABASE_URL") or f"sqlite:///{environment['MEMSTORE_DATA_DIR']}/memstore.db"
    migrations.upgrade(url, "0001")
    status, found = examined(environment)
    assert "has revision 0001" in found["migrations"]["message"]
    expected = ("warning", 0) if backend.name == SQLITE_DISK else ("failed", 1)
    assert (found["migrations"]["state"], status) == expected


def test_a_dead_database_is_told_without_its_password(environment: dict[str, str], backend: Backend) -> None:
    if backend.name == SQLITE_DISK:
        Path(environment["MEMSTORE_DATA_DIR"], "memstore.db").write_text("this is no database" * 100)
    else:
        environment["MEMSTORE_DATABASE_URL"] = "postgresql://somebody:hush-hush@127.0.0.1:1/nothing"
    status, found = examined(environment)
    assert status == 1
    assert found["database"]["state"] == "failed"
    assert "MEMSTORE_DATABASE_URL" in found["database"]["advice"]
    assert "hush" not in json.dumps(found)
    assert "blob store" in found  # the other checks went on


def test_a_place_for_blobs_that_is_not_there_is_told(environment: dict[str, str], backend: Backend) -> None:
    if backend.name == SQLITE_DISK:
        Path(environment["MEMSTORE_DATA_DIR"], "blobs").write_text("no directory")
    else:
        environment["MEMSTORE_BLOB_URL"] = "s3://no-such-bucket/memory"
    status, found = examined(environment)
    assert status == 1
    assert found["blob store"]["state"] == "failed"
    if backend.name == POSTGRES_S3:
        assert found["blob store"]["message"].startswith("put: ")
        assert "NoSuchBucket" in found["blob store"]["message"]
    else:
        assert f"{environment['MEMSTORE_DATA_DIR']}/blobs" in found["blob store"]["message"]


def test_blobs_of_another_installation_are_told(backend: Backend, tmp_path: Path) -> None:
    first, second = backend.environment(tmp_path), backend.environment(tmp_path)
    with serve(first):
        pass
    blobs = first.get("MEMSTORE_BLOB_URL") or f"file://{first['MEMSTORE_DATA_DIR']}/blobs"
    with serve({**second, "MEMSTORE_BLOB_URL": blobs}):
        pass
    status, found = examined({**second, "MEMSTORE_BLOB_URL": blobs})
    assert status == 1
    assert found["blob store's owner"]["state"] == "failed"


def test_a_directory_that_can_not_be_written_to_is_told(services: Services, tmp_path: Path) -> None:
    environment = Backend(SQLITE_DISK, services).environment(tmp_path)
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    # `run_cli` starts in the data directory, so another setting says where the data are to be.
    environment["MEMSTORE_DATABASE_URL"] = f"sqlite:///{blocked}/below/memstore.db"
    status, found = examined(environment)
    assert status == 1
    assert found["directory"]["state"] == "failed"
    assert str(blocked) in found["directory"]["message"]
    assert "MEMSTORE_DATABASE_URL" in found["directory"]["advice"]


def test_a_wrong_setting_is_told_and_the_rest_is_looked_at(services: Services, tmp_path: Path) -> None:
    environment = Backend(SQLITE_DISK, services).environment(tmp_path)
    status, found = examined({**environment, "MEMSTORE_MAX_STORES": "many"})
    assert status == 1
    assert "MEMSTORE_MAX_STORES" in found["settings"]["message"]
    assert {"python", "fuse", "namespaces"} <= found.keys()


@pytest.mark.parametrize(
    ("free", "state"), [(50_000_000, "failed"), (500_000_000, "warning"), (5_000_000_000, "ok")]
)  # fmt: skip
def test_a_full_disk_is_told(free: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    findings = Findings()
    check_storage._check_room(findings, tmp_path)
    assert [finding.state for finding in findings.found] == [state]


@contextmanager
def answering(seconds_ahead: float, status: int = 403, body: bytes = b"") -> Iterator[str]:
    """An HTTP server that gives one answer to everything, with its clock off; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_PUT = do_DELETE = do_POST = do_GET  # noqa: N815 - http.server's own names

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(time.time() + seconds_ahead, usegmt=True)

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}"
        finally:
            http.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("seconds", "state", "words"),
    [(3_600, "failed", "s ahead of"), (-3_600, "failed", "s behind"), (120, "warning", "s ahead of")],
)
def test_a_blob_store_whose_clock_is_off_is_told_even_if_it_refuses_everything_for_that(
    seconds: int, state: str, words: str, services: Services, tmp_path: Path
) -> None:
    environment = Backend(SQLITE_DISK, services).environment(tmp_path)
    with answering(seconds) as url:
        s3 = {
            "MEMSTORE_BLOB_URL": "s3://bucket/prefix",
            "MEMSTORE_S3_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "somebody-s-id",
            "AWS_SECRET_ACCESS_KEY": "hush-hush-hush",
        }
        status, found = examined({**environment, **s3})
    assert status == 1  # nothing can be put there
    assert found["blob store's clock"]["state"] == state
    assert words in found["blob store's clock"]["message"]
    assert found["blob store"]["state"] == "failed"
    assert "hush" not in json.dumps(found)


def test_a_server_that_does_not_answer_is_told(services: Services, tmp_path: Path) -> None:
    environment = Backend(SQLITE_DISK, services).environment(tmp_path)
    status, found = examined({**environment, "MEMSTORE_BASE_URL": "http://somebody:hush-hush@127.0.0.1:1"})
    assert status == 1
    assert found["server"]["state"] == "failed"
    assert "MEMSTORE_BASE_URL" in found["server"]["advice"]
    assert "hush" not in json.dumps(found)


def test_a_server_that_does_not_know_the_key_is_told(server: Server) -> None:
    variables = {"MEMSTORE_BASE_URL": server.base_url, "MEMSTORE_API_KEY": "msk_unknown"}
    status, found = examined({**server.environment, **variables})
    assert status == 1
    assert found["server's answer"]["state"] == "failed"
    assert "msk_unknown" not in json.dumps(found)


def test_a_server_of_another_kind_or_version_is_told(services: Services, tmp_path: Path) -> None:
    environment = Backend(SQLITE_DISK, services).environment(tmp_path)
    with answering(0, 404) as url:
        _, found = examined({**environment, "MEMSTORE_BASE_URL": url})
    assert found["server"]["state"] == "warning"
    assert "no memstore" in found["server"]["message"]
    with answering(300, 200, json.dumps({"info": {"version": "9.9.9"}}).encode()) as url:
        _, found = examined({**environment, "MEMSTORE_BASE_URL": url})
    assert found["server's version"]["message"] == f"9.9.9; here it is {__version__}"
    assert found["server's clock"]["state"] == "warning"


def test_a_host_without_fuse_is_told_that_a_mirror_works(tmp_path: Path) -> None:
    findings = Findings()
    check_host.check_fuse(findings, tmp_path / "fuse", tmp_path)
    (finding,) = findings.found
    assert (finding.check, finding.state) == ("fuse", "warning")
    assert "mirror" in finding.advice
    device = tmp_path / "device"
    device.touch()
    findings = Findings()
    check_host.check_fuse(findings, device, tmp_path / "connections")
    assert [(finding.check, finding.state) for finding in findings.found] == [("fuse", "ok"), ("fusectl", "warning")]


def test_a_host_without_namespaces_is_told_how_to_allow_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_host, "_unshare", lambda flags: 1)  # EPERM, as where the system forbids it
    findings = Findings()
    check_host.check_namespaces(findings)
    (finding,) = findings.found
    assert finding.state == "warning"
    assert os.strerror(1) in finding.message
    assert "max_user_namespaces" in finding.advice


@pytest.mark.parametrize(
    ("requirement", "words"),
    [("no-such-package>=1", "no-such-package is missing"), ("typer<0.1", "typer is "), ("typer>=99", "wanted is >=99")],
)
def test_a_package_that_is_missing_or_does_not_fit_is_told(
    requirement: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _: [requirement, "none; extra == 'dev'"])
    findings = Findings()
    check_host.check_python(findings)
    assert findings.found[-1].state == "failed"
    assert words in findings.found[-1].message


def test_it_reads_well_on_a_terminal(server: Server) -> None:
    done: CompletedProcess[str] = server.cli("doctor")
    lines = done.stdout.splitlines()
    assert lines[-1].endswith("0 failed, 1 not looked at")
    assert all(len(line) <= 115 for line in lines)
    assert any(line.startswith("ok       database ") for line in lines)


def test_secrets_are_taken_out_of_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    said = without_secrets("refused for hush-hush at postgresql://me:pw@host/db")
    assert said == "refused for *** at postgresql://***@host/db"
