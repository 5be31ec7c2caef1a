"""The document against the running server: no 500, and no answer that is not in the document."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.backends import POSTGRES_S3, SQLITE_DISK, Backend
from tests.support.servers import Server

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
HOOKS = Path(__file__).with_name("hooks.py")
PROJECT = Path(__file__).parents[2]
SECONDS = 240
SEED = 20261120  # the same requests each time, but for the IDs
EXAMPLES = {SQLITE_DISK: 20, POSTGRES_S3: 4}
"""Random requests per operation and phase, beside those that the document's limits and examples give."""


def strict(document: dict[str, Any]) -> dict[str, Any]:
    """A document that excuses nothing: without the answer to any other status, and with objects closed."""
    stricter = copy.deepcopy(document)
    for operations in stricter["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("default", None)
    for schema in stricter["components"]["schemas"].values():
        if schema.get("type") == "object":
            schema.setdefault("additionalProperties", False)
    return stricter


@pytest.fixture(scope="session")
def key(server: Server) -> str:
    """A key of a workspace whose listings no other test looks at."""
    made = json.loads(server.cli("keys", "create", "--workspace", "openapi", "--json").stdout)
    secret: str = made["secret"]
    return secret


def test_schemathesis_finds_no_500_and_no_undocumented_answer(
    server: Server, backend: Backend, key: str, tmp_path: Path
) -> None:
    with server.http() as http:
        document = http.get("/openapi.json").json()
    (tmp_path / "openapi.json").write_text(json.dumps(strict(document)))
    arguments = {
        "--url": server.base_url,
        "--header": f"x-api-key: {key}",
        "--checks": "all",
        "--mode": "all",
        "--phases": "examples,coverage,fuzzing,stateful",
        "--max-examples": str(EXAMPLES[backend.name]),
        "--seed": str(SEED),
        "--generation-database": "none",
        "--report-json-path": "report.json",
    }
    done = subprocess.run(
        [SCHEMATHESIS, "run", "openapi.json", "--continue-on-failure", "--no-color", *sum(arguments.items(), ())],
        cwd=tmp_path,
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": str(HOOKS),
            "PYTHONPATH": str(PROJECT),
            "NO_PROXY": "127.0.0.1",
            "OPENAPI_TEST_URL": server.base_url,
            "OPENAPI_TEST_KEY": key,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["phases"].keys() == {"examples", "coverage", "fuzzing", "stateful"}
    assert {phase["status"] for phase in report["phases"].values()} == {"success"}
    assert not any(report["warnings"].values()), report["warnings"]
    operations = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    rates = report["valid_rates"]
    reached = {name for name in operations if any(phase["accepted"] for phase in rates[name].values())}
    assert reached == operations, "these operations were never called with success"
