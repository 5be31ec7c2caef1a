"""`memstore forget`: erase stores or memories wherever they are kept, and prove it."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import erasure_page, terminal
from app.cli.names import STORE, STORE_HELP, is_whole_id
from app.cli.operator import actor, of_store
from app.cli.running import with_storage
from app.contract.errors import InvalidRequest
from app.contract.text import check_reference
from app.erasure import wire
from app.erasure.folding import Folded
from app.erasure.plan import Plan, Planner
from app.erasure.report import is_report, report
from app.erasure.selection import Selection, parse_where
from app.erasure.service import Erasures, unfinished_text
from app.erasure.verification import Verdict, verify
from app.storage.storage import Storage
from app.transfer.archives.files import replaced_file

app = typer.Typer(
    help="Erase stores or memories wherever they are kept, and prove it.",
    invoke_without_command=True,
    add_completion=False,
)

_UNREADABLE = 2
_INTERRUPTED = 130
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def forget(
    context: typer.Context,
    store: Annotated[list[str] | None, typer.Option(help=f"{STORE_HELP} Repeatable.", metavar="STORE")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Stores with this pair in their metadata. Repeatable: all pairs.", metavar="KEY=VALUE"),
    ] = None,
    path_prefix: Annotated[
        str | None, typer.Option(help="Only the memories at this path or below it.", metavar="PATH")
    ] = None,
    contains: Annotated[
        str | None,
        typer.Option(
            help="What has this text, in any spelling: memories, in a path or content of any version; stores, in name, "
            "description or metadata; titles and names around them.",
            metavar="TEXT",
        ),
    ] = None,
    workspace: Annotated[str | None, typer.Option(help="Only in this workspace.", metavar="NAME")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without this, only show what would go.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Finish an erasure that was interrupted.")] = False,
    report_file: Annotated[
        Path | None, typer.Option("--report", help="Write the signed report here.", metavar="FILE", dir_okay=False)
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="What you call this erasure, such as the number of a request; the report shows it.", metavar="TEXT"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Erase stores or memories wherever they are kept, and prove it.

    With --store or --where alone, whole stores go. With --path-prefix or --contains, those memories go with all their
    versions, in these stores or in every store; a store whose own name, description or metadata has the text of
    --contains goes whole. Without --yes nothing changes.
    """
    if context.invoked_subcommand is not None:
        return
    selection = Selection(store or (), parse_where(where or ()), path_prefix, contains, workspace)
    if resume:
        if selection != Selection() or reference is not None:
            raise InvalidRequest(
                "--resume goes on with what was selected before; it takes no selection and no --reference"
            )
    else:
        selection.check()
    if reference is not None:
        check_reference(reference)

    if report_file is not None and (yes or resume):
        _check_place(report_file)  # Fail now if it can't be written, not after everything is gone.

    async def work(storage: Storage) -> dict[str, Any] | None:
        erasures = Erasures(storage, actor())
        unfinished = await erasures.unfinished()
        if resume:
            if unfinished is None:
                raise InvalidRequest("no erasure is unfinished; there is nothing to resume")
            return await report(storage.database, await erasures.run(unfinished["id"], _note))
        if unfinished is not None:
            _note(unfinished_text(unfinished))
        plan = await Planner(storage).plan(await _with_ids(storage, selection))
        if not yes:
            _show(plan, as_json=as_json)
            return None
        for line in _kept(plan):
            _note(line)
        if plan.is_empty:
            raise InvalidRequest("nothing matches, so nothing was erased")
        if plan.unreadable:
            _note(f"{plan.unreadable} contents could not be read, and so not be searched; see 'memstore fsck'")
        return await report(
            storage.database, await erasures.run(await erasures.begin(plan, reference=reference), _note)
        )

    try:
        made = with_storage(work)
    except KeyboardInterrupt:
        if not (yes or resume):
            raise
        target = "" if report_file is None else f" --report {report_file}"
        terminal.echo(err=True)  # The terminal has written ^C.
        terminal.fail(
            "interrupted; if the erasure had begun, a part of what was selected is gone: finish it with "
            f"'memstore forget --resume{target}'"
        )
        raise typer.Exit(_INTERRUPTED) from None
    if made is not None:
        _hand_over(made, report_file, as_json=as_json)


