"""The deployment's files keep the promises of docs/how-to/deploy.md, and what is typed there works."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from app.settings import BadSettings, Settings, load
from scripts.settings_table import environment_names
from tests.docs.blocks import PROJECT, PYTHON, SHELL, blocks, reader_environment, run_as_reader
from tests.support.backends import Backend, Services
from tests.support.processes import Daemon, answers, free_port
from tests.support.servers import STOPPED, Server

CONTAINER, UNITS = PROJECT / "scripts" / "container", PROJECT / "scripts" / "systemd"
DEPLOY, SANDBOXES = "docs/how-to/deploy.md", "docs/how-to/sandboxes.md"


NEEDED = ("app", "alembic", "alembic.ini", "pyproject.toml", "requirements.lock", "README.md", "LICENSE", "docs/man")
"""Of a checkout, for a wheel."""
LOCKED = "memstore/bin/python -m pip install --quiet --require-hashes --requirement requirements.lock"
OURS = f"echo '{sysconfig.get_path('purelib')}' > \"$(echo memstore/lib/python*/site-packages)\"/ours.pth"
"""Instead, what the tests run with: the lock is installed in the image's test."""


PROGRAMS = "docs/how-to/programs.md"
PRINTED = """milk

/shopping/list.md 5
there is /shopping/list.md
4 deleted /shopping/list.md
seen up to 4 and left with 0
100
"""
"""By the programs of that page."""


def test_the_pages_make_wheels_that_serve_and_ask_without_the_checkout(tmp_path: Path) -> None:
    (install,) = [block for block in blocks(DEPLOY) if block.language == SHELL]
    install_client, _ = [block for block in blocks(PROGRAMS) if block.language == SHELL]
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in NEEDED:
        (checkout / name).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
        copy(PROJECT / name, checkout / name)
    replace = {LOCKED: OURS, "python3 -m venv": f"{sys.executable} -m venv"}
    assert "memstore 0." in run_as_reader([install], SHELL, checkout, {}, replace)
    alone = {"pip install --quiet": "pip install --quiet --no-deps", "python3 -m venv": f"{sys.executable} -m venv"}
    run_as_reader([install_client], SHELL, checkout, {}, alone)
    for name in ("app", "alembic"):
        shutil.rmtree(checkout / name)
    port = free_port()
    daemon = Daemon(
        "installed from a wheel",
        [checkout / "memstore" / "bin" / "memstore", "serve", "--port", str(port)],
        log=tmp_path / "log",
        ready=lambda: answers(port, "/readyz"),
        environment=reader_environment({}),
        directory=tmp_path,
    )
    daemon.start()
    try:
        key = (tmp_path / "data" / "api_key").read_text().strip()
        check_a_program(
            checkout / "program", {"MEMSTORE_BASE_URL": f"http://127.0.0.1:{port}", "MEMSTORE_API_KEY": key}
        )
    finally:
        assert daemon.stop() in STOPPED
    assert {"memstore.db", "api_key", "blobs"} <= {path.name for path in (tmp_path / "data").iterdir()}


