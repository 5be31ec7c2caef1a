"""What an operator sees of jobs, and does about them."""

import json
from pathlib import Path

from tests.storage.outside import Rows
from tests.support.servers import run_cli


def test_an_operator_sees_why_a_job_was_given_up_and_has_it_tried_again_or_removed(tmp_path: Path) -> None:
    environment = {"MEMSTORE_DATA_DIR": str(tmp_path / "data")}
    (tmp_path / "data").mkdir(mode=0o700)
    run_cli(environment, "migrate")
    rows = Rows(environment)
    columns = "id, kind, payload, state, due_at, attempts, created_at, error"
    for job_id, state in (("job_1", "given_up"), ("job_2", "given_up"), ("job_3", "waiting"), ("job_4", "done")):
        error = "'the blob store does not answer'" if state == "given_up" else "NULL"
        rows.execute(
            f"INSERT INTO jobs ({columns}) VALUES ('{job_id}', 'erasure', '{{}}', '{state}', 1, 3, 1, {error})"
        )
    doctor = json.loads(run_cli(environment, "doctor", "--json", check=False).stdout)
    told = {finding["message"]: finding["state"] for finding in doctor["findings"] if finding["check"] == "jobs"}
    assert told == {
        "given up: 2": "warning",
        "due for more than 10 minutes, and nobody does them: 1": "warning",
    }
    listed = run_cli(environment, "jobs", "list", "--state", "given_up").stdout.splitlines()
    assert [line.split("  ")[0] for line in listed] == ["job_1", "job_2"]
    assert all("the blob store does not answer" in line for line in listed)
    run_cli(environment, "jobs", "retry", "job_1")
    run_cli(environment, "jobs", "discard", "job_2")
    assert "job job_4 is done" in run_cli(environment, "jobs", "retry", "job_4", check=False).stderr
    assert "job 'job_5' was not found" in run_cli(environment, "jobs", "discard", "job_5", check=False).stderr
    left = json.loads(run_cli(environment, "jobs", "list", "--json").stdout)
    assert [(job["id"], job["state"], job["attempts"]) for job in left] == [
        ("job_1", "waiting", 0), ("job_3", "waiting", 3), ("job_4", "done", 3),
    ]  # fmt: skip
