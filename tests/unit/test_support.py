"""The servers that the other tests stand on do what those rely on."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support import postgres
from tests.support.backends import Backend, Services
from tests.support.postgres import EmbeddedPostgres, Postgres, execute
from tests.support.processes import Daemon, ProcessError, answers, free_port, short_directory
from tests.support.s3 import S3Endpoint
from tests.support.scheduling import DEAREST, Scheduling
from tests.support.servers import Server, serve
from tests.support.waiting import until

PROJECT = Path(__file__).parents[2]


def program(tmp_path: Path, source: str, ready: Callable[[], bool] = lambda: True) -> Daemon:
    return Daemon("program", [sys.executable, "-c", source], log=tmp_path / "log", ready=ready)


def web_server(tmp_path: Path, port: int) -> Daemon:
    return Daemon(
        "web server",
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)],
        log=tmp_path / "log",
        ready=lambda: answers(port, "/"),
        directory=tmp_path,
    )


def test_a_program_that_dies_at_its_start_is_reported_at_once_with_its_log(tmp_path: Path) -> None:
    daemon = program(tmp_path, "print('the reason'); raise SystemExit(3)", ready=lambda: False)
    with pytest.raises(ProcessError, match=r"(?s)status 3.*the reason"):
        daemon.start()
    assert daemon not in Daemon.running


def test_a_program_that_never_becomes_ready_is_reported_and_ended(tmp_path: Path) -> None:
    daemon = program(tmp_path, "import time; time.sleep(600)", ready=lambda: False)
    with pytest.raises(ProcessError, match="not ready after"):
        daemon.start(within=0.0)
    assert daemon.process.returncode == -signal.SIGKILL


def test_stop_returns_the_exit_status_of_a_program_that_ends_by_itself(tmp_path: Path) -> None:
    source = "import signal; signal.signal(15, lambda *_: exit(7)); print('on', flush=True); signal.pause()"
    daemon = program(tmp_path, source, ready=lambda: "on" in daemon.log_tail())
    daemon.start()
    assert daemon.stop() == 7


def test_kill_ends_the_children_of_a_program_too(tmp_path: Path) -> None:
    port = free_port()
    child = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    source = f"import subprocess; subprocess.run({child})"
    daemon = program(tmp_path, source, ready=lambda: answers(port, "/"))
    daemon.start()
    daemon.kill()
    until(lambda: not answers(port, "/"), "nothing answers on the port")


def test_a_program_starts_again_on_the_same_port(tmp_path: Path) -> None:
    port = free_port()
    daemon = web_server(tmp_path, port)
    for _ in range(2):
        daemon.start()
        assert answers(port, "/")
        daemon.kill()
        assert not answers(port, "/")


def test_servers_and_directories_of_a_killed_test_run_are_cleaned_up(tmp_path: Path) -> None:
    port = free_port()
    script = f"""
        from pathlib import Path
        from tests.support.processes import short_directory
        from tests.unit.test_support import web_server

        with short_directory() as directory:
            web_server(Path({str(tmp_path)!r}), {port}).start()
            print(directory, flush=True)
            input()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        directory = Path(run.stdout.readline().strip())
        assert directory.is_dir()
        assert answers(port, "/")
        run.kill()
    until(lambda: not directory.exists(), "the directory is gone")
    until(lambda: not answers(port, "/"), "nothing answers on the port")


def test_reports_show_what_servers_printed_and_tests_that_share_a_module_fixture_share_a_worker(tmp_path: Path) -> None:
    """Tests that are run as the project's own are."""
    test = tmp_path / "test_sample.py"
    test.write_text(
        textwrap.dedent("""\
        import pytest
        from tests.support.processes import Daemon

        @pytest.fixture(scope="module")
        def log(tmp_path_factory, worker_id):
            print(f"set up in {worker_id}")
            log = tmp_path_factory.mktemp("sample") / "log"
            daemon = Daemon("the sample", ["sleep", "600"], log=log, ready=lambda: True)
            daemon.start()
            with log.open("a") as lines:
                yield lines
            daemon.kill()

        @pytest.mark.parametrize("number", range(6))
        def test_sample(log, number, worker_id):
            print(f"ran in {worker_id}")
            print(f"printed by {number}", file=log, flush=True)
            assert number != 4
        """)
    )
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-rP", "--numprocesses=2", "--dist=loadgroup"]
    command = [sys.executable, "-m", "pytest", *options, str(test)]
    printed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=240).stdout
    assert "1 failed, 5 passed" in printed
    assert printed.count("set up in ") == 1
    assert len(set(re.findall(r"ran in (gw\d)", printed))) == 1
    assert "log of the sample" in printed
    assert re.findall(r"printed by \d", printed) == ["printed by 4"]


