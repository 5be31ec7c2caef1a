"""`memstore jobs`: the work that waits, runs, was given up, or is done."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from app.cli import terminal
from app.cli.running import with_database
from app.contract import clock
from app.jobs.queries import STATES
from app.jobs.service import Jobs
from app.storage.rows.database import Database, Row

app = typer.Typer(help="The work that servers do later.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="ID of the job (job_…).")]


@app.command(name="list")
def list_jobs(
    state: Annotated[
        str | None, typer.Option(help="Only jobs in this state: waiting, running, given_up or done.", metavar="STATE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the jobs, oldest first."""
    if state is not None and state not in STATES:
        raise typer.BadParameter(f"{state!r} is none of {', '.join(STATES)}", param_hint="--state")

    async def work(database: Database) -> None:
        jobs = [_shown(row) async for row in Jobs(database).list(state)]
        if as_json:
            terminal.echo_json(jobs)
            return
        for job in jobs:
            terminal.echo(terminal.field(_line(job)))
        if not jobs:
            terminal.echo("There are no jobs." if state is None else f"No job is {state.replace('_', ' ')}.")

    with_database(work)


@app.command()
def retry(job_id: JobId) -> None:
    """Have a job that waits, or was given up, tried again now. A server takes it up within seconds."""

    async def work(database: Database) -> None:
        await Jobs(database).retry(job_id)
        terminal.echo(f"{terminal.field(job_id)} waits for a server")

    with_database(work)


@app.command()
def discard(job_id: JobId) -> None:
    """Remove a job that waits or was given up: what it was to do is not done."""

    async def work(database: Database) -> None:
        await Jobs(database).discard(job_id)
        terminal.echo(f"{terminal.field(job_id)} is gone")

    with_database(work)


def _shown(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "kind": row["kind"],
        "subject": row["subject"],
        "state": row["state"],
        "attempts": row["attempts"],
        "created_at": clock.rfc3339(row["created_at"]),
        "due_at": clock.rfc3339(row["due_at"]),
        "finished_at": clock.rfc3339_or_none(row["finished_at"]),
        "error": row["error"],
        "result": None if row["result"] is None else json.loads(row["result"]),
    }


def _line(job: Mapping[str, Any]) -> str:
    """A job on one line; the reason of a failure comes last, where it may wrap."""
    when = {"waiting": f"due {job['due_at']}", "running": f"since attempt {job['attempts']}"}
    told = when.get(job["state"], f"ended {job['finished_at']}")
    line = f"{job['id']}  {job['state'].replace('_', ' ')}  {job['kind']}  {told}"
    return f"{line}  {job['error']}" if job["error"] else line
