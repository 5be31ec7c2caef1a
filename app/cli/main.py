"""The `memstore` command."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer._click.exceptions import ClickException, NoArgsIsHelpError, UsageError
from typer.core import TyperCommand, TyperGroup

from app import __version__


class _Home(NamedTuple):
    """Where a command or a group of commands is, and its line in `memstore --help`."""

    place: str
    summary: str


_START, _STORES, _HISTORY = "Start", "Stores", "History"
_LAW, _AGENTS, _UPKEEP = "People and the law", "Agents and mounts", "Upkeep"

HOMES: dict[str, dict[str, _Home]] = {
    _START: {
        "serve": _Home("app.cli.serve:serve", "Serve the API."),
        "migrate": _Home("app.cli.migrate:migrate", "Bring the database to this version's schema."),
        "doctor": _Home("app.cli.doctor:doctor", "Check what a server or a mount on this host needs."),
        "keys": _Home("app.cli.keys:app", "Make, list and revoke API keys."),
    },
    _STORES: {
        "stores": _Home("app.cli.stores:app", "List, make and look at stores."),
        "ls": _Home("app.cli.stores:ls", "List the memories of a store."),
        "show": _Home("app.cli.history:show", "Print a memory's text, or that of a version."),
        "export": _Home("app.cli.transfer:export", "Copy a store out: archive, directory or Git."),
        "import": _Home("app.cli.transfer:import_", "Copy an export or any texts in."),
        "pull": _Home("app.cli.transfer:pull", "Copy a store from another server."),
    },
    _HISTORY: {
        "log": _Home("app.cli.history:log", "Show versions, newest first."),
        "diff": _Home("app.cli.history:diff", "Show what changed between two versions."),
        "blame": _Home("app.cli.history:blame", "Show who wrote each line."),
        "restore": _Home("app.cli.history:restore", "Undo: a memory or a whole store as it was."),
    },
    _LAW: {
        "forget": _Home("app.cli.forget:app", "Erase a person's memories, and prove it."),
        "hold": _Home("app.cli.hold:hold", "Put a store under legal hold."),
        "audit": _Home("app.cli.audit:app", "Show, export and verify the audit log."),
    },
    _AGENTS: {
        "sessions": _Home("app.cli.sessions:app", "Make and list sessions, and session tokens."),
        "mount": _Home("app.cli.mount:mount", "Open stores as directories."),
        "run": _Home("app.cli.mount:run", "Run a command that alone sees the stores."),
        "attach": _Home("app.cli.mount:attach", "Give the stores to a running sandbox."),
        "status": _Home("app.cli.mount:status", "Say what is mounted, and how it is."),
        "flush": _Home("app.cli.mount:flush", "Wait until all writes are on the server."),
        "unmount": _Home("app.cli.mount:unmount", "Save everything and take mounts away."),
        "kept": _Home("app.cli.kept:app", "List and give back what a mount could not save."),
    },
    _UPKEEP: {
        "backup": _Home("app.cli.backup:backup", "Write the whole deployment into one file."),
        "restore-backup": _Home("app.cli.backup:restore_backup", "Restore that into an empty deployment."),
        "fsck": _Home("app.cli.fsck:check", "Compare the database with the blob store."),
        "sweep": _Home("app.cli.fsck:sweep", "Do the servers' housekeeping once."),
        "jobs": _Home("app.cli.jobs:app", "Show and retry the work that servers do later."),
    },
}
"""The commands as `--help` groups them. A command's module is imported when it is run: a mount needs nothing of the
server, the server nothing of the mount, and `--help` nothing of either."""

_SETTINGS: dict[str, dict[str, Any]] = {"run": {"allow_interspersed_args": False}}
"""Of `run`, what follows the command's name is the command's."""


_USERS_UMASK = "app.cli.mount:"
"""Commands that make files of a user's own, as the user wants them; what they keep for themselves they close."""


def _place(name: str) -> str:
    return next(homes[name].place for homes in HOMES.values() if name in homes)


def load(name: str) -> Any:
    """The command or group of a name, its module imported."""
    place = _place(name)
    module, _, attribute = place.partition(":")
    found = getattr(import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command(name, context_settings=_SETTINGS.get(name))(found)
        found = single
    command = typer.main.get_command(found)
    command.name = name
    return command


class _Group(TyperGroup):
    """Holds a name and a line for each command until one is asked for."""

    def __init__(self, **attributes: Any) -> None:
        lines = {
            name: TyperCommand(name, help=home.summary, rich_help_panel=group)
            for group, homes in HOMES.items()
            for name, home in homes.items()
        }
        super().__init__(**{**attributes, "commands": lines})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, line, rest = super().resolve_command(ctx, args)
        return name, line and load(line.name or ""), rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            from app.cli import terminal

            terminal.echo(err=True)  # The terminal has written ^C.
            terminal.fail("; ".join(("interrupted", *map(str, interrupt.args))))
            raise typer.Exit(130) from None


app = typer.Typer(
    name="memstore",
    cls=_Group,
    help="Memory stores for agents, self-hosted. Settings are MEMSTORE_* variables: see docs/reference/settings.md.",
    epilog="memstore serve  ·  memstore mount --store ID --root memory  ·  memstore COMMAND --help",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"memstore {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Memory stores for agents, self-hosted."""
    if context.invoked_subcommand and not _place(context.invoked_subcommand).startswith(_USERS_UMASK):
        os.umask(0o077)  # Databases, blobs, exports, backups, reports: all of them hold what is in the stores.


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; what a person can fix is one sentence on standard error and exit status 2.

    arguments: what follows the program's name; None: those of the process.
    """
    try:
        status = app(arguments, prog_name="memstore", standalone_mode=False)
    except NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except ClickException as error:
        from app.cli import terminal

        terminal.fail(_usage(error))
        sys.exit(error.exit_code)
    except Exception as error:
        text = _told(error)
        if text is None:
            raise
        from app.cli import terminal

        terminal.fail(text)
        sys.exit(2)
    if isinstance(status, int):
        sys.exit(status)


def _usage(error: ClickException) -> str:
    """What was wrong with the arguments, in the style of every other refusal."""
    message = error.format_message().removeprefix("Invalid value: ").replace("Input should be", "must be").rstrip(".")
    context = error.ctx if isinstance(error, UsageError) else None
    hint = "" if context is None else f"; see '{context.command_path} --help'"
    return f"{message[:1].lower()}{message[1:]}{hint}"


def _told(error: Exception) -> str | None:
    """What a person is told who can do something about an error; None for a fault of the program's own."""
    if not _can_be_mended(error):
        from app.storage.rows.postgres_errors import cause_of, sentence

        cause = cause_of(error)
        return None if cause is None else f"the database can't be used: {sentence(cause)}"
    from app.contract.errors import Unavailable

    if isinstance(error, Unavailable) and error.__cause__ is not None:
        from app.storage.rows.postgres_errors import cause_of, sentence

        cause = cause_of(error.__cause__)
        if cause is not None and (more := sentence(cause)) not in str(error):
            return f"{error}: {more}"
    return str(error)


def _can_be_mended(error: Exception) -> bool:
    """Whether the error is of a kind whose text tells a person what to do."""
    from app.contract.errors import MemstoreError
    from app.mount.sync.errors import MountError

    if isinstance(error, MemstoreError | MountError | OSError):
        return True
    from app.settings import BadSettings
    from app.storage.rows.migrations import SchemaOutOfDate

    return isinstance(error, BadSettings | SchemaOutOfDate)
