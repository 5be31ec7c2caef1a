"""One edit by a common tool is one version of the memory; a close that changed nothing is none."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.fake_engine import FakeEngine
from tests.mount.mounted import Mounted, mounted, needs_fuse

pytestmark = needs_fuse

BEFORE = "one\ntwo\nthree\n"

PYTHON_REPLACE = """python3 -c '
import os, tempfile
descriptor, name = tempfile.mkstemp(dir=".")
os.write(descriptor, b"new")
os.close(descriptor)
os.replace(name, "notes.md")
'"""
PATCH = """patch -s notes.md <<'END'
--- notes.md
+++ notes.md
@@ -1,3 +1,3 @@
 one
-two
+TWO
 three
END"""

EDITS = {
    "redirect": "echo hi > notes.md",
    "redirect of a program": "/bin/echo hi > notes.md",
    "append": "echo four >> notes.md",
    "append of a program": "/bin/echo four >> notes.md",
    "group of commands": "{ echo a; /bin/echo b; cat /etc/hostname; echo c; } > notes.md",
    "subshell with children": "( echo a; /bin/echo b; /bin/echo c ) > notes.md",
    "here document": "cat > notes.md <<END\nhello\nEND",
    "tee": "echo hi | tee notes.md > /dev/null",
    "tee -a": "echo hi | tee -a notes.md > /dev/null",
    "cp": "echo hi > /tmp/.source-of-cp && cp /tmp/.source-of-cp notes.md; rm /tmp/.source-of-cp",
    "dd": "echo hi | dd of=notes.md status=none",
    "dd in the middle": "printf X | dd of=notes.md bs=1 seek=2 conv=notrunc status=none",
    "truncate": "truncate -s 3 notes.md",
    "truncate to nothing": ": > notes.md",
    "sed -i": "sed -i s/two/TWO/ notes.md",
    "sed -i with a backup": "sed -i~ s/two/TWO/ notes.md && rm notes.md~",
    "perl -i": "perl -pi -e s/two/TWO/ notes.md",
    "patch": PATCH,
    "python": """python3 -c 'open("notes.md", "w").write("hi")'""",
    "python append": """python3 -c 'open("notes.md", "a").write("hi")'""",
    "python r+": """python3 -c '
with open("notes.md", "r+") as file:
    file.write("ONE"); file.flush(); file.seek(0, 2); file.write("more")'""",
    "python mkstemp and replace": PYTHON_REPLACE,
    "python fsync": """python3 -c '
import os
with open("notes.md", "w") as file:
    file.write("hi"); file.flush(); os.fsync(file.fileno())'""",
    "python mmap": """python3 -c '
import mmap, os
descriptor = os.open("notes.md", os.O_RDWR)
memory = mmap.mmap(descriptor, 0)
os.close(descriptor)
memory[:3] = b"ONE"
memory.close()'""",
    "child of python": """python3 -c '
import subprocess
with open("notes.md", "w") as file:
    subprocess.run(["echo", "hi"], stdout=file); subprocess.run(["echo", "ho"], stdout=file)'""",
    "python threads": """python3 -c '
import os, threading
descriptor = os.open("notes.md", os.O_WRONLY | os.O_TRUNC)
for work in (lambda: os.write(descriptor, b"hi"), lambda: os.close(descriptor)):
    thread = threading.Thread(target=work); thread.start(); thread.join()'""",
    "node": """node -e 'require("fs").writeFileSync("notes.md", "hi")'""",
    "node promises": """node -e 'require("fs/promises").writeFile("notes.md", "hi")'""",
    "vim": "vim -u NONE -es -c '%s/two/TWO/' -c wq notes.md < /dev/null",
    "vim with a backup": "vim -u NONE -es -c 'set backup writebackup backupcopy=no' -c '%s/two/TWO/' -c wq notes.md"
    " < /dev/null; rm -f notes.md~",
    "rsync": "echo hello > /tmp/.rsync-source; rsync /tmp/.rsync-source notes.md; rm /tmp/.rsync-source",
    "backup by mv": "mv notes.md notes.md~ && echo new > notes.md && rm notes.md~",
}

NO_EDITS = {
    "read": "cat notes.md > /dev/null; grep -r one . > /dev/null; ls -lR > /dev/null",
    "touch": "touch notes.md",
    "the same text": "printf 'one\\ntwo\\nthree\\n' > notes.md",
    "open for writing": "exec 3>>notes.md; exec 3>&-",
    "chmod": "chmod 600 notes.md; chown 1:1 notes.md",
    "scratch files": "echo x > .notes.md.swp; echo y > 4913; echo z > '#notes.md#'; printf '\\377' > tmpabcdefgh;"
    " rm .notes.md.swp 4913 '#notes.md#' tmpabcdefgh",
    "away and back": "mv notes.md notes.md~ && mv notes.md~ notes.md",
    "tar": "tar cf /dev/null .",
}


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.other_writes("/notes.md", BEFORE)
    return engine


