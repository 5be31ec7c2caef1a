"""Names that look like settings and are none: a mistyped one would be ignored without a word."""

import difflib
import os

from app.cli import mount_settings, terminal
from app.client.credentials import WORKSPACE
from app.settings import PREFIX, Settings

_ELSEWHERE = (*mount_settings.VARIABLES, "MEMSTORE_CUSTODY", WORKSPACE)
"""Read by the mount, its daemon, and the client of programs."""
_TESTS = f"{PREFIX}TEST_"


def unknown_settings() -> list[str]:
    """A sentence for each `MEMSTORE_*` name of the environment or of `.env` that nothing reads."""
    known = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields] + list(_ELSEWHERE)
    given = {*os.environ, *mount_settings.of_file()}
    sentences = []
    for name in sorted(given):
        # pydantic-settings reads names in any case.
        if not name.upper().startswith(PREFIX) or name.upper() in known or name.startswith(_TESTS):
            continue
        near = difflib.get_close_matches(name.upper(), known, 1)
        hint = f"; did you mean {near[0]}?" if near else "; docs/reference/settings.md lists the settings"
        sentences.append(f"{name!r} is not a setting and has no effect{hint}")
    return sentences


def warn_of_unknown_settings() -> None:
    """Print these sentences on standard error."""
    for sentence in unknown_settings():
        terminal.echo(f"memstore: {sentence}", err=True)