def check_a_program(environment: Path, settings: dict[str, str]) -> None:
    """What the page's program prints in an environment that has the client, what it depends on, and nothing of ours."""
    (packages,) = environment.glob("lib/python*/site-packages")
    for needed in Path(sysconfig.get_path("purelib")).glob("urllib3*"):
        shutil.copytree(needed, packages / needed.name)
    requirements = metadata.requires("memstore-server") or []
    (needs,) = (packages / "memstore_client-0.1.0.dist-info" / "METADATA").parent.glob("METADATA")
    asked = re.findall(r"^Requires-Dist: (.*)$", needs.read_text(), re.MULTILINE)
    assert [each for each in requirements if each.startswith("urllib3")] == asked
    assert not (packages / "app").exists()
    program = environment / "program.py"
    program.write_text("\n\n".join(block.text for block in blocks(PROGRAMS) if block.language == PYTHON))
    python = environment / "bin" / "python"
    done = subprocess.run(
        [python, "-X", "dev", "-W", "error", program], env=reader_environment(settings), cwd=environment,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (PRINTED, "")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable", python, program],
        cwd=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_units_are_valid_and_leave_a_service_little_to_reach(tmp_path: Path) -> None:
    for unit in UNITS.iterdir():
        # The program is not installed here, and systemd asks whether it is there.
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/memstore/bin/memstore", "/bin/true"))
    units = [str(tmp_path / unit.name) for unit in UNITS.iterdir()]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    rate = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20"]
    done = subprocess.run([*rate, str(tmp_path / "memstore.service")], capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze can't rate a unit that is not loaded")
    assert done.returncode == 0, done.stdout + done.stderr


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((CONTAINER / name).read_text()))


def settings_named(text: str) -> set[str]:
    return set(re.findall(r"MEMSTORE_[A-Z0-9_]+", text)) - {"MEMSTORE_IMAGE"}


@pytest.mark.parametrize(
    "file",
    [*UNITS.glob("*.service"), *(CONTAINER / name for name in ("Containerfile", "compose.yaml", "kubernetes.yaml"))],
    ids=lambda file: file.name,
)
def test_every_setting_of_a_deployments_file_exists(file: Path) -> None:
    known = {name for field, info in Settings.model_fields.items() for name in environment_names(Settings, field, info)}
    assert settings_named(file.read_text()) <= known
    credentials = re.findall(r"LoadCredential=(memstore_\w+):", file.read_text())
    assert {name.upper() for name in credentials} <= known


def test_the_kubernetes_example_has_two_locked_replicas_that_are_never_both_drained() -> None:
    objects = {each["kind"]: each for each in documents("kubernetes.yaml")}
    deployment, job = objects["Deployment"]["spec"], objects["Job"]["spec"]
    assert deployment["replicas"] == 2
    assert objects["PodDisruptionBudget"]["spec"]["minAvailable"] == 1
    labels = deployment["template"]["metadata"]["labels"]
    assert objects["Service"]["spec"]["selector"] == labels == deployment["selector"]["matchLabels"]
    assert job["template"]["metadata"]["labels"] != labels, "the service must not send requests to the job"
    for spec in (deployment["template"]["spec"], job["template"]["spec"]):
        assert spec["securityContext"]["runAsNonRoot"] is True
        (container,) = spec["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
    (container,) = deployment["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_compose_runs_the_service_without_root_on_a_read_only_system_and_takes_secrets_from_outside() -> None:
    (compose,) = documents("compose.yaml")
    for name in ("memstore", "prepare"):
        service = compose["services"][name]
        assert (service["read_only"], service["user"], service["cap_drop"]) == (True, "65532:65532", ["ALL"])
    assert compose["services"]["memstore"]["ports"] == ["127.0.0.1:8080:8080"]
    asked = set(re.findall(r"\$\{(\w+):\?", (CONTAINER / "compose.yaml").read_text()))
    example = (CONTAINER / "compose.env.example").read_text()
    assert asked == set(re.findall(r"^(\w+)=$", example, re.MULTILINE))


def test_the_bucket_of_the_settings_is_made_and_one_that_is_there_is_fine(services: Services, tmp_path: Path) -> None:
    environment = Backend("postgres-s3", services).environment(tmp_path) | {"MEMSTORE_BLOB_URL": "s3://made-here/x"}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, CONTAINER / "make_bucket.py"], env=reader_environment(environment), capture_output=True
        )
        assert (done.returncode, done.stderr) == (0, b"")


def test_the_health_check_tells_a_server_that_works_from_none(server: Server) -> None:
    for port, status in ((server.base_url.rpartition(":")[2], 0), (str(free_port()), 1)):
        assert (
            subprocess.run([sys.executable, CONTAINER / "healthy.py", port], capture_output=True).returncode == status
        )


def test_a_secret_is_read_from_systemds_credentials_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memstore_database_url").write_text("postgresql://me:hidden@db/memstore\n")
    (tmp_path / "memstore_bootstrap_api_key").write_text("hidden key\n")
    (tmp_path / "aws").write_text("[default]\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert "me:hidden@db" in load().database_url
    assert load().bootstrap_api_key.get_secret_value() == "hidden key"  # type: ignore[union-attr]
    monkeypatch.setenv("MEMSTORE_DATABASE_URL", "postgresql://other/one")
    assert load().database_url == "postgresql://other/one"
    (tmp_path / "memstore_bootstrap_api_key").write_bytes(b"caf\xe9")
    with pytest.raises(BadSettings, match="memstore_bootstrap_api_key is not UTF-8 at byte 3"):
        load()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "nowhere"))
    assert load().bootstrap_api_key is None


def test_a_sandbox_writes_in_its_stores_as_described(server: Server, tmp_path: Path) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bwrap is not installed")
    if subprocess.run(["bwrap", "--ro-bind", "/", "/", "--unshare-user", "true"], capture_output=True).returncode:
        pytest.skip("bwrap can't make a user namespace here")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse can't be opened")
    with server.client() as client:
        store = client.beta.memory_stores.create(name="Team notes")
        places = {f"MEMSTORE_{place}_DIR": str(tmp_path / place.lower()) for place in ("RUN", "STATE", "CACHE")}
        settings = {
            **places, "MEMSTORE_BASE_URL": server.base_url, "MEMSTORE_API_KEY": server.api_key, "STORE": store.id,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }  # fmt: skip
        printed = run_as_reader(blocks(SANDBOXES), SHELL, tmp_path, settings)
        assert printed.splitlines()[1] == "plan.md"
        (memory,) = client.beta.memory_stores.memories.list(store.id, view="full")
        assert memory.type == "memory"
        assert (memory.path, memory.content) == ("/plan.md", "Ship it.\n")
