"""How the commands of the history look: one line for a version, a diff, a blame, a rollback."""

from collections.abc import Iterable, Iterator, Sequence

from app.cli.terminal import field, styled, visible
from app.contract import clock
from app.history.blame import Blamed
from app.history.comparing import Comparison
from app.history.rollback import RolledBack
from app.storage.rows.database import Row
from app.versions.wire import OPERATION_NAMES

_OPERATION_STYLES = {"created": "green", "modified": "yellow", "deleted": "red"}
_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}
_DIFF_HEADS = ("--- ", "+++ ")


def moment(row: Row) -> str:
    """When a version was made, to the second: `2026-11-20 12:00:00Z`."""
    text = clock.rfc3339(row["created_at"])
    return f"{text[:10]} {text[11:19]}Z"


def author(row: Row) -> str:
    """The author of a version."""
    return field(row["actor_id"] or "-")


def log(rows: Sequence[Row]) -> Iterator[str]:
    """Versions, newest first, a line each."""
    places: dict[str, str] = {}
    sources: dict[str, str] = {}
    for row in reversed(rows):
        if row["path"] is None:
            continue
        before = places.get(row["memory_id"])
        if before not in (None, row["path"]):
            sources[row["id"]] = str(before)
        places[row["memory_id"]] = row["path"]
    width = max((len(str(row["seq"])) for row in rows), default=1) + 1
    authors = max((len(author(row)) for row in rows), default=1)
    for row in rows:
        operation = OPERATION_NAMES[row["operation"]]
        if row["redacted_at"] is not None:
            place = styled(f"redacted {clock.rfc3339(row['redacted_at'])[:10]}", "dim")
        else:
            place = field(row["path"])
            if row["id"] in sources:
                place = f"{field(sources[row['id']])} → {place}"
        size = "" if row["content_size"] is None else f"{row['content_size']:,} B"
        yield (
            f"{styled('@' + str(row['seq']), 'cyan')}{' ' * (width - len(str(row['seq'])) - 1)}  {moment(row)}  "
            f"{styled(operation, _OPERATION_STYLES[operation])}{' ' * (8 - len(operation))}  {size:>9}  "
            f"{author(row):<{authors}}  {place}\n"
        )


def diff(found: Comparison) -> Iterator[str]:
    """A comparison as `diff -u` prints it, with a line before it if the memory moved."""
    if found.is_renamed:
        assert found.before is not None
        yield styled(f"moved from {field(found.before.row['path'])} to {field(found.after.row['path'])}", "bold")
        yield "\n"
    head = True
    for line in found.unified.removesuffix("\n").split("\n") if found.unified else ():
        head = head and not line.startswith("@")
        style = "bold" if head and line.startswith(_DIFF_HEADS) else _DIFF_STYLES.get(line[:1])
        yield (styled(visible(line), style) if style else visible(line)) + "\n"


def blame(found: Blamed) -> Iterator[str]:
    """Each line of a memory behind the version that brought it; `?` where an earlier one may have."""
    origins = [line.origin for line in found.lines]
    marks = ["@" + str(origin.version["seq"]) + ("?" if origin.doubt else "") for origin in origins]
    width = max(map(len, marks), default=0)
    authors = max((len(author(origin.version)) for origin in origins), default=0)
    digits = len(str(len(marks)))
    for number, (mark, line) in enumerate(zip(marks, found.lines, strict=True), 1):
        version = line.origin.version
        yield (
            f"{styled(mark, 'cyan')}{' ' * (width - len(mark))}  {moment(version)}  {author(version):<{authors}}  "
            f"{styled(f'{number:>{digits}}', 'dim')}  {visible(line.text).removesuffix(chr(10))}\n"
        )


def rollback(done: RolledBack) -> Iterable[str]:
    """What a rollback did, or would do."""
    for change in done.plan.changes:
        operation = OPERATION_NAMES[change.operation]
        place = field(change.path)
        if change.memory is not None and change.memory["path"] != change.path:
            place = f"{field(change.memory['path'])} → {place}"
        yield f"{styled(operation, _OPERATION_STYLES[operation])}{' ' * (8 - len(operation))}  {place}\n"
    for version in done.plan.skipped:
        yield f"{styled('skipped', 'dim')}   {version['memory_id']} (its version of then is redacted)\n"
    number = len(done.plan.changes)
    memories = "1 memory" if number == 1 else f"{number:,} memories"
    if done.version_ids is None:
        yield f"would change {memories} to be as after change {done.seq}; nothing was done\n"
    elif number:
        yield f"changed {memories}: as after change {done.seq} again; the newest change is {done.last_seq}\n"
    else:
        yield f"nothing to do: all memories are as after change {done.seq}\n"