async def _with_ids(storage: Storage, selection: Selection) -> Selection:
    """The selection with the IDs of the stores that are called by name. An ID stays, also of a store that is gone."""
    workspace_id = await Planner(storage).workspace_id(selection.workspace)
    ids = [
        store if is_whole_id(STORE, store) else (await of_store(storage.database, store, workspace_id)).store_id
        for store in selection.store_ids
    ]
    return replace(selection, store_ids=ids)


@app.command(name="verify")
def verify_report(
    file: Annotated[Path, typer.Argument(help="A report of 'memstore forget'.")],
    contains: Annotated[str | None, typer.Option(help="Also look for this text everywhere.", metavar="TEXT")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a report's signature, and search the live system for what it says is gone.

    Exit status 0 only if nothing is left, 1 and the list if something is, 2 if the file is no report.
    """
    if contains is not None and Folded(contains).is_empty:
        raise InvalidRequest("--contains: is empty, which everything contains; give the text to look for")
    read = _read(file)
    verdict = with_storage(lambda storage: verify(storage, read, contains), doing="searching what is left")
    if as_json:
        terminal.echo_json(verdict.as_json(), indent=2)
    else:
        for line in _lines(verdict, read):
            terminal.echo(terminal.field(line))
    if not verdict.nothing_left:
        raise typer.Exit(1)


@app.command(name="report")
def show_report(
    erasure_id: Annotated[str | None, typer.Argument(help="An erasure's ID; the last one without.")] = None,
    form: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT", help="json, which is signed; md or html: a page to read and file."),
    ] = "json",
) -> None:
    """Print the signed report of an erasure again, or a page about it for people."""
    if form not in erasure_page.FORMATS:
        raise typer.BadParameter(f"must be one of {', '.join(erasure_page.FORMATS)}", param_hint="--format")

    async def work(storage: Storage) -> Mapping[str, Any]:
        row = await Erasures(storage, actor()).find(erasure_id)
        return await report(storage.database, row)

    found = with_storage(work)
    if form == "json":
        terminal.echo_json(found, indent=2)
    else:
        terminal.echo((erasure_page.markdown if form == "md" else erasure_page.html)(found), nl=False)


def _hand_over(made: Mapping[str, Any], report_file: Path | None, *, as_json: bool) -> None:
    text = terminal.as_json(made, indent=2)
    if report_file is not None:
        try:
            with replaced_file(report_file) as file:
                file.write(f"{text}\n".encode())
        except OSError as error:
            terminal.fail(f"the erasure is done, but {report_file} can't be written: {error.strerror or error}")
            report_file = None
    if as_json:
        terminal.echo(text)
        return
    for line in _summary(made):
        terminal.echo(terminal.field(line))
    if report_file is not None:
        terminal.echo(f"The signed report is in {report_file}; check it with 'memstore forget verify {report_file}'.")
    else:
        terminal.echo(f"For the signed report: 'memstore forget report {made['erasure_id']}'.")


def _check_place(report_file: Path) -> None:
    """Refuse a report that could not be written, and leave nothing there: a report appears when it is whole."""
    if report_file.is_char_device():
        return
    try:
        with tempfile.TemporaryFile(dir=report_file.parent):
            pass
    except OSError as error:
        raise InvalidRequest(f"--report: {report_file} can't be written: {error.strerror or error}") from None


def _note(line: str) -> None:
    terminal.echo(f"forget: {terminal.field(line)}", err=True)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        read: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        terminal.fail(f"{file}: can't be read as a report: {error}")
        raise typer.Exit(_UNREADABLE) from None
    if not is_report(read):
        terminal.fail(f"{file}: is no report of 'memstore forget'")
        raise typer.Exit(_UNREADABLE)
    found: Mapping[str, Any] = read
    return found


# What is shown


def _show(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        terminal.echo_json(wire.planned(plan), indent=2)
        return
    if plan.is_empty:
        for line in _kept(plan):
            terminal.echo(terminal.field(line))
        terminal.echo("Nothing matches; nothing would be erased.")
        return
    if plan.stores:
        rows: list[tuple[object, ...]] = [
            (one.id, "(deleted before)" if one.name is None else one.name, one.memories, one.versions, one.sessions,
             "yes" if one.held_at else "", *((", ".join(one.found_in),) if one.found_in else ()))
            for one in plan.stores
        ]  # fmt: skip
        heads = ("store", "name", "memories", "versions", "sessions", "held")
        terminal.echo(_table((*heads, "found in") if plan.stores[0].found_in else heads, rows))
    if plan.memories:
        rows_of_memories = [
            (one.id, one.path, "live" if one.live else "deleted", one.versions, one.bytes, one.store_id)
            for one in plan.memories
        ]
        terminal.echo(_table(("memory", "path", "state", "versions", "bytes", "store"), rows_of_memories))
    for hit in plan.hits:
        mark = terminal.field(f"{hit.before}[{hit.text}]{hit.after}")
        terminal.echo(f"{hit.store_id}  {terminal.field(hit.path)}  {hit.place}: …{mark}…")
    if texts := [(one["kind"], one["id"], ", ".join(one["fields"])) for one in plan.changed_texts]:
        terminal.echo(_table(("texts of", "id", "fields"), texts))
    for line in _kept(plan):
        terminal.echo(terminal.field(line))
    if plan.unreadable:
        terminal.echo(f"{plan.unreadable} contents could not be read, and so not be searched; see 'memstore fsck'.")
    held = sorted({one.id for one in plan.stores if one.held_at} | {k for k, v in plan.touched.items() if v["held_at"]})
    if held:
        terminal.echo(f"Under legal hold, so nothing could be erased: {', '.join(held)}.")
    whole, parts = len(plan.stores), len(plan.memories)
    what = [f"{_stores(whole)}, whole"] if whole else []
    what += [f"{_memories(parts)} with all versions"] if parts else []
    what += [f"texts of {len(texts):,} other record{'' if len(texts) == 1 else 's'}"] if texts else []
    terminal.echo(f"Would be erased: {'; '.join(what)}. Nothing has changed; add --yes to do it.")


def _kept(plan: Plan) -> list[str]:
    """What holds the text and stays."""
    return [
        f"Stays, since it is in use: {one['kind']} {one['id']}: {', '.join(one['kept'])}" for one in plan.kept_texts
    ]


def _stores(number: int) -> str:
    return f"{number:,} store{'' if number == 1 else 's'}"


def _memories(number: int) -> str:
    return f"{number:,} {'memory' if number == 1 else 'memories'}"


def _counted(counts: Mapping[str, int]) -> str:
    versions, texts = counts["versions"], counts.get("texts", 0)
    others = f", texts of {texts:,} other record{'' if texts == 1 else 's'}" if texts else ""
    return (
        f"{_stores(counts['stores'])}, {_memories(counts['memories'])}, "
        f"{versions:,} version{'' if versions == 1 else 's'}{others}"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns: numbers to the right, texts to the left."""
    shown = [list(heads), *([terminal.field(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in shown) for column in range(len(heads))]
    numbers = [isinstance(value, int) for value in rows[0]]
    return "\n".join(
        "  ".join(
            text.rjust(width) if is_number else text.ljust(width)
            for text, width, is_number in zip(line, widths, numbers, strict=True)
        ).rstrip()
        for line in shown
    )


def _summary(made: Mapping[str, Any]) -> list[str]:
    counts = made["counts"]
    named = f"{made['reference']}: " if made.get("reference") else ""
    lines = [f"{named}Erased {_counted(counts)} ({made['erasure_id']}, {made['finished_at']})."]
    for place in made["places"]:
        lines.append(f"  {place['place']}: {'done' if place['complete'] else 'not everything was reached'}")
        lines += [f"    {why}" for why in place["not_reached"]]
    lines += _readers(made["feed_readers"]["not_passed"])
    lines.append("Out of reach:")
    lines += [f"  {what}" for what in made["out_of_reach"]]
    return lines


def _readers(counts: Mapping[str, int]) -> list[str]:
    tokens, keys, ended = (counts[name] for name in ("session_tokens", "api_keys", "ended"))
    if not tokens + keys + ended:
        return ["Every reader of the last 30 days has heard of it."]
    return [
        f"May still hold a copy, of the readers of the last 30 days: {tokens:,} session token{_s(tokens)} and "
        f"{keys:,} API key{_s(keys)} that have not heard of it yet, and {ended:,} that ended before they could "
        "('memstore forget report' counts again)"
    ]


def _s(number: int) -> str:
    return "" if number == 1 else "s"


def _lines(verdict: Verdict, read: Mapping[str, Any]) -> list[str]:
    lines = [f"report: {problem}" for problem in verdict.problems]
    lines += [f"left: {finding.place}: {finding.what}" for finding in verdict.findings]
    lines += [f"not searched: {where}" for where in verdict.not_searched]
    if verdict.nothing_left:
        counts = read["counts"]
        lines.append(f"Signature good. Nothing is left of {_counted(counts)} erased by {read['finished_at']}.")
    return lines
