"""`memstore backup` and `memstore restore-backup`: the whole deployment out, and into an empty one."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from app.backup.restoring import Restore, Restored
from app.backup.writing import BackedUp, Backup
from app.cli import operator, terminal
from app.cli.running import with_storage
from app.contract.errors import InvalidRequest
from app.storage.storage import Storage
from app.transfer.archives.writers import format_of


def backup(
    output: Annotated[Path, typer.Option(help="File that is not there yet: .tar, .tar.gz, .tgz or .tar.zst.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write everything into one file, of one moment, while servers go on.

    Exit status 1 when a content was missing.
    """
    archive_format = format_of(output.name)
    if archive_format is None or archive_format == "zip":
        raise InvalidRequest(f"{output.name!r}: name a file that ends with .tar, .tar.gz, .tgz or .tar.zst")

    async def work(storage: Storage) -> BackedUp:
        return await Backup(storage).write(output, archive_format, operator.actor())

    result = with_storage(work, doing=f"writing {output.name}", interrupted=f"nothing is left at {output}")
    if as_json:
        terminal.echo_json(asdict(result))
    else:
        terminal.echo(f"{result.rows:,} rows and {result.contents:,} contents ({result.bytes:,} bytes) are in {output}")
    for version_id in result.missing:
        terminal.echo(f"memstore: the content of version {version_id} is missing; see 'memstore fsck'", err=True)
    if (more := result.missing_count - len(result.missing)) > 0:
        terminal.echo(f"memstore: and those of {more:,} more", err=True)
    if result.missing:
        raise typer.Exit(1)


def restore_backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that 'memstore backup' wrote.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; otherwise say only what would be done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Restore a backup into an empty deployment, on either database and any blob store."""
    if not file.is_file():
        raise InvalidRequest(f"{str(file)!r} is no file")

    async def work(storage: Storage) -> Restored | None:
        restore = Restore(storage)
        if not yes:
            await restore.refuse_unless_empty()
            return None
        return await restore.read(file, operator.actor())

    result = with_storage(
        work,
        may_make=True,
        doing=f"reading {file.name}",
        interrupted="run the same again: it begins again, or says that everything was restored already",
    )
    if result is None:
        terminal.echo("the deployment is empty, and the backup would be restored into it; say --yes to do it")
    elif as_json:
        terminal.echo_json(asdict(result))
    else:
        what = f"{result.rows:,} rows and {result.contents:,} contents ({result.bytes:,} bytes)"
        terminal.echo(f"{what} are restored{' already: nothing was to do' if result.was_there else ''}")
