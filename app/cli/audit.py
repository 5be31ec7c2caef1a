"""`memstore audit`: reading the audit log, and checking that nobody has tampered with it."""

import json
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from app.audit.service import AuditFilters, AuditLog, Head
from app.cli import moments, terminal
from app.cli.authors import Authors
from app.cli.running import with_database
from app.cli.tables import Column, table
from app.contract import clock
from app.history.authors import names_of
from app.storage.rows.database import Database, Row
from app.transfer.archives.files import replaced_file

app = typer.Typer(help="The audit log: who did what. Of every workspace.", no_args_is_help=True)

_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")
_FAULTS = {
    "missing": "is missing",
    "changed": "is not what was written there, or not in its place",
    "unexpected": "is there without belonging to the log",
}


def _head(text: str | None) -> Head | None:
    if text is None:
        return None
    match = _HEAD.fullmatch(text)
    if match is None:
        raise typer.BadParameter(
            f"must be SEQ:SHA256 as 'memstore audit verify' prints it, not {text!r}", param_hint="--expect"
        )
    return Head(int(match[1]), bytes.fromhex(match[2]))


_COLUMNS = (
    Column("N"),
    Column("WHEN"),
    Column("WHAT", least=12),
    Column("WHO"),
    Column("ON", least=12, middle=True),
    Column("DETAIL", least=8),
)
_WIDE = 120
"""Cells from which on there is room for an ID beside an author's name."""
_AT_ONCE = 500
"""Entries whose columns are aligned with each other: a log may be longer than memory."""


def _line(row: Row, authors: Authors) -> Sequence[str]:
    when = clock.rfc3339(row["at"])
    detail = json.loads(row["detail"])
    return (
        str(row["seq"]),
        moments.short(when) if terminal.is_terminal() else when,
        row["action"],
        authors.label(row, narrow=terminal.width() < _WIDE),
        row["subject"] or "-",
        " ".join(f"{name}={value}" for name, value in detail.items() if value is not None),
    )


@app.command(name="list")
def list_entries(
    action: Annotated[str | None, typer.Option(help="Only this action, such as store.deleted.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only what was done to the thing with this ID.")] = None,
    actor: Annotated[
        str | None, typer.Option(metavar="WHO", help="Only by this key's or session's name, or ID, or its beginning.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only from then on: RFC 3339, or 15m, 2h, 3d ago.")
    ] = None,
    only_ids: Annotated[bool, typer.Option("--ids", help="Show authors by their IDs, not their names.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each.")] = False,
) -> None:
    """Show the entries, oldest first."""
    start = None if since is None else moments.parse(since, "--since")
    filters = AuditFilters(action=action, subject=subject, created_from=start)

    async def work(database: Database) -> None:
        async for rows in _batches(await AuditLog(database).export(filters)):
            authors = Authors(await names_of(database, rows), only_ids=only_ids)
            chosen = [row for row in rows if actor is None or authors.is_meant(row, actor)]
            if as_json:
                from app.audit import wire

                for row in chosen:
                    terminal.echo(terminal.safe_json(wire.line(row).decode()), nl=False)
            else:
                for line in table(_COLUMNS, [_line(row, authors) for row in chosen]):
                    terminal.echo(line, nl=False)

    with_database(work)


async def _batches(rows: AsyncIterator[Row]) -> AsyncIterator[list[Row]]:
    batch: list[Row] = []
    async for row in rows:
        batch.append(row)
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    yield batch


@app.command()
def export(
    output: Annotated[Path | None, typer.Option(help="File to write; absent: standard output.")] = None,
) -> None:
    """Write every entry as a line of JSON, oldest first, with its digest."""
    from app.audit import wire

    async def work(database: Database) -> None:
        rows = await AuditLog(database).export(AuditFilters())
        if output is None:
            async for row in rows:
                terminal.echo(terminal.safe_json(wire.line(row).decode()), nl=False)
            return
        with replaced_file(output) as file:
            async for row in rows:
                file.write(wire.line(row))

    with_database(work)


@app.command()
def verify(
    expect: Annotated[
        str | None, typer.Option(metavar="SEQ:SHA256", help="An end of the log that was noted before.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that no entry was removed, changed or reordered; exit status 1 if one was.

    What is cut off at the end can be seen against an end noted elsewhere only: this prints the one to note.
    """
    expected = _head(expect)

    async def work(database: Database) -> bool:
        verdict = await AuditLog(database).verify(expected)
        head = f"{verdict.head.seq}:{verdict.head.sha256.hex()}"
        if as_json:
            found = {"ok": verdict.bad_seq is None, "bad_seq": verdict.bad_seq, "fault": verdict.fault}
            terminal.echo_json({**found, "head": {"seq": verdict.head.seq, "sha256": verdict.head.sha256.hex()}})
        elif verdict.fault is None:
            terminal.echo(f"{verdict.head.seq:,} entries, each as it was written\nhead {head}")
        else:
            terminal.echo(f"entry {verdict.bad_seq} {_FAULTS[verdict.fault]}; good up to {head}")
        return verdict.bad_seq is None

    if not with_database(work):
        raise typer.Exit(1)
