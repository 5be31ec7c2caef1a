"""A user ID without a name, as containers have it: every command works, and is recorded under the number."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.docs.blocks import PROJECT
from tests.support.processes import free_port
from tests.support.servers import Server

UID = "12345"
NAMELESS = ("unshare", "--user", f"--map-user={UID}", f"--map-group={UID}")

RUN_ALL = """
import contextlib, io, json, os, sys
from app.cli.main import main

for arguments in json.load(sys.stdin):
    sys.argv = ["memstore", *arguments]
    out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    out.flush()
    print(json.dumps([status, out.buffer.getvalue().decode(), err.getvalue()]), flush=True)
"""
"""Many commands in one process: importing what they need takes longer than all of them."""


def without_a_name(
    directory: Path, *commands: list[str], environment: Mapping[str, str] | None = None
) -> list[tuple[int, str, str]]:
    """Run commands as a user without a name, a home and any variable but PATH; status and output of each."""
    if shutil.which("unshare") is None or subprocess.run([*NAMELESS, "true"], capture_output=True).returncode:
        pytest.skip("unshare (util-linux) can't make a user namespace here")
    done = subprocess.run(
        [*NAMELESS, sys.executable, "-c", RUN_ALL],
        input=json.dumps(commands),
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(PROJECT), **(environment or {})},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(status, out, err) for status, out, err in map(json.loads, done.stdout.splitlines())]


def succeeded(results: list[tuple[int, str, str]]) -> list[str]:
    assert [(status, err) for status, _, err in results if status != 0] == []
    return [out for _, out, _ in results]


def test_every_command_of_an_administrator_works_without_a_name_and_a_home(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "tea.md").write_text("green\n")
    first = succeeded(
        without_a_name(
            tmp_path,
            ["migrate"],
            ["keys", "create", "--workspace", "default", "--json"],
            ["import", "notes", "--json"],
            ["keys", "list", "--json"],
            ["sessions", "list"],
        )
    )
    store = json.loads(first[2])["memory_store_id"]
    git = [["export", store, "--git", "repository"]] if shutil.which("git") else []
    printed = succeeded(
        without_a_name(
            tmp_path,
            *git,
            ["log", store, "--json"],
            ["blame", store, "/tea.md"],
            ["show", store, "/tea.md"],
            ["hold", store, "--reason", "case 7"],
            ["hold", store, "--release"],
            ["export", store, "--history", "--output", "notes.tar.gz"],
            ["backup", "--output", "all.tar"],
            ["fsck"],
            ["sweep"],
            ["doctor"],
            ["audit", "list", "--json"],
            ["audit", "verify"],
            ["forget", "--store", store, "--yes", "--report", "report.json"],
            ["forget", "verify", "report.json"],
        )
    )
    whole = "".join(printed)
    assert f"cli:{UID}" in whole
    actors = {entry["actor"]["user_id"] for entry in map(json.loads, printed[-4].splitlines()) if entry["actor"]}
    assert actors == {f"cli:{UID}"}
    assert json.loads((tmp_path / "report.json").read_text())["actor"]["user_id"] == f"cli:{UID}"
    restored = succeeded(
        without_a_name(tmp_path, ["restore-backup", "all.tar", "--yes"], environment={"MEMSTORE_DATA_DIR": "restored"})
    )
    assert restored[0].endswith("are restored\n")


def test_a_mount_without_a_name_and_a_home_works_where_it_is_told_its_places_and_says_so_else(
    server: Server, tmp_path: Path
) -> None:
    with server.client() as client:
        store = client.beta.memory_stores.create(name="Nameless")
        client.beta.memory_stores.memories.create(store.id, path="/a.md", content="kept")
    variables = {"MEMSTORE_BASE_URL": server.base_url, "MEMSTORE_API_KEY": server.api_key}
    mount = ["mount", "--store", store.id, "--root", "root", "--mode", "mirror"]
    run = {"MEMSTORE_RUN_DIR": str(tmp_path / "run")}
    # Docker gives a number without a name `/` for a home.
    ((status, _, err),) = without_a_name(tmp_path, mount, environment={**variables, **run, "HOME": "/proc"})
    assert status == 2
    assert err.startswith("memstore: the directory /proc/.local/state/memstore can't be made: ")
    assert "MEMSTORE_STATE_DIR" in err
    assert UID in err
    places = {**run, **{f"MEMSTORE_{name}_DIR": str(tmp_path / name.lower()) for name in ("STATE", "CACHE")}}
    # In one user namespace: a daemon answers nobody of another one.
    look, end = ["status", "--root", "root", "--json"], ["unmount", "--root", "root"]
    printed = succeeded(without_a_name(tmp_path, mount, look, end, environment={**variables, **places}))
    assert store.id in printed[1]


def test_a_database_url_without_a_user_and_a_closed_home_are_no_riddle_to_a_user_without_a_name(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0)
    for url, said in (
        (f"postgresql:///memstore?host={tmp_path}", f"names no user, and user ID {UID} has no name"),
        (f"postgresql://somebody@127.0.0.1:{free_port()}/memstore", "Connect call failed"),
    ):
        results = without_a_name(
            tmp_path, ["migrate"], ["keys", "list"], environment={"MEMSTORE_DATABASE_URL": url, "HOME": str(home)}
        )
        for status, _, err in results:
            assert status == 2, err
            assert len(err.splitlines()) == 1
            assert said in err
