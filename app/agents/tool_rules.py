"""What an agent's tools mean when parts of them are left out, and how they must fit each other (contract, 5.5)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.contract.errors import InvalidRequest

Tool = dict[str, Any]
Given = Mapping[str, Any]

_DEFAULT_POLICIES = {"agent_toolset_20260401": "always_allow", "mcp_toolset": "always_ask"}
_DOMAINS = ("allowed_domains", "blocked_domains")
_SERVER_TOOLS = frozenset({"web_search", "web_fetch"})
_SOURCES = ("client_tool_results", "server_tool_results", "user_input")
_LOCATION = ("city", "country", "region", "timezone")


def complete_tools(given: Sequence[Given]) -> list[Tool]:
    """The tools with every key that the wire shows."""
    return [dict(tool) if tool["type"] == "custom" else _toolset(tool) for tool in given]


def _toolset(given: Given) -> Tool:
    policy = {"type": _DEFAULT_POLICIES[given["type"]]}
    defaults = _settings(given.get("default_config") or {}, {"enabled": True, "permission_policy": policy})
    complete = _mcp_tool if given["type"] == "mcp_toolset" else _built_in_tool
    configs = [complete(config, defaults) for config in given.get("configs", [])]
    return {**given, "configs": configs, "default_config": defaults}


def _settings(given: Given, defaults: Given) -> dict[str, Any]:
    enabled, policy = given.get("enabled"), given.get("permission_policy")
    return {
        "enabled": defaults["enabled"] if enabled is None else enabled,
        "permission_policy": policy or defaults["permission_policy"],
    }


def _mcp_tool(given: Given, defaults: Given) -> Tool:
    return {"name": given["name"], **_settings(given, defaults)}


def _built_in_tool(given: Given, defaults: Given) -> Tool:
    tool = {"type": given["name"], "name": given["name"], **_settings(given, defaults)}
    if given["name"] in _SERVER_TOOLS:
        tool |= {field: given.get(field) for field in _DOMAINS}
    if given["name"] == "web_search":
        tool["user_location"] = _location(given.get("user_location"))
    if given["name"] == "web_fetch":
        tool["max_content_tokens"] = given.get("max_content_tokens")
        tool["url_sources"] = _sources(given.get("url_sources"))
    return tool


def _location(given: Given | None) -> dict[str, Any] | None:
    return None if given is None else {"type": given["type"], **{field: given.get(field) for field in _LOCATION}}


def _sources(given: Given | None) -> dict[str, Any] | None:
    if given is None:
        return None
    values = {source: given.get(source) for source in _SOURCES}
    return {source: {"type": value} if isinstance(value, str) else value for source, value in values.items()}


def check_tools(tools: Sequence[Tool], mcp_servers: Sequence[Given]) -> None:
    """Refuse tools that do not fit each other or the servers.

    Raises:
        InvalidRequest: a custom name is there twice, a server is unknown or unused, or a list of domains or of
            sources contradicts another part.

    """
    custom = [tool["name"] for tool in tools if tool["type"] == "custom"]
    for name in custom:
        if custom.count(name) > 1:
            raise InvalidRequest(f"tools: the custom tool {name!r} is there more than once")
    servers = {server["name"] for server in mcp_servers}
    used = {tool["mcp_server_name"] for tool in tools if tool["type"] == "mcp_toolset"}
    for name in sorted(used - servers):
        raise InvalidRequest(f"tools: mcp_server_name {name!r} is none of mcp_servers")
    for name in sorted(servers - used):
        raise InvalidRequest(f"mcp_servers: {name!r} is used by no mcp_toolset in tools")
    for config in _web_tools(tools):
        _check_web_tool(config, frozenset(custom))


def _web_tools(tools: Sequence[Tool]) -> Iterator[Tool]:
    for tool in tools:
        if tool["type"] == "agent_toolset_20260401":
            yield from (config for config in tool["configs"] if config["name"] in _SERVER_TOOLS)


def _check_web_tool(config: Tool, custom: frozenset[str]) -> None:
    if all(config[field] is not None for field in _DOMAINS):
        raise InvalidRequest(f"tools: {config['name']}: give allowed_domains or blocked_domains, not both")
    sources = config.get("url_sources")
    if sources is None:
        return
    if all(sources[source] == {"type": "none"} for source in _SOURCES):
        raise InvalidRequest("tools: web_fetch: url_sources can't all be none; disable the tool instead")
    for source, known in (("client_tool_results", custom), ("server_tool_results", _SERVER_TOOLS)):
        names = [reference["name"] for reference in (sources[source] or {}).get("tools", [])]
        for name in names:
            if name not in known:
                raise InvalidRequest(f"tools: web_fetch: url_sources.{source} names {name!r}, which is no such tool")
            if names.count(name) > 1:
                raise InvalidRequest(f"tools: web_fetch: url_sources.{source} names {name!r} more than once")
