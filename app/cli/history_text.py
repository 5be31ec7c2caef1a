"""How the commands of the history look: one line for a version, a diff, a blame, a rollback."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.cells import cell_len

from app.cli import terminal
from app.cli.authors import Authors
from app.cli.tables import Column, Styled, natural_width, table
from app.cli.terminal import field, styled, visible
from app.contract import clock
from app.history.blame import Blamed
from app.history.comparing import Comparison
from app.history.rollback import RolledBack
from app.storage.rows.database import Row
from app.versions.operations import OPERATION_NAMES

_OPERATION_STYLES = {"created": "green", "modified": "yellow", "deleted": "red"}
_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}
_DIFF_HEADS = ("--- ", "+++ ")


def moment(row: Row) -> str:
    """When a version was made: `2026-11-20 12:00Z` on a terminal, to the second elsewhere."""
    text = clock.rfc3339(row["created_at"])
    return f"{text[:10]} {text[11 : 16 if terminal.is_terminal() else 19]}Z"


_LOG = (Column("N"), Column("WHEN"), Column("DID"), Column("WHO"), Column("PATH", least=12, middle=True))


def log(rows: Sequence[Row], authors: Authors, sources: Mapping[str, str]) -> Iterator[str]:
    """Versions, newest first, a line each. sources: what `moved_from` found."""
    lines = [_logged(row, authors, sources, narrow=False) for row in rows]
    # Rather the whole path than the ID beside an author's name.
    if terminal.is_terminal() and natural_width(lines) > terminal.width():
        lines = [_logged(row, authors, sources, narrow=True) for row in rows]
    return table(_LOG, lines)


def moved_from(rows: Sequence[Row]) -> dict[str, str]:
    """For each version that moved its memory, by ID: the path before. rows: newest first."""
    places: dict[str, str] = {}
    sources: dict[str, str] = {}
    for row in reversed(rows):
        if row["path"] is None:
            continue
        before = places.get(row["memory_id"])
        if before not in (None, row["path"]):
            sources[row["id"]] = str(before)
        places[row["memory_id"]] = row["path"]
    return sources


def _logged(row: Row, authors: Authors, sources: Mapping[str, str], *, narrow: bool) -> Sequence[str | Styled]:
    operation = OPERATION_NAMES[row["operation"]]
    place: str | Styled
    if row["redacted_at"] is not None:
        place = Styled(f"redacted {clock.rfc3339(row['redacted_at'])[:10]}", "dim")
    else:
        place = f"{sources[row['id']]} → {row['path']}" if row["id"] in sources else row["path"]
    number = Styled(f"@{row['seq']}", "cyan")
    who = authors.label(row, narrow=narrow)
    return number, moment(row), Styled(operation, _OPERATION_STYLES[operation]), who, place


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


def blame(found: Blamed, authors: Authors) -> Iterator[str]:
    """Each line of a memory behind the version that brought it; `?` where an earlier one may have."""
    origins = [line.origin for line in found.lines]
    marks = ["@" + str(origin.version["seq"]) + ("?" if origin.doubt else "") for origin in origins]
    labels = [field(authors.label(origin.version)) for origin in origins]
    marks_wide = max(map(len, marks), default=0)
    wide = max(map(cell_len, labels), default=0)
    digits = len(str(len(marks)))
    for number, (mark, label, line) in enumerate(zip(marks, labels, found.lines, strict=True), 1):
        space = " " * (wide - cell_len(label))
        yield (
            f"{styled(mark, 'cyan')}{' ' * (marks_wide - len(mark))}  {moment(line.origin.version)}  {label}{space}  "
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
