"""`memstore hold`: legal holds."""

from typing import Annotated

import typer

from app.cli import terminal
from app.cli.names import STORE_HELP
from app.cli.operator import of_store
from app.cli.running import with_storage
from app.contract import clock
from app.storage.storage import Storage
from app.stores.holds import Holds


def hold(
    store: Annotated[str, typer.Argument(metavar="STORE", help=STORE_HELP)],
    reason: Annotated[
        str | None, typer.Option(help="Why, for those who look after holds; shown to nobody else.")
    ] = None,
    release: Annotated[bool, typer.Option("--release", help="End the hold instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put a store under legal hold: until it is released, nothing of it can be deleted, redacted or erased."""
    if release and reason is not None:
        raise typer.BadParameter("goes with a new hold, not with --release", param_hint="--reason")

    async def work(storage: Storage) -> None:
        store_id, caller = await of_store(storage.database, store)
        holds = Holds(storage)
        if release:
            await holds.release(caller, store_id)
            if as_json:
                terminal.echo_json({"type": "memory_store_hold_released", "memory_store_id": store_id})
            else:
                terminal.echo(f"{store_id} is released")
            return
        row = await holds.place(caller, store_id, reason)
        since = clock.rfc3339(row["held_at"])
        if as_json:
            shown = {"type": "memory_store_hold", "memory_store_id": store_id, "held_at": since}
            terminal.echo_json({**shown, "reason": row["hold_reason"]})
        else:
            terminal.echo(f"{store_id} is under legal hold since {since}")

    with_storage(work)
