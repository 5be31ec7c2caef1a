"""What an agent is at one version: its fields, complete and checked (contract, 5.5).

A definition is a JSON object: `name`, `description`, `model`, `system`, `tools`, `mcp_servers`, `skills`, `multiagent`,
`execution_identity` and `metadata`, each as the wire shows it. In `multiagent` alone an entry may be
`{"type": "self"}`, which stands for the version that holds it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from app.agents.tool_rules import check_tools, complete_tools
from app.contract import text
from app.contract.errors import InvalidRequest
from app.contract.limits import AGENT_DESCRIPTION_MAX_CHARACTERS, AGENT_NAME_MAX_CHARACTERS

Definition = dict[str, Any]
Given = Mapping[str, Any]
"""The fields that a request has; one that is absent was not sent."""

_DEFAULT_EFFORT = {"type": "high"}
_ENABLED, _DISABLED = {"type": "enabled"}, {"type": "disabled"}
_SPAWNING = {"type": "enabled", "inline_agents": _ENABLED, "predefined_agents": []}
_MEMBERS: Mapping[str, Any] = {"advisor": _DISABLED, "subagents": _SPAWNING, "workflows": _SPAWNING}

_EMPTY: Definition = {
    "name": "",
    "description": None,
    "model": None,
    "system": None,
    "tools": [],
    "mcp_servers": [],
    "skills": [],
    "multiagent": None,
    "execution_identity": {"type": "service_account"},
    "metadata": {},
}


def created(given: Given) -> Definition:
    """The first definition of an agent (`app.agents.wire.CreateAgent`).

    Raises:
        InvalidRequest: a field breaks its rule.

    """
    return changed(_EMPTY, given)


def changed(current: Definition, given: Given) -> Definition:
    """The definition that an update leaves (`app.agents.wire.UpdateAgent`); equal to `current` if nothing changes.

    Raises:
        InvalidRequest: a field breaks its rule.

    """
    new = {**current, **{name: _FIELDS[name](value, current[name]) for name, value in given.items() if name in _FIELDS}}
    check_tools(new["tools"], new["mcp_servers"])
    return new


def overridden(current: Definition, given: Given) -> Definition:
    """The definition as one session has it: `model`, `system`, `tools`, `mcp_servers`, `skills` may be replaced.

    Raises:
        InvalidRequest: a field breaks its rule.

    """
    # Only `system` can be taken away; any other null is as good as absent.
    new = changed(current, {name: value for name, value in given.items() if value is not None or name == "system"})
    # How hard the model works belongs to the agent: an override of it is ignored.
    return {**new, "model": {**new["model"], "effort": current["model"]["effort"]}}


def rosters(multiagent: Mapping[str, Any] | None) -> Iterator[list[dict[str, Any]]]:
    """The lists in a `multiagent` that name agents."""
    for holder in (multiagent, *((multiagent or {}).get(member) for member in ("subagents", "workflows"))):
        for field in ("agents", "predefined_agents"):
            if holder is not None and field in holder:
                yield holder[field]


def _name(given: str, before: str) -> str:
    return text.check_name(given, AGENT_NAME_MAX_CHARACTERS)


def _description(given: str | None, before: str | None) -> str | None:
    return text.check_description(given or "", AGENT_DESCRIPTION_MAX_CHARACTERS) or None


def _system(given: str | None, before: str | None) -> str | None:
    return text.check_system(given or "") or None


def _metadata(given: Mapping[str, str | None] | None, before: Mapping[str, str]) -> dict[str, str]:
    return text.merge_metadata(before, given or {})


def _model(given: str | Given, before: Mapping[str, Any] | None) -> dict[str, Any]:
    model = {"id": given} if isinstance(given, str) else given
    effort = model.get("effort") or (before["effort"] if before else _DEFAULT_EFFORT)
    return {
        "id": model["id"],
        "effort": {"type": effort} if isinstance(effort, str) else effort,
        "inference_geo": model.get("inference_geo"),
        "speed": model.get("speed") or "standard",
    }


def _mcp_servers(given: list[Given] | None, before: Any) -> list[dict[str, Any]]:
    names = [server["name"] for server in given or []]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(f"mcp_servers: the name {name!r} is there more than once")
    return [dict(server) for server in given or []]


def _skills(given: list[Given] | None, before: Any) -> list[dict[str, Any]]:
    return [{**skill, "version": skill.get("version") or "latest"} for skill in given or []]


def _execution_identity(given: Given | None, before: Any) -> dict[str, Any]:
    return dict(given or {"type": "service_account"})


def _tools(given: list[Given] | None, before: Any) -> list[dict[str, Any]]:
    return complete_tools(given or [])


def _multiagent(given: Given | None, before: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if given is None:
        return None
    if given["type"] == "coordinator":
        return {"type": "coordinator", "agents": [_entry(entry) for entry in given["agents"]]}
    stored = before if before is not None and before["type"] == given["type"] else _MEMBERS
    members = {member: _member(member, given, stored[member]) for member in _MEMBERS}
    return {"type": given["type"], **members}


def _member(member: str, given: Given, stored: Mapping[str, Any]) -> dict[str, Any]:
    """One member, level by level: what is absent keeps its value, what is null or of another type its default."""
    if member not in given:
        return dict(stored)
    value = given[member]
    if value is None:
        return dict(_MEMBERS[member])
    if value["type"] == "disabled":
        return dict(_DISABLED)
    if member == "advisor":
        return {"type": "enabled", "model": value["model"]}
    kept = stored if stored["type"] == "enabled" else _SPAWNING
    inline, predefined = kept["inline_agents"], kept["predefined_agents"]
    if "inline_agents" in value:
        inline = dict(value["inline_agents"] or _ENABLED)
    if "predefined_agents" in value:
        predefined = [_entry(entry) for entry in value["predefined_agents"] or []]
    if inline == _DISABLED and not predefined:
        raise InvalidRequest(
            f"multiagent.{member}: with inline_agents disabled, predefined_agents must name at least one agent"
        )
    return {"type": "enabled", "inline_agents": inline, "predefined_agents": predefined}


def _entry(given: str | Given) -> dict[str, Any]:
    return {"type": "agent", "id": given} if isinstance(given, str) else dict(given)


_FIELDS: Mapping[str, Callable[[Any, Any], Any]] = {
    "name": _name,
    "description": _description,
    "model": _model,
    "system": _system,
    "tools": _tools,
    "mcp_servers": _mcp_servers,
    "skills": _skills,
    "multiagent": _multiagent,
    "execution_identity": _execution_identity,
    "metadata": _metadata,
}
"""What is given and what was there before to what is there now, by field."""
