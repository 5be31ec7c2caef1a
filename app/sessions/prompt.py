"""The note about its memory stores that an agent should find in its system prompt (contract, 5.4): no I/O."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.contract.actors import READ_ONLY

_HEADING = "# Memory stores"
_WHAT_THEY_ARE = (
    "These directories outlive this session. Each file in them is one memory: text that earlier sessions left for "
    "you, and that later ones will find."
)
_HABITS = (
    "Before you start, list the directories and read what bears on the task. When you learn something worth keeping, "
    "save it there as a small text file with a telling name, and fix notes that turned out wrong. Keep within these "
    "directories: nothing else below /mnt/memory can be written."
)
_READ_ONLY_HABITS = "Before you start, list the directories and read what bears on the task. They can't be written."


def memory_prompt(attachments: Sequence[Mapping[str, Any]]) -> str:
    """The note, in Markdown; empty without attachments.

    attachments: rows or objects with `name`, `mount_path`, `access`, `description`, and `instructions` (or None).
    """
    if not attachments:
        return ""
    can_write = any(attachment["access"] != READ_ONLY for attachment in attachments)
    stores = "\n".join(_item(attachment) for attachment in attachments)
    return "\n\n".join([_HEADING, _WHAT_THEY_ARE, stores, _HABITS if can_write else _READ_ONLY_HABITS])


def _item(attachment: Mapping[str, Any]) -> str:
    access = "read-only" if attachment["access"] == READ_ONLY else "read-write"
    lines = [f"- {attachment['name']}: {attachment['mount_path']}/ ({access})"]
    if attachment["description"]:
        lines.append(_indented(attachment["description"]))
    if attachment["instructions"]:
        lines.append(_indented(f"Instructions: {attachment['instructions']}"))
    return "\n".join(lines)


def _indented(text: str) -> str:
    """Inside its item, whatever lines it has."""
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())