def test_what_takes_longest_begins_first() -> None:
    class Node:
        shutting_down = False

        def __init__(self) -> None:
            self.sent: list[int] = []

        def send_runtest_some(self, indexes: list[int]) -> None:
            self.sent += indexes

        def shutdown(self) -> None:
            self.shutting_down = True

    group = next(unit for unit in DEAREST if "::" not in unit)
    test = next(unit for unit in DEAREST if "::" in unit)
    tests = [
        "a.py::test_a[x]@many",
        "a.py::test_a[y]@many",
        "a.py::test_b",
        f"{test}[a parameter]",
        f"c.py::test_c@{group}",
    ]
    options = SimpleNamespace(loadscopereorder=True)
    scheduling = Scheduling(SimpleNamespace(option=options, getvalue=lambda name: ["popen"]), None)
    node = Node()
    scheduling.add_node(node)
    scheduling.add_node_collection(node, tests)
    scheduling.schedule()
    first = [tests[3], tests[4]] if DEAREST.index(test) < DEAREST.index(group) else [tests[4], tests[3]]
    assert [tests[index] for index in node.sent][:3] == [*first, tests[0]]


def test_what_shall_begin_first_exists() -> None:
    for unit in DEAREST:
        file, _, name = unit.partition("::")
        if name:
            assert f"def {name}(" in (PROJECT / file).read_text()
        elif "." in unit:
            assert (PROJECT / f"{unit.replace('.', '/')}.py").is_file()


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedPostgres]:
    with short_directory() as directory, EmbeddedPostgres(directory) as server:
        yield server


def test_where_postgres_can_not_run_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)
    with pytest.raises(ProcessError, match=r"user ID 4000000000 has no name.*MEMSTORE_TEST_POSTGRES_URL"):
        EmbeddedPostgres(tmp_path)


def test_each_postgres_database_is_fresh_and_its_own(embedded: EmbeddedPostgres) -> None:
    one, other = embedded.create_database(), embedded.create_database()
    execute(one, "CREATE TABLE note (text text)")
    assert execute(one, "SELECT count(*) FROM pg_tables WHERE tablename = 'note'") == "1"
    assert execute(other, "SELECT count(*) FROM pg_tables WHERE tablename = 'note'") == "0"


def test_postgres_keeps_what_was_committed_through_a_crash(embedded: EmbeddedPostgres) -> None:
    url = embedded.create_database()
    execute(url, "CREATE TABLE note AS SELECT 'kept' AS text")
    embedded.kill()
    with pytest.raises(ProcessError, match="psql"):
        execute(url, "SELECT 1")
    embedded.start()
    assert execute(url, "SELECT text FROM note") == "kept"


