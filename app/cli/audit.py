"""`memstore audit`: reading the audit log, and checking that nobody has tampered with it."""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from app.audit import wire
from app.audit.service import AuditFilters, AuditLog, Head
from app.cli import terminal
from app.cli.running import with_database
from app.contract import clock
from app.storage.rows.database import Database
from app.transfer.archives.files import replaced_file

app = typer.Typer(help="The audit log: who did what. Of every workspace.", no_args_is_help=True)

_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")
_FAULTS = {
    "missing": "is missing",
    "changed": "is not what was written there, or not in its place",
    "unexpected": "is there without belonging to the log",
}


def _moment(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return clock.microseconds(datetime.fromisoformat(text))
    except ValueError:
        raise typer.BadParameter(
            f"must be a time such as 2026-11-20T12:00:00Z, not {text!r}", param_hint="--since"
        ) from None


def _head(text: str | None) -> Head | None:
    if text is None:
        return None
    match = _HEAD.fullmatch(text)
    if match is None:
        raise typer.BadParameter(
            f"must be SEQ:SHA256 as 'memstore audit verify' prints it, not {text!r}", param_hint="--expect"
        )
    return Head(int(match[1]), bytes.fromhex(match[2]))


def _readable(entry: Mapping[str, Any]) -> str:
    actor = entry["actor"] or {}
    who = next((value for name, value in actor.items() if name != "type"), "-")
    detail = " ".join(f"{name}={value}" for name, value in entry["detail"].items())
    return "  ".join(
        (str(entry["seq"]), entry["at"], entry["action"], entry["subject"] or "-", f"by {who}", detail)
    ).rstrip()


@app.command(name="list")
def list_entries(
    action: Annotated[str | None, typer.Option(help="Only this action, such as store.deleted.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only what was done to the thing with this ID.")] = None,
    since: Annotated[str | None, typer.Option(help="Only from this time on (RFC 3339).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each.")] = False,
) -> None:
    """Show the entries, oldest first."""
    filters = AuditFilters(action=action, subject=subject, created_from=_moment(since))

    async def work(database: Database) -> None:
        async for row in await AuditLog(database).export(filters):
            if as_json:
                terminal.echo(terminal.safe_json(wire.line(row).decode()), nl=False)
            else:
                terminal.echo(terminal.field(_readable(wire.entry(row))))

    with_database(work)


@app.command()
def export(
    output: Annotated[Path | None, typer.Option(help="File to write; absent: standard output.")] = None,
) -> None:
    """Write every entry as a line of JSON, oldest first, with its digest."""

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