@pytest.fixture
def mount(engine: FakeEngine, tmp_path: Path) -> Iterator[Mounted]:
    with mounted(engine, tmp_path / "mnt") as mount:
        yield mount


def skip_without_tools(script: str) -> None:
    for tool in ("rsync", "vim", "node", "patch", "perl", "git"):
        if (script.startswith(f"{tool} ") or f" {tool} " in script) and shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


@pytest.mark.parametrize("edit", EDITS)
def test_one_edit_is_one_version_and_keeps_the_id(engine: FakeEngine, mount: Mounted, edit: str) -> None:
    skip_without_tools(EDITS[edit])
    before = engine.get("/notes.md")
    mount.run(EDITS[edit])
    mount.settle()
    assert [(operation, path) for operation, path, *_ in engine.asked] == [("save", "/notes.md")]
    after = engine.get("/notes.md")
    assert before is not None
    assert after is not None
    assert after.memory_id == before.memory_id
    assert list(engine.texts()) == ["/notes.md"]
    assert (mount.path / "notes.md").read_text() == engine.texts()["/notes.md"] != BEFORE


@pytest.mark.parametrize("script", NO_EDITS)
def test_what_changes_nothing_makes_no_version(engine: FakeEngine, mount: Mounted, script: str) -> None:
    mount.run(NO_EDITS[script])
    mount.settle()
    assert engine.asked == []
    assert engine.texts() == {"/notes.md": BEFORE}
    assert (mount.path / "notes.md").read_text() == BEFORE


CREATIONS = {
    "redirect": "echo hi > new.md",
    "touch": "touch new.md",
    "cp": "cp notes.md new.md",
    "cp -a": "cp -a notes.md new.md",
    "rsync": "rsync notes.md new.md",
    "mv from outside": "echo hi > /tmp/.source-of-mv2 && mv /tmp/.source-of-mv2 new.md",
    "python mkstemp and rename": PYTHON_REPLACE.replace("notes.md", "new.md"),
    "vim": "vim -u NONE -es -c 'normal ihello' -c wq new.md < /dev/null",
    "tar": "tar cf - --transform s/notes/new/ notes.md | tar xf -",
    "mknod": """python3 -c 'import os; os.mknod("new.md")'""",
    "install": "install -m 644 notes.md new.md",
    "open without write access": """python3 -c 'import os; os.close(os.open("new.md", os.O_RDONLY | os.O_CREAT))'""",
}


@pytest.mark.parametrize("how", CREATIONS)
def test_a_new_file_is_one_version(engine: FakeEngine, mount: Mounted, how: str) -> None:
    skip_without_tools(CREATIONS[how])
    mount.run(CREATIONS[how])
    mount.settle()
    assert [(operation, path) for operation, path, *_ in engine.asked] == [("save", "/new.md")]
    assert sorted(engine.texts()) == ["/new.md", "/notes.md"]


def test_mv_keeps_the_id(engine: FakeEngine, mount: Mounted) -> None:
    before = engine.get("/notes.md")
    mount.run("mkdir -p a/b && mv notes.md a/b/renamed.md")
    after = engine.get("/a/b/renamed.md")
    assert before is not None
    assert after is not None
    assert after.memory_id == before.memory_id
    assert engine.asked == [("rename", "/notes.md", "/a/b/renamed.md")]


def test_mv_over_another_memory_keeps_the_target_id(engine: FakeEngine, mount: Mounted) -> None:
    target = engine.other_writes("/target.md", "old")
    mount.run("mv notes.md target.md")
    after = engine.get("/target.md")
    assert after is not None
    assert after.memory_id == target.memory_id
    assert engine.texts() == {"/target.md": BEFORE}
    assert (mount.path / "target.md").read_text() == BEFORE


def test_a_directory_moves_in_one_step(engine: FakeEngine, mount: Mounted) -> None:
    engine.other_writes("/d/one.md", "1")
    engine.other_writes("/d/e/two.md", "2")
    mount.run("mv d f && cat f/one.md f/e/two.md && echo more >> f/e/two.md")
    mount.settle()
    assert engine.asked == [("rename_tree", "/d/", "/f/"), ("save", "/f/e/two.md")]
    assert engine.texts() == {"/f/e/two.md": "2more\n", "/f/one.md": "1", "/notes.md": BEFORE}


@pytest.mark.parametrize(
    "script",
    [
        "echo hi > /tmp/.source-of-mv && mv /tmp/.source-of-mv notes.md",
        PATCH.replace("patch -s notes.md", "git apply -p0"),
    ],
    ids=["mv from another filesystem", "git apply"],
)
def test_tools_that_remove_first_make_a_new_memory(engine: FakeEngine, mount: Mounted, script: str) -> None:
    """They say so themselves: they unlink the file and make another, which is not one edit to anybody."""
    mount.run(script)
    mount.settle()
    assert engine.asked == [("remove", "/notes.md"), ("save", "/notes.md")]
    assert (mount.path / "notes.md").read_text() == engine.texts()["/notes.md"] != BEFORE