def test_postgres_stops_although_a_client_is_connected(embedded: EmbeddedPostgres) -> None:
    url = embedded.create_database()
    command = [postgres.program("psql"), "-X", "-A", "-t", "-d", url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        print("SELECT 'connected';", file=session.stdin, flush=True)
        assert session.stdout.readline() == "connected\n"
        embedded.stop()
    embedded.start()
    assert execute(url, "SELECT 1") == "1"


def test_a_given_postgres_server_is_left_without_our_databases(embedded: EmbeddedPostgres) -> None:
    databases = "SELECT count(*) FROM pg_database"
    before = embedded.execute(databases)
    with Postgres(embedded.url("postgres")) as given:
        url = given.create_database()
        assert execute(url, "SELECT current_database()").startswith("memstore_test_")
        assert embedded.execute(databases) != before
    assert embedded.execute(databases) == before


def assert_keeps_objects(endpoint: S3Endpoint) -> None:
    bucket = endpoint.create_bucket()
    with endpoint.client() as client:
        client.put_object(Bucket=bucket, Key="a/b", Body=b"content")
        assert client.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"content"
        assert client.list_objects_v2(Bucket=endpoint.create_bucket())["KeyCount"] == 0


def test_moto_keeps_objects(services: Services) -> None:
    assert_keeps_objects(services.moto)


def test_ceph_keeps_objects(ceph_endpoint: S3Endpoint) -> None:
    assert_keeps_objects(ceph_endpoint)


def test_each_environment_of_a_backend_shares_nothing_with_another(backend: Backend, tmp_path: Path) -> None:
    one, other = backend.environment(tmp_path), backend.environment(tmp_path)
    places = {"MEMSTORE_DATA_DIR", "MEMSTORE_DATABASE_URL", "MEMSTORE_BLOB_URL"} & one.keys()
    assert places
    assert not [name for name in places if one[name] == other[name]]


def test_a_server_that_is_killed_and_started_again_keeps_its_stores(backend: Backend, tmp_path: Path) -> None:
    with serve(backend.environment(tmp_path)) as server, server.client(max_retries=0) as client:
        store = client.beta.memory_stores.create(name="kept")
        server.kill()
        assert not answers(int(server.base_url.rpartition(":")[2]), "/readyz")
        server.start()
        assert client.beta.memory_stores.retrieve(store.id) == store
        assert server.stop() in (0, -signal.SIGTERM)


def test_kill_ends_every_worker_of_a_server(backend: Backend, tmp_path: Path) -> None:
    with serve(backend.environment(tmp_path), workers=2) as server:
        server.kill()
        assert not answers(int(server.base_url.rpartition(":")[2]), "/healthz")


def test_a_server_does_not_see_the_settings_of_the_shell(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMSTORE_MAX_MEMORIES_PER_STORE", "not a number")
    with serve(backend.environment(tmp_path)) as server:
        assert server.process.poll() is None


def test_an_error_inside_serve_carries_the_log_of_the_server(backend: Backend, tmp_path: Path) -> None:
    with pytest.raises(LookupError) as caught, serve(backend.environment(tmp_path)) as server:
        raise LookupError
    assert server.log.read_text().strip()
    assert "end of the log" in "".join(caught.value.__notes__)


def test_a_server_that_dies_by_itself_fails_the_test(backend: Backend, tmp_path: Path) -> None:
    with (
        pytest.raises(ProcessError, match=f"status {-signal.SIGKILL}"),
        serve(backend.environment(tmp_path)) as server,
    ):
        os.killpg(server.process.pid, signal.SIGKILL)


def test_a_failing_command_is_reported_with_what_it_printed(server: Server) -> None:
    with pytest.raises(ProcessError, match=r"memstore no-such-command ended with status 2\n(?s:.+)"):
        server.cli("no-such-command")
    assert server.cli("no-such-command", check=False).returncode == 2


def test_a_test_that_hangs_or_ends_its_process_fails_alone_is_named_at_once_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "test_run.py").write_text(
        textwrap.dedent("""\
        import os
        import threading
        import pytest

        @pytest.fixture
        def hangs_at_its_end():
            yield
            never = threading.Event()
            while not never.is_set():
                try:
                    never.wait()
                except BaseException:
                    pass

        @pytest.mark.parametrize("number", range(4))
        def test_before(number): pass

        @pytest.mark.xdist_group("together")
        @pytest.mark.parametrize("number", range(3))
        def test_ends(number):
            if number == 1:
                os._exit(3)

        def test_hangs(hangs_at_its_end):
            assert False

        def test_after(): pass
        """)
    )
    plugins = [word for name in ("failures", "hangs", "scheduling") for word in ("-p", f"tests.support.{name}")]
    options = ["-n", "1", "--dist=loadgroup", *plugins, "-p", "no:cacheprovider", "--rootdir=."]
    environment = {**os.environ, "MEMSTORE_TEST_HANGS": "2", "PYTHONPATH": str(PROJECT), "PYTEST_ADDOPTS": ""}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_run.py"],
        cwd=tmp_path,
        env={name: value for name, value in environment.items() if not name.startswith("PYTEST_XDIST")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    expected = [("test_ends[1]@together", "worker"), ("test_hangs", "assert"), ("test_hangs", "worker")]
    at_once, _, at_the_end = run.stdout.partition("= FAILURES =")
    for printed in (at_once, at_the_end):
        failed = re.findall(
            r"^FAILED test_run.py::(\S+) - (?:test_run.py:\d+: )?(assert|worker)", printed, re.MULTILINE
        )
        assert sorted(failed) == expected
    assert re.search(r"3 failed, 7 passed", run.stdout.splitlines()[-1])
    assert "hangs_at_its_end" in run.stderr
