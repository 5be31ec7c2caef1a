"""What a person wrote inside a stored JSON value, told apart from what the server put there.

The names of fields, types and kinds of an agent or an environment are words of the API, not of a person: a search for
`Ed` must not find every `edited`, and a search for `Anna` no ID in which chance put these letters.
"""

import re
from collections.abc import Callable
from typing import Any

from app.erasure.folding import Folded

ERASED = "[erased]"
"""What stands where a text was."""

NEUTRAL_NAME = "Erased memory store"
"""What a session shows of a store that was erased; the mount path is made from the store's ID."""

_ID = r"[a-z]+_01[1-9A-HJ-NP-Za-km-z]{22}(?:bootstrap)?"
_MADE = re.compile(rf"{_ID}|/mnt/memory/memstore-01[1-9a-z]{{22}}(?:-\d+)?")
_LEFT = re.compile(rf"{re.escape(ERASED)}(?: {_ID})?|{NEUTRAL_NAME}")
_MODEL = re.compile("claude-[a-z0-9.-]+")
_FREE = frozenset({"metadata", "input_schema"})
"""Fields in which every name and every value is the caller's own."""
_KINDS = frozenset({"type", "effort", "speed", "inference_geo"})
"""Fields whose values are words of the API."""
_FIELDS = frozenset(
    {
        *(
            "advisor",
            "agents",
            "allow_mcp_servers",
            "allow_package_managers",
            "allowed_domains",
            "allowed_hosts",
            "apt",
        ),
        *("blocked_domains", "cargo", "city", "client_tool_results", "config", "configs", "country", "default_config"),
        *(
            "description",
            "effort",
            "enabled",
            "execution_identity",
            "gem",
            "go",
            "id",
            "inference_geo",
            "inline_agents",
        ),
        *("input_schema", "max_content_tokens", "mcp_server_name", "mcp_servers", "metadata", "model", "multiagent"),
        *("name", "networking", "npm", "packages", "permission_policy", "pip", "predefined_agents", "region"),
        *("role_arn", "server_tool_results", "skill_id", "skills", "speed", "subagents", "system", "timezone", "tools"),
        *("type", "url", "url_sources", "user_input", "user_location", "version", "workflows"),
    }
)
"""The names of fields that the API has; any other name is searched as a text."""
_WORDS = frozenset({"bash", "edit", "glob", "grep", "latest", "read", "web_fetch", "web_search", "write"})
"""The vendor's own tools, which an agent names, and the version of a skill that follows it."""


def is_made(text: str) -> bool:
    """Whether a whole text is an ID that the server made, or the mount path of one."""
    return _MADE.fullmatch(text) is not None


def is_left_behind(text: str) -> bool:
    """Whether a whole text is what an erasure puts in the place of one."""
    return _LEFT.fullmatch(text) is not None


def blanked(value: Any, wanted: Folded, *, is_free: bool = False) -> Any:
    """The value without the text: `ERASED` stands for each string that has it, and a pair named by it is gone.

    So the text is there if this is another value. is_free: every name and every value is the caller's, as in metadata.
    """
    return _walk(value, lambda text: None if wanted.is_in(text) else text, is_free=is_free)


def _walk(value: Any, judge: Callable[[str], str | None], *, is_free: bool, field: str = "") -> Any:
    """A copy, with what `judge` gives for each text that is a person's; None: it must not stay."""
    if isinstance(value, dict):
        kept = {}
        for name, held in value.items():
            if (is_free or name not in _FIELDS) and judge(name) is None:
                continue
            kept[name] = _walk(held, judge, is_free=is_free or name in _FREE, field=name)
        return kept
    if isinstance(value, list):
        return [_walk(held, judge, is_free=is_free, field=field) for held in value]
    if not isinstance(value, str) or is_left_behind(value) or (not is_free and _is_word(value, field)):
        return value
    judged = judge(value)
    return ERASED if judged is None else judged


def _is_word(text: str, field: str) -> bool:
    if field in _KINDS or text in _WORDS:
        return True
    return is_made(text) or (field == "id" and _MODEL.fullmatch(text) is not None)
