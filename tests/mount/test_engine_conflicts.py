"""Two writers of one file: merged, or kept beside, and both in the history."""

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import anthropic
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store
from hypothesis import given
from hypothesis import strategies as st

from app.contract import paths
from app.mount.door.entries import Entry
from app.mount.sync.conflicts import conflict_path
from app.mount.sync.delivery import Delivery
from app.mount.sync.engine import Policy
from app.mount.sync.errors import Refused
from app.mount.sync.intents import Intent
from app.mount.sync.journal import Journal
from tests.faults.proxy import Proxy
from tests.mount.engines import LABEL, Mounted, Remote, mounted
from tests.support.servers import Server
from tests.support.waiting import WAIT_SECONDS, until

Start = Callable[..., Mounted]


@pytest.fixture
def remote(server: Server, client: anthropic.Anthropic, store: Store) -> Remote:
    return Remote(server, client, store.id)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy.running(("127.0.0.1", urlsplit(server.base_url).port or 0)) as proxy:
        yield proxy


@pytest.fixture
def start(proxy: Proxy, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts an engine behind the proxy; while that forwards, every write waits for the server."""
    monkeypatch.setattr("app.mount.sync.uploader.PATIENCE_SECONDS", WAIT_SECONDS)
    with ExitStack() as running:

        def started(**options: object) -> Mounted:
            url, token = f"http://127.0.0.1:{proxy.port}", remote.server.api_key
            return running.enter_context(mounted(url, token, remote.store_id, tmp_path, **options))  # type: ignore[arg-type]

        yield started


BASE = "# Notes\n\none\ntwo\nthree\n"
OURS = "# Notes\n\nONE\ntwo\nthree\n"
THEIRS = "# Notes\n\none\ntwo\nTHREE\n"
BOTH = "# Notes\n\nONE\ntwo\nTHREE\n"
CLASH = "# Notes\n\n1\ntwo\nthree\n"


def test_edits_of_different_lines_are_merged(start: Start, remote: Remote) -> None:
    one = start()
    opened = one.write("/a.md", BASE)
    remote.update("/a.md", THEIRS)
    entry = one.engine.save("/a.md", OURS.encode(), opened)
    assert one.engine.fetch(entry).decode() == BOTH
    assert one.text("/a.md") == BOTH
    assert [text for *_, text in remote.versions()] == [BASE, THEIRS, BOTH]
    assert one.engine.status()["conflicts"] == []


def test_what_we_appended_follows_what_they_wrote(start: Start, remote: Remote) -> None:
    one = start()
    opened = one.write("/a.md", "log\n")
    remote.update("/a.md", "log, renamed\ntheirs\n")
    one.engine.save("/a.md", b"log\nours\n", opened)
    assert remote.texts() == {"/a.md": "log, renamed\ntheirs\nours\n"}


def test_edits_of_the_same_line_are_kept_side_by_side(start: Start, remote: Remote) -> None:
    one = start()
    opened = one.write("/d/a.md", BASE)
    remote.update("/d/a.md", CLASH)
    with pytest.raises(Refused) as refused:
        one.engine.save("/d/a.md", OURS.encode(), opened)
    assert refused.value.errno == errno.ESTALE
    expected = {"/d/a.md": CLASH, f"/d/a.conflict-{LABEL}.md": OURS}
    assert one.texts() == remote.texts() == expected
    assert [text for *_, text in remote.versions()] == [BASE, CLASH, OURS]
    (conflict,) = one.engine.status()["conflicts"]
    assert (conflict["path"], conflict["conflict_path"]) == ("/d/a.md", f"/d/a.conflict-{LABEL}.md")
    until(lambda: {change.path for change in one.changes} == set(expected), "both paths are told")


def test_a_second_conflict_gets_another_name(start: Start, remote: Remote) -> None:
    one = start()
    opened = one.write("/a.md", BASE)
    for number in range(3):
        remote.update("/a.md", CLASH + f"{number}\n")
        with pytest.raises(Refused):
            one.engine.save("/a.md", OURS.replace("ONE", f"ONE {number}").encode(), opened)
    assert set(remote.texts()) == {"/a.md"} | {f"/a.conflict-{LABEL}{end}.md" for end in ("", "-2", "-3")}


def test_a_file_that_both_made_with_the_same_text_is_one(start: Start, remote: Remote) -> None:
    one = start()
    memory_id = remote.create("/a.md", "same")
    assert one.engine.save("/a.md", b"same", None).memory_id == memory_id
    assert len(remote.versions()) == 1


def test_a_file_that_both_made_with_different_texts_is_two(start: Start, remote: Remote) -> None:
    one = start()
    remote.create("/a.md", "theirs")
    with pytest.raises(Refused) as refused:
        one.engine.save("/a.md", b"ours", None)
    assert refused.value.errno == errno.ESTALE
    assert remote.texts() == {"/a.md": "theirs", f"/a.conflict-{LABEL}.md": "ours"}


def test_a_merge_that_would_be_too_large_is_none(start: Start, remote: Remote) -> None:
    one = start()
    opened = one.write("/a.md", "start\n")
    theirs, ours = "start\n" + "t" * 60_000, "start\n" + "o" * 60_000
    remote.update("/a.md", theirs)
    with pytest.raises(Refused):
        one.engine.save("/a.md", ours.encode(), opened)
    assert remote.texts() == {"/a.md": theirs, f"/a.conflict-{LABEL}.md": ours}


def test_the_base_is_had_from_the_history_where_the_cache_lost_it(start: Start, remote: Remote) -> None:
    one = start()
    remote.create("/a.md", BASE)
    opened = one.wait_for("/a.md", BASE)
    remote.update("/a.md", THEIRS)
    one.wait_for("/a.md", THEIRS)
    two = start(name="two")
    assert two.engine.at_hand(opened) is None  # type: ignore[arg-type]
    two.engine.save("/a.md", OURS.encode(), opened)
    assert remote.texts() == {"/a.md": BOTH}


def test_last_writer_wins_keeps_the_other_in_the_history(start: Start, remote: Remote) -> None:
    one = start(policy=Policy.LAST_WRITER_WINS)
    opened = one.write("/a.md", BASE)
    remote.update("/a.md", THEIRS)
    one.engine.save("/a.md", OURS.encode(), opened)
    assert remote.texts() == {"/a.md": OURS}
    assert [text for *_, text in remote.versions()] == [BASE, THEIRS, OURS]


def test_fail_refuses_and_writes_nothing(start: Start, remote: Remote) -> None:
    one = start(policy=Policy.FAIL)
    opened = one.write("/a.md", BASE)
    remote.update("/a.md", THEIRS)
    with pytest.raises(Refused) as refused:
        one.engine.save("/a.md", OURS.encode(), opened)
    assert refused.value.errno == errno.ESTALE
    assert remote.texts() == {"/a.md": THEIRS}
    one.wait_for("/a.md", THEIRS)


@pytest.mark.parametrize(
    ("policy", "theirs", "expected"),
    [
        (Policy.MERGE, THEIRS, {"/a.md": BOTH}),
        (Policy.MERGE, CLASH, {"/a.md": CLASH, f"/a.conflict-{LABEL}.md": OURS}),
        (Policy.LAST_WRITER_WINS, THEIRS, {"/a.md": OURS}),
        (Policy.FAIL, THEIRS, {"/a.md": THEIRS, f"/a.conflict-{LABEL}.md": OURS}),
    ],
    ids=["merge-clean", "merge-conflict", "last-writer-wins", "fail"],
)
def test_what_was_accepted_offline_is_never_lost(
    start: Start, remote: Remote, proxy: Proxy, policy: Policy, theirs: str, expected: dict[str, str]
) -> None:
    one = start(policy=policy)
    one.write("/a.md", BASE)
    proxy.refuse()
    one.write("/a.md", OURS)
    assert one.text("/a.md") == OURS
    remote.update("/a.md", theirs)
    proxy.forward()
    assert one.engine.flush(WAIT_SECONDS) == []
    assert one.texts() == remote.texts() == expected
    assert {theirs, OURS} <= {text for *_, text in remote.versions()} | {BOTH, OURS}
    shown = {path for path, text in expected.items() if text != OURS or path != "/a.md"}
    until(lambda: {change.path for change in one.changes} == shown, "what differs from ours is told")
    assert one.engine.status()["refused"] == []


def test_a_refusal_that_crosses_the_acceptance_is_kept_beside(
    start: Start, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's answer is a conflict, and just then the journal has taken the write and `close` returns."""
    one = start(policy=Policy.FAIL)
    opened = one.write("/a.md", BASE)
    remote.update("/a.md", THEIRS)
    deliver, append = Delivery.deliver, Journal.append
    first, answered = threading.Lock(), threading.Event()

    def late(delivery: Delivery, intent: Intent) -> Entry | None:
        is_first = first.acquire(blocking=False)
        try:
            return deliver(delivery, intent)
        finally:
            if is_first:
                answered.set()
                until(lambda: intent.journaled, "the journal has it")

    def append_late(journal: Journal, intent: Intent) -> None:
        assert answered.wait(WAIT_SECONDS)
        append(journal, intent)

    monkeypatch.setattr(Delivery, "deliver", late)
    monkeypatch.setattr(Journal, "append", append_late)
    monkeypatch.setattr("app.mount.sync.uploader.PATIENCE_SECONDS", 0.001)
    one.engine.save("/a.md", OURS.encode(), opened)
    assert one.engine.flush(WAIT_SECONDS) == []
    assert remote.texts() == {"/a.md": THEIRS, f"/a.conflict-{LABEL}.md": OURS}
    assert one.engine.status()["refused"] == []


def test_a_rename_offline_to_a_path_that_is_taken_meanwhile_goes_beside(
    start: Start, remote: Remote, proxy: Proxy
) -> None:
    one = start()
    entry = one.write("/a.md", "ours")
    proxy.refuse()
    one.engine.rename(entry, "/b.md")
    remote.create("/b.md", "theirs")
    proxy.forward()
    assert one.engine.flush(WAIT_SECONDS) == []
    expected = {"/b.md": "theirs", f"/b.conflict-{LABEL}.md": "ours"}
    assert one.texts() == remote.texts() == expected
    assert remote.memories()[f"/b.conflict-{LABEL}.md"].id == entry.memory_id


def test_a_delete_offline_does_not_take_an_edit_by_somebody_else(start: Start, remote: Remote, proxy: Proxy) -> None:
    one = start()
    entry = one.write("/a.md", "ours")
    proxy.refuse()
    one.engine.remove(entry)
    assert one.engine.view() == {}
    remote.update("/a.md", "theirs")
    proxy.forward()
    assert one.engine.flush(WAIT_SECONDS) == []
    one.wait_for("/a.md", "theirs")
    until(lambda: [change.path for change in one.changes] == ["/a.md"], "it is told that the file is back")


segments = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=80)


@given(st.lists(segments, min_size=1, max_size=6), st.integers(0, 3))
def test_a_conflict_file_has_a_path_that_can_be_used(names: list[str], taken: int) -> None:
    path = "/" + "/".join(names)
    try:
        paths.check(path)
    except Exception:
        return
    used: set[str] = set()
    for _ in range(taken + 1):
        beside = conflict_path(path, LABEL, used.__contains__)
        assert beside not in used
        assert beside != path
        assert paths.check(beside) == beside
        assert beside.rpartition("/")[0] == path.rpartition("/")[0]
        assert len(beside.rpartition("/")[2].encode()) <= 255
        used.add(beside)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/notes.md", "/notes.conflict-s1.md"),
        ("/a.b/notes", "/a.b/notes.conflict-s1"),
        ("/.profile", "/.profile.conflict-s1"),
        ("/x/archive.tar.gz", "/x/archive.tar.conflict-s1.gz"),
    ],
)
def test_the_names_of_conflict_files(path: str, expected: str) -> None:
    assert conflict_path(path, "s1", lambda _: False) == expected
