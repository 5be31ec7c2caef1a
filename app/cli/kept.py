"""`memstore kept`: the texts that a mount of this host could not save (docs/mount.md)."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import terminal
from app.cli.terminal import field

if TYPE_CHECKING:
    from app.mount.sync.kept import Kept, KeptHere, KeptTexts

app = typer.Typer(name="kept", help="Texts that a mount could not save; they stay on this host.", no_args_is_help=True)

Which = Annotated[str, typer.Argument(metavar="STORE/ID", help="As 'memstore kept list' shows it.")]
HINT = "'memstore kept list' shows them, 'memstore kept take STORE/ID FILE' gives one back"


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List what could not be saved, the oldest first for each store: what, why, and where it is."""
    found = list(_here().all())
    if as_json:
        terminal.echo_json([{"memory_store_id": store_id, **kept.to_json()} for store_id, kept in found])
    elif not found:
        terminal.echo("nothing is kept")
    for store_id, kept in [] if as_json else found:
        terminal.echo("\n".join(lines_of(store_id, kept.to_json())))


@app.command()
def show(which: Which) -> None:
    """Print the text as it was written, byte for byte; in a terminal, control characters as escapes."""
    texts, kept_id = _find(which)
    terminal.show_bytes(texts.show(kept_id))


@app.command()
def take(
    which: Which,
    target: Annotated[Path, typer.Argument(metavar="FILE", help="A file that does not exist yet.")],
) -> None:
    """Write the text to a new file; it is kept here no longer."""
    texts, kept_id = _find(which)
    texts.take(kept_id, target)
    terminal.echo(f"{which} is in {target}")


@app.command()
def discard(
    which: Annotated[list[str], typer.Argument(metavar="STORE/ID…", help="As 'memstore kept list' shows it.")],
) -> None:
    """Remove texts permanently."""
    for texts, kept_id in [_find(one) for one in which]:
        texts.discard(kept_id)
    terminal.echo(f"{len(which)} discarded")


def lines_of(store_id: str, kept: dict[str, Any]) -> Iterator[str]:
    """One kept text (`Kept.to_json`) for people."""
    what = f"{kept['bytes']:,} bytes" if kept["bytes"] is not None else f"a {kept['operation']}"
    yield field(f"{store_id}/{kept['id']}  {kept['path']}  ({what}, {kept['at'][:19]}Z)")
    yield field(f"  {kept['reason']}")
    yield field(f"  {kept['place']}")


def count_of(number: int) -> str:
    """How many, as a sentence begins."""
    return f"{number} text{'' if number == 1 else 's'} that could not be saved {'is' if number == 1 else 'are'} kept"


def texts_in(state_directory: Path) -> "list[tuple[str, Kept]]":
    """Everything that is kept below a mount's state directory, with the IDs of the stores."""
    from app.mount.sync.kept import KeptHere

    return list(KeptHere(state_directory / "kept").all())


def _here() -> "KeptHere":
    from app.cli.mount_settings import variables
    from app.mount.daemon import places
    from app.mount.sync.kept import KeptHere

    return KeptHere(places.find(variables()).kept)


def _find(which: str) -> "tuple[KeptTexts, str]":
    store_id, separator, kept_id = which.rpartition("/")
    if not separator:
        raise typer.BadParameter(f"must be STORE/ID, as 'memstore kept list' shows it, not {which!r}")
    texts = _here().of(store_id)
    texts.get(kept_id)
    return texts, kept_id
