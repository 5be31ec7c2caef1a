"""How the author of a change is shown to people: by the name they gave, with the ID at hand."""

from collections.abc import Mapping
from typing import Any

from rich.cells import cell_len

from app.cli import terminal
from app.cli.tables import cut
from app.contract.actors import API_KEY

WIDTH, NARROW = 24, 14
"""Cells that an author takes on a terminal at most; and where there is less room, without the ID."""
_ENDING = 6
_TAG = 4


class Authors:
    """Labels for the authors of rows (`actor_type`, `actor_id`)."""

    def __init__(self, names: Mapping[str, str], *, only_ids: bool = False) -> None:
        """names: by ID. only_ids: IDs are shown instead."""
        self._names = names
        self._only_ids = only_ids

    def label(self, row: Mapping[str, Any], *, narrow: bool = False) -> str:
        """The author of a row: `key ci`, `fix the release (sesn…vyVGWi)`, `cli:root`; in a pipe with whole IDs."""
        actor_id, kind = row["actor_id"], row["actor_type"]
        if actor_id is None:
            return "-"
        name = self._names.get(actor_id)
        if name is None or self._only_ids:
            return str(actor_id) if self._only_ids or not terminal.is_terminal() else _short(actor_id)
        name = terminal.field(name)
        if not terminal.is_terminal():
            return f"{'key ' if kind == API_KEY else ''}{name} ({actor_id})"
        if kind == API_KEY:
            return cut(f"key {name}", NARROW if narrow else WIDTH)
        if narrow:
            return cut(name, NARROW)
        mark = f" ({_short(actor_id)})"
        return cut(name, WIDTH - cell_len(mark)) + mark

    def is_meant(self, row: Mapping[str, Any], text: str) -> bool:
        """Whether a person who types `text` means the author of this row: its ID, the beginning of one, or its name."""
        actor_id = row["actor_id"] or ""
        name = self._names.get(actor_id, "")
        return bool(text) and (actor_id.startswith(text) or name == text or f"key {name}" == text)


def _short(actor_id: str) -> str:
    """`sesn…vyVGWi`; other authors' IDs are names and stay, as long as they are short."""
    tag, separator, _ = actor_id.partition("_")
    if separator and tag in ("apikey", "sesn") and len(actor_id) > WIDTH:
        return f"{tag[:_TAG]}…{actor_id[-_ENDING:]}"
    return cut(terminal.field(actor_id), WIDTH)
