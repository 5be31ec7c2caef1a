"""`memstore fsck` and `memstore sweep`: consistency and housekeeping by hand."""

from dataclasses import asdict
from typing import Annotated

import typer

from app.cli import terminal
from app.cli.running import with_storage
from app.storage.storage import Storage
from app.storage.upkeep.fsck import Fsck


def check(
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that every version has its content, every blob its version, and every counter its value.

    Exit status 1 when something was found, repaired or not.
    """

    async def work(storage: Storage) -> bool:
        findings = await Fsck(storage.database, storage.blobs).run(repair=repair)
        if as_json:
            terminal.echo_json({"ok": not findings, "findings": [asdict(finding) for finding in findings]})
            return not findings
        for finding in findings:
            repaired = " (repaired)" if finding.repaired else ""
            terminal.echo(f"{finding.kind}  {finding.store_id or '-'}  {terminal.field(finding.detail)}{repaired}")
        terminal.echo(f"{len(findings)} found" if findings else "clean")
        return not findings

    state = "what was repaired stays so; run the same again" if repair else "nothing was changed"
    if not with_storage(work, doing="comparing the database with the blob store", interrupted=state):
        raise typer.Exit(1)


def sweep() -> None:
    """One pass of the housekeeping that servers do by themselves: stage, deleted stores, retention, orphans."""

    async def work(storage: Storage) -> None:
        swept = await storage.sweeper.sweep(all_ages=True)
        for name, number in asdict(swept).items():
            terminal.echo(f"{name.replace('_', ' ')}: {number}")

    with_storage(work, doing="sweeping", interrupted="what is not swept waits for the next pass")
