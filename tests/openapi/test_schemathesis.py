"""The document against the running server: no 500, and no answer that is not in the document."""

import copy
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from app.feed.wire import EVENT_STREAM
from tests.support.backends import POSTGRES_S3, SQLITE_DISK, Backend
from tests.support.servers import Server

pytestmark = [pytest.mark.any_backend, pytest.mark.timeout(410)]

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
HOOKS = Path(__file__).with_name("hooks.py")
PROJECT = Path(__file__).parents[2]
SECONDS = 390
SEED = 20261120  # the same requests each time, but for the IDs
EXAMPLES = {SQLITE_DISK: 8, POSTGRES_S3: 6}
"""Random requests per operation and phase, beside those that the document's limits and examples give."""

CONFIGURATION = {
    SQLITE_DISK: """
        [phases.coverage]
        unexpected-methods = ["options", "put"]

        [[operations]]
        include-name = ["POST /v1/agents/{agent_id}", "POST /v1/sessions", "POST /v1/sessions/{session_id}"]
        phases.coverage.enabled = false
    """,
    POSTGRES_S3: """
        [phases.coverage]
        unexpected-methods = ["options", "put"]

        [[operations]]
        include-name = ["POST /v1/agents", "POST /v1/agents/{agent_id}", "POST /v1/sessions/{session_id}"]
        phases.coverage.enabled = false

        [[operations]]
        include-name = "POST /v1/sessions"
        phases.coverage.generation.mode = "positive"
    """,
}
"""What keeps a run short: an agent's tools can be right or wrong in a thousand ways, and four operations take them.

The coverage phase tries all of them in one operation with SQLite, and those that are right in another with PostgreSQL;
the models that refuse the others are the same, and refuse before the database is asked. Random requests try some
everywhere. tests/unit/test_http_binding.py tries every method.
"""


def strict(document: dict[str, Any]) -> dict[str, Any]:
    """A document that excuses nothing: without the answer to any other status, and with objects closed.

    Where a stream of events is the other answer to the same request, it must not be given: one that never ends could
    only end the run, and nobody asked for it with `Accept`. tests/contract/test_changes.py reads it.
    """
    stricter = copy.deepcopy(document)
    for operations in stricter["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("default", None)
            operation["responses"]["200"].get("content", {}).pop(EVENT_STREAM, None)
    for schema in stricter["components"]["schemas"].values():
        if schema.get("type") == "object":
            schema.setdefault("additionalProperties", False)
    return stricter


@pytest.fixture(scope="session")
def key(server: Server) -> dict[str, str]:
    """A key of a workspace whose listings no other test looks at: `secret` and `workspace_id`."""
    made: dict[str, str] = json.loads(server.cli("keys", "create", "--workspace", "openapi", "--json").stdout)
    return made


def test_schemathesis_finds_no_500_and_no_undocumented_answer(
    server: Server, backend: Backend, key: dict[str, str], tmp_path: Path
) -> None:
    with server.http() as http:
        document = http.get("/openapi.json").json()
    (tmp_path / "openapi.json").write_text(json.dumps(strict(document)))
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION[backend.name])
    arguments = [
        f"--url={server.base_url}",
        f"--header=x-api-key: {key['secret']}",
        f"--header=anthropic-workspace-id: {key['workspace_id']}",  # an invented one would be 403 each time,
        "--generation-with-security-parameters=false",  # and an invented key 401
        "--checks=all",
        "--mode=all",
        "--phases=examples,coverage,fuzzing,stateful",
        f"--max-examples={EXAMPLES[backend.name]}",
        f"--seed={SEED}",
        "--generation-database=none",
        "--report-json-path=report.json",
        "--continue-on-failure",
        "--no-color",
    ]
    done = subprocess.run(
        [SCHEMATHESIS, "run", "openapi.json", *arguments],
        cwd=tmp_path,
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": str(HOOKS),
            "PYTHONPATH": str(PROJECT),
            "NO_PROXY": "127.0.0.1",
            "OPENAPI_TEST_URL": server.base_url,
            "OPENAPI_TEST_KEY": key["secret"],
            "OPENAPI_TEST_STATUSES": "statuses.json",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert {name: phase["status"] for name, phase in report["phases"].items()} == dict.fromkeys(
        ("examples", "coverage", "fuzzing", "stateful"), "success"
    )
    # Whether an operation refuses too much of what fits its schema: `check_reach` looks, and does not guess by shares.
    del report["warnings"]["validation_mismatch"]
    assert not any(report["warnings"].values()), report["warnings"]
    check_reach(document, json.loads((tmp_path / "statuses.json").read_text()))


def check_reach(document: dict[str, Any], statuses: dict[str, dict[str, int]]) -> None:
    """Each operation was called with success and, where its rules allow, refused; and few calls ended at the door."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            name = f"{method.upper()} {path}"
            has_rules = "requestBody" in operation or "limit" in str(operation.get("parameters"))
            wanted = {"200"} | ({"400"} if has_rules else set()) | ({"404"} if "{" in path else set())
            assert statuses[name].keys() >= wanted, name
    total = sum((Counter(counts) for counts in statuses.values()), Counter())
    assert total["400"] > 5 * (total["401"] + total["403"])
