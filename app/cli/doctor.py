"""`memstore doctor`: looks at all that a server or a mount on this host needs, and says what to do."""

import asyncio
import logging
import textwrap
from dataclasses import asdict
from typing import Annotated

import typer

from app.cli import check_host, check_storage, terminal
from app.cli.findings import Findings

_WIDTH = 110


def _check(findings: Findings) -> None:
    check_host.check_python(findings)
    settings = check_storage.check_settings(findings)
    if settings is not None:
        check_storage.check_places(findings, settings)

        async def storage() -> None:
            installation = await check_storage.check_database(findings, settings)
            await check_storage.check_blob_store(findings, settings, installation)

        asyncio.run(storage())
    check_host.check_fuse(findings)
    check_host.check_namespaces(findings)
    check_host.check_kept(findings)
    check_host.check_server(findings)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Look at all that a server or a mount on this host needs; exit status 1 if something failed."""
    # What the parts print is in the findings.
    logging.getLogger().addHandler(logging.NullHandler())
    findings = Findings()
    _check(findings)
    if as_json:
        state = "failed" if findings.any_failed else "ok"
        terminal.echo_json({"state": state, "findings": [asdict(finding) for finding in findings.found]})
    else:
        _print(findings)
    if findings.any_failed:
        raise typer.Exit(1)


def _print(findings: Findings) -> None:
    width = max(len(finding.check) for finding in findings.found)
    indent = " " * (width + 11)
    for finding in findings.found:
        head = f"{finding.state:7}  {finding.check:{width}}  "
        terminal.echo(textwrap.fill(finding.message, _WIDTH, initial_indent=head, subsequent_indent=indent))
        if finding.advice:
            terminal.echo(textwrap.fill(f"→ {finding.advice}", _WIDTH, initial_indent=indent, subsequent_indent=indent))
    states = [finding.state for finding in findings.found]
    said = f"{states.count('ok')} ok, {states.count('warning')} to look at, {states.count('failed')} failed"
    terminal.echo(said + (f", {skipped} not looked at" if (skipped := states.count("skipped")) else ""))
