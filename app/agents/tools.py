"""Shapes of an agent's tools as they are answered (contract, 5.5): complete, every key always there."""

from typing import Annotated, Any, Literal, Required

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict


class AlwaysAllow(TypedDict):
    """Calls run without a question."""

    type: Literal["always_allow"]


class AlwaysAsk(TypedDict):
    """Calls wait for the user's consent."""

    type: Literal["always_ask"]


class Auto(TypedDict):
    """Each call is judged on its own."""

    type: Literal["auto"]


Policy = Annotated[AlwaysAllow | AlwaysAsk | Auto, Field(discriminator="type")]


class ToolDefaults(TypedDict):
    """What holds for each tool of a set that has no config of its own."""

    enabled: bool
    permission_policy: Policy


class BashTool(ToolDefaults):
    """The bash tool."""

    name: Literal["bash"]
    type: Literal["bash"]


class EditTool(ToolDefaults):
    """The edit tool."""

    name: Literal["edit"]
    type: Literal["edit"]


class ReadTool(ToolDefaults):
    """The read tool."""

    name: Literal["read"]
    type: Literal["read"]


class WriteTool(ToolDefaults):
    """The write tool."""

    name: Literal["write"]
    type: Literal["write"]


class GlobTool(ToolDefaults):
    """The glob tool."""

    name: Literal["glob"]
    type: Literal["glob"]


class GrepTool(ToolDefaults):
    """The grep tool."""

    name: Literal["grep"]
    type: Literal["grep"]


class ToolReference(TypedDict):
    """One tool by its name."""

    type: Literal["tool_reference"]
    name: str


class EverySource(TypedDict):
    """Every URL from this source may be fetched."""

    type: Literal["all"]


class NoSource(TypedDict):
    """No URL from this source may be fetched."""

    type: Literal["none"]


class OnlySources(TypedDict):
    """URLs from the results of these tools alone may be fetched."""

    type: Literal["only"]
    tools: list[ToolReference]


class ExceptSources(TypedDict):
    """URLs from the results of all but these tools may be fetched."""

    type: Literal["except"]
    tools: list[ToolReference]


_ToolSources = Annotated[EverySource | NoSource | OnlySources | ExceptSources, Field(discriminator="type")]


class UrlSources(TypedDict):
    """Where URLs may come from that are fetched; null allows all."""

    client_tool_results: _ToolSources | None
    server_tool_results: _ToolSources | None
    user_input: Annotated[EverySource | NoSource, Field(discriminator="type")] | None


class WebFetchTool(ToolDefaults):
    """The web_fetch tool."""

    name: Literal["web_fetch"]
    type: Literal["web_fetch"]
    url_sources: UrlSources | None
    allowed_domains: list[str] | None
    blocked_domains: list[str] | None
    max_content_tokens: int | None


class UserLocation(TypedDict):
    """Roughly where the user is."""

    type: Literal["approximate"]
    city: str | None
    country: str | None
    region: str | None
    timezone: str | None


class WebSearchTool(ToolDefaults):
    """The web_search tool."""

    name: Literal["web_search"]
    type: Literal["web_search"]
    allowed_domains: list[str] | None
    blocked_domains: list[str] | None
    user_location: UserLocation | None


class AgentToolset(TypedDict):
    """The built-in tools."""

    type: Literal["agent_toolset_20260401"]
    configs: list[
        Annotated[
            BashTool | EditTool | ReadTool | WriteTool | GlobTool | GrepTool | WebFetchTool | WebSearchTool,
            Field(discriminator="type"),
        ]
    ]
    default_config: ToolDefaults


class McpTool(ToolDefaults):
    """One tool of an MCP server."""

    name: str


class McpToolset(TypedDict):
    """The tools of one MCP server."""

    type: Literal["mcp_toolset"]
    mcp_server_name: str
    configs: list[McpTool]
    default_config: ToolDefaults


@with_config(ConfigDict(extra="allow"))
class InputSchema(TypedDict, total=False):
    """A JSON Schema of a custom tool's input, as it was given."""

    type: Required[Literal["object"]]
    properties: dict[str, Any] | None
    required: list[str] | None


class CustomTool(TypedDict):
    """A tool that the caller runs."""

    type: Literal["custom"]
    name: str
    description: str
    input_schema: InputSchema


Tool = Annotated[AgentToolset | McpToolset | CustomTool, Field(discriminator="type")]
