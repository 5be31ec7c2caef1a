"""What the how-to pages tell an administrator to type is typed here."""

import re
import shutil
from pathlib import Path

import anthropic
import pytest

from tests.docs.blocks import PROJECT, PYTHON, SHELL, SHOWN_ONLY, Block, blocks, make_readers_directory, run_as_reader
from tests.support.backends import POSTGRES_S3, Backend, Services
from tests.support.servers import Server, run_cli, serve

pytestmark = pytest.mark.any_backend

PAGES = sorted(str(page.relative_to(PROJECT)) for page in (PROJECT / "docs" / "how-to").glob("*.md"))
KEYS, OPERATE = "docs/how-to/keys.md", "docs/how-to/operate.md"
REPLICAS, NGINX = "docs/how-to/replicas.md", "nginx"  # run by tests/faults/test_replicas.py
MOVING = "docs/how-to/move-in-and-out.md"
LEGAL_HOLD = "docs/how-to/legal-hold.md"
WATCH = "docs/how-to/watch.md"
FORGET = "docs/how-to/forget-a-person.md"
UNDO = "docs/how-to/see-and-undo.md"  # run by tests/contract/test_history_docs.py
PROXIES = "docs/how-to/proxies.md"  # run by tests/contract/test_behind_proxies.py
DEPLOY, SANDBOXES = "docs/how-to/deploy.md", "docs/how-to/sandboxes.md"  # run by tests/docs/test_deploy.py
PROGRAMS = "docs/how-to/programs.md"  # also
BACKUP, SCALE = "docs/how-to/backup-and-fsck.md", "docs/how-to/postgres-and-s3.md"
SQL = "sql"  # run by tests/storage/test_postgres_as_found.py


def test_every_page_with_commands_is_run_here() -> None:
    languages = {block.language for page in PAGES for block in blocks(page)}
    assert languages <= {SHELL, PYTHON, NGINX, SQL, *SHOWN_ONLY}
    typed = {
        KEYS,
        OPERATE,
        BACKUP,
        SCALE,
        REPLICAS,
        LEGAL_HOLD,
        FORGET,
        WATCH,
        MOVING,
        UNDO,
        PROXIES,
        DEPLOY,
        SANDBOXES,
        PROGRAMS,
    }
    assert {page for page in PAGES if blocks(page)} == typed


def test_keys_are_made_listed_and_revoked_as_described(server: Server, tmp_path: Path) -> None:
    directory = make_readers_directory(tmp_path / "checkout")
    make, listing, revoke = blocks(KEYS)
    run_as_reader([make], SHELL, directory, server.environment)
    listed = run_as_reader([listing], SHELL, directory, server.environment)
    (line,) = [line for line in listed.splitlines() if "CI of team A" in line]
    found = re.search(r"apikey_\w+", line)
    assert found, line
    run_as_reader([revoke], SHELL, directory, server.environment, {"apikey_01…": found[0]})


def test_a_store_is_held_and_released_as_described(server: Server, tmp_path: Path) -> None:
    directory = make_readers_directory(tmp_path / "checkout")
    hold, release = blocks(LEGAL_HOLD)
    with server.client() as client:
        store = client.beta.memory_stores.create(name="Held")
        held = run_as_reader([hold], SHELL, directory, server.environment, {"memstore_01…": store.id})
        assert held.startswith(f"{store.id} is under legal hold since ")
        with pytest.raises(anthropic.BadRequestError):
            client.beta.memory_stores.delete(store.id)
        run_as_reader([release], SHELL, directory, server.environment, {"memstore_01…": store.id})
        client.beta.memory_stores.delete(store.id)


def test_a_sweep_by_hand_works_beside_a_running_server(server: Server, tmp_path: Path) -> None:
    directory = make_readers_directory(tmp_path / "checkout")
    run_as_reader(blocks(OPERATE), SHELL, directory, server.environment)


def test_the_doctor_finds_nothing_broken_beside_a_running_server(server: Server, tmp_path: Path) -> None:
    directory = make_readers_directory(tmp_path / "checkout")
    examine = [block for block in blocks(WATCH) if block.language == SHELL]
    assert "0 failed" in run_as_reader(examine, SHELL, directory, server.environment)


