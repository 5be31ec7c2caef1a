"""Which modules a command may import: each takes longer to import than some commands take to run."""

import json
import subprocess
import sys

import pytest

CLIENTS = ("mount", "unmount", "flush", "status", "kept", "run", "attach", "stores", "ls")
ADMINISTRATORS = ("keys", "sessions", "hold", "export", "import", "pull", "backup", "restore-backup", "fsck", "migrate")
HISTORY = ("log", "diff", "show", "blame", "restore", "audit")

SERVER = {"uvicorn", "app.server", "alembic", "boto3", "botocore"}
WEB = {"fastapi", "starlette"}
DATABASE = {"sqlalchemy", "pydantic", "pydantic_settings", "asyncpg", "fsspec", "app.storage", "app.settings"}


def imported_by(statement: str) -> set[str]:
    program = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    return set(json.loads(subprocess.check_output([sys.executable, "-c", program], text=True)))


def loading(*names: str) -> str:
    return f"from app.cli.main import load\nfor name in {names!r}: load(name)"


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        pytest.param(loading(*CLIENTS), SERVER | WEB | DATABASE, id="client-side commands"),
        pytest.param(loading(*ADMINISTRATORS), SERVER | WEB, id="administrators' commands"),
        pytest.param(loading(*HISTORY), SERVER | WEB, id="commands that show what the API shows"),
    ],
)
def test_a_command_imports_nothing_that_it_does_not_need(statement: str, forbidden: set[str]) -> None:
    assert imported_by(statement) & forbidden == set()


def test_the_list_of_commands_is_printed_without_importing_one() -> None:
    help_text = "from app.cli.main import app\ntry: app(['--help'])\nexcept SystemExit: pass"
    program = f"import json, sys\n{help_text}\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "restore-backup" in done.stdout
    assert {name for name in json.loads(done.stderr) if name.startswith("app.")} == {"app.cli", "app.cli.main"}
