"""The `memstore` command."""

import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from app import __version__

_HOMES = {
    "serve": "app.cli.serve:serve",
    "fsck": "app.cli.fsck:check",
    "sweep": "app.cli.fsck:sweep",
    "migrate": "app.cli.migrate:migrate",
    "doctor": "app.cli.doctor:doctor",
    "keys": "app.cli.keys:app",
    "forget": "app.cli.forget:app",
    "sessions": "app.cli.sessions:app",
    "log": "app.cli.history:log",
    "diff": "app.cli.history:diff",
    "show": "app.cli.history:show",
    "blame": "app.cli.history:blame",
    "restore": "app.cli.history:restore",
    "audit": "app.cli.audit:app",
    "hold": "app.cli.hold:hold",
    "export": "app.cli.transfer:export",
    "import": "app.cli.transfer:import_",
    "pull": "app.cli.transfer:pull",
    "backup": "app.cli.backup:backup",
    "restore-backup": "app.cli.backup:restore_backup",
    "mount": "app.cli.mount:mount",
    "unmount": "app.cli.mount:unmount",
    "flush": "app.cli.mount:flush",
    "status": "app.cli.mount:status",
    "run": "app.cli.mount:run",
    "attach": "app.cli.mount:attach",
}
"""Where each command or group of commands is. Its module is imported when it is asked for: a mount needs nothing of
the server, the server nothing of the mount, and each takes longer to import than some commands take to run."""

_SETTINGS: dict[str, dict[str, Any]] = {"run": {"allow_interspersed_args": False}}
"""Of `run`, what follows the command's name is the command's."""


class _Commands(MutableMapping[str, Any]):
    """The commands by name, each loaded when it is first asked for."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            module, _, attribute = _HOMES[name].partition(":")
            found = getattr(import_module(module), attribute)
            if not isinstance(found, typer.Typer):
                single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
                single.command(name, context_settings=_SETTINGS.get(name))(found)
                found = single
            self._loaded[name] = typer.main.get_command(found)
            self._loaded[name].name = name
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_HOMES)

    def __len__(self) -> int:
        return len(_HOMES)


class _Group(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**{**attributes, "commands": _Commands()})


app = typer.Typer(
    name="memstore",
    cls=_Group,
    help="Memory stores for agents, self-hosted. Settings are MEMSTORE_* variables: see docs/reference/settings.md.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"memstore {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Memory stores for agents, self-hosted."""


def main() -> None:
    """Run a command; what a person can mend is one sentence on standard error and exit status 2."""
    try:
        app()
    except Exception as error:
        if not _can_be_mended(error):
            raise
        print(f"memstore: {error}", file=sys.stderr)
        sys.exit(2)


def _can_be_mended(error: Exception) -> bool:
    """Whether the error is of a kind whose text tells a person what to do."""
    from app.contract.errors import MemstoreError
    from app.mount.sync.errors import MountError

    if isinstance(error, MemstoreError | MountError | OSError):
        return True
    from app.settings import BadSettings
    from app.storage.rows.migrations import SchemaOutOfDate

    return isinstance(error, BadSettings | SchemaOutOfDate)