def test_a_backup_made_as_described_while_the_server_runs_can_be_restored(tmp_path: Path) -> None:
    directory = make_readers_directory(tmp_path / "checkout")
    (directory / "data").mkdir()
    settings = {"MEMSTORE_DATA_DIR": str(directory / "data")}
    making, restoring, copying, check, repair = [block for block in blocks(BACKUP) if block.language == SHELL]
    with serve(settings) as server, server.client(max_retries=0) as client:
        (directory / "data" / "api_key").write_text(server.api_key, encoding="utf-8")
        stores = client.beta.memory_stores
        store = stores.create(name="Backed up")
        memory = stores.memories.create(store.id, path="/kept.md", content="kept")
        # One content is in the blob store, another one may still be in the database.
        run_cli(server.environment, "sweep")
        stores.memories.create(store.id, path="/late.md", content="late")
        run_as_reader([copying], SHELL, directory, settings)
        run_as_reader([making], SHELL, directory, settings)
        stores.memories.create(store.id, path="/after.md", content="not in the backup")

    restored = tmp_path / "restored"
    restored.mkdir()
    shutil.copy(directory / "backup" / "memstore.db", restored)
    shutil.copytree(directory / "backup" / "blobs", restored / "blobs")
    after = {"MEMSTORE_DATA_DIR": str(restored)}
    with serve(after, settings={"MEMSTORE_BOOTSTRAP_API_KEY": "another secret"}) as server:
        run_as_reader([check, repair], SHELL, directory, server.environment)
        with server.client(max_retries=0) as client:
            stores = client.beta.memory_stores
            paths = [item.path for item in stores.memories.list(store.id)]
            assert paths == ["/kept.md", "/late.md"]
            assert stores.memories.retrieve(memory.id, memory_store_id=store.id).content == "kept"
    elsewhere = {"MEMSTORE_DATA_DIR": str(tmp_path / "elsewhere")}
    assert run_as_reader([restoring], SHELL, directory, elsewhere).endswith(" are restored\nclean\n")


def test_a_store_is_moved_in_and_out_as_described(server: Server, tmp_path: Path) -> None:
    directory = make_readers_directory(tmp_path / "checkout")
    (directory / "vault" / ".obsidian").mkdir(parents=True)
    (directory / "vault" / ".obsidian" / "app.json").write_text("{}", encoding="utf-8")
    (directory / "vault" / "photo.png").write_bytes(b"\x89PNG\0")
    for name in ("a.md", "b.md"):
        (directory / "vault" / name).write_text(name, encoding="utf-8")
    bringing, taking = [block for block in blocks(MOVING) if block.language == SHELL]
    printed = run_as_reader([bringing], SHELL, directory, server.environment)
    found = re.search(r"memstore_\w+", printed)
    assert found, printed
    assert printed == f"2 memories are in {found[0]}; 2 skipped\n"
    printed = run_as_reader([taking], SHELL, directory, server.environment, {"memstore_01…": found[0]})
    (told,) = [block.text for block in blocks(MOVING) if block.text.startswith("2 memories and 2 versions of")]
    assert printed == told.replace("memstore_01…", found[0])


def test_postgresql_and_s3_are_set_up_as_described(services: Services, tmp_path: Path) -> None:
    environment = Backend(POSTGRES_S3, services).environment(tmp_path)
    directory = make_readers_directory(tmp_path / "checkout")
    settings, commands = (block for block in blocks(SCALE) if block.language == SHELL)
    exported = re.findall(r"^export (\w+)=", settings.text, re.MULTILINE)
    assert set(exported) <= {*environment, "AWS_REGION"}
    *before, serving = commands.text.splitlines()
    prepared = Block(
        commands.page,
        commands.line,
        SHELL,
        "\n".join(f"{line} --json" if "keys" in line else line for line in before),
    )
    printed = run_as_reader([prepared], SHELL, directory, environment)
    assert '"secret"' in printed
    assert serving.startswith(".venv/bin/memstore serve ")


def test_a_person_is_forgotten_and_it_is_proved_in_two_commands(tmp_path: Path) -> None:
    directory = make_readers_directory(tmp_path / "checkout")
    settings = {"MEMSTORE_DATA_DIR": str(tmp_path / "data")}
    (tmp_path / "data").mkdir()
    with serve(settings) as server, server.client(max_retries=0) as client:
        stores = client.beta.memory_stores
        gone, kept = (stores.create(name="Notes", metadata={"user": user}) for user in ("u_123", "u_1234"))
        stores.memories.create(gone.id, path="/tea.md", content="likes green tea")
        printed = run_as_reader(blocks(FORGET), SHELL, directory, settings)
        assert "Nothing is left of 1 store, 1 memory, 1 version" in printed
        assert [store.id for store in stores.list()] == [kept.id]
